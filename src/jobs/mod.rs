//! Jobs: the only writer of job state, and of the workspaces and pipelines that jobs are made for.
//!
//! Every change is one transaction that is stored first and then published: [`Jobs`] composes the store's queries, and rings
//! the bells when they are committed. What users ask for is in `requests`, `workspaces`, `pipelines` and `components`; what the
//! runner does with a job is in `attempts`, which one comes next in `queue`, and what becomes of those of a server that is gone in `nodes`; the state machine is in `state`; what is sensitive goes through `sealing`.

mod attempts;
mod components;
mod deadlines;
mod nodes;
mod pipelines;
mod queue;
mod requests;
mod schedules;
mod sealing;
mod state;
mod tally;
mod triggers;
mod unit;
mod validate;
mod webhooks;
mod workspaces;

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use jiff::tz::TimeZone;

use crate::catalogue::Catalogue;
use crate::cipher::Cipher;
use crate::error::Error;
use crate::events::Events;
use crate::metrics::Metrics;
use crate::model::{Node, Timestamp};
use crate::store::{Scope, Store};

pub use attempts::{Claim, Claimed};
pub use components::Used;
pub use deadlines::{Occasion, Recomputed};
pub use pipelines::{Defined, NewPipeline, PipelineChanges};
pub use schedules::MissedTicks;
pub use sealing::Settings;
pub use state::{Ending, Holder};
pub use validate::email as check_email;
pub use webhooks::{NewWebhook, WEBHOOK_SECRET, WebhookChanges};

use unit::Unit;

/// What the operator says about jobs.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The wait before the second attempt. It doubles with every further one, up to a minute.
    pub retry_backoff: Duration,
    /// Whether a write that expects another owner than a job has is refused.
    pub fenced: bool,
    /// How many jobs of one workspace may run at a time, if there is a limit.
    pub workspace_slots: Option<u32>,
    /// The time zone of schedules.
    pub zone: TimeZone,
    /// What becomes of ticks that came while no server was up.
    pub missed_ticks: MissedTicks,
    /// Whether webhooks may lead to private addresses.
    pub private_webhooks: bool,
    /// Whether repositories may be on the server's own disk.
    pub file_repositories: bool,
}

/// The jobs. Clones share them.
#[derive(Debug, Clone)]
pub struct Jobs {
    store: Store,
    events: Events,
    metrics: Metrics,
    catalogue: Catalogue,
    cipher: Cipher,
    rules: Rules,
    /// The server process that these are the jobs of.
    node: Node,
}

impl Jobs {
    /// The jobs in this store, for a server process.
    pub fn new(
        store: Store,
        events: Events,
        metrics: Metrics,
        catalogue: Catalogue,
        cipher: Cipher,
        rules: Rules,
        node: Node,
    ) -> Self {
        Self { store, events, metrics, catalogue, cipher, rules, node }
    }

    /// What the clock shows that jobs go by.
    pub fn now(&self) -> Timestamp {
        self.store.now()
    }

    /// Stores a change, then counts and publishes it: all, or nothing, even if the caller stops waiting.
    async fn commit<R, W>(&self, work: W) -> Result<R, Error>
    where
        W: for<'u, 'c> FnOnce(&'u mut Unit<'c>) -> BoxFuture<'u, Result<R, Error>> + Send + 'static,
        R: Send + 'static,
    {
        self.commit_to(Scope::Everything, work).await
    }

    /// The same for a change that keeps to a scope.
    async fn commit_to<R, W>(&self, scope: Scope, work: W) -> Result<R, Error>
    where
        W: for<'u, 'c> FnOnce(&'u mut Unit<'c>) -> BoxFuture<'u, Result<R, Error>> + Send + 'static,
        R: Send + 'static,
    {
        let (jobs, most_running, fenced) = (self.clone(), self.rules.workspace_slots, self.rules.fenced);
        let stored_and_published = tokio::spawn(async move {
            let write = jobs.store.write_to(scope, move |conn| {
                async move {
                    let now = conn.now().await?;
                    let (held, rings, tally) = Default::default();
                    let mut unit = Unit { conn, now, held, fenced, rings, tally };
                    let result = work(&mut unit).await?;
                    unit.settle_queues(most_running).await?;
                    Ok((result, unit.rings, unit.tally))
                }
                .boxed()
            });
            let (result, rings, tally) = write.await?;
            tally.count(&jobs.metrics); // first, so that whoever hears of it finds it counted
            jobs.events.ring(&rings);
            Ok(result)
        });
        stored_and_published.await.map_err(Error::internal)?
    }
}
