//! Positions in the stream of changes.
//!
//! A change gets its position when it is committed, from whoever comes first: what is committed at one moment, here and on other nodes, is
//! numbered together. So no reader passes over what commits late, and nothing waits for a long transaction of somebody else.

use std::time::Duration;

use diesel_async::AsyncPgConnection;
use diesel_async::SimpleAsyncConnection;
use diesel_async::pooled_connection::deadpool::{Object, Pool};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::error::Error;

/// How long it may take. What is not numbered by then is numbered with what comes next.
const PATIENCE: Duration = Duration::from_secs(5);

/// Numbers changes. Clones share the work.
#[derive(Debug, Clone)]
pub(super) struct Numbering {
    requests: mpsc::UnboundedSender<oneshot::Sender<()>>,
}

impl Numbering {
    /// Begins to number, over the connections of this pool.
    pub(super) fn start(pool: Pool<AsyncPgConnection>) -> Self {
        let (requests, mut received) = mpsc::unbounded_channel::<oneshot::Sender<()>>();
        tokio::spawn(async move {
            let mut waiting: Vec<oneshot::Sender<()>> = Vec::new();
            while received.recv_many(&mut waiting, usize::MAX).await > 0 {
                match timeout(PATIENCE, number(&pool)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::warn!(?error, "changes are stored, but cannot be shown yet"),
                    Err(_) => {
                        tracing::warn!("changes are stored, but cannot be shown yet: the database does not answer")
                    }
                }
                // Who does not wait any more needs no answer.
                for waits in waiting.drain(..) {
                    let _ = waits.send(());
                }
            }
        });
        Self { requests }
    }

    /// Waits until what is committed by now has its position; if that cannot be had, not for ever.
    pub(super) async fn catch_up(&self) {
        let (done, numbered) = oneshot::channel();
        if self.requests.send(done).is_ok() {
            let _ = numbered.await;
        }
    }
}

async fn number(pool: &Pool<AsyncPgConnection>) -> Result<(), Error> {
    let conn = pool.get().await.map_err(Error::unavailable)?;
    // Closed if this is given up, and given back when it is done.
    let mut taken = Taken(Some(conn));
    if let Some(conn) = &mut taken.0 {
        conn.batch_execute("SELECT number_changes()").await?;
    }
    drop(taken.0.take());
    Ok(())
}

/// A connection that is closed unless it is taken out.
struct Taken(Option<Object<AsyncPgConnection>>);

impl Drop for Taken {
    fn drop(&mut self) {
        if let Some(conn) = self.0.take() {
            drop(Object::take(conn));
        }
    }
}
