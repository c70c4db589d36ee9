//! Webhooks: tells whoever has asked for it, outside of the server, what happens.
//!
//! What is to be told is stored with the change that it tells of, so nothing that is acknowledged goes untold. A delivery is taken by putting it
//! off for as long as a try may take: if the server dies with it, it is tried again. So one may arrive twice, which its id tells.

mod sender;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::Semaphore;

use crate::error::Error;
use crate::events::Events;
use crate::jobs::Jobs;
use crate::metrics::{DeliveryOutcome, Metrics};
use crate::model::{Delivery, Webhook, WebhookId};
use crate::store::Store;

use sender::{Answer, Sender};

/// How long it waits at most before it looks again, whatever the bell says.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// How many deliveries are on their way at a time,
const AT_ONCE: usize = 32;
/// and of those, to one webhook: one that is slow does not hold up the others.
const AT_ONCE_TO_ONE: usize = 4;
/// How long a delivery that was taken is nobody else's: longer than a try takes.
const TAKEN: Duration = Duration::from_secs(30);
/// The longest wait between two tries.
const LONGEST_BACKOFF: Duration = Duration::from_secs(3600);

/// How webhooks are told.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Webhooks")]
pub struct WebhookOptions {
    /// Lets webhooks lead to private addresses, such as this machine's own. Without it they are refused: a webhook is a way into the network that the
    /// server is in.
    #[arg(long, env = "JOBSTREAM_ALLOW_PRIVATE_WEBHOOKS")]
    pub allow_private_webhooks: bool,

    /// The wait before a delivery that failed is tried again. It doubles with every further try, up to an hour.
    #[arg(long, env = "JOBSTREAM_WEBHOOK_BACKOFF", value_name = "SECONDS", default_value = "5", value_parser = crate::config::seconds)]
    pub webhook_backoff: Duration,

    /// How long it is tried to deliver something. Then it is given up.
    #[arg(long, env = "JOBSTREAM_WEBHOOK_RETRY_FOR", value_name = "SECONDS", default_value = "259200", value_parser = crate::config::seconds)]
    pub webhook_retry_for: Duration,
}

impl WebhookOptions {
    /// How long a delivery that has failed after so many others waits at most.
    fn longest_backoff(&self, attempt: i32) -> Duration {
        let doublings = u32::try_from(attempt).unwrap_or(0).min(20);
        self.webhook_backoff.saturating_mul(1 << doublings).min(LONGEST_BACKOFF)
    }

    /// How long a delivery waits at most after 0, 1, 2 … tries; the last is so for more tries too.
    /// At any time it may be on its way.
    pub fn longest_waits(&self) -> Vec<Duration> {
        let waits = (0..20).map(|tries| self.longest_backoff(tries).max(TAKEN));
        std::iter::once(TAKEN).chain(waits).collect()
    }
}

/// Delivers to webhooks.
#[derive(Debug, Clone)]
pub struct Webhooks {
    store: Store,
    jobs: Jobs,
    events: Events,
    metrics: Metrics,
    options: WebhookOptions,
    sender: Sender,
    /// How many deliveries are on their way to each.
    under_way: Arc<Mutex<HashMap<WebhookId, usize>>>,
}

impl Webhooks {
    /// Delivers to the webhooks in this store.
    pub fn new(
        store: Store,
        jobs: Jobs,
        events: Events,
        metrics: Metrics,
        options: WebhookOptions,
    ) -> Result<Self, Error> {
        let sender = Sender::new(options.allow_private_webhooks)?;
        Ok(Self { store, jobs, events, metrics, options, sender, under_way: Arc::default() })
    }

