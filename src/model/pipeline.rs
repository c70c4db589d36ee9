//! Pipelines and their definitions.

use std::time::Duration;

use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

use super::{DefinitionId, PipelineId, Property, ResourceStatus, Schedule, Timestamp, WorkspaceId};

/// How long an attempt may take where the pipeline's `timeout` is 0.
pub const DEFAULT_TIMEOUT_SECONDS: i32 = 300;

/// A pipeline, with its present definition.
#[derive(Debug, Clone)]
pub struct Pipeline {
    /// Its id.
    pub id: PipelineId,
    /// The workspace it belongs to.
    pub workspace: WorkspaceId,
    /// When it was created.
    pub created: Timestamp,
    /// When a user last changed it.
    pub last_modified: Timestamp,
    /// Its name, unique in its workspace.
    pub name: String,
    /// Follows its `PIPELINE_CONFIG` jobs.
    pub status: ResourceStatus,
    /// Which version of its definition it has now.
    pub definition_id: DefinitionId,
    /// What it is to do.
    pub definition: Definition,
}

/// What a pipeline is to do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    /// Cron expression with seconds.
    pub schedule: Option<String>,
    /// Seconds an attempt may take; 0 means [`DEFAULT_TIMEOUT_SECONDS`].
    pub timeout: i32,
    /// How often a run that ends with an error is tried again.
    pub max_retries: i32,
    /// A Bash script, run instead of the actions.
    pub script: Option<String>,
    /// Names of the data components that it uses.
    pub data_components: Vec<String>,
    /// Data component names or commands (`plugin:command`), in order.
    pub actions: Vec<String>,
    /// Settings: `{datacomponent}.{setting}` and its value.
    pub properties: Vec<Property>,
}

impl Definition {
    /// The schedule in a time zone, if there is one that can be read.
    pub fn schedule_in(&self, zone: Tz) -> Option<Schedule> {
        self.schedule.as_deref().and_then(|it| Schedule::parse(it, zone).ok())
    }

    /// How long one attempt of a run may take.
    pub fn run_timeout(&self) -> Duration {
        let seconds = if self.timeout == 0 { DEFAULT_TIMEOUT_SECONDS } else { self.timeout };
        Duration::from_secs(seconds.unsigned_abs().into())
    }
}
