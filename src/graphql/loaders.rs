//! Neighbours, many at a time: one statement for all the workspaces that a list of jobs asks for, or for the newest jobs of each
//! workspace of a list.
//!
//! Loaders are made anew for each request, so that nothing is shared between requests. All that a response shows is read from one snapshot:
//! what an object refers to is there, also while something else deletes it.

use std::collections::HashMap;
use std::sync::Arc;

use async_graphql::Context;
use futures_util::FutureExt;

use super::batch::Batches;
use crate::error::Error;
use crate::model::{
    DataComponent, Job, JobId, LogLines, Pipeline, PipelineId, Webhook, WebhookId, Workspace, WorkspaceId,
};
use crate::store::{
    ComponentPosition, JobFilter, JobPosition, LogRequest, Numbered, Page, PageRequest, PipelinePosition, Snapshot,
    WebhookPosition,
};

/// A page of jobs, and the position in the status stream at which it was read.
type JobPage = (Page<Numbered<Job>>, i64);

/// The loaders of one request.
pub(super) struct Loaders {
    snapshot: Arc<Snapshot>,
    workspaces: Batches<WorkspaceId, Workspace>,
    jobs: Batches<JobId, Job>,
    pipelines: Batches<PipelineId, Pipeline>,
    job_pages: Batches<(JobFilter, PageRequest<JobPosition>), JobPage>,
    job_counts: Batches<JobFilter, i64>,
    pipeline_pages: Batches<(WorkspaceId, PageRequest<PipelinePosition>), Page<Numbered<Pipeline>>>,
    pipeline_counts: Batches<WorkspaceId, i64>,
    triggers: Batches<PipelineId, Vec<String>>,
    webhook_pages: Batches<(WorkspaceId, PageRequest<WebhookPosition>), Page<Numbered<Webhook>>>,
    webhook_counts: Batches<WorkspaceId, i64>,
    delivery_counts: Batches<WebhookId, i64>,
    component_pages: Batches<(WorkspaceId, PageRequest<ComponentPosition>), Page<Numbered<DataComponent>>>,
    component_counts: Batches<WorkspaceId, i64>,
    logs: Batches<(JobId, LogRequest), (Job, LogLines)>,
}

impl Loaders {
    pub(super) fn new(snapshot: &Arc<Snapshot>) -> Self {
        Self {
            snapshot: Arc::clone(snapshot),
            workspaces: Batches::new(snapshot, |conn, ids| {
                async move { Ok(conn.workspaces_even_deleted(&ids).await?.into_iter().map(|it| (it.id, it)).collect()) }
                    .boxed()
            }),
            jobs: Batches::new(snapshot, |conn, ids| {
                async move { Ok(conn.jobs_by_id(&ids).await?.into_iter().map(|it| (it.id, it)).collect()) }.boxed()
            }),
            pipelines: Batches::new(snapshot, |conn, ids| {
                async move { Ok(conn.pipelines_by_id(&ids).await?.into_iter().map(|it| (it.id, it)).collect()) }.boxed()
            }),
            job_pages: Batches::new(snapshot, |conn, requests| {
                async move {
                    let pages = conn.jobs(&requests).await?;
                    let position = conn.last_change_position().await?;
                    Ok(requests.into_iter().zip(pages.into_iter().map(|page| (page, position))).collect())
                }
                .boxed()
            }),
            job_counts: Batches::new(snapshot, |conn, filters| {
                async move {
                    let counts = conn.count_jobs(&filters).await?;
                    Ok(filters.into_iter().zip(counts).collect())
                }
                .boxed()
            }),
            pipeline_pages: Batches::new(snapshot, |conn, requests| {
                async move {
                    let pages = conn.pipelines(&requests).await?;
                    Ok(requests.into_iter().zip(pages).collect())
                }
                .boxed()
            }),
            pipeline_counts: Batches::new(snapshot, |conn, workspaces| {
                async move {
                    let counts = conn.count_pipelines(&workspaces).await?;
                    Ok(workspaces.into_iter().zip(counts).collect())
                }
                .boxed()
            }),
            triggers: Batches::new(snapshot, |conn, ids| {
                async move {
                    let mut found: HashMap<PipelineId, Vec<String>> = HashMap::new();
                    for (pipeline, source) in conn.triggers_of(&ids).await? {
                        found.entry(pipeline).or_default().push(source);
                    }
                    Ok(found)
                }
                .boxed()
            }),
            webhook_pages: Batches::new(snapshot, |conn, requests| {
                async move {
                    let pages = conn.webhooks(&requests).await?;
                    Ok(requests.into_iter().zip(pages).collect())
                }
                .boxed()
            }),
            webhook_counts: Batches::new(snapshot, |conn, workspaces| {
                async move {
                    let counts = conn.count_webhooks(&workspaces).await?;
                    Ok(workspaces.into_iter().zip(counts).collect())
                }
                .boxed()
            }),
            delivery_counts: Batches::new(snapshot, |conn, webhooks| {
                async move {
                    let counts = conn.count_deliveries(&webhooks).await?;
                    Ok(webhooks.into_iter().zip(counts).collect())
                }
                .boxed()
            }),
            component_pages: Batches::new(snapshot, |conn, requests| {
                async move {
                    let pages = conn.data_components(&requests).await?;
                    Ok(requests.into_iter().zip(pages).collect())
                }
                .boxed()
            }),
            component_counts: Batches::new(snapshot, |conn, workspaces| {
                async move {
                    let counts = conn.count_data_components(&workspaces).await?;
                    Ok(workspaces.into_iter().zip(counts).collect())
                }
                .boxed()
            }),
            logs: Batches::new(snapshot, |conn, requests| {
                async move {
                    let found = conn.logs(&requests).await?;
                    Ok(found.into_iter().map(|(request, job, lines)| ((job.id, request), (job, lines))).collect())
                }
                .boxed()
            }),
        }
    }

