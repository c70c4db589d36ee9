//! Pipelines.

use async_graphql::connection::Connection;
use async_graphql::{Context, ID, Object, Result, SimpleObject};
use futures_util::FutureExt;

use super::connection::{self, PageArguments, Position, connect};
use super::job::{JobConnection, JobFilterArguments, jobs_of_pipeline};
use super::workspace::Workspace;
use super::{loaders, scalars};
use crate::error::{Error, both};
use crate::jobs::Jobs;
use crate::model::{self, JobStatus, JobType, ResourceStatus, Timestamp, WorkspaceId};
use crate::store::{Numbered, Page};

pub(super) struct Pipeline(pub(super) model::Pipeline);

pub(super) type PipelineConnection = Connection<Position<model::Pipeline>, Pipeline, PipelineCount>;

/// A pipeline: a script, or actions of data components, that jobs run.
#[Object]
impl Pipeline {
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

    /// Its name, unique in its workspace.
    async fn name(&self) -> &str {
        &self.0.name
    }

    /// PROVISIONING until its latest `PIPELINE_CONFIG` job has ended, then READY or FAILED.
    async fn status(&self) -> ResourceStatus {
        self.0.status
    }

    /// When it runs by itself: a cron expression, read in the server's time zone. `0 0 9-17 * * MON-FRI` is on the hour, nine to five, on
    /// weekdays. There are six fields: second (0-59), minute (0-59), hour (0-23), day of month (1-31), month (1-12 or JAN-DEC) and day of week
    /// (0-7 or SUN-SAT; 0 and 7 are Sunday). A field is `*`, or a list of values, ranges `A-B` and steps `*/N` and `A-B/N`. A step is not larger than its
    /// range, and a range does not end before it begins. The day of month may be `L`, the last day, `LW`, the last weekday, and `15W`, the weekday next
    /// to the 15th; the day of week `FRI#2`, the second Friday, and `FRIL` or `5L`, the last one. `?` in these two is `*`. If neither of
    /// these two is `*`, a day that either of them names is enough, also where one is `*/2`; with `+` before the day of week it takes both.
    async fn schedule(&self) -> Option<&str> {
        self.0.definition.schedule.as_deref()
    }

    /// The seconds after which an attempt is stopped. 0 means 300.
    async fn timeout(&self) -> i32 {
        self.0.definition.timeout
    }

    /// How often a run that ends with an error is tried again.
    async fn max_retries(&self) -> i32 {
        self.0.definition.max_retries
    }

    /// A Bash script that is run instead of the actions.
    async fn script(&self) -> Option<&str> {
        self.0.definition.script.as_deref()
    }

    /// The names of the data components, or of the data plugins themselves, that it uses.
    async fn data_components(&self) -> &[String] {
        &self.0.definition.data_components
    }

    /// Data component names or commands (`plugin:command`) to run, in order.
    async fn actions(&self) -> &[String] {
        &self.0.definition.actions
    }

    /// Its settings.
    async fn properties(&self) -> Vec<Property> {
        self.0.definition.properties.iter().map(Property::from).collect()
    }

    /// The names of the pipelines whose successful completion starts this one.
    async fn triggered_by(&self, ctx: &Context<'_>) -> Result<Vec<String>> {
        Ok(loaders::triggers(ctx, self.0.id).await?)
    }

    /// When its schedule starts it next, whatever its status: nothing if it has none.
    #[graphql(complexity = "connection::product(first, 1)")]
    async fn next_runs(
        &self,
        ctx: &Context<'_>,
        #[graphql(default = 5, desc = "How many: 1 to 100.")] first: i32,
    ) -> Result<Vec<Timestamp>> {
        let count = usize::try_from(first).ok().filter(|count| (1..=100).contains(count));
        let count = count.ok_or_else(|| Error::bad_input("first", "It is between 1 and 100."))?;
        Ok(ctx.data_unchecked::<Jobs>().next_runs(&self.0, count))
    }

    /// The workspace it belongs to.
    async fn workspace(&self, ctx: &Context<'_>) -> Result<Workspace> {
        Ok(Workspace(loaders::workspace(ctx, self.0.workspace).await?))
    }

    /// Its jobs, newest first.
    #[graphql(complexity = "connection::complexity(first, last, child_complexity)")]
    #[allow(clippy::too_many_arguments)]
    async fn jobs(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Only jobs of one of these types. An empty list matches none.")] r#type: Option<Vec<JobType>>,
        #[graphql(desc = "Only jobs with one of these statuses. An empty list matches none.")] status: Option<
            Vec<JobStatus>,
        >,
        #[graphql(desc = "At most this many, from the front: 1 to 500, 50 by default.")] first: Option<i32>,
        #[graphql(desc = "Only what comes after this cursor.")] after: Option<String>,
        #[graphql(desc = "At most this many, from the back: 1 to 500.")] last: Option<i32>,
        #[graphql(desc = "Only what comes before this cursor.")] before: Option<String>,
    ) -> Result<JobConnection> {
        let filter = JobFilterArguments { r#type, status, ..JobFilterArguments::default() };
        jobs_of_pipeline(ctx, self.0.id, filter, PageArguments { first, after, last, before }).await
    }
}

/// A setting of a pipeline, or of a data component.
#[derive(SimpleObject)]
pub(super) struct Property {
    /// Of a pipeline, `{datacomponent}.{setting}`; of a data component, the name of the setting. A job finds it in its environment:
    /// `tap-x.some-key` as TAP_X_SOME_KEY.
    name: String,
    /// The value: null if it is sensitive, for such a value can be written but never read.
    value: Option<String>,
    /// Whether the value is sensitive.
    sensitive: bool,
}

impl From<&model::Property> for Property {
    fn from(property: &model::Property) -> Self {
        let value = property.plain().map(str::to_owned);
        Self { name: property.name.clone(), sensitive: value.is_none(), value }
    }
}

pub(super) struct PipelineCount {
    workspace: WorkspaceId,
}

/// What a list of pipelines says beside them.
#[Object]
impl PipelineCount {
    /// How many pipelines the workspace has. It is counted only if it is asked for.
    async fn total_count(&self, ctx: &Context<'_>) -> Result<i64> {
        Ok(loaders::pipeline_count(ctx, self.workspace).await?)
    }
}

/// A page of the pipelines of a workspace, which may not be there.
pub(super) async fn pipelines(ctx: &Context<'_>, workspace: &ID, page: PageArguments) -> Result<PipelineConnection> {
    let (workspace, request) = both(scalars::id("workspaceId", workspace), page.request(ctx))?;
    let read = loaders::snapshot(ctx).read(move |conn| {
        async move {
            conn.workspace(workspace).await?.ok_or_else(|| Error::not_found("workspace", workspace))?;
            Ok(conn.pipelines(&[(workspace, request)]).await?.remove(0))
        }
        .boxed()
    });
    Ok(page_of(read.await?, workspace))
}

/// A page of the pipelines of a workspace, which is there.
pub(super) async fn pipelines_of(
    ctx: &Context<'_>,
    workspace: WorkspaceId,
    page: PageArguments,
) -> Result<PipelineConnection> {
    Ok(page_of(loaders::pipelines(ctx, workspace, page.request(ctx)?).await?, workspace))
}

fn page_of(page: Page<Numbered<model::Pipeline>>, workspace: WorkspaceId) -> PipelineConnection {
    connect(page, PipelineCount { workspace }, |it| it.id, Pipeline)
}
