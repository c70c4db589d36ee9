//! Subscriptions. Each reads the store past its own position whenever the bell rings, so it misses nothing and repeats nothing. How
//! far it is it tells in its [`Progress`].

use async_graphql::{Context, ID, Object, Result, Subscription};
use async_stream::try_stream;
use futures_util::{FutureExt, Stream};

use super::connection::{stream_cursor, stream_position};
use super::job::Job;
use super::log::{self, JobLogs, LogRequest};
use super::progress::Progress;
use super::scalars::{Ids, id};
use crate::error::{Error, both};
use crate::events::Events;
use crate::model::{self, JobStatus, Timestamp};
use crate::store::{ChangeFilter, Conn, Enough, Store};

/// How much one event brings at the most, when a subscriber catches up.
const ENOUGH: Enough = Enough { lines: 4_000, bytes: 256 * 1024 };
const CHANGES: usize = 500;

pub(super) struct Subscription;

/// What can be followed live.
#[Subscription]
impl Subscription {
    /// The changes of jobs' statuses, in order. Without `after` it begins with every QUEUED or RUNNING job in scope (or the job that
    /// is asked for, whatever its status), each with its latest change and `initial: true`; then every change follows. With
    /// `after` it begins with the first change after that cursor.
    async fn job_status_changed(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Only jobs of this workspace.")] workspace_id: Option<ID>,
        #[graphql(desc = "Only jobs of this pipeline.")] pipeline_id: Option<ID>,
        #[graphql(desc = "Only this job. The stream ends when it is deleted.")] job_id: Option<ID>,
        #[graphql(desc = "The cursor of a change, or of a page of jobs: go on after it.")] after: Option<String>,
    ) -> Result<impl Stream<Item = Result<JobStatusChange>> + use<>> {
        let mut ids = Ids::default();
        let filter = ChangeFilter {
            workspace: ids.read_optional("workspaceId", workspace_id.as_ref()),
            pipeline: ids.read_optional("pipelineId", pipeline_id.as_ref()),
            job: ids.read_optional("jobId", job_id.as_ref()),
        };
        let ((), after) = both(ids.finish(), after.as_deref().map(stream_position).transpose())?;
        let mut bell = ctx.data_unchecked::<Events>().status();
        let store = ctx.data_unchecked::<Store>().clone();
        let progress = ctx.data_unchecked::<Progress>().clone();
        let Beginning { initial, mut position, over } = match progress.goes_on_from() {
            Some(position) => Beginning { initial: Vec::new(), position, over: false },
            None => store.read(move |conn| async move { begin(conn, filter, after).await }.boxed()).await?,
        };
        Ok(try_stream! {
            for change in initial {
                yield JobStatusChange { change, initial: true };
            }
            if over {
                return;
            }
            // The position of the change that was told last: those between it and `position` are of no interest here.
            let mut told = position;
            loop {
                let page = store.read(move |conn| conn.status_changes(filter, position, CHANGES as i64).boxed()).await?;
                let caught_up = page.changes.len() < CHANGES;
                for change in page.changes {
                    let over = change.deleted && filter.job.is_some();
                    progress.event(told..=change.position - 1, change.position);
                    told = change.position;
                    yield JobStatusChange { change, initial: false };
                    if over {
                        return;
                    }
                }
                position = page.read_to;
                if caught_up {
                    if !progress.waits_at(position) {
                        return;
                    }
                    bell.rung().await;
                }
            }
        })
    }

    /// The lines of a job's log, from the one with this number on: what is stored, then what comes, each line once. The last event
    /// has `complete: true`. After a lost connection, subscribe again with the last `nextSequence`.
    async fn job_logs(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The job.")] job_id: ID,
        #[graphql(default = 0, desc = "The number of the first line, from 0.")] sequence: i64,
    ) -> Result<impl Stream<Item = Result<JobLogs>> + use<>> {
        let numbered = if sequence < 0 { Err(Error::bad_input("sequence", log::NEGATIVE)) } else { Ok(()) };
        let (job, ()) = both(id("jobId", &job_id), numbered)?;
        let mut bell = ctx.data_unchecked::<Events>().job(job);
        let store = ctx.data_unchecked::<Store>().clone();
        let progress = ctx.data_unchecked::<Progress>().clone();
        let mut at = progress.goes_on_from().unwrap_or(sequence);
        let mut logs = log::read(&store, job, LogRequest::From(at, ENOUGH)).await?;
        Ok(try_stream! {
            loop {
                let (next, complete, nothing_new) = (logs.next_sequence, logs.complete, logs.is_empty());
                if complete || !nothing_new {
                    progress.event(at..=at, next);
                    yield logs;
                }
                if complete {
                    return;
                }
                at = next;
                if nothing_new {
                    if !progress.waits_at(next) {
                        return;
                    }
                    bell.rung().await;
                }
                logs = log::read(&store, job, LogRequest::From(next, ENOUGH)).await?;
            }
        })
    }
}

