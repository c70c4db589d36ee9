//! The same tests, on PostgreSQL: each server has a database of its own in a throwaway cluster, or in the one that
//! `JOBSTREAM_TEST_DATABASE_URL` names.

#[path = "main.rs"]
mod suite;

use suite::{history, meltano, nodes, pipeline_config, repositories, storm, support};
