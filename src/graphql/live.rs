//! Subscriptions that are the same are carried out once, and their answers shared.
//!
//! A subscriber replays by itself what is stored. When it has caught up it takes a seat with those of the same [`Key`] who have,
//! and one execution serves them all. Each knows its own position, and takes only what comes next after it; one that cannot keep up
//! loses its seat and reads again by itself. So nobody waits for anybody, nothing is lost, and nothing comes twice.

use std::collections::{HashMap, VecDeque};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::operation::Answer;
use super::plan::{Key, Plan};
use crate::metrics::{Metrics, Open};

/// How much may wait for the slowest of those who share an execution; the newest answer always may.
const MOST_BYTES: usize = 1024 * 1024;
const MOST_STEPS: usize = 64;

/// An answer of a subscription, and where it belongs.
#[derive(Debug, Clone)]
pub(super) struct Step {
    /// It is what comes next for whoever is at one of these positions,
    pub(super) after: RangeInclusive<i64>,
    /// and leads to this one.
    pub(super) to: i64,
    pub(super) answer: Answer,
}

/// The executions that are shared. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Live {
    running: Arc<Mutex<HashMap<Key, Weak<Execution>>>>,
    metrics: Metrics,
}

/// One execution, for as long as somebody has a seat.
#[derive(Debug)]
struct Execution {
    plan: Arc<Plan>,
    steps: Arc<Steps>,
    running: Arc<Mutex<HashMap<Key, Weak<Execution>>>>,
    _driver: AbortOnDropHandle<()>,
    _counted: Open,
}

/// What an execution has come to, as far as somebody with a seat has not taken it yet.
#[derive(Debug)]
struct Steps {
    ring: Mutex<Ring>,
    bell: watch::Sender<()>,
}

#[derive(Debug)]
struct Ring {
    /// Each with how many have not taken it yet.
    waiting: VecDeque<(Step, usize)>,
    /// How many steps there were before those.
    gone: u64,
    bytes: usize,
    seats: usize,
    /// The position after the newest step.
    tail: i64,
    ended: bool,
}

/// A place among those who share an execution.
#[derive(Debug)]
pub(super) struct Seat {
    execution: Arc<Execution>,
    bell: watch::Receiver<()>,
    next: u64,
    at: i64,
    /// Whether the newest step was for the holder of this seat.
    told: bool,
}

/// What comes next for the holder of a seat.
pub(super) enum Next {
    Answer(Answer),
    /// It has missed something: it has to read again from this position.
    Behind(i64),
    Over,
}

impl Live {
    /// No executions yet.
    pub(super) fn new(metrics: Metrics) -> Self {
        Self { running: Arc::default(), metrics }
    }

    /// Takes a seat for a subscriber that has caught up to a position. The first one starts the execution. Nothing if the others are
    /// further already: then there is more to catch up with.
    pub(super) fn join(
        &self,
        plan: &Arc<Plan>,
        at: i64,
        start: impl FnOnce(&Arc<Plan>) -> BoxStream<'static, Step>,
    ) -> Option<Seat> {
        let execution = self.execution(plan, at, start);
        let mut ring = execution.steps.lock();
        if at < ring.tail {
            return None;
        }
        ring.seats += 1;
        let next = ring.end();
        drop(ring);
        let bell = execution.steps.bell.subscribe();
        Some(Seat { execution, bell, next, at, told: false })
    }

    fn execution(
        &self,
        plan: &Arc<Plan>,
        at: i64,
        start: impl FnOnce(&Arc<Plan>) -> BoxStream<'static, Step>,
    ) -> Arc<Execution> {
        // Dropped after the lock is given back: the last one to let go of an execution takes it out of the map.
        let known;
        let mut running = lock(&self.running);
        known = running.get(&plan.key).and_then(Weak::upgrade);
        if let Some(execution) = known.as_ref().filter(|it| !it.steps.lock().ended) {
            return Arc::clone(execution);
        }
        let steps = Arc::new(Steps::from(at));
        let driver = drive(Arc::clone(&steps), start(plan));
        let execution = Arc::new(Execution {
            plan: Arc::clone(plan),
            steps,
            running: Arc::clone(&self.running),
            _driver: AbortOnDropHandle::new(tokio::spawn(driver)),
            _counted: self.metrics.execution_started(),
        });
        running.insert(plan.key.clone(), Arc::downgrade(&execution));
        execution
    }
}

