//! The tests on PostgreSQL: each server has a database of its own in a throwaway cluster, or in the
//! one that `JOBSTREAM_TEST_DATABASE_URL` names. Tests that do not depend on the database are in
//! `sqlite.rs` only.

#[path = "suite.rs"]
#[allow(dead_code, reason = "some of the support is for tests that do not depend on the database")]
mod suite;

use suite::{history, meltano, nodes, pipeline_config, repositories, storm, support};
