//! HTTP requests.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::labels::Method;
use super::{Histograms, Metrics, counters, histograms};

const SECONDS: [f64; 13] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

#[derive(Debug)]
pub(super) struct Http {
    requests: Family<Answer, Counter>,
    duration: Histograms<Endpoint>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answer {
    route: String,
    method: Method,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Endpoint {
    route: String,
    method: Method,
}

impl Http {
    pub(super) fn register(registry: &mut Registry) -> Self {
        Self {
            requests: counters(
                registry,
                "jobstream_http_requests",
                "HTTP requests that were answered, by route, method and status",
                [],
            ),
            duration: histograms(
                registry,
                "jobstream_http_request_duration_seconds",
                "How long it took until the head of the answer was ready, by route and method",
                || Histogram::new(SECONDS),
            ),
        }
    }
}

impl Metrics {
    /// A request was answered with this status. `route` is the router's pattern, none where no route has the path.
    pub fn request_answered(&self, route: Option<&str>, method: Method, status: u16, took: Duration) {
        let http = &self.inner.http;
        let route = route.unwrap_or("unmatched");
        let endpoint = Endpoint { route: route.to_owned(), method };
        http.duration.get_or_create(&endpoint).observe(took.as_secs_f64());
        http.requests.get_or_create(&Answer { route: endpoint.route, method, status }).inc();
    }
}
