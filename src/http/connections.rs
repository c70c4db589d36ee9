//! How many connections stay open at a time, of all clients and of each.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::address::ClientAddress;
use crate::error::Error;
use crate::metrics::ConnectionRefusal;

/// Places for connections that stay: WebSockets, event streams, followed logs. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Connections {
    taken: Arc<Mutex<Taken>>,
    most: usize,
    most_per_address: usize,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_address: HashMap<ClientAddress, usize>,
}

/// A place that is taken until this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    connections: Connections,
    address: ClientAddress,
}

impl Connections {
    /// So many places, and so many for one address.
    pub(super) fn new(most: usize, most_per_address: usize) -> Self {
        Self { taken: Arc::default(), most, most_per_address: most_per_address.max(1) }
    }

    /// Takes a place for a client. [`Error::LimitExceeded`] if there is none for it.
    pub(super) fn take(&self, address: ClientAddress) -> Result<Place, (ConnectionRefusal, Error)> {
        let mut taken = self.lock();
        let Taken { all, by_address } = &mut *taken;
        if *all >= self.most {
            return Err((ConnectionRefusal::Limit, too_many(self.most, "")));
        }
        let of_address = by_address.entry(address).or_default();
        if *of_address >= self.most_per_address {
            return Err((ConnectionRefusal::Address, too_many(self.most_per_address, " from one address")));
        }
        *of_address += 1;
        *all += 1;
        Ok(Place { connections: self.clone(), address })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn too_many(most: usize, of_whom: &str) -> Error {
    Error::LimitExceeded(format!("{most} connections are open{of_whom}, as many as are allowed. Try again later."))
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.connections.lock();
        taken.all -= 1;
        if let Some(of_address) = taken.by_address.get_mut(&self.address) {
            *of_address -= 1;
            if *of_address == 0 {
                taken.by_address.remove(&self.address);
            }
        }
    }
}
