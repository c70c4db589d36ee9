//! The hidden subcommand that holds one job's processes.
//!
//! A supervisor is a small process between the server and a job. It is the subreaper of all that the job starts, so whatever
//! a process does (`setsid`, double fork, `env -i`), it stays a descendant; and it holds one end of a socket whose other end only
//! the server has. When that closes, the server is gone, and the supervisor ends the whole tree, then itself. A
//! supervisor whose job has ended with nothing left is as good as new, and takes the next one.
//!
//! It has no runtime and one thread, and it waits for children with `wait`, which a server with others' exit codes could not. Only `wait` says
//! that nothing is left: what `/proc` does not show is still there.
//!
//! Sensitive values pass through it. Other processes of the same user cannot read its memory, and nothing of a job that has ended is left in
//! it: its own buffers are wiped, and so is what libraries free (the server starts it with `junk:free` for the allocator).
//!
//! Its limits: a supervisor that is killed by hand cannot end anything (the server then looks for processes that carry
//! the job's id in their environment), setuid programs cannot be signalled, and containers are started elsewhere.

pub mod protocol;
mod tree;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSliceMut, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, Mode, memfd_create};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Signal, WaitOptions, WaitStatus};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use zeroize::Zeroize;

use crate::processes;
use crate::variables::Variables;
use protocol::{Command, Order, Orders, Report};
use tree::Tree;

/// How often the tree is looked through while it is being killed, for new processes may appear until none is left: often at first,
/// and ever less often where something cannot be killed.
const KILL_EVERY: Duration = Duration::from_millis(5);
const KILL_OFTEN: u32 = 100;
const KILL_SELDOM: Duration = Duration::from_millis(500);
/// How many times the tree is looked through before it is said that processes are left and none can be found.
const LOOKS: u32 = 20;
/// How long what is killed may take to go before it is said that it does not.
const KILLING: Duration = Duration::from_secs(5);

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
    /// Orders as they arrive, and the descriptors that came with them.
    orders: Orders,
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
    /// How often that was tried, and when it was first.
    killed: u32,
    first_killed: Option<Instant>,
    /// Whether the server was told what is killed, and what cannot be.
    told_of_killing: bool,
    told_of_unkillable: bool,
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
            orders: Orders::default(),
            descriptors: VecDeque::new(),
            signals,
            hurry,
            server_gone: false,
            job: None,
        })
    }

    fn serve(&mut self) -> io::Result<()> {
        self.report(&Report::Ready(processes::own_supervisor_identity()?))?;
        while !(self.server_gone && self.job.is_none()) {
            // One that was told to end takes no other job.
            if self.hurry.load(Ordering::Relaxed) && self.job.is_none() {
                return Ok(());
            }
            self.wait()?;
            self.reap()?;
            self.end_what_may_not_go_on();
            self.kill_what_is_late()?;
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
        self.orders.push(&bytes[..count]);
        bytes.zeroize();
        while let Some(order) = self.orders.next()? {
            match order {
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
        let spawn = |stdin| {
            std::process::Command::new(&command.program)
                .args(&command.arguments)
                .env_clear()
                .envs(command.environment.iter())
                .current_dir(&command.directory)
                .stdin(Stdio::from(stdin))
                .stdout(stdout)
                .stderr(stderr)
                .process_group(0)
                .spawn()
        };
        let spawned = input(&command.input).and_then(spawn);
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
                    first_killed: None,
                    told_of_killing: false,
                    told_of_unkillable: false,
                });
                Ok(())
            }
            Err(error) => {
                let short = [Errno::AGAIN, Errno::NOMEM, Errno::MFILE, Errno::NFILE, Errno::NOSPC]
                    .iter()
                    .any(|it| error.raw_os_error() == Some(it.raw_os_error()));
                // The system reports a missing directory as it reports a missing program.
                let reason = match command.directory.is_dir() {
                    true => format!("{}: {error}", command.program),
                    false => format!("its working directory {} does not exist.", command.directory.display()),
                };
                self.report(&Report::NotStarted { reason, short })
            }
        }
    }

    /// Tells everything the job started to end, if it was not told yet.
    fn end_job(&mut self) {
        let Some(job) = self.job.as_mut().filter(|job| job.deadline.is_none()) else { return };
        job.deadline = Some(Instant::now() + job.grace);
        let tree = Tree::of_this_process();
        tree.signal(Signal::TERM);
        tree.signal(Signal::CONT); // one that is stopped would not hear of it
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
                job.left_behind = Tree::of_this_process().len();
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

    fn kill_what_is_late(&mut self) -> io::Result<()> {
        let Some(job) = &mut self.job else { return Ok(()) };
        let now = Instant::now();
        if self.hurry.load(Ordering::Relaxed) {
            job.deadline = Some(job.deadline.map_or(now, |deadline| deadline.min(now)));
        }
        if job.deadline.is_none_or(|deadline| deadline > now) {
            return Ok(());
        }
        let tree = Tree::of_this_process();
        // Before they are gone, and their names with them.
        let survivors = (!job.told_of_killing || !job.told_of_unkillable).then(|| tree.survivors());
        tree.signal(Signal::KILL);
        job.killed = job.killed.saturating_add(1);
        let first_killed = *job.first_killed.get_or_insert(now);
        let Some(survivors) = survivors else { return Ok(()) };
        if !job.told_of_killing && survivors.count > 0 {
            job.told_of_killing = true;
            return self.report(&Report::Killing(survivors));
        }
        // `wait` still speaks of children.
        let lost = survivors.count == 0 && job.killed > LOOKS;
        if !job.told_of_unkillable && (lost || now.duration_since(first_killed) > KILLING) {
            job.told_of_unkillable = true;
            if self.server_gone {
                let _ =
                    writeln!(io::stderr(), "jobstream supervisor: failed to kill processes of a job: {survivors:?}");
            }
            return self.report(&Report::Unkillable(survivors));
        }
        Ok(())
    }

    fn report(&mut self, report: &Report) -> io::Result<()> {
        let mut line = serde_json::to_vec(report)?;
        line.push(b'\n');
        // If nobody is left to hear it, `receive` finds that out. What is held is not let go of for that.
        let _ = self.server.write_all(&line);
        Ok(())
    }
}

/// A file with these variables, which is in memory only, and read from its beginning.
fn input(variables: &Variables) -> io::Result<File> {
    if variables.encoded_len() == 0 {
        return File::open("/dev/null");
    }
    // Linux before 6.3 does not know the flag, and some later ones insist on it.
    let flags = MemfdFlags::CLOEXEC;
    let file = memfd_create(c"variables", flags | MemfdFlags::NOEXEC_SEAL);
    let file = file.or_else(|error| if error == Errno::INVAL { memfd_create(c"variables", flags) } else { Err(error) });
    let mut file = File::from(file?);
    file.write_all(&variables.encode())?;
    file.rewind()?;
    Ok(file)
}
