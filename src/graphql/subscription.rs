//! Subscriptions. Each reads the store past its own position whenever the bell rings, so it misses nothing and repeats nothing. How
//! far it is it tells in its [`Progress`].

use async_graphql::{Context, ID, Result, Subscription};
use async_stream::try_stream;
use futures_util::{FutureExt, Stream, StreamExt, TryStreamExt, stream};

use super::activity::PipelineActivity;
use super::connection::stream_position;
use super::follow::{Beginning, CHANGES, Follower, Read};
use super::log::{self, JobLogs, LogRequest};
use super::progress::Progress;
use super::scalars::{Ids, id};
use super::status_change::JobStatusChange;
use crate::error::{Error, both};
use crate::events::Events;
use crate::model::{self, ActivityLevel};
use crate::store::{ChangeFilter, Enough, Store};

/// How much one event brings at the most, when a subscriber catches up.
const ENOUGH: Enough = Enough { lines: 4_000, bytes: 256 * 1024 };

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
        let follower = Follower::of(ctx);
        let Beginning { initial, position, over } = follower.begin(filter, after).await?;
        let initial = initial.into_iter().map(|change| Ok(JobStatusChange { change, initial: true }));
        let read: Read<_, _> = |conn, filter, after| conn.status_changes(filter, after, CHANGES).boxed();
        let gone = move |change: &model::StatusChange| change.deleted && filter.job.is_some();
        let follows = (!over).then(|| follower.follow(filter, position, read, |change| change.position, gone));
        let changes = stream::iter(follows).flatten().map_ok(|change| JobStatusChange { change, initial: false });
        Ok(stream::iter(initial).chain(changes))
    }

    /// What happens to pipelines, in order, from now on or, with `after`, from the first after that cursor: jobs of theirs that start and end, and
    /// runs that are skipped.
    async fn pipeline_activity(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Only pipelines of this workspace.")] workspace_id: Option<ID>,
        #[graphql(desc = "Only this pipeline.")] pipeline_id: Option<ID>,
        #[graphql(default_with = "ActivityLevel::All", desc = "Everything, or only what went wrong.")]
        level: ActivityLevel,
        #[graphql(desc = "The cursor of an activity, of a change, or of a page of jobs: go on after it.")]
        after: Option<String>,
    ) -> Result<impl Stream<Item = Result<PipelineActivity>> + use<>> {
        let mut ids = Ids::default();
        let filter = ChangeFilter {
            workspace: ids.read_optional("workspaceId", workspace_id.as_ref()),
            pipeline: ids.read_optional("pipelineId", pipeline_id.as_ref()),
            job: None,
        };
        let ((), after) = both(ids.finish(), after.as_deref().map(stream_position).transpose())?;
        let follower = Follower::of(ctx);
        let position = follower.begin(filter, after).await?.position;
        let read: Read<_, _> = |conn, (filter, level), after| conn.activity(filter, level, after, CHANGES).boxed();
        let activity = follower.follow((filter, level), position, read, |activity| activity.position, |_| false);
        Ok(activity.map_ok(PipelineActivity))
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
        // Whoever has read already is not told that the database is away.
        let mut logs = match progress.goes_on_from() {
            Some(at) => log::read_when_there(&store, job, LogRequest::From(at, ENOUGH)).await?,
            None => log::read(&store, job, LogRequest::From(at, ENOUGH)).await?,
        };
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
                logs = log::read_when_there(&store, job, LogRequest::From(next, ENOUGH)).await?;
            }
        })
    }
}
