//! The hidden subcommand that does a system task: it runs as a job, in a process of its own under a supervisor.
//!
//! So a system task is stopped, timed out, logged and cleaned up after as any other job is. What it is to do it reads from
//! a file; what it prints is its log; what came of it, it writes to another file.

mod git;
mod meltano;
mod origin;
mod pipeline_config;
mod pipeline_run;
mod pipeline_verify;
mod place;
mod settings;
mod workplace;
mod workspace_init;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

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
    /// Which Meltano there is.
    pub meltano: Meltano,
    /// Where the workspace's repository comes from and goes to, if the one here is a clone.
    pub origin: Option<Origin>,
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

/// Leaves a task in a new directory for the process that is to do it.
pub fn leave(directory: &Path, order: &Order) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    fs::write(directory.join(ORDER), serde_json::to_vec(order)?)
}

/// What came of a task that has ended.
pub fn outcome(directory: &Path) -> io::Result<Outcome> {
    Ok(serde_json::from_slice(&fs::read(directory.join(OUTCOME))?)?)
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
    // Jobs of the same user cannot read what it holds; nor can the server then find it by its environment, so it ends with its supervisor.
    processes::protect_memory()?;
    processes::end_with_parent()?;
    settings::read()?;
    let order = directory.join(ORDER);
    let Order { task, meltano, origin } = serde_json::from_slice(&fs::read(&order)?)?;
    // It may say how one gets to the origin, which is nothing for what the task becomes.
    fs::remove_file(&order)?;
    let place = Workplace::new(origin.as_ref(), directory);
    let commit_id = match task {
        Task::WorkspaceInit { workspace } => Some(workspace_init::run(&workspace, &meltano, &place)?),
        Task::PipelineConfig(file) => Some(pipeline_config::run(&file, &meltano, &place)?),
        Task::PipelineVerify(file) => {
            place.update()?;
            pipeline_verify::run(&file, &meltano)?;
            None
        }
        Task::PipelineRun(file) => {
            place.update()?;
            return Err(pipeline_run::run(&file, &meltano));
        }
    };
    fs::write(directory.join(OUTCOME), serde_json::to_vec(&Outcome { commit_id })?)?;
    Ok(())
}

/// Why a task failed, as its log says it.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Said(String),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Json(#[from] serde_json::Error),
}

/// Writes a file so that it is there whole or not at all, and not where a link points that somebody has put in its place.
fn write_whole(path: &Path, content: &str) -> io::Result<()> {
    let mut temporary = PathBuf::from(path).into_os_string();
    temporary.push(".new");
    let _ = fs::remove_file(&temporary); // an earlier try's, if there is one
    fs::File::create_new(&temporary)?.write_all(content.as_bytes())?;
    fs::rename(&temporary, path)
}

/// Writes a file of the repository to the current directory. Jobs can write there too: a link that one has put in the place of a directory is
/// not followed.
fn write_in_place(path: &Path, content: &str) -> io::Result<()> {
    make_directories(path)?;
    write_whole(path, content)
}

/// Makes the directories that a file is to be in.
fn make_directories(path: &Path) -> io::Result<()> {
    let mut directory = PathBuf::new();
    for part in path.parent().into_iter().flat_map(Path::components) {
        directory.push(part);
        match fs::symlink_metadata(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir(&directory)?,
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Err(io::Error::other(format!("{} is not a directory", directory.display()))),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A line of the task's log. A log that nobody reads is no reason to fail.
fn say(line: impl std::fmt::Display) {
    let _ = writeln!(io::stdout(), "{line}");
}
