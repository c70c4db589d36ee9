//! What an embedded database is like, for somebody who looks and changes nothing.

use std::path::Path;
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::Text;
use diesel::sqlite::Sqlite;

use super::open::MIGRATIONS;
use crate::error::Error;
use crate::model::Timestamp;
use crate::store::clock::Jump;
use crate::store::jobs::NUMBER;
use crate::store::migrations::{NOTED, Standing};
use crate::store::schema::{clock_jumps, encryption_keys, jobs};
use crate::store::survey::{ClockSurvey, LATEST_JOBS, SqliteSurvey};

/// What was created just now is not ahead.
const SLACK: Duration = Duration::from_secs(5);

#[derive(QueryableByName)]
struct Name {
    #[diesel(sql_type = Text)]
    name: String,
}

/// Looks at the database, which is there. A server may be at work on it.
pub(in crate::store) fn survey(path: &Path) -> Result<SqliteSurvey, Error> {
    let mut log = path.to_owned().into_os_string();
    log.push("-wal");
    // A reader makes files beside the database, unless it is told that nobody writes to it: nobody does where there is no log.
    let mode = if Path::new(&log).exists() { "mode=ro" } else { "mode=ro&immutable=1" };
    let url = url::Url::from_file_path(path).map_err(|()| Error::internal("the path is not absolute"))?;
    let mut conn = SqliteConnection::establish(&format!("{url}?{mode}")).map_err(Error::unavailable)?;
    conn.batch_execute("PRAGMA busy_timeout = 5000")?;
    let tables = names(&mut conn, &format!("SELECT name FROM sqlite_schema WHERE name = '{NOTED}'"))?;
    let applied = match tables.len() {
        0 => Vec::new(),
        _ => names(&mut conn, &format!("SELECT version AS name FROM {NOTED} ORDER BY version"))?,
    };
    let schema = Standing::of::<Sqlite>(&applied, &MIGRATIONS)?;
    // An old schema has no place for it.
    let key = encryption_keys::table.select(encryption_keys::fingerprint).first(&mut conn).ok();
    Ok(SqliteSurvey { schema, key, clock: clock(&mut conn) })
}

/// What it tells of its clock. An old schema has no place for all of that, a new one may have
/// another.
fn clock(conn: &mut SqliteConnection) -> ClockSurvey {
    let latest = jobs::table.order((NUMBER.desc(), jobs::id.desc())).select(jobs::created).limit(LATEST_JOBS);
    let latest: Vec<Timestamp> = latest.load(conn).unwrap_or_default();
    let now = Timestamp::now();
    let ahead = latest.into_iter().filter(|created| *created > now + SLACK).count();
    let jumps = clock_jumps::table.order(clock_jumps::id.desc()).select((
        clock_jumps::expected,
        clock_jumps::shown,
        clock_jumps::node,
    ));
    let jumps: Vec<(Timestamp, Timestamp, String)> = jumps.load(conn).unwrap_or_default();
    ClockSurvey {
        jobs_ahead: i64::try_from(ahead).unwrap_or(i64::MAX),
        jumps: jumps.into_iter().map(|(expected, shown, node)| (Jump { expected, shown }, node)).collect(),
    }
}

fn names(conn: &mut SqliteConnection, sql: &str) -> Result<Vec<String>, Error> {
    let names: Vec<Name> = diesel::sql_query(sql).load(conn)?;
    Ok(names.into_iter().map(|it| it.name).collect())
}
