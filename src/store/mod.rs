//! SQL, and nowhere else: the connections to the database, and every query.
//!
//! A unit of work is a closure over a [`Conn`] that runs in one transaction: [`Store::read`] on a snapshot, [`Store::write`]
//! alone, on SQLite, or with others, on PostgreSQL, where it locks what it decides by (`queues`). Every query is written once, for both
//! (`conn`). The store never calls up: it knows nothing of rules, channels or requests.

mod changes;
mod chunk;
mod clock;
mod conn;
mod data_components;
mod deadlines;
mod encryption_keys;
mod fragment;
mod invitations;
mod jobs;
mod log_pages;
mod logs;
mod migrations;
mod names;
mod nodes;
mod pages;
mod pipelines;
mod postgres;
mod pulse;
mod queues;
mod revision;
mod schedules;
pub(crate) mod schema;
mod snapshot;
mod sqlite;
mod survey;
mod triggers;
mod types;
mod webhooks;
mod workspaces;

use std::path::Path;
use std::time::{self, Duration};

use futures_util::future::BoxFuture;
use tokio::sync::OwnedSemaphorePermit;

use crate::error::Error;
use crate::metrics::{DatabaseOperation, DatabaseUsage, Metrics};
use crate::model::Timestamp;

pub use changes::{ChangeFilter, ChangePage};
pub use chunk::{decode_all as decode_lines, encode as encode_lines};
pub use clock::{Clock, Jump};
pub use conn::Conn;
pub use data_components::ComponentPosition;
pub use jobs::{JobFilter, JobPosition};
pub use log_pages::{Enough, LogRequest};
pub use migrations::Standing;
pub use pages::{Numbered, Page, PageRequest};
pub use pipelines::PipelinePosition;
pub use postgres::{Announcements, DatabaseUrl};
pub use pulse::Pulse;
pub use queues::{Queued, Turn};
pub use revision::{Revision, Scope};
pub use snapshot::Snapshot;
pub use sqlite::Synchronous;
pub use survey::{ClockSurvey, Colleague, PostgresSurvey, SqliteSurvey};
pub use types::{Instant, Uid};
pub use webhooks::WebhookPosition;

/// How soon it is looked again whether a database is back, at first and at the most.
const AWAY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// How long a transaction may take that nobody waits for but the operator.
const MAINTENANCE: Duration = Duration::from_secs(24 * 60 * 60);

/// How long others have the database to themselves between two steps in which it shrinks.
const BETWEEN_STEPS: Duration = Duration::from_millis(5);

/// The database. Clones share it.
#[derive(Debug, Clone)]
pub struct Store {
    backend: Backend,
    clock: Clock,
    metrics: Metrics,
}

#[derive(Debug, Clone)]
enum Backend {
    Sqlite(sqlite::Sqlite),
    Postgres(postgres::Postgres),
}

impl Store {
    /// Opens the SQLite database at `path`, creating it if need be, and brings its schema up to date.
    pub async fn open_sqlite(path: &Path, synchronous: Synchronous, metrics: Metrics) -> Result<Self, Error> {
        let clock = Clock::default();
        let (path, of_backend) = (path.to_owned(), (clock.clone(), metrics.clone()));
        let open = move || sqlite::Sqlite::open(&path, synchronous, of_backend.0, of_backend.1);
        let sqlite = tokio::task::spawn_blocking(open).await.map_err(Error::internal)??;
        Ok(Self { backend: Backend::Sqlite(sqlite), clock, metrics })
    }

    /// Opens the PostgreSQL database at `url`, and brings its schema up to date.
    pub async fn open_postgres(url: DatabaseUrl, connections: usize, metrics: Metrics) -> Result<Self, Error> {
        let clock = Clock::default();
        let postgres = postgres::Postgres::open(url, connections, clock.clone(), metrics.clone()).await?;
        Ok(Self { backend: Backend::Postgres(postgres), clock, metrics })
    }

    /// Whether other server processes may work on the database at the same time.
    pub fn is_shared(&self) -> bool {
        matches!(self.backend, Backend::Postgres(_))
    }

    /// What the database's clock shows, for what is not stored in a transaction that asks for it.
    pub fn now(&self) -> Timestamp {
        match &self.backend {
            Backend::Sqlite(_) => self.clock.read(),
            Backend::Postgres(_) => self.clock.now(),
        }
    }

    /// The database's clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Reads this machine's clock, if it is the database's, so that a jump is noticed although
    /// nobody does anything. That of PostgreSQL is read whenever it is looked for news of other
    /// nodes.
    pub fn read_clock(&self) {
        if let Backend::Sqlite(_) = &self.backend {
            self.clock.read();
        }
    }

    /// Runs `work` on a snapshot of the database. It cannot write.
    pub async fn read<R, W>(&self, work: W) -> Result<R, Error>
    where
        W: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<R, Error>> + Send + 'static,
        R: Send + 'static,
    {
        self.observe(DatabaseOperation::Read, self.read_unobserved(work)).await
    }

