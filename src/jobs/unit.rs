//! One change of job state: a transaction, the entries it makes in the status stream, the bells it rings, and what it counts as.

use std::collections::BTreeMap;

use crate::error::Error;
use crate::events::Rings;
use crate::model::{
    CauseType, DefinitionId, Job, JobId, JobStatus, JobType, Pipeline, PipelineId, ResourceStatus, Timestamp,
    Workspace, WorkspaceId,
};
use crate::store::Conn;

use super::schedules::Cause;
use super::state;
use super::tally::Tally;

/// A change in the making.
pub(super) struct Unit<'c> {
    pub(super) conn: &'c mut Conn,
    pub(super) now: Timestamp,
    /// The workspaces whose jobs nobody else changes until this is stored; with when they were served, if they are now.
    pub(super) held: BTreeMap<WorkspaceId, Option<Timestamp>>,
    /// See [`Rules::fenced`](super::Rules::fenced).
    pub(super) fenced: bool,
    pub(super) rings: Rings,
    pub(super) tally: Tally,
}

/// A job as it is when it is queued.
pub(super) fn new_job(
    id: JobId,
    workspace: WorkspaceId,
    pipeline: Option<PipelineId>,
    definition: Option<DefinitionId>,
    type_: JobType,
    max_attempts: i32,
    now: Timestamp,
) -> Job {
    Job {
        id,
        workspace,
        pipeline,
        definition,
        type_,
        created: now,
        max_attempts,
        status: JobStatus::Queued,
        attempt: 1,
        not_before: None,
        ready: None,
        start_time: None,
        end_time: None,
        exit_code: None,
        commit_id: None,
        stop_requested: None,
        stop_reason: None,
        deleted: None,
        owner: None,
        supervisor_pid: None,
        supervisor_start: None,
        supervisor_boot: None,
        latest_change: 0,
        changed_at: now,
        previous_status: None,
        log_lines: 0,
        log_bytes: 0,
        cause: CauseType::User,
        cause_job: None,
        cause_tick: None,
        failure: None,
        node: None,
    }
}

/// How many attempts a job has.
fn max_attempts(type_: JobType, pipeline: Option<&Pipeline>) -> i32 {
    match pipeline {
        Some(pipeline) if type_ == JobType::PipelineRun => pipeline.definition.max_retries + 1,
        _ if JobType::SYSTEM_TASKS.contains(&type_) => state::SYSTEM_TASK_ATTEMPTS,
        _ => 1,
    }
}

