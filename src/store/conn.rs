//! One connection, and what can be run on it.
//!
//! A query is a value without a database in its type; [`Conn`] runs it on the database that it is connected to. On SQLite, which is inside this
//! process, that takes no waiting.

use diesel::SqliteConnection;
use diesel::connection::SimpleConnection;
use diesel::query_dsl::methods::{ExecuteDsl, LoadQuery};
use diesel::result::OptionalExtension;
use diesel_async::methods;
use diesel_async::pooled_connection::deadpool::Object;
use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::clock::Clock;
use super::fragment::{MOST_MEMBERS, UnionAll};
use super::{postgres, sqlite};
use crate::error::Error;
use crate::metrics::Metrics;
use crate::model::{BootTime, Timestamp};

/// A query that yields rows of `U`, on any database.
pub(super) trait Rows<'q, U>:
    LoadQuery<'q, SqliteConnection, U> + methods::LoadQuery<'q, AsyncPgConnection, U> + Send + 'q
{
}
impl<'q, U, Q> Rows<'q, U> for Q where
    Q: LoadQuery<'q, SqliteConnection, U> + methods::LoadQuery<'q, AsyncPgConnection, U> + Send + 'q
{
}

/// A statement that yields a count, on any database.
pub(super) trait Statement:
    ExecuteDsl<SqliteConnection> + methods::ExecuteDsl<AsyncPgConnection> + Send
{
}
impl<Q> Statement for Q where Q: ExecuteDsl<SqliteConnection> + methods::ExecuteDsl<AsyncPgConnection> + Send {}

/// A connection inside a transaction. What it can do is said by the other files of this module, a table each.
pub struct Conn {
    pub(super) database: Database,
    metrics: Metrics,
    /// Whether the stream of changes has grown in this transaction.
    pub(super) has_changes: bool,
    /// Whether something was read that has changed, and the stream does not tell so yet.
    pub(super) is_ahead: bool,
}

/// What a connection leads to.
pub(super) enum Database {
    /// SQLite, and the clock that goes with it: this machine's.
    Sqlite(SqliteConnection, Clock),
    /// PostgreSQL, and its clock, which is another machine's.
    Postgres(Box<Object<AsyncPgConnection>>, Clock),
}

impl std::fmt::Debug for Conn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conn").finish_non_exhaustive()
    }
}

impl Conn {
    pub(super) fn new(database: Database, metrics: Metrics) -> Self {
        Self { database, metrics, has_changes: false, is_ahead: false }
    }

    /// Whether other processes may work on the database at the same time.
    pub fn is_shared(&self) -> bool {
        matches!(self.database, Database::Postgres(..))
    }

    /// The database's clock.
    pub async fn now(&mut self) -> Result<Timestamp, Error> {
        let clock = match &self.database {
            Database::Sqlite(_, clock) => return Ok(clock.read()),
            Database::Postgres(_, clock) => clock.clone(),
        };
        let asked = BootTime::now();
        let now = self.one(diesel::select(postgres::clock_timestamp())).await?;
        clock.has_shown(asked, now);
        Ok(now)
    }

