//! Bringing a database's schema up to date.

use diesel::backend::Backend;
use diesel::migration::MigrationSource;
use diesel_migrations::{EmbeddedMigrations, MigrationHarness};

use crate::error::Error;

/// Runs the migrations that the database has not seen. One that a newer version has been at is refused: it may hold what this one would
/// misread.
pub(super) fn run<DB: Backend>(
    harness: &mut impl MigrationHarness<DB>,
    known: EmbeddedMigrations,
) -> Result<(), Error> {
    refuse_newer(harness, &known)?;
    harness.run_pending_migrations(known).map_err(Error::internal)?;
    Ok(())
}

/// Refuses a schema that these migrations do not lead to.
pub(super) fn refuse_newer<DB: Backend>(
    harness: &mut impl MigrationHarness<DB>,
    known: &EmbeddedMigrations,
) -> Result<(), Error> {
    let applied = harness.applied_migrations().map_err(Error::internal)?;
    let applied: Vec<String> = applied.iter().map(ToString::to_string).collect();
    match Standing::of::<DB>(&applied, known)? {
        Standing::Newer(version) => Err(Error::internal(format!(
            "the database has schema {version}, which this version does not know: it is newer"
        ))),
        _ => Ok(()),
    }
}

/// Where migrations note what they have done.
pub(super) const NOTED: &str = "__diesel_schema_migrations";

/// How the schema of a database stands to the one that this program knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// There is none yet.
    Missing,
    /// So many migrations have yet to run.
    Older(usize),
    /// It is the same.
    Same,
    /// A newer version of the program has been at it, with this migration.
    Newer(String),
}

impl Standing {
    /// How a database stands where these migrations have run, to a program that knows those.
    pub(super) fn of<DB: Backend>(applied: &[String], known: &EmbeddedMigrations) -> Result<Self, Error> {
        let known = MigrationSource::<DB>::migrations(known).map_err(Error::internal)?;
        let known: Vec<String> = known.iter().map(|migration| migration.name().version().to_string()).collect();
        let unknown = applied.iter().find(|version| !known.contains(version));
        Ok(match (unknown, known.len() - applied.len().min(known.len())) {
            (Some(version), _) => Self::Newer(version.clone()),
            _ if applied.is_empty() => Self::Missing,
            (None, 0) => Self::Same,
            (None, left) => Self::Older(left),
        })
    }
}
