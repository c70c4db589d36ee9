//! The tests on SQLite, and the tests that do not depend on the database, which run here only.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test says what is wrong by panicking")]

mod access;
mod attacks;
mod broken_installation;
mod browser;
mod clients;
mod compression;
mod demo;
mod guide;
mod schema;
mod secrets;
#[path = "suite.rs"]
mod suite;

use suite::{history, meltano, nodes, pipeline_config, provisioning, repositories, storm, support};
