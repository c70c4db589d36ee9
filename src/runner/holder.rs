//! The server's side of a supervisor.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::process::Stdio;
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout};

use crate::model::SupervisorIdentity;
use crate::processes;
use crate::reaper::OwnChild;
use crate::supervisor::protocol::{Command, Order, Report};

/// How long a supervisor may take to start,
const SPAWNING: Duration = Duration::from_secs(60);
/// and to read an order: it has nothing else to do.
const STARTING: Duration = Duration::from_secs(10);
/// Has the allocator overwrite what is freed: libraries leave copies of a job's variables there.
const ALLOCATOR: (&str, &str) = ("_RJEM_MALLOC_CONF", "junk:free");

/// A supervisor process, and the socket to it. When this is dropped the socket closes, and the supervisor ends what it holds.
#[derive(Debug)]
pub(super) struct Holder {
    identity: SupervisorIdentity,
    socket: BufReader<UnixStream>,
    /// What has come of a report: kept here, so that nothing is lost when somebody stops waiting for the rest.
    report: Vec<u8>,
    /// Whether it may take another job: an order may have reached it in part only.
    usable: bool,
    process: OwnChild,
}

impl Holder {
    /// Starts a supervisor.
    pub(super) async fn spawn() -> io::Result<Self> {
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut socket = BufReader::new(UnixStream::from_std(ours)?);
        // The name under /proc stays right when the program's file is replaced while it runs.
        let mut command = tokio::process::Command::new("/proc/self/exe");
        command
            .arg0("jobstream")
            .arg("supervise")
            .args(processes::open_files_of_jobs().map(|it| format!("--open-files={it}")))
            .env_clear()
            .env(ALLOCATOR.0, ALLOCATOR.1)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null());
        let process = OwnChild::spawn(&mut command)?;
        // The end of the socket is the supervisor's only, so that its end can be seen.
        drop(command);
        match timeout(SPAWNING, next_report(&mut socket, &mut Vec::new())).await? {
            Ok(Report::Ready(identity)) => Ok(Self { identity, socket, report: Vec::new(), usable: true, process }),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(io::Error::other("the supervisor ended at once"))
            }
            Err(error) => Err(error),
            Ok(_) => Err(io::Error::other("the supervisor did not say that it is ready")),
        }
    }

    pub(super) fn identity(&self) -> &SupervisorIdentity {
        &self.identity
    }

    /// Whether it can take a job: it may have ended while it was idle.
    pub(super) fn is_alive(&mut self) -> bool {
        self.usable && matches!(self.process.try_wait(), Ok(None))
    }

    /// Has it start a job whose output goes to these descriptors. An error if it does not take the order in good time.
    pub(super) async fn start(&mut self, command: Command, output: [OwnedFd; 2]) -> io::Result<()> {
        let order = Order::Start(command).encode()?;
        self.usable = false;
        timeout(STARTING, self.send(&order, &[output[0].as_fd(), output[1].as_fd()])).await??;
        self.usable = true;
        Ok(())
    }

    /// The descriptors go with the first byte; the rest follows as room is made for it.
    async fn send(&mut self, order: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let socket = self.socket.get_mut();
        let sent = socket.async_io(Interest::WRITABLE, || send_with(socket.as_fd(), order, descriptors)).await?;
        socket.write_all(&order[sent..]).await
    }

    /// Lets what it holds go on until a moment.
    pub(super) async fn go_on(&mut self, until: Instant) -> io::Result<()> {
        let lease = until.saturating_duration_since(Instant::now());
        self.socket.get_mut().write_all(&Order::GoOn(lease).encode()?).await
    }

    /// Has it end what it holds.
    pub(super) async fn end(&mut self) -> io::Result<()> {
        // The job may have suspended it, and a stop or a timeout has to end that too.
        if let Some(pid) = self.process.id().and_then(|pid| i32::try_from(pid).ok()) {
            processes::signal_child(pid, Signal::CONT);
        }
        self.socket.get_mut().write_all(&Order::End.encode()?).await
    }

    /// Waits for what it has to say next. An error if it is gone.
    pub(super) async fn report(&mut self) -> io::Result<Report> {
        let report = next_report(&mut self.socket, &mut self.report).await?;
        if let Report::Ended { last: true, .. } = report {
            self.usable = false;
        }
        Ok(report)
    }

    /// Waits until nothing is left of what it holds, or it is gone.
    pub(super) async fn ended(&mut self) {
        while !matches!(self.report().await, Err(_) | Ok(Report::Ended { .. } | Report::NotStarted { .. })) {}
    }
}

/// Adds what comes of a report to `report`, and takes it once it is whole.
async fn next_report(socket: &mut BufReader<UnixStream>, report: &mut Vec<u8>) -> io::Result<Report> {
    if socket.read_until(b'\n', report).await? == 0 || !report.ends_with(b"\n") {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&std::mem::take(report))?)
}

fn send_with(socket: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
    Ok(sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?)
}
