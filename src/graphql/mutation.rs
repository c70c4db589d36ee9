//! Mutations. Each takes one input and answers with its own payload; what is answered is stored.

use async_graphql::{Context, ID, MaybeUndefined, Object, Result, SimpleObject};

use super::data_component::DataComponent;
use super::input::{
    CreateDataComponentInput, CreateInvitationInput, CreateJobInput, CreatePipelineInput, CreateWebhookInput,
    CreateWorkspaceInput, DeleteDataComponentInput, DeleteJobInput, DeletePipelineInput, DeleteWebhookInput,
    DeleteWorkspaceInput, StopJobInput, UpdateDataComponentInput, UpdatePipelineInput, UpdateWebhookInput,
    UpdateWorkspaceInput, VerifyPipelineInput, nullable, or_default,
};
use super::invitation::Invitation;
use super::job::Job;
use super::loaders;
use super::pipeline::Pipeline;
use super::scalars::{Ids, id};
use super::webhook::Webhook;
use super::workspace::Workspace;
use crate::error::{Error, Problem, both};
use crate::jobs::{Jobs, NewPipeline, NewWebhook, WebhookChanges, check_email};
use crate::model::{ActivityLevel, WebhookSecret};

pub(super) struct Mutation;

/// What can be changed.
#[Object]
impl Mutation {
    /// Creates a workspace, and queues its three jobs: `WORKSPACE_INIT`, and the two user tasks.
    async fn create_workspace(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What is to be created.")] input: CreateWorkspaceInput,
    ) -> Result<CreateWorkspacePayload> {
        let (workspace, jobs) = jobs(ctx).create_workspace(input.name, input.repository_url).await?;
        Ok(CreateWorkspacePayload { workspace: Workspace(workspace), jobs: jobs.into_iter().map(Job).collect() })
    }

    /// Changes a workspace. One that is FAILED, or whose repository is to be elsewhere, is provisioned again: a `WORKSPACE_INIT` job is queued.
    async fn update_workspace(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What is to change.")] input: UpdateWorkspaceInput,
    ) -> Result<UpdateWorkspacePayload> {
        let (workspace, name, url) = input.parts();
        let jobs = jobs(ctx);
        let (workspace, changes) = both(id("input.id", &workspace), jobs.workspace_changes(name, url))?;
        let workspace = jobs.update_workspace(workspace, changes).await?;
        Ok(UpdateWorkspacePayload { workspace: Workspace(workspace) })
    }

    /// Deletes a workspace with all that it owns. What runs is stopped first.
    async fn delete_workspace(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What is to be deleted.")] input: DeleteWorkspaceInput,
    ) -> Result<DeleteWorkspacePayload> {
        let workspace = id("input.id", &input.id)?;
        jobs(ctx).delete_workspace(workspace).await?;
        Ok(DeleteWorkspacePayload { deleted_workspace_id: workspace.to_string().into() })
    }

    /// Creates a pipeline, and queues its `PIPELINE_CONFIG` job. The workspace need not be READY yet.
    async fn create_pipeline(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What is to be created.")] input: CreatePipelineInput,
    ) -> Result<CreatePipelinePayload> {
        let workspace = id("input.workspaceId", &input.workspace_id);
        let new = NewPipeline::from(input);
        // What is wrong with the rest is found together with what only the workspace can tell, if there is one.
        let workspace = match workspace {
            Ok(workspace) => workspace,
            malformed => both(malformed, new.check())?.0,
        };
        let (pipeline, job, warnings) = jobs(ctx).create_pipeline(workspace, new).await?;
        Ok(CreatePipelinePayload { pipeline: Pipeline(pipeline), job: Job(job), warnings: warnings_of(warnings) })
    }

    /// Changes a pipeline. One that is FAILED, or gets another name, is configured again.
    async fn update_pipeline(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What is to change.")] input: UpdatePipelineInput,
    ) -> Result<UpdatePipelinePayload> {
        let pipeline = id("input.id", &input.id)?;
        let (pipeline, job, warnings) = jobs(ctx).update_pipeline(pipeline, input.into()).await?;
        Ok(UpdatePipelinePayload { pipeline: Pipeline(pipeline), job: job.map(Job), warnings: warnings_of(warnings) })
    }

