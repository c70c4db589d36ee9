//! Pipelines and their definitions.

use std::time::Duration;

use jiff::tz::TimeZone;
use serde::{Deserialize, Deserializer, Serialize};

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
    /// A Bash script, run instead of the actions, with line feeds at the ends of its lines.
    #[serde(default, deserialize_with = "stored_script")]
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
    pub fn schedule_in(&self, zone: &TimeZone) -> Option<Schedule> {
        self.schedule.as_deref().and_then(|it| Schedule::read(it, zone.clone()))
    }

    /// How long one attempt of a run may take.
    pub fn run_timeout(&self) -> Duration {
        let seconds = if self.timeout == 0 { DEFAULT_TIMEOUT_SECONDS } else { self.timeout };
        Duration::from_secs(seconds.unsigned_abs().into())
    }
}

/// A script as Bash reads it: CR LF and CR become LF, and a byte order mark at the beginning goes. Bash takes both for a part of words, which
/// its check of the syntax does not find.
pub fn script_lines(script: String) -> String {
    if !script.contains('\r') && !script.starts_with(BYTE_ORDER_MARK) {
        return script;
    }
    script.trim_start_matches(BYTE_ORDER_MARK).replace("\r\n", "\n").replace('\r', "\n")
}

const BYTE_ORDER_MARK: char = '\u{feff}';

/// An earlier version stored scripts as they were given.
fn stored_script<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.map(script_lines))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_have_line_feeds() {
        assert_eq!(script_lines("\u{feff}a\r\nb\rc\n\r\n".to_owned()), "a\nb\nc\n\n");
        assert_eq!(script_lines("printf '\\r'\n".to_owned()), "printf '\\r'\n");
        let stored = r#"{"schedule":null,"timeout":0,"max_retries":0,"script":"a\r\nb","data_components":[],"actions":[],"properties":[]}"#;
        assert_eq!(serde_json::from_str::<Definition>(stored).unwrap().script.as_deref(), Some("a\nb"));
    }
}
