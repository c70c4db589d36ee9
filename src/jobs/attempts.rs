//! What the runner does with a job: claim it, add to its log, end its attempt.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;

use super::queue::Next;
use super::{Ending, Holder, Jobs, Unit, Used, state};
use crate::error::Error;
use crate::events::Rings;
use crate::model::{
    BootTime, Definition, Failure, Job, JobStatus, JobStopReason, JobType, LogLines, LogStream, Pipeline,
    SupervisorIdentity, Timestamp, Workspace,
};
use crate::store::Scope;

/// How soon it is looked again for a job that somebody else is changing.
const CONTENDED: Duration = Duration::from_millis(10);
/// How soon a server that has lost its lease asks again.
const UNLEASED: Duration = Duration::from_secs(1);
/// The longest wait before another attempt.
pub(super) const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

/// What an attempt took, by the clock, may differ by so much from what was measured.
const CLOCK_ERROR: Duration = Duration::from_secs(2);

/// What there is to do for a runner.
#[derive(Debug)]
pub enum Claim {
    /// This job is RUNNING now, and the caller's.
    Job(Box<Claimed>),
    /// Nothing may start at the moment.
    Nothing {
        /// How long it is until something may, if that is known.
        wait: Option<Duration>,
    },
}

/// A job that a runner holds, and what it needs to run it.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// The job.
    pub job: Job,
    /// Its workspace.
    pub workspace: Workspace,
    /// Its pipeline as it is now, for the types that have one.
    pub pipeline: Option<Pipeline>,
    /// The pipeline's definition as it was when the job was queued.
    pub definition: Definition,
    /// The names of the pipelines that trigger its own.
    pub triggered_by: Vec<String>,
    /// What the names in it mean now; for a configuration, those in the pipeline as it is now.
    pub uses: Vec<Used>,
    /// When it was claimed, on a clock that nobody sets.
    pub since: BootTime,
}

impl Jobs {
    /// Takes the oldest job that may start, for a runner whose supervisor this is.
    pub async fn claim(&self, supervisor: SupervisorIdentity) -> Result<Claim, Error> {
        let (node, catalogue, most_running) = (self.node.clone(), self.catalogue.clone(), self.rules.workspace_slots);
        self.commit(move |unit| {
            async move {
                if unit.conn.is_shared() && !unit.conn.holds_lease(node.id, unit.now).await? {
                    return Ok(Claim::Nothing { wait: Some(UNLEASED) });
                }
                let queued = match unit.next_job(most_running).await? {
                    Next::Job(queued) => *queued,
                    // What may start already is somebody else's at this moment.
                    Next::Nothing(at) => {
                        return Ok(Claim::Nothing { wait: at.map(|at| at.since(unit.now).max(CONTENDED)) });
                    }
                };
                let started = state::start(&queued, &node, supervisor, unit.now);
                let job = unit.change(&queued, started).await?;
                let workspace = unit.workspace(job.workspace).await?;
                let pipeline = match job.pipeline {
                    Some(id) => Some(unit.pipeline(id).await?),
                    None => None,
                };
                let definition = match job.definition {
                    Some(id) => unit.conn.definition(id).await?.unwrap_or_default(),
                    None => Definition::default(),
                };
                // A configuration is of what the pipeline is now.
                let now = pipeline.as_ref().filter(|_| job.type_ == JobType::PipelineConfig).map(|it| &it.definition);
                let uses = unit.used_by(&catalogue, workspace.id, now.unwrap_or(&definition)).await?;
                let triggers = unit.conn.triggers_of(&job.pipeline.into_iter().collect::<Vec<_>>()).await?;
                let triggered_by = triggers.into_iter().map(|(_, name)| name).collect();
                let since = BootTime::now();
                Ok(Claim::Job(Box::new(Claimed { job, workspace, pipeline, definition, triggered_by, uses, since })))
            }
            .boxed()
        })
        .await
    }

