//! Workspaces.

use async_graphql::connection::Connection;
use async_graphql::{Context, ID, Object, Result};
use futures_util::FutureExt;

use super::connection::{self, PageArguments, Position, connect};
use super::data_component::{DataComponentConnection, data_components_of};
use super::job::{JobConnection, JobFilterArguments, jobs_of_workspace};
use super::loaders;
use super::pipeline::{PipelineConnection, pipelines_of};
use super::webhook::{WebhookConnection, webhooks_of};
use crate::model::{self, JobStatus, JobType, ResourceStatus, Timestamp};

pub(super) struct Workspace(pub(super) model::Workspace);

pub(super) type WorkspaceConnection = Connection<Position<model::Workspace>, Workspace, WorkspaceCount>;

/// A workspace: it owns pipelines, jobs, and a git repository.
#[Object]
impl Workspace {
    /// Its id: a version 4 UUID.
    pub(super) async fn id(&self) -> ID {
        self.0.id.to_string().into()
    }

    /// When it was created.
    async fn created(&self) -> Timestamp {
        self.0.created
    }

    /// When a user last changed it.
    async fn last_modified(&self) -> Timestamp {
        self.0.last_modified
    }

    /// Its name, unique among workspaces.
    async fn name(&self) -> &str {
        &self.0.name
    }

    /// Its name as it can stand in an address: lower case letters and digits, with hyphens between the words. It is not
    /// unique, and follows the name.
    async fn alias(&self) -> &str {
        &self.0.alias
    }

    /// The git URL that its repository comes from and goes to, without a user's name and password. Null: it is the servers' own.
    async fn repository_url(&self) -> Option<String> {
        self.0.origin.as_ref().map(ToString::to_string)
    }

    /// PROVISIONING until its `WORKSPACE_INIT` job has ended, then READY or FAILED.
    async fn status(&self) -> ResourceStatus {
        self.0.status
    }

    /// Its jobs, newest first.
    #[graphql(complexity = "connection::complexity(first, last, child_complexity)")]
    #[allow(clippy::too_many_arguments)]
    async fn jobs(
        &self,
        ctx: &Context<'_>,
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
        let filter = JobFilterArguments { workspace_id: None, pipeline_id, r#type, status };
        jobs_of_workspace(ctx, self.0.id, filter, PageArguments { first, after, last, before }).await
    }

    /// Its pipelines, newest first.
    #[graphql(complexity = "connection::complexity(first, last, child_complexity)")]
    async fn pipelines(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "At most this many, from the front: 1 to 500, 50 by default.")] first: Option<i32>,
        #[graphql(desc = "Only what comes after this cursor.")] after: Option<String>,
        #[graphql(desc = "At most this many, from the back: 1 to 500.")] last: Option<i32>,
        #[graphql(desc = "Only what comes before this cursor.")] before: Option<String>,
    ) -> Result<PipelineConnection> {
        pipelines_of(ctx, self.0.id, PageArguments { first, after, last, before }).await
    }

    /// Its webhooks, newest first.
    #[graphql(complexity = "connection::complexity(first, last, child_complexity)")]
    async fn webhooks(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "At most this many, from the front: 1 to 500, 50 by default.")] first: Option<i32>,
        #[graphql(desc = "Only what comes after this cursor.")] after: Option<String>,
        #[graphql(desc = "At most this many, from the back: 1 to 500.")] last: Option<i32>,
        #[graphql(desc = "Only what comes before this cursor.")] before: Option<String>,
    ) -> Result<WebhookConnection> {
        webhooks_of(ctx, self.0.id, PageArguments { first, after, last, before }).await
    }

    /// Its data components, newest first.
    #[graphql(complexity = "connection::complexity(first, last, child_complexity)")]
    async fn data_components(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "At most this many, from the front: 1 to 500, 50 by default.")] first: Option<i32>,
        #[graphql(desc = "Only what comes after this cursor.")] after: Option<String>,
        #[graphql(desc = "At most this many, from the back: 1 to 500.")] last: Option<i32>,
        #[graphql(desc = "Only what comes before this cursor.")] before: Option<String>,
    ) -> Result<DataComponentConnection> {
        data_components_of(ctx, self.0.id, PageArguments { first, after, last, before }).await
    }
}

pub(super) struct WorkspaceCount;

/// What a list of workspaces says beside them.
#[Object]
impl WorkspaceCount {
    /// How many workspaces there are. It is counted only if it is asked for.
    async fn total_count(&self, ctx: &Context<'_>) -> Result<i64> {
        Ok(loaders::snapshot(ctx).read(|conn| conn.count_workspaces().boxed()).await?)
    }
}

/// A page of workspaces.
pub(super) async fn workspaces(ctx: &Context<'_>, page: PageArguments) -> Result<WorkspaceConnection> {
    let request = page.request(ctx)?;
    let page = loaders::snapshot(ctx).read(move |conn| conn.workspaces(request).boxed()).await?;
    Ok(connect(page, WorkspaceCount, |it| it.id, Workspace))
}
