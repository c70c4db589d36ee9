//! Jobs: their rows, the lists. The rules are `jobs`' affair; here a write only names the state it expects.

use std::collections::BTreeSet;

use diesel::dsl::{count_star, exists};
use diesel::prelude::*;
use diesel::sql_types::Integer;

use super::conn::{Conn, Database};
use super::fragment::{ACTIVE, ACTIVE_RUN, Kept, Number, NumberOfJob, as_indexed, either, maybe};
use super::pages::{Numbered, Page, PageRequest, Part, within};
use super::schema::{jobs, numbers};
use crate::error::Error;
use crate::model::{Job, JobId, JobStatus, JobType, PipelineId, Timestamp, WorkspaceId};

/// Which jobs are wanted: those that meet every condition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct JobFilter {
    /// Jobs of this workspace.
    pub workspace: Option<WorkspaceId>,
    /// Jobs of this pipeline.
    pub pipeline: Option<PipelineId>,
    /// Jobs of one of these types.
    pub types: Option<BTreeSet<JobType>>,
    /// Jobs with one of these statuses.
    pub statuses: Option<BTreeSet<JobStatus>>,
}

/// A job's place in the lists, which are in the order of creation.
pub type JobPosition = (i64, JobId);

pub(super) const NUMBER: Number = Number("jobs.number");

/// The jobs that meet a filter.
macro_rules! wanted {
    ($filter:expr) => {
        jobs::table
            .filter(jobs::deleted.is_null())
            .filter(maybe($filter.workspace, |it| jobs::workspace.eq(it)))
            .filter(maybe($filter.pipeline, |it| jobs::pipeline.eq(it)))
            .filter(maybe($filter.types.clone(), |it| jobs::type_.eq_any(it)))
            .filter(maybe($filter.statuses.clone(), |it| jobs::status.eq_any(it)))
    };
}

impl Conn {
    /// Stores a new job. PostgreSQL gives it a number itself. For SQLite the number is taken first: a
    /// trigger would have to write the row, and its place in every index, a second time.
    pub async fn insert_job(&mut self, job: &Job) -> Result<(), Error> {
        if self.is_shared() {
            self.run(diesel::insert_into(jobs::table).values(job)).await?;
        } else {
            let next = diesel::update(numbers::table).set(numbers::last.eq(numbers::last + 1_i64));
            let number: i64 = self.one(next.returning(numbers::last)).await?;
            self.run(diesel::insert_into(jobs::table).values((job, NumberOfJob.eq(number)))).await?;
        }
        Ok(())
    }

    /// Stores the new state of a job, if it is still as it was `before`: [`Error::Stale`] if it is not. How long its log is, only
    /// [`Conn::append_log`] stores.
    pub async fn update_job(&mut self, before: &Job, after: &Job) -> Result<(), Error> {
        let expected = jobs::table
            .find(before.id)
            .filter(jobs::status.eq(before.status))
            .filter(jobs::attempt.eq(before.attempt))
            .filter(maybe(before.owner, |it| jobs::owner.eq(it))); // none where it is not RUNNING
        let state = (
            jobs::status.eq(after.status),
            jobs::attempt.eq(after.attempt),
            jobs::max_attempts.eq(after.max_attempts),
            jobs::not_before.eq(after.not_before),
            jobs::ready.eq(after.ready),
            jobs::start_time.eq(after.start_time),
            jobs::end_time.eq(after.end_time),
            jobs::exit_code.eq(after.exit_code),
            jobs::commit_id.eq(after.commit_id.as_deref()),
            jobs::stop_requested.eq(after.stop_requested),
            jobs::stop_reason.eq(after.stop_reason),
            jobs::deleted.eq(after.deleted),
            jobs::owner.eq(after.owner),
            jobs::supervisor_pid.eq(after.supervisor_pid),
            jobs::supervisor_start.eq(after.supervisor_start),
            jobs::supervisor_boot.eq(after.supervisor_boot.as_deref()),
            jobs::latest_change.eq(after.latest_change),
            jobs::changed_at.eq(after.changed_at),
            jobs::previous_status.eq(after.previous_status),
            jobs::failure.eq(after.failure.as_ref()),
            jobs::node.eq(after.node.as_deref()),
        );
        match self.run(Kept(diesel::update(expected).set(state))).await? {
            1 => Ok(()),
            _ => Err(Error::Stale),
        }
    }

    /// The job with this id, unless it is deleted.
    pub async fn job(&mut self, id: JobId) -> Result<Option<Job>, Error> {
        self.optional(jobs::table.find(id).filter(jobs::deleted.is_null()).select(jobs::all_columns)).await
    }

    /// The job with this id, also while it is deleted but not yet gone.
    pub async fn job_even_deleted(&mut self, id: JobId) -> Result<Option<Job>, Error> {
        self.optional(jobs::table.find(id).select(jobs::all_columns)).await
    }

    /// The same. Until the transaction ends nothing is added to its log but by it.
    pub async fn lock_job(&mut self, id: JobId) -> Result<Option<Job>, Error> {
        if let Database::Postgres(conn, _) = &mut self.database {
            let row = jobs::table.find(id).for_no_key_update();
            return Ok(diesel_async::RunQueryDsl::get_result(row, &mut ***conn).await.optional()?);
        }
        self.job_even_deleted(id).await
    }

    /// The jobs with these ids that are not deleted, in no order.
    pub async fn jobs_by_id(&mut self, ids: &[JobId]) -> Result<Vec<Job>, Error> {
        if let [id] = ids {
            return Ok(self.job(*id).await?.into_iter().collect()); // a statement that is prepared already
        }
        self.all(jobs::table.filter(jobs::id.eq_any(ids)).filter(jobs::deleted.is_null()).select(jobs::all_columns))
            .await
    }

