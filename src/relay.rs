//! Carries the ringing of bells from node to node.
//!
//! What rings here is told to the others in small notifications, many rings in one; what they tell rings here. A notification may be lost, with the
//! connection or the node that had to send it: so once in a while it is looked whether anything is new that nobody told of. All works without
//! notifications, only slower.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::{Instant, sleep, sleep_until};

use crate::error::Error;
use crate::events::{Events, Rings};
use crate::model::{JobId, ServerId};
use crate::store::{Announcements, Pulse, Store};

/// How often it is looked whether anything is new.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How soon a connection that is lost is made again.
const AGAIN: Duration = Duration::from_millis(500);
/// How many jobs a notification names; more are "all".
const MOST_JOBS: usize = 150;

/// Carries rings.
#[derive(Debug)]
pub struct Relay {
    store: Store,
    events: Events,
    own: ServerId,
    hears: bool,
    /// What was so when it was looked last.
    pulse: Pulse,
}

impl Relay {
    /// A relay between the bells of this node and those of the others in its database. It may be one that does not hear them.
    pub fn new(store: Store, events: Events, own: ServerId, hears: bool) -> Self {
        Self { store, events, own, hears, pulse: Pulse::default() }
    }

    /// Carries rings until it is dropped.
    pub async fn run(mut self) {
        loop {
            match self.store.listen().await {
                Ok(announcements) => {
                    // What was told meanwhile nobody heard.
                    self.events.ring_here(&Rings::ALL);
                    if let Err(error) = self.carry(announcements).await {
                        tracing::warn!(?error, "notifications of other nodes are not heard; connecting again");
                    }
                }
                Err(error) => tracing::debug!(?error, "the database does not let us listen"),
            }
            self.look().await;
            sleep(AGAIN).await;
        }
    }

    /// Carries rings for as long as the connection lasts.
    async fn carry(&mut self, mut announcements: Announcements) -> Result<(), Error> {
        let mut outgoing = self.events.outgoing();
        let mut next_look = Instant::now() + LOOK_EVERY;
        loop {
            tokio::select! {
                told = announcements.next() => {
                    if let Some(rings) = read(&told?, self.own).filter(|_| self.hears) {
                        self.events.ring_here(&rings);
                    }
                }
                () = outgoing.rung() => {
                    let rings = self.events.take_outgoing();
                    announcements.announce(&write(&rings, self.own)).await?;
                }
                () = sleep_until(next_look) => {
                    // A connection that is dead looks like one that is silent.
                    announcements.announce(&write(&Rings::default(), self.own)).await?;
                    self.look().await;
                    next_look = Instant::now() + LOOK_EVERY;
                }
            }
        }
    }

    /// Rings for what is new although nobody told.
    async fn look(&mut self) {
        let watched = self.events.watched();
        let read = self.store.read(move |conn| async move { conn.pulse(&watched).await }.boxed());
        match read.await {
            Ok(pulse) => {
                if pulse.has_unnumbered {
                    self.store.number_changes().await;
                }
                let rings = news(&self.pulse, &pulse);
                self.pulse = pulse;
                self.events.ring_here(&rings);
            }
            Err(error) => tracing::debug!(?error, "it cannot be looked whether anything is new"),
        }
    }
}

/// What has changed from one look to the next.
fn news(before: &Pulse, now: &Pulse) -> Rings {
    let known: HashMap<JobId, _> = before.jobs.iter().copied().collect();
    let changed = now.jobs.iter().filter(|(job, state)| known.get(job) != Some(state)).map(|(job, _)| *job);
    let gone = known.keys().filter(|job| now.jobs.iter().all(|(it, _)| it != *job)).copied();
    Rings {
        status: now.position != before.position || now.has_unnumbered,
        queue: now.turn.is_some_and(|turn| turn <= now.at),
        schedules: now.next_run != before.next_run,
        deliveries: now.next_delivery != before.next_delivery,
        deletions: false,
        jobs: changed.chain(gone).collect(),
        all_jobs: false,
    }
}

/// Rings as text: who tells of them, a letter for each bell, and the jobs.
fn write(rings: &Rings, own: ServerId) -> String {
    let all_jobs = rings.all_jobs || rings.jobs.len() > MOST_JOBS;
    let letters = [
        (rings.status, 's'),
        (rings.queue, 'q'),
        (rings.schedules, 't'),
        (rings.deliveries, 'w'),
        (rings.deletions, 'd'),
        (all_jobs, 'a'),
    ];
    let letters: String = letters.iter().filter(|(rings, _)| *rings).map(|(_, letter)| *letter).collect();
    let jobs: Vec<String> = if all_jobs { Vec::new() } else { rings.jobs.iter().map(ToString::to_string).collect() };
    format!("{own} {letters} {}", jobs.join(","))
}

/// The rings of another node.
fn read(text: &str, own: ServerId) -> Option<Rings> {
    let mut words = text.split(' ');
    let (from, letters) = (words.next()?.parse::<ServerId>().ok()?, words.next()?);
    if from == own {
        return None;
    }
    let rings = |letter: char| letters.contains(letter);
    Some(Rings {
        status: rings('s'),
        queue: rings('q'),
        schedules: rings('t'),
        deliveries: rings('w'),
        deletions: rings('d'),
        jobs: words.next().unwrap_or_default().split(',').filter_map(|job| job.parse().ok()).collect(),
        all_jobs: rings('a'),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_what_rings_on_other_nodes() {
        let (here, there) = (ServerId::random(), ServerId::random());
        let rings =
            Rings { status: true, deliveries: true, jobs: vec![JobId::random(), JobId::random()], ..Rings::default() };
        let text = write(&rings, here);
        assert_eq!(read(&text, there), Some(rings));
        assert_eq!(read(&text, here), None, "one's own are rung already");
        assert_eq!(read("nonsense", there), None);
    }

    #[test]
    fn a_notification_is_small_however_many_jobs_ring() {
        let rings = Rings { jobs: (0..10_000).map(|_| JobId::random()).collect(), ..Rings::default() };
        let text = write(&rings, ServerId::random());
        assert!(text.len() < 8_000);
        assert!(read(&text, ServerId::random()).is_some_and(|rings| rings.all_jobs));
        let most = Rings { jobs: (0..MOST_JOBS).map(|_| JobId::random()).collect(), ..Rings::default() };
        assert!(write(&most, ServerId::random()).len() < 8_000);
    }
}