    async fn read_unobserved<R, W>(&self, work: W) -> Result<R, Error>
    where
        W: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<R, Error>> + Send + 'static,
        R: Send + 'static,
    {
        match &self.backend {
            Backend::Sqlite(sqlite) => sqlite.read(work).await,
            Backend::Postgres(postgres) => postgres.read(work).await,
        }
    }

    /// Waits until a snapshot for several reads may be opened. There are fewer of them than connections, so that single reads and writes do not
    /// wait for whole responses.
    async fn snapshot_permit(&self) -> Result<OwnedSemaphorePermit, Error> {
        match &self.backend {
            Backend::Sqlite(sqlite) => sqlite.snapshot_permit().await,
            Backend::Postgres(postgres) => postgres.snapshot_permit().await,
        }
    }

    /// One snapshot for all reads of a response.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::new(self.clone(), false)
    }

    /// One snapshot for all reads of an event of a subscription. They wait, as in [`Store::read_when_there`].
    pub fn snapshot_when_there(&self) -> Snapshot {
        Snapshot::new(self.clone(), true)
    }

    /// The same for whoever follows something: where the database is over the network, and away, it waits until that is back.
    pub async fn read_when_there<R, W>(&self, work: impl Fn() -> W) -> Result<R, Error>
    where
        W: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<R, Error>> + Send + 'static,
        R: Send + 'static,
    {
        self.when_there(|| self.read(work())).await
    }

    async fn when_there<R, F>(&self, read: impl Fn() -> F) -> Result<R, Error>
    where
        F: Future<Output = Result<R, Error>>,
    {
        let (mut wait, longest) = AWAY;
        loop {
            match read().await {
                Err(Error::Unavailable(_)) if self.is_shared() => tokio::time::sleep(wait).await,
                read => return read,
            }
            wait = (wait * 2).min(longest);
        }
    }

    /// Runs `work` in a transaction, and answers when that is committed. If `work` answers an error, nothing of it is
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
        match &self.backend {
            Backend::Sqlite(sqlite) => self.observe(DatabaseOperation::Write, sqlite.write(scope, work)).await,
            Backend::Postgres(postgres) => self.observe(DatabaseOperation::Write, postgres.write(work)).await,
        }
    }

    /// The same for maintenance that may take long, while no server is at work.
    pub async fn write_at_length<R, W>(&self, work: W) -> Result<R, Error>
    where
        W: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<R, Error>> + Send + 'static,
        R: Send + 'static,
    {
        match &self.backend {
            Backend::Sqlite(sqlite) => sqlite.write(Scope::Everything, work).await,
            Backend::Postgres(postgres) => postgres.write_within(MAINTENANCE, work).await,
        }
    }

    /// How often what is stored has changed up to now. Whoever was told that something is stored finds it counted. Of a database that others
    /// write to as well, nobody knows.
    pub fn revision(&self) -> Revision {
        match &self.backend {
            Backend::Sqlite(sqlite) => sqlite.revision(),
            Backend::Postgres(_) => Revision::UNKNOWN,
        }
    }

    /// Listens to what the processes that share the database announce.
    pub async fn listen(&self) -> Result<Announcements, Error> {
        match &self.backend {
            Backend::Sqlite(_) => Err(Error::internal("nobody shares an embedded database")),
            Backend::Postgres(postgres) => postgres.listen().await,
        }
    }

    /// Sees to it that everything committed is in the stream of changes, also by a process that ended before it could.
    pub async fn number_changes(&self) {
        if let Backend::Postgres(postgres) = &self.backend {
            postgres.number_changes().await;
        }
    }

    /// Gives space that is free within the database back to the file system, in steps between which others can write. Answers how many pages
    /// were given back. PostgreSQL sees to this itself.
    pub async fn shrink(&self) -> Result<i64, Error> {
        let Backend::Sqlite(sqlite) = &self.backend else { return Ok(0) };
        // A write makes every kept response obsolete, also one that changes nothing.
        if !self.read(|conn| Box::pin(async { conn.can_shrink() })).await? {
            return Ok(0);
        }
        let mut total = 0;
        loop {
            let (pages, has_more) = self.write(|conn| Box::pin(async { conn.shrink() })).await?;
            total += pages;
            if !has_more {
                break;
            }
            tokio::time::sleep(BETWEEN_STEPS).await;
        }
        if total > 0 {
            sqlite.checkpoint().await?;
        }
        Ok(total)
    }

    /// How large the database is.
    pub async fn usage(&self) -> Result<DatabaseUsage, Error> {
        match &self.backend {
            Backend::Sqlite(sqlite) => sqlite.usage().await,
            Backend::Postgres(postgres) => postgres.usage().await,
        }
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
        if let Err(Error::Unavailable(_) | Error::Uncertain(_) | Error::Internal(_)) = &result {
            self.metrics.database_failed(operation);
        }
        result
    }
}
