//! Lookups that are asked for at the same moment, done as one.
//!
//! The fields of one request are resolved within one task, siblings one after the other in the same go. So the first to ask lets
//! the task go on to the others as long as any of them asks too, and only then begins to read. That takes microseconds and no
//! timer, and what ends up in one batch is no matter of luck.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use tokio::sync::oneshot;

use crate::error::Error;
use crate::store::{Conn, Snapshot};

/// A batch has at most this many keys; who comes later begins another.
const LARGEST: usize = 1_000;

/// Reads what is found for these keys.
type Read<K, V> = for<'c> fn(&'c mut Conn, Vec<K>) -> BoxFuture<'c, Result<HashMap<K, V>, Error>>;

/// Lookups of one kind.
pub(super) struct Batches<K, V> {
    snapshot: Arc<Snapshot>,
    read: Read<K, V>,
    /// The batch that can be joined.
    open: Mutex<Option<Batch<K, V>>>,
}

/// What some ask for, and what will be found. Whoever waits for that drives it; if one goes away, another does.
struct Batch<K, V> {
    asked: Arc<Mutex<Asked<K>>>,
    found: Shared<BoxFuture<'static, Result<Found<K, V>, Error>>>,
}

struct Asked<K> {
    /// Each key with how many have asked for it,
    keys: HashMap<K, usize>,
    /// and how many have asked for any.
    times: usize,
    /// Whether they are being read.
    closed: bool,
}

/// The values that are found, each with how many have yet to take it.
type Found<K, V> = Arc<Mutex<HashMap<K, (V, usize)>>>;

impl<K, V> Batches<K, V>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Lookups that are read from the snapshot in this way.
    pub(super) fn new(snapshot: &Arc<Snapshot>, read: Read<K, V>) -> Self {
        Self { snapshot: Arc::clone(snapshot), read, open: Mutex::default() }
    }

    /// The value for this key, if there is one in the snapshot. Nothing is kept.
    pub(super) async fn load(&self, key: K) -> Result<Option<V>, Error> {
        let (batch, first) = self.join(key.clone());
        if let Some(gathered) = first {
            let mut before = 0;
            while before < batch.times() {
                before = batch.times();
                tokio::task::yield_now().await;
            }
            drop(gathered);
        }
        let found = batch.found.await?;
        let mut found = lock(&found);
        let Some((value, takers)) = found.get_mut(&key) else { return Ok(None) };
        *takers -= 1;
        // The last one can have the value itself.
        if *takers > 0 { Ok(Some(value.clone())) } else { Ok(found.remove(&key).map(|(value, _)| value)) }
    }

    /// Adds a key to the open batch. The first to do so gets what the others wait for it to drop.
    fn join(&self, key: K) -> (Batch<K, V>, Option<oneshot::Sender<()>>) {
        let mut open = lock(&self.open);
        if let Some(batch) = open.as_ref().filter(|batch| batch.add(&key)) {
            return (batch.clone(), None);
        }
        let (batch, gathered) = self.begin();
        batch.add(&key);
        *open = Some(batch.clone());
        (batch, Some(gathered))
    }

    fn begin(&self) -> (Batch<K, V>, oneshot::Sender<()>) {
        let asked = Arc::new(Mutex::new(Asked { keys: HashMap::new(), times: 0, closed: false }));
        let (gathered, all_gathered) = oneshot::channel();
        let (gathering, snapshot, read) = (Arc::clone(&asked), Arc::clone(&self.snapshot), self.read);
        let found = async move {
            // Also when the first to ask went away.
            let _ = all_gathered.await;
            let mut asked = lock(&gathering).close();
            let keys: Vec<K> = asked.keys().cloned().collect();
            let found = snapshot.read_repeatable(|| repeatable(read, keys.clone())).await?;
            let with_takers = |(key, value)| {
                let takers = asked.remove(&key)?;
                Some((key, (value, takers)))
            };
            Ok(Arc::new(Mutex::new(found.into_iter().filter_map(with_takers).collect())))
        };
        (Batch { asked, found: found.boxed().shared() }, gathered)
    }
}

fn repeatable<K, V>(
    read: Read<K, V>,
    keys: Vec<K>,
) -> impl for<'c> FnOnce(&'c mut Conn) -> BoxFuture<'c, Result<HashMap<K, V>, Error>> {
    move |conn| read(conn, keys)
}

impl<K: Clone + Eq + Hash, V> Batch<K, V> {
    /// Adds a key, if that is still possible.
    fn add(&self, key: &K) -> bool {
        let mut asked = lock(&self.asked);
        if asked.closed || asked.keys.len() >= LARGEST {
            return false;
        }
        *asked.keys.entry(key.clone()).or_default() += 1;
        asked.times += 1;
        true
    }

    fn times(&self) -> usize {
        lock(&self.asked).times
    }
}

impl<K> Asked<K> {
    fn close(&mut self) -> HashMap<K, usize> {
        self.closed = true;
        std::mem::take(&mut self.keys)
    }
}

// Written out, because a derive would ask the same of the key and the value.
impl<K, V> Clone for Batch<K, V> {
    fn clone(&self) -> Self {
        Self { asked: Arc::clone(&self.asked), found: self.found.clone() }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