    /// Deletes a pipeline and its jobs. What runs is stopped first.
    async fn delete_pipeline(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What is to be deleted.")] input: DeletePipelineInput,
    ) -> Result<DeletePipelinePayload> {
        let pipeline = id("input.id", &input.id)?;
        jobs(ctx).delete_pipeline(pipeline).await?;
        Ok(DeletePipelinePayload { deleted_pipeline_id: pipeline.to_string().into() })
    }

    /// Queues a `PIPELINE_VERIFY` job, which shows and tests the configuration of a pipeline.
    async fn verify_pipeline(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What is to be verified.")] input: VerifyPipelineInput,
    ) -> Result<VerifyPipelinePayload> {
        let job = jobs(ctx).verify_pipeline(id("input.id", &input.id)?).await?;
        Ok(VerifyPipelinePayload { job: Job(job) })
    }

    /// Creates a data component: an instance of a data plugin, with settings that pipelines need not repeat.
    async fn create_data_component(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What is to be created.")] input: CreateDataComponentInput,
    ) -> Result<CreateDataComponentPayload> {
        let workspace = id("input.workspaceId", &input.workspace_id)?;
        let properties = input.properties.unwrap_or_default().into_iter().map(Into::into).collect();
        let jobs = jobs(ctx);
        let (component, warnings) = jobs.create_data_component(workspace, input.name, input.plugin, properties).await?;
        Ok(CreateDataComponentPayload { data_component: DataComponent(component), warnings: warnings_of(warnings) })
    }

    /// Changes the settings of a data component. Jobs that start from now on have the new ones.
    async fn update_data_component(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What is to change.")] input: UpdateDataComponentInput,
    ) -> Result<UpdateDataComponentPayload> {
        let component = id("input.id", &input.id)?;
        let (component, warnings) = jobs(ctx).update_data_component(component, input.properties()).await?;
        Ok(UpdateDataComponentPayload { data_component: DataComponent(component), warnings: warnings_of(warnings) })
    }

    /// Deletes a data component. CONFLICT if a pipeline names it, or did when a run was queued that has not ended.
    async fn delete_data_component(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What is to be deleted.")] input: DeleteDataComponentInput,
    ) -> Result<DeleteDataComponentPayload> {
        let component = id("input.id", &input.id)?;
        jobs(ctx).delete_data_component(component).await?;
        Ok(DeleteDataComponentPayload { deleted_data_component_id: component.to_string().into() })
    }

    /// Creates a webhook, which is told what happens to pipelines from now on.
    async fn create_webhook(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What is to be created.")] input: CreateWebhookInput,
    ) -> Result<CreateWebhookPayload> {
        let mut ids = Ids::default();
        let workspace = ids.read("input.workspaceId", &input.workspace_id);
        let pipeline = ids.read_optional("input.pipelineId", input.pipeline_id.as_ref());
        let ((), (secret, shown)) = both(ids.finish(), webhook_secret(input.secret))?;
        let workspace = workspace.ok_or_else(|| Error::internal("an id without a problem was not read"))?;
        let new = NewWebhook { workspace, pipeline, url: input.url, level: input.level, secret };
        let webhook = jobs(ctx).create_webhook(new).await?;
        Ok(CreateWebhookPayload { webhook: Webhook(webhook), secret: shown })
    }

