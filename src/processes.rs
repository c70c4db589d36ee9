//! Processes, as `/proc` shows them.
//!
//! `/proc` is read as bytes: a process chooses its own name, and the kernel cuts it after 15 bytes, also within a character. What cannot be
//! read, or understood, says nothing about whether the process has ended.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::OnceLock;

use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, getrlimit, kill_process, pidfd_open, pidfd_send_signal, setrlimit,
    test_kill_process,
};

use crate::model::SupervisorIdentity;

/// Where users are listed.
const USERS: &str = "/etc/passwd";

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

/// Has this process killed when its parent ends, also after it has become another program.
pub fn end_with_parent() -> io::Result<()> {
    let parent = rustix::process::getppid();
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have ended before.
    if rustix::process::getppid() != parent {
        return Err(io::Error::other("the parent process has ended"));
    }
    Ok(())
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

/// What is known of the process with a pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// The process is there.
    Running(Process),
    /// There is no such process, or only a zombie.
    Ended,
    /// There is a process, and `/proc` does not say which: it is hidden (`hidepid`), or the file could not be opened or understood.
    Unknown,
}

impl Lookup {
    /// The same, where a process that started at another time counts as ended.
    pub fn started_at(self, start: i64) -> Self {
        match self {
            Self::Running(process) if process.start != start => Self::Ended,
            found => found,
        }
    }
}

/// What a process's `stat` says.
struct Stat {
    process: Process,
    session: i32,
    state: u8,
    threads: u32,
}

impl Stat {
    fn read(pid: i32) -> io::Result<Self> {
        let stat = fs::read(format!("/proc/{pid}/stat"))?;
        Self::parse(pid, &stat).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }

    /// pid (name, which may hold any bytes) state parent group session … ; the 20th field is the number of threads, the 22nd the start.
    fn parse(pid: i32, stat: &[u8]) -> Option<Self> {
        let name_end = stat.iter().rposition(|byte| *byte == b')')?;
        let fields = std::str::from_utf8(&stat[name_end + 1..]).ok()?;
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        let state = *fields.first()?.as_bytes().first()?;
        let process = Process { pid, parent: fields.get(1)?.parse().ok()?, start: fields.get(19)?.parse().ok()? };
        Some(Self { process, session: fields.get(3)?.parse().ok()?, state, threads: fields.get(17)?.parse().ok()? })
    }

    fn has_ended(&self) -> bool {
        match self.state {
            b'X' => true,
            // A process whose first thread has ended looks the same, for as long as its others run.
            b'Z' => self.threads <= 1,
            _ => false,
        }
    }
}

impl Process {
    /// What is known of the process with this pid.
    pub fn look_up(pid: i32) -> Lookup {
        match Stat::read(pid) {
            Ok(stat) if stat.has_ended() => Lookup::Ended,
            Ok(stat) => Lookup::Running(stat.process),
            // Also what is hidden is "not found". The kernel knows which it is.
            Err(_) => match Pid::from_raw(pid).map(test_kill_process) {
                None | Some(Err(Errno::SRCH)) => Lookup::Ended,
                Some(_) => Lookup::Unknown,
            },
        }
    }

    /// Every process whose `stat` can be read.
    fn all() -> Vec<Self> {
        stats().filter(|stat| !stat.has_ended()).map(|stat| stat.process).collect()
    }

    /// The children of a process, their children, and so on, as far as they can be seen.
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

    /// Processes of the session that a child of this process has made, which has not been waited for: until then its pid is its own.
    pub fn in_session_of_child(pid: i32) -> Vec<Self> {
        let others = stats().filter(|stat| stat.session == pid && stat.process.pid != pid && !stat.has_ended());
        others.map(|stat| stat.process).collect()
    }

    /// Sends a signal to this very process: never to another one that got its pid meanwhile.
    pub fn signal(self, signal: Signal) {
        let Some(pid) = Pid::from_raw(self.pid) else { return };
        let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return };
        // The descriptor holds whoever has the pid now; if that started when this process did, it is this process.
        if matches!(Self::look_up(self.pid).started_at(self.start), Lookup::Running(_)) {
            let _ = pidfd_send_signal(&pidfd, signal);
        }
    }

    /// The process of a supervisor that was noted earlier.
    pub fn look_up_supervisor(identity: &SupervisorIdentity) -> Lookup {
        match boot_id() {
            Some(boot) if boot != identity.boot => Lookup::Ended,
            Some(_) => Self::look_up(identity.pid).started_at(identity.start),
            None => Lookup::Unknown,
        }
    }
}

