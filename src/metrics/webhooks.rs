//! What becomes of deliveries to webhooks.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::labels::DeliveryOutcome;
use super::{Metrics, counters};

#[derive(Debug)]
pub(super) struct Webhooks {
    deliveries: Family<ByOutcome, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    outcome: DeliveryOutcome,
}

impl Webhooks {
    pub(super) fn register(registry: &mut Registry) -> Self {
        Self {
            deliveries: counters(
                registry,
                "jobstream_webhook_deliveries",
                "Tries to deliver something to a webhook, by what came of them",
                DeliveryOutcome::ALL.iter().map(|&outcome| ByOutcome { outcome }),
            ),
        }
    }
}

impl Metrics {
    /// It was tried to deliver something to a webhook.
    pub fn delivery_tried(&self, outcome: DeliveryOutcome) {
        self.inner.webhooks.deliveries.get_or_create(&ByOutcome { outcome }).inc();
    }
}
