//! The tests: a real server process each, through the public API.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a test says what is wrong by panicking")]

pub(crate) mod support;

mod access;
mod activity;
mod answers;
mod attacks;
mod browser;
mod check;
mod clients;
mod components;
mod compression;
mod crash;
mod database_tls;
mod demo;
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
mod schedules;
mod schema;
mod sharing;
mod shutdown;
mod sockets;
mod sse;
mod stalls;
mod status_stream;
mod stop;
pub(crate) mod storm;
mod storms;
mod triggers;
mod webhooks;
mod websocket;
mod workspaces;
