//! Processes, as `/proc` shows them.

use std::fs;
use std::sync::OnceLock;

use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, Signal, getrlimit, pidfd_open, pidfd_send_signal, setrlimit};

use crate::model::SupervisorIdentity;

/// How many files this process might have open before the limit was raised, if it was.
static OPEN_FILES: OnceLock<u64> = OnceLock::new();

/// Raises the limit of open files of this process as far as it may be raised.
pub fn raise_limit_of_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    // If it cannot be raised, fewer clients can connect.
    if setrlimit(Resource::Nofile, raised).is_ok()
        && let Some(before) = limit.current
    {
        let _ = OPEN_FILES.set(before);
    }
}

/// How many files jobs may have open: as many as this process might when it was started. Nothing if that was not changed.
pub fn open_files_of_jobs() -> Option<u64> {
    OPEN_FILES.get().copied()
}

/// Sets the limit of open files of this process, and of those that it starts.
pub fn limit_open_files(current: u64) {
    let limit = getrlimit(Resource::Nofile);
    // It is lowered, which is always allowed.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(current), ..limit });
}

/// A process, told from every later one with the same pid by when it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// Its process id.
    pub pid: i32,
    /// The process id of its parent.
    pub parent: i32,
    /// When it started, in ticks after the boot.
    pub start: i64,
}

impl Process {
    /// The process with this pid, unless it is gone or only a zombie.
    pub fn with_pid(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // pid (name, which may hold anything) state parent … ; the 20th field is the number of threads, the 22nd the start.
        let (_, fields) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        let dead = match *fields.first()? {
            "X" => true,
            // One whose first thread has ended looks the same, for as long as its others run.
            "Z" => fields.get(17)?.parse::<u32>().ok()? <= 1,
            _ => false,
        };
        let found = Self { pid, parent: fields.get(1)?.parse().ok()?, start: fields.get(19)?.parse().ok()? };
        (!dead).then_some(found)
    }

    /// Every process that can be seen.
    fn all() -> Vec<Self> {
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        pids.filter_map(Self::with_pid).collect()
    }

    /// The children of a process, their children, and so on.
    pub fn descendants_of(ancestor: i32) -> Vec<Self> {
        let all = Self::all();
        let mut found: Vec<Self> = all.iter().copied().filter(|it| it.parent == ancestor).collect();
        let mut next = 0;
        while let Some(parent) = found.get(next).map(|it| it.pid) {
            found.extend(all.iter().copied().filter(|it| it.parent == parent));
            next += 1;
        }
        found
    }

    /// Processes that were started with this variable in their environment.
    pub fn with_variable(name: &str, value: &str) -> Vec<Self> {
        let wanted = format!("{name}={value}");
        let has_it = |process: &Self| {
            fs::read(format!("/proc/{}/environ", process.pid))
                .is_ok_and(|environ| environ.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes()))
        };
        Self::all().into_iter().filter(has_it).collect()
    }

    /// Sends a signal to this very process: never to another one that got its pid meanwhile.
    pub fn signal(self, signal: Signal) {
        let Some(pid) = Pid::from_raw(self.pid) else { return };
        let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return };
        // The descriptor holds whoever has the pid now; if that started when this process did, it is this process.
        if Self::with_pid(self.pid).is_some_and(|now| now.start == self.start) {
            let _ = pidfd_send_signal(&pidfd, signal);
        }
    }

    /// The process of a supervisor that was noted earlier, if it is still there.
    pub fn of_supervisor(identity: &SupervisorIdentity) -> Option<Self> {
        let process = Self::with_pid(identity.pid)?;
        (process.start == identity.start && boot_id() == identity.boot).then_some(process)
    }

    /// What a supervisor with this pid is noted as.
    pub fn supervisor_identity(pid: i32) -> Option<SupervisorIdentity> {
        let process = Self::with_pid(pid)?;
        Some(SupervisorIdentity { pid, start: process.start, boot: boot_id() })
    }
}

/// The process id of this process, and when it started.
pub fn own() -> (i32, i64) {
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    (pid, Process::with_pid(pid).map_or(0, |it| it.start))
}

/// What this machine calls itself.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Where process ids and start times mean something: this boot of the machine, and the namespace that this process is in.
pub fn machine() -> String {
    let namespace = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    format!("{} {}", boot_id(), namespace.display())
}

/// What tells this boot of the machine from every other: process ids and start times repeat after the next.
fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}
