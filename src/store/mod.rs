//! SQL, and nowhere else: the connections to the database, and every query.
//!
//! A unit of work is a closure over a [`Conn`] that runs in one transaction: [`Store::read`] on a snapshot, [`Store::write`]
//! alone. What several tasks want to write at one moment shares one commit (`writer`). The store never calls up: it
//! knows nothing of rules, channels or requests.

mod changes;
mod chunk;
mod clock;
mod conn;
mod data_components;
mod disk;
mod encryption_keys;
mod fragment;
mod invitations;
mod jobs;
mod log_pages;
mod logs;
mod pages;
mod pipelines;
mod readers;
mod revision;
mod schedules;
pub(crate) mod schema;
mod sqlite;

mod triggers;
mod types;
mod webhooks;
mod workspaces;
mod writer;

use std::path::Path;
use std::time;

use futures_util::future::BoxFuture;

use crate::error::Error;
use crate::metrics::{DatabaseOperation, DiskUsage, Metrics};

pub use changes::{ChangeFilter, ChangePage};
pub use conn::Conn;
pub use data_components::ComponentPosition;
pub use jobs::{JobFilter, JobPosition};
pub use log_pages::{Enough, LogRequest};
pub use pages::{Page, PageRequest};
pub use pipelines::PipelinePosition;
pub use revision::{Revision, Scope};
pub use sqlite::Synchronous;
pub use types::{Instant, Uid};
pub use webhooks::WebhookPosition;

/// The database. Clones share it.
#[derive(Debug, Clone)]
pub struct Store {
    writer: writer::Writer,
    readers: readers::Readers,
    clock: clock::Clock,
    revisions: revision::Revisions,
    metrics: Metrics,
}

impl Store {
    /// Opens the SQLite database at `path`, creating it if need be, and brings its schema up to date.
    pub fn open_sqlite(path: &Path, synchronous: Synchronous, metrics: Metrics) -> Result<Self, Error> {
        let clock = clock::Clock::default();
        let writer = sqlite::open_writer(path, synchronous, clock.clone(), metrics.clone())?;
        let readers = readers::Readers::new(path.to_owned(), clock.clone(), metrics.clone());
        let revisions = revision::Revisions::default();
        let writer = writer::Writer::start(writer, revisions.clone())?;
        Ok(Self { writer, readers, clock, revisions, metrics })
    }

    /// Runs `work` on a snapshot of the database. It cannot write.
    pub async fn read<R, W>(&self, work: W) -> Result<R, Error>
    where
        W: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<R, Error>> + Send + 'static,
        R: Send + 'static,
    {
        self.observe(DatabaseOperation::Read, self.readers.run(work)).await
    }

    /// Runs `work` alone in a transaction, and answers when that is committed. If `work` answers an error, nothing of it is
    /// stored. It runs to its end even if the caller stops waiting.
    pub async fn write<R, W>(&self, work: W) -> Result<R, Error>
    where
        W: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<R, Error>> + Send + 'static,
        R: Send + 'static,
    {
        self.write_to(Scope::Everything, work).await
    }

    /// The same for work that keeps to a scope.
    pub async fn write_to<R, W>(&self, scope: Scope, work: W) -> Result<R, Error>
    where
        W: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<R, Error>> + Send + 'static,
        R: Send + 'static,
    {
        self.observe(DatabaseOperation::Write, self.writer.run(scope, work)).await
    }

    /// How often what is stored has changed up to now. Whoever was told that something is stored finds it counted.
    pub fn revision(&self) -> Revision {
        self.revisions.now()
    }

    /// Sees to it that the store's clock is ahead of everything stored, also if the machine's was set back.
    pub async fn catch_up_clock(&self) -> Result<(), Error> {
        let latest = self.read(|conn| Box::pin(conn.latest_instant())).await?;
        if let Some(latest) = latest {
            self.clock.pass(latest);
        }
        Ok(())
    }

    /// What the database takes of its disk.
    pub async fn disk_usage(&self) -> Result<DiskUsage, Error> {
        let path = self.readers.path();
        let looked = tokio::task::spawn_blocking(move || disk::usage(&path)).await.map_err(Error::internal)?;
        looked.map_err(Error::unavailable)
    }

    async fn observe<R>(
        &self,
        operation: DatabaseOperation,
        work: impl Future<Output = Result<R, Error>>,
    ) -> Result<R, Error> {
        let started = time::Instant::now();
        let result = work.await;
        self.metrics.database_used(operation, started.elapsed());
        // The other errors are those of the rules, for which the database did what it was asked.
        if let Err(Error::Unavailable(_) | Error::Internal(_)) = &result {
            self.metrics.database_failed(operation);
        }
        result
    }
}
