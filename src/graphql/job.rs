//! Jobs.

use std::collections::BTreeSet;

use async_graphql::connection::Connection;
use async_graphql::{Context, ID, Object, Result, SimpleObject};
use futures_util::FutureExt;

use super::connection::{PageArguments, Position, connect};
use super::log::{JobLogs, LogArguments};
use super::pipeline::Pipeline;
use super::scalars::Ids;
use super::workspace::Workspace;
use super::{loaders, log};
use crate::error::{Error, both};
use crate::model::{
    self, CauseType, JobStatus, JobStopReason, JobType, PipelineId, Timestamp, WorkspaceId, stream_cursor,
};
use crate::store::{Conn, JobFilter, Numbered, Page};

pub(super) struct Job(pub(super) model::Job);

pub(super) type JobConnection = Connection<Position<model::Job>, Job, JobListFields>;

/// A job: a task with some stored state. Pipelines are run, configured and verified by jobs; two kinds of job wait for
/// a person instead.
#[Object]
impl Job {
    /// Its id: a version 4 UUID.
    pub(super) async fn id(&self) -> ID {
        self.0.id.to_string().into()
    }

    /// What it does.
    async fn r#type(&self) -> JobType {
        self.0.type_
    }

    /// How far it is.
    async fn status(&self) -> JobStatus {
        self.0.status
    }

    /// The exit code of its last attempt, once it is final: 128 + n if signal n ended it. Null if nothing was started, or the
    /// attempt was lost in a crash.
    async fn exit_code(&self) -> Option<i32> {
        self.0.exit_code
    }

    /// Why it was, or is being, stopped.
    async fn stop_reason(&self) -> Option<JobStopReason> {
        self.0.stop_reason
    }

    /// The commit that it made in the workspace's repository, or that held already what it would have committed.
    async fn commit_id(&self) -> Option<&str> {
        self.0.commit_id.as_deref()
    }

    /// When it was created.
    async fn created(&self) -> Timestamp {
        self.0.created
    }

    /// When the current attempt started; null while it is queued.
    async fn start_time(&self) -> Option<Timestamp> {
        self.0.start_time
    }

    /// When it ended; null until it is final.
    async fn end_time(&self) -> Option<Timestamp> {
        self.0.end_time
    }

    /// When it was first wished that it stops. From then on it ends STOPPED, whatever happens.
    async fn stop_requested(&self) -> Option<Timestamp> {
        self.0.stop_requested
    }

    /// The number of the current or next attempt, from 1. A system task (`WORKSPACE_INIT`, `PIPELINE_CONFIG`, `PIPELINE_VERIFY`) gets another
    /// attempt only if a crash of its server cut it off or it could not be started; a system task that fails is not repeated.
    async fn attempt(&self) -> i32 {
        self.0.attempt
    }

    /// Maximum number of attempts: of a run, the pipeline's `maxRetries` + 1 at the time the job was queued; of a system task 3; of a user task 1.
    async fn max_attempts(&self) -> i32 {
        self.0.max_attempts
    }

    /// The server that runs it, or ran its last attempt; null if none has. What a run writes into its workspace's repository stays in that server's
    /// clone of it.
    async fn node(&self) -> Option<&str> {
        self.0.node.as_deref()
    }

    /// Why the job ended with ERROR. Never null if the status is ERROR, and always null otherwise.
    async fn failure(&self) -> Option<JobFailure> {
        let model::Failure { summary, plugin, line } = self.0.reason_of_error()?;
        Some(JobFailure { summary, plugin, line })
    }

    /// Why it was queued.
    async fn cause(&self) -> JobCause {
        JobCause { job: self.0.clone() }
    }

    /// The workspace it belongs to.
    async fn workspace(&self, ctx: &Context<'_>) -> Result<Workspace> {
        Ok(Workspace(loaders::workspace(ctx, self.0.workspace).await?))
    }

    /// The pipeline it belongs to: null for `WORKSPACE_INIT` and the user tasks, which have none.
    async fn pipeline(&self, ctx: &Context<'_>) -> Result<Option<Pipeline>> {
        let Some(id) = self.0.pipeline else { return Ok(None) };
        Ok(loaders::pipeline(ctx, id).await?.map(Pipeline))
    }

    /// Lines of its log: 1,000 from the beginning, unless the arguments say otherwise. At most 10,000 lines or 1 MiB of text,
    /// whichever comes first (64 KiB for logs beyond the 32nd of an answer, which brings at most 512); `nextSequence` is where to go on.
    #[graphql(complexity = "log::complexity(first, last, child_complexity)")]
    async fn logs(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The number of the first line, from 0.")] sequence: Option<i64>,
        #[graphql(desc = "At most this many lines: 1 to 10,000.")] first: Option<i32>,
        #[graphql(desc = "The last lines, at most this many: 1 to 10,000. Not with `first` or `sequence`.")]
        last: Option<i32>,
    ) -> Result<JobLogs> {
        let arguments = LogArguments { sequence, first, last };
        let (job, lines) = loaders::logs(ctx, self.0.id, arguments.request(ctx)?).await?;
        Ok(JobLogs::of(&job, lines))
    }
}

