//! The connections that are open, by the address of the peer.
//!
//! One peer gets a part of the places only. When a place is needed and none is free, the connection that has been idle longest is
//! closed: so connections that do nothing keep nobody out. A connection is idle while no request is executed on it and, if it has
//! become a WebSocket, until that is initialised.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use super::address::{ClientAddress, TrustedProxies};

/// The open connections of one listener. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Peers(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    most: usize,
    most_per_address: usize,
    proxies: TrustedProxies,
    started: Instant,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    addresses: HashMap<ClientAddress, HashMap<u64, Arc<State>>>,
    open: usize,
    next_id: u64,
}

/// What is known of one connection. It is read when a place is needed, and written with each request.
#[derive(Debug, Default)]
struct State {
    uses: AtomicUsize,
    /// When it was used last, in milliseconds since the listener began.
    used_at: AtomicU64,
    has_served: AtomicBool,
    evicted: CancellationToken,
}

/// Why a connection is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// The peer has as many as it may have, all of them in use.
    Address,
    /// All places are taken, and in use.
    Everywhere,
}

/// The place of a connection. It goes with each request, for what becomes of the connection to keep.
#[derive(Debug, Clone)]
pub(super) struct ConnectionPermit(Arc<Permit>);

#[derive(Debug)]
struct Permit {
    peers: Peers,
    peer: IpAddr,
    id: u64,
    state: Arc<State>,
}

/// The use of a connection, which is not idle until this is dropped.
#[derive(Debug)]
pub(super) struct ConnectionUse(ConnectionPermit);

impl Peers {
    /// So many places, and so many for one address. An address never gets more than half of all. The connections of trusted proxies
    /// are those of many clients, so only the number of all bounds them.
    pub(super) fn new(most: usize, most_per_address: usize, proxies: TrustedProxies) -> Self {
        let most_per_address = most_per_address.min(most / 2).max(1);
        Self(Arc::new(Shared { most, most_per_address, proxies, started: Instant::now(), table: Mutex::default() }))
    }

    /// A place for a new connection of this peer; that of the connection which has been idle longest, if none is free.
    pub(super) fn admit(&self, peer: IpAddr) -> Result<ConnectionPermit, Full> {
        let address = ClientAddress::from(peer);
        let mut table = self.lock();
        let of_address = table.addresses.get(&address).map_or(0, HashMap::len);
        if of_address >= self.0.most_per_address && !self.0.proxies.contains(peer) {
            table.evict_one_of(address).then_some(()).ok_or(Full::Address)?;
        } else if table.open >= self.0.most {
            // The address with the most connections gives one up, or else any that has an idle one.
            let largest = table.addresses.iter().max_by_key(|(_, it)| it.len()).map(|(address, _)| *address);
            let evicted = largest.is_some_and(|address| table.evict_one_of(address)) || table.evict_one();
            evicted.then_some(()).ok_or(Full::Everywhere)?;
        }
        let id = table.next_id;
        table.next_id += 1;
        table.open += 1;
        let state = Arc::new(State { used_at: AtomicU64::new(self.now()), ..State::default() });
        table.addresses.entry(address).or_default().insert(id, Arc::clone(&state));
        Ok(ConnectionPermit(Arc::new(Permit { peers: self.clone(), peer, id, state })))
    }

