//! The GraphQL schema, and how requests are carried out against it.
//!
//! Types and resolvers here, rules in `jobs`, rows from `store`. The transports see only [`Api`].

mod activity;
mod allowance;
mod api;
mod batch;
mod cache;
mod completion;
mod connection;
mod data_component;
mod data_plugin;
mod errors;
mod execution;
mod follow;
mod input;
mod invitation;
mod job;
mod limits;
mod lines;
mod live;
mod loaders;
mod log;
mod mutation;
mod node;
mod operation;
mod order;
mod persisted;
mod pipeline;
mod plan;
mod progress;
mod query;
mod root;
mod scalars;
mod status_change;
mod subscription;
mod variables;
mod webhook;
mod workspace;

pub use api::{Api, Prepared, Settings, sdl};
pub use operation::{Answer, Caller, Operation, Refusal};
