//! What happened: the stream of changes, of which the status stream is a part.

use diesel::dsl::{exists, max, min};
use diesel::prelude::*;
use diesel::sql_types::Integer;

use super::conn::Conn;
use super::fragment::{ACTIVE, as_indexed, maybe};
use super::jobs::NUMBER;
use super::schema::{changes, jobs};
use crate::error::Error;
use crate::model::{Activity, ActivityLevel, Job, JobId, JobStatus, PipelineId, StatusChange, Timestamp, WorkspaceId};

/// Which changes are wanted: those that meet every condition.
#[derive(Debug, Clone, Copy, Default)]
pub struct ChangeFilter {
    /// Of this workspace's jobs.
    pub workspace: Option<WorkspaceId>,
    /// Of this pipeline's jobs.
    pub pipeline: Option<PipelineId>,
    /// Of this job.
    pub job: Option<JobId>,
}

/// A stretch of the stream.
#[derive(Debug, Clone)]
pub struct ChangePage<T> {
    /// The changes in it that were wanted.
    pub changes: Vec<T>,
    /// The position up to which there are no others.
    pub read_to: i64,
}

impl<T> ChangePage<T> {
    /// What was found, at most so many, in a stream that ends at a position.
    fn of(changes: Vec<T>, at_most: i64, end: i64, position: impl Fn(&T) -> i64) -> Self {
        let full = i64::try_from(changes.len()).is_ok_and(|read| read == at_most);
        let read_to = changes.last().filter(|_| full).map_or(end, position);
        Self { changes, read_to }
    }
}

/// What a filter wants of the stream after a position.
macro_rules! after {
    ($filter:expr, $after:expr) => {
        changes::table
            .filter(changes::position.gt($after))
            .filter(maybe($filter.workspace, |it| changes::workspace.eq(it)))
            .filter(maybe($filter.pipeline, |it| changes::pipeline.eq(it)))
            .filter(maybe($filter.job, |it| changes::job.eq(it)))
    };
}

/// The columns of a change of a status, as it is told.
macro_rules! status_change {
    () => {
        (
            changes::position.assume_not_null(),
            changes::job.assume_not_null(),
            changes::workspace,
            changes::pipeline,
            changes::status.assume_not_null(),
            changes::previous_status,
            changes::attempt.assume_not_null(),
            changes::at,
            changes::deleted,
        )
    };
}

/// The latest change of a job, if it is in the stream. One that is not kept any more was at its beginning.
fn told(job: &Job, arrival: Option<i64>, position: Option<i64>) -> Option<StatusChange> {
    if arrival.is_none() { Some(job.change_at(0)) } else { position.map(|position| job.change_at(position)) }
}

impl Conn {
    /// Adds a change to the stream, and answers the number by which it arrived. Its position it has when this is committed.
    pub async fn insert_status_change(
        &mut self,
        job: &Job,
        previous_status: Option<JobStatus>,
        at: Timestamp,
        deleted: bool,
    ) -> Result<i64, Error> {
        use changes as c;
        let row = (
            c::job.eq(job.id),
            c::workspace.eq(job.workspace),
            c::pipeline.eq(job.pipeline),
            c::status.eq(job.status),
            c::previous_status.eq(previous_status),
            c::attempt.eq(job.attempt),
            c::at.eq(at),
            c::deleted.eq(deleted),
        );
        self.has_changes = true;
        self.one(diesel::insert_into(c::table).values(row).returning(c::arrival)).await
    }

    /// Adds to the stream that a run of a pipeline was skipped, and why. Answers the number by which it arrived.
    pub async fn insert_skip(
        &mut self,
        workspace: WorkspaceId,
        pipeline: PipelineId,
        why: &str,
        at: Timestamp,
    ) -> Result<i64, Error> {
        use changes as c;
        let row = (
            c::workspace.eq(workspace),
            c::pipeline.eq(pipeline),
            c::at.eq(at),
            c::deleted.eq(false),
            c::skipped.eq(why),
        );
        self.has_changes = true;
        self.one(diesel::insert_into(c::table).values(row).returning(c::arrival)).await
    }

