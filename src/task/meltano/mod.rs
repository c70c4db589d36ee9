//! Meltano: which one there is, and how it is run.

mod environment;
mod installation;
mod plugins;
mod project;

pub use installation::on_path;

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::Failure;
use super::settings::settings;

pub(super) use installation::{Missing, Program};
pub(super) use project::{Project, is_of_project};

/// Which Meltano is used, and where it keeps what.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Meltano")]
pub struct MeltanoOptions {
    /// The Meltano that jobs use: a path, or a name on the PATH. Without it: `meltano` on the PATH; else one that the server installs for itself when
    /// a job needs it, for which it needs Python 3.10 or later. With `none`, jobs that need it end with ERROR.
    #[arg(long, env = "JOBSTREAM_MELTANO", value_name = "COMMAND")]
    pub meltano: Option<String>,

    /// Where Meltano keeps how far a pipeline has loaded: a URI that Meltano knows as a state backend, such as `s3://bucket/prefix`. In the data
    /// directory unless it is said here; with PostgreSQL, in the shared directory.
    #[arg(long, env = "JOBSTREAM_MELTANO_STATE", value_name = "URI")]
    pub meltano_state: Option<String>,
}

/// What a task has to know of Meltano.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Meltano {
    /// The command that the operator has named.
    pub command: Option<String>,
    /// The directory for the server's own installation, and for what is kept of each pipeline.
    pub home: PathBuf,
    /// The state backend that the operator has named.
    pub state: Option<String>,
    /// The directory for the state, if the operator has named none.
    pub states: PathBuf,
}

impl MeltanoOptions {
    /// What tasks are told, where Meltano is kept in this directory, and its state in that.
    pub fn found_in(&self, home: PathBuf, states: PathBuf) -> Meltano {
        // A variable that is set to nothing says nothing.
        let said = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
        Meltano { command: said(&self.meltano), home, state: said(&self.meltano_state), states }
    }
}

/// A plugin as a pipeline uses it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plugin {
    /// What the pipeline calls it: the name of a data component, or of the data plugin itself.
    pub name: String,
    /// The definition of the data plugin, in Meltano's form. None if it is gone.
    pub definition: Option<serde_json::Value>,
}

/// Has Meltano run beside a run that it has noted as active.
const FORCE: &str = "MELTANO_RUN_FORCE";
/// Exits with 0 if Meltano's own database holds no run that has not ended.
const RUNS_NOTED: &str = "import sqlite3, sys; \
    count = sqlite3.connect(sys.argv[1]).execute(\"SELECT count(*) FROM runs WHERE state = 'RUNNING'\").fetchone(); \
    sys.exit(count[0] > 0)";

/// Where Meltano keeps its own files, unless it is told otherwise.
const OWN: &str = ".meltano";

/// Variables that say how the network is reached. What installs has them, and nothing else.
const NETWORK: [&str; 12] = [
    "ALL_PROXY",
    "CURL_CA_BUNDLE",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "all_proxy",
    "https_proxy",
    "http_proxy",
    "no_proxy",
];

/// What a task finds before the names of such variables: so a property is none of them, whatever it is called.
const HANDED_ON: &str = "JOBSTREAM_NETWORK_";

/// Whether a variable of the server says how the network, or the Python package index, is reached.
pub(super) fn is_of_network(variable: &str) -> bool {
    NETWORK.contains(&variable) || variable.starts_with("PIP_") || variable.starts_with("UV_")
}

/// The name under which a task is handed such a variable. None for others.
pub fn handed_on(variable: &str) -> Option<String> {
    is_of_network(variable).then(|| format!("{HANDED_ON}{variable}"))
}

/// The variables that a task was handed for what installs.
fn network() -> impl Iterator<Item = (OsString, OsString)> {
    env::vars_os().filter_map(|(name, value)| Some((name.to_str()?.strip_prefix(HANDED_ON)?.into(), value)))
}

/// What a step has in its environment beside what every job has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    /// Nothing.
    None,
    /// The settings of the pipeline.
    Settings,
    /// The network.
    Network,
}

/// A Meltano that is there, and the place of one pipeline in it.
#[derive(Debug)]
pub(super) struct Runs<'a> {
    program: &'a Program,
    meltano: &'a Meltano,
    /// The directory of meltano.yml.
    root: PathBuf,
    /// What Meltano keeps beside it.
    system: PathBuf,
    environment: Option<String>,
}

impl Meltano {
    /// Where it is kept how far a pipeline has loaded, unless the operator has said where.
    fn state_of(&self, pipeline: &str) -> PathBuf {
        self.states.join(pipeline)
    }

    /// What is kept of a pipeline: the installed plugins, Meltano's own database, the files of runs.
    fn of_pipeline(&self, pipeline: &str) -> PathBuf {
        self.home.join("pipelines").join(pipeline)
    }

    /// Meltano with a project that it may change. What it keeps beside that is nothing to keep.
    pub(super) fn in_scratch<'a>(&'a self, program: &'a Program, root: &Path) -> Runs<'a> {
        Runs { program, meltano: self, root: root.to_owned(), system: root.join(OWN), environment: None }
    }

    /// Meltano for a pipeline, whose environment has its id, with a project that is checked out here.
    pub(super) fn for_pipeline<'a>(
        &'a self,
        program: &'a Program,
        root: &Path,
        pipeline: &str,
    ) -> Result<Runs<'a>, Failure> {
        let (system, environment) = (self.of_pipeline(pipeline), Some(pipeline.to_owned()));
        Ok(Runs { program, meltano: self, root: root.canonicalize()?, system, environment })
    }
}