/// What this process is noted as, if it is a supervisor.
pub fn own_supervisor_identity() -> io::Result<SupervisorIdentity> {
    let pid = own_pid();
    let boot = boot_id().ok_or_else(|| io::Error::other("the boot id cannot be read"))?;
    Ok(SupervisorIdentity { pid, start: Stat::read(pid)?.process.start, boot: boot.to_owned() })
}

/// The children of the calling thread, zombies among them. It takes no reading of what they call themselves, nor that they can be seen. Empty
/// where the kernel does not have this list.
pub fn children() -> Vec<i32> {
    let listed = fs::read("/proc/thread-self/children").unwrap_or_default();
    let pid = |word: &[u8]| std::str::from_utf8(word).ok()?.parse().ok();
    listed.split(u8::is_ascii_whitespace).filter_map(pid).collect()
}

/// Sends a signal to a child of this process that has not been waited for: until then its pid is its own.
pub fn signal_child(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}

/// The children of this process that have ended and that nobody has waited for.
pub fn ended_children() -> Vec<i32> {
    let own = own_pid();
    let ended = stats().filter(|stat| stat.process.parent == own && stat.has_ended());
    ended.map(|stat| stat.process.pid).collect()
}

/// What a process calls itself, for people: at most 15 bytes, and without control characters.
pub fn name_of(pid: i32) -> String {
    let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    let name = name.strip_suffix(b"\n").unwrap_or(&name);
    String::from_utf8_lossy(name).replace(char::is_control, "\u{fffd}")
}

/// What can be read of every process. What cannot be read is left out.
fn stats() -> impl Iterator<Item = Stat> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| Stat::read(entry.ok()?.file_name().to_str()?.parse().ok()?).ok())
}

/// The process id of this process.
pub fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

/// The process id of this process, and when it started.
pub fn own() -> (i32, i64) {
    let pid = own_pid();
    (pid, Stat::read(pid).map_or(0, |stat| stat.process.start))
}

/// The home directory of the user that this process runs as: what `HOME` says, or else what the list of users does.
pub fn home_directory() -> PathBuf {
    let of_user = || {
        let (users, uid) = (fs::read(USERS).ok()?, rustix::process::getuid().as_raw().to_string());
        let mut lines = users.split(|byte| *byte == b'\n').map(|line| line.split(|byte| *byte == b':'));
        let home = lines.find_map(|mut fields| (fields.nth(2)? == uid.as_bytes()).then(|| fields.nth(2))?)?;
        Some(PathBuf::from(OsStr::from_bytes(home)))
    };
    // It asks the system's list of users where there is no variable, but takes an empty one as it is.
    let said = std::env::home_dir().filter(|path| path.is_absolute());
    said.or_else(of_user).filter(|path| path.is_absolute()).unwrap_or_else(|| PathBuf::from("/"))
}

/// What this machine calls itself.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Where process ids and start times mean something: this boot of the machine, and the namespace that this process is in. Where that cannot be
/// read, it is nowhere else.
pub fn machine() -> String {
    static MACHINE: OnceLock<String> = OnceLock::new();
    let read = || match (boot_id(), fs::read_link("/proc/self/ns/pid")) {
        (Some(boot), Ok(namespace)) => format!("{boot} {}", namespace.display()),
        _ => uuid::Uuid::new_v4().to_string(),
    };
    MACHINE.get_or_init(read).clone()
}

/// What tells this boot of the machine from every other: process ids and start times repeat after the next.
fn boot_id() -> Option<&'static str> {
    static BOOT: OnceLock<String> = OnceLock::new();
    if let Some(boot) = BOOT.get() {
        return Some(boot);
    }
    let read = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(BOOT.get_or_init(|| read.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_any_bytes() {
        let rest = " 7 7 7 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 0";
        for name in [&b"sleep"[..], b"\xff\xfe", b"aaaaaaaaaaaaaa\xc3", b") Z 1", b"a\nb (c", b""] {
            for (state, ended) in [("S", false), ("Z", true), ("X", true), ("T", false)] {
                let line = [b"12 (", name, b") ", state.as_bytes(), rest.as_bytes()].concat();
                let stat = Stat::parse(12, &line).unwrap();
                assert_eq!(stat.process, Process { pid: 12, parent: 7, start: 4242 });
                assert_eq!(stat.has_ended(), ended, "{state}");
            }
        }
        assert!(Stat::parse(12, b"12 (sleep) S 7").is_none());
    }

    #[test]
    fn what_cannot_be_read_has_not_ended() {
        assert_eq!(Process::look_up(i32::MAX), Lookup::Ended);
        assert!(matches!(Process::look_up(own_pid()), Lookup::Running(_)));
        assert_eq!(Lookup::Unknown.started_at(1), Lookup::Unknown);
    }
}
