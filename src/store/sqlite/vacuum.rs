//! Giving the space of deleted rows back to the file system.
//!
//! A database is made so that it can shrink in small steps (`auto_vacuum = INCREMENTAL`). One that an earlier version made is converted once,
//! when it is opened, by writing it anew.

use std::path::Path;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::BigInt;

use crate::error::Error;

/// Asks for a database that can shrink. Heeded only before the first page is written, and by `VACUUM`.
pub(super) const INCREMENTAL: &str = "PRAGMA auto_vacuum = INCREMENTAL;";
/// What has to remain free on the disk after a conversion.
const RESERVE: u64 = 64 << 20;
/// Free pages that the database keeps for what is written next: 1 MiB.
const KEPT: i64 = 256;
/// How many pages one transaction gives back: it takes a few milliseconds.
const STEP: i64 = 256;

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    number: i64,
}

/// Has a database shrink from now on that could not. Without room on the disk, or if it fails, the database stays as it is.
pub(super) fn convert(sqlite: &mut SqliteConnection, path: &Path) -> Result<(), Error> {
    if pragma(sqlite, "auto_vacuum")? != 0 {
        return Ok(());
    }
    let (pages, free_pages) = (pragma(sqlite, "page_count")?, pragma(sqlite, "freelist_count")?);
    let page_bytes = u64::try_from(pragma(sqlite, "page_size")?).unwrap_or_default();
    let used_bytes = u64::try_from(pages - free_pages).unwrap_or_default().saturating_mul(page_bytes);
    // What is used is written twice: to a temporary file, and to the write-ahead log.
    let needed_bytes = used_bytes.saturating_mul(2).saturating_add(RESERVE);
    let disk = rustix::fs::statvfs(path).map_err(Error::unavailable)?;
    let available_bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
    if available_bytes < needed_bytes {
        tracing::warn!(
            needed_bytes,
            available_bytes,
            "not enough disk space to convert the database to incremental vacuum: it will not shrink; trying again at the next start"
        );
        return Ok(());
    }
    tracing::info!(pages, free_pages, "converting the database to incremental vacuum");
    match vacuum(sqlite, path) {
        Ok(()) => tracing::info!(pages = pragma(sqlite, "page_count")?, "converted the database to incremental vacuum"),
        Err(error) => tracing::warn!(?error, "failed to convert the database to incremental vacuum"),
    }
    Ok(())
}

fn vacuum(sqlite: &mut SqliteConnection, path: &Path) -> Result<(), Error> {
    // The temporary file belongs on the disk whose room is known; in memory it would take as much of that.
    let directory = path.parent().and_then(Path::to_str).unwrap_or_default().replace('\'', "''");
    let set_up = format!("PRAGMA temp_store = FILE; PRAGMA temp_store_directory = '{directory}';");
    let vacuumed = sqlite.batch_execute(&format!("{set_up} {INCREMENTAL} VACUUM; PRAGMA wal_checkpoint(TRUNCATE);"));
    sqlite.batch_execute("PRAGMA temp_store_directory = ''; PRAGMA temp_store = MEMORY;")?;
    Ok(vacuumed?)
}

/// Whether there are free pages to give back: none without a conversion.
pub(in crate::store) fn can_shrink(sqlite: &mut SqliteConnection) -> Result<bool, Error> {
    Ok(pragma(sqlite, "freelist_count")? > KEPT && pragma(sqlite, "auto_vacuum")? != 0)
}

/// Gives some free pages back, within a transaction. Answers how many, and whether there are more.
pub(in crate::store) fn shrink(sqlite: &mut SqliteConnection) -> Result<(i64, bool), Error> {
    let before = pragma(sqlite, "freelist_count")?;
    if before <= KEPT {
        return Ok((0, false));
    }
    sqlite.batch_execute(&format!("PRAGMA incremental_vacuum({})", STEP.min(before - KEPT)))?;
    let after = pragma(sqlite, "freelist_count")?;
    // One that could not be converted gives nothing back.
    Ok((before - after, after < before && after > KEPT))
}

/// Moves what is committed from the write-ahead log to the database, whose file shrinks only then. Nobody has to wait for it.
pub(super) fn checkpoint(sqlite: &mut SqliteConnection) -> Result<(), Error> {
    Ok(sqlite.batch_execute("PRAGMA wal_checkpoint(PASSIVE)")?)
}

fn pragma(sqlite: &mut SqliteConnection, name: &str) -> Result<i64, Error> {
    let query = diesel::sql_query(format!("SELECT {name} AS number FROM pragma_{name}"));
    Ok(query.get_result::<Number>(sqlite)?.number)
}
