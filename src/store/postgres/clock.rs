//! The database's clock, for moments that it is not asked for: it may differ from this machine's.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use crate::model::Timestamp;

/// How far the database's clock is ahead of this machine's, in microseconds, as it was when it was looked at last. Clones share it.
#[derive(Debug, Clone, Default)]
pub(in crate::store) struct Skew(Arc<AtomicI64>);

impl Skew {
    /// The database has just shown this moment.
    pub(in crate::store) fn note(&self, shown: Timestamp) {
        self.0.store(shown.micros() - Timestamp::now().micros(), Ordering::Relaxed);
    }

    /// What the database's clock shows now, but for the time that its answers take.
    pub(super) fn now(&self) -> Timestamp {
        let (own, ahead) = (Timestamp::now(), self.0.load(Ordering::Relaxed));
        let distance = Duration::from_micros(ahead.unsigned_abs());
        if ahead < 0 { own - distance } else { own + distance }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_the_database_in_both_directions() {
        let skew = Skew::default();
        for seconds in [3600, 0] {
            let hour = Duration::from_secs(seconds);
            skew.note(Timestamp::now() + hour);
            assert!(skew.now().since(Timestamp::now() + hour) < Duration::from_secs(1));
            skew.note(Timestamp::now() - hour);
            assert!((Timestamp::now() - hour).since(skew.now()) < Duration::from_secs(1));
        }
    }
}