async fn drive(steps: Arc<Steps>, mut stream: BoxStream<'static, Step>) {
    while let Some(step) = stream.next().await {
        steps.push(step);
    }
    steps.lock().ended = true;
    steps.bell.send_replace(());
}

impl Drop for Execution {
    fn drop(&mut self) {
        let mut running = lock(&self.running);
        // Another may have taken its place already.
        if running.get(&self.plan.key).is_some_and(|it| it.strong_count() == 0) {
            running.remove(&self.plan.key);
        }
    }
}

impl Seat {
    /// The plan of the execution, which is the same for all who share it.
    pub(super) fn plan(&self) -> Arc<Plan> {
        Arc::clone(&self.execution.plan)
    }

    /// Waits for what comes next.
    pub(super) async fn next(&mut self) -> Next {
        loop {
            self.bell.mark_unchanged();
            let taken = self.execution.steps.lock().take(self.next);
            match taken {
                Taken::Step(step) => {
                    self.next += 1;
                    self.told = step.after.contains(&self.at) || step.answer.is_last();
                    if self.told {
                        self.at = step.to;
                        return Next::Answer(step.answer);
                    }
                    if step.to > self.at {
                        return Next::Behind(self.at);
                    }
                    // It was replayed before the seat was taken.
                }
                Taken::Gone => return Next::Behind(self.at),
                Taken::Over if self.told => return Next::Over,
                // The last step came before the seat was taken, or was for others. It may have said more than where it led, such as
                // that a log is complete.
                Taken::Over => return Next::Behind(self.at),
                // The sender lives as long as the execution, which this seat keeps.
                Taken::NotYet => drop(self.bell.changed().await),
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.execution.steps.lock().leave(self.next);
    }
}

impl Steps {
    fn from(at: i64) -> Self {
        let ring = Ring { waiting: VecDeque::new(), gone: 0, bytes: 0, seats: 0, tail: at, ended: false };
        Self { ring: Mutex::new(ring), bell: watch::Sender::new(()) }
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        lock(&self.ring)
    }

    fn push(&self, step: Step) {
        self.lock().push(step);
        self.bell.send_replace(());
    }
}

enum Taken {
    Step(Step),
    NotYet,
    Gone,
    Over,
}

impl Ring {
    /// The number of the step that comes next.
    fn end(&self) -> u64 {
        self.gone + self.waiting.len() as u64
    }

    fn push(&mut self, step: Step) {
        self.tail = step.to;
        self.bytes += step.answer.len();
        self.waiting.push_back((step, self.seats));
        while self.waiting.len() > 1 && (self.waiting.len() > MOST_STEPS || self.bytes > MOST_BYTES) {
            self.forget_oldest();
        }
        self.forget_taken();
    }

    fn take(&mut self, number: u64) -> Taken {
        let Some(index) = number.checked_sub(self.gone) else { return Taken::Gone };
        let step = usize::try_from(index).ok().and_then(|index| self.waiting.get_mut(index));
        let Some((step, left)) = step else {
            return if self.ended { Taken::Over } else { Taken::NotYet };
        };
        *left = left.saturating_sub(1);
        let step = step.clone();
        self.forget_taken();
        Taken::Step(step)
    }

    /// Somebody leaves who would have taken this step next.
    fn leave(&mut self, number: u64) {
        self.seats -= 1;
        let taken = usize::try_from(number.saturating_sub(self.gone)).unwrap_or(usize::MAX);
        self.waiting.iter_mut().skip(taken).for_each(|(_, left)| *left = left.saturating_sub(1));
        self.forget_taken();
    }

    fn forget_taken(&mut self) {
        while self.waiting.front().is_some_and(|(_, left)| *left == 0) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((step, _)) = self.waiting.pop_front() {
            self.bytes -= step.answer.len();
            self.gone += 1;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
