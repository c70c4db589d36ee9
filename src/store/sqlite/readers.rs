//! The connections that read: several at a time, each on its own snapshot.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::open;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::store::clock::Clock;
use crate::store::conn::Conn;

/// How many connections may read at a time. More would only wait for the processor.
fn most_readers() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    (2 * processors).max(4)
}

/// A few connections, opened when they are first needed. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Readers {
    path: Arc<Path>,
    clock: Clock,
    metrics: Metrics,
    turns: Arc<Semaphore>,
    snapshots: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Conn>>>,
}

impl Readers {
    pub(super) fn new(path: PathBuf, clock: Clock, metrics: Metrics) -> Self {
        let turns = Arc::new(Semaphore::new(most_readers()));
        let snapshots = Arc::new(Semaphore::new(most_readers() - 1));
        Self { path: path.into(), clock, metrics, turns, snapshots, idle: Arc::default() }
    }

    /// Where the database is.
    pub(super) fn path(&self) -> Arc<Path> {
        Arc::clone(&self.path)
    }

    /// Waits until a snapshot for several reads may be opened. Such a snapshot stays open until its response is complete. One connection is kept
    /// for single reads, which take a moment.
    pub(super) async fn snapshot_permit(&self) -> Result<OwnedSemaphorePermit, Error> {
        Arc::clone(&self.snapshots).acquire_owned().await.map_err(Error::internal)
    }

    /// Runs `work` on a snapshot.
    pub(super) async fn run<R, W>(&self, work: W) -> Result<R, Error>
    where
        W: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<R, Error>> + Send + 'static,
        R: Send + 'static,
    {
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(Error::internal)?;
        let (readers, runtime) = (self.clone(), Handle::current());
        let read = move || {
            let _turn = turn;
            let idle = readers.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut conn = match idle {
                Some(conn) => conn,
                None => open::reader(&readers.path, readers.clock.clone(), readers.metrics.clone())?,
            };
            open::control(&mut conn, "BEGIN")?;
            // SQLite never waits; a snapshot for several reads waits for the next one.
            let result = runtime.block_on(work(&mut conn));
            // A connection whose transaction does not end is dropped, and another opened when it is needed.
            if open::control(&mut conn, "ROLLBACK").is_ok() {
                readers.idle.lock().unwrap_or_else(PoisonError::into_inner).push(conn);
            }
            result
        };
        tokio::task::spawn_blocking(read).await.map_err(Error::internal)?
    }
}
