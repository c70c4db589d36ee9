//! One attempt of one job, from its claim to its end.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use zeroize::Zeroizing;

use super::Runner;
use super::command::{self, NoCommand, Start};
use super::holder::Holder;
use super::output::{Output, Outside, until_stored};
use super::rescue::{end_what_is_left, remove_all};
use super::spool::Spool;
use super::survivors;
use crate::confined::remove_tree;
use crate::error::Error;
use crate::jobs::{self, Claimed, Ending};
use crate::model::{Failure, Job, JobType, LogLines, LogStream};
use crate::supervisor::protocol::Report;
use crate::task;

/// How soon it is looked again whether a job is to stop, if that could not be read.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How an attempt ended, and what is to be stored with that.
struct Ended {
    ending: Ending,
    lines: LogLines,
    failure: Option<Failure>,
}

/// Runs a claimed job under this supervisor, and stores how it ended. The supervisor may be gone afterwards.
pub(super) async fn run(runner: &Runner, holder: &mut Holder, claimed: Claimed) {
    let claimed = Arc::new(claimed);
    let held = &claimed.job;
    let definitions = match definitions(runner, &claimed).await {
        Ok(definitions) => definitions,
        Err(error) => {
            tracing::error!(job = %held.id, detail = ?error.detail(), "failed to read pipeline definitions for a rebuild");
            None
        }
    };
    let is_rebuild = definitions.is_some();
    let command = {
        let (claimed, runner) = (Arc::clone(&claimed), runner.clone());
        tokio::task::spawn_blocking(move || command::of(&claimed, definitions, &runner)).await
    };
    let command = command.unwrap_or_else(|error| {
        tracing::error!(job = %held.id, %error, "failed to prepare the command of a job");
        Err(NoCommand { reason: "The job could not be prepared, as the server's log says.".to_owned(), short: true })
    });
    let ended = match command {
        Ok(start) => match attempt(runner, holder, &claimed, start).await {
            Ok(ended) => ended,
            Err(Error::Stale) => {
                remove_all(vec![runner.directory.temporary(held.id, held.attempt)]).await;
                return tracing::warn!(job = %held.id, "the job is held by another server by now");
            }
            Err(error) => {
                tracing::error!(job = %held.id, detail = ?error.detail(), "the job could not be started");
                not_started(
                    runner,
                    held,
                    "The job could not be started: the server is short of something, as its log says.",
                    true,
                )
            }
        },
        Err(NoCommand { reason, short }) => not_started(runner, held, &reason, short),
    };
    let Ended { ending, lines, failure } = ended;
    let ending = with_outcome(runner, held, ending, is_rebuild);
    let directory = &runner.directory;
    remove_all(vec![directory.task(held.id), directory.temporary(held.id, held.attempt)]).await;
    let end = || runner.jobs.end(held, claimed.since, ending.clone(), lines.clone(), failure.clone());
    match until_stored("a job's end", held, end).await {
        Ok(job) => tracing::debug!(job = %job.id, status = %job.status, "the attempt has ended"),
        Err(error) => {
            tracing::warn!(job = %held.id, %error, "the attempt's end could not be stored");
            let kept = spool(runner, held).map_or(Ok(()), |mut spool| spool.keep(None, &lines));
            if let Err(error) = kept {
                tracing::error!(job = %held.id, %error, "its last lines cannot be kept either");
            }
        }
    }
}

/// Where lines of an attempt wait, if the database may be away.
fn spool(runner: &Runner, held: &Job) -> Option<Spool> {
    let [spool, unstored] = runner.directory.spool(held.id, held.attempt);
    runner.jobs.is_shared().then(|| Spool::new(spool, unstored, runner.limits.spool_bytes))
}

fn not_started(runner: &Runner, held: &Job, reason: &str, short: bool) -> Ended {
    let mut lines = LogLines::starting_at(held.log_lines);
    lines.push(runner.jobs.now(), LogStream::System, false, reason);
    Ended { ending: Ending::NotStarted { short }, lines, failure: None }
}

