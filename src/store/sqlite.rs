//! Opening the embedded database.

use std::path::Path;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use super::clock::Clock;
use super::conn::Conn;
use crate::error::Error;
use crate::metrics::Metrics;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/sqlite");

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
pub(super) fn open_writer(
    path: &Path,
    synchronous: Synchronous,
    clock: Clock,
    metrics: Metrics,
) -> Result<Conn, Error> {
    let mut sqlite = connect(path)?;
    let synchronous = match synchronous {
        Synchronous::Normal => "NORMAL",
        Synchronous::Full => "FULL",
    };
    let pragmas = format!("{COMMON} PRAGMA journal_mode = WAL; PRAGMA synchronous = {synchronous};");
    sqlite.batch_execute(&pragmas)?;
    refuse_newer_schema(&mut sqlite)?;
    sqlite.run_pending_migrations(MIGRATIONS).map_err(Error::internal)?;
    Ok(Conn::new(sqlite, clock, metrics))
}

/// Opens a connection that only reads. Only after the writer: a reader cannot switch to the write-ahead log.
pub(super) fn open_reader(path: &Path, clock: Clock, metrics: Metrics) -> Result<Conn, Error> {
    let mut sqlite = connect(path)?;
    sqlite.batch_execute(&format!("{COMMON} PRAGMA query_only = ON;"))?;
    Ok(Conn::new(sqlite, clock, metrics))
}

fn connect(path: &Path) -> Result<SqliteConnection, Error> {
    let url = path.to_str().ok_or_else(|| Error::internal(format!("not a UTF-8 path: {}", path.display())))?;
    SqliteConnection::establish(url).map_err(Error::unavailable)
}

/// A database that a newer version has been at may hold what this one would misread.
fn refuse_newer_schema(sqlite: &mut SqliteConnection) -> Result<(), Error> {
    let known: Vec<String> = diesel::migration::MigrationSource::<diesel::sqlite::Sqlite>::migrations(&MIGRATIONS)
        .map_err(Error::internal)?
        .iter()
        .map(|migration| migration.name().version().to_string())
        .collect();
    let applied = sqlite.applied_migrations().map_err(Error::internal)?;
    match applied.iter().map(ToString::to_string).find(|version| !known.contains(version)) {
        Some(version) => Err(Error::internal(format!(
            "the database has schema {version}, which this version does not know: it is newer"
        ))),
        None => Ok(()),
    }
}
