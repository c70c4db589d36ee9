//! After a crash: what the last server left RUNNING.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::Runner;
use super::output::until_stored;
use crate::error::Error;
use crate::jobs::{Ending, Holder};
use crate::model::{Job, JobId, LogLines, SupervisorIdentity};
use crate::processes::Process;

/// How often it is looked whether something has ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How much longer than its grace a supervisor may take before it is told to hurry.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long what has to be killed may take to go.
const KILLING: Duration = Duration::from_secs(10);

/// Sees to it that nothing is left of the jobs that an earlier server ran, and stores that their attempts have ended. Nothing
/// may be started before this has returned.
pub(super) async fn run(runner: &Runner) -> Result<(), Error> {
    let orphans = runner.jobs.orphans().await?;
    if !orphans.is_empty() {
        tracing::warn!(
            jobs = orphans.len(),
            "found jobs that an earlier server was running; ending what is left of them"
        );
    }
    let rescues = orphans.into_iter().map(|job| rescue(runner, job));
    for rescued in futures_util::future::join_all(rescues).await {
        rescued?;
    }
    Ok(())
}

async fn rescue(runner: &Runner, job: Job) -> Result<(), Error> {
    if let Some(supervisor) = job.supervisor() {
        supervisor_gone(&supervisor, runner.limits.stop_grace + PATIENCE).await;
    }
    end_by_environment(job.id).await;
    let _ = tokio::fs::remove_dir_all(runner.directory.task(job.id)).await;
    let ending = Ending::Lost(Holder::Server);
    let end = || runner.jobs.end(&job, ending.clone(), LogLines::default(), None);
    let job = until_stored("a rescued job's end", &job, end).await?;
    tracing::warn!(job = %job.id, status = %job.status, "rescued a job");
    Ok(())
}

/// Waits until a supervisor, which ends what it holds because its server is gone, has ended. It is never killed: that
/// would let go of what it holds.
async fn supervisor_gone(identity: &SupervisorIdentity, patience: Duration) {
    let started = Instant::now();
    let mut hurried = false;
    while let Some(process) = Process::of_supervisor(identity) {
        if !hurried && started.elapsed() > patience {
            hurried = true;
            tracing::warn!(
                pid = identity.pid,
                "a supervisor of the last server has not ended; telling it to kill what it holds"
            );
            process.signal(Signal::TERM);
            process.signal(Signal::CONT);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Kills what carries the job's id in its environment, until nothing does: for a job whose supervisor could not do it. What
/// cannot be killed, as a setuid program cannot by another user, is left after a while.
pub(super) async fn end_by_environment(job: JobId) {
    let id = job.to_string();
    let started = Instant::now();
    loop {
        let left = Process::with_variable("JOBSTREAM_JOB_ID", &id);
        if left.is_empty() {
            return;
        }
        if started.elapsed() > KILLING {
            return tracing::error!(%job, processes = ?left, "processes of a job cannot be killed");
        }
        left.into_iter().for_each(|process| process.signal(Signal::KILL));
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
