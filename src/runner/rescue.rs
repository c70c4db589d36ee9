//! Jobs whose server is gone: what is left of them is ended, and their attempts too.
//!
//! A server is gone if its lease is over, or if it can be seen that its process is: on this machine, or because its data directory is ours now. The
//! embedded database has one server at a time, so every other is gone.
//!
//! Each job is rescued by itself. Until its last process has ended it is RUNNING for the server that is gone, so neither it nor another run of its
//! pipeline starts, and what changes the repository waits if it does. Everything else goes on.

use std::collections::HashSet;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use rustix::process::Signal;

use super::Runner;
use super::output::until_stored;
use super::spool::Spool;
use crate::confined::remove_tree;
use crate::directory;
use crate::error::Error;
use crate::jobs::{Ending, Holder};
use crate::model::{Job, JobId, LogLines, Node, SupervisorIdentity, Timestamp};
use crate::processes::{self, Lookup, Process};

/// How often it is looked whether a server is gone.
const LOOK_FOR_SERVERS: Duration = Duration::from_secs(1);
/// How often it is looked whether something has ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The same, where it takes long.
const LOOK_SELDOM: Duration = Duration::from_millis(500);
/// How much longer than its grace a supervisor may take before it is told to hurry.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long what has to be killed may take to go before that is logged.
const KILLING: Duration = Duration::from_secs(10);

/// How it is known that a server is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gone {
    /// Its process is, so what it held ends now, or has ended.
    Process,
    /// Its lease is over: by then it has ended what it held.
    Lease,
}

/// An attempt of a job.
type Attempt = (JobId, i32);

/// The rescues that are under way. When this is dropped they stop where they are, and another server begins them anew.
pub(super) struct Rescues {
    runner: Runner,
    tasks: FuturesUnordered<BoxFuture<'static, Attempt>>,
    /// The attempts that they are of. One is taken out here, between two looks for servers: what a look reads is never older than that.
    under_way: HashSet<Attempt>,
}

impl Rescues {
    /// Of jobs of servers other than this runner's.
    pub(super) fn new(runner: Runner) -> Self {
        Self { runner, tasks: FuturesUnordered::new(), under_way: HashSet::new() }
    }

    /// Begins to rescue the jobs that there are, and clears away what else an earlier server has left. Nothing may be started before this has
    /// returned.
    pub(super) async fn begin(&mut self) -> Result<(), Error> {
        let jobs = self.runner.jobs.jobs_of_nobody().await?;
        self.rescue(jobs, None);
        self.look().await?;
        let directory = &self.runner.directory;
        // What still waits is of jobs that others have taken over. A rescue stores that of its own job.
        let waits: HashSet<_> = self.under_way.iter().map(|(job, attempt)| directory.spool(*job, *attempt)).collect();
        let spools = directory.spools().map_err(Error::internal)?;
        for [path, unstored] in spools.into_iter().filter(|spool| !waits.contains(spool)) {
            // One that cannot be read, or kept, stays where it is: it must not keep the server from starting.
            let left = Spool::left(path.clone(), unstored);
            let kept = left.and_then(|it| it.map_or(Ok(()), |mut spool| spool.keep(None, &LogLines::default())));
            if let Err(error) = kept {
                tracing::error!(path = %path.display(), %error, "failed to keep lines that waited");
            }
        }
        let used: HashSet<_> =
            self.under_way.iter().map(|(job, attempt)| directory.temporary(*job, *attempt)).collect();
        let temporary = directory.temporary_directories().unwrap_or_else(|error| {
            let path = directory.path().join("tmp");
            tracing::error!(path = %path.display(), %error, "failed to list temporary directories of jobs; removing none");
            Vec::new()
        });
        let unused = temporary.into_iter().filter(|path| !used.contains(path));
        let discarded = unused.filter_map(|path| match directory.discard_temporary(&path) {
            Ok(discarded) => Some(discarded),
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "failed to remove a job's temporary directory");
                None
            }
        });
        // Large ones take long. No job waits for that.
        tokio::spawn(remove_all(discarded.collect()));
        Ok(())
    }

    /// Goes on to look for servers that are gone.
    pub(super) async fn watch(mut self) {
        let mut look = tokio::time::interval(LOOK_FOR_SERVERS);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        look.reset(); // it was looked a moment ago
        loop {
            tokio::select! {
                Some(attempt) = self.tasks.next() => drop(self.under_way.remove(&attempt)),
                _ = look.tick() => {
                    if let Err(error) = self.look().await {
                        tracing::debug!(?error, "it cannot be looked whether servers are gone");
                    }
                }
            }
        }
    }

    /// Looks for servers that are gone, and begins to rescue what they have left.
    async fn look(&mut self) -> Result<(), Error> {
        let (now, nodes) = self.runner.jobs.nodes().await?;
        let own = self.runner.lease.node().id;
        for node in nodes.iter().filter(|node| node.id != own) {
            let Some(gone) = is_gone(&self.runner, node, now) else { continue };
            let jobs = self.runner.jobs.jobs_of(node.id).await?;
            if jobs.is_empty() {
                self.runner.jobs.forget_node(node.id, gone == Gone::Lease).await?;
                continue;
            }
            let jobs = self.rescue(jobs, Some((node, gone)));
            if jobs > 0 {
                tracing::warn!(
                    server = node.name,
                    pid = node.pid,
                    jobs,
                    ?gone,
                    "a server is gone; taking its jobs over"
                );
            }
        }
        Ok(())
    }

    /// Begins to rescue those of these jobs of a server that are not being rescued, and says how many they are.
    fn rescue(&mut self, jobs: Vec<Job>, server: Option<(&Node, Gone)>) -> usize {
        let mut begun = 0;
        for job in jobs {
            let attempt = (job.id, job.attempt);
            if !self.under_way.insert(attempt) {
                continue;
            }
            begun += 1;
            let (runner, server) = (self.runner.clone(), server.map(|(node, gone)| (node.clone(), gone)));
            let rescue = async move {
                let server = server.as_ref().map(|(node, gone)| (node, *gone));
                while let Err(error) = rescue(&runner, job.clone(), server).await {
                    tracing::error!(job = %job.id, ?error, "failed to rescue a job; trying again");
                    tokio::time::sleep(LOOK_FOR_SERVERS).await;
                }
                attempt
            };
            self.tasks.push(rescue.boxed());
        }
        begun
    }
}