    /// Adds lines to the log of a job that the caller holds. [`Error::Stale`] if it does not hold it any more.
    pub async fn append_log(&self, held: &Job, lines: Arc<LogLines>) -> Result<(), Error> {
        let held = held.clone();
        self.commit_to(Scope::Logs, move |unit| {
            async move {
                unit.rings.jobs.push(held.id);
                unit.conn.append_log(&held, &lines, lines.output_bytes()).await?;
                unit.tally.logged(lines);
                Ok(())
            }
            .boxed()
        })
        .await
    }

    /// Why a held job should be stopped, if somebody wishes it. [`Error::Stale`] if the caller does not hold it any more.
    pub async fn stop_wish(&self, held: &Job) -> Result<Option<JobStopReason>, Error> {
        let id = held.id;
        let job = self.store.read(move |conn| conn.job_even_deleted(id).boxed()).await?;
        let job = job.filter(|job| is_held(job, held, self.rules.fenced)).ok_or(Error::Stale)?;
        Ok(job.stop_requested.and(job.stop_reason))
    }

    /// Stores the wish to stop a held job because its time is over. [`Error::Stale`] if the caller does not hold it any more.
    pub async fn time_out(&self, held: &Job) -> Result<(), Error> {
        let held = held.clone();
        self.commit(move |unit| {
            async move {
                let job = unit.still_held(&held).await?;
                let wished = state::stop(&job, JobStopReason::Timeout, unit.now)?;
                unit.change(&job, wished).await.map(drop)
            }
            .boxed()
        })
        .await
    }

    /// Ends the attempt of a held job: its last lines, what the server has to say, and the next status, all at once. If that is ERROR, it is for
    /// this reason, or else for what the server says. Where it is stored already with its last lines, nothing is done: whoever was not told so may do it again.
    /// [`Error::Stale`] if the caller does not hold the job any more.
    pub async fn end(
        &self,
        held: &Job,
        since: BootTime,
        ending: Ending,
        last_lines: LogLines,
        failure: Option<Failure>,
    ) -> Result<Job, Error> {
        let held = held.clone();
        let backoff = self.backoff(held.attempt);
        self.commit(move |unit| {
            async move {
                match unit.end_attempt(&held, Some(since), &ending, backoff, Some(last_lines.clone()), failure).await {
                    Err(Error::Stale) if unit.conn.has_lines(held.id, &last_lines).await? => {
                        unit.rings = Rings::ALL; // those of the first time were lost with its acknowledgement
                        unit.conn.job_even_deleted(held.id).await?.ok_or(Error::Stale)
                    }
                    ended => ended,
                }
            }
            .boxed()
        })
        .await
    }

    pub(super) fn backoff(&self, attempt: i32) -> Duration {
        let doublings = u32::try_from(attempt - 1).unwrap_or(0).min(16);
        self.rules.retry_backoff.saturating_mul(1 << doublings).min(LONGEST_BACKOFF)
    }
}

impl Unit<'_> {
    /// A held job as it is now: [`Error::Stale`] if it is held differently.
    async fn still_held(&mut self, held: &Job) -> Result<Job, Error> {
        self.hold(held.workspace).await?;
        let job = self.conn.lock_job(held.id).await?.ok_or(Error::Stale)?;
        if is_held(&job, held, self.fenced) { Ok(job) } else { Err(Error::Stale) }
    }

    pub(super) async fn end_attempt(
        &mut self,
        held: &Job,
        since: Option<BootTime>,
        ending: &Ending,
        backoff: Duration,
        lines: Option<LogLines>,
        failure: Option<Failure>,
    ) -> Result<Job, Error> {
        let job = self.still_held(held).await?;
        // Whoever takes a job over has none, and does not know how far its server came.
        let mut lines = lines.unwrap_or_else(|| LogLines::starting_at(job.log_lines));
        if lines.first_sequence() != job.log_lines {
            if self.fenced {
                return Err(Error::Stale);
            }
            lines = LogLines::starting_at(job.log_lines);
        }
        let output_bytes = lines.output_bytes();
        let mut after = state::end(&job, ending, backoff, self.now);
        after.end_time = after.end_time.map(|now| ended(&job, since, now));
        if let Some(remark) = remark(&job, &after, ending, backoff) {
            lines.push(self.now, LogStream::System, false, &remark);
        }
        if !lines.is_empty() {
            self.conn.append_log(&job, &lines, output_bytes).await?;
        }
        let failure = failure.or_else(|| said_by_the_server(&lines)).or_else(|| after.reason_of_error());
        let after = Job {
            log_lines: lines.next_sequence(),
            log_bytes: job.log_bytes + output_bytes,
            failure: failure.filter(|_| after.status == JobStatus::Error),
            ..after
        };
        self.tally.logged(Arc::new(lines));
        self.change(&job, after).await
    }
}