    pub(super) async fn all<'q, U>(&mut self, query: impl Rows<'q, U>) -> Result<Vec<U>, Error>
    where
        U: Send + 'q,
    {
        self.metrics.statement_run();
        // The future is boxed, so that it is settled here that it can be sent to another thread.
        Ok(match &mut self.database {
            Database::Sqlite(conn, _) => diesel::RunQueryDsl::load(query, conn)?,
            Database::Postgres(conn, _) => diesel_async::RunQueryDsl::load(query, &mut ***conn).boxed().await?,
        })
    }

    pub(super) async fn one<'q, U>(&mut self, query: impl Rows<'q, U>) -> Result<U, Error>
    where
        U: Send + 'q,
    {
        self.metrics.statement_run();
        Ok(match &mut self.database {
            Database::Sqlite(conn, _) => diesel::RunQueryDsl::get_result(query, conn)?,
            Database::Postgres(conn, _) => diesel_async::RunQueryDsl::get_result(query, &mut ***conn).boxed().await?,
        })
    }

    pub(super) async fn optional<'q, U>(&mut self, query: impl Rows<'q, U>) -> Result<Option<U>, Error>
    where
        U: Send + 'q,
    {
        self.metrics.statement_run();
        Ok(match &mut self.database {
            Database::Sqlite(conn, _) => diesel::RunQueryDsl::get_result(query, conn).optional()?,
            Database::Postgres(conn, _) => {
                diesel_async::RunQueryDsl::get_result(query, &mut ***conn).boxed().await.optional()?
            }
        })
    }

    /// The rows of each of many queries that differ only in their values, in as few statements as can be. `query` makes one of
    /// them; the first column of its rows is the number that it is given.
    pub(super) async fn each<'q, T, Q, U>(
        &mut self,
        values: &[T],
        query: impl Fn(i32, &T) -> Q,
    ) -> Result<Vec<Vec<U>>, Error>
    where
        UnionAll<Q>: Rows<'q, (i32, U)>,
        U: Send + 'q,
    {
        let mut found: Vec<Vec<U>> = values.iter().map(|_| Vec::new()).collect();
        let numbered: Vec<(i32, &T)> = (0..).zip(values).collect();
        for some in numbered.chunks(MOST_MEMBERS) {
            let union = UnionAll(some.iter().map(|(number, value)| query(*number, value)).collect());
            for (number, row) in self.all(union).await? {
                found[usize::try_from(number).map_err(Error::internal)?].push(row);
            }
        }
        Ok(found)
    }

    pub(super) async fn run(&mut self, statement: impl Statement) -> Result<usize, Error> {
        self.metrics.statement_run();
        Ok(match &mut self.database {
            Database::Sqlite(conn, _) => ExecuteDsl::execute(statement, conn)?,
            Database::Postgres(conn, _) => methods::ExecuteDsl::execute(statement, &mut ***conn).boxed().await?,
        })
    }

    /// Runs statements that begin or end a transaction, or set the connection up.
    pub(super) async fn control(&mut self, sql: &str) -> Result<(), Error> {
        match &mut self.database {
            Database::Sqlite(conn, _) => SimpleConnection::batch_execute(conn, sql)?,
            Database::Postgres(conn, _) => SimpleAsyncConnection::batch_execute(&mut ***conn, sql).await?,
        }
        Ok(())
    }

    /// Whether an embedded database has free pages to give back.
    pub(super) fn can_shrink(&mut self) -> Result<bool, Error> {
        match &mut self.database {
            Database::Sqlite(conn, _) => sqlite::can_shrink(conn),
            Database::Postgres(..) => Ok(false),
        }
    }

    /// Gives some free pages of an embedded database back to the file system. Answers how many, and whether there are more.
    pub(super) fn shrink(&mut self) -> Result<(i64, bool), Error> {
        match &mut self.database {
            Database::Sqlite(conn, _) => sqlite::shrink(conn),
            Database::Postgres(..) => Ok((0, false)),
        }
    }

    /// From here on statements are planned for their values, and so is what looks whether something still refers to what is removed: how many
    /// rows a value has differs by far there.
    pub(super) async fn plan_anew(&mut self) -> Result<(), Error> {
        if self.is_shared() { self.control("SET LOCAL plan_cache_mode = auto").await } else { Ok(()) }
    }

    /// The result of something that only this connection could make wait: SQLite never does.
    pub(super) fn at_once<R>(
        &mut self,
        work: impl for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<R, Error>>,
    ) -> Result<R, Error> {
        work(self)
            .now_or_never()
            .unwrap_or_else(|| Err(Error::internal("a unit of work waited for something other than its connection")))
    }
}

impl From<diesel::result::Error> for Error {
    fn from(error: diesel::result::Error) -> Self {
        use diesel::result::{DatabaseErrorKind as Kind, Error as Diesel};
        match &error {
            Diesel::DatabaseError(Kind::UniqueViolation, info) if is_of_name(&**info) => {
                Self::Conflict("Something else has this name already.".to_owned())
            }
            Diesel::DatabaseError(
                Kind::ClosedConnection | Kind::UnableToSendCommand | Kind::ReadOnlyTransaction,
                _,
            ) => Self::unavailable(error),
            // What else makes a database unavailable is told by texts only.
            Diesel::DatabaseError(_, info) if is_unavailable(info.message()) => Self::unavailable(error),
            _ => Self::internal(error),
        }
    }
}

/// Whether what must be unique is a name. PostgreSQL says which index it is, SQLite which columns.
fn is_of_name(info: &dyn diesel::result::DatabaseErrorInformation) -> bool {
    match info.constraint_name() {
        Some(index) => index.ends_with("_name"),
        None => info.message().contains(".name"),
    }
}

fn is_unavailable(message: &str) -> bool {
    const CONDITIONS: [&str; 14] = [
        // SQLite's
        "database or disk is full",
        "disk I/O error",
        "unable to open database file",
        "database is locked",
        "attempt to write a readonly database",
        // PostgreSQL's
        "terminating connection",
        "the database system is",
        "connection closed",
        "No space left on device",
        "could not extend file",
        "remaining connection slots are reserved",
        "too many clients already",
        "canceling statement due to",
        "cannot execute",
    ];
    CONDITIONS.iter().any(|condition| message.contains(condition))
}
