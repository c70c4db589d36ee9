//! The tests of both databases: a real server process each, through the public API. `sqlite.rs` and `postgres.rs` run them.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test says what is wrong by panicking")]

pub(crate) mod support;

mod activity;
mod answers;
mod check;
mod components;
mod consistency;
mod crash;
mod database_tls;
mod disk_full;
mod failure;
pub(crate) mod history;
mod http;
mod jobs;
mod limits;
mod lists;
mod log_stream;
mod logs;
mod masking;
pub(crate) mod meltano;
mod metrics;
mod names;
mod nested;
pub(crate) mod nodes;
mod outages;
mod pages;
mod persisted;
pub(crate) mod pipeline_config;
mod pipelines;
mod plugins;
mod pooler;
mod provisioning;
mod queue;
pub(crate) mod repositories;
mod repository_urls;
mod rescue;
mod rotation;
mod schedules;
mod sharing;
mod shutdown;
mod sockets;
mod sse;
mod stalls;
mod status_stream;
mod stop;
pub(crate) mod storm;
mod storms;
mod system_tasks;
mod triggers;
mod upgrade;
mod vacuum;
mod webhooks;
mod websocket;
mod workspaces;
