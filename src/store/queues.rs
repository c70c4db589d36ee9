//! The queues of workspaces: whose turn it is, and which job comes next.
//!
//! A workspace has two: what changes its repository, and the rest. Both are found by an index that holds only what may start, so
//! what a claim costs does not depend on how many jobs wait, or for what.

use diesel::dsl::{exists, min, not};
use diesel::prelude::*;
use diesel::sql_types::Nullable;

use super::conn::{Conn, Database};
use super::fragment::{
    ACTIVE, Kept, READY_FOR_REPOSITORY, READY_TO_RUN, RUNNING, RUNNING_FOR_REPOSITORY, SkipLocked, as_indexed, maybe,
};
use super::jobs::NUMBER;
use super::schema::{jobs, pipelines, queues, workspaces};
use super::types::Instant;
use crate::error::Error;
use crate::model::{Job, JobStatus, JobType, PipelineId, ResourceStatus, Timestamp, WorkspaceId};

/// Whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// This workspace's. It is the caller's until the transaction ends.
    Of(WorkspaceId),
    /// Nobody's before this moment. If that has come, somebody else has the workspace at the moment.
    Comes(Timestamp),
    /// Nobody's.
    Nobodys,
}

/// What a workspace has to start, and what it runs.
#[derive(Debug, Clone, Copy, Queryable)]
pub struct Queued {
    /// When its turn was to come, as it is stored.
    pub turn: Option<Timestamp>,
    /// When a job of it was started last.
    pub served: Timestamp,
    /// From when on the first of those may start that change the repository,
    pub for_repository: Option<Timestamp>,
    /// and the first of the others.
    pub to_run: Option<Timestamp>,
    running: Option<i64>,
    changing: Option<i64>,
}

impl Queued {
    /// How many of its jobs are RUNNING.
    pub fn running(&self) -> i64 {
        self.running.unwrap_or(0)
    }

    /// Whether one of them is changing the repository.
    pub fn is_changing(&self) -> bool {
        self.changing.unwrap_or(0) > 0
    }
}

diesel::define_sql_function! {
    /// The first that is not null.
    fn coalesce(first: Nullable<Instant>, second: Instant) -> Instant;
}

/// Whether a job waits for something that is PROVISIONING.
macro_rules! is_held_back {
    ($type:expr, $workspace:expr, $pipeline:expr) => {{
        let workspace = workspaces::table
            .filter(workspaces::id.eq($workspace))
            .filter(workspaces::status.eq(ResourceStatus::Provisioning));
        let pipeline = pipelines::table
            .filter(pipelines::id.nullable().eq($pipeline))
            .filter(pipelines::status.eq(ResourceStatus::Provisioning));
        let for_workspace = $type.ne(JobType::WorkspaceInit).and(exists(workspace));
        for_workspace.or($type.ne_all(JobType::REPOSITORY_TASKS).and(exists(pipeline)))
    }};
}

impl Conn {
    /// Makes the queue of a new workspace.
    pub async fn insert_queue(&mut self, workspace: WorkspaceId, at: Timestamp) -> Result<(), Error> {
        let row = (queues::workspace.eq(workspace), queues::served.eq(at));
        self.run(diesel::insert_into(queues::table).values(row)).await?;
        Ok(())
    }

    /// Removes the queue of a workspace that has no jobs left.
    pub(super) async fn remove_queue(&mut self, workspace: WorkspaceId) -> Result<(), Error> {
        self.run(diesel::delete(queues::table.find(workspace))).await?;
        Ok(())
    }

    /// Waits until nobody else changes the jobs of this workspace, and keeps others from it until the transaction ends. Says whether that was
    /// needed: then what was read before may have changed. SQLite has one writer anyway.
    pub async fn lock_workspace(&mut self, workspace: WorkspaceId) -> Result<bool, Error> {
        let Database::Postgres(conn, _) = &mut self.database else { return Ok(false) };
        let row = queues::table.find(workspace).select(queues::workspace).for_update();
        let _: Option<WorkspaceId> = diesel_async::RunQueryDsl::get_result(row, &mut ***conn).await.optional()?;
        Ok(true)
    }