/// Starts the command, collects what it prints, and sees it to its end.
async fn attempt(
    runner: &Runner,
    holder: &mut Holder,
    claimed: &Claimed,
    Start { command, secrets, sensitive }: Start,
) -> Result<Ended, Error> {
    let held = &claimed.job;
    let (stdout, stdout_writer) = output_pipe().map_err(Error::internal)?;
    let (stderr, stderr_writer) = output_pipe().map_err(Error::internal)?;
    let limits = &runner.limits;
    let spool = spool(runner, held);
    let output = Output::new(runner.jobs.clone(), held.clone(), [stdout, stderr], secrets, limits.max_log_bytes, spool);
    let (remarks, remarks_receiver) = mpsc::unbounded_channel();
    let (ended, ended_receiver) = oneshot::channel();
    let mut watch = Box::pin(async {
        let started = holder.start(command, [stdout_writer, stderr_writer]).await;
        let ending = match started {
            Ok(()) => watch(runner, holder, claimed, &remarks, &sensitive).await,
            Err(_) => lost(runner, holder, held).await,
        };
        let _ = ended.send(());
        ending
    });
    let collect = output.collect(Outside { remarks: remarks_receiver, ended: ended_receiver });
    tokio::pin!(collect);
    let (ending, (lines, diagnosis)) = tokio::select! {
        ending = &mut watch => (ending, collect.await?),
        // The output is at its end only after the job is, unless the job is somebody else's: then let go of it.
        collected = &mut collect => match collected {
            Ok(collected) => ((&mut watch).await, collected),
            Err(error) => {
                drop(watch);
                let _ = holder.end().await; // its report says so if it is gone
                holder.ended().await;
                return Err(error);
            }
        },
    };
    drop(watch); // it borrows the values
    let code = match ending {
        Ending::Exited { code, .. } if code != 0 => Some(code),
        Ending::NotStarted { .. } => None,
        _ => return Ok(Ended { ending, lines, failure: None }),
    };
    let failure = tokio::task::spawn_blocking(move || match code {
        Some(code) => Some(diagnosis.failure(code, &sensitive)),
        None => diagnosis.remark(&sensitive),
    });
    let failure = failure.await.map_err(Error::internal)?;
    Ok(Ended { ending, lines, failure })
}

/// Waits for the attempt's end, and brings it about when it is wished, late, or the server shuts down.
async fn watch(
    runner: &Runner,
    holder: &mut Holder,
    claimed: &Claimed,
    remarks: &mpsc::UnboundedSender<String>,
    sensitive: &[Zeroizing<String>],
) -> Ending {
    let held = &claimed.job;
    let mut bell = runner.events.job(held.id);
    let mut looks = true;
    let mut told_to_end = false;
    let mut interrupted = false;
    let mut lease = runner.lease.ends();
    let timeout = sleep(claimed.timeout());
    tokio::pin!(timeout);
    loop {
        if looks && !told_to_end {
            match runner.jobs.stop_wish(held).await {
                Ok(wish) => {
                    looks = false;
                    if wish.is_some() {
                        told_to_end = true;
                        let _ = remarks.send("Stopping: TERM to all that the job has started.".to_owned());
                        let _ = holder.end().await; // if it is gone, its report says so
                    }
                }
                // Another server has given this one up, as when its machine was paused. What it holds must not go on beside the new try.
                Err(Error::Stale) => {
                    told_to_end = true;
                    let _ = holder.end().await;
                }
                Err(error) => tracing::error!(job = %held.id, ?error, "it cannot be read whether the job is to stop"),
            }
        }
        tokio::select! {
            report = holder.report() => match report {
                Ok(Report::Ended { by_itself: false, .. }) if interrupted => return Ending::Interrupted,
                Ok(Report::Ended { by_itself: false, .. }) if !told_to_end => return Ending::CutOff,
                Ok(Report::Ended { code, left_behind, .. }) => {
                    if left_behind > 0 {
                        let processes = if left_behind == 1 { "process" } else { "processes" };
                        let _ = remarks.send(format!("Ended {left_behind} {processes} that the job had left behind."));
                    }
                    return Ending::Exited { code, commit_id: None };
                }
                Ok(Report::NotStarted { reason, short }) => {
                    let _ = remarks.send(format!("The job could not be started: {reason}"));
                    return Ending::NotStarted { short };
                }
                Ok(Report::Killing(left)) => drop(remarks.send(survivors::killing(&left, sensitive))),
                Ok(Report::Unkillable(left)) => {
                    tracing::error!(job = %held.id, processes = left.count, "failed to kill processes of a job");
                    let _ = remarks.send(survivors::unkillable(&left, sensitive));
                }
                Ok(Report::Ready(_)) => {}
                Err(_) => return lost(runner, holder, held).await,
            },
            () = bell.rung(), if !told_to_end => looks = true,
            () = sleep(LOOK_AGAIN), if looks && !told_to_end => {}
            () = &mut timeout, if !told_to_end => {
                told_to_end = true;
                let _ = remarks.send(format!("The job has run for {:?}, its timeout. Stopping it.", claimed.timeout()));
                if until_stored("a timeout", held, || runner.jobs.time_out(held)).await.is_err() {
                    tracing::warn!(job = %held.id, "the timeout could not be stored");
                }
                let _ = holder.end().await;
            }
            Ok(()) = lease.changed() => {
                let ends = *lease.borrow_and_update();
                if let Some(end) = ends {
                    let _ = holder.go_on(end).await; // if it is gone, its report says so
                }
            }
            () = runner.shutdown.interrupted(), if !told_to_end => {
                told_to_end = true;
                interrupted = true;
                let _ = holder.end().await;
            }
        }
    }
}

