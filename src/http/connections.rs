//! How many connections are held open at a time.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::Error;

/// Places for connections that stay: WebSockets, event streams, followed logs. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Connections {
    places: Arc<Semaphore>,
    most: usize,
}

/// A place that is taken until this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
}

impl Connections {
    /// So many places.
    pub(super) fn new(most: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(most)), most }
    }

    /// Takes a place. [`Error::LimitExceeded`] if none is free.
    pub(super) fn take(&self) -> Result<Place, Error> {
        let permit = Arc::clone(&self.places).try_acquire_owned();
        permit.map(|_permit| Place { _permit }).map_err(|_| {
            let most = self.most;
            Error::LimitExceeded(format!("{most} connections are open, as many as are allowed. Try again later."))
        })
    }
}
