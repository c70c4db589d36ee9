//! Children of this process, and the orphans that it gets if it is the first process of a container.
//!
//! A process whose parent ends becomes a child of process 1, which has to wait for it, or it stays as a zombie. Where the server is process 1 it
//! gets what a killed supervisor leaves. The exit codes of the server's own children are waited for by the runtime, so they are left alone.

use std::collections::BTreeSet;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, WaitOptions, waitpid};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use crate::processes;

/// The children that the runtime waits for. It is empty unless this process is process 1, which alone reaps orphans.
static OWN: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// A child that the runtime waits for. Once this is dropped, its exit code is not needed, and [`reap_orphans`] may reap it too.
#[derive(Debug)]
pub struct OwnChild {
    child: Child,
    /// The process id in [`OWN`].
    pid: Option<i32>,
}

impl OwnChild {
    /// Starts a child.
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        if !is_first_process() {
            // Nothing reaps orphans, so children may start at the same time.
            return Ok(Self { child: command.spawn()?, pid: None });
        }
        // The child may end before its process id is in the set.
        let mut own = own();
        let child = command.spawn()?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        own.extend(pid);
        Ok(Self { child, pid })
    }
}

impl Deref for OwnChild {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.child
    }
}

impl DerefMut for OwnChild {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.child
    }
}

impl Drop for OwnChild {
    fn drop(&mut self) {
        if let Some(pid) = self.pid {
            own().remove(&pid);
        }
    }
}

/// Whether this process is the first of its container or machine, which becomes the parent of orphans.
pub fn is_first_process() -> bool {
    processes::own_pid() == 1
}

/// Waits for orphans, for as long as this runs. Only process 1 may do this: others do not note which children the runtime waits for.
pub async fn reap_orphans() {
    let mut ended = match signal(SignalKind::child()) {
        Ok(ended) => ended,
        Err(error) => return tracing::error!(%error, "failed to watch for orphaned processes"),
    };
    loop {
        if let Err(error) = tokio::task::spawn_blocking(reap).await {
            tracing::error!(%error, "failed to reap orphaned processes");
        }
        if ended.recv().await.is_none() {
            return;
        }
    }
}

fn reap() {
    let own = own();
    for pid in processes::ended_children().into_iter().filter(|pid| !own.contains(pid)) {
        if let Some(Err(error)) = Pid::from_raw(pid).map(|pid| waitpid(Some(pid), WaitOptions::NOHANG)) {
            tracing::debug!(pid, %error, "failed to reap an orphaned process");
        }
    }
}

fn own() -> MutexGuard<'static, BTreeSet<i32>> {
    OWN.lock().unwrap_or_else(PoisonError::into_inner)
}
