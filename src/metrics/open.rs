//! Counting what is open.

use prometheus_client::metrics::gauge::Gauge;

/// Something that is open, and counted as such until this is dropped.
#[derive(Debug)]
#[must_use = "it is counted as open only while this is kept"]
pub struct Open(Gauge);

impl Open {
    /// One more of what this gauge counts.
    pub(super) fn counted_by(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
