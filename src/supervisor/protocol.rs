//! What the server and a supervisor say to each other: a JSON object a line, over a Unix socket.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What the server asks of a supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub enum Order {
    /// Start this. The descriptors for its standard output and error come with the order's first byte.
    Start(Command),
    /// Let what was started go on for so long from now, unless another such order comes.
    GoOn(Duration),
    /// End what was started: TERM to all of it, and KILL to what is left after the grace.
    End,
}

/// What a job runs: one process, with everything that it starts. Its `Debug` hides the environment, which holds properties.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The program, looked up in the PATH of `environment`.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Its whole environment.
    pub environment: Vec<(String, String)>,
    /// Where it runs.
    pub directory: PathBuf,
    /// How long what is told to end may take before it is killed.
    pub grace: Duration,
    /// For how long it may go on without an order to go on; without an end if that is not said.
    pub lease: Option<Duration>,
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command").field("program", &self.program).finish_non_exhaustive()
    }
}

/// What a supervisor answers.
#[derive(Debug, Serialize, Deserialize)]
pub enum Report {
    /// The process could not be started.
    NotStarted {
        /// Why.
        reason: String,
        /// Whether another try may help: the machine was short of processes, memory or descriptors.
        short: bool,
    },
    /// The process has exited, and nothing that it started is left.
    Ended {
        /// Its exit code; 128 + n for signal n.
        code: i32,
        /// How many processes it had left behind, which were ended.
        left_behind: usize,
        /// Whether the process exited before the supervisor was told to end it.
        by_itself: bool,
        /// Whether the supervisor was told to end, and takes no other job.
        last: bool,
    },
}