    /// Delivers until it is dropped.
    pub async fn run(self) {
        let mut bell = self.events.deliveries();
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        loop {
            let Ok(turn) = Arc::clone(&turns).acquire_owned().await else { return };
            match self.take().await {
                Ok(Taken::Delivery(webhook, delivery, position)) => {
                    let webhooks = self.clone();
                    tokio::spawn(async move {
                        webhooks.deliver(&webhook, delivery, position).await;
                        webhooks.leave(webhook.id);
                        drop(turn);
                    });
                    continue;
                }
                Ok(Taken::Nothing(wait)) => {
                    drop(turn);
                    tokio::select! {
                        () = bell.rung() => {}
                        () = tokio::time::sleep(wait.unwrap_or(LOOK_AGAIN).min(LOOK_AGAIN)) => {}
                    }
                }
                Err(error) => {
                    tracing::error!(error = ?error, "what webhooks are to be told cannot be read; trying again");
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
            }
        }
    }

    /// Takes the delivery that is due first.
    async fn take(&self) -> Result<Taken, Error> {
        let busy: Vec<WebhookId> =
            self.lock().iter().filter(|(_, count)| **count >= AT_ONCE_TO_ONE).map(|(id, _)| *id).collect();
        // Most of the time nothing is due, which is seen without a write.
        let (first, any_busy) = (self.store.read(|conn| conn.next_delivery().boxed()).await?, !busy.is_empty());
        let Some(first) = first else { return Ok(Taken::Nothing(None)) };
        let taken = self.store.write(move |conn| {
            async move {
                let now = conn.now().await?;
                let Some((webhook, delivery, position)) = conn.due_delivery(now, &busy).await? else {
                    // Those that are due go to somebody busy, who rings when that has changed.
                    return Ok(Taken::Nothing(Some(first.since(now)).filter(|wait| !wait.is_zero() || !any_busy)));
                };
                conn.put_off_delivery(delivery.id, delivery.attempt, now + TAKEN).await?;
                Ok(Taken::Delivery(Box::new(webhook), delivery, position))
            }
            .boxed()
        });
        let taken = taken.await?;
        if let Taken::Delivery(webhook, ..) = &taken {
            *self.lock().entry(webhook.id).or_default() += 1;
        }
        Ok(taken)
    }

    fn leave(&self, webhook: WebhookId) {
        let mut under_way = self.lock();
        if let Some(count) = under_way.get_mut(&webhook) {
            *count -= 1;
            if *count == 0 {
                under_way.remove(&webhook);
            }
        }
        drop(under_way);
        self.events.ring(&crate::events::Rings { deliveries: true, ..Default::default() });
    }

    async fn deliver(&self, webhook: &Webhook, delivery: Delivery, position: Option<i64>) {
        let answer = match self.jobs.webhook_secret(webhook) {
            Ok(secret) => self.sender.send(webhook, &delivery, position, &secret).await,
            Err(error) => {
                tracing::error!(webhook = %webhook.id, detail = ?error.detail(), "the secret of a webhook cannot be opened");
                Answer::Failed("The webhook's secret cannot be opened.".to_owned())
            }
        };
        let age = self.store.now().since(delivery.created);
        let outcome = match &answer {
            Answer::Arrived => DeliveryOutcome::Arrived,
            // After a jump of the clock nobody knows how old it is.
            Answer::Failed(_)
                if age < self.options.webhook_retry_for || self.store.clock().has_jumped_within(LONGEST_BACKOFF) =>
            {
                DeliveryOutcome::Failed
            }
            Answer::Failed(_) | Answer::Unwanted(_) => DeliveryOutcome::GivenUp,
        };
        self.metrics.delivery_tried(outcome);
        if let (DeliveryOutcome::GivenUp, Answer::Failed(why) | Answer::Unwanted(why)) = (outcome, &answer) {
            tracing::warn!(webhook = %webhook.id, delivery = %delivery.id, why, "a delivery is given up");
        }
        let (id, attempt, wait) = (webhook.id, delivery.attempt + 1, self.backoff(delivery.attempt));
        let noted = self.store.write(move |conn| {
            async move {
                let now = conn.now().await?;
                match answer {
                    Answer::Arrived => conn.note_success(id, now).await?,
                    Answer::Failed(why) | Answer::Unwanted(why) => conn.note_failure(id, now, &why).await?,
                }
                match outcome {
                    DeliveryOutcome::Failed => conn.put_off_delivery(delivery.id, attempt, now + wait).await,
                    DeliveryOutcome::Arrived | DeliveryOutcome::GivenUp => conn.remove_delivery(delivery.id).await,
                }
            }
            .boxed()
        });
        if let Err(error) = noted.await {
            tracing::error!(webhook = %webhook.id, error = ?error, "what came of a delivery cannot be stored; it is tried again");
        }
    }

    /// Somewhere between half of the wait and all of it, so that what failed together does not come back together.
    fn backoff(&self, attempt: i32) -> Duration {
        let longest = self.options.longest_backoff(attempt);
        let share = u32::from(uuid::Uuid::new_v4().as_bytes()[0]);
        longest / 2 + longest * share / 512
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<WebhookId, usize>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What there is to deliver.
enum Taken {
    /// And the position of what it tells of.
    Delivery(Box<Webhook>, Delivery, Option<i64>),
    /// Nothing for so long, if it is known how long.
    Nothing(Option<Duration>),
}
