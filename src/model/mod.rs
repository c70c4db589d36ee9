//! The nouns: workspaces, pipelines, jobs, status changes and log lines.
//!
//! A leaf, but for the names of the columns that its types are stored in: nothing here reads a database or a socket. Each enum is spelled once, for the database, Rust and GraphQL.

mod activity;
mod component;
mod cursor;
mod failure;
mod ids;
mod job;
mod log;
mod masking;
mod names;
pub mod naming;
mod node;
mod pipeline;
mod property;
mod quoted;
mod repository_url;
mod schedule;
mod time;
pub mod webhook;
mod workspace;

pub use activity::Activity;
pub use component::DataComponent;
pub use cursor::{stream_cursor, stream_position};
#[cfg(test)]
pub use failure::LONGEST_SUMMARY;
pub use failure::{Failure, one_line};
pub use ids::{
    ComponentId, DefinitionId, DeliveryId, Id, InvitationId, JobId, PipelineId, ServerId, WebhookId, WorkspaceId,
};
pub use job::{Job, StatusChange, SupervisorIdentity};
pub use log::{LogLine, LogLines};
pub use masking::{SHORTEST_MASKED, masked_parts, weakness};
pub use names::{
    ActivityKind, ActivityLevel, CauseType, JobStatus, JobStopReason, JobType, LogStream, PluginType, ResourceStatus,
    SettingKind,
};
pub use node::{HomeId, Node};
pub use pipeline::{Definition, Pipeline, script_lines};
pub use property::{Property, PropertyValue, Sealed, variable};
pub use quoted::Quoted;
pub use repository_url::RepositoryUrl;
pub use schedule::Schedule;
pub use time::{BootTime, Timestamp};
pub use webhook::{Delivery, Webhook, WebhookSecret};
pub use workspace::{Invitation, Workspace};
