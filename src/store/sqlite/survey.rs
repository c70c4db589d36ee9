//! What an embedded database is like, for somebody who looks and changes nothing.

use std::path::Path;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::Text;
use diesel::sqlite::Sqlite;

use super::open::MIGRATIONS;
use crate::error::Error;
use crate::store::migrations::{NOTED, Standing};
use crate::store::schema::encryption_keys;
use crate::store::survey::SqliteSurvey;

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
    Ok(SqliteSurvey { schema, key })
}

fn names(conn: &mut SqliteConnection, sql: &str) -> Result<Vec<String>, Error> {
    let names: Vec<Name> = diesel::sql_query(sql).load(conn)?;
    Ok(names.into_iter().map(|it| it.name).collect())
}
