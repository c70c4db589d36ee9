//! The store's clock: the one that instants in the database come from. SQLite's is this machine's,
//! PostgreSQL has its own.
//!
//! The clock is read as it is, also after somebody has set it: an instant that is held back, or
//! ahead, would be wrong in every list and in every duration. Each reading is compared with the
//! time since the machine's boot, which nobody sets. So a jump is noticed by whoever reads first.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::model::{BootTime, Timestamp};

/// The clock has jumped if it differs by more than this from what it should show.
const JUMP: Duration = Duration::from_secs(5);
/// A reading that took longer than this says too little about when it was made.
const LONGEST_READING: Duration = Duration::from_secs(1);
/// How many jumps wait for [`Clock::next_jump`]. Older ones are forgotten.
const MOST_JUMPS: usize = 16;

/// A clock that somebody can set. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    state: Arc<Mutex<State>>,
    jumped: Arc<Notify>,
}

/// A jump of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Jump {
    /// What the clock would have shown.
    pub expected: Timestamp,
    /// What it showed.
    pub shown: Timestamp,
}

#[derive(Debug, Default)]
struct State {
    reading: Option<Reading>,
    latest_jump: Option<BootTime>,
    jumps: Vec<Jump>,
}

/// The latest reading.
#[derive(Debug, Clone, Copy)]
struct Reading {
    asked: BootTime,
    /// What the clock would have shown at the machine's boot, in microseconds since 1970.
    at_boot: i64,
}

impl Clock {
    /// Reads this machine's clock.
    pub(super) fn read(&self) -> Timestamp {
        let asked = BootTime::now();
        let shown = Timestamp::now();
        self.was_read(asked, BootTime::now(), shown);
        shown
    }

    /// Another machine's clock has shown this, between its being asked and now.
    pub(super) fn has_shown(&self, asked: BootTime, shown: Timestamp) {
        self.was_read(asked, BootTime::now(), shown);
    }

    /// What the clock shows now, as far as its latest reading tells.
    pub(super) fn now(&self) -> Timestamp {
        let since_boot = BootTime::now().micros();
        let reading = self.lock().reading;
        reading.and_then(|it| Timestamp::from_micros(it.at_boot + since_boot)).unwrap_or_else(Timestamp::now)
    }

    /// Whether the clock has jumped within this time.
    pub fn has_jumped_within(&self, time: Duration) -> bool {
        self.lock().latest_jump.is_some_and(|at| at.elapsed() < time)
    }

    /// Waits until the clock jumps. No jump is missed, but of very many the oldest.
    pub async fn next_jump(&self) -> Jump {
        loop {
            let notified = self.jumped.notified();
            if let Some(jump) = self.take_jump() {
                return jump;
            }
            notified.await;
        }
    }

    fn take_jump(&self) -> Option<Jump> {
        let mut state = self.lock();
        (!state.jumps.is_empty()).then(|| state.jumps.remove(0))
    }

    fn was_read(&self, asked: BootTime, answered: BootTime, shown: Timestamp) {
        if answered.since(asked) > LONGEST_READING {
            return;
        }
        let at_boot = shown.micros() - asked.micros().midpoint(answered.micros());
        let mut state = self.lock();
        // Answers may come in another order than they were asked for.
        if state.reading.is_some_and(|it| asked < it.asked) {
            return;
        }
        let by = state.reading.replace(Reading { asked, at_boot }).map_or(0, |before| at_boot - before.at_boot);
        if by.unsigned_abs() <= JUMP.as_micros() as u64 {
            return;
        }
        let expected = Timestamp::from_micros(shown.micros().saturating_sub(by)).unwrap_or(shown);
        state.latest_jump = Some(answered);
        if state.jumps.len() == MOST_JUMPS {
            state.jumps.remove(0);
        }
        state.jumps.push(Jump { expected, shown });
        drop(state);
        self.jumped.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(clock: &Clock, at_second: u64, shown: &str) {
        let at = BootTime::after(Duration::from_secs(at_second));
        clock.was_read(at, at, shown.parse().unwrap());
    }

    #[test]
    fn a_clock_that_goes_on_has_not_jumped() {
        let clock = Clock::default();
        read(&clock, 10, "2026-11-28T12:00:00Z");
        read(&clock, 20, "2026-11-28T12:00:11Z");
        read(&clock, 3620, "2026-11-28T13:00:09Z");
        assert_eq!(clock.take_jump(), None);
    }

    #[test]
    fn a_jump_is_noticed_in_both_directions() {
        let clock = Clock::default();
        read(&clock, 10, "2026-11-28T12:00:00Z");
        read(&clock, 20, "2028-01-02T12:00:10Z");
        read(&clock, 34, "2026-11-28T12:00:24Z");
        let jump = |expected: &str, shown: &str| {
            Some(Jump { expected: expected.parse().unwrap(), shown: shown.parse().unwrap() })
        };
        assert_eq!(clock.take_jump(), jump("2026-11-28T12:00:10Z", "2028-01-02T12:00:10Z"));
        assert_eq!(clock.take_jump(), jump("2028-01-02T12:00:24Z", "2026-11-28T12:00:24Z"));
        assert_eq!(clock.take_jump(), None);
    }

    #[test]
    fn an_answer_that_comes_late_is_not_a_jump() {
        let clock = Clock::default();
        read(&clock, 10, "2026-11-28T12:00:00Z");
        let at = |second| BootTime::after(Duration::from_secs(second));
        clock.was_read(at(20), at(40), "2026-11-28T12:00:10Z".parse().unwrap());
        assert_eq!(clock.take_jump(), None);
        // Nor is one that was asked for before the jump, and heard after it.
        read(&clock, 50, "2026-11-28T13:00:40Z");
        read(&clock, 49, "2026-11-28T12:00:39Z");
        assert!(clock.take_jump().is_some() && clock.take_jump().is_none());
    }

    #[test]
    fn it_shows_what_it_was_read_to_show() {
        let clock = Clock::default();
        let day = Duration::from_secs(24 * 3600);
        clock.has_shown(BootTime::now(), Timestamp::now() + day);
        assert!(clock.now().since(Timestamp::now() + day) < Duration::from_secs(1));
        assert!((Timestamp::now() + day).since(clock.now()) < Duration::from_secs(1));
    }
}
