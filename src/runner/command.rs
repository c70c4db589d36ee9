//! What a job of each type runs.

use std::io;

use tokio::time::Instant;
use zeroize::Zeroizing;

use super::Runner;
use super::mask::Secrets;
use crate::jobs::{Claimed, Defined, Settings, Used};
use crate::model::{Definition, Job, JobType, Pipeline, ResourceStatus};
use crate::processes;
use crate::supervisor::protocol::Command;
use crate::task::{self, PipelineContent, PipelineFile, Plugin, Task};
use crate::variables::Variables;

/// Where programs are looked for if the server has no PATH itself.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The kernel gives no process more arguments and variables than 6 MiB, whatever its limits are.
const MOST_SETTINGS_BYTES: usize = 6 * 1024 * 1024;

/// It stays right when the program's file is replaced while it runs.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// The definitions of the workspace's pipelines, if its repository has to be rebuilt.
type Definitions = Option<Vec<PipelineFile>>;

/// How a job is started.
pub(super) struct Start {
    /// What its supervisor is told.
    pub(super) command: Command,
    /// What it must not show.
    pub(super) secrets: Secrets,
    /// The same, value by value.
    pub(super) sensitive: Vec<Zeroizing<String>>,
}

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

/// The command for a claimed job. Reads and writes files, and takes a while for large settings, so it is nothing for the async runtime.
pub(super) fn of(claimed: &Claimed, definitions: Option<Vec<Defined>>, runner: &Runner) -> Result<Start, NoCommand> {
    let definitions = definitions.map(|it| it.iter().map(file_of).collect());
    let job = &claimed.job;
    if job.type_ != JobType::WorkspaceInit && claimed.workspace.status == ResourceStatus::Failed {
        return Err(NoCommand::because("The workspace is FAILED. See the log of its WORKSPACE_INIT job."));
    }
    let failed_pipeline = claimed.pipeline.as_ref().is_some_and(|it| it.status == ResourceStatus::Failed);
    match (job.type_, &claimed.pipeline) {
        (JobType::PipelineRun | JobType::PipelineVerify, _) if failed_pipeline => {
            Err(NoCommand::because("The pipeline is FAILED. See the log of its PIPELINE_CONFIG job."))
        }
        (JobType::PipelineRun, Some(pipeline)) => run(claimed, pipeline, definitions, runner),
        (JobType::WorkspaceInit, _) => {
            let task = Task::WorkspaceInit { workspace: claimed.workspace.name.clone() };
            system_task(claimed, task, definitions, Settings::default(), runner)
        }
        // The repository says what the pipeline is now; a verification, what it was when that was asked for. The values of its settings
        // are nothing that a configuration needs.
        (JobType::PipelineConfig, Some(pipeline)) => {
            let task = Task::PipelineConfig(file(pipeline, &pipeline.definition, claimed));
            system_task(claimed, task, definitions, Settings::default(), runner)
        }
        (JobType::PipelineVerify, Some(pipeline)) => {
            let task = Task::PipelineVerify(file(pipeline, &claimed.definition, claimed));
            system_task(claimed, task, definitions, settings(claimed, runner)?, runner)
        }
        (type_, _) => Err(NoCommand::because(format!("A {type_} is not for a runner."))),
    }
}

