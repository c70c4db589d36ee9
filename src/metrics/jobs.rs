//! What becomes of jobs, and what they print.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::{Histograms, Metrics, counter, counters, histograms};
use crate::model::{Job, JobStatus, JobType, LogLines, LogStream};

/// From a job that only prints to one that runs for a day.
const SECONDS: [f64; 15] =
    [0.05, 0.25, 1.0, 5.0, 15.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0, 7_200.0, 14_400.0, 28_800.0, 86_400.0];

#[derive(Debug)]
pub(super) struct Jobs {
    ended: Family<End, Counter>,
    run_time: Histograms<End>,
    retries: Family<ByType, Counter>,
    skipped: Counter,
    /// In the order of [`LogStream::ALL`].
    log_lines: [Counter; LogStream::ALL.len()],
    log_bytes: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct End {
    r#type: JobType,
    status: JobStatus,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByType {
    r#type: JobType,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByStream {
    stream: LogStream,
}

impl Jobs {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let ends_of = |r#type| JobStatus::FINAL.into_iter().map(move |status| End { r#type, status });
        let streams = LogStream::ALL.iter().map(|&stream| ByStream { stream });
        let log_lines = counters(registry, "jobstream_log_lines", "Log lines that were stored, by stream", streams);
        Self {
            ended: counters(
                registry,
                "jobstream_jobs_ended",
                "Jobs that ended, by type and status",
                JobType::ALL.iter().copied().flat_map(ends_of),
            ),
            run_time: histograms(
                registry,
                "jobstream_job_run_time_seconds",
                "How long the last attempt of a job took, by type and status",
                || Histogram::new(SECONDS),
            ),
            retries: counters(
                registry,
                "jobstream_job_retries",
                "Attempts that were followed by another, by the job's type",
                JobType::ALL.iter().map(|&r#type| ByType { r#type }),
            ),
            skipped: counter(
                registry,
                "jobstream_runs_skipped",
                "Runs that a schedule or a trigger would have queued, and did not: the pipeline's activity says why",
            ),
            log_lines: std::array::from_fn(|index| {
                log_lines.get_or_create_owned(&ByStream { stream: LogStream::ALL[index] })
            }),
            log_bytes: counter(
                registry,
                "jobstream_log_bytes",
                "Bytes of text in the log lines that were stored, before they are compressed",
            ),
        }
    }
}

impl Metrics {
    /// A job has become final.
    pub fn job_ended(&self, job: &Job) {
        let jobs = &self.inner.jobs;
        let end = End { r#type: job.type_, status: job.status };
        jobs.ended.get_or_create(&end).inc();
        // A user task, and one that was stopped in the queue, never ran.
        if let (Some(start), Some(ended)) = (job.start_time, job.end_time) {
            jobs.run_time.get_or_create(&end).observe(ended.since(start).as_secs_f64());
        }
    }

    /// A job of this type is queued for another attempt.
    pub fn job_retried(&self, r#type: JobType) {
        self.inner.jobs.retries.get_or_create(&ByType { r#type }).inc();
    }

    /// So many runs were skipped.
    pub fn runs_skipped(&self, count: u64) {
        self.inner.jobs.skipped.inc_by(count);
    }

    /// These lines are in a job's log.
    pub fn log_stored(&self, lines: &LogLines) {
        let jobs = &self.inner.jobs;
        let mut counts = [0; LogStream::ALL.len()];
        lines.iter().for_each(|line| counts[line.stream as usize] += 1);
        for (counter, count) in jobs.log_lines.iter().zip(counts) {
            counter.inc_by(count);
        }
        jobs.log_bytes.inc_by(lines.text().len() as u64);
    }
}
