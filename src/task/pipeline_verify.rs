//! `PIPELINE_VERIFY`: a pipeline's definition and configuration, shown and tested.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use super::meltano::Meltano;
use super::{Failure, PipelineFile, say};

/// Shows the definition, without the values of properties, and the configuration of what it uses, in which Meltano hides what is
/// sensitive. Tests the extractors, whether what is to run can be put together, and the syntax of the script.
pub(super) fn run(file: &PipelineFile, meltano: &Meltano) -> Result<(), Failure> {
    let yaml = serde_saphyr::to_string(&file.content)
        .map_err(|error| Failure::Said(format!("the definition cannot be shown as YAML: {error}")))?;
    say(format_args!("Pipeline {}:", file.name));
    say(yaml.trim_end());
    let script = file.content.inline_script.as_deref();
    if let Some(script) = script {
        check_syntax(&file.name, script)?;
    } else if !file.uses_meltano() {
        return Err(Failure::Said(
            "The pipeline has no script, no actions and no data components: there is nothing to run.".to_owned(),
        ));
    }
    if !file.uses_meltano() {
        return Ok(());
    }
    let program = meltano.find()?;
    let runs = meltano.for_pipeline(&program, Path::new("."), &file.id)?;
    runs.install(&file.plugins)?;
    let _in_use = runs.in_use()?;
    for plugin in &file.plugins {
        say(format_args!("Configuration of {}:", plugin.name));
        runs.show_configuration(plugin)?;
    }
    for plugin in file.plugins.iter().filter(|plugin| plugin.is_extractor()) {
        say(format_args!("Testing {}.", plugin.name));
        runs.test(plugin)?;
    }
    if script.is_none() {
        runs.dry_run(&file.blocks()?)?;
    }
    say("The pipeline's configuration is right.");
    Ok(())
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
        Err(error) => Err(Failure::program("bash", error)),
    }
}
