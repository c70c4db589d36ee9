//! Logs.

use std::sync::Arc;

use async_graphql::{Context, Object};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::allowance::LogAllowance;
use super::connection::product;
use super::limits::Limits;
use super::lines::Lines;
use crate::error::{Error, Problem};
use crate::model::{self, JobId, LogLines};
use crate::store::{Conn, Enough, Store};

pub(super) use crate::store::LogRequest;

const DEFAULT_LINES: i32 = 1_000;
/// No option allows more.
const MOST_LINES: i32 = 10_000;

pub(super) struct JobLogs {
    lines: LogLines,
    pub(super) next_sequence: i64,
    pub(super) complete: bool,
}

/// Some lines of a job's log.
#[Object]
impl JobLogs {
    /// The lines, in order.
    async fn lines(&self, ctx: &Context<'_>) -> Lines {
        Lines::new(&self.lines, ctx)
    }

    /// The number of the line that comes next: where to go on.
    async fn next_sequence(&self) -> i64 {
        self.next_sequence
    }

    /// Whether the job is final and no line comes after these.
    async fn complete(&self) -> bool {
        self.complete
    }
}

/// The arguments of `Job.logs`.
pub(super) struct LogArguments {
    pub(super) sequence: Option<i64>,
    pub(super) first: Option<i32>,
    pub(super) last: Option<i32>,
}

impl LogArguments {
    pub(super) fn request(self, ctx: &Context<'_>) -> Result<LogRequest, Error> {
        let largest = ctx.data_unchecked::<Arc<Limits>>().max_log_page;
        let mut problems = Vec::new();
        let mut problem = |path: &str, message: String| problems.push(Problem { path: path.to_owned(), message });
        for (path, size) in [("first", self.first), ("last", self.last)] {
            if size.is_some_and(|size| !(1..=largest).contains(&size)) {
                problem(path, format!("A page of a log has 1 to {largest} lines."));
            }
        }
        if self.last.is_some() && (self.first.is_some() || self.sequence.is_some()) {
            problem("last", "Give `last` without `first` and `sequence`.".to_owned());
        }
        if self.sequence.is_some_and(|sequence| sequence < 0) {
            problem("sequence", NEGATIVE.to_owned());
        }
        if !problems.is_empty() {
            return Err(Error::BadUserInput(problems));
        }
        let bytes = ctx.data_unchecked::<LogAllowance>().take()?;
        let size = |lines: i32| Enough { lines: usize::try_from(lines).unwrap_or(0), bytes };
        Ok(match self.last {
            Some(last) => LogRequest::Last(size(last)),
            None => {
                let lines = self.first.unwrap_or(DEFAULT_LINES.min(largest));
                LogRequest::From(self.sequence.unwrap_or(0), size(lines))
            }
        })
    }
}

/// Said of a negative line number.
pub(super) const NEGATIVE: &str = "Lines are numbered from 0.";

/// What `Job.logs` costs: the lines are made in one go, twenty for the price of one object.
pub(super) fn complexity(first: Option<i32>, last: Option<i32>, of_a_line: usize) -> usize {
    let lines = first.or(last).unwrap_or(DEFAULT_LINES).clamp(0, MOST_LINES);
    product((lines + 19) / 20, of_a_line)
}

/// Reads lines of one job's log. [`Error::NotFound`] if there is no such job.
pub(super) async fn read(store: &Store, job: JobId, request: LogRequest) -> Result<JobLogs, Error> {
    read_once(store.read(logs(job, request)), job).await
}

/// The same for whoever follows it.
pub(super) async fn read_when_there(store: &Store, job: JobId, request: LogRequest) -> Result<JobLogs, Error> {
    read_once(store.read_when_there(|| logs(job, request)), job).await
}

type Found = Vec<(LogRequest, model::Job, LogLines)>;

fn logs(job: JobId, request: LogRequest) -> impl for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<Found, Error>> {
    move |conn| async move { conn.logs(&[(job, request)]).await }.boxed()
}

async fn read_once(read: impl Future<Output = Result<Found, Error>>, job: JobId) -> Result<JobLogs, Error> {
    let (_, job, lines) = read.await?.pop().ok_or_else(|| Error::not_found("job", job))?;
    Ok(JobLogs::of(&job, lines))
}

impl JobLogs {
    /// Lines that were read together with the job.
    pub(super) fn of(job: &model::Job, lines: LogLines) -> Self {
        // Whoever asks a final job for lines that never came is told where its log ends.
        let end = if job.status.is_final() { job.log_lines } else { i64::MAX };
        let next_sequence = lines.next_sequence().min(end);
        Self { lines, next_sequence, complete: job.status.is_final() && next_sequence == job.log_lines }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twenty_lines_cost_as_much_as_one() {
        assert_eq!((complexity(Some(1), None, 3), complexity(None, Some(20), 3)), (4, 4));
        assert_eq!((complexity(Some(21), None, 3), complexity(None, None, 3)), (7, 151));
        assert_eq!((complexity(Some(i32::MAX), None, 3), complexity(Some(-1), None, 3)), (1_501, 1));
    }
}
