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
    let known: Vec<String> = MigrationSource::<DB>::migrations(known)
        .map_err(Error::internal)?
        .iter()
        .map(|migration| migration.name().version().to_string())
        .collect();
    let applied = harness.applied_migrations().map_err(Error::internal)?;
    match applied.iter().map(ToString::to_string).find(|version| !known.contains(version)) {
        Some(version) => Err(Error::internal(format!(
            "the database has schema {version}, which this version does not know: it is newer"
        ))),
        None => Ok(()),
    }
}
