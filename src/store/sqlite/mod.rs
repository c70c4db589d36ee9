//! The embedded database: one connection that writes, several that read, and a clock.

mod disk;
mod open;
mod readers;
mod survey;
mod vacuum;
mod writer;

use std::path::Path;

use futures_util::future::BoxFuture;
use tokio::sync::OwnedSemaphorePermit;

use super::clock::Clock;
use super::conn::Conn;
use super::revision::{Revision, Revisions, Scope};
use crate::error::Error;
use crate::metrics::{DatabaseUsage, Metrics};

pub use open::Synchronous;
pub(super) use survey::survey;
pub(super) use vacuum::{can_shrink, shrink};

/// An open database. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Sqlite {
    writer: writer::Writer,
    readers: readers::Readers,
    revisions: Revisions,
}

impl Sqlite {
    /// Opens the database at `path`, creating it if need be, and brings its schema up to date.
    pub(super) fn open(path: &Path, synchronous: Synchronous, clock: Clock, metrics: Metrics) -> Result<Self, Error> {
        let writer = open::writer(path, synchronous, clock.clone(), metrics.clone())?;
        let readers = readers::Readers::new(path.to_owned(), clock, metrics);
        let revisions = Revisions::default();
        let writer = writer::Writer::start(writer, revisions.clone())?;
        Ok(Self { writer, readers, revisions })
    }

    /// Runs `work` on a snapshot.
    pub(super) async fn read<R, W>(&self, work: W) -> Result<R, Error>
    where
        W: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<R, Error>> + Send + 'static,
        R: Send + 'static,
    {
        self.readers.run(work).await
    }

    /// Waits until a snapshot for several reads may be opened.
    pub(super) async fn snapshot_permit(&self) -> Result<OwnedSemaphorePermit, Error> {
        self.readers.snapshot_permit().await
    }

    /// Runs `work`, and answers when it is committed.
    pub(super) async fn write<R, W>(&self, scope: Scope, work: W) -> Result<R, Error>
    where
        W: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<R, Error>> + Send + 'static,
        R: Send + 'static,
    {
        self.writer.run(scope, work).await
    }

    /// How often what is stored has changed.
    pub(super) fn revision(&self) -> Revision {
        self.revisions.now()
    }

    /// Moves what is committed from the write-ahead log to the database.
    pub(super) async fn checkpoint(&self) -> Result<(), Error> {
        let path = self.readers.path();
        tokio::task::spawn_blocking(move || open::checkpoint(&path)).await.map_err(Error::internal)?
    }

    /// What the database takes of its disk.
    pub(super) async fn usage(&self) -> Result<DatabaseUsage, Error> {
        let path = self.readers.path();
        let looked = tokio::task::spawn_blocking(move || disk::usage(&path)).await.map_err(Error::internal)?;
        looked.map_err(Error::unavailable)
    }
}
