//! Opening the embedded database.

use std::path::Path;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel_migrations::{EmbeddedMigrations, embed_migrations};
use futures_util::FutureExt;

use super::vacuum;
use crate::error::Error;
use crate::metrics::Metrics;
use crate::store::clock::Clock;
use crate::store::conn::{Conn, Database};
use crate::store::migrations;

pub(super) const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/sqlite");

const COMMON: &str = "PRAGMA busy_timeout = 5000; PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY;";

/// What a commit waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Synchronous {
    /// What was acknowledged survives a kill of the server, not always a loss of power.
    Normal,
    /// It survives a loss of power too: every commit waits for the disk.
    Full,
}

/// Opens the one connection that writes, and brings the schema up to date on it.
pub(super) fn writer(path: &Path, synchronous: Synchronous, clock: Clock, metrics: Metrics) -> Result<Conn, Error> {
    let mut sqlite = connect(path)?;
    let synchronous = match synchronous {
        Synchronous::Normal => "NORMAL",
        Synchronous::Full => "FULL",
    };
    let incremental = vacuum::INCREMENTAL;
    let pragmas = format!("{incremental} {COMMON} PRAGMA journal_mode = WAL; PRAGMA synchronous = {synchronous};");
    sqlite.batch_execute(&pragmas)?;
    vacuum::convert(&mut sqlite, path)?;
    migrations::run(&mut sqlite, MIGRATIONS)?;
    Ok(Conn::new(Database::Sqlite(sqlite, clock), metrics))
}

/// Opens a connection that only reads. Only after the writer: a reader cannot switch to the write-ahead log.
pub(super) fn reader(path: &Path, clock: Clock, metrics: Metrics) -> Result<Conn, Error> {
    let mut sqlite = connect(path)?;
    sqlite.batch_execute(&format!("{COMMON} PRAGMA query_only = ON;"))?;
    Ok(Conn::new(Database::Sqlite(sqlite, clock), metrics))
}

/// Moves what is in the write-ahead log to the database, on a connection of its own.
pub(super) fn checkpoint(path: &Path) -> Result<(), Error> {
    let mut sqlite = connect(path)?;
    sqlite.batch_execute(COMMON)?;
    vacuum::checkpoint(&mut sqlite)
}

fn connect(path: &Path) -> Result<SqliteConnection, Error> {
    let url = path.to_str().ok_or_else(|| Error::internal(format!("not a UTF-8 path: {}", path.display())))?;
    SqliteConnection::establish(url).map_err(Error::unavailable)
}

/// Runs statements that begin or end a transaction.
pub(super) fn control(conn: &mut Conn, sql: &str) -> Result<(), Error> {
    let sql = sql.to_owned();
    conn.at_once(move |conn| async move { conn.control(&sql).await }.boxed())
}
