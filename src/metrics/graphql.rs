//! GraphQL operations and subscriptions.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::labels::{CacheResult, Code, OperationType, Outcome};
use super::{Metrics, Open, counter, counters, gauge};

#[derive(Debug)]
pub(super) struct GraphQl {
    operations: Family<Operation, Counter>,
    refusals: Family<ByCode, Counter>,
    cache_lookups: Family<ByResult, Counter>,
    subscriptions: Gauge,
    subscriptions_refused: Family<ByCode, Counter>,
    executions: Gauge,
    lags: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    r#type: OperationType,
    outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByCode {
    code: Code,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByResult {
    result: CacheResult,
}

impl GraphQl {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let of_type = |r#type| Outcome::ALL.iter().map(move |&outcome| Operation { r#type, outcome });
        let codes = || Code::ALL.iter().map(|&code| ByCode { code });
        Self {
            operations: counters(
                registry,
                "jobstream_graphql_operations",
                "GraphQL operations, by type and outcome: error is an answer that has errors, refused was not carried out",
                OperationType::ALL.iter().copied().flat_map(of_type),
            ),
            refusals: counters(
                registry,
                "jobstream_graphql_refusals",
                "GraphQL operations that were not carried out, by the code of the error",
                codes(),
            ),
            cache_lookups: counters(
                registry,
                "jobstream_graphql_answer_cache_lookups",
                "Queries whose answer was looked for in the cache, by whether it was there",
                CacheResult::ALL.iter().map(|&result| ByResult { result }),
            ),
            subscriptions: gauge(registry, "jobstream_subscriptions_open", "Subscriptions that are open"),
            subscriptions_refused: counters(
                registry,
                "jobstream_subscriptions_refused",
                "Subscriptions that were refused, by the code of the error",
                codes(),
            ),
            executions: gauge(
                registry,
                "jobstream_subscription_executions",
                "Distinct subscriptions that are executed: identical ones share one execution",
            ),
            lags: counter(
                registry,
                "jobstream_subscription_lags",
                "How often a subscriber fell behind and read again from the database",
            ),
        }
    }
}

impl Metrics {
    /// An operation was carried out, with or without errors in its answer.
    pub fn operation_answered(&self, r#type: OperationType, has_errors: bool) {
        let outcome = if has_errors { Outcome::Error } else { Outcome::Ok };
        self.inner.graphql.operations.get_or_create(&Operation { r#type, outcome }).inc();
    }

    /// An operation was not carried out; `code` is that of the error.
    pub fn operation_refused(&self, r#type: OperationType, code: &str) {
        let graphql = &self.inner.graphql;
        graphql.operations.get_or_create(&Operation { r#type, outcome: Outcome::Refused }).inc();
        graphql.refusals.get_or_create(&ByCode { code: Code::named(code) }).inc();
    }

    /// The answer to a query was looked for in the cache.
    pub fn answer_looked_up(&self, found: bool) {
        let result = if found { CacheResult::Hit } else { CacheResult::Miss };
        self.inner.graphql.cache_lookups.get_or_create(&ByResult { result }).inc();
    }

    /// A subscription is open for as long as the guard is kept.
    pub fn subscription_opened(&self) -> Open {
        Open::counted_by(&self.inner.graphql.subscriptions)
    }

    /// A subscription was refused; `code` is that of the error.
    pub fn subscription_refused(&self, code: &str) {
        self.inner.graphql.subscriptions_refused.get_or_create(&ByCode { code: Code::named(code) }).inc();
    }

    /// An execution that identical subscriptions share runs for as long as the guard is kept.
    pub fn execution_started(&self) -> Open {
        Open::counted_by(&self.inner.graphql.executions)
    }

    /// A subscriber fell behind, and reads again what it has missed.
    pub fn subscriber_lagged(&self) {
        self.inner.graphql.lags.inc();
    }
}
