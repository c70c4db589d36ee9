//! Workspaces, and invitations to them.

use futures_util::FutureExt;

use super::pipelines::taken;
use super::{Jobs, Unit, validate};
use crate::error::Error;
use crate::model::{
    Invitation, InvitationId, Job, JobType, PipelineId, RepositoryUrl, ResourceStatus, Workspace, WorkspaceId, naming,
};

/// What is to change in a workspace: what is here has been looked at.
#[derive(Debug)]
pub struct WorkspaceChanges {
    name: Option<String>,
    origin: Option<Option<RepositoryUrl>>,
}

impl Jobs {
    /// Creates a workspace, and queues the job that makes its repository and one user task of each kind.
    pub async fn create_workspace(
        &self,
        name: String,
        repository_url: Option<String>,
    ) -> Result<(Workspace, Vec<Job>), Error> {
        let name = naming::normalize(&name).into_owned();
        let origin = validate::workspace(Some(&name), repository_url, self.rules.file_repositories)?;
        self.commit(move |unit| {
            async move {
                unit.workspace_name_is_free(&name, None).await?;
                let workspace = Workspace {
                    id: WorkspaceId::random(),
                    created: unit.now,
                    last_modified: unit.now,
                    alias: Workspace::alias_of(&name),
                    name,
                    status: ResourceStatus::Provisioning,
                    deleted: None,
                    origin,
                };
                unit.conn.insert_workspace(&workspace).await?;
                unit.conn.insert_queue(workspace.id, unit.now).await?;
                unit.hold(workspace.id).await?;
                let mut jobs = Vec::new();
                for type_ in [JobType::WorkspaceInit, JobType::ProfileCollaborate, JobType::ProfileImport] {
                    jobs.push(unit.queue_for_workspace(workspace.id, type_).await?);
                }
                Ok((workspace, jobs))
            }
            .boxed()
        })
        .await
    }

    /// Changes to a workspace, if they can be made: its name, and the URL of its repository, or that there is to be none.
    pub fn workspace_changes(
        &self,
        name: Option<String>,
        repository_url: Option<Option<String>>,
    ) -> Result<WorkspaceChanges, Error> {
        let name = name.map(|name| naming::normalize(&name).into_owned());
        let is_given = repository_url.is_some();
        let origin = validate::workspace(name.as_deref(), repository_url.flatten(), self.rules.file_repositories)?;
        Ok(WorkspaceChanges { name, origin: is_given.then_some(origin) })
    }

    /// Changes a workspace; without changes, only marks it as modified. One that is FAILED, or whose repository is to be elsewhere, is provisioned
    /// again.
    pub async fn update_workspace(&self, id: WorkspaceId, changes: WorkspaceChanges) -> Result<Workspace, Error> {
        self.commit(move |unit| {
            async move {
                let before = unit.workspace(id).await?;
                unit.conn.touch_workspace(id, unit.now).await?;
                if let Some(name) = changes.name.filter(|name| *name != before.name) {
                    unit.workspace_name_is_free(&name, Some(id)).await?;
                    unit.conn.rename_workspace(id, &name, &Workspace::alias_of(&name)).await?;
                }
                let moved = changes.origin.filter(|origin| *origin != before.origin);
                if let Some(origin) = &moved {
                    unit.conn.set_workspace_origin(id, origin.as_ref()).await?;
                }
                if before.status == ResourceStatus::Failed || moved.is_some() {
                    unit.conn.set_workspace_status(id, ResourceStatus::Provisioning).await?;
                    unit.sort_queue(id, None).await?;
                    unit.queue_for_workspace(id, JobType::WorkspaceInit).await?;
                }
                unit.workspace(id).await
            }
            .boxed()
        })
        .await
    }

    /// Deletes a workspace and all that it owns. What runs is stopped first.
    pub async fn delete_workspace(&self, id: WorkspaceId) -> Result<(), Error> {
        self.commit(move |unit| {
            async move {
                unit.workspace(id).await?;
                unit.conn.mark_workspace_deleted(id, unit.now).await?;
                unit.conn.remove_webhooks_of(id).await?;
                unit.conn.mark_pipelines_of_workspace_deleted(id, unit.now).await?;
                unit.delete_jobs(id, None).await
            }
            .boxed()
        })
        .await
    }

    /// Invites somebody to a workspace, which completes the user task that asks for it, if it still waits.
    pub async fn create_invitation(
        &self,
        workspace: WorkspaceId,
        email: String,
    ) -> Result<(Invitation, Option<Job>), Error> {
        validate::email(&email)?;
        self.commit(move |unit| {
            async move {
                unit.workspace(workspace).await?;
                let invitation = Invitation { id: InvitationId::random(), workspace, created: unit.now, email };
                unit.conn.insert_invitation(&invitation).await?;
                let task = unit.complete_user_task(workspace, JobType::ProfileCollaborate).await?;
                Ok((invitation, task))
            }
            .boxed()
        })
        .await
    }
}

impl Unit<'_> {
    async fn workspace_name_is_free(&mut self, name: &str, except: Option<WorkspaceId>) -> Result<(), Error> {
        match self.conn.workspace_named(name, except).await? {
            Some(existing) => Err(Error::Conflict(taken("There is a workspace", name, &existing))),
            None => Ok(()),
        }
    }

    /// Deletes all jobs of a workspace, or of one of its pipelines.
    pub(super) async fn delete_jobs(
        &mut self,
        workspace: WorkspaceId,
        pipeline: Option<PipelineId>,
    ) -> Result<(), Error> {
        for job in self.conn.active_jobs(Some(workspace), pipeline).await? {
            self.delete(&job).await?;
        }
        self.conn.insert_deletions_of_final_jobs(workspace, pipeline, self.now).await?;
        self.conn.mark_final_jobs_deleted(workspace, pipeline, self.now).await?;
        self.rings.all_jobs = true;
        self.rings.status = true;
        self.rings.deletions = true;
        Ok(())
    }
}
