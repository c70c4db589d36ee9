//! PostgreSQL: a pool of connections, and several writers at a time, on any number of nodes.
//!
//! A unit of work is a transaction of its own. What it reads to decide by is kept from changing by a lock on the workspace (`lock_workspace`).
//! Every wait has an end: a database that does not answer is one that is away.

mod announcements;
mod connect;
mod numbering;
mod sessions;
mod survey;

use std::sync::Arc;
use std::time::Duration;

use diesel_async::pooled_connection::deadpool::{Object, Pool};
use diesel_async::{AsyncMigrationHarness, AsyncPgConnection, SimpleAsyncConnection};
use diesel_migrations::{EmbeddedMigrations, embed_migrations};
use futures_util::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::clock::Clock;
use super::conn::{Conn, Database};
use super::migrations;
use super::types::Instant;
use crate::error::Error;
use crate::metrics::{DatabaseUsage, Metrics};

pub use announcements::Announcements;
pub use connect::DatabaseUrl;
use numbering::Numbering;
pub(super) use survey::survey;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/postgres");

/// How long a unit of work may take, its turn and its commit included.
const PATIENCE: Duration = Duration::from_secs(20);
/// What is done for every job finds it by its id, or as the first of an index: no value makes another plan the better one, so none is made for each.
/// What removes things says otherwise: [`Conn::plan_anew`].
const BEGIN_WRITE: &str = "BEGIN; SET LOCAL plan_cache_mode = force_generic_plan";
/// How many connections of the pool snapshots leave to others: renewals of leases, claims, the numbering of changes, and single reads.
const OTHER_CONNECTIONS: usize = 2;
/// How long a notification may take that is sent to oneself.
const NOTIFYING: Duration = Duration::from_secs(5);

diesel::define_sql_function! {
    /// The moment at which it is asked for, not the one at which the transaction began.
    fn clock_timestamp() -> Instant;
}

diesel::define_sql_function! {
    fn pg_database_size(name: diesel::sql_types::Text) -> BigInt;
}

/// An open database. Clones share its connections.
#[derive(Clone)]
pub(super) struct Postgres {
    pool: Pool<AsyncPgConnection>,
    url: Arc<DatabaseUrl>,
    numbering: Numbering,
    snapshots: Arc<Semaphore>,
    clock: Clock,
    metrics: Metrics,
}

impl std::fmt::Debug for Postgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Postgres").finish_non_exhaustive()
    }
}

impl Postgres {
    /// Opens the database at `url`, and brings its schema up to date: one node at a time.
    pub(super) async fn open(
        url: DatabaseUrl,
        connections: usize,
        clock: Clock,
        metrics: Metrics,
    ) -> Result<Self, Error> {
        let away = || Error::unavailable("the database does not answer");
        timeout(PATIENCE, sessions::check(&url)).await.map_err(|_| away())??;
        let mut conn = timeout(PATIENCE, url.connect()).await.map_err(|_| away())??;
        conn.batch_execute("SET statement_timeout = 0; SELECT pg_advisory_lock(hashtext('jobstream migrations'))")
            .await?;
        let mut harness = AsyncMigrationHarness::new(conn);
        // The lock goes with the connection.
        migrations::run(&mut harness, MIGRATIONS)?;
        drop(harness);
        let url = Arc::new(url);
        let pool = connect::pool(Arc::clone(&url), connections)?;
        let numbering = Numbering::start(pool.clone());
        let snapshots = Arc::new(Semaphore::new(connections.saturating_sub(OTHER_CONNECTIONS).max(1)));
        let postgres = Self { pool, url, numbering, snapshots, clock, metrics };
        check_notifications(&postgres.url).await?;
        Ok(postgres)
    }

    /// Listens to what nodes announce.
    pub(super) async fn listen(&self) -> Result<Announcements, Error> {
        Announcements::open(&self.url).await
    }

    /// Waits until a snapshot for several reads may be opened. Such a snapshot keeps its connection until its response is complete.
    pub(super) async fn snapshot_permit(&self) -> Result<OwnedSemaphorePermit, Error> {
        let permit = timeout(PATIENCE, Arc::clone(&self.snapshots).acquire_owned()).await;
        permit.map_err(|_| Error::unavailable("too many snapshots are open"))?.map_err(Error::internal)
    }

