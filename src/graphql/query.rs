//! Queries.

use async_graphql::{Context, ID, Object, Result};
use futures_util::FutureExt;
use uuid::Uuid;

use super::connection::{self, PageArguments};
use super::data_component::DataComponent;
use super::data_plugin::{DataPlugin, data_plugins};
use super::invitation::Invitation;
use super::job::{Job, JobConnection, JobFilterArguments, jobs};
use super::node::Node;
use super::pipeline::{Pipeline, PipelineConnection, pipelines};
use super::scalars::id as read_id;
use super::webhook::Webhook;
use super::workspace::{Workspace, WorkspaceConnection, workspaces};
use super::{loaders, scalars};
use crate::model::{JobStatus, JobType, PluginType};

pub(super) struct Query;

/// What can be asked. A lookup by an id that nothing has is null.
#[Object]
impl Query {
    /// Whatever has this id.
    async fn node(&self, ctx: &Context<'_>, #[graphql(desc = "The id.")] id: ID) -> Result<Option<Node>> {
        let id: Uuid = Uuid::from_bytes(*scalars::id::<crate::model::Job>("id", &id)?.as_bytes());
        let read = loaders::snapshot(ctx).read(move |conn| {
            async move {
                if let Some(job) = conn.job(id.into()).await? {
                    return Ok(Some(Node::Job(Box::new(Job(job)))));
                }
                if let Some(pipeline) = conn.pipeline(id.into()).await? {
                    return Ok(Some(Node::Pipeline(Box::new(Pipeline(pipeline)))));
                }
                if let Some(workspace) = conn.workspace(id.into()).await? {
                    return Ok(Some(Node::Workspace(Workspace(workspace))));
                }
                if let Some(webhook) = conn.webhook(id.into()).await? {
                    return Ok(Some(Node::Webhook(Box::new(Webhook(webhook)))));
                }
                if let Some(component) = conn.data_component(id.into()).await? {
                    return Ok(Some(Node::DataComponent(Box::new(DataComponent(component)))));
                }
                Ok(conn.invitation(id.into()).await?.map(|it| Node::Invitation(Invitation(it))))
            }
            .boxed()
        });
        Ok(read.await?)
    }

    /// The data plugins that there are, by name: those that come with the server, and those that its operator has added.
    async fn data_plugins(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Only plugins of one of these types. An empty list matches none.")] r#type: Option<
            Vec<PluginType>,
        >,
    ) -> Vec<DataPlugin> {
        data_plugins(ctx, r#type)
    }

    /// The data component with this id.
    async fn data_component(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The data component's id.")] id: ID,
    ) -> Result<Option<DataComponent>> {
        let id = read_id("id", &id)?;
        let found = loaders::snapshot(ctx).read(move |conn| conn.data_component(id).boxed()).await?;
        Ok(found.map(DataComponent))
    }

    /// The job with this id.
    async fn job(&self, ctx: &Context<'_>, #[graphql(desc = "The job's id.")] id: ID) -> Result<Option<Job>> {
        Ok(loaders::job(ctx, read_id("id", &id)?).await?.map(Job))
    }

    /// Jobs, newest first: those that meet every condition. NOT_FOUND if there is no such workspace or pipeline.
    #[graphql(complexity = "connection::complexity(first, last, child_complexity)")]
    #[allow(clippy::too_many_arguments)]
    async fn jobs(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Only jobs of this workspace.")] workspace_id: Option<ID>,
        #[graphql(desc = "Only jobs of this pipeline.")] pipeline_id: Option<ID>,
        #[graphql(desc = "Only jobs of one of these types. An empty list matches none.")] r#type: Option<Vec<JobType>>,
        #[graphql(desc = "Only jobs with one of these statuses. An empty list matches none.")] status: Option<
            Vec<JobStatus>,
        >,
        #[graphql(desc = "At most this many, from the front: 1 to 500, 50 by default.")] first: Option<i32>,
        #[graphql(desc = "Only what comes after this cursor.")] after: Option<String>,
        #[graphql(desc = "At most this many, from the back: 1 to 500.")] last: Option<i32>,
        #[graphql(desc = "Only what comes before this cursor.")] before: Option<String>,
    ) -> Result<JobConnection> {
        let filter = JobFilterArguments { workspace_id, pipeline_id, r#type, status };
        jobs(ctx, filter, PageArguments { first, after, last, before }).await
    }

    /// The workspace with this id.
    async fn workspace(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The workspace's id.")] id: ID,
    ) -> Result<Option<Workspace>> {
        Ok(loaders::find_workspace(ctx, read_id("id", &id)?).await?.map(Workspace))
    }

    /// All workspaces, newest first.
    #[graphql(complexity = "connection::complexity(first, last, child_complexity)")]
    async fn workspaces(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "At most this many, from the front: 1 to 500, 50 by default.")] first: Option<i32>,
        #[graphql(desc = "Only what comes after this cursor.")] after: Option<String>,
        #[graphql(desc = "At most this many, from the back: 1 to 500.")] last: Option<i32>,
        #[graphql(desc = "Only what comes before this cursor.")] before: Option<String>,
    ) -> Result<WorkspaceConnection> {
        workspaces(ctx, PageArguments { first, after, last, before }).await
    }

    /// The pipeline with this id.
    async fn pipeline(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The pipeline's id.")] id: ID,
    ) -> Result<Option<Pipeline>> {
        Ok(loaders::pipeline(ctx, read_id("id", &id)?).await?.map(Pipeline))
    }

    /// A workspace's pipelines, newest first. NOT_FOUND if there is no such workspace.
    #[graphql(complexity = "connection::complexity(first, last, child_complexity)")]
    async fn pipelines(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The workspace's id.")] workspace_id: ID,
        #[graphql(desc = "At most this many, from the front: 1 to 500, 50 by default.")] first: Option<i32>,
        #[graphql(desc = "Only what comes after this cursor.")] after: Option<String>,
        #[graphql(desc = "At most this many, from the back: 1 to 500.")] last: Option<i32>,
        #[graphql(desc = "Only what comes before this cursor.")] before: Option<String>,
    ) -> Result<PipelineConnection> {
        pipelines(ctx, &workspace_id, PageArguments { first, after, last, before }).await
    }
}
