//! What is so at the moment: read when somebody asks, and left out where it cannot be read.

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;

use crate::model::{JobStatus, JobType};

/// What is so at the moment, as far as it can be told.
#[derive(Debug, Clone, Default)]
pub struct Present {
    /// The jobs that have not ended.
    pub queue: Option<Queue>,
    /// What the database takes of its disk.
    pub database: Option<DatabaseUsage>,
}

/// The jobs that have not ended.
#[derive(Debug, Clone, Default)]
pub struct Queue {
    /// How many there are of each type and status; those of which there are none may be missing.
    pub active: Vec<(JobType, JobStatus, i64)>,
    /// How long ago the oldest job that waits only for its turn was queued, or its wait before another try was over.
    pub oldest_ready: Option<Duration>,
}

/// What a database takes of its disk.
#[derive(Debug, Clone, Copy)]
pub struct DatabaseUsage {
    /// All that is stored.
    pub bytes: u64,
    /// What only a database on this machine's disk tells.
    pub disk: Option<DiskUsage>,
}

/// What the embedded database takes of this machine's disk beside its file.
#[derive(Debug, Clone, Copy)]
pub struct DiskUsage {
    /// Its write-ahead log.
    pub wal_bytes: u64,
    /// What is free on the file system that both are on.
    pub free_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Active {
    r#type: JobType,
    status: JobStatus,
}

impl Present {
    pub(super) fn registry(&self) -> Registry {
        let mut registry = Registry::default();
        let up = ConstGauge::new(i64::from(self.queue.is_some()));
        registry.register("jobstream_database_up", "Whether the database could be read just now", up);
        if let Some(queue) = &self.queue {
            queue.register(&mut registry);
        }
        if let Some(database) = &self.database {
            constant(&mut registry, "jobstream_database_size_bytes", "The size of the database", database.bytes);
            database.disk.iter().for_each(|disk| disk.register(&mut registry));
        }
        registry
    }
}

impl Queue {
    fn register(&self, registry: &mut Registry) {
        let jobs = Family::<Active, Gauge>::default();
        for &r#type in JobType::ALL {
            for status in JobStatus::ACTIVE {
                jobs.get_or_create(&Active { r#type, status }).set(self.count(r#type, status));
            }
        }
        let runnable = JobType::ALL.iter().filter(|it| !JobType::USER_TASKS.contains(it));
        let length: i64 = runnable.map(|&r#type| self.count(r#type, JobStatus::Queued)).sum();
        let oldest = self.oldest_ready.unwrap_or_default().as_secs_f64();
        registry.register("jobstream_jobs", "Jobs that have not ended, by type and status", jobs);
        constant(registry, "jobstream_queue_length", "Jobs that wait for a runner", length);
        constant(
            registry,
            "jobstream_queue_oldest_age_seconds",
            "How long ago the oldest job that waits only for its turn was queued, or its wait before another try was over: 0 if none does",
            oldest,
        );
    }

    fn count(&self, r#type: JobType, status: JobStatus) -> i64 {
        let counts = self.active.iter().filter(|(it, its, _)| (*it, *its) == (r#type, status));
        counts.map(|(_, _, count)| count).sum()
    }
}

impl DiskUsage {
    fn register(&self, registry: &mut Registry) {
        constant(
            registry,
            "jobstream_database_wal_size_bytes",
            "The size of the database's write-ahead log",
            self.wal_bytes,
        );
        constant(
            registry,
            "jobstream_database_disk_free_bytes",
            "What is free on the file system of the database",
            self.free_bytes,
        );
    }
}

/// A gauge that is not changed any more.
pub(super) fn constant<N>(registry: &mut Registry, name: &str, help: &str, value: N)
where
    ConstGauge<N>: EncodeMetric,
    N: std::fmt::Debug + Send + Sync + 'static,
{
    registry.register(name, help, ConstGauge::new(value));
}
