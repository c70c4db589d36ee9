//! Jobs and the changes of their status.

use diesel::prelude::*;
use serde::{Deserialize, Serialize};

use super::{
    CauseType, DefinitionId, Failure, JobId, JobStatus, JobStopReason, JobType, PipelineId, ServerId, Timestamp,
    WorkspaceId,
};

/// A job as it is stored. Its state is the fields from `status` on.
#[derive(Debug, Clone, PartialEq, Queryable, Insertable)]
#[diesel(table_name = crate::store::schema::jobs, treat_none_as_default_value = false)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// The workspace it belongs to.
    pub workspace: WorkspaceId,
    /// The pipeline it belongs to: none for `WORKSPACE_INIT` and the user tasks.
    pub pipeline: Option<PipelineId>,
    /// The pipeline's definition as it was when the job was queued.
    pub definition: Option<DefinitionId>,
    /// What it does.
    pub type_: JobType,
    /// When it was created.
    pub created: Timestamp,
    /// How often it may be tried.
    pub max_attempts: i32,

    /// How far it is.
    pub status: JobStatus,
    /// The number of the current or next attempt, from 1.
    pub attempt: i32,
    /// Another try does not start before.
    pub not_before: Option<Timestamp>,
    /// From when on a runner may take it: none unless it is queued, and waits for nothing that is PROVISIONING or a person.
    pub ready: Option<Timestamp>,
    /// When the current attempt started.
    pub start_time: Option<Timestamp>,
    /// When it ended, once it is final.
    pub end_time: Option<Timestamp>,
    /// The exit code of the last attempt, once it is final; 128 + n for signal n.
    pub exit_code: Option<i32>,
    /// The commit it made in the workspace's repository.
    pub commit_id: Option<String>,
    /// When a stop was first wished.
    pub stop_requested: Option<Timestamp>,
    /// Why it is stopped.
    pub stop_reason: Option<JobStopReason>,
    /// When it was deleted: it is kept until the last of its processes is gone.
    pub deleted: Option<Timestamp>,

    /// The server process that runs it.
    pub owner: Option<ServerId>,
    /// The supervisor that holds its processes: its pid,
    pub supervisor_pid: Option<i32>,
    /// its start time in ticks after the boot,
    pub supervisor_start: Option<i64>,
    /// and the boot of the machine.
    pub supervisor_boot: Option<String>,

    /// Its latest change, by the number by which that arrived.
    pub latest_change: i64,
    /// When that was.
    pub changed_at: Timestamp,
    /// The status before that.
    pub previous_status: Option<JobStatus>,

    /// How many lines its log has, over all attempts.
    pub log_lines: i64,
    /// How many bytes of output its log has, over all attempts.
    pub log_bytes: i64,

    /// Why it was queued.
    pub cause: CauseType,
    /// The job whose completion triggered it. It may be gone.
    pub cause_job: Option<JobId>,
    /// The tick of the schedule that it was queued for.
    pub cause_tick: Option<Timestamp>,
    /// Why it ended with ERROR.
    pub failure: Option<Failure>,
    /// What people call the server that runs it, or ran it last.
    pub node: Option<String>,
}

/// What tells one supervisor process from every other that has been, or will be, on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SupervisorIdentity {
    /// Its process id.
    pub pid: i32,
    /// When it started, in ticks after the boot.
    pub start: i64,
    /// The machine's boot id.
    pub boot: String,
}

impl Job {
    /// The supervisor that holds, or held, the job's processes.
    pub fn supervisor(&self) -> Option<SupervisorIdentity> {
        Some(SupervisorIdentity {
            pid: self.supervisor_pid?,
            start: self.supervisor_start?,
            boot: self.supervisor_boot.clone()?,
        })
    }

    /// The job's latest change, which has this position, told as what a new subscriber begins with.
    pub fn change_at(&self, position: i64) -> StatusChange {
        StatusChange {
            position,
            job: self.id,
            workspace: self.workspace,
            pipeline: self.pipeline,
            status: self.status,
            previous_status: self.previous_status,
            attempt: self.attempt,
            at: self.changed_at,
            deleted: false,
        }
    }
}

/// One entry of the status stream.
#[derive(Debug, Clone, PartialEq, Queryable)]
pub struct StatusChange {
    /// Its place in the stream.
    pub position: i64,
    /// The job that changed.
    pub job: JobId,
    /// The job's workspace.
    pub workspace: WorkspaceId,
    /// The job's pipeline.
    pub pipeline: Option<PipelineId>,
    /// The status since this change.
    pub status: JobStatus,
    /// The status before it: none for a new job, and for a deletion.
    pub previous_status: Option<JobStatus>,
    /// The attempt it belongs to.
    pub attempt: i32,
    /// When it was.
    pub at: Timestamp,
    /// Whether the job was deleted with it.
    pub deleted: bool,
}
