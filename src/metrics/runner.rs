//! What the runner and the sweeper do.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::{Metrics, counter, gauge};

#[derive(Debug)]
pub(super) struct Runner {
    slots: Gauge,
    supervisors_started: Counter,
    supervisors_lost: Counter,
    jobs_removed: Counter,
    sweeps_failed: Counter,
}

impl Runner {
    pub(super) fn register(registry: &mut Registry) -> Self {
        Self {
            slots: gauge(registry, "jobstream_slots", "How many jobs may run at a time"),
            supervisors_started: counter(
                registry,
                "jobstream_supervisors_started",
                "Processes that were started to hold jobs: one holds many, one after the other",
            ),
            supervisors_lost: counter(
                registry,
                "jobstream_supervisors_lost",
                "Supervisors that were gone before their job had ended",
            ),
            jobs_removed: counter(
                registry,
                "jobstream_jobs_removed",
                "Deleted jobs whose rows and logs were cleared away",
            ),
            sweeps_failed: counter(
                registry,
                "jobstream_sweeps_failed",
                "How often clearing away what was deleted did not succeed",
            ),
        }
    }
}

impl Metrics {
    /// This many jobs may run at a time.
    pub fn slots_opened(&self, slots: u16) {
        self.inner.runner.slots.set(slots.into());
    }

    /// A process that holds jobs was started.
    pub fn supervisor_started(&self) {
        self.inner.runner.supervisors_started.inc();
    }

    /// A supervisor was gone before its job had ended.
    pub fn supervisor_lost(&self) {
        self.inner.runner.supervisors_lost.inc();
    }

    /// Deleted jobs were cleared away.
    pub fn jobs_removed(&self, count: usize) {
        self.inner.runner.jobs_removed.inc_by(count as u64);
    }

    /// What was deleted could not be cleared away.
    pub fn sweep_failed(&self) {
        self.inner.runner.sweeps_failed.inc();
    }
}
