//! Refused attempts to authenticate, by the address of the client: they are logged, and the answers to some of them are held back.
//!
//! A right token is admitted before anything here is looked at, so clients that share an address with an attacker do not notice. Every token is
//! compared, so this does not bound the rate of guesses: a client that sends more guesses in parallel than answers are held back is refused at once
//! for each of the others, and loses the connection of each. What is kept is bounded: a number of addresses, beyond which all others share
//! one entry, and a number of answers that wait.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::address::ClientAddress;

/// How many wrong tokens of one address are refused without a delay.
const BURST: f64 = 20.0;
/// How many more of them in each second.
const PER_SECOND: f64 = 0.5;
/// How long the refusals beyond that are held back.
const DELAY: Duration = Duration::from_secs(1);
/// How many refusals of one address, and of all, are held back at a time. Those beyond that lose their connection at once.
const DELAYED_PER_ADDRESS: u32 = 64;
const DELAYED: u32 = 1_024;
/// How many addresses are told apart.
const ADDRESSES: usize = 4_096;
/// How often refusals are logged, and of how many addresses.
const INTERVAL: Duration = Duration::from_secs(60);
const LOGGED_ADDRESSES: usize = 10;

/// What is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// A token that is not the server's.
    WrongToken,
    /// A request without a token.
    NoToken,
    /// A connection beyond those that an address may have.
    Connection,
}

/// How a wrong token is answered.
#[derive(Debug)]
pub(super) enum Pace {
    /// At once.
    AtOnce,
    /// After a delay.
    Delayed(Delay),
    /// At once, with the end of the connection: a response with the advice to come back later, or a WebSocket without a close frame.
    TooMany,
}

/// A place among the refusals that are held back, until this is dropped.
#[derive(Debug)]
pub(super) struct Delay {
    refusals: Refusals,
    address: Option<ClientAddress>,
}

/// The refused attempts. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Refusals(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    addresses: HashMap<ClientAddress, Entry>,
    /// All addresses beyond those told apart.
    others: Entry,
    delayed: u32,
    /// How many addresses were logged in this interval.
    logged: usize,
    cleared: Option<Instant>,
}

/// What is known of one address.
#[derive(Debug, Default)]
struct Entry {
    /// How many refusals without a delay are used up, and when that was computed.
    used: f64,
    computed: Option<Instant>,
    delayed: u32,
    counts: Counts,
}

/// The refusals that are not logged yet.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    wrong_tokens: u64,
    without_token: u64,
    connections: u64,
}

impl Refusals {
    /// Counts a refusal, and says how to answer it.
    pub(super) fn record(&self, address: ClientAddress, refused: Refused) -> Pace {
        self.record_at(Instant::now(), address, refused)
    }

    fn record_at(&self, now: Instant, address: ClientAddress, refused: Refused) -> Pace {
        let mut table = self.lock();
        let Table { addresses, others, delayed, logged, cleared } = &mut *table;
        if addresses.len() >= ADDRESSES && !addresses.contains_key(&address) {
            // Not more than once a second, for it looks at every address.
            if cleared.is_none_or(|at| now - at >= Duration::from_secs(1)) {
                *cleared = Some(now);
                addresses.retain(|_, entry| !entry.is_over(now));
            }
        }
        let known = addresses.len() < ADDRESSES || addresses.contains_key(&address);
        let entry = if known { addresses.entry(address).or_default() } else { others };
        entry.counts.add(refused);
        // The first refusal of an address is logged at once, the others together.
        if entry.computed.is_none() && *logged < LOGGED_ADDRESSES {
            *logged += 1;
            std::mem::take(&mut entry.counts).log(&address);
        }
        entry.refill(now);
        if refused != Refused::WrongToken {
            return Pace::AtOnce;
        }
        if entry.used + 1.0 <= BURST {
            entry.used += 1.0;
            return Pace::AtOnce;
        }
        if entry.delayed >= DELAYED_PER_ADDRESS || *delayed >= DELAYED {
            return Pace::TooMany;
        }
        entry.delayed += 1;
        *delayed += 1;
        Pace::Delayed(Delay { refusals: self.clone(), address: known.then_some(address) })
    }

    /// Logs in intervals what was refused, and once more at the end.
    pub(super) async fn report(self, closing: CancellationToken) {
        while closing.run_until_cancelled(sleep(INTERVAL)).await.is_some() {
            self.log(Instant::now());
        }
        self.log(Instant::now());
    }