    /// Changes a webhook.
    async fn update_webhook(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What is to change.")] input: UpdateWebhookInput,
    ) -> Result<UpdateWebhookPayload> {
        let pipeline = match &input.pipeline_id {
            MaybeUndefined::Undefined => Ok(None),
            MaybeUndefined::Null => Ok(Some(None)),
            MaybeUndefined::Value(pipeline) => id("input.pipelineId", pipeline).map(|pipeline| Some(Some(pipeline))),
        };
        let secret = nullable(input.secret).map(webhook_secret).transpose();
        let (webhook, (pipeline, secret)) = both(id("input.id", &input.id), both(pipeline, secret))?;
        let (secret, shown) = secret.map_or((None, None), |(secret, shown)| (Some(secret), shown));
        let level = nullable(input.level).map(|level| level.unwrap_or(ActivityLevel::All));
        let changes = WebhookChanges { pipeline, url: or_default(input.url), level, secret };
        let webhook = jobs(ctx).update_webhook(webhook, changes).await?;
        Ok(UpdateWebhookPayload { webhook: Webhook(webhook), secret: shown })
    }

    /// Deletes a webhook. What it has not been told yet it is not told any more.
    async fn delete_webhook(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What is to be deleted.")] input: DeleteWebhookInput,
    ) -> Result<DeleteWebhookPayload> {
        let webhook = id("input.id", &input.id)?;
        jobs(ctx).delete_webhook(webhook).await?;
        Ok(DeleteWebhookPayload { deleted_webhook_id: webhook.to_string().into() })
    }

    /// Invites somebody to a workspace, which completes its `PROFILE_COLLABORATE` task if that still waits.
    async fn create_invitation(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Who is to be invited.")] input: CreateInvitationInput,
    ) -> Result<CreateInvitationPayload> {
        let (workspace, ()) = both(id("input.workspaceId", &input.workspace_id), check_email(&input.email))?;
        let (invitation, job) = jobs(ctx).create_invitation(workspace, input.email).await?;
        Ok(CreateInvitationPayload { invitation: Invitation(invitation), job: job.map(Job) })
    }

    /// Queues a run of a pipeline. PIPELINE_BUSY, with the `jobId`, if a run of it is QUEUED or RUNNING.
    async fn create_job(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What is to be run.")] input: CreateJobInput,
    ) -> Result<CreateJobPayload> {
        let job = jobs(ctx).create_job(id("input.pipelineId", &input.pipeline_id)?).await?;
        Ok(CreateJobPayload { job: Job(job) })
    }

    /// Stops a job. A queued one is STOPPED at once; a running one has its wish stored, is told to end, and is STOPPED when nothing
    /// that it started is left. JOB_NOT_ACTIVE if it has ended.
    async fn stop_job(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What is to be stopped.")] input: StopJobInput,
    ) -> Result<StopJobPayload> {
        let job = jobs(ctx).stop_job(id("input.id", &input.id)?).await?;
        Ok(StopJobPayload { job: Job(job) })
    }

    /// Deletes a job and its log. If it runs it is stopped first.
    async fn delete_job(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "What is to be deleted.")] input: DeleteJobInput,
    ) -> Result<DeleteJobPayload> {
        let job = id("input.id", &input.id)?;
        jobs(ctx).delete_job(job).await?;
        Ok(DeleteJobPayload { deleted_job_id: job.to_string().into() })
    }
}

/// The rules by which a mutation writes. What the payload shows is read after the write, from a new snapshot.
fn jobs<'c>(ctx: &Context<'c>) -> &'c Jobs {
    loaders::snapshot(ctx).close();
    ctx.data_unchecked()
}

/// The answer to `createWorkspace`.
#[derive(SimpleObject)]
struct CreateWorkspacePayload {
    /// The new workspace.
    workspace: Workspace,
    /// The jobs that were queued for it.
    jobs: Vec<Job>,
}

/// The answer to `updateWorkspace`.
#[derive(SimpleObject)]
struct UpdateWorkspacePayload {
    /// The workspace as it is now.
    workspace: Workspace,
}

/// The answer to `deleteWorkspace`.
#[derive(SimpleObject)]
struct DeleteWorkspacePayload {
    /// The id that the workspace had.
    deleted_workspace_id: ID,
}

/// Something in the input of a request that was executed, and that the user may want to change.
#[derive(SimpleObject)]
struct Warning {
    /// The path of the argument, such as `input.properties.0.value`.
    path: String,
    /// What to know about it. A value is never part of the message.
    message: String,
}

