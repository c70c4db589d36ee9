//! How far a subscription is: what its resolver and whoever carries it out tell each other.

use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The progress of one execution. Clones share it; one of them is among what the resolver can ask its context for.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    from: Option<i64>,
    live: bool,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    /// The newest event is what comes next after one of these positions,
    after: RangeInclusive<i64>,
    /// and leads to this one.
    to: i64,
    /// All that is stored has been told, up to here.
    caught_up: Option<i64>,
}

impl Progress {
    /// Of an execution that tells what is stored, then ends: from where the arguments say, or from a position.
    pub(super) fn replay(from: Option<i64>) -> Self {
        Self::new(from, false)
    }

    /// Of an execution that goes on from a position, and waits for more.
    pub(super) fn live(from: i64) -> Self {
        Self::new(Some(from), true)
    }

    fn new(from: Option<i64>, live: bool) -> Self {
        let start = from.unwrap_or(0);
        Self { from, live, state: Arc::new(Mutex::new(State { after: start..=start, to: start, caught_up: None })) }
    }

    /// For the resolver: the position to go on from, if it is not to begin as its arguments say.
    pub(super) fn goes_on_from(&self) -> Option<i64> {
        self.from
    }

    /// For the resolver: the event that it is about to yield comes next after these positions, and leads to this one.
    pub(super) fn event(&self, after: RangeInclusive<i64>, to: i64) {
        let mut state = self.lock();
        state.after = after;
        state.to = to;
    }

    /// For the resolver: nothing is stored beyond this position. Answers whether to wait until there is; if not, it is to end.
    pub(super) fn waits_at(&self, position: i64) -> bool {
        self.lock().caught_up = Some(position);
        self.live
    }

    /// The newest event: after which positions it comes, and where it leads.
    pub(super) fn newest(&self) -> (RangeInclusive<i64>, i64) {
        let state = self.lock();
        (state.after.clone(), state.to)
    }

    /// The position up to which everything was told, if the execution has ended only because nothing more is stored.
    pub(super) fn caught_up(&self) -> Option<i64> {
        self.lock().caught_up
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
