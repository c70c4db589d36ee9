//! `PIPELINE_VERIFY`: a pipeline's definition, shown and checked.

use std::io;
use std::process::{Command, Stdio};

use super::{Failure, PipelineFile, say};

/// Shows the definition, without the values of properties, and checks the syntax of the script.
pub(super) fn run(file: &PipelineFile) -> Result<(), Failure> {
    let yaml = serde_saphyr::to_string(&file.content)
        .map_err(|error| Failure::Said(format!("the definition cannot be shown as YAML: {error}")))?;
    say(format_args!("Pipeline {}:", file.name));
    say(yaml.trim_end());
    let content = &file.content;
    match &content.inline_script {
        Some(script) => check_syntax(&file.name, script),
        None if content.actions.is_empty() && content.data_components.is_empty() => Err(Failure::Said(
            "The pipeline has no script, no actions and no data components: there is nothing to run.".to_owned(),
        )),
        None => {
            say("The definition is well formed.");
            Ok(())
        }
    }
}

fn check_syntax(name: &str, script: &str) -> Result<(), Failure> {
    let checked = Command::new("bash").args(["-n", "-c", script, name]).stdin(Stdio::null()).status();
    match checked {
        Ok(status) if status.success() => {
            say("The script's syntax is right.");
            Ok(())
        }
        Ok(_) => Err(Failure::Said("The script has a syntax error.".to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(Failure::Said("bash was not found on the PATH.".to_owned()))
        }
        Err(error) => Err(error.into()),
    }
}