/// The supervisor was killed by hand: what carries the job's id in its environment, or is in the supervisor's session, is ended without it.
async fn lost(runner: &Runner, holder: &Holder, held: &Job) -> Ending {
    tracing::error!(job = %held.id, "the job's supervisor is gone");
    runner.metrics.supervisor_lost();
    end_what_is_left(held.id, Some(holder.identity())).await;
    Ending::Lost(jobs::Holder::Supervisor)
}

/// The definitions of the workspace's pipelines, if its repository has to be rebuilt from them.
async fn definitions(runner: &Runner, claimed: &Claimed) -> Result<Option<Vec<jobs::Defined>>, Error> {
    let workspace = claimed.job.workspace;
    if runner.directory.rebuild_marker(workspace).symlink_metadata().is_err() {
        return Ok(None);
    }
    runner.jobs.definitions_of(workspace).await.map(Some)
}

/// Creates the file that says that a repository is to be rebuilt, and never writes where a link leads.
fn mark(marker: &std::path::Path) -> io::Result<()> {
    match std::fs::File::create_new(marker) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Adds what a system task has left behind to its ending. Jobs of the same user can write there: what a run leaves is not its
/// commit, and a task that had the definitions is not done again for them.
fn with_outcome(runner: &Runner, held: &Job, ending: Ending, is_rebuild: bool) -> Ending {
    let outcome = task::outcome(&runner.directory.tasks(), &held.id.to_string());
    let outcome = outcome.unwrap_or_default(); // a plain script has none
    let marker = runner.directory.rebuild_marker(held.workspace);
    if is_rebuild && outcome.rebuilt {
        let _ = remove_tree(&marker); // else the next job rebuilds it again
    }
    match ending {
        Ending::Exited { code: 0, .. } => {
            let commit_id = outcome.commit_id.filter(|_| held.type_ != JobType::PipelineRun);
            Ending::Exited { code: 0, commit_id }
        }
        Ending::Exited { .. } if outcome.needs_definitions && !is_rebuild => match mark(&marker) {
            Ok(()) => {
                tracing::warn!(job = %held.id, workspace = %held.workspace, "repository is damaged; rebuilding it");
                Ending::NeedsMore
            }
            Err(error) => {
                tracing::error!(job = %held.id, %error, "failed to note that a repository is to be rebuilt");
                ending
            }
        },
        ending => ending,
    }
}

/// A pipe whose reading end is the runtime's and whose writing end is for a job.
fn output_pipe() -> io::Result<(pipe::Receiver, OwnedFd)> {
    let (reader, writer) = io::pipe()?;
    Ok((pipe::Receiver::from_owned_fd(reader.into())?, writer.into()))
}
