//! The tests: a real server process each, through the public API.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test says what is wrong by panicking")]

mod support;

mod access;
mod http;
mod jobs;
mod lists;
mod log_stream;
mod pipeline_config;
mod pipelines;
mod schema;
mod status_stream;
mod websocket;
mod workspaces;
