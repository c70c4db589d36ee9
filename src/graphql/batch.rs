//! Lookups that are asked for at the same moment, done as one.
//!
//! The fields of one request are resolved within one task, siblings one after the other in the same go. So whoever looks
//! something up lets the task go on to the others before it reads: by then all its siblings have asked too. That takes
//! microseconds and no timer, and what ends up in one batch is no matter of luck.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};

use crate::error::Error;
use crate::store::{Conn, Store};

/// A batch has at most this many keys; who comes later begins another.
const LARGEST: usize = 1_000;

/// Reads what is found for these keys.
type Read<K, V> = for<'c> fn(&'c mut Conn, Vec<K>) -> BoxFuture<'c, Result<HashMap<K, V>, Error>>;

/// Lookups of one kind.
pub(super) struct Batches<K, V> {
    store: Store,
    read: Read<K, V>,
    /// The batch that can be joined.
    open: Mutex<Option<Batch<K, V>>>,
}

/// Some keys, each with how many have asked for it, and what will be found. Whoever waits for that drives it; if one goes away,
/// another does.
struct Batch<K, V> {
    asked: Arc<Mutex<HashMap<K, usize>>>,
    found: Shared<BoxFuture<'static, Result<Found<K, V>, Error>>>,
}

/// The values that are found, each with how many have yet to take it.
type Found<K, V> = Arc<Mutex<HashMap<K, (V, usize)>>>;

impl<K, V> Batches<K, V>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Lookups that are read from the store in this way.
    pub(super) fn new(store: &Store, read: Read<K, V>) -> Self {
        Self { store: store.clone(), read, open: Mutex::default() }
    }

    /// The value for this key, if there is one. It is read after this was called: nothing is kept.
    pub(super) async fn load(&self, key: K) -> Result<Option<V>, Error> {
        let batch = self.join(key.clone());
        tokio::task::yield_now().await;
        self.close(&batch);
        let found = batch.found.await?;
        let mut found = lock(&found);
        let Some((value, takers)) = found.get_mut(&key) else { return Ok(None) };
        *takers -= 1;
        // The last one can have the value itself.
        if *takers > 0 { Ok(Some(value.clone())) } else { Ok(found.remove(&key).map(|(value, _)| value)) }
    }

    fn join(&self, key: K) -> Batch<K, V> {
        let mut open = lock(&self.open);
        if open.as_ref().is_some_and(|batch| lock(&batch.asked).len() >= LARGEST) {
            *open = None;
        }
        let batch = open.get_or_insert_with(|| self.begin());
        *lock(&batch.asked).entry(key).or_default() += 1;
        batch.clone()
    }

    fn begin(&self) -> Batch<K, V> {
        let asked = Arc::new(Mutex::new(HashMap::new()));
        let (keys, store, read) = (Arc::clone(&asked), self.store.clone(), self.read);
        let found = async move {
            let mut asked = std::mem::take(&mut *lock(&keys));
            let keys = asked.keys().cloned().collect();
            let found = store.read(move |conn| read(conn, keys)).await?;
            let with_takers = |(key, value)| {
                let takers = asked.remove(&key)?;
                Some((key, (value, takers)))
            };
            Ok(Arc::new(Mutex::new(found.into_iter().filter_map(with_takers).collect())))
        };
        Batch { asked, found: found.boxed().shared() }
    }

    /// Lets nobody join a batch any more.
    fn close(&self, batch: &Batch<K, V>) {
        let mut open = lock(&self.open);
        if open.as_ref().is_some_and(|it| Arc::ptr_eq(&it.asked, &batch.asked)) {
            *open = None;
        }
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
