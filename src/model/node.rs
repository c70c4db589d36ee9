//! Nodes: the server processes that work on one database.

use std::time::Duration;

use diesel::prelude::*;

use super::{Id, ServerId, Timestamp};

/// A directory of a server's. Only its id is kept.
#[derive(Debug)]
pub struct Home;

/// The id of a data directory, which one server process at a time has, or of a directory that several share.
pub type HomeId = Id<Home>;

/// A server process.
#[derive(Debug, Clone, PartialEq, Queryable, Insertable)]
#[diesel(table_name = crate::store::schema::nodes, treat_none_as_default_value = false)]
pub struct Node {
    /// Its id, new at every start.
    pub id: ServerId,
    /// What people call it.
    pub name: String,
    /// When it was registered.
    pub started: Timestamp,
    /// Until when what it says of its jobs holds.
    pub lease_until: Timestamp,
    /// Its process id,
    pub pid: i32,
    /// its start time in ticks after the boot,
    pub pid_start: i64,
    /// and where both mean something: the boot of the machine, and the namespace of its process ids.
    pub machine: String,
    /// Its data directory.
    pub home: HomeId,
    /// Where that is.
    pub directory: String,
    /// The directory that it shares with the other nodes of its database.
    pub shared: Option<HomeId>,
    /// How long its leases last, in microseconds: 0 if that is not known.
    pub lease_length: i64,
}

impl Node {
    /// Whether its lease is over at this moment.
    pub fn is_late(&self, now: Timestamp) -> bool {
        self.lease_until < now
    }

    /// Whether its lease lasts beyond this moment, although it is known how long its leases last.
    pub fn has_lease_beyond(&self, longest: Timestamp) -> bool {
        self.lease_length > 0 && self.lease_until > longest
    }

    /// How long its leases last: no time, if that is not known.
    pub fn lease_length(&self) -> Duration {
        Duration::from_micros(self.lease_length.try_into().unwrap_or_default())
    }
}