    /// Logs the addresses with the most refusals by themselves and the others together, and forgets those that are over.
    fn log(&self, now: Instant) {
        let mut table = self.lock();
        let mut counts: Vec<(ClientAddress, Counts)> = Vec::new();
        for (address, entry) in &mut table.addresses {
            if entry.counts.total() > 0 {
                counts.push((*address, std::mem::take(&mut entry.counts)));
            }
        }
        let mut others = std::mem::take(&mut table.others.counts);
        table.logged = 0;
        table.addresses.retain(|_, entry| !entry.is_over(now));
        drop(table);
        counts.sort_unstable_by_key(|(_, counts)| std::cmp::Reverse(counts.total()));
        for (number, (address, counts)) in counts.iter().enumerate() {
            if number < LOGGED_ADDRESSES {
                counts.log(address);
            } else {
                others.wrong_tokens += counts.wrong_tokens;
                others.without_token += counts.without_token;
                others.connections += counts.connections;
            }
        }
        others.log(&"others");
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn refill(&mut self, now: Instant) {
        if let Some(computed) = self.computed.replace(now) {
            self.used = (self.used - (now - computed).as_secs_f64() * PER_SECOND).max(0.0);
        }
    }

    /// Whether there is nothing to remember: all is logged, nothing waits, and the next refusal would be answered as the first.
    fn is_over(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.used <= 0.0 && self.delayed == 0 && self.counts.total() == 0
    }
}

impl Counts {
    fn add(&mut self, refused: Refused) {
        match refused {
            Refused::WrongToken => self.wrong_tokens += 1,
            Refused::NoToken => self.without_token += 1,
            Refused::Connection => self.connections += 1,
        }
    }

    fn total(&self) -> u64 {
        self.wrong_tokens + self.without_token + self.connections
    }

    fn log(&self, address: &dyn std::fmt::Display) {
        let Self { wrong_tokens, without_token, connections } = *self;
        if wrong_tokens + without_token > 0 {
            tracing::warn!(%address, wrong_tokens, without_token, "refused authentication attempts");
        }
        if connections > 0 {
            tracing::warn!(
                %address,
                connections,
                "refused connections beyond the limit per address: if this is a proxy, name it with --trusted-proxy"
            );
        }
    }
}

impl Delay {
    /// Waits until the refusal may be answered.
    pub(super) async fn over(self, closing: &CancellationToken) {
        closing.run_until_cancelled(sleep(DELAY)).await;
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        let mut table = self.refusals.lock();
        let Table { addresses, others, delayed, .. } = &mut *table;
        *delayed = delayed.saturating_sub(1);
        let entry = self.address.map_or(Some(others), |address| addresses.get_mut(&address));
        if let Some(entry) = entry {
            entry.delayed = entry.delayed.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn address(number: u32) -> ClientAddress {
        IpAddr::from(Ipv4Addr::from_bits(number)).into()
    }

    #[test]
    fn wrong_tokens_are_slowed_by_address_and_only_for_a_while() {
        let refusals = Refusals::default();
        let start = Instant::now();
        let minutes = |count: u64| start + Duration::from_secs(60 * count);
        let record = |now, number| refusals.record_at(now, address(number), Refused::WrongToken);
        for _ in 0..20 {
            assert!(matches!(record(start, 1), Pace::AtOnce));
        }
        let delayed: Vec<Pace> = (0..64).map(|_| record(start, 1)).collect();
        assert!(delayed.iter().all(|it| matches!(it, Pace::Delayed(_))));
        assert!(matches!(record(start, 1), Pace::TooMany));
        assert!(matches!(record(start, 2), Pace::AtOnce), "another address does not notice");
        let without = refusals.record_at(start, address(1), Refused::NoToken);
        assert!(matches!(without, Pace::AtOnce), "that is no guess");
        drop(delayed);
        assert!(matches!(record(start, 1), Pace::Delayed(_)), "the places are free again");
        assert!(matches!(record(minutes(1), 1), Pace::AtOnce));
        refusals.log(minutes(1));
        assert_eq!(refusals.lock().addresses.len(), 1, "the other address is forgotten");
        refusals.log(minutes(2));
        assert_eq!(refusals.lock().addresses.len(), 0, "nothing is kept of either");
    }

    #[test]
    fn the_number_of_addresses_and_of_delays_is_bounded() {
        let refusals = Refusals::default();
        let now = Instant::now();
        let record = |number| refusals.record_at(now, address(number), Refused::WrongToken);
        for number in 0..10_000 {
            record(number);
        }
        assert_eq!(refusals.lock().addresses.len(), ADDRESSES);
        assert!(matches!(record(20_000), Pace::Delayed(_)), "they share an entry");
        let attempts = (0..50).flat_map(|address| std::iter::repeat_n(address, 100));
        let paces: Vec<Pace> = attempts.map(record).collect();
        assert_eq!(paces.iter().filter(|it| matches!(it, Pace::Delayed(_))).count(), DELAYED as usize);
        drop(paces);
        assert_eq!(refusals.lock().delayed, 0);
    }
}
