//! The hidden subcommand that does a system task: it runs as a job, in a process of its own under a supervisor.
//!
//! So a system task is stopped, timed out, logged and cleaned up after as any other job is. What it is to do it reads from
//! a file; what it prints is its log; what came of it, it writes to another file.

mod git;
mod gitdir;
mod meltano;
mod origin;
mod pipeline_config;
mod pipeline_run;
mod pipeline_verify;
mod place;
mod plumbing;
mod repair;
mod settings;
mod workplace;
mod workspace_init;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use crate::confined::{ConfinedDirectory, Flush};
use serde::{Deserialize, Serialize};

pub use meltano::{Meltano, MeltanoOptions, Plugin, handed_on, on_path};
pub use origin::Origin;
use workplace::Workplace;

use crate::processes;

/// A task, and what it needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Order {
    /// What is to be done.
    pub task: Task,
    /// The id of the workspace. Only a repository that was created for it is used.
    pub workspace_id: String,
    /// Which Meltano there is.
    pub meltano: Meltano,
    /// Where the workspace's repository comes from and goes to, if the one here is a clone.
    pub origin: Option<Origin>,
    /// The definitions of all pipelines of the workspace that are READY, if its repository has to be rebuilt.
    pub definitions: Option<Vec<PipelineFile>>,
}

/// What a task is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Task {
    /// Make the workspace's repository.
    WorkspaceInit {
        /// The workspace's name.
        workspace: String,
    },
    /// Write a pipeline into the repository.
    PipelineConfig(PipelineFile),
    /// Show and check a pipeline.
    PipelineVerify(PipelineFile),
    /// Run a pipeline: one that uses Meltano, or whose repository has to be brought up to date first.
    PipelineRun(PipelineFile),
}

/// A pipeline as it is written into the repository, and what it uses. The values of properties are not in it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PipelineFile {
    /// The pipeline's id, by which its file is found again after a rename.
    pub id: String,
    /// Its name, and that of its file.
    pub name: String,
    /// What it says.
    pub content: PipelineContent,
    /// The data components and plugins that it uses, in the order in which it names them.
    pub plugins: Vec<Plugin>,
}

/// The content of a pipeline's file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PipelineContent {
    /// The version of the file's form.
    pub version: String,
    /// Names of plugins.
    pub data_components: Vec<String>,
    /// Names of plugins, or commands, in order.
    pub actions: Vec<String>,
    /// The names of the properties.
    pub properties: Vec<String>,
    /// Names of pipelines.
    pub triggered_by: Vec<String>,
    /// Cron expression with seconds.
    pub schedule: Option<String>,
    /// Seconds.
    pub timeout: i32,
    /// How often a failed run is tried again.
    pub max_retries: i32,
    /// The Bash script.
    pub inline_script: Option<String>,
}

/// What came of a task.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// The commit it made, or that held already what it would have committed.
    pub commit_id: Option<String>,
    /// Whether the workspace's repository is damaged, and the definitions of its pipelines are needed to rebuild it.
    #[serde(default)]
    pub needs_definitions: bool,
    /// Whether the repository was rebuilt from the definitions of its pipelines.
    #[serde(default)]
    pub rebuilt: bool,
}

impl PipelineFile {
    /// Whether the pipeline is run with Meltano. A plain script is not.
    pub fn uses_meltano(&self) -> bool {
        !self.plugins.is_empty()
    }

    /// What Meltano is to run: the actions, or, where there are none, each extractor and after it the loader.
    fn blocks(&self) -> Result<Vec<&str>, Failure> {
        if !self.content.actions.is_empty() {
            return Ok(self.content.actions.iter().map(String::as_str).collect());
        }
        let named = |wanted: fn(&Plugin) -> bool| -> Vec<&str> {
            self.plugins.iter().filter(|plugin| wanted(plugin)).map(|plugin| plugin.name.as_str()).collect()
        };
        let (extractors, loaders) = (named(Plugin::is_extractor), named(Plugin::is_loader));
        match &loaders[..] {
            [loader] if !extractors.is_empty() => Ok(extractors.into_iter().flat_map(|it| [it, *loader]).collect()),
            _ => Err(Failure::Said(format!(
                "Without actions a pipeline runs each of its extractors and after it its one loader: it names {} extractors and {} loaders.",
                extractors.len(),
                loaders.len()
            ))),
        }
    }
}

const ORDER: &str = "task.json";
const OUTCOME: &str = "outcome.json";

