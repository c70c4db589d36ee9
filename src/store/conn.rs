//! One connection, and what can be run on it.
//!
//! A query is a value without a database in its type; [`Conn`] runs it. Its methods are async, although SQLite, which is
//! inside this process, answers at once, so that the queries stay as they are when a database answers over a network.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::query_dsl::methods::{ExecuteDsl, LoadQuery};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::clock::Clock;
use super::fragment::{MOST_MEMBERS, UnionAll};
use crate::error::Error;
use crate::metrics::Metrics;
use crate::model::Timestamp;

/// A query that yields rows of `U`.
pub(super) trait Rows<'q, U>: LoadQuery<'q, SqliteConnection, U> + Send {}
impl<'q, U, Q: LoadQuery<'q, SqliteConnection, U> + Send> Rows<'q, U> for Q {}

/// A statement that yields a count.
pub(super) trait Statement: ExecuteDsl<SqliteConnection> + Send {}
impl<Q: ExecuteDsl<SqliteConnection> + Send> Statement for Q {}

/// A connection inside a transaction. What it can do is said by the other files of this module, a table each.
pub struct Conn {
    sqlite: SqliteConnection,
    clock: Clock,
    metrics: Metrics,
}

impl std::fmt::Debug for Conn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conn").finish_non_exhaustive()
    }
}

impl Conn {
    pub(super) fn new(sqlite: SqliteConnection, clock: Clock, metrics: Metrics) -> Self {
        Self { sqlite, clock, metrics }
    }

    /// The store's clock: a moment later than every one before.
    pub async fn now(&mut self) -> Result<Timestamp, Error> {
        Ok(self.clock.now())
    }

    pub(super) async fn all<'q, U>(&mut self, query: impl Rows<'q, U>) -> Result<Vec<U>, Error> {
        Ok(RunQueryDsl::load(query, self.counted())?)
    }

    pub(super) async fn one<'q, U>(&mut self, query: impl Rows<'q, U>) -> Result<U, Error> {
        Ok(RunQueryDsl::get_result(query, self.counted())?)
    }

    pub(super) async fn optional<'q, U>(&mut self, query: impl Rows<'q, U>) -> Result<Option<U>, Error> {
        Ok(RunQueryDsl::get_result(query, self.counted()).optional()?)
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
        Ok(statement.execute_in(self.counted())?)
    }

    /// The connection, for one statement.
    fn counted(&mut self) -> &mut SqliteConnection {
        self.metrics.statement_run();
        &mut self.sqlite
    }

    /// Runs statements that begin or end a transaction, or set the connection up.
    pub(super) fn control(&mut self, sql: &str) -> Result<(), Error> {
        Ok(self.sqlite.batch_execute(sql)?)
    }

    /// Runs a unit of work to its end. It can only wait for this connection, which never makes it wait.
    pub(super) fn complete<R>(
        &mut self,
        work: impl for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<R, Error>>,
    ) -> Result<R, Error> {
        work(self)
            .now_or_never()
            .unwrap_or_else(|| Err(Error::internal("a unit of work waited for something other than its connection")))
    }
}

/// `ExecuteDsl::execute` takes the connection second; this says it in the order of the sentence.
trait ExecuteIn {
    fn execute_in(self, conn: &mut SqliteConnection) -> QueryResult<usize>;
}

impl<Q: ExecuteDsl<SqliteConnection>> ExecuteIn for Q {
    fn execute_in(self, conn: &mut SqliteConnection) -> QueryResult<usize> {
        Q::execute(self, conn)
    }
}

impl From<diesel::result::Error> for Error {
    fn from(error: diesel::result::Error) -> Self {
        use diesel::result::{DatabaseErrorKind, Error as Diesel};
        match &error {
            Diesel::DatabaseError(DatabaseErrorKind::UniqueViolation, _) => {
                Self::Conflict("Something else has this name already.".to_owned())
            }
            // SQLite tells its conditions apart by their texts only.
            Diesel::DatabaseError(_, info) if is_unavailable(info.message()) => Self::unavailable(error),
            _ => Self::internal(error),
        }
    }
}

fn is_unavailable(message: &str) -> bool {
    const CONDITIONS: [&str; 5] = [
        "database or disk is full",
        "disk I/O error",
        "unable to open database file",
        "database is locked",
        "attempt to write a readonly database",
    ];
    CONDITIONS.iter().any(|condition| message.contains(condition))
}