impl Unit<'_> {
    /// Queues a job of a workspace.
    pub(super) async fn queue_for_workspace(&mut self, workspace: WorkspaceId, type_: JobType) -> Result<Job, Error> {
        let now = self.conn.now().await?;
        let max_attempts = max_attempts(type_, None);
        self.queue(new_job(JobId::random(), workspace, None, None, type_, max_attempts, now)).await
    }

    /// Queues a job of a pipeline, with its definition as it is now.
    pub(super) async fn queue_for_pipeline(
        &mut self,
        pipeline: &Pipeline,
        type_: JobType,
        cause: Cause,
    ) -> Result<Job, Error> {
        let max_attempts = max_attempts(type_, Some(pipeline));
        let definition = Some(pipeline.definition_id);
        let now = self.conn.now().await?;
        let (workspace, id) = (pipeline.workspace, Some(pipeline.id));
        let job = new_job(JobId::random(), workspace, id, definition, type_, max_attempts, now);
        self.queue(Job { cause: cause.type_, cause_job: cause.job, cause_tick: cause.tick, ..job }).await
    }

    async fn queue(&mut self, mut job: Job) -> Result<Job, Error> {
        job.latest_change = self.conn.insert_status_change(&job, None, job.created, false).await?;
        job.ready = self.readiness(&job).await?;
        self.conn.insert_job(&job).await?;
        self.rings.status = true;
        self.rings.queue = true;
        Ok(job)
    }

    /// Stores the next state of a job, with its entry in the status stream if the status changes.
    pub(super) async fn change(&mut self, before: &Job, mut after: Job) -> Result<Job, Error> {
        self.rings.jobs.push(before.id);
        after.ready = self.readiness(&after).await?;
        if after.status == before.status {
            self.conn.update_job(before, &after).await?;
            return Ok(after);
        }
        if !state::allowed(before.type_, before.status, after.status) {
            return Err(Error::internal(format!(
                "a {} cannot go from {} to {}",
                before.type_, before.status, after.status
            )));
        }
        after.latest_change = self.conn.insert_status_change(&after, Some(before.status), self.now, false).await?;
        after.changed_at = self.now;
        after.previous_status = Some(before.status);
        self.conn.update_job(before, &after).await?;
        self.tell_of_job(&after).await?;
        self.tally.changed(before, &after);
        self.rings.status = true;
        // Its end may let another start, and so may its being queued again.
        self.rings.queue |= after.status != JobStatus::Running;
        if after.status.is_final() {
            self.follow(&after).await?;
            self.trigger(&after).await?;
            if after.deleted.is_some() {
                self.conn.insert_status_change(&after, None, self.now, true).await?;
                self.rings.deletions = true;
            }
        }
        Ok(after)
    }

    /// Marks a job as deleted: gone for users, and stopped first if it is active.
    pub(super) async fn delete(&mut self, job: &Job) -> Result<(), Error> {
        let deleted = Job { deleted: Some(self.now), ..job.clone() };
        if job.status.is_final() {
            self.conn.update_job(job, &deleted).await?;
            self.conn.insert_status_change(&deleted, None, self.now, true).await?;
            self.rings.jobs.push(job.id);
            self.rings.status = true;
            self.rings.deletions = true;
        } else {
            let stopped = state::stop(&deleted, crate::model::JobStopReason::Requested, self.now)?;
            self.change(job, stopped).await?;
        }
        Ok(())
    }

    /// The status of a workspace or pipeline follows the job that provisions it.
    async fn follow(&mut self, ended: &Job) -> Result<(), Error> {
        if !JobType::REPOSITORY_TASKS.contains(&ended.type_) || self.conn.other_active_job(ended).await? {
            return Ok(());
        }
        let status = match ended.status {
            JobStatus::Complete => ResourceStatus::Ready,
            _ => ResourceStatus::Failed,
        };
        match ended.pipeline {
            None => self.conn.set_workspace_status(ended.workspace, status).await?,
            Some(pipeline) => self.conn.set_pipeline_status(pipeline, status).await?,
        }
        self.sort_queue(ended.workspace, ended.pipeline).await
    }

    /// From here on nobody else changes the jobs of this workspace. Says whether what was read of them before may be out of date.
    pub(super) async fn hold(&mut self, workspace: WorkspaceId) -> Result<bool, Error> {
        if self.held.contains_key(&workspace) {
            return Ok(false);
        }
        self.held.insert(workspace, None);
        let waited = self.conn.lock_workspace(workspace).await?;
        if waited {
            self.now = self.conn.now().await?;
        }
        Ok(waited)
    }

    /// The workspace with this id.
    pub(super) async fn workspace(&mut self, id: WorkspaceId) -> Result<Workspace, Error> {
        self.hold(id).await?;
        self.conn.workspace(id).await?.ok_or_else(|| Error::not_found("workspace", id))
    }

    /// The pipeline with this id.
    pub(super) async fn pipeline(&mut self, id: PipelineId) -> Result<Pipeline, Error> {
        let unknown = || Error::not_found("pipeline", id);
        let pipeline = self.conn.pipeline(id).await?.ok_or_else(unknown)?;
        if self.hold(pipeline.workspace).await? {
            return self.conn.pipeline(id).await?.ok_or_else(unknown);
        }
        Ok(pipeline)
    }

    /// The job with this id.
    pub(super) async fn job(&mut self, id: JobId) -> Result<Job, Error> {
        let unknown = || Error::not_found("job", id);
        let job = self.conn.job(id).await?.ok_or_else(unknown)?;
        if self.hold(job.workspace).await? {
            return self.conn.job(id).await?.ok_or_else(unknown);
        }
        Ok(job)
    }

    /// Refuses to queue anything in a workspace that is FAILED.
    pub(super) async fn workspace_not_failed(&mut self, id: WorkspaceId) -> Result<Workspace, Error> {
        let workspace = self.workspace(id).await?;
        match workspace.status {
            ResourceStatus::Failed => Err(Error::NotReady(
                "The workspace is FAILED. See the log of its WORKSPACE_INIT job, then update the workspace.".to_owned(),
            )),
            _ => Ok(workspace),
        }
    }

    /// Completes the oldest user task of this type, if one waits.
    pub(super) async fn complete_user_task(
        &mut self,
        workspace: WorkspaceId,
        type_: JobType,
    ) -> Result<Option<Job>, Error> {
        match self.conn.waiting_user_task(workspace, type_).await? {
            Some(task) => {
                let done = state::complete_user_task(&task, self.now);
                Ok(Some(self.change(&task, done).await?))
            }
            None => Ok(None),
        }
    }
}
