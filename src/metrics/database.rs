//! The database, as its callers see it.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::labels::DatabaseOperation;
use super::{Histograms, Metrics, counter, counters, histograms};

const SECONDS: [f64; 16] =
    [0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

#[derive(Debug)]
pub(super) struct Database {
    reads: Handles,
    writes: Handles,
    statements: Counter,
    clock_jumps: Counter,
}

/// What is counted of one operation.
#[derive(Debug)]
struct Handles {
    duration: Histogram,
    errors: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOperation {
    operation: DatabaseOperation,
}

impl Database {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let duration: Histograms<ByOperation> = histograms(
            registry,
            "jobstream_database_duration_seconds",
            "How long the caller of a read or a write waited for it, its turn included",
            || Histogram::new(SECONDS),
        );
        let errors = counters(
            registry,
            "jobstream_database_errors",
            "Reads and writes that the database did not carry out",
            DatabaseOperation::ALL.iter().map(|&operation| ByOperation { operation }),
        );
        let handles = |operation| Handles {
            duration: duration.get_or_create_owned(&ByOperation { operation }),
            errors: errors.get_or_create_owned(&ByOperation { operation }),
        };
        Self {
            reads: handles(DatabaseOperation::Read),
            writes: handles(DatabaseOperation::Write),
            statements: counter(
                registry,
                "jobstream_database_statements",
                "SQL statements that were run, without those that begin and end transactions",
            ),
            clock_jumps: counter(
                registry,
                "jobstream_clock_jumps",
                "Jumps of the clock that jobs go by, by more than 5 seconds",
            ),
        }
    }

    fn of(&self, operation: DatabaseOperation) -> &Handles {
        match operation {
            DatabaseOperation::Read => &self.reads,
            DatabaseOperation::Write => &self.writes,
        }
    }
}

impl Metrics {
    /// A read or a write has ended, for its caller.
    pub fn database_used(&self, operation: DatabaseOperation, took: Duration) {
        self.inner.database.of(operation).duration.observe(took.as_secs_f64());
    }

    /// The database did not carry out a read or a write.
    pub fn database_failed(&self, operation: DatabaseOperation) {
        self.inner.database.of(operation).errors.inc();
    }

    /// The database's clock has jumped.
    pub fn clock_jumped(&self) {
        self.inner.database.clock_jumps.inc();
    }

    /// A statement was run.
    pub fn statement_run(&self) {
        self.inner.database.statements.inc();
    }
}