/// When an attempt ended, as its duration is measured: the clock may have been set meanwhile.
/// Without a measure, not before it started.
fn ended(job: &Job, since: Option<BootTime>, now: Timestamp) -> Timestamp {
    let Some(started) = job.start_time else { return now };
    match since.map(|since| started + since.elapsed()) {
        Some(measured) if measured.distance(now) > CLOCK_ERROR => measured,
        _ => now.max(started),
    }
}

/// Whether a job, as it is now, is held as it was. See [`Rules::fenced`](super::Rules::fenced).
fn is_held(job: &Job, held: &Job, fenced: bool) -> bool {
    let same = (job.attempt, job.owner) == (held.attempt, held.owner);
    job.status == JobStatus::Running && (same || !fenced)
}

/// The last line of the server's own among these, as the reason for a failure.
fn said_by_the_server(lines: &LogLines) -> Option<Failure> {
    let line = lines.iter().filter(|line| line.stream == LogStream::System).last()?;
    Some(Failure::new(line.text, None, Some(line.sequence)))
}

/// What the server says in the log about how an attempt ended, where that is not plain from the job itself.
fn remark(job: &Job, after: &Job, ending: &Ending, backoff: Duration) -> Option<String> {
    let attempt = format!("attempt {} of {}", job.attempt, job.max_attempts);
    let next = match after.status {
        JobStatus::Queued => "It is queued again.",
        JobStatus::Stopped => "It was to be stopped, and is.",
        _ => "No tries are left.",
    };
    match ending {
        Ending::Exited { code, .. } if after.status == JobStatus::Queued => {
            Some(format!("Exit code {code} in {attempt}. Trying again in {backoff:?}."))
        }
        Ending::NotStarted { .. } if after.status == JobStatus::Queued => {
            Some(format!("Not started in {attempt}. Trying again in {backoff:?}."))
        }
        Ending::Exited { .. } | Ending::NotStarted { .. } => None,
        Ending::Lost(Holder::Server) => Some(format!(
            "The server ended while the job was running, in {attempt}. What the job had started is ended too. {next}"
        )),
        Ending::Lost(Holder::LateServer { name, unstored }) => Some(format!(
            "The server {name} was not heard of for too long, in {attempt}. By now it has ended what the job had started; lines that it \
             could not store are in {unstored} there. {next}"
        )),
        Ending::Lost(Holder::Supervisor) => Some(format!(
            "The job's supervisor was killed in {attempt}. What carried the job's id in its environment is ended. {next}"
        )),
        Ending::CutOff => Some(format!(
            "The server could not reach the database for too long, in {attempt}. What the job had started is ended. {next}"
        )),
        Ending::Interrupted if after.status == JobStatus::Queued => Some(format!(
            "The server shuts down; the job's processes were ended in {attempt}, which does not count. {next}"
        )),
        Ending::NotBegun if after.status == JobStatus::Queued => Some(format!(
            "The database went away while a server took the job; nothing was started in {attempt}, which does not count. {next}"
        )),
        Ending::Interrupted | Ending::NotBegun | Ending::NeedsMore => None,
    }
}

impl Claimed {
    /// How long the attempt may take: a run as long as its pipeline says, the system's own tasks a quarter of an hour.
    pub fn timeout(&self) -> Duration {
        match self.job.type_ {
            JobType::PipelineRun => self.definition.run_timeout(),
            _ => Duration::from_secs(15 * 60),
        }
    }
}
