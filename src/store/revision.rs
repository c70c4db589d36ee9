//! How often what is stored has changed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a unit of work may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Anything.
    Everything,
    /// Lines are added to logs; no list, and no field of anything, shows a difference.
    Logs,
}

/// How often commits have begun and ended. What was read while a settled revision stood is what would be read at any moment at which it
/// stands: nothing has been committed since, and nobody can have seen what is being committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revision {
    everything: u64,
    logs: u64,
}

impl Revision {
    /// Of a database about which it is not known: never settled.
    pub(super) const UNKNOWN: Self = Self { everything: 1, logs: 1 };

    /// Whether nothing of these is being committed: from the beginning of a commit on, some may see it and others not yet.
    pub fn is_settled(self, with_logs: bool) -> bool {
        self.everything.is_multiple_of(2) && (!with_logs || self.logs.is_multiple_of(2))
    }

    /// Whether nothing of these has been committed between the two.
    pub fn is_same(self, other: Self, with_logs: bool) -> bool {
        self.everything == other.everything && (!with_logs || self.logs == other.logs)
    }
}

/// Counts commits. Clones share the counts.
#[derive(Debug, Clone, Default)]
pub(super) struct Revisions(Arc<Counts>);

/// Odd while something is being committed.
#[derive(Debug, Default)]
struct Counts {
    everything: AtomicU64,
    logs: AtomicU64,
}

impl Revisions {
    /// A commit begins or ends that may change these. It has to be told before it begins, and, after it has ended in whatever way,
    /// before anybody hears of that.
    pub(super) fn turn(&self, scopes: &[Scope]) {
        for (scope, count) in [(Scope::Everything, &self.0.everything), (Scope::Logs, &self.0.logs)] {
            if scopes.contains(&scope) {
                count.fetch_add(1, Ordering::SeqCst);
            }
        }
    }

    /// The counts as they are.
    pub(super) fn now(&self) -> Revision {
        Revision { everything: self.0.everything.load(Ordering::SeqCst), logs: self.0.logs.load(Ordering::SeqCst) }
    }
}