    fn of<'c>(ctx: &Context<'c>) -> &'c Self {
        ctx.data_unchecked()
    }
}

/// The snapshot that the response is read from.
pub(super) fn snapshot<'c>(ctx: &Context<'c>) -> &'c Snapshot {
    &Loaders::of(ctx).snapshot
}

/// The workspace that something belongs to. The payload of a mutation may show what was deleted since: then the workspace as it was.
pub(super) async fn workspace(ctx: &Context<'_>, id: WorkspaceId) -> Result<Workspace, Error> {
    Loaders::of(ctx).workspaces.load(id).await?.ok_or_else(|| Error::not_found("workspace", id))
}

/// The workspace with this id, if it is there.
pub(super) async fn find_workspace(ctx: &Context<'_>, id: WorkspaceId) -> Result<Option<Workspace>, Error> {
    Ok(Loaders::of(ctx).workspaces.load(id).await?.filter(|it| it.deleted.is_none()))
}

/// The job with this id, if it is there.
pub(super) async fn job(ctx: &Context<'_>, id: JobId) -> Result<Option<Job>, Error> {
    Loaders::of(ctx).jobs.load(id).await
}

/// The pipeline with this id, if it is there.
pub(super) async fn pipeline(ctx: &Context<'_>, id: PipelineId) -> Result<Option<Pipeline>, Error> {
    Loaders::of(ctx).pipelines.load(id).await
}

/// A page of the jobs that meet a filter, and the position in the status stream at which it was read.
pub(super) async fn jobs(
    ctx: &Context<'_>,
    filter: JobFilter,
    request: PageRequest<JobPosition>,
) -> Result<JobPage, Error> {
    Loaders::of(ctx).job_pages.load((filter, request)).await?.ok_or_else(unanswered)
}

/// How many jobs meet a filter.
pub(super) async fn job_count(ctx: &Context<'_>, filter: JobFilter) -> Result<i64, Error> {
    Loaders::of(ctx).job_counts.load(filter).await?.ok_or_else(unanswered)
}

/// A page of a workspace's pipelines.
pub(super) async fn pipelines(
    ctx: &Context<'_>,
    workspace: WorkspaceId,
    request: PageRequest<PipelinePosition>,
) -> Result<Page<Numbered<Pipeline>>, Error> {
    Loaders::of(ctx).pipeline_pages.load((workspace, request)).await?.ok_or_else(unanswered)
}

/// How many pipelines a workspace has.
pub(super) async fn pipeline_count(ctx: &Context<'_>, workspace: WorkspaceId) -> Result<i64, Error> {
    Loaders::of(ctx).pipeline_counts.load(workspace).await?.ok_or_else(unanswered)
}

/// The names of the pipelines that trigger a pipeline.
pub(super) async fn triggers(ctx: &Context<'_>, pipeline: PipelineId) -> Result<Vec<String>, Error> {
    Ok(Loaders::of(ctx).triggers.load(pipeline).await?.unwrap_or_default())
}

/// A page of a workspace's webhooks.
pub(super) async fn webhooks(
    ctx: &Context<'_>,
    workspace: WorkspaceId,
    request: PageRequest<WebhookPosition>,
) -> Result<Page<Numbered<Webhook>>, Error> {
    Loaders::of(ctx).webhook_pages.load((workspace, request)).await?.ok_or_else(unanswered)
}

/// How many webhooks a workspace has.
pub(super) async fn webhook_count(ctx: &Context<'_>, workspace: WorkspaceId) -> Result<i64, Error> {
    Loaders::of(ctx).webhook_counts.load(workspace).await?.ok_or_else(unanswered)
}

/// How many deliveries wait for a webhook.
pub(super) async fn delivery_count(ctx: &Context<'_>, webhook: WebhookId) -> Result<i64, Error> {
    Loaders::of(ctx).delivery_counts.load(webhook).await?.ok_or_else(unanswered)
}

/// A page of a workspace's data components.
pub(super) async fn components(
    ctx: &Context<'_>,
    workspace: WorkspaceId,
    request: PageRequest<ComponentPosition>,
) -> Result<Page<Numbered<DataComponent>>, Error> {
    Loaders::of(ctx).component_pages.load((workspace, request)).await?.ok_or_else(unanswered)
}

/// How many data components a workspace has.
pub(super) async fn component_count(ctx: &Context<'_>, workspace: WorkspaceId) -> Result<i64, Error> {
    Loaders::of(ctx).component_counts.load(workspace).await?.ok_or_else(unanswered)
}

/// Lines of a job's log, and the job at the moment at which they were read. [`Error::NotFound`] if it is not there.
pub(super) async fn logs(ctx: &Context<'_>, job: JobId, request: LogRequest) -> Result<(Job, LogLines), Error> {
    Loaders::of(ctx).logs.load((job, request)).await?.ok_or_else(|| Error::not_found("job", job))
}

/// For what is there for every key.
fn unanswered() -> Error {
    Error::internal("a batch has no answer for one of its keys")
}
