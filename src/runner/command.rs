//! What a job of each type runs.

use std::io;
use std::time::Duration;

use crate::directory::Directory;
use crate::jobs::Claimed;
use crate::model::{Job, JobType, Pipeline, ResourceStatus};
use crate::supervisor::protocol::Command;
use crate::task::{self, PipelineContent, PipelineFile, Task};

/// Where programs are looked for if the server has no PATH itself.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why there is no command for a job.
pub(super) struct NoCommand {
    /// A line for its log.
    pub(super) reason: String,
    /// Whether another try may help.
    pub(super) short: bool,
}

impl NoCommand {
    fn because(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), short: false }
    }
}

/// The command for a claimed job.
pub(super) fn of(claimed: &Claimed, directory: &Directory, grace: Duration) -> Result<Command, NoCommand> {
    let job = &claimed.job;
    if job.type_ != JobType::WorkspaceInit && claimed.workspace.status == ResourceStatus::Failed {
        return Err(NoCommand::because("The workspace is FAILED. See the log of its WORKSPACE_INIT job."));
    }
    let failed_pipeline = claimed.pipeline.as_ref().is_some_and(|it| it.status == ResourceStatus::Failed);
    match (job.type_, &claimed.pipeline) {
        (JobType::PipelineRun | JobType::PipelineVerify, _) if failed_pipeline => {
            Err(NoCommand::because("The pipeline is FAILED. See the log of its PIPELINE_CONFIG job."))
        }
        (JobType::PipelineRun, Some(pipeline)) => run(claimed, pipeline, directory, grace),
        (JobType::WorkspaceInit, _) => {
            system_task(claimed, &Task::WorkspaceInit { workspace: claimed.workspace.name.clone() }, directory, grace)
        }
        // The file says what the pipeline is now; a verification, what it was when that was asked for.
        (JobType::PipelineConfig, Some(pipeline)) => {
            let file = file(pipeline, &pipeline.definition);
            system_task(claimed, &Task::PipelineConfig(file), directory, grace)
        }
        (JobType::PipelineVerify, Some(pipeline)) => {
            let file = file(pipeline, &claimed.definition);
            system_task(claimed, &Task::PipelineVerify(file), directory, grace)
        }
        (type_, _) => Err(NoCommand::because(format!("A {type_} is not for a runner."))),
    }
}

/// A script runs under bash in the repository, with the properties in its environment.
fn run(claimed: &Claimed, pipeline: &Pipeline, directory: &Directory, grace: Duration) -> Result<Command, NoCommand> {
    let Some(script) = &claimed.definition.script else {
        return Err(NoCommand::because("The pipeline has no script, and actions cannot be run yet."));
    };
    let mut environment = environment(&claimed.job);
    environment.extend(claimed.definition.properties.iter().map(|it| (it.variable(), it.value.clone())));
    Ok(Command {
        program: "bash".to_owned(),
        // The word after the script is its name, `$0`, which bash puts before its complaints.
        arguments: vec!["-c".to_owned(), script.clone(), pipeline.name.clone()],
        environment,
        directory: directory.repository(claimed.workspace.id),
        grace,
    })
}

/// A system task is done by this program itself, in a process of its own.
fn system_task(claimed: &Claimed, task: &Task, directory: &Directory, grace: Duration) -> Result<Command, NoCommand> {
    let repository = directory.repository(claimed.workspace.id);
    let place = directory.task(claimed.job.id);
    let prepared: io::Result<()> = std::fs::create_dir_all(&repository).and_then(|()| task::leave(&place, task));
    prepared.map_err(|error| NoCommand { reason: format!("The task could not be prepared: {error}"), short: true })?;
    let place = place.to_str().ok_or_else(|| NoCommand::because("The data directory's path is not UTF-8."))?;
    Ok(Command {
        program: "/proc/self/exe".to_owned(),
        arguments: vec!["task".to_owned(), place.to_owned()],
        environment: environment(&claimed.job),
        directory: repository,
        grace,
    })
}

/// What every job finds in its environment, and nothing else of the server's.
fn environment(job: &Job) -> Vec<(String, String)> {
    let own = |name: &str, default: &str| (name.to_owned(), std::env::var(name).unwrap_or_else(|_| default.to_owned()));
    let mut environment = vec![own("PATH", PATH), own("HOME", "/"), own("LANG", "C.UTF-8")];
    let ids = [
        ("JOBSTREAM_JOB_ID", Some(job.id.to_string())),
        ("JOBSTREAM_PIPELINE_ID", job.pipeline.map(|id| id.to_string())),
        ("JOBSTREAM_WORKSPACE_ID", Some(job.workspace.to_string())),
        ("JOBSTREAM_ATTEMPT", Some(job.attempt.to_string())),
    ];
    environment.extend(ids.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    environment
}

fn file(pipeline: &Pipeline, definition: &crate::model::Definition) -> PipelineFile {
    let definition = definition.clone();
    PipelineFile {
        id: pipeline.id.to_string(),
        name: pipeline.name.clone(),
        content: PipelineContent {
            version: "pipelines/v0.1".to_owned(),
            data_components: definition.data_components,
            actions: definition.actions,
            properties: definition.properties.into_iter().map(|it| it.name).collect(),
            triggered_by: definition.triggered_by,
            schedule: definition.schedule,
            timeout: definition.timeout,
            max_retries: definition.max_retries,
            inline_script: definition.script,
        },
    }
}
