//! `PIPELINE_RUN` of a pipeline that uses Meltano, or whose repository is a clone. A plain script in a repository of this server's needs nothing
//! of this: it is run as it is.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use super::meltano::Meltano;
use super::settings::settings;
use super::{Failure, PipelineFile};

/// Sees to it that what the pipeline uses is there, and becomes what it runs: its script, or Meltano with its actions. So the exit code
/// is that of what is run, and signals reach it. Only a failure comes back.
pub(super) fn run(file: &PipelineFile, meltano: &Meltano) -> Failure {
    become_run(file, meltano).unwrap_or_else(|failure| failure)
}

fn become_run(file: &PipelineFile, meltano: &Meltano) -> Result<Failure, Failure> {
    if let (false, Some(script)) = (file.uses_meltano(), &file.content.inline_script) {
        // What is in the environment is the script's, and so are the settings.
        let error = Command::new("bash").args(["-c", script, &file.name]).envs(settings().iter()).exec();
        return Ok(Failure::program("bash", error));
    }
    let program = meltano.find()?;
    let runs = meltano.for_pipeline(&program, Path::new("."), &file.id)?;
    runs.install(&file.plugins)?;
    runs.clear(&file.id)?;
    Ok(match &file.content.inline_script {
        Some(script) => runs.become_script(script, &file.name),
        None => runs.become_run(&file.blocks()?),
    })
}
