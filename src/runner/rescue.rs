//! Jobs whose server is gone: what is left of them is ended, and their attempts too.
//!
//! A server is gone if its lease is over, or if it can be seen that its process is: on this machine, or because its data directory is ours now. The
//! embedded database has one server at a time, so every other is gone.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::Runner;
use super::output::until_stored;
use super::spool::Spool;
use crate::directory;
use crate::error::Error;
use crate::jobs::{Ending, Holder};
use crate::model::{Job, JobId, LogLines, Node, SupervisorIdentity, Timestamp};
use crate::processes::{self, Process};

/// How often it is looked whether a server is gone.
const LOOK_FOR_SERVERS: Duration = Duration::from_secs(1);
/// How often it is looked whether something has ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How much longer than its grace a supervisor may take before it is told to hurry.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long what has to be killed may take to go.
const KILLING: Duration = Duration::from_secs(10);

/// How it is known that a server is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gone {
    /// Its process is, so what it held ends now, or has ended.
    Process,
    /// Its lease is over: by then it has ended what it held.
    Lease,
}

/// Sees to it that nothing is left of the jobs of servers that are gone, and stores that their attempts have ended. Nothing
/// may be started before this has returned.
pub(super) async fn run(runner: &Runner) -> Result<(), Error> {
    let jobs = runner.jobs.jobs_of_nobody().await?;
    all(runner, jobs, None).await?;
    look(runner).await?;
    // What still waits is of jobs that others have taken over.
    for [path, unstored] in runner.directory.spools().map_err(Error::internal)? {
        let left = Spool::left(path, unstored).map_err(Error::internal)?;
        left.map_or(Ok(()), |mut spool| spool.keep(None, &LogLines::default())).map_err(Error::internal)?;
    }
    Ok(())
}

/// Goes on to look for servers that are gone.
pub(super) async fn watch(runner: &Runner) {
    loop {
        tokio::time::sleep(LOOK_FOR_SERVERS).await;
        if let Err(error) = look(runner).await {
            tracing::debug!(?error, "it cannot be looked whether servers are gone");
        }
    }
}

async fn look(runner: &Runner) -> Result<(), Error> {
    let (now, nodes) = runner.jobs.nodes().await?;
    for node in nodes.iter().filter(|node| node.id != runner.lease.node().id) {
        let Some(gone) = is_gone(runner, node, now) else { continue };
        let jobs = runner.jobs.jobs_of(node.id).await?;
        if !jobs.is_empty() {
            tracing::warn!(
                server = node.name,
                pid = node.pid,
                jobs = jobs.len(),
                ?gone,
                "a server is gone; taking its jobs over"
            );
        }
        all(runner, jobs, Some((node, gone))).await?;
        runner.jobs.forget_node(node.id, gone == Gone::Lease).await?;
    }
    Ok(())
}

fn is_gone(runner: &Runner, node: &Node, now: Timestamp) -> Option<Gone> {
    let own = runner.lease.node();
    if !runner.jobs.is_shared() || node.home == own.home {
        return Some(Gone::Process);
    }
    if node.machine == own.machine && Process::with_pid(node.pid).is_none_or(|it| it.start != node.pid_start) {
        return Some(Gone::Process);
    }
    node.is_late(now).then_some(Gone::Lease)
}

async fn all(runner: &Runner, jobs: Vec<Job>, server: Option<(&Node, Gone)>) -> Result<(), Error> {
    let rescues = jobs.into_iter().map(|job| rescue(runner, job, server));
    for rescued in futures_util::future::join_all(rescues).await {
        rescued?;
    }
    Ok(())
}

async fn rescue(runner: &Runner, mut job: Job, server: Option<(&Node, Gone)>) -> Result<(), Error> {
    // One whose lease is over has ended what it held, and may hold something else by now.
    let is_here = server.is_none_or(|(node, gone)| {
        gone == Gone::Process && (node.machine == processes::machine() || node.home == runner.lease.node().home)
    });
    if is_here {
        if let Some(supervisor) = job.supervisor() {
            supervisor_gone(&supervisor, runner.limits.stop_grace + PATIENCE).await;
        }
        // Another server may have been faster, and the next attempt runs.
        match runner.jobs.stop_wish(&job).await {
            Err(Error::Stale) => return Ok(()),
            wish => drop(wish?),
        }
        end_by_environment(job.id).await;
        let _ = tokio::fs::remove_dir_all(runner.directory.task(job.id)).await;
    }
    if server.is_some_and(|(node, _)| node.home == runner.lease.node().home) {
        job = store_what_waited(runner, job).await?;
    }
    // A lease may have been renewed meanwhile; a process that is gone stays so.
    let late = server.and_then(|(node, gone)| (gone == Gone::Lease).then_some(node));
    let ending = Ending::Lost(late.map_or(Holder::Server, |node| Holder::LateServer {
        name: node.name.clone(),
        unstored: directory::unstored(Path::new(&node.directory), job.id, job.attempt).display().to_string(),
    }));
    let late = late.map(|node| node.id);
    let end = || runner.jobs.take_over(&job, late, ending.clone());
    match until_stored("a rescued job's end", &job, end).await {
        Ok(job) => tracing::warn!(job = %job.id, status = %job.status, "rescued a job"),
        // Another server was faster.
        Err(Error::Stale) => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Stores lines that an earlier server on this directory could not. Answers the job as it is then.
async fn store_what_waited(runner: &Runner, mut job: Job) -> Result<Job, Error> {
    let [path, unstored] = runner.directory.spool(job.id, job.attempt);
    let Some(mut spool) = Spool::left(path, unstored).map_err(Error::internal)? else { return Ok(job) };
    while let Some(lines) = spool.pop().map_err(Error::internal)? {
        let lines = Arc::new(lines);
        let append = || runner.jobs.append_log(&job, Arc::clone(&lines));
        match until_stored("lines that waited", &job, append).await {
            Ok(()) => job.log_lines = job.log_lines.max(lines.next_sequence()),
            // Some before them are missing, or another server has taken the job over.
            Err(Error::Stale) => {
                spool.keep(Some(&lines), &LogLines::default()).map_err(Error::internal)?;
                return Ok(job);
            }
            Err(error) => return Err(error),
        }
    }
    spool.clear();
    Ok(job)
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
