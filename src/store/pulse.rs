//! What tells whether anything is new, in a few numbers.

use diesel::dsl::{exists, max, min};
use diesel::prelude::*;

use super::conn::Conn;
use super::schema::{changes, deliveries, jobs, pipelines, queues};
use crate::error::Error;
use crate::model::{JobId, Timestamp};

/// What is so at a moment.
#[derive(Debug, Clone, Default)]
pub struct Pulse {
    /// The moment.
    pub at: Timestamp,
    /// The end of the stream of changes.
    pub position: Option<i64>,
    /// Whether something is committed that is not in the stream yet.
    pub has_unnumbered: bool,
    /// When the next turn in the queue is.
    pub turn: Option<Timestamp>,
    /// When the next tick of a schedule comes.
    pub next_run: Option<Timestamp>,
    /// When the next delivery is due.
    pub next_delivery: Option<Timestamp>,
    /// How far jobs are: those that are there, of those that were asked for.
    pub jobs: Vec<(JobId, Progress)>,
}

/// How far a job is: the lines of its log, its latest change, and whether it is to stop.
pub type Progress = (i64, i64, Option<Timestamp>);

impl Conn {
    /// What is so at this moment, with how far these jobs are.
    pub async fn pulse(&mut self, watched: &[JobId]) -> Result<Pulse, Error> {
        let at = self.now().await?;
        let position: Option<i64> = self.one(changes::table.select(max(changes::position))).await?;
        let unnumbered = changes::table.filter(changes::position.is_null());
        let has_unnumbered = self.one(diesel::select(exists(unnumbered))).await?;
        let turn = self.one(queues::table.select(min(queues::turn))).await?;
        let next_run =
            self.one(pipelines::table.filter(pipelines::deleted.is_null()).select(min(pipelines::next_run))).await?;
        let next_delivery = self.one(deliveries::table.select(min(deliveries::not_before))).await?;
        let mut found = Vec::new();
        for some in watched.chunks(1000) {
            let some = jobs::table
                .filter(jobs::id.eq_any(some))
                .select((jobs::id, (jobs::log_lines, jobs::latest_change, jobs::stop_requested)));
            found.extend(self.all::<(JobId, Progress)>(some).await?);
        }
        Ok(Pulse { at, position, has_unnumbered, turn, next_run, next_delivery, jobs: found })
    }
}
