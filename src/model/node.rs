//! Nodes: the server processes that work on one database.

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
}

impl Node {
    /// Whether its lease is over at this moment.
    pub fn is_late(&self, now: Timestamp) -> bool {
        self.lease_until < now
    }
}
