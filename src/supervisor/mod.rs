//! The hidden subcommand that holds one job's processes.
//!
//! A supervisor is a small process between the server and a job. It is the subreaper of all that the job starts, so whatever
//! a process does (`setsid`, double fork, `env -i`), it stays a descendant; and it holds one end of a socket whose other end only
//! the server has. When that closes, the server is gone, and the supervisor ends the whole tree, then itself. A
//! supervisor whose job has ended with nothing left is as good as new, and takes the next one.
//!
//! It has no runtime and one thread, and it waits for children with `wait`, which a server with others' exit codes could not.
//!
//! Its limits: a supervisor that is killed by hand cannot end anything (the server then looks for processes that carry
//! the job's id in their environment), setuid programs cannot be signalled, and containers are started elsewhere.

pub mod protocol;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Signal, WaitOptions, WaitStatus};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};

use crate::processes::Process;
use protocol::{Command, Order, Report};

/// How often the tree is looked through while it is being killed, for new processes may appear until none is left: often at first,
/// and ever less often where something cannot be killed.
const KILL_EVERY: Duration = Duration::from_millis(5);
const KILL_OFTEN: u32 = 100;
const KILL_SELDOM: Duration = Duration::from_millis(500);

/// Runs a supervisor, with the socket to the server as its standard input.
pub fn run() -> ExitCode {
    match Supervisor::new().and_then(|mut supervisor| supervisor.serve()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "jobstream supervisor: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Supervisor {
    server: UnixStream,
    /// Bytes of an order that has not come whole, and the descriptors that came with them.
    received: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
    /// Readable when a child has ended, or a signal says to hurry.
    signals: UnixStream,
    hurry: Arc<AtomicBool>,
    server_gone: bool,
    job: Option<Held>,
}

/// A job, from its start until nothing is left of it.
struct Held {
    pid: i32,
    /// Known once its first process has exited.
    code: Option<i32>,
    left_behind: usize,
    /// Whether it exited before it was told to end.
    by_itself: bool,
    grace: Duration,
    /// When it is told to end, unless the server lets it go on.
    lease_ends: Option<Instant>,
    /// When what is left is killed, once it was told to end.
    deadline: Option<Instant>,
    /// How often that was tried.
    killed: u32,
}

impl Supervisor {
    fn new() -> io::Result<Self> {
        crate::secret::be_listed_by_name();
        // A session of its own: no signal of the server's terminal reaches the job.
        rustix::process::setsid()?;
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        rustix::process::umask(Mode::RWXG | Mode::RWXO);
        let server = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        let (signals, on_signal) = UnixStream::pair()?;
        signals.set_nonblocking(true)?;
        let hurry = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&hurry))?;
            signal_hook::low_level::pipe::register(signal, on_signal.try_clone()?)?;
        }
        signal_hook::low_level::pipe::register(SIGCHLD, on_signal)?;
        Ok(Self {
            server,
            received: Vec::new(),
            descriptors: VecDeque::new(),
            signals,
            hurry,
            server_gone: false,
            job: None,
        })
    }

    fn serve(&mut self) -> io::Result<()> {
        while !(self.server_gone && self.job.is_none()) {
            // One that was told to end takes no other job.
            if self.hurry.load(Ordering::Relaxed) && self.job.is_none() {
                return Ok(());
            }
            self.wait()?;
            self.reap()?;
            self.end_what_may_not_go_on();
            self.kill_what_is_late();
        }
        Ok(())
    }

    /// Waits for an order, the end of a child, or the moment to kill.
    fn wait(&mut self) -> io::Result<()> {
        let timeout = self.job.as_ref().and_then(|job| {
            let now = Instant::now();
            let pause = if job.killed < KILL_OFTEN { KILL_EVERY } else { KILL_SELDOM };
            match job.deadline {
                Some(deadline) => Some(deadline.saturating_duration_since(now).max(pause)),
                None => Some(job.lease_ends?.saturating_duration_since(now)),
            }
        });
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let mut ready = [PollFd::new(&self.signals, PollFlags::IN), PollFd::new(&self.server, PollFlags::IN)];
        // A server that is gone stays "readable".
        let watched = if self.server_gone { 1 } else { 2 };
        match poll(&mut ready[..watched], timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [signalled, ordered] = ready.map(|it| !it.revents().is_empty());
        if signalled {
            let _ = io::copy(&mut &self.signals, &mut io::sink()); // until it would block
        }
        if ordered { self.receive() } else { Ok(()) }
    }

    fn receive(&mut self) -> io::Result<()> {
        let mut bytes = [0; 16 * 1024];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let count = match recvmsg(&self.server, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags) {
            Ok(message) => message.bytes,
            Err(Errno::INTR) => return Ok(()),
            Err(Errno::CONNRESET) => 0,
            Err(error) => return Err(error.into()),
        };
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.descriptors.extend(descriptors);
            }
        }
        if count == 0 {
            self.server_gone = true;
            self.end_job();
            return Ok(());
        }
        self.received.extend_from_slice(&bytes[..count]);
        while let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.received.drain(..=end).collect();
            match serde_json::from_slice(&line)? {
                Order::Start(command) => self.start(&command)?,
                Order::GoOn(lease) => {
                    if let Some(job) = &mut self.job {
                        job.lease_ends = Some(Instant::now() + lease);
                    }
                }
                Order::End => self.end_job(),
            }
        }
        Ok(())
    }

    fn start(&mut self, command: &Command) -> io::Result<()> {
        if self.hurry.load(Ordering::Relaxed) {
            return Ok(()); // it ends now, which the server sees
        }
        let (Some(stdout), Some(stderr)) = (self.descriptors.pop_front(), self.descriptors.pop_front()) else {
            let reason = "no descriptors came with the order".to_owned();
            return self.report(&Report::NotStarted { reason, short: true });
        };
        let spawned = std::process::Command::new(&command.program)
            .args(&command.arguments)
            .env_clear()
            .envs(command.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(&command.directory)
            .stdin(Stdio::from(File::open("/dev/null")?))
            .stdout(stdout)
            .stderr(stderr)
            .process_group(0)
            .spawn();
        match spawned {
            Ok(child) => {
                self.job = Some(Held {
                    pid: i32::try_from(child.id()).unwrap_or(0),
                    code: None,
                    left_behind: 0,
                    by_itself: false,
                    grace: command.grace,
                    lease_ends: command.lease.map(|lease| Instant::now() + lease),
                    deadline: None,
                    killed: 0,
                });
                Ok(())
            }
            Err(error) => {
                let short = [Errno::AGAIN, Errno::NOMEM, Errno::MFILE, Errno::NFILE, Errno::NOSPC]
                    .iter()
                    .any(|it| error.raw_os_error() == Some(it.raw_os_error()));
                self.report(&Report::NotStarted { reason: format!("{}: {error}", command.program), short })
            }
        }
    }

    /// Tells everything the job started to end, if it was not told yet.
    fn end_job(&mut self) {
        let Some(job) = self.job.as_mut().filter(|job| job.deadline.is_none()) else { return };
        job.deadline = Some(Instant::now() + job.grace);
        for process in Process::descendants_of(own_pid()) {
            process.signal(Signal::TERM);
            process.signal(Signal::CONT); // one that is stopped would not hear of it
        }
    }

    /// Takes note of children that have ended: the job's first process, and orphans that came to this subreaper.
    fn reap(&mut self) -> io::Result<()> {
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => self.note_exit(pid.as_raw_nonzero().get(), status),
                Ok(None) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::CHILD) => return self.nothing_left(),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn note_exit(&mut self, pid: i32, status: WaitStatus) {
        let Some(job) = self.job.as_mut().filter(|job| job.pid == pid) else { return };
        let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
        if code.is_some() {
            job.code = code;
            if job.deadline.is_none() {
                job.by_itself = true;
                job.left_behind = Process::descendants_of(own_pid()).len();
                self.end_job();
            }
        }
    }

    fn nothing_left(&mut self) -> io::Result<()> {
        match self.job.take_if(|job| job.code.is_some()) {
            Some(Held { code: Some(code), left_behind, by_itself, .. }) => {
                let last = self.hurry.load(Ordering::Relaxed);
                self.report(&Report::Ended { code, left_behind, by_itself, last })
            }
            _ => Ok(()),
        }
    }

    /// The server has not said for too long that the job is still its own: by now it may be somebody else's.
    fn end_what_may_not_go_on(&mut self) {
        if self.job.as_ref().and_then(|job| job.lease_ends).is_some_and(|end| end <= Instant::now()) {
            self.end_job();
        }
    }

    fn kill_what_is_late(&mut self) {
        let Some(job) = &mut self.job else { return };
        let now = Instant::now();
        if self.hurry.load(Ordering::Relaxed) {
            job.deadline = Some(job.deadline.map_or(now, |deadline| deadline.min(now)));
        }
        if job.deadline.is_some_and(|deadline| deadline <= now) {
            job.killed = job.killed.saturating_add(1);
            Process::descendants_of(own_pid()).into_iter().for_each(|process| process.signal(Signal::KILL));
        }
    }

    fn report(&mut self, report: &Report) -> io::Result<()> {
        let mut line = serde_json::to_vec(report)?;
        line.push(b'\n');
        match self.server.write_all(&line) {
            // Nobody is left to hear it; `receive` will find that out.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written,
        }
    }
}

fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}
