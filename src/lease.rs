//! This node's lease: until when what it says of its jobs holds.
//!
//! A node renews its lease for as long as it reaches the database. Each renewal lets its jobs go on for the margin; a supervisor that hears of none
//! ends what it holds, whatever has become of the server. The lease itself lasts longer than that, by all that ending may take. So when
//! another node finds it over, nothing of the jobs is left, without anybody's clock having been compared with another's.

use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::error::Error;
use crate::model::Node;
use crate::store::Store;

/// How much longer a lease lasts than what it is for takes.
const SLACK: Duration = Duration::from_secs(5);
/// How soon a renewal that failed is tried again.
const AGAIN: Duration = Duration::from_millis(500);

/// How long leases are.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// How long jobs go on without a renewal.
    pub margin: Duration,
    /// How long what is told to end may take.
    pub stop_grace: Duration,
}

impl Terms {
    /// How long a lease lasts.
    fn lasts(&self) -> Duration {
        self.margin + self.stop_grace + SLACK
    }
}

/// The lease of this process. Clones share it.
#[derive(Debug, Clone)]
pub struct Lease {
    store: Store,
    node: Node,
    terms: Terms,
    /// Until when jobs may go on; no end where nobody else could take them.
    ends: watch::Sender<Option<Instant>>,
}

impl Lease {
    /// Registers a node.
    pub async fn take(store: Store, node: Node, terms: Terms) -> Result<Self, Error> {
        let lease_length = i64::try_from(terms.lasts().as_micros()).unwrap_or(i64::MAX);
        let node = Node { lease_length, ..node };
        let lease = Self { store, node, terms, ends: watch::Sender::new(None) };
        lease.renew().await?;
        Ok(lease)
    }

    /// The node, as it was registered.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Renews the lease until it is dropped.
    pub async fn keep(self) {
        if !self.store.is_shared() {
            return std::future::pending().await; // nobody could take it
        }
        let every = self.terms.margin / 6;
        let mut failed = false;
        loop {
            sleep(if failed { AGAIN.min(every) } else { every }).await;
            let renewed = timeout(self.terms.margin / 3, self.renew()).await;
            let renewed = renewed.unwrap_or_else(|_| Err(Error::unavailable("the renewal was not answered in time")));
            match (&renewed, failed) {
                (Ok(()), true) => tracing::info!("the database answers again: the lease is renewed"),
                (Err(error), false) => {
                    tracing::error!(?error, margin = ?self.terms.margin, "the lease cannot be renewed; jobs go on for the margin");
                }
                _ => {}
            }
            failed = renewed.is_err();
        }
    }

    /// Tells until when jobs may go on, with every renewal.
    pub fn ends(&self) -> watch::Receiver<Option<Instant>> {
        self.ends.subscribe()
    }

    /// Whether it holds, and for long enough that a job may be started.
    pub fn holds(&self) -> bool {
        self.ends.borrow().is_none_or(|end| end > Instant::now() + self.terms.margin / 3)
    }

    /// Gives the lease back: nothing runs any more.
    pub async fn release(&self) -> Result<(), Error> {
        let id = self.node.id;
        self.store.write(move |conn| conn.remove_node(id).boxed()).await
    }

    async fn renew(&self) -> Result<(), Error> {
        // From before it is asked for, so that it is over here before it is there.
        let asked = Instant::now();
        let node = self.node.clone();
        let lasts = self.terms.lasts();
        self.store
            .write(move |conn| {
                async move {
                    let now = conn.now().await?;
                    conn.renew_lease(&node, now, now + lasts).await
                }
                .boxed()
            })
            .await?;
        if self.store.is_shared() {
            self.ends.send_replace(Some(asked + self.terms.margin));
        }
        Ok(())
    }
}
