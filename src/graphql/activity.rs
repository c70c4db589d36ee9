//! Activity: what happens to pipelines.

use async_graphql::{Context, ID, Object, Result};

use super::job::Job;
use super::loaders;
use super::pipeline::Pipeline;
use crate::model::{self, ActivityKind, Timestamp, stream_cursor};

pub(super) struct PipelineActivity(pub(super) model::Activity);

/// Something that happened to a pipeline. `job` and `pipeline` are as they are now; the rest is what happened.
#[Object]
impl PipelineActivity {
    /// Where the stream goes on after this: give it as `after`.
    async fn cursor(&self) -> String {
        stream_cursor(self.0.position)
    }

    /// What happened.
    async fn kind(&self) -> ActivityKind {
        self.0.kind()
    }

    /// When it was.
    async fn at(&self) -> Timestamp {
        self.0.at
    }

    /// Why a run was skipped; null otherwise.
    async fn reason(&self) -> Option<&str> {
        self.0.skipped.as_deref()
    }

    /// The attempt that started or ended; null for a run that was skipped.
    async fn attempt(&self) -> Option<i32> {
        self.0.attempt
    }

    /// The job that started or ended; null for a run that was skipped.
    async fn job_id(&self) -> Option<ID> {
        self.0.job.map(|id| id.to_string().into())
    }

    /// That job as it is now: null if it has been deleted.
    async fn job(&self, ctx: &Context<'_>) -> Result<Option<Job>> {
        let Some(id) = self.0.job else { return Ok(None) };
        Ok(loaders::job(ctx, id).await?.map(Job))
    }

    /// The pipeline that it happened to.
    async fn pipeline_id(&self) -> ID {
        self.0.pipeline.to_string().into()
    }

    /// That pipeline as it is now: null if it has been deleted.
    async fn pipeline(&self, ctx: &Context<'_>) -> Result<Option<Pipeline>> {
        Ok(loaders::pipeline(ctx, self.0.pipeline).await?.map(Pipeline))
    }
}
