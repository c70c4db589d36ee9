//! Whether each connection has a session of its own.
//!
//! Locks, settings, prepared statements and LISTEN belong to a session. A pooler that lends sessions out for a transaction only, or for a
//! statement, mixes up those of all who come through it. So this is found out before anything is done that would stay in a session: a lock
//! that is left in one of the pooler's keeps every other server waiting.

use tokio_postgres::{Client, SimpleQueryMessage};

use super::connect::{DatabaseUrl, explain};
use crate::error::Error;

/// How often it is looked. Once is enough where nobody else uses the pooler.
const ROUNDS: u32 = 5;

/// What is to be done where there are none.
pub(super) const NEEDED: &str = "If a pooler such as PgBouncer is before it, that has to keep sessions (pool_mode = session), or the server \
    has to go past it";

/// Refuses what does not keep a session for each connection.
pub(super) async fn check(url: &DatabaseUrl) -> Result<(), Error> {
    let (one, other) = (url.client().await?, url.client().await?);
    let session = ask(&one, "SELECT pg_backend_pid()").await?;
    for _ in 0..ROUNDS {
        // Such a pooler lends now what it has just got back. If somebody else is faster, the first connection has to get another one.
        ask(&other, "BEGIN").await?;
        let is_lent_twice = ask(&other, "SELECT pg_backend_pid()").await? == session;
        if is_lent_twice || ask(&one, "SELECT pg_backend_pid()").await? != session {
            return Err(Error::unavailable(format!("its connections have no sessions of their own. {NEEDED}")));
        }
        ask(&other, "ROLLBACK").await?;
    }
    Ok(())
}

/// Carries out a statement in the simple protocol, which leaves nothing behind, and answers the first value.
pub(super) async fn ask(client: &Client, sql: &str) -> Result<Option<String>, Error> {
    Ok(rows(client, sql).await?.into_iter().next().and_then(|row| row.into_iter().next().flatten()))
}

/// The same for all rows and values.
pub(super) async fn rows(client: &Client, sql: &str) -> Result<Vec<Vec<Option<String>>>, Error> {
    let answer = client.simple_query(sql).await.map_err(|error| Error::unavailable(explain(&error)))?;
    let rows = answer.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|it| row.get(it).map(str::to_owned)).collect()),
        _ => None,
    });
    Ok(rows.collect())
}
