//! What the server and a supervisor say to each other, over a Unix socket.
//!
//! Each message is a JSON object on a line. An order to start something is followed by the variables that it names the lengths of: they
//! hold sensitive values, so they pass only through buffers that are wiped.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::model::SupervisorIdentity;
use crate::variables::Variables;

/// How large the buffer for orders is at first.
const BUFFER_BYTES: usize = 16 * 1024;

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

/// What a job runs: one process, with everything that it starts. Its `Debug` hides the script and the values of variables.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The program, looked up in the PATH of `environment`.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Its whole environment.
    #[serde(skip)]
    pub environment: Variables,
    /// Variables that it finds on its standard input, instead of in its environment. Without any, that is empty.
    #[serde(skip)]
    pub input: Variables,
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

/// The line that begins an order, and how many bytes follow it.
#[derive(Serialize, Deserialize)]
struct Header<O> {
    order: O,
    environment: usize,
    input: usize,
}

impl Order {
    /// The bytes of this order.
    pub fn encode(&self) -> io::Result<Zeroizing<Vec<u8>>> {
        let (environment, input) = match self {
            Self::Start(command) => (command.environment.encode(), command.input.encode()),
            Self::GoOn(_) | Self::End => Default::default(),
        };
        let header = Header { order: self, environment: environment.len(), input: input.len() };
        let header = serde_json::to_vec(&header)?;
        let mut bytes = Zeroizing::new(Vec::with_capacity(header.len() + 1 + environment.len() + input.len()));
        bytes.extend_from_slice(&header);
        bytes.push(b'\n');
        bytes.extend_from_slice(&environment);
        bytes.extend_from_slice(&input);
        Ok(bytes)
    }
}

/// Orders as they arrive, in pieces of any size.
#[derive(Default)]
pub struct Orders {
    received: Zeroizing<Vec<u8>>,
    /// The header of the next order, with the number of its bytes: variables of up to megabytes arrive after it.
    header: Option<(Header<Order>, usize)>,
}

impl Orders {
    /// Adds what has arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        let needed = self.received.len() + bytes.len();
        if needed > self.received.capacity() {
            // Growing in place would free the old buffer as it is.
            let mut larger = Vec::with_capacity(needed.next_power_of_two().max(BUFFER_BYTES));
            larger.extend_from_slice(&self.received);
            self.received = Zeroizing::new(larger);
        }
        self.received.extend_from_slice(bytes);
    }

    /// Takes the next order, if it has arrived whole.
    pub fn next(&mut self) -> io::Result<Option<Order>> {
        let (header, begin) = match self.header.take() {
            Some(known) => known,
            None => {
                let Some(line) = self.received.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
                (serde_json::from_slice::<Header<Order>>(&self.received[..line])?, line + 1)
            }
        };
        let after_environment = begin + header.environment;
        let end = after_environment + header.input;
        let (Some(environment), Some(input)) =
            (self.received.get(begin..after_environment), self.received.get(after_environment..end))
        else {
            self.header = Some((header, begin));
            return Ok(None);
        };
        let mut order = header.order;
        if let Order::Start(command) = &mut order {
            command.environment = Variables::decode(environment);
            command.input = Variables::decode(input);
        }
        // Orders are few, so hardly anything is behind this one.
        let rest = Zeroizing::new(self.received[end..].to_vec());
        self.received.zeroize();
        self.push(&rest);
        Ok(Some(order))
    }
}

/// Processes that were told to end and are still there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survivors {
    /// How many there are, as far as they can be found.
    pub count: usize,
    /// Some of them.
    pub named: Vec<Survivor>,
}

/// A process that was told to end and is still there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survivor {
    /// Its process id.
    pub pid: i32,
    /// What it calls itself.
    pub name: String,
}

/// What a supervisor answers.
#[derive(Debug, Serialize, Deserialize)]
pub enum Report {
    /// The supervisor is there, and this is what it is noted as. It comes first.
    Ready(SupervisorIdentity),
    /// The process could not be started.
    NotStarted {
        /// Why.
        reason: String,
        /// Whether another try may help: the machine was short of processes, memory or descriptors.
        short: bool,
    },
    /// The grace is over, and these are killed.
    Killing(Survivors),
    /// These are still there some time after they were killed. None, if there are some and they cannot be found.
    Unkillable(Survivors),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_come_whole_however_they_are_cut() {
        let mut environment = Variables::default();
        environment.set("A", "1\n2");
        let mut input = Variables::default();
        input.set("B", "\n");
        let command = Command {
            program: "bash".to_owned(),
            arguments: vec!["-c".to_owned(), "echo\n".to_owned()],
            environment,
            input,
            directory: "/".into(),
            grace: Duration::from_secs(1),
            lease: None,
        };
        let orders = [Order::Start(command.clone()), Order::GoOn(Duration::from_secs(2)), Order::End];
        let bytes: Vec<u8> = orders.iter().flat_map(|it| it.encode().unwrap().to_vec()).collect();
        for size in [1, 2, 7, 100, bytes.len()] {
            let mut arriving = Orders::default();
            let mut arrived = Vec::new();
            for piece in bytes.chunks(size) {
                arriving.push(piece);
                while let Some(order) = arriving.next().unwrap() {
                    arrived.push(order);
                }
            }
            let [Order::Start(started), Order::GoOn(lease), Order::End] = &arrived[..] else { panic!("{arrived:?}") };
            assert!(*started == command);
            assert_eq!(*lease, Duration::from_secs(2));
        }
    }
}
