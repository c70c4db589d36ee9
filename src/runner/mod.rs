//! The runner: claims jobs, has each held by a supervisor, collects what it prints, and sees it to its end.
//!
//! A slot is a task and a supervisor process. Every slot does the same: claim the oldest job that may start (`jobs` decides
//! which), run it (`attempt`), and wait at the queue's bell when there is none. One idle slot waits there at a time, and the others for their turn to, so
//! that a job that is queued does not wake them all. Before the first claim, and from then on, what servers that are
//! gone have left RUNNING is cleared up (`rescue`).

mod attempt;
mod command;
mod diagnosis;
mod holder;
mod mask;
mod output;
mod patterns;
mod printed;
mod rescue;
mod splitter;
mod spool;
mod survivors;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::directory::Directory;
use crate::error::Error;
use crate::events::{Bell, Events};
use crate::jobs::{Claim, Jobs};
use crate::lease::Lease;
use crate::metrics::Metrics;
use crate::task::Meltano;
use holder::Holder;
use rescue::Rescues;

/// How long a slot waits at most before it looks again, whatever the bell says.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// How long a slot waits after a failure that is not the job's.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// What bounds a job.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How long what is told to end may take before it is killed.
    pub stop_grace: Duration,
    /// How many bytes of output a job's log keeps, over all attempts.
    pub max_log_bytes: i64,
    /// How many bytes of it wait on disk while the database is away.
    pub spool_bytes: u64,
}

/// Tells a runner to stop, in two steps. Clones tell the same runner.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    draining: CancellationToken,
    interrupt: CancellationToken,
}

impl Shutdown {
    /// No job is started any more.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// The jobs that still run are ended, and queued again.
    pub fn interrupt(&self) {
        self.draining.cancel();
        self.interrupt.cancel();
    }

    async fn interrupted(&self) {
        self.interrupt.cancelled().await;
    }
}

/// What the slots share.
#[derive(Debug, Clone)]
pub struct Runner {
    jobs: Jobs,
    lease: Lease,
    events: Events,
    directory: Directory,
    meltano: Meltano,
    limits: Limits,
    shutdown: Shutdown,
    metrics: Metrics,
    /// The queue's bell, for one idle slot at a time.
    queue: Arc<Mutex<Bell>>,
}

impl Runner {
    /// A runner of these jobs.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        jobs: Jobs,
        lease: Lease,
        events: Events,
        directory: Directory,
        meltano: Meltano,
        limits: Limits,
        shutdown: Shutdown,
        metrics: Metrics,
    ) -> Self {
        let queue = Arc::new(Mutex::new(events.queue()));
        Self { jobs, lease, events, directory, meltano, limits, shutdown, metrics, queue }
    }

    /// Runs up to `slots` jobs at a time, until the shutdown is over: no job runs, or is started, any more. Even with none, what an
    /// earlier server left RUNNING is cleared up.
    pub async fn run(self, slots: u16) -> Result<(), Error> {
        self.metrics.slots_opened(slots);
        let mut rescues = Rescues::new(self.clone());
        tokio::select! {
            begun = rescues.begin() => begun?,
            () = self.shutdown.draining.cancelled() => return Ok(()),
        }
        let tracker = TaskTracker::new();
        for _ in 0..slots {
            tracker.spawn(self.clone().slot());
        }
        tracker.close();
        // Without slots there is nothing to wait for but the shutdown.
        tokio::select! {
            () = rescues.watch() => {}
            () = self.shutdown.draining.cancelled() => {}
        }
        tracker.wait().await;
        Ok(())
    }

    async fn slot(self) {
        let mut idle: Option<Holder> = None;
        let mut looks_at_once = true;
        loop {
            let turn = if looks_at_once { None } else { Some(self.queue.lock().await) };
            looks_at_once = true;
            if self.shutdown.draining.is_cancelled() {
                return;
            }
            let held = idle.take().and_then(|mut holder| holder.is_alive().then_some(holder));
            let started = match held {
                Some(holder) => Ok(holder),
                None => tokio::select! {
                    started = self.holder() => started,
                    () = self.shutdown.draining.cancelled() => return,
                },
            };
            let mut holder = match started {
                Ok(holder) => holder,
                Err(error) => {
                    drop(turn);
                    tracing::error!(%error, "a supervisor could not be started");
                    self.pause(AFTER_FAILURE).await;
                    continue;
                }
            };
            if !self.lease.holds() {
                drop(turn);
                self.pause(AFTER_FAILURE).await;
                idle = Some(holder);
                continue;
            }
            match self.jobs.claim(holder.identity().clone()).await {
                Ok(Claim::Job(claimed)) => {
                    drop(turn);
                    attempt::run(&self, &mut holder, *claimed).await;
                }
                Ok(Claim::Nothing { wait }) => match turn {
                    // Something may come before the turn does, so it looks once more then.
                    None => looks_at_once = false,
                    Some(mut queue) => tokio::select! {
                        () = queue.rung() => {}
                        () = self.pause(wait.unwrap_or(LOOK_AGAIN).min(LOOK_AGAIN)) => {}
                    },
                },
                Err(error) => {
                    drop(turn);
                    tracing::error!(error = ?error, "the queue cannot be read; trying again");
                    self.give_up_claim(&holder, &error).await;
                }
            }
            idle = Some(holder);
        }
    }

    /// After a claim that has failed: if it may be stored, nothing else is done before it is given up, not even a shutdown.
    async fn give_up_claim(&self, holder: &Holder, failure: &Error) {
        let may_be_stored = matches!(failure, Error::Uncertain(_));
        while may_be_stored || !self.shutdown.draining.is_cancelled() {
            sleep(AFTER_FAILURE).await;
            match self.jobs.give_up_claim(holder.identity().clone()).await {
                Ok(()) => return,
                Err(error) => tracing::debug!(?error, "the database does not answer yet"),
            }
        }
    }

    async fn holder(&self) -> io::Result<Holder> {
        let holder = Holder::spawn().await?;
        self.metrics.supervisor_started();
        Ok(holder)
    }

    /// Waits, but not into a shutdown.
    async fn pause(&self, duration: Duration) {
        tokio::select! {
            () = sleep(duration) => {}
            () = self.shutdown.draining.cancelled() => {}
        }
    }
}
