//! The store's clock: the one that instants in the database come from.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::model::Timestamp;

/// A clock that never shows the same microsecond twice and never goes back, so that "newest first" is the order in
/// which things were stored, whatever happens to the machine's clock.
#[derive(Debug, Clone, Default)]
pub(super) struct Clock(Arc<AtomicI64>);

impl Clock {
    /// A moment later than every one before.
    pub(super) fn now(&self) -> Timestamp {
        let wall = Timestamp::now();
        let before =
            self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(wall.micros().max(last + 1)));
        let last = before.unwrap_or_else(|last| last);
        Timestamp::from_micros(last + 1).map_or(wall, |next| next.max(wall))
    }

    /// Never shows a moment that is not later than this one.
    pub(super) fn pass(&self, moment: Timestamp) {
        self.0.fetch_max(moment.micros(), Ordering::Relaxed);
    }
}
