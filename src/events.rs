//! Doorbells: they say that there is something to read, never what.
//!
//! Whoever watches takes a [`Bell`] first, then reads the store, then waits for the bell and reads again. So nothing is
//! missed, and nothing depends on the order in which bells ring. No SQL and no GraphQL here.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::model::JobId;

/// All the bells of this process. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Events {
    bells: Arc<Bells>,
}

#[derive(Debug, Default)]
struct Bells {
    status: watch::Sender<()>,
    queue: watch::Sender<()>,
    schedules: watch::Sender<()>,
    deliveries: watch::Sender<()>,
    deletions: watch::Sender<()>,
    outgoing: watch::Sender<()>,
    /// What other nodes are to be told, where there are any.
    untold: Option<Mutex<Rings>>,
    jobs: Mutex<HashMap<JobId, Watched>>,
}

/// A job's bell, and how many watch it. The last to leave takes it down.
#[derive(Debug, Default)]
struct Watched {
    bell: watch::Sender<()>,
    watchers: usize,
}

/// Which bells a committed change rings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rings {
    /// The status stream has grown.
    pub status: bool,
    /// A job may be startable that was not before.
    pub queue: bool,
    /// A schedule has changed, and so may what comes next.
    pub schedules: bool,
    /// A webhook has something to be told.
    pub deliveries: bool,
    /// Something was deleted and waits to be cleared away.
    pub deletions: bool,
    /// These jobs have changed: their log, their status, or what is wished of them.
    pub jobs: Vec<JobId>,
    /// Any job may have changed.
    pub all_jobs: bool,
}

impl Rings {
    /// Every bell.
    pub const ALL: Self = Self {
        status: true,
        queue: true,
        schedules: true,
        deliveries: true,
        deletions: true,
        jobs: Vec::new(),
        all_jobs: true,
    };

    /// Adds others.
    fn add(&mut self, others: &Self) {
        self.status |= others.status;
        self.queue |= others.queue;
        self.schedules |= others.schedules;
        self.deliveries |= others.deliveries;
        self.deletions |= others.deletions;
        self.all_jobs |= others.all_jobs;
        if self.all_jobs || self.jobs.len() > MOST_UNTOLD {
            (self.all_jobs, self.jobs) = (true, Vec::new());
        } else {
            self.jobs.extend(others.jobs.iter().filter(|job| !self.jobs.contains(job)).copied().collect::<Vec<_>>());
        }
    }
}

/// How many jobs are kept apart for other nodes.
const MOST_UNTOLD: usize = 500;

/// One watcher's bell. It remembers rings that came while nobody waited.
#[derive(Debug)]
pub struct Bell {
    rings: watch::Receiver<()>,
    /// Keeps the senders alive, and for a job's bell says whose to take down.
    bells: Arc<Bells>,
    job: Option<JobId>,
}

impl Bell {
    /// Waits until the bell has rung since it was taken, or since this last returned.
    pub async fn rung(&mut self) {
        // The senders live as long as this bell does, so there is always somebody who may ring.
        let _ = self.rings.changed().await;
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        let Some(job) = self.job else { return };
        let mut jobs = lock(&self.bells.jobs);
        if let Entry::Occupied(mut watched) = jobs.entry(job) {
            watched.get_mut().watchers -= 1;
            if watched.get().watchers == 0 {
                watched.remove();
            }
        }
    }
}

impl Events {
    /// The bells of a process that is not the only one.
    pub fn shared() -> Self {
        Self { bells: Arc::new(Bells { untold: Some(Mutex::default()), ..Bells::default() }) }
    }

    /// Rings when the status stream has grown.
    pub fn status(&self) -> Bell {
        self.bell(&self.bells.status)
    }

    /// Rings when a job may be startable that was not before.
    pub fn queue(&self) -> Bell {
        self.bell(&self.bells.queue)
    }

    /// Rings when a schedule has changed.
    pub fn schedules(&self) -> Bell {
        self.bell(&self.bells.schedules)
    }

    /// Rings when a webhook has something to be told.
    pub fn deliveries(&self) -> Bell {
        self.bell(&self.bells.deliveries)
    }

    /// Rings when something waits to be cleared away.
    pub fn deletions(&self) -> Bell {
        self.bell(&self.bells.deletions)
    }

    /// Rings when this job has changed: its log, its status, or what is wished of it.
    pub fn job(&self, job: JobId) -> Bell {
        let mut jobs = lock(&self.bells.jobs);
        let watched = jobs.entry(job).or_default();
        watched.watchers += 1;
        let rings = watched.bell.subscribe();
        Bell { rings, bells: Arc::clone(&self.bells), job: Some(job) }
    }

    /// Rings when there is something to tell other nodes.
    pub fn outgoing(&self) -> Bell {
        self.bell(&self.bells.outgoing)
    }

    /// What other nodes have not been told, which they are to be now.
    pub fn take_outgoing(&self) -> Rings {
        let untold = self.bells.untold.as_ref().map(|it| std::mem::take(&mut *lock(it)));
        untold.unwrap_or_default()
    }

    /// The jobs whose bells somebody watches.
    pub fn watched(&self) -> Vec<JobId> {
        lock(&self.bells.jobs).keys().copied().collect()
    }

    /// Rings the bells, here and on other nodes.
    pub fn ring(&self, rings: &Rings) {
        self.ring_here(rings);
        if let Some(untold) = &self.bells.untold
            && *rings != Rings::default()
        {
            lock(untold).add(rings);
            self.bells.outgoing.send_replace(());
        }
    }

    /// Rings the bells of this node.
    pub fn ring_here(&self, rings: &Rings) {
        if rings.status {
            self.bells.status.send_replace(());
        }
        if rings.queue {
            self.bells.queue.send_replace(());
        }
        if rings.schedules {
            self.bells.schedules.send_replace(());
        }
        if rings.deliveries {
            self.bells.deliveries.send_replace(());
        }
        if rings.deletions {
            self.bells.deletions.send_replace(());
        }
        let jobs = lock(&self.bells.jobs);
        if rings.all_jobs {
            jobs.values().for_each(|watched| watched.bell.send_replace(()));
        } else {
            rings.jobs.iter().filter_map(|job| jobs.get(job)).for_each(|watched| watched.bell.send_replace(()));
        }
    }

    fn bell(&self, sender: &watch::Sender<()>) -> Bell {
        Bell { rings: sender.subscribe(), bells: Arc::clone(&self.bells), job: None }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
