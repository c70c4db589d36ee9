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

/// A count of commits. It is raised after a commit and before anybody is told of it: what was read when it was the same as now is
/// what would be read now, as far as anybody can know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revision {
    /// Of commits that may have changed anything.
    pub everything: u64,
    /// Of those that only added to logs.
    pub logs: u64,
}

/// Counts commits. Clones share the counts.
#[derive(Debug, Clone, Default)]
pub(super) struct Revisions(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    everything: AtomicU64,
    logs: AtomicU64,
}

impl Revisions {
    /// Counts a commit.
    pub(super) fn count(&self, scope: Scope) {
        let count = match scope {
            Scope::Everything => &self.0.everything,
            Scope::Logs => &self.0.logs,
        };
        count.fetch_add(1, Ordering::SeqCst);
    }

    /// The counts as they are.
    pub(super) fn now(&self) -> Revision {
        Revision { everything: self.0.everything.load(Ordering::SeqCst), logs: self.0.logs.load(Ordering::SeqCst) }
    }
}