impl Runs<'_> {
    /// Runs Meltano, with its output in the task's log.
    fn run(&self, access: Access, arguments: &[&str]) -> Result<(), Failure> {
        let status = self.command(access, arguments).status();
        let status = status.map_err(|error| Failure::program(self.program.path().display(), error))?;
        if status.success() {
            return Ok(());
        }
        self.meltano.doubt();
        let code = status.code().map_or_else(|| status.to_string(), |code| format!("exit code {code}"));
        Err(Failure::Said(format!("meltano {} failed: {code}.", arguments.join(" "))))
    }

    /// Prints the configuration of a plugin. What is sensitive is not shown.
    pub(super) fn show_configuration(&self, plugin: &Plugin) -> Result<(), Failure> {
        self.run(Access::Settings, &["config", "list", &plugin.name])
    }

    /// Has an extractor show that it can read from its source.
    pub(super) fn test(&self, plugin: &Plugin) -> Result<(), Failure> {
        self.run(Access::Settings, &["config", "test", &plugin.name])
    }

    /// Looks whether these blocks can be put together.
    pub(super) fn dry_run(&self, blocks: &[&str]) -> Result<(), Failure> {
        // By itself a dry run has the level `debug`.
        self.run(Access::Settings, &[&["--log-level", "info", "run", "--dry-run"], blocks].concat())
    }

    /// Becomes Meltano, running these blocks. Only an error comes back.
    pub(super) fn become_run(&self, blocks: &[&str]) -> Failure {
        let mut command = self.command(Access::Settings, &[&["run"], blocks].concat());
        if self.no_run_is_noted() {
            command.env_remove(FORCE);
        }
        Failure::program(self.program.path().display(), command.exec())
    }

    /// Whether Meltano has noted no run that has not ended. It refuses to run beside one, also if that was killed, unless it is
    /// forced to, on which it warns. Where this cannot be told, it is forced.
    fn no_run_is_noted(&self) -> bool {
        let database = self.system.join("meltano.db");
        if !database.exists() {
            return true;
        }
        let Some(python) = self.program.path().parent().map(|it| it.join("python")).filter(|it| it.exists()) else {
            return false;
        };
        let mut command = Command::new(python);
        command.args(["-I", "-c", RUNS_NOTED]).arg(database).env_clear();
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    }

    /// Becomes a Bash script that finds Meltano on its PATH. Only an error comes back.
    pub(super) fn become_script(&self, script: &str, name: &str) -> Failure {
        let mut command = Command::new("bash");
        command.args(["-c", script, name]).env_clear().envs(self.variables(Access::Settings));
        Failure::program("bash", command.exec())
    }

    fn command(&self, access: Access, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.program.path());
        command.args(arguments).env_clear().envs(self.variables(access)).stdin(Stdio::null());
        command
    }

    fn variables(&self, access: Access) -> BTreeMap<OsString, OsString> {
        const OF_EVERY_JOB: [&str; 5] = ["HOME", "LANG", "PATH", "PYTHONUNBUFFERED", "TMPDIR"];
        let wanted = |name: &str| {
            OF_EVERY_JOB.contains(&name) || (name.starts_with("JOBSTREAM_") && !name.starts_with(HANDED_ON))
        };
        let mut variables: BTreeMap<OsString, OsString> =
            env::vars_os().filter(|(name, _)| name.to_str().is_some_and(wanted)).collect();
        if access == Access::Settings {
            variables.extend(settings().iter().map(|(name, value)| (name.to_owned(), value.to_owned())));
        }
        if access == Access::Network {
            variables.extend(network());
        }
        // uv, which Meltano installs plugins with, is beside it.
        let beside = self.program.path().parent().map(Path::to_owned);
        let path = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths(beside.into_iter().chain(env::split_paths(&path))).unwrap_or(path);
        let mut set = |name: &str, value: OsString| drop(variables.insert(name.into(), value));
        set("PATH", path);
        set("MELTANO_PROJECT_ROOT", self.root.clone().into());
        set("MELTANO_SYS_DIR_ROOT", self.system.clone().into());
        set("MELTANO_DATABASE_URI", format!("sqlite:///{}", self.system.join("meltano.db").display()).into());
        set("MELTANO_SEND_ANONYMOUS_USAGE_STATS", "false".into());
        set("MELTANO_AUTO_INSTALL", "false".into());
        set("MELTANO_DISABLE_TRACKING", "true".into());
        set("NO_COLOR", "1".into());
        // No other run of the pipeline is active, whatever Meltano has written down of one that was killed. Scripts run it too.
        set(FORCE, "true".into());
        // Nobody's window is as narrow as the one that it would break its messages for.
        set("COLUMNS", "1000".into());
        set("UV_CACHE_DIR", self.meltano.home.join("cache").into());
        // Meltano writes there; a server's home may be nobody's to write to.
        set("XDG_CONFIG_HOME", self.meltano.home.join("config").into());
        if let Some(environment) = &self.environment {
            let own = || format!("file://{}", self.meltano.state_of(environment).display());
            set("MELTANO_STATE_BACKEND_URI", self.meltano.state.clone().unwrap_or_else(own).into());
            set("MELTANO_ENVIRONMENT", environment.into());
        }
        variables
    }
}
