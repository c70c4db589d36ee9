//! One snapshot of the database for several reads, so that their results are consistent with each other.
//!
//! The first read opens the snapshot, on a connection that a task of its own keeps. So reads are finished and the connection is given back
//! also when the caller is cancelled or is not polled for a while.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::Store;
use super::conn::Conn;
use crate::error::Error;
use crate::metrics::DatabaseOperation;

/// A snapshot without reads is closed after this time: a stalled caller must not keep a connection. A later read opens a new one.
const IDLE: Duration = Duration::from_secs(10);

/// A read, on the connection of the snapshot or, if there is none, with the reason. The connection is unusable after an error.
type Read = Box<dyn for<'c> FnOnce(Result<&'c mut Conn, Error>) -> BoxFuture<'c, Result<(), Error>> + Send>;

/// A snapshot that is opened by its first read and closed when it is dropped.
#[derive(Debug)]
pub struct Snapshot {
    store: Store,
    /// The task that has the connection, while the snapshot is open.
    reader: Mutex<Option<mpsc::UnboundedSender<Read>>>,
    is_ahead: Arc<AtomicBool>,
    waits: bool,
}

impl Snapshot {
    /// A snapshot that is not open yet. With `waits`, repeatable reads wait while a remote database is unavailable.
    pub(super) fn new(store: Store, waits: bool) -> Self {
        Self { store, reader: Mutex::default(), is_ahead: Arc::default(), waits }
    }

    /// Runs `work` on the snapshot.
    pub async fn read<R, W>(&self, work: W) -> Result<R, Error>
    where
        W: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<R, Error>> + Send + 'static,
        R: Send + 'static,
    {
        let (caller, result) = oneshot::channel();
        let is_ahead = Arc::clone(&self.is_ahead);
        self.send(Box::new(move |conn| {
            async move {
                let conn = match conn {
                    Ok(conn) => conn,
                    Err(error) => {
                        let _ = caller.send(Err(error)); // it may have been cancelled
                        return Ok(());
                    }
                };
                let read = AssertUnwindSafe(async { work(conn).await }).catch_unwind().await;
                let read = read.unwrap_or_else(|panic| Err(Error::after_panic("a read", &*panic)));
                is_ahead.fetch_or(conn.is_ahead, Ordering::Relaxed);
                // PostgreSQL refuses everything in a transaction after a statement that failed.
                let usable = if read.is_ok() { Ok(()) } else { conn.control("SELECT 1").await };
                let _ = caller.send(read);
                usable
            }
            .boxed()
        }));
        let read = async { result.await.unwrap_or_else(|_| Err(Error::unavailable("a read was given up"))) };
        self.store.observe(DatabaseOperation::Read, read).await
    }

    /// Runs work that can be repeated.
    pub async fn read_repeatable<R, W>(&self, work: impl Fn() -> W) -> Result<R, Error>
    where
        W: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<R, Error>> + Send + 'static,
        R: Send + 'static,
    {
        if self.waits { self.store.when_there(|| self.read(work())).await } else { self.read(work()).await }
    }

    /// Closes the snapshot. The next read opens a new one.
    pub fn close(&self) {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Whether a job was read in a state that the stream of changes does not tell yet.
    pub fn is_ahead(&self) -> bool {
        self.is_ahead.load(Ordering::Relaxed)
    }

    fn send(&self, read: Read) {
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let read = match &*reader {
            Some(open) => match open.send(read) {
                Ok(()) => return,
                Err(mpsc::error::SendError(read)) => read,
            },
            None => read,
        };
        let (open, reads) = mpsc::unbounded_channel();
        let _ = open.send(read); // `reads` is there
        *reader = Some(open);
        tokio::spawn(keep_open(self.store.clone(), reads));
    }
}

/// Opens a snapshot and serves reads on it until there is nobody left who could ask for more.
async fn keep_open(store: Store, reads: mpsc::UnboundedReceiver<Read>) {
    let reads = Arc::new(tokio::sync::Mutex::new(reads));
    let served = Arc::clone(&reads);
    let end = async {
        let _permit = store.snapshot_permit().await?;
        store.read_unobserved(move |conn| async move { serve(conn, &mut *served.lock().await).await }.boxed()).await
    };
    let error = end.await.err().unwrap_or_else(|| Error::unavailable("the snapshot was closed"));
    let mut left = reads.lock().await;
    left.close();
    while let Ok(read) = left.try_recv() {
        let _ = read(Err(error.clone())).await;
    }
}

async fn serve(conn: &mut Conn, reads: &mut mpsc::UnboundedReceiver<Read>) -> Result<(), Error> {
    loop {
        let next = match timeout(IDLE, reads.recv()).await {
            Ok(next) => next,
            Err(_) => {
                // What was sent until now is still served.
                reads.close();
                reads.recv().await
            }
        };
        match next {
            Some(read) => read(Ok(conn)).await?,
            None => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;
    use crate::store::Synchronous;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_single_read_does_not_wait_for_open_snapshots() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("database");
        let store = Store::open_sqlite(&path, Synchronous::Full, Metrics::default()).await.unwrap();
        let snapshots: Vec<Arc<Snapshot>> = (0..100).map(|_| Arc::new(store.snapshot())).collect();
        let (opened, mut open) = mpsc::unbounded_channel();
        for snapshot in &snapshots {
            let (snapshot, opened) = (Arc::clone(snapshot), opened.clone());
            tokio::spawn(async move {
                snapshot.read(|_| async { Ok(()) }.boxed()).await.unwrap();
                let _ = opened.send(());
            });
        }
        open.recv().await.unwrap();
        for _ in 0..20 {
            let read = store.read(|conn| async { conn.last_change_position().await }.boxed());
            timeout(IDLE / 2, read).await.expect("a connection is free while snapshots are open").unwrap();
        }
        assert!(open.len() < snapshots.len() - 1, "the other snapshots wait");
    }
}
