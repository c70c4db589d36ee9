//! The ticks of schedules that come next.

use diesel::prelude::*;

use super::conn::Conn;
use super::fragment::as_indexed;
use super::schema::pipelines;
use crate::error::Error;
use crate::model::{PipelineId, Timestamp, WorkspaceId};

/// Pipelines that have a schedule: `pipelines_next_run`.
const SCHEDULED: &str = "pipelines.next_run IS NOT NULL AND pipelines.deleted IS NULL";

impl Conn {
    /// Sets the next tick of a pipeline.
    pub async fn set_next_run(&mut self, pipeline: PipelineId, next: Option<Timestamp>) -> Result<(), Error> {
        self.run(diesel::update(pipelines::table.find(pipeline)).set(pipelines::next_run.eq(next))).await?;
        Ok(())
    }

    /// Moves the next tick of a pipeline on, and says whether it was still that one: if not, somebody else has taken it.
    pub async fn move_tick(
        &mut self,
        pipeline: PipelineId,
        tick: Timestamp,
        next: Option<Timestamp>,
    ) -> Result<bool, Error> {
        let expected = pipelines::table.find(pipeline).filter(pipelines::next_run.eq(tick));
        Ok(self.run(diesel::update(expected).set(pipelines::next_run.eq(next))).await? == 1)
    }

    /// Notes the latest tick of a pipeline that was taken when it came.
    pub async fn set_last_tick(&mut self, pipeline: PipelineId, tick: Timestamp) -> Result<(), Error> {
        self.run(diesel::update(pipelines::table.find(pipeline)).set(pipelines::last_tick.eq(tick))).await?;
        Ok(())
    }

    /// The latest tick of a pipeline that was taken when it came.
    pub async fn last_tick(&mut self, pipeline: PipelineId) -> Result<Option<Timestamp>, Error> {
        let last: Option<Option<Timestamp>> =
            self.optional(pipelines::table.find(pipeline).select(pipelines::last_tick)).await?;
        Ok(last.flatten())
    }

    /// The ticks that come first, of this many pipelines, up to a moment if there is one; each with the pipeline and its workspace.
    pub async fn next_ticks(
        &mut self,
        until: Option<Timestamp>,
        at_most: i64,
    ) -> Result<Vec<(WorkspaceId, PipelineId, Timestamp)>, Error> {
        let due = pipelines::table
            .filter(as_indexed(SCHEDULED))
            .filter(super::fragment::maybe(until, |it| pipelines::next_run.le(it).assume_not_null()))
            .order((pipelines::next_run, pipelines::id))
            .select((pipelines::workspace, pipelines::id, pipelines::next_run.assume_not_null()))
            .limit(at_most);
        self.all(due).await
    }
}