    fn now(&self) -> u64 {
        u64::try_from(self.0.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The connection that has been idle longest.
fn longest_idle<'a>(connections: impl Iterator<Item = (&'a u64, &'a Arc<State>)>) -> Option<u64> {
    let idle = connections.filter(|(_, state)| state.uses.load(Ordering::Acquire) == 0);
    idle.min_by_key(|(id, state)| (state.used_at.load(Ordering::Relaxed), **id)).map(|(id, _)| *id)
}

impl Table {
    fn evict_one_of(&mut self, address: ClientAddress) -> bool {
        let Some(id) = self.addresses.get(&address).and_then(|it| longest_idle(it.iter())) else { return false };
        self.remove(address, id).inspect(|state| state.evicted.cancel()).is_some()
    }

    fn evict_one(&mut self) -> bool {
        let idle = self.addresses.iter().find(|(_, it)| longest_idle(it.iter()).is_some());
        let Some(address) = idle.map(|(address, _)| *address) else { return false };
        self.evict_one_of(address)
    }

    fn remove(&mut self, address: ClientAddress, id: u64) -> Option<Arc<State>> {
        let connections = self.addresses.get_mut(&address)?;
        let removed = connections.remove(&id)?;
        if connections.is_empty() {
            self.addresses.remove(&address);
        }
        self.open -= 1;
        Some(removed)
    }
}

impl ConnectionPermit {
    /// The address at the other end of the connection.
    pub(super) fn peer(&self) -> IpAddr {
        self.0.peer
    }

    /// Begins a use of the connection, such as a request.
    pub(super) fn begin_use(&self) -> ConnectionUse {
        self.0.state.uses.fetch_add(1, Ordering::AcqRel);
        ConnectionUse(self.clone())
    }

    /// Whether the connection has been used.
    pub(super) fn has_served(&self) -> bool {
        self.0.state.has_served.load(Ordering::Relaxed)
    }

    /// Waits until another connection has got this one's place: it is to be closed.
    pub(super) fn evicted(&self) -> WaitForCancellationFuture<'_> {
        self.0.state.evicted.cancelled()
    }

    /// Whether another connection has got this one's place.
    pub(super) fn is_evicted(&self) -> bool {
        self.0.state.evicted.is_cancelled()
    }
}

impl Drop for ConnectionUse {
    fn drop(&mut self) {
        let Permit { peers, state, .. } = &*self.0.0;
        state.used_at.store(peers.now(), Ordering::Relaxed);
        state.has_served.store(true, Ordering::Relaxed);
        state.uses.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        // It is not there any more if it was evicted.
        self.peers.lock().remove(self.peer.into(), self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[tokio::test]
    async fn a_new_connection_gets_the_place_of_the_one_that_is_idle_longest() {
        let peers = Peers::new(10, 3, TrustedProxies::default());
        let mut permits: Vec<_> = (0..3).filter_map(|_| peers.admit(peer(1)).ok()).collect();
        let in_use = permits[0].begin_use();
        let fourth = peers.admit(peer(1));
        assert!(fourth.is_ok());
        permits[1].evicted().await;
        assert!(!permits[0].is_evicted() && !permits[2].is_evicted());
        let uses: Vec<_> = permits.iter().chain(&fourth).map(ConnectionPermit::begin_use).collect();
        assert_eq!(peers.admit(peer(1)).map(drop), Err(Full::Address));
        assert!(peers.admit(peer(2)).is_ok(), "the others have places of their own");
        drop((in_use, uses, fourth));
        permits.clear();
        let table = peers.lock();
        assert_eq!((table.open, table.addresses.len()), (0, 0), "nothing is kept of what is closed");
    }

    #[tokio::test]
    async fn the_address_with_the_most_connections_gives_one_up_when_all_places_are_taken() {
        let peers = Peers::new(4, 100, TrustedProxies::default());
        let first = [peer(1), peer(2), peer(2), peer(3)].map(|it| peers.admit(it));
        let new = peers.admit(peer(4));
        assert!(new.is_ok());
        let evicted: Vec<bool> = first.iter().flatten().map(|permit| permit.is_evicted()).collect();
        assert_eq!(evicted, [false, true, false, false]);
        let uses: Vec<_> = first.iter().flatten().chain(&new).map(ConnectionPermit::begin_use).collect();
        assert_eq!(peers.admit(peer(5)).map(drop), Err(Full::Everywhere));
        drop(uses);
    }

    #[tokio::test]
    async fn the_connections_of_a_trusted_proxy_are_not_bounded_by_address() {
        let proxies = super::super::address::trusted_proxy("192.0.2.1").map(|it| TrustedProxies::from(vec![it]));
        let peers = Peers::new(10, 2, proxies.unwrap_or_default());
        let permits: Vec<_> = (0..8).filter_map(|_| peers.admit(peer(1)).ok()).collect();
        assert_eq!(permits.iter().filter(|it| it.is_evicted()).count(), 0);
    }
}