/// Why a job failed: from what it printed, what Meltano and dbt print, its exit code, and what the server says of a job that was not started
/// or was lost.
#[derive(SimpleObject)]
struct JobFailure {
    /// One-line summary of the failure, without escape sequences and control characters: at most 300 characters.
    summary: String,
    /// The plugin that failed, by the name that the pipeline has for it; null if it was none, or that cannot be told.
    plugin: Option<String>,
    /// The number of the line in the job's log that says so; null if none does.
    line: Option<i64>,
}

pub(super) struct JobCause {
    job: model::Job,
}

/// Why a job was queued.
#[Object]
impl JobCause {
    /// Who or what had it queued.
    async fn r#type(&self) -> CauseType {
        self.job.cause
    }

    /// The job whose completion triggered it: null if it was not triggered, or that job was deleted.
    async fn job(&self, ctx: &Context<'_>) -> Result<Option<Job>> {
        let Some(id) = self.job.cause_job else { return Ok(None) };
        Ok(loaders::job(ctx, id).await?.map(Job))
    }

    /// The tick of the schedule that it was queued for; null if it was no schedule.
    async fn tick(&self) -> Option<Timestamp> {
        self.job.cause_tick
    }
}

/// The arguments of a list of jobs that say which are wanted.
#[derive(Default)]
pub(super) struct JobFilterArguments {
    pub(super) workspace_id: Option<ID>,
    pub(super) pipeline_id: Option<ID>,
    pub(super) r#type: Option<Vec<JobType>>,
    pub(super) status: Option<Vec<JobStatus>>,
}

pub(super) struct JobListFields {
    filter: JobFilter,
    position: i64,
}

/// What a list of jobs says beside them.
#[Object]
impl JobListFields {
    /// How many jobs there are in all that meet the filter. They are counted only if it is asked for.
    async fn total_count(&self, ctx: &Context<'_>) -> Result<i64> {
        Ok(loaders::job_count(ctx, self.filter.clone()).await?)
    }

    /// The position in the status stream at which this page was read: `jobStatusChanged(after:)` with it misses nothing.
    async fn cursor(&self) -> String {
        stream_cursor(self.position)
    }
}

impl JobFilterArguments {
    fn filter(self) -> Result<JobFilter, Error> {
        let mut ids = Ids::default();
        let workspace = ids.read_optional("workspaceId", self.workspace_id.as_ref());
        let pipeline = ids.read_optional("pipelineId", self.pipeline_id.as_ref());
        ids.finish()?;
        Ok(JobFilter {
            workspace,
            pipeline,
            types: self.r#type.map(BTreeSet::from_iter),
            statuses: self.status.map(BTreeSet::from_iter),
        })
    }
}

/// A page of jobs. What the filter names may not be there.
pub(super) async fn jobs(ctx: &Context<'_>, filter: JobFilterArguments, page: PageArguments) -> Result<JobConnection> {
    let (filter, request) = both(filter.filter(), page.request(ctx))?;
    let wanted = filter.clone();
    let read = loaders::snapshot(ctx).read(move |conn: &mut Conn| {
        async move {
            if let Some(id) = wanted.workspace {
                conn.workspace(id).await?.ok_or_else(|| Error::not_found("workspace", id))?;
            }
            if let Some(id) = wanted.pipeline {
                conn.pipeline(id).await?.ok_or_else(|| Error::not_found("pipeline", id))?;
            }
            let mut pages = conn.jobs(&[(wanted, request)]).await?;
            Ok((pages.remove(0), conn.last_change_position().await?))
        }
        .boxed()
    });
    let (page, position) = read.await?;
    Ok(page_of(page, filter, position))
}

/// A page of the jobs of a workspace, which is there. The pipeline that the filter names may not be.
pub(super) async fn jobs_of_workspace(
    ctx: &Context<'_>,
    workspace: WorkspaceId,
    filter: JobFilterArguments,
    page: PageArguments,
) -> Result<JobConnection> {
    let (filter, request) = both(filter.filter(), page.request(ctx))?;
    if let Some(id) = filter.pipeline {
        loaders::pipeline(ctx, id).await?.ok_or_else(|| Error::not_found("pipeline", id))?;
    }
    let filter = JobFilter { workspace: Some(workspace), ..filter };
    let (page, position) = loaders::jobs(ctx, filter.clone(), request).await?;
    Ok(page_of(page, filter, position))
}

/// A page of the jobs of a pipeline, which is there.
pub(super) async fn jobs_of_pipeline(
    ctx: &Context<'_>,
    pipeline: PipelineId,
    filter: JobFilterArguments,
    page: PageArguments,
) -> Result<JobConnection> {
    let (filter, request) = both(filter.filter(), page.request(ctx))?;
    let filter = JobFilter { pipeline: Some(pipeline), ..filter };
    let (page, position) = loaders::jobs(ctx, filter.clone(), request).await?;
    Ok(page_of(page, filter, position))
}

fn page_of(page: Page<Numbered<model::Job>>, filter: JobFilter, position: i64) -> JobConnection {
    connect(page, JobListFields { filter, position }, |it| it.id, Job)
}
