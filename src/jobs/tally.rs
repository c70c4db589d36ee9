//! What a change is counted as, once it is stored.

use std::sync::Arc;

use crate::metrics::Metrics;
use crate::model::{Job, JobStatus, JobType, LogLines};

/// What a change in the making will be counted as.
#[derive(Debug, Default)]
pub(super) struct Tally {
    ended: Vec<Job>,
    retried: Vec<JobType>,
    logged: Vec<Arc<LogLines>>,
    skipped: u64,
}

impl Tally {
    /// Notes the change of a job's state.
    pub(super) fn changed(&mut self, before: &Job, after: &Job) {
        if after.status.is_final() {
            self.ended.push(after.clone());
        } else if after.status == JobStatus::Queued && after.attempt > before.attempt {
            self.retried.push(after.type_);
        }
    }

    /// Notes lines that are added to a log.
    pub(super) fn logged(&mut self, lines: Arc<LogLines>) {
        self.logged.push(lines);
    }

    /// Notes that a run was skipped.
    pub(super) fn skipped(&mut self) {
        self.skipped += 1;
    }

    /// Counts what was noted.
    pub(super) fn count(self, metrics: &Metrics) {
        self.ended.iter().for_each(|job| metrics.job_ended(job));
        self.retried.iter().for_each(|type_| metrics.job_retried(*type_));
        self.logged.iter().for_each(|lines| metrics.log_stored(lines));
        metrics.runs_skipped(self.skipped);
    }
}