fn is_gone(runner: &Runner, node: &Node, now: Timestamp) -> Option<Gone> {
    let own = runner.lease.node();
    if !runner.jobs.is_shared() || node.home == own.home {
        return Some(Gone::Process);
    }
    if node.machine == own.machine && Process::look_up(node.pid).started_at(node.pid_start) == Lookup::Ended {
        return Some(Gone::Process);
    }
    runner.jobs.is_late(node, now).then_some(Gone::Lease)
}

async fn rescue(runner: &Runner, mut job: Job, server: Option<(&Node, Gone)>) -> Result<(), Error> {
    // One whose lease is over has ended what it held, and may hold something else by now.
    let is_here = server.is_none_or(|(node, gone)| {
        gone == Gone::Process && (node.machine == processes::machine() || node.home == runner.lease.node().home)
    });
    if is_here {
        if let Some(supervisor) = job.supervisor() {
            supervisor_gone(job.id, &supervisor, runner.limits.stop_grace + PATIENCE).await;
        }
        // Another server may have been faster, and the next attempt runs.
        match runner.jobs.stop_wish(&job).await {
            Err(Error::Stale) => return Ok(()),
            wish => drop(wish?),
        }
        end_what_is_left(job.id, None).await;
        let of_other = server.filter(|(node, _)| node.home != runner.lease.node().home);
        let temporary = of_other.map(|(node, _)| directory::temporary(Path::new(&node.directory), job.id, job.attempt));
        let temporary = temporary.unwrap_or_else(|| runner.directory.temporary(job.id, job.attempt));
        remove_all(vec![runner.directory.task(job.id), temporary]).await;
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
    let failed = |error: io::Error| {
        tracing::error!(job = %job.id, path = %path.display(), %error, "failed to read lines that waited");
    };
    // What cannot be read stays where it is, and the rescue goes on without it: it would not be readable later either.
    let mut spool = match Spool::left(path.clone(), unstored) {
        Ok(Some(spool)) => spool,
        Ok(None) => return Ok(job),
        Err(error) => {
            failed(error);
            return Ok(job);
        }
    };
    loop {
        let lines = match spool.pop() {
            Ok(Some(lines)) => lines,
            Ok(None) => break,
            Err(error) => {
                failed(error);
                return Ok(job);
            }
        };
        let lines = Arc::new(lines);
        let append = || runner.jobs.append_log(&job, Arc::clone(&lines));
        match until_stored("lines that waited", &job, append).await {
            Ok(()) => job.log_lines = job.log_lines.max(lines.next_sequence()),
            // Some before them are missing, or another server has taken the job over.
            Err(Error::Stale) => {
                if let Err(error) = spool.keep(Some(&lines), &LogLines::default()) {
                    tracing::error!(job = %job.id, path = %path.display(), %error, "failed to keep lines that waited");
                }
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
async fn supervisor_gone(job: JobId, identity: &SupervisorIdentity, patience: Duration) {
    let started = Instant::now();
    let mut hurried = false;
    loop {
        let found = Process::look_up_supervisor(identity);
        if found == Lookup::Ended {
            return;
        }
        if !hurried && started.elapsed() > patience {
            hurried = true;
            tracing::warn!(
                %job,
                pid = identity.pid,
                hidden = found == Lookup::Unknown,
                "a supervisor of the last server has not ended; telling it to kill what it holds"
            );
            if let Lookup::Running(process) = found {
                process.signal(Signal::TERM);
                process.signal(Signal::CONT);
            }
        }
        tokio::time::sleep(if hurried { LOOK_SELDOM } else { LOOK_EVERY }).await;
    }
}

/// Kills what carries the job's id in its environment, until nothing does: for a job whose supervisor could not do it. Where the supervisor was a
/// child of this process, and has not been waited for, also what is in the session that it had made.
pub(super) async fn end_what_is_left(job: JobId, supervisor: Option<&SupervisorIdentity>) {
    let id = job.to_string();
    let started = Instant::now();
    let mut told = false;
    loop {
        let mut left = Process::with_variable("JOBSTREAM_JOB_ID", &id);
        left.extend(supervisor.into_iter().flat_map(|it| Process::in_session_of_child(it.pid)));
        if left.is_empty() {
            return;
        }
        if !told && started.elapsed() > KILLING {
            told = true;
            tracing::error!(%job, processes = ?left, "failed to kill processes of a job; it is RUNNING until they have ended");
        }
        left.into_iter().for_each(|process| process.signal(Signal::KILL));
        tokio::time::sleep(if told { LOOK_SELDOM } else { LOOK_EVERY }).await;
    }
}

/// Removes directories of a job, of which nothing is used any more.
pub(super) async fn remove_all(paths: Vec<PathBuf>) {
    let remove = move || {
        for path in paths {
            if let Err(error) = remove_tree(&path)
                && error.kind() != ErrorKind::NotFound
            {
                tracing::error!(path = %path.display(), %error, "failed to remove a job's temporary directory");
            }
        }
    };
    if let Err(error) = tokio::task::spawn_blocking(remove).await {
        tracing::error!(%error, "failed to remove a job's temporary directory");
    }
}
