//! Changes of jobs' statuses.

use async_graphql::{Context, ID, Object, Result};

use super::job::Job;
use super::loaders;
use crate::model::{self, JobStatus, Timestamp, stream_cursor};

pub(super) struct JobStatusChange {
    pub(super) change: model::StatusChange,
    pub(super) initial: bool,
}

/// A change of a job's status. `job` is the job as it is now; the rest is the change.
#[Object]
impl JobStatusChange {
    /// Where the stream goes on after this change: give it as `after`.
    async fn cursor(&self) -> String {
        stream_cursor(self.change.position)
    }

    /// Whether this tells the present at the beginning of the stream, rather than something that has just happened.
    async fn initial(&self) -> bool {
        self.initial
    }

    /// The job that changed.
    async fn job_id(&self) -> ID {
        self.change.job.to_string().into()
    }

    /// The status since this change.
    async fn status(&self) -> JobStatus {
        self.change.status
    }

    /// The status before it: null for a new job, and for a deletion.
    async fn previous_status(&self) -> Option<JobStatus> {
        self.change.previous_status
    }

    /// The attempt it belongs to.
    async fn attempt(&self) -> i32 {
        self.change.attempt
    }

    /// When it was.
    async fn at(&self) -> Timestamp {
        self.change.at
    }

    /// Whether the job was deleted with this change.
    async fn deleted(&self) -> bool {
        self.change.deleted
    }

    /// The job as it is now: null if it has been deleted.
    async fn job(&self, ctx: &Context<'_>) -> Result<Option<Job>> {
        Ok(loaders::job(ctx, self.change.job).await?.map(Job))
    }
}