/// A plain script runs under bash in the repository, with the settings in its environment. What uses Meltano, or whose repository is a clone, is a
/// task first.
fn run(claimed: &Claimed, pipeline: &Pipeline, definitions: Definitions, runner: &Runner) -> Result<Start, NoCommand> {
    let file = file(pipeline, &claimed.definition, claimed);
    let settings = settings(claimed, runner)?;
    if file.uses_meltano() {
        return system_task(claimed, Task::PipelineRun(file), definitions, settings, runner);
    }
    let Some(script) = &claimed.definition.script else {
        return Err(NoCommand::because(
            "The pipeline has no script, no actions and no data components: there is nothing to run.",
        ));
    };
    if origin(claimed, runner).is_some() {
        let arguments = leave(claimed, Task::PipelineRun(file), definitions, runner)?;
        return start(claimed, THIS_PROGRAM, arguments, Variables::default(), settings, runner);
    }
    // A job of the same user may have removed the directory.
    let (repositories, workspace) = (runner.directory.repositories(), claimed.workspace.id.to_string());
    task::make_repository(&repositories, &workspace).map_err(|error| {
        let path = runner.directory.repository(claimed.workspace.id);
        let reason = format!("The workspace's directory {} could not be made: {error}", path.display());
        NoCommand { reason, short: true }
    })?;
    // The word after the script is its name, `$0`, which bash puts before its complaints.
    let arguments = vec!["-c".to_owned(), script.clone(), pipeline.name.clone()];
    start(claimed, "bash", arguments, Variables::default(), settings, runner)
}

/// A system task is done by this program itself, in a process of its own.
fn system_task(
    claimed: &Claimed,
    task: Task,
    definitions: Definitions,
    settings: Settings,
    runner: &Runner,
) -> Result<Start, NoCommand> {
    let arguments = leave(claimed, task, definitions, runner)?;
    // A task hands them on to what installs, and to nothing else.
    let mut network = Variables::default();
    for (name, value) in std::env::vars_os() {
        if let Some(name) = name.to_str().and_then(task::handed_on) {
            network.set(name, value);
        }
    }
    start(claimed, THIS_PROGRAM, arguments, network, settings, runner)
}

/// Leaves a task for the process that is to do it, and answers what that is told.
fn leave(claimed: &Claimed, task: Task, definitions: Definitions, runner: &Runner) -> Result<Vec<String>, NoCommand> {
    let (place, meltano) = (runner.directory.task(claimed.job.id), runner.meltano.clone());
    let (job, workspace) = (claimed.job.id.to_string(), claimed.workspace.id.to_string());
    let order =
        task::Order { task, workspace_id: workspace.clone(), meltano, origin: origin(claimed, runner), definitions };
    let prepared: io::Result<()> = task::make_repository(&runner.directory.repositories(), &workspace)
        .and_then(|()| task::leave(&runner.directory.tasks(), &job, &order));
    prepared.map_err(|error| NoCommand { reason: format!("The task could not be prepared: {error}"), short: true })?;
    let place = place.to_str().ok_or_else(|| NoCommand::because("The data directory's path is not UTF-8."))?;
    Ok(vec!["task".to_owned(), place.to_owned()])
}

/// Where the workspace's repository comes from, if the one here is a clone.
fn origin(claimed: &Claimed, runner: &Runner) -> Option<task::Origin> {
    let workspace = &claimed.workspace;
    let (shared, lock) = (runner.directory.origin(workspace.id), runner.directory.clone_lock(workspace.id));
    match &workspace.origin {
        Some(url) => Some(task::Origin::at(url, shared, lock)),
        None => shared.map(|path| task::Origin::shared(&path, lock)),
    }
}

