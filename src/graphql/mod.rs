//! The GraphQL schema, and how requests are carried out against it.
//!
//! Types and resolvers here, rules in `jobs`, rows from `store`. The transports see only [`Api`].

mod api;
mod batch;
mod connection;
mod errors;
mod input;
mod invitation;
mod job;
mod limits;
mod lines;
mod loaders;
mod log;
mod mutation;
mod node;
mod order;
mod pipeline;
mod query;

mod scalars;
mod subscription;
mod workspace;

pub use api::{Api, sdl};
pub use errors::error_body;
