//! Notifications: what nodes tell each other through the database.

use std::pin::pin;
use std::time::Duration;

use diesel::sql_types::Text;
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use futures_util::StreamExt;
use tokio::time::timeout;

use super::connect::DatabaseUrl;
use crate::error::Error;

diesel::define_sql_function! {
    /// Tells all who listen to a channel, once the transaction is committed. It answers nothing.
    fn pg_notify(channel: Text, payload: Text) -> Text;
}

/// What all nodes listen to.
const CHANNEL: &str = "jobstream";
/// How long it may take to be connected, or to announce something.
const PATIENCE: Duration = Duration::from_secs(5);

/// A connection of its own that hears what is announced, also by itself, and announces.
pub struct Announcements(AsyncPgConnection);

impl std::fmt::Debug for Announcements {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Announcements").finish_non_exhaustive()
    }
}

impl Announcements {
    pub(super) async fn open(url: &DatabaseUrl) -> Result<Self, Error> {
        let open = async {
            let mut conn = url.connect().await?;
            conn.batch_execute(&format!("SET idle_in_transaction_session_timeout = 0; LISTEN {CHANNEL}")).await?;
            Ok(Self(conn))
        };
        timeout(PATIENCE, open).await.map_err(|_| Error::unavailable("the database does not answer"))?
    }

    /// The next announcement. If somebody stops waiting for it, it is not lost.
    pub async fn next(&mut self) -> Result<String, Error> {
        match pin!(self.0.notifications_stream()).next().await {
            Some(heard) => Ok(heard?.payload),
            None => Err(Error::unavailable("the connection that listens is closed")),
        }
    }

    /// Announces something, of at most 8,000 bytes, to all who listen.
    pub async fn announce(&mut self, text: &str) -> Result<(), Error> {
        let announce = diesel::select(pg_notify(CHANNEL, text));
        let announced = timeout(PATIENCE, announce.execute(&mut self.0)).await;
        announced.map_err(|_| Error::unavailable("an announcement was not taken in time"))??;
        Ok(())
    }
}