    /// Adds a deletion to the stream for every job of a workspace or pipeline that is final, oldest first.
    pub async fn insert_deletions_of_final_jobs(
        &mut self,
        workspace: WorkspaceId,
        pipeline: Option<PipelineId>,
        at: Timestamp,
    ) -> Result<(), Error> {
        use changes as c;
        self.plan_anew().await?;
        use diesel::IntoSql;
        use diesel::sql_types::{Bool, Nullable, Text};
        let deletions = jobs::table
            .filter(jobs::workspace.eq(workspace))
            .filter(maybe(pipeline, |it| jobs::pipeline.eq(it)))
            .filter(jobs::status.eq_any(JobStatus::FINAL))
            .filter(jobs::deleted.is_null())
            .order((NUMBER, jobs::id))
            .select((
                jobs::id.nullable(),
                jobs::workspace,
                jobs::pipeline,
                jobs::status.nullable(),
                None::<JobStatus>.into_sql::<Nullable<Text>>(),
                jobs::attempt.nullable(),
                at.into_sql::<super::Instant>(),
                true.into_sql::<Bool>(),
            ));
        let columns = (c::job, c::workspace, c::pipeline, c::status, c::previous_status, c::attempt, c::at, c::deleted);
        self.has_changes = true;
        self.run(diesel::insert_into(c::table).values(deletions).into_columns(columns)).await?;
        Ok(())
    }

    /// The wanted changes of statuses after a position, in order. [`Error::CursorExpired`] if there may have been others that are gone.
    pub async fn status_changes(
        &mut self,
        filter: ChangeFilter,
        after: i64,
        at_most: i64,
    ) -> Result<ChangePage<StatusChange>, Error> {
        self.check_kept_after(after).await?;
        let end = self.last_change_position().await?;
        let wanted = after!(filter, after)
            .filter(changes::status.is_not_null())
            .select(status_change!())
            .order(changes::position)
            .limit(at_most);
        let found: Vec<StatusChange> = self.all(wanted).await?;
        Ok(ChangePage::of(found, at_most, end, |change| change.position))
    }

    /// What happened to pipelines after a position, in order. [`Error::CursorExpired`] if there may have been more that is gone.
    pub async fn activity(
        &mut self,
        filter: ChangeFilter,
        level: ActivityLevel,
        after: i64,
        at_most: i64,
    ) -> Result<ChangePage<Activity>, Error> {
        self.check_kept_after(after).await?;
        let end = self.last_change_position().await?;
        let statuses: &[JobStatus] = match level {
            ActivityLevel::All => &[JobStatus::Running, JobStatus::Complete, JobStatus::Error, JobStatus::Stopped],
            ActivityLevel::Errors => &[JobStatus::Error],
        };
        let wanted = after!(filter, after)
            .filter(changes::pipeline.is_not_null())
            .filter(changes::deleted.eq(false))
            .filter(changes::skipped.is_not_null().or(changes::status.eq_any(statuses).assume_not_null()))
            .select((
                changes::position.assume_not_null(),
                changes::pipeline.assume_not_null(),
                changes::job,
                changes::status,
                changes::attempt,
                changes::at,
                changes::skipped,
            ))
            .order(changes::position)
            .limit(at_most);
        let found: Vec<Activity> = self.all(wanted).await?;
        Ok(ChangePage::of(found, at_most, end, |activity| activity.position))
    }

    /// The position of the newest change: 0 where there is none.
    pub async fn last_change_position(&mut self) -> Result<i64, Error> {
        let last: Option<i64> = self.one(changes::table.select(max(changes::position))).await?;
        Ok(last.unwrap_or(0))
    }

    /// [`Error::CursorExpired`] if not every change after this position is kept.
    pub async fn check_kept_after(&mut self, position: i64) -> Result<(), Error> {
        if position + 1 < self.first_change_position().await? { Err(Error::CursorExpired) } else { Ok(()) }
    }

    /// Whether this job was deleted by a change up to this position.
    pub async fn deleted_by(&mut self, job: JobId, position: i64) -> Result<bool, Error> {
        let deletion = changes::table
            .filter(changes::job.eq(job))
            .filter(changes::deleted.eq(true))
            .filter(changes::position.le(position));
        self.one(diesel::select(exists(deletion))).await
    }

    /// The position of the oldest change that is kept: 0 where there is none.
    async fn first_change_position(&mut self) -> Result<i64, Error> {
        let first: Option<i64> = self.one(changes::table.select(min(changes::position))).await?;
        Ok(first.unwrap_or(0))
    }

