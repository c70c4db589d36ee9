//! What a supervisor holds: every process below it.

use rustix::process::Signal;

use super::protocol::{Survivor, Survivors};
use crate::processes::{self, Lookup, Process};

/// How many of them are named to the server.
const NAMED: usize = 20;

/// The processes below this one.
pub(super) struct Tree {
    /// Those that `/proc` shows.
    seen: Vec<Process>,
    /// Children that it does not show. When such a one has ended, its own children are children of this process.
    unseen: Vec<i32>,
}

impl Tree {
    /// The processes below this one as they are at the moment.
    pub(super) fn of_this_process() -> Self {
        let seen = Process::descendants_of(processes::own_pid());
        let is_unseen =
            |pid: &i32| seen.iter().all(|process| process.pid != *pid) && Process::look_up(*pid) == Lookup::Unknown;
        let unseen = processes::children().into_iter().filter(is_unseen).collect();
        Self { seen, unseen }
    }

    /// How many there are, as far as that can be seen.
    pub(super) fn len(&self) -> usize {
        self.seen.len() + self.unseen.len()
    }

    /// Sends a signal to all of them.
    pub(super) fn signal(&self, signal: Signal) {
        self.seen.iter().for_each(|process| process.signal(signal));
        // This process has not waited for them, for it has one thread.
        self.unseen.iter().for_each(|pid| processes::signal_child(*pid, signal));
    }

    /// The processes, for people.
    pub(super) fn survivors(&self) -> Survivors {
        let pids = self.seen.iter().map(|process| process.pid).chain(self.unseen.iter().copied());
        let named = pids.take(NAMED).map(|pid| Survivor { pid, name: processes::name_of(pid) }).collect();
        Survivors { count: self.len(), named }
    }
}
