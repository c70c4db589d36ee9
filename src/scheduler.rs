//! The scheduler: queues runs when their time has come.
//!
//! Which tick comes next is stored with each pipeline, and a tick is taken in the transaction that queues its run. So every tick has one run,
//! or one note that it was skipped, whatever dies in between.

use std::time::Duration;

use crate::events::Events;
use crate::jobs::Jobs;

/// How long it waits at most before it looks again, whatever the bell says.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// How long it waits after a failure.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Takes the ticks of schedules.
#[derive(Debug)]
pub struct Scheduler {
    jobs: Jobs,
    events: Events,
}

impl Scheduler {
    /// A scheduler of these jobs.
    pub fn new(jobs: Jobs, events: Events) -> Self {
        Self { jobs, events }
    }

    /// Takes ticks until it is dropped.
    pub async fn run(self) {
        let mut bell = self.events.schedules();
        loop {
            let wait = match self.jobs.take_ticks().await {
                Ok(next) => next.unwrap_or(LOOK_AGAIN).min(LOOK_AGAIN),
                Err(error) => {
                    tracing::error!(error = ?error, "the ticks of schedules cannot be taken; trying again");
                    AFTER_FAILURE
                }
            };
            tokio::select! {
                () = bell.rung() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }
}