    /// Whether the stream holds any change that is wanted.
    pub async fn has_status_changes(&mut self, filter: ChangeFilter) -> Result<bool, Error> {
        let wanted = changes::table
            .filter(maybe(filter.workspace, |it| changes::workspace.eq(it)))
            .filter(maybe(filter.pipeline, |it| changes::pipeline.eq(it)))
            .filter(maybe(filter.job, |it| changes::job.eq(it)));
        self.one(diesel::select(exists(wanted))).await
    }

    /// Forgets changes beyond the newest `keep`, some at a time, and says whether there were any.
    pub async fn forget_changes(&mut self, keep: i64, at_most: i64) -> Result<bool, Error> {
        let first = self.first_change_position().await?;
        let end = (self.last_change_position().await? - keep).min(first + at_most - 1);
        // With both ends PostgreSQL expects few, whatever they are, and takes the index.
        let old = changes::table.filter(changes::position.ge(first)).filter(changes::position.le(end));
        Ok(self.run(diesel::delete(old)).await? > 0)
    }

    /// The latest changes of the jobs in scope that are QUEUED or RUNNING, as far as the stream tells; in order.
    pub async fn present(&mut self, filter: ChangeFilter) -> Result<Vec<StatusChange>, Error> {
        let active = jobs::table
            .left_join(changes::table.on(changes::arrival.eq(jobs::latest_change)))
            .filter(as_indexed(ACTIVE))
            .filter(jobs::deleted.is_null())
            .filter(maybe(filter.workspace, |it| jobs::workspace.eq(it)))
            .filter(maybe(filter.pipeline, |it| jobs::pipeline.eq(it)))
            .filter(maybe(filter.job, |it| jobs::id.eq(it)))
            .select((jobs::all_columns, changes::arrival.nullable(), changes::position.nullable()));
        let active: Vec<(Job, Option<i64>, Option<i64>)> = self.all(active).await?;
        let mut present: Vec<StatusChange> =
            active.iter().filter_map(|(job, arrival, position)| told(job, *arrival, *position)).collect();
        // What is not in the stream yet comes later: until then the job is as the stream has told last.
        let unnumbered = changes::table
            .filter(changes::position.is_null())
            .filter(changes::job.is_not_null())
            .filter(maybe(filter.workspace, |it| changes::workspace.eq(it)))
            .filter(maybe(filter.pipeline, |it| changes::pipeline.eq(it)))
            .filter(maybe(filter.job, |it| changes::job.eq(it)))
            .select(changes::job.assume_not_null())
            .distinct();
        let unnumbered: Vec<JobId> = self.all(unnumbered).await?;
        let before = self.latest_told(&unnumbered).await?;
        present.extend(before.into_iter().filter(|change| !change.deleted && !change.status.is_final()));
        present.sort_unstable_by_key(|change| change.position);
        Ok(present)
    }

    /// The latest change of a job, whatever its status: nothing if none is in the stream yet.
    pub async fn present_of(&mut self, job: &Job) -> Result<Option<StatusChange>, Error> {
        let latest = changes::table.find(job.latest_change).select((changes::arrival.nullable(), changes::position));
        let (arrival, position): (Option<i64>, Option<i64>) = self.optional(latest).await?.unwrap_or_default();
        match told(job, arrival, position) {
            Some(change) => Ok(Some(change)),
            None => Ok(self.latest_told(&[job.id]).await?.pop()),
        }
    }

    /// What the stream has told last of each of these jobs, if anything.
    async fn latest_told(&mut self, jobs: &[JobId]) -> Result<Vec<StatusChange>, Error> {
        let latest = |number: i32, &of: &JobId| {
            changes::table
                .filter(changes::job.eq(of))
                .filter(changes::position.is_not_null())
                .order(changes::position.desc())
                .select((number.into_sql::<Integer>(), status_change!()))
                .limit(1)
        };
        Ok(self.each(jobs, latest).await?.into_iter().flatten().collect())
    }

    /// Whether changes of these jobs are stored that have no position in the stream yet.
    pub(super) async fn has_unnumbered(&mut self, jobs: &[JobId]) -> Result<bool, Error> {
        let unnumbered = changes::table.filter(changes::position.is_null()).filter(changes::job.eq_any(jobs));
        self.one(diesel::select(exists(unnumbered))).await
    }
}