/// The longest outcome that a task writes.
const LONGEST_OUTCOME: u64 = 64 << 10;

/// Leaves a task in a new directory below `tasks` for the process that is to do it. Jobs of the same user can write there:
/// a link that one has planted is not followed.
pub fn leave(tasks: &Path, name: &str, order: &Order) -> io::Result<()> {
    let path = Path::new(name).join(ORDER);
    ConfinedDirectory::open(tasks)?.write(&path, &serde_json::to_vec(order)?, None, Flush::Later)
}

/// What came of a task that has ended.
pub fn outcome(tasks: &Path, name: &str) -> io::Result<Outcome> {
    let file = ConfinedDirectory::open(tasks)?.file(&Path::new(name).join(OUTCOME))?;
    let mut content = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(file, LONGEST_OUTCOME), &mut content)?;
    Ok(serde_json::from_slice(&content)?)
}

/// Creates the directory of a workspace's repository below `repositories`, if it does not exist.
pub fn make_repository(repositories: &Path, name: &str) -> io::Result<()> {
    ConfinedDirectory::open(repositories)?.make_directories(Path::new(name)).map(drop)
}

/// Does the task that was left in this directory, in the repository that is the current directory.
pub fn run(directory: &Path) -> ExitCode {
    match perform(directory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

fn perform(directory: &Path) -> Result<(), Failure> {
    // A server that is not root cannot read the environment of this process, which is protected, and so
    // not find it by that. It ends with its supervisor instead.
    processes::end_with_parent()?;
    settings::read()?;
    let place = ConfinedDirectory::open(directory)?;
    let order: Order = serde_json::from_slice(&place.read(Path::new(ORDER))?)?;
    // It may say how one gets to the origin, which is nothing for what the task becomes.
    place.remove(Path::new(ORDER))?;
    let Order { task, workspace_id, meltano, origin, definitions } = order;
    let workplace = Workplace::new(&workspace_id, origin.as_ref(), directory, &meltano, definitions.as_deref());
    let result = do_task(task, &meltano, &workplace);
    let (commit_id, needs_definitions) = match &result {
        Ok(commit_id) => (commit_id.clone(), false),
        Err(failure) => (None, matches!(failure, Failure::NeedsDefinitions(_))),
    };
    let noted = note(directory, &Outcome { commit_id, needs_definitions, rebuilt: workplace.is_rebuilt() });
    result.and_then(|_| Ok(noted?))
}

/// Leaves what came of the task, or has come of it so far.
fn note(directory: &Path, outcome: &Outcome) -> io::Result<()> {
    let content = serde_json::to_vec(outcome)?;
    ConfinedDirectory::open(directory)?.write(Path::new(OUTCOME), &content, None, Flush::Later)
}

fn do_task(task: Task, meltano: &Meltano, place: &Workplace<'_>) -> Result<Option<String>, Failure> {
    match task {
        Task::WorkspaceInit { workspace } => workspace_init::run(&workspace, meltano, place).map(Some),
        Task::PipelineConfig(file) => pipeline_config::run(&file, meltano, place).map(Some),
        Task::PipelineVerify(file) => {
            place.update()?;
            pipeline_verify::run(&file, meltano).map(|()| None)
        }
        Task::PipelineRun(file) => {
            place.update()?;
            Err(pipeline_run::run(&file, meltano))
        }
    }
}

/// Why a task failed, as its log says it.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Said(String),
    #[error("git {command} failed: {said}")]
    Git { command: String, said: plumbing::Complaint },
    /// The origin of a clone could not be read or written.
    #[error("{shown}")]
    Origin { shown: String, said: plumbing::Complaint },
    #[error("The workspace's repository is damaged: {0}.")]
    Damaged(String),
    #[error("The servers' repository of the workspace is damaged: {0}.")]
    DamagedOrigin(String),
    #[error("{0} It is rebuilt from the definitions of the workspace's pipelines.")]
    NeedsDefinitions(String),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Json(#[from] serde_json::Error),
}

impl Failure {
    fn damaged(why: impl Into<String>) -> Self {
        Self::Damaged(why.into())
    }

    /// A program that could not be started.
    fn program(name: impl std::fmt::Display, error: io::Error) -> Self {
        Self::Io(io::Error::new(error.kind(), format!("{name} could not be started: {error}")))
    }
}

/// A line of the task's log. A log that nobody reads is no reason to fail.
fn say(line: impl std::fmt::Display) {
    let _ = writeln!(io::stdout(), "{line}");
}
