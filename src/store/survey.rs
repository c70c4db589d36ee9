//! What a database is like, for somebody who looks and changes nothing.

use std::path::Path;

use super::clock::Jump;
use super::migrations::Standing;
use super::postgres::{self, DatabaseUrl};
use super::sqlite;
use crate::error::Error;
use crate::model::HomeId;

/// What an embedded database is like.
#[derive(Debug)]
pub struct SqliteSurvey {
    /// How its schema stands to this program.
    pub schema: Standing,
    /// The fingerprint of the key that its sensitive values are sealed with.
    pub key: Option<String>,
    /// What it tells of its clock.
    pub clock: ClockSurvey,
}

/// What a database tells of the clock that its instants are from.
#[derive(Debug, Default)]
pub struct ClockSurvey {
    /// How many of the latest jobs were created later than now.
    pub jobs_ahead: i64,
    /// The jumps that servers have noted, the latest first, each with the server.
    pub jumps: Vec<(Jump, String)>,
}

/// How many of the latest jobs are looked at: no index tells when jobs were created.
pub(super) const LATEST_JOBS: i64 = 10_000;

/// What a PostgreSQL database is like.
#[derive(Debug)]
pub struct PostgresSurvey {
    /// The version of PostgreSQL, as a number: 150003 is 15.3.
    pub version: u32,
    /// The version of TLS, if that is used.
    pub tls: Option<String>,
    /// The locale of its messages.
    pub messages: String,
    /// Whether it is a replica, which cannot be written to.
    pub is_replica: bool,
    /// By how many seconds its clock is ahead of this machine's.
    pub ahead: f64,
    /// How many connections there may be, for users like this one.
    pub most_connections: u32,
    /// How many there are.
    pub connections: u32,
    /// Whether each connection has a session of its own.
    pub sessions: Result<(), Error>,
    /// Whether notifications arrive; nothing where there are no sessions.
    pub notifications: Option<Result<(), Error>>,
    /// How its schema stands to this program.
    pub schema: Standing,
    /// What the user lacks to make the schema, or to use it.
    pub lacks: Vec<String>,
    /// The fingerprint of the key that its sensitive values are sealed with.
    pub key: Option<String>,
    /// What it tells of its clock.
    pub clock: ClockSurvey,
    /// The servers that are registered, the oldest first.
    pub nodes: Vec<Colleague>,
}

/// A server that is registered.
#[derive(Debug)]
pub struct Colleague {
    /// What people call it.
    pub name: String,
    /// For how many seconds its lease holds; less than none if it is over.
    pub lease: f64,
    /// Its data directory.
    pub home: Option<HomeId>,
    /// The directory that it shares with the others.
    pub shared: Option<HomeId>,
}

impl SqliteSurvey {
    /// Looks at the database at `path`, which is there.
    pub fn at(path: &Path) -> Result<Self, Error> {
        sqlite::survey(path)
    }
}

impl PostgresSurvey {
    /// Looks at the database at `url`.
    pub async fn at(url: &DatabaseUrl) -> Result<Self, Error> {
        postgres::survey(url).await
    }
}
