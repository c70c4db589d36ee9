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
use tokio::process::Child;
use tokio::time::{Instant, timeout};

use crate::model::SupervisorIdentity;
use crate::processes::{self, Process};
use crate::supervisor::protocol::{Command, Order, Report};

/// How long a supervisor may take to read an order: it has nothing else to do.
const STARTING: Duration = Duration::from_secs(10);

/// A supervisor process, and the socket to it. When this is dropped the socket closes, and the supervisor ends what it holds.
#[derive(Debug)]
pub(super) struct Holder {
    identity: SupervisorIdentity,
    socket: BufReader<UnixStream>,
    /// What has come of a report: kept here, so that nothing is lost when somebody stops waiting for the rest.
    report: Vec<u8>,
    /// Whether it may take another job: an order may have reached it in part only.
    usable: bool,
    /// Reaped by the runtime when it has ended.
    _process: Child,
}

impl Holder {
    /// Starts a supervisor.
    pub(super) fn spawn() -> io::Result<Self> {
        let (ours, theirs) = StdUnixStream::pair()?;
        // The name under /proc stays right when the program's file is replaced while it runs.
        let process = tokio::process::Command::new("/proc/self/exe")
            .arg0("jobstream")
            .arg("supervise")
            .args(processes::open_files_of_jobs().map(|it| format!("--open-files={it}")))
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()?;
        let identity = process.id().and_then(|pid| Process::supervisor_identity(i32::try_from(pid).ok()?));
        let identity = identity.ok_or_else(|| io::Error::other("the supervisor ended at once"))?;
        ours.set_nonblocking(true)?;
        Ok(Self {
            identity,
            socket: BufReader::new(UnixStream::from_std(ours)?),
            report: Vec::new(),
            usable: true,
            _process: process,
        })
    }

    pub(super) fn identity(&self) -> &SupervisorIdentity {
        &self.identity
    }

    /// Whether it can take a job: it may have ended while it was idle.
    pub(super) fn is_alive(&self) -> bool {
        self.usable && Process::of_supervisor(&self.identity).is_some()
    }

    /// Has it start a job whose output goes to these descriptors. An error if it does not take the order in good time.
    pub(super) async fn start(&mut self, command: Command, output: [OwnedFd; 2]) -> io::Result<()> {
        let line = line(&Order::Start(command))?;
        self.usable = false;
        timeout(STARTING, self.send(&line, &[output[0].as_fd(), output[1].as_fd()])).await??;
        self.usable = true;
        Ok(())
    }

    /// The descriptors go with the first byte; the rest follows as room is made for it.
    async fn send(&mut self, line: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let socket = self.socket.get_mut();
        let sent = socket.async_io(Interest::WRITABLE, || send_with(socket.as_fd(), line, descriptors)).await?;
        socket.write_all(&line[sent..]).await
    }

    /// Lets what it holds go on until a moment.
    pub(super) async fn go_on(&mut self, until: Instant) -> io::Result<()> {
        let lease = until.saturating_duration_since(Instant::now());
        self.socket.get_mut().write_all(&line(&Order::GoOn(lease))?).await
    }

    /// Has it end what it holds.
    pub(super) async fn end(&mut self) -> io::Result<()> {
        // The job may have suspended it, and a stop or a timeout has to end that too.
        if let Some(process) = Process::of_supervisor(&self.identity) {
            process.signal(Signal::CONT);
        }
        self.socket.get_mut().write_all(&line(&Order::End)?).await
    }

    /// Waits for what it has to say next. An error if it is gone.
    pub(super) async fn report(&mut self) -> io::Result<Report> {
        if self.socket.read_until(b'\n', &mut self.report).await? == 0 || !self.report.ends_with(b"\n") {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let report = serde_json::from_slice(&std::mem::take(&mut self.report))?;
        if let Report::Ended { last: true, .. } = report {
            self.usable = false;
        }
        Ok(report)
    }
}

fn line(order: &Order) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(order)?;
    line.push(b'\n');
    Ok(line)
}

fn send_with(socket: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
    Ok(sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?)
}
