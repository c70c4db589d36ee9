//! Clearing away what was deleted, and the status changes that are no longer kept.
//!
//! A deletion is accepted at once; rows, logs and repositories go here, in small steps between which others can write. What
//! a crash leaves undone is found again at the next start.

use std::io;
use std::time::Duration;

use futures_util::FutureExt;

use crate::directory::Directory;
use crate::error::Error;
use crate::events::Events;
use crate::store::Store;

/// How much one transaction removes.
const CHUNKS: i64 = 256;
const JOBS: i64 = 100;
const CHANGES: i64 = 10_000;
/// How long to wait before looking again without a bell.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Clears away what was deleted, whenever something is.
#[derive(Debug)]
pub struct Sweeper {
    store: Store,
    events: Events,
    directory: Directory,
    keep_changes: i64,
}

impl Sweeper {
    /// A sweeper that keeps the newest `keep_changes` of the status stream.
    pub fn new(store: Store, events: Events, directory: Directory, keep_changes: i64) -> Self {
        Self { store, events, directory, keep_changes }
    }

    /// Sweeps until it is dropped.
    pub async fn run(self) {
        let mut bell = self.events.deletions();
        loop {
            if let Err(error) = self.sweep().await {
                tracing::error!(error = ?error, "what was deleted could not be cleared away; trying again later");
            }
            tokio::select! {
                () = bell.rung() => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
        }
    }

    async fn sweep(&self) -> Result<(), Error> {
        loop {
            let cleared = self.store.read(|conn| conn.cleared_jobs(JOBS).boxed()).await?;
            if cleared.is_empty() {
                break;
            }
            for job in cleared {
                while self.store.write(move |conn| conn.clear_log(job, CHUNKS).boxed()).await? {}
                self.store.write(move |conn| conn.remove_job(job).boxed()).await?;
            }
        }
        for workspace in self.store.read(|conn| conn.cleared_workspaces().boxed()).await? {
            match tokio::fs::remove_dir_all(self.directory.repository(workspace)).await {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::internal(error)),
                _ => self.store.write(move |conn| conn.remove_workspace(workspace).boxed()).await?,
            }
        }
        for pipeline in self.store.read(|conn| conn.cleared_pipelines().boxed()).await? {
            self.store.write(move |conn| conn.remove_pipeline(pipeline).boxed()).await?;
        }
        let keep = self.keep_changes;
        while self.store.write(move |conn| conn.forget_status_changes(keep, CHANGES).boxed()).await? {}
        Ok(())
    }
}
