//! Clearing away what was deleted, and the status changes that are no longer kept.
//!
//! A deletion is accepted at once; rows, logs and repositories go here, in small steps between which others can write. What
//! a crash leaves undone is found again at the next start.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;

use crate::confined::remove_tree;
use crate::directory::Directory;
use crate::error::Error;
use crate::events::Events;
use crate::metrics::Metrics;
use crate::model::{Id, JobId};
use crate::store::{Conn, Store};

/// How much one transaction removes.
const CHUNKS: i64 = 256;
const JOBS: i64 = 100;
const CHANGES: i64 = 10_000;
/// How many ids one query looks for.
const IDS: usize = 1_000;
/// How long to wait before looking again without a bell.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Clears away what was deleted, whenever something is.
#[derive(Debug)]
pub struct Sweeper {
    store: Store,
    events: Events,
    directory: Directory,
    metrics: Metrics,
    keep_changes: i64,
}

impl Sweeper {
    /// A sweeper that keeps the newest `keep_changes` of the status stream.
    pub fn new(store: Store, events: Events, directory: Directory, metrics: Metrics, keep_changes: i64) -> Self {
        Self { store, events, directory, metrics, keep_changes }
    }

    /// Sweeps until it is dropped.
    pub async fn run(self) {
        let mut bell = self.events.deletions();
        let mut look_again = tokio::time::interval(LOOK_AGAIN);
        let mut by_itself = false;
        loop {
            let swept = match self.sweep().await {
                Ok(()) if by_itself && self.store.is_shared() => self.sweep_what_others_removed().await,
                swept => swept,
            };
            if let Err(error) = swept {
                self.metrics.sweep_failed();
                tracing::error!(error = ?error, "what was deleted could not be cleared away; trying again later");
            }
            by_itself = tokio::select! {
                () = bell.rung() => false,
                _ = look_again.tick() => true, // at once for the first time
            };
        }
    }

    /// Removes what belongs to workspaces and pipelines whose rows another server has removed. What is here is looked at first: whatever is
    /// made meanwhile is not among it.
    async fn sweep_what_others_removed(&self) -> Result<(), Error> {
        for workspaces in names_in(&self.directory.clone_locks()).await?.chunks(IDS) {
            let ids = workspaces.to_vec();
            let known = self.store.read(move |conn| async move { conn.known_workspaces(&ids).await }.boxed()).await?;
            for gone in workspaces.iter().filter(|id| !known.contains(id)) {
                // The lock last: it says that there is, or was, a clone.
                let marker = self.directory.rebuild_marker(*gone);
                let here = vec![self.directory.repository(*gone), marker, self.directory.clone_lock(*gone)];
                remove_directories(here).await?;
            }
        }
        for pipelines in names_in(&self.directory.meltano_pipelines()).await?.chunks(IDS) {
            let ids = pipelines.to_vec();
            let known = self.store.read(move |conn| async move { conn.known_pipelines(&ids).await }.boxed()).await?;
            for gone in pipelines.iter().filter(|id| !known.contains(id)) {
                remove_directories(vec![self.directory.meltano_pipelines().join(gone.to_string())]).await?;
            }
        }
        Ok(())
    }

    async fn sweep(&self) -> Result<(), Error> {
        loop {
            let cleared = self.store.read(|conn| conn.cleared_jobs(JOBS).boxed()).await?;
            if cleared.is_empty() {
                break;
            }
            let jobs: Arc<[JobId]> = cleared.into();
            loop {
                let jobs = Arc::clone(&jobs);
                if self.store.write(move |conn| async move { remove(conn, &jobs).await }.boxed()).await? {
                    break;
                }
            }
            self.metrics.jobs_removed(jobs.len());
        }
        // Before the workspaces, which take their pipelines' rows with them.
        for pipeline in self.store.read(|conn| conn.cleared_pipelines().boxed()).await? {
            if remove_directories(self.directory.meltano_of(pipeline).into()).await? {
                self.store.write(move |conn| conn.remove_pipeline(pipeline).boxed()).await?;
            }
        }
        for workspace in self.store.read(|conn| conn.cleared_workspaces().boxed()).await? {
            // The repository at a user's URL is the user's.
            let directory = self.directory.clone();
            let of_workspace = tokio::task::spawn_blocking(move || directory.all_of(workspace)).await;
            if remove_directories(of_workspace.map_err(Error::internal)?.map_err(Error::internal)?).await? {
                self.store.write(move |conn| conn.remove_workspace(workspace).boxed()).await?;
            }
        }
        let keep = self.keep_changes;
        while self.store.write(move |conn| conn.forget_changes(keep, CHANGES).boxed()).await? {}
        let pages = self.store.shrink().await?;
        if pages > 0 {
            tracing::info!(pages, "returned free database pages to the file system");
        }
        Ok(())
    }
}

/// Removes jobs that are cleared, or as much of their logs as one transaction may: says whether all is gone.
async fn remove(conn: &mut Conn, jobs: &[JobId]) -> Result<bool, Error> {
    for job in jobs {
        if conn.clear_log(*job, CHUNKS).await? {
            return Ok(false);
        }
    }
    conn.remove_jobs(jobs).await?;
    Ok(true)
}

/// Removes directories, where they are there, and says whether they are gone. One that cannot be removed must not keep others from being
/// cleared away.
async fn remove_directories(paths: Vec<PathBuf>) -> Result<bool, Error> {
    let remove = move || {
        paths.iter().all(|path| match remove_tree(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::error!(path = %path.display(), %error, "what was deleted cannot be removed; trying again later");
                false
            }
            _ => true,
        })
    };
    tokio::task::spawn_blocking(remove).await.map_err(Error::internal)
}

/// The ids that things in a directory are called by.
async fn names_in<T: 'static>(directory: &Path) -> Result<Vec<Id<T>>, Error> {
    let directory = directory.to_owned();
    let list = move || {
        let names =
            fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name().to_str().and_then(|it| it.parse().ok())));
        names.filter_map(io::Result::transpose).collect::<io::Result<Vec<Id<T>>>>()
    };
    tokio::task::spawn_blocking(list).await.map_err(Error::internal)?.map_err(Error::internal)
}