fn start(
    claimed: &Claimed,
    program: &str,
    arguments: Vec<String>,
    more: Variables,
    settings: Settings,
    runner: &Runner,
) -> Result<Start, NoCommand> {
    let origin = origin(claimed, runner);
    let of_origin = origin.as_ref().and_then(|it| it.secret());
    let sensitive = settings.sensitive.iter().map(|value| value.as_str()).chain(of_origin);
    let secrets = Secrets::of(sensitive);
    let temporary = runner.directory.make_temporary(claimed.job.id, claimed.job.attempt).map_err(|error| {
        let reason = format!("The job's temporary directory could not be made: {error}");
        NoCommand { reason, short: true }
    })?;
    let mut environment = environment(&claimed.job);
    environment.set("TMPDIR", temporary);
    environment.extend(more);
    let mut variables = Variables::default();
    settings.variables.iter().for_each(|(name, value)| variables.set(name, value.as_str()));
    // A property may become any variable, also one that the loader, a shell, git or Python obeys. The server's own processes are not to find it
    // in their environment: a task reads it, and sets it for what it becomes.
    let mut input = Variables::default();
    if program == THIS_PROGRAM { &mut input } else { &mut environment }.extend(variables);
    let command = Command {
        program: program.to_owned(),
        arguments,
        environment,
        input,
        directory: runner.directory.repository(claimed.workspace.id),
        grace: runner.limits.stop_grace,
        lease: runner.lease.ends().borrow().map(|end| end.saturating_duration_since(Instant::now())),
    };
    let of_origin = of_origin.map(|value| Zeroizing::new(value.to_owned()));
    let sensitive = settings.sensitive.into_iter().chain(of_origin).collect();
    Ok(Start { command, secrets, sensitive })
}

fn settings(claimed: &Claimed, runner: &Runner) -> Result<Settings, NoCommand> {
    let settings = runner.jobs.settings(claimed).map_err(|error| {
        tracing::error!(job = %claimed.job.id, detail = ?error.detail(), "the settings of a job cannot be opened");
        NoCommand::because("The sensitive settings cannot be opened, as the server's log says.")
    })?;
    // Before anything is built from them.
    match settings.bytes() {
        bytes if bytes > MOST_SETTINGS_BYTES => Err(NoCommand::because(format!(
            "The settings have {bytes} bytes in all. Linux gives a process at most {MOST_SETTINGS_BYTES} bytes of variables."
        ))),
        _ => Ok(settings),
    }
}

/// What every job finds in its environment, and nothing else of the server's.
fn environment(job: &Job) -> Variables {
    let own = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let mut environment = Variables::default();
    environment.set("PATH", own("PATH").unwrap_or_else(|| PATH.into()));
    environment.set("HOME", processes::home_directory());
    environment.set("LANG", own("LANG").unwrap_or_else(|| "C.UTF-8".into()));
    // Python would keep its lines to itself until it ends, for its output is a pipe.
    environment.set("PYTHONUNBUFFERED", "1");
    environment.set("JOBSTREAM_JOB_ID", job.id.to_string());
    if let Some(pipeline) = job.pipeline {
        environment.set("JOBSTREAM_PIPELINE_ID", pipeline.to_string());
    }
    environment.set("JOBSTREAM_WORKSPACE_ID", job.workspace.to_string());
    environment.set("JOBSTREAM_ATTEMPT", job.attempt.to_string());
    environment
}

fn file(pipeline: &Pipeline, definition: &Definition, claimed: &Claimed) -> PipelineFile {
    file_with(pipeline, definition, &claimed.uses, &claimed.triggered_by)
}

fn file_of(defined: &Defined) -> PipelineFile {
    file_with(&defined.pipeline, &defined.pipeline.definition, &defined.uses, &defined.triggered_by)
}

fn file_with(pipeline: &Pipeline, definition: &Definition, uses: &[Used], triggered_by: &[String]) -> PipelineFile {
    let definition = definition.clone();
    let plugins = uses.iter().map(|used| Plugin {
        name: used.name.clone(),
        definition: used.plugin.as_ref().map(|plugin| plugin.definition().clone()),
    });
    PipelineFile {
        id: pipeline.id.to_string(),
        name: pipeline.name.clone(),
        plugins: plugins.collect(),
        content: PipelineContent {
            version: "pipelines/v0.1".to_owned(),
            data_components: definition.data_components,
            actions: definition.actions,
            properties: definition.properties.into_iter().map(|it| it.name).collect(),
            triggered_by: triggered_by.to_vec(),
            schedule: definition.schedule,
            timeout: definition.timeout,
            max_retries: definition.max_retries,
            inline_script: definition.script,
        },
    }
}
