//! The store's clock: the one that instants in the database come from.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use crate::model::Timestamp;

/// A clock that never shows the same microsecond twice and never goes back, so that "newest first" is the order in which things
/// were stored, whatever happens to the machine's clock: if that is set back, this one goes on from where it was.
#[derive(Debug, Clone)]
pub(in crate::store) struct Clock {
    began: Instant,
    /// What it showed when it began, in microseconds since 1970.
    base: Arc<AtomicI64>,
    last: Arc<AtomicI64>,
}

impl Default for Clock {
    fn default() -> Self {
        Self { began: Instant::now(), base: Arc::new(Timestamp::now().micros().into()), last: Arc::default() }
    }
}

impl Clock {
    /// A moment later than every one before.
    pub(in crate::store) fn now(&self) -> Timestamp {
        let wall = Timestamp::now();
        let now = wall.micros().max(self.base.load(Ordering::Relaxed) + self.elapsed());
        let before = self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(now.max(last + 1)));
        let last = before.unwrap_or_else(|last| last);
        Timestamp::from_micros(now.max(last + 1)).unwrap_or(wall)
    }

    /// Goes on from this moment, if it is later than what the clock shows.
    pub(super) fn pass(&self, moment: Timestamp) {
        self.base.fetch_max(moment.micros() - self.elapsed(), Ordering::Relaxed);
    }

    fn elapsed(&self) -> i64 {
        i64::try_from(self.began.elapsed().as_micros()).unwrap_or(i64::MAX)
    }
}