/// What a subscriber begins with, and the position after which it goes on, unless it has seen the end already.
struct Beginning {
    initial: Vec<model::StatusChange>,
    position: i64,
    over: bool,
}

async fn begin(conn: &mut Conn, filter: ChangeFilter, after: Option<i64>) -> Result<Beginning, Error> {
    let mut job = None;
    if let Some(id) = filter.workspace {
        let there = conn.workspace(id).await?.is_some();
        let changes = ChangeFilter { workspace: Some(id), ..ChangeFilter::default() };
        check_known(conn, there, changes, after, || Error::not_found("workspace", id)).await?;
    }
    if let Some(id) = filter.pipeline {
        let there = conn.pipeline(id).await?.is_some();
        let changes = ChangeFilter { pipeline: Some(id), ..ChangeFilter::default() };
        check_known(conn, there, changes, after, || Error::not_found("pipeline", id)).await?;
    }
    if let Some(id) = filter.job {
        job = conn.job(id).await?;
        let changes = ChangeFilter { job: Some(id), ..ChangeFilter::default() };
        check_known(conn, job.is_some(), changes, after, || Error::not_found("job", id)).await?;
    }
    let end = conn.last_change_position().await?;
    if let Some(after) = after {
        if after > end {
            return Err(Error::bad_input(
                "after",
                "This cursor is from another server, or one that lost its database.",
            ));
        }
        conn.check_kept_after(after).await?;
        let over = match filter.job {
            Some(job) => conn.deleted_by(job, after).await?,
            None => false,
        };
        return Ok(Beginning { initial: Vec::new(), position: after, over });
    }
    let jobs = match job {
        Some(job) => {
            let wanted = filter.workspace.is_none_or(|it| it == job.workspace)
                && filter.pipeline.is_none_or(|it| Some(it) == job.pipeline);
            if wanted { vec![job] } else { Vec::new() }
        }
        None => conn.active_jobs(filter.workspace, filter.pipeline).await?,
    };
    Ok(Beginning { initial: jobs.iter().map(model::Job::latest_change).collect(), position: end, over: false })
}

/// What a filter names must be there. After a cursor, the changes of what is gone by now can still be read.
async fn check_known(
    conn: &mut Conn,
    there: bool,
    changes: ChangeFilter,
    after: Option<i64>,
    unknown: impl FnOnce() -> Error,
) -> Result<(), Error> {
    if there || (after.is_some() && conn.has_status_changes(changes).await?) { Ok(()) } else { Err(unknown()) }
}

pub(super) struct JobStatusChange {
    change: model::StatusChange,
    initial: bool,
}

/// A change of a job's status. `job` is the job as it is now; the rest is the change.
#[Object]
impl JobStatusChange {
    /// Where the stream goes on after this change: give it as `after`.
    async fn cursor(&self) -> String {
        stream_cursor(self.change.position)
    }

    /// Whether this tells the present at the beginning of the stream, rather than something that has just happened.
    async fn initial(&self) -> bool {
        self.initial
    }

    /// The job that changed.
    async fn job_id(&self) -> ID {
        self.change.job.to_string().into()
    }

    /// The status since this change.
    async fn status(&self) -> JobStatus {
        self.change.status
    }

    /// The status before it: null for a new job, and for a deletion.
    async fn previous_status(&self) -> Option<JobStatus> {
        self.change.previous_status
    }

    /// The attempt it belongs to.
    async fn attempt(&self) -> i32 {
        self.change.attempt
    }

    /// When it was.
    async fn at(&self) -> Timestamp {
        self.change.at
    }

    /// Whether the job was deleted with this change.
    async fn deleted(&self) -> bool {
        self.change.deleted
    }

    /// The job as it is now: null if it has been deleted.
    async fn job(&self, ctx: &Context<'_>) -> Result<Option<Job>> {
        let id = self.change.job;
        Ok(ctx.data_unchecked::<Store>().read(move |conn| conn.job(id).boxed()).await?.map(Job))
    }
}