fn warnings_of(problems: Vec<Problem>) -> Vec<Warning> {
    problems.into_iter().map(|Problem { path, message }| Warning { path, message }).collect()
}

/// The answer to `createPipeline`.
#[derive(SimpleObject)]
struct CreatePipelinePayload {
    /// The new pipeline.
    pipeline: Pipeline,
    /// The job that configures it.
    job: Job,
    /// Sensitive values that are masked badly, because they are short or common. The request was executed all the same.
    warnings: Vec<Warning>,
}

/// The answer to `updatePipeline`.
#[derive(SimpleObject)]
struct UpdatePipelinePayload {
    /// The pipeline as it is now.
    pipeline: Pipeline,
    /// The job that configures it again, if one was queued.
    job: Option<Job>,
    /// Sensitive values that are masked badly, because they are short or common. The request was executed all the same.
    warnings: Vec<Warning>,
}

/// The answer to `deletePipeline`.
#[derive(SimpleObject)]
struct DeletePipelinePayload {
    /// The id that the pipeline had.
    deleted_pipeline_id: ID,
}

/// The answer to `createDataComponent`.
#[derive(SimpleObject)]
struct CreateDataComponentPayload {
    /// The new data component.
    data_component: DataComponent,
    /// Sensitive values that are masked badly, because they are short or common. The request was executed all the same.
    warnings: Vec<Warning>,
}

/// The answer to `updateDataComponent`.
#[derive(SimpleObject)]
struct UpdateDataComponentPayload {
    /// The data component as it is now.
    data_component: DataComponent,
    /// Sensitive values that are masked badly, because they are short or common. The request was executed all the same.
    warnings: Vec<Warning>,
}

/// The answer to `deleteDataComponent`.
#[derive(SimpleObject)]
struct DeleteDataComponentPayload {
    /// The id that the data component had.
    deleted_data_component_id: ID,
}

/// The secret that a user gives, or else a new one, which is shown to that user.
fn webhook_secret(given: Option<String>) -> Result<(WebhookSecret, Option<String>), Error> {
    let Some(text) = given else {
        let secret = WebhookSecret::generate();
        let shown = secret.as_str().to_owned();
        return Ok((secret, Some(shown)));
    };
    let secret = WebhookSecret::parse(text).map_err(|fault| Error::bad_input("input.secret", fault))?;
    Ok((secret, None))
}

/// The answer to `createWebhook`.
#[derive(SimpleObject)]
struct CreateWebhookPayload {
    /// The new webhook.
    webhook: Webhook,
    /// The secret, if the server has made it. It is never shown again.
    secret: Option<String>,
}

/// The answer to `updateWebhook`.
#[derive(SimpleObject)]
struct UpdateWebhookPayload {
    /// The webhook as it is now.
    webhook: Webhook,
    /// The secret, if the server has made it. It is never shown again.
    secret: Option<String>,
}

/// The answer to `deleteWebhook`.
#[derive(SimpleObject)]
struct DeleteWebhookPayload {
    /// The id that the webhook had.
    deleted_webhook_id: ID,
}

/// The answer to `verifyPipeline`.
#[derive(SimpleObject)]
struct VerifyPipelinePayload {
    /// The job that verifies it.
    job: Job,
}

/// The answer to `createInvitation`.
#[derive(SimpleObject)]
struct CreateInvitationPayload {
    /// The invitation.
    invitation: Invitation,
    /// The user task that is complete with it, if one waited.
    job: Option<Job>,
}

/// The answer to `createJob`.
#[derive(SimpleObject)]
struct CreateJobPayload {
    /// The job that was queued.
    job: Job,
}

/// The answer to `stopJob`.
#[derive(SimpleObject)]
struct StopJobPayload {
    /// The job: STOPPED, or RUNNING with its `stopRequested` set.
    job: Job,
}

/// The answer to `deleteJob`.
#[derive(SimpleObject)]
struct DeleteJobPayload {
    /// The id that the job had.
    deleted_job_id: ID,
}