    /// Takes the workspace whose turn it is at this moment: the one that has waited longest, of those that nobody else is changing.
    pub async fn take_turn(&mut self, now: Timestamp) -> Result<Turn, Error> {
        let first = queues::table
            .filter(queues::turn.le(now))
            .order((queues::turn, queues::workspace))
            .select(queues::workspace)
            .limit(1);
        if let Some(workspace) = self.optional(SkipLocked(first)).await? {
            return Ok(Turn::Of(workspace));
        }
        let next: Option<Timestamp> =
            self.one(queues::table.filter(queues::turn.is_not_null()).select(min(queues::turn))).await?;
        Ok(next.map_or(Turn::Nobodys, Turn::Comes))
    }

    /// What a workspace has to start. Nothing if it is gone.
    pub async fn queued(&mut self, workspace: WorkspaceId) -> Result<Option<Queued>, Error> {
        let of_it = || jobs::table.filter(jobs::workspace.eq(workspace));
        let first =
            |lane| of_it().filter(as_indexed(lane)).order(jobs::ready).select(jobs::ready).limit(1).single_value();
        let running = of_it().filter(as_indexed(RUNNING));
        let changing = of_it().filter(as_indexed(RUNNING_FOR_REPOSITORY));
        let found = queues::table.find(workspace).select((
            queues::turn,
            queues::served,
            first(READY_FOR_REPOSITORY),
            first(READY_TO_RUN),
            running.count().single_value(),
            changing.count().single_value(),
        ));
        self.optional(found).await
    }

    /// Stores when it is a workspace's turn, and when it was last.
    pub async fn set_turn(
        &mut self,
        workspace: WorkspaceId,
        turn: Option<Timestamp>,
        served: Timestamp,
    ) -> Result<(), Error> {
        let change = (queues::turn.eq(turn), queues::served.eq(served));
        self.run(Kept(diesel::update(queues::table.find(workspace)).set(change))).await?;
        Ok(())
    }

    /// The first job of a workspace that may start at this moment, of those that change the repository or of the others.
    pub async fn next_ready_job(
        &mut self,
        workspace: WorkspaceId,
        for_repository: bool,
        now: Timestamp,
    ) -> Result<Option<Job>, Error> {
        let lane = if for_repository { READY_FOR_REPOSITORY } else { READY_TO_RUN };
        let first = jobs::table
            .filter(jobs::workspace.eq(workspace))
            .filter(as_indexed(lane))
            .filter(jobs::ready.le(now))
            .order((jobs::ready, NUMBER))
            .select(jobs::all_columns)
            .limit(1);
        self.optional(first).await
    }

    /// From when on the oldest job may start that may do so at this moment, if only its turn comes.
    pub async fn oldest_ready(&mut self, now: Timestamp) -> Result<Option<Timestamp>, Error> {
        let oldest: Option<Timestamp> =
            self.one(jobs::table.filter(jobs::ready.is_not_null()).select(min(jobs::ready))).await?;
        Ok(oldest.filter(|ready| *ready <= now))
    }

    /// Whether a job waits for something that is PROVISIONING.
    pub async fn is_held_back(&mut self, job: &Job) -> Result<bool, Error> {
        use diesel::sql_types::Text;
        let held_back = is_held_back!(job.type_.into_sql::<Text>(), job.workspace, job.pipeline);
        let held_back: Option<bool> = self.one(diesel::select(held_back.nullable())).await?;
        Ok(held_back.unwrap_or(false))
    }

    /// The queued jobs of a workspace, or of one of its pipelines, may start or not, as what they need is now.
    pub async fn sort_queue(&mut self, workspace: WorkspaceId, pipeline: Option<PipelineId>) -> Result<(), Error> {
        let queued = || {
            jobs::table
                .filter(as_indexed(ACTIVE))
                .filter(jobs::workspace.eq(workspace))
                .filter(maybe(pipeline, |it| jobs::pipeline.eq(it)))
                .filter(jobs::status.eq(JobStatus::Queued))
                .filter(jobs::type_.ne_all(JobType::USER_TASKS))
        };
        let held_back = queued().filter(jobs::ready.is_not_null()).filter(is_held_back!(
            jobs::type_,
            jobs::workspace,
            jobs::pipeline
        ));
        self.run(diesel::update(held_back).set(jobs::ready.eq(None::<Timestamp>))).await?;
        let released = queued().filter(jobs::ready.is_null()).filter(not(is_held_back!(
            jobs::type_,
            jobs::workspace,
            jobs::pipeline
        )));
        let ready = coalesce(jobs::not_before, jobs::created).nullable();
        self.run(diesel::update(released).set(jobs::ready.eq(ready))).await?;
        Ok(())
    }
}