    /// Runs `work` on a snapshot.
    pub(super) async fn read<R, W>(&self, work: W) -> Result<R, Error>
    where
        W: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<R, Error>> + Send + 'static,
        R: Send + 'static,
    {
        let read = async {
            let mut lent = self.lend().await?;
            lent.conn()?.control("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
            let result = work(lent.conn()?).await;
            if lent.conn()?.control("ROLLBACK").await.is_ok() {
                lent.give_back();
            }
            result
        };
        timeout(PATIENCE, read).await.map_err(|_| Error::unavailable("a read took too long"))?
    }

    /// Runs `work`, and answers when it is committed and what it has added to the stream of changes has positions there. It runs to its end even if
    /// the caller stops waiting.
    pub(super) async fn write<R, W>(&self, work: W) -> Result<R, Error>
    where
        W: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<R, Error>> + Send + 'static,
        R: Send + 'static,
    {
        self.write_within(PATIENCE, work).await
    }

    /// The same, with another limit to how long the work may take.
    pub(super) async fn write_within<R, W>(&self, limit: Duration, work: W) -> Result<R, Error>
    where
        W: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<R, Error>> + Send + 'static,
        R: Send + 'static,
    {
        let postgres = self.clone();
        tokio::spawn(async move { postgres.commit(limit, work).await }).await.map_err(Error::internal)?
    }

    async fn commit<R, W>(&self, limit: Duration, work: W) -> Result<R, Error>
    where
        W: for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<R, Error>>,
    {
        let late = || Error::unavailable("a write took too long");
        let mut lent = timeout(PATIENCE, self.lend()).await.map_err(|_| late())??;
        let work = async {
            lent.conn()?.control(BEGIN_WRITE).await?;
            let result = work(lent.conn()?).await;
            Ok::<_, Error>((result, lent))
        };
        let (result, mut lent) = timeout(limit, work).await.map_err(|_| late())??;
        let done = match result {
            Ok(done) => done,
            Err(error) => {
                if let Ok(Ok(())) = timeout(PATIENCE, lent.conn()?.control("ROLLBACK")).await {
                    lent.give_back();
                }
                return Err(error);
            }
        };
        match timeout(PATIENCE, lent.conn()?.control("COMMIT")).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(Error::uncertain(error)),
            Err(late) => return Err(Error::uncertain(late)),
        }
        let has_changes = lent.conn()?.has_changes;
        lent.give_back();
        if has_changes {
            self.numbering.catch_up().await;
        }
        Ok(done)
    }

    /// Gives positions to what has none, such as what was committed by a node that is gone.
    pub(super) async fn number_changes(&self) {
        self.numbering.catch_up().await;
    }

    /// How large the database is.
    pub(super) async fn usage(&self) -> Result<DatabaseUsage, Error> {
        use diesel::dsl::sql;
        use diesel::sql_types::Text;
        let size: i64 = timeout(PATIENCE, async {
            let mut conn = self.pool.get().await.map_err(Error::unavailable)?;
            let size = diesel::select(pg_database_size(sql::<Text>("current_database()")));
            Ok::<_, Error>(diesel_async::RunQueryDsl::get_result(size, &mut *conn).await?)
        })
        .await
        .map_err(|_| Error::unavailable("the size was not told in time"))??;
        Ok(DatabaseUsage { bytes: u64::try_from(size).unwrap_or(0), disk: None })
    }

    async fn lend(&self) -> Result<Lent, Error> {
        let conn = self.pool.get().await.map_err(Error::unavailable)?;
        Ok(Lent(Some(Conn::new(Database::Postgres(Box::new(conn), self.clock.clone()), self.metrics.clone()))))
    }
}

/// Refuses a database whose notifications do not arrive: between it and this server is something that keeps no sessions.
async fn check_notifications(url: &DatabaseUrl) -> Result<(), Error> {
    let mut announcements = Announcements::open(url).await?;
    let word = format!("hello {}", uuid::Uuid::new_v4());
    announcements.announce(&word).await?;
    let arrives = async {
        while announcements.next().await? != word {}
        Ok(())
    };
    timeout(NOTIFYING, arrives)
        .await
        .unwrap_or_else(|_| Err(Error::unavailable(format!("its notifications do not arrive. {}", sessions::NEEDED))))
}

/// A connection that is in use. If it is not given back it is closed: nobody knows what state it is in.
struct Lent(Option<Conn>);

impl Lent {
    fn conn(&mut self) -> Result<&mut Conn, Error> {
        self.0.as_mut().ok_or_else(|| Error::internal("a connection was used after it was given back"))
    }

    fn give_back(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(Conn { database: Database::Postgres(conn, _), .. }) = self.0.take() {
            drop(Object::take(*conn));
        }
    }
}