    /// Pages of lists of jobs, newest first.
    pub async fn jobs(
        &mut self,
        requests: &[(JobFilter, PageRequest<JobPosition>)],
    ) -> Result<Vec<Page<Numbered<Job>>>, Error> {
        use jobs::id;
        let query = |number: i32, filter: &JobFilter, part: &Part<JobPosition>| {
            wanted!(filter)
                .filter(within!(part, NUMBER, id))
                .select((number.into_sql::<Integer>(), (jobs::all_columns, NUMBER)))
                .order((
                    either(part.oldest_first, NUMBER.asc(), NUMBER.desc()),
                    either(part.oldest_first, id.asc(), id.desc()),
                ))
                .limit(part.limit)
        };
        let pages = self.pages(requests, query, |(job, number): &Numbered<Job>| (*number, job.id)).await?;
        let ids: Vec<JobId> = pages.iter().flat_map(|page| &page.rows).map(|(job, _)| job.id).collect();
        self.is_ahead |= self.is_shared() && self.has_unnumbered(&ids).await?;
        Ok(pages)
    }

    /// How many jobs meet each of these filters.
    pub async fn count_jobs(&mut self, filters: &[JobFilter]) -> Result<Vec<i64>, Error> {
        let count =
            |number: i32, filter: &JobFilter| wanted!(filter).select((number.into_sql::<Integer>(), count_star()));
        Ok(self.each(filters, count).await?.into_iter().flatten().collect())
    }

    /// The active jobs of a workspace or a pipeline, or of both, in the order of their latest changes.
    pub async fn active_jobs(
        &mut self,
        workspace: Option<WorkspaceId>,
        pipeline: Option<PipelineId>,
    ) -> Result<Vec<Job>, Error> {
        let active = jobs::table
            .select(jobs::all_columns)
            .filter(as_indexed(ACTIVE))
            .filter(jobs::deleted.is_null())
            .filter(maybe(workspace, |it| jobs::workspace.eq(it)))
            .filter(maybe(pipeline, |it| jobs::pipeline.eq(it)))
            .order(jobs::latest_change);
        self.all(active).await
    }

    /// The run of a pipeline that is QUEUED or RUNNING.
    pub async fn active_run(&mut self, pipeline: PipelineId) -> Result<Option<JobId>, Error> {
        let active = jobs::table.filter(as_indexed(ACTIVE_RUN)).filter(jobs::pipeline.eq(pipeline));
        self.optional(active.select(jobs::id)).await
    }

    /// Whether a job of this type and workspace, and pipeline where one is given, is QUEUED or RUNNING beside `than`.
    pub async fn other_active_job(&mut self, than: &Job) -> Result<bool, Error> {
        let others = jobs::table
            .filter(jobs::workspace.eq(than.workspace))
            .filter(maybe(than.pipeline, |it| jobs::pipeline.eq(it)))
            .filter(jobs::type_.eq(than.type_))
            .filter(as_indexed(ACTIVE))
            .filter(jobs::id.ne(than.id));
        self.one(diesel::select(exists(others))).await
    }

    /// The workspace's oldest user task of this type that still waits.
    pub async fn waiting_user_task(&mut self, workspace: WorkspaceId, type_: JobType) -> Result<Option<Job>, Error> {
        let waiting = jobs::table
            .filter(jobs::workspace.eq(workspace))
            .filter(jobs::type_.eq(type_))
            .filter(as_indexed(ACTIVE))
            .filter(jobs::status.eq(JobStatus::Queued))
            .filter(jobs::deleted.is_null());
        // Its latest change is that it was queued. By numbers, SQLite would look at every job of the workspace.
        self.optional(waiting.select(jobs::all_columns).order(jobs::latest_change).limit(1)).await
    }

    /// Marks the jobs of a workspace or pipeline that are final as deleted.
    pub async fn mark_final_jobs_deleted(
        &mut self,
        workspace: WorkspaceId,
        pipeline: Option<PipelineId>,
        at: Timestamp,
    ) -> Result<(), Error> {
        self.plan_anew().await?;
        let ended = jobs::table
            .filter(jobs::workspace.eq(workspace))
            .filter(maybe(pipeline, |it| jobs::pipeline.eq(it)))
            .filter(jobs::status.eq_any(JobStatus::FINAL))
            .filter(jobs::deleted.is_null());
        self.run(diesel::update(ended).set(jobs::deleted.eq(at))).await?;
        Ok(())
    }

    /// Some jobs that are deleted and have ended, so that nothing needs their rows any more.
    pub async fn cleared_jobs(&mut self, at_most: i64) -> Result<Vec<JobId>, Error> {
        let cleared = jobs::table.filter(jobs::deleted.is_not_null()).filter(jobs::status.eq_any(JobStatus::FINAL));
        self.all(cleared.select(jobs::id).order(jobs::deleted).limit(at_most)).await
    }

    /// Removes jobs whose logs are cleared.
    pub async fn remove_jobs(&mut self, ids: &[JobId]) -> Result<(), Error> {
        self.run(diesel::delete(jobs::table.filter(jobs::id.eq_any(ids)))).await?;
        Ok(())
    }

    /// How many jobs of each type are QUEUED and RUNNING, also while they are deleted but not yet gone.
    pub async fn count_active_jobs(&mut self) -> Result<Vec<(JobType, JobStatus, i64)>, Error> {
        let active = jobs::table.filter(as_indexed(ACTIVE)).group_by((jobs::type_, jobs::status));
        self.all(active.select((jobs::type_, jobs::status, count_star()))).await
    }
}
