//! Watches the clock that jobs go by, and what follows from a jump of it.
//!
//! Everything here that waits goes by a clock that nobody sets, and looks at the database once in a
//! while. So a jump does no more than to make what is stored wrong, which is put right here: at
//! once when the jump is noticed, and now and then without that.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::error::Error;
use crate::events::{Events, Rings};
use crate::jobs::{Jobs, Occasion};
use crate::metrics::Metrics;
use crate::store::{Jump, Store};

/// How often this machine's clock is read although nobody asks for it.
const READ_EVERY: Duration = Duration::from_secs(1);
/// How often deadlines are recomputed without a jump.
const ROUTINE_EVERY: Duration = Duration::from_secs(30);
/// How soon what has failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Watches the clock.
#[derive(Debug)]
pub struct ClockWatch {
    store: Store,
    jobs: Jobs,
    events: Events,
    metrics: Metrics,
    /// How long a delivery to a webhook waits at most, after so many tries.
    delivery_waits: Vec<Duration>,
}

impl ClockWatch {
    /// A watch over the clock of this store.
    pub fn new(store: Store, jobs: Jobs, events: Events, metrics: Metrics, delivery_waits: Vec<Duration>) -> Self {
        Self { store, jobs, events, metrics, delivery_waits }
    }

    /// Puts right what is stored, when the server starts.
    pub async fn begin(&self) -> Result<(), Error> {
        self.recompute(Occasion::Start).await
    }

    /// Watches until it is dropped.
    pub async fn run(self) {
        let mut routine = Instant::now() + ROUTINE_EVERY;
        loop {
            tokio::select! {
                jump = self.store.clock().next_jump() => self.follow(jump).await,
                () = sleep(READ_EVERY) => self.store.read_clock(),
                () = sleep_until(routine) => {
                    routine = Instant::now() + ROUTINE_EVERY;
                    if let Err(error) = self.recompute(Occasion::Routine).await {
                        tracing::debug!(?error, "failed to recompute deadlines; trying again later");
                    }
                }
            }
        }
    }

    /// Does what a jump asks for.
    async fn follow(&self, jump: Jump) {
        let Jump { expected, shown } = jump;
        let by = format_args!("{}{:?}", if shown < expected { "-" } else { "+" }, shown.distance(expected)).to_string();
        tracing::warn!(%expected, %shown, by, "clock jumped");
        self.metrics.clock_jumped();
        while let Err(error) = self.put_right(jump).await {
            tracing::warn!(?error, "failed to recompute deadlines after a clock jump; trying again");
            sleep(AGAIN).await;
        }
        self.events.ring(&Rings::ALL);
    }

    async fn put_right(&self, jump: Jump) -> Result<(), Error> {
        self.recompute(Occasion::Jump).await?;
        self.jobs.note_clock_jump(jump).await
    }

    async fn recompute(&self, occasion: Occasion) -> Result<(), Error> {
        let moved = self.jobs.recompute_deadlines(&self.delivery_waits, occasion).await?;
        if moved != Default::default() {
            let crate::jobs::Recomputed { workspaces, schedules, deliveries, leases } = moved;
            tracing::warn!(workspaces, schedules, deliveries, leases, "deadlines were too far ahead; recomputed");
        }
        Ok(())
    }
}
