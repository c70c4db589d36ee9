//! Activity: what happens to pipelines.

use diesel::prelude::*;

use super::{ActivityKind, JobId, JobStatus, PipelineId, Timestamp};

/// Something that happened to a pipeline: a job of it started or ended, or a run was skipped.
#[derive(Debug, Clone, Queryable)]
pub struct Activity {
    /// Its place in the stream.
    pub position: i64,
    /// The pipeline.
    pub pipeline: PipelineId,
    /// The job: none for a run that was skipped.
    pub job: Option<JobId>,
    /// The status since then, if it is a job's.
    pub status: Option<JobStatus>,
    /// The attempt it belongs to.
    pub attempt: Option<i32>,
    /// When it was.
    pub at: Timestamp,
    /// Why a run was skipped.
    pub skipped: Option<String>,
}

impl Activity {
    /// What it was.
    pub fn kind(&self) -> ActivityKind {
        match self.status {
            None => ActivityKind::Skipped,
            Some(JobStatus::Running | JobStatus::Queued) => ActivityKind::Started,
            Some(JobStatus::Error) => ActivityKind::Failed,
            Some(JobStatus::Complete | JobStatus::Stopped) => ActivityKind::Ended,
        }
    }
}
