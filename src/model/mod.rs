//! The nouns: workspaces, pipelines, jobs, status changes and log lines.
//!
//! A leaf, but for the names of the columns that its types are stored in: nothing here reads a database or a socket. Each enum is spelled once, for the database, Rust and GraphQL.

mod ids;
mod job;
mod log;
mod names;
mod pipeline;
mod time;
mod workspace;

pub use ids::{DefinitionId, Id, InvitationId, JobId, PipelineId, ServerId, WorkspaceId};
pub use job::{Failure, Job, StatusChange, SupervisorIdentity};
pub use log::{LogLine, LogLines};
pub use names::{ActivityLevel, CauseType, JobStatus, JobStopReason, JobType, LogStream, ResourceStatus};
pub use pipeline::{Definition, Pipeline, Property};
pub use time::Timestamp;
pub use workspace::{Invitation, Workspace};
