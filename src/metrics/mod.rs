//! What the server counts of itself, and how Prometheus reads it.
//!
//! Whoever does something tells [`Metrics`] what has happened (`metrics.job_ended(&job)`); which families that moves, and under which
//! labels, is decided here, a subject to each file. A label's value is one of an enum (`labels`), a route of the router or a status, so no client can make
//! new series. What is counted often has its handle looked up beforehand: counting is then an atomic add.
//!
//! What is not counted but is so at a moment, such as the length of the queue, is read when somebody asks (`present`). Names follow the
//! conventions of Prometheus, the text is that of OpenMetrics.

mod connections;
mod database;
mod graphql;
mod http;
mod jobs;
mod labels;
mod open;
mod present;
mod process;
mod runner;
mod webhooks;

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

pub use labels::{ConnectionRefusal, DatabaseOperation, DeliveryOutcome, Method, OperationType};
pub use open::Open;
pub use present::{DatabaseUsage, DiskUsage, Present, Queue};

/// The media type of [`Metrics::expose`].
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What is counted. Clones count together.
#[derive(Debug, Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    registry: Registry,
    http: http::Http,
    graphql: graphql::GraphQl,
    connections: connections::Connections,
    jobs: jobs::Jobs,
    runner: runner::Runner,
    database: database::Database,
    webhooks: webhooks::Webhooks,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("jobstream_build", "The version of the server", build);
        let http = http::Http::register(&mut registry);
        let graphql = graphql::GraphQl::register(&mut registry);
        let connections = connections::Connections::register(&mut registry);
        let jobs = jobs::Jobs::register(&mut registry);
        let runner = runner::Runner::register(&mut registry);
        let database = database::Database::register(&mut registry);
        let webhooks = webhooks::Webhooks::register(&mut registry);
        let inner = Inner { registry, http, graphql, connections, jobs, runner, database, webhooks };
        Self { inner: Arc::new(inner) }
    }
}

impl Metrics {
    /// Everything as text for Prometheus: what was counted, what is `present`, and what `/proc` says of this process.
    pub fn expose(&self, present: &Present) -> Result<String, fmt::Error> {
        let mut exposition = String::with_capacity(32 * 1024);
        text::encode_registry(&mut exposition, &self.inner.registry)?;
        text::encode_registry(&mut exposition, &present.registry())?;
        text::encode_registry(&mut exposition, &process::registry())?;
        text::encode_eof(&mut exposition)?;
        Ok(exposition)
    }
}

/// A family of histograms with buckets of its own.
type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

fn counter(registry: &mut Registry, name: &str, help: &str) -> Counter {
    let counter = Counter::default();
    registry.register(name, help, counter.clone());
    counter
}

fn gauge(registry: &mut Registry, name: &str, help: &str) -> Gauge {
    let gauge = Gauge::default();
    registry.register(name, help, gauge.clone());
    gauge
}

/// Counters by labels. Those that are named are there from the start, at 0, so that the first event is seen as an increase.
fn counters<L>(
    registry: &mut Registry,
    name: &str,
    help: &str,
    labels: impl IntoIterator<Item = L>,
) -> Family<L, Counter>
where
    L: Clone + fmt::Debug + Hash + Eq + EncodeLabelSet + Send + Sync + 'static,
{
    let family = Family::<L, Counter>::default();
    for labels in labels {
        drop(family.get_or_create(&labels));
    }
    registry.register(name, help, family.clone());
    family
}

fn histograms<L>(registry: &mut Registry, name: &str, help: &str, new: fn() -> Histogram) -> Histograms<L>
where
    L: Clone + fmt::Debug + Hash + Eq + EncodeLabelSet + Send + Sync + 'static,
{
    let family = Histograms::<L>::new_with_constructor(new);
    registry.register(name, help, family.clone());
    family
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(metrics: &Metrics, line: &str) -> bool {
        metrics.expose(&Present::default()).is_ok_and(|text| text.lines().any(|it| it == line))
    }

    #[test]
    fn what_is_open_is_counted_until_its_guard_is_dropped() {
        let metrics = Metrics::default();
        let (one, other) = (metrics.subscription_opened(), metrics.clone().subscription_opened());
        assert!(has(&metrics, "jobstream_subscriptions_open 2"));
        drop(one);
        assert!(has(&metrics, "jobstream_subscriptions_open 1"));
        drop(other);
        assert!(has(&metrics, "jobstream_subscriptions_open 0"));
    }

    #[test]
    fn a_refusal_is_counted_by_type_and_by_code() {
        let metrics = Metrics::default();
        metrics.operation_refused(OperationType::Mutation, "LIMIT_EXCEEDED");
        metrics.operation_answered(OperationType::Mutation, true);
        assert!(has(&metrics, r#"jobstream_graphql_refusals_total{code="LIMIT_EXCEEDED"} 1"#));
        assert!(has(&metrics, r#"jobstream_graphql_operations_total{type="mutation",outcome="refused"} 1"#));
        assert!(has(&metrics, r#"jobstream_graphql_operations_total{type="mutation",outcome="error"} 1"#));
    }

    #[test]
    fn what_the_list_of_codes_does_not_have_is_counted_as_other() {
        let metrics = Metrics::default();
        metrics.subscription_refused("said by a client");
        metrics.websocket_closed(Some(4999));
        metrics.websocket_closed(Some(1012));
        metrics.websocket_closed(None);
        assert!(has(&metrics, r#"jobstream_subscriptions_refused_total{code="other"} 1"#));
        for code in ["other", "1012", "1006"] {
            assert!(has(&metrics, &format!("jobstream_websocket_closes_total{{code=\"{code}\"}} 1")), "{code}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_left_out() {
        let exposition = Metrics::default().expose(&Present::default()).unwrap_or_default();
        assert!(exposition.contains("\njobstream_database_up 0\n") && exposition.ends_with("# EOF\n"));
        assert!(!exposition.contains("jobstream_queue_length") && !exposition.contains("_disk_free_bytes"));
    }
}
