//! Triggers: which pipeline follows which.

use diesel::prelude::*;

use super::conn::Conn;
use super::schema::{pipelines, triggers};
use crate::error::Error;
use crate::model::{PipelineId, WorkspaceId};

impl Conn {
    /// Stores which pipelines trigger this one, in this order, and no others any more.
    pub async fn set_triggers(&mut self, pipeline: PipelineId, sources: &[PipelineId]) -> Result<(), Error> {
        self.run(diesel::delete(triggers::table.filter(triggers::pipeline.eq(pipeline)))).await?;
        for (place, source) in (0_i32..).zip(sources) {
            let row = (triggers::pipeline.eq(pipeline), triggers::source.eq(*source), triggers::place.eq(place));
            self.run(diesel::insert_into(triggers::table).values(row)).await?;
        }
        Ok(())
    }

    /// Removes a pipeline from among the triggers: it triggers none, and none triggers it.
    pub async fn remove_triggers_of(&mut self, pipeline: PipelineId) -> Result<(), Error> {
        let of_it = triggers::table.filter(triggers::pipeline.eq(pipeline).or(triggers::source.eq(pipeline)));
        self.run(diesel::delete(of_it)).await?;
        Ok(())
    }

    /// The names of the pipelines that trigger each of these, in the order that the user gave: pairs of the one that is triggered and a name.
    pub async fn triggers_of(&mut self, ids: &[PipelineId]) -> Result<Vec<(PipelineId, String)>, Error> {
        let of_them = triggers::table
            .inner_join(pipelines::table.on(pipelines::id.eq(triggers::source)))
            .filter(triggers::pipeline.eq_any(ids))
            .order((triggers::pipeline, triggers::place));
        self.all(of_them.select((triggers::pipeline, pipelines::name))).await
    }

    /// The pipelines that this one triggers, oldest first.
    pub async fn triggered_by(&mut self, source: PipelineId) -> Result<Vec<PipelineId>, Error> {
        let followers = triggers::table
            .inner_join(pipelines::table.on(pipelines::id.eq(triggers::pipeline)))
            .filter(triggers::source.eq(source))
            .order((pipelines::created, pipelines::id));
        self.all(followers.select(triggers::pipeline)).await
    }

    /// All triggers in a workspace: pairs of the pipeline that is triggered and the one that triggers it.
    pub async fn triggers_in(&mut self, workspace: WorkspaceId) -> Result<Vec<(PipelineId, PipelineId)>, Error> {
        let of_it = triggers::table
            .inner_join(pipelines::table.on(pipelines::id.eq(triggers::pipeline)))
            .filter(pipelines::workspace.eq(workspace));
        self.all(of_it.select((triggers::pipeline, triggers::source))).await
    }
}
