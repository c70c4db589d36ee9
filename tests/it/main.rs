//! The tests: a real server process each, through the public API.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test says what is wrong by panicking")]

mod support;

mod access;
mod answers;
mod browser;
mod clients;
mod compression;
mod crash;
mod disk_full;
mod history;
mod http;
mod jobs;
mod limits;
mod lists;
mod log_stream;
mod logs;
mod metrics;
mod nested;
mod pages;
mod persisted;
mod pipeline_config;
mod pipelines;
mod queue;
mod rescue;
mod schema;
mod sharing;
mod shutdown;
mod sockets;
mod sse;
mod status_stream;
mod stop;
mod websocket;
mod workspaces;
