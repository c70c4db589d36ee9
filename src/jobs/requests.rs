//! What users ask of jobs: create, verify, stop, delete.

use futures_util::FutureExt;

use super::schedules::Cause;
use super::{Jobs, Unit, state};
use crate::error::Error;
use crate::model::{Job, JobId, JobStopReason, JobType, Pipeline, PipelineId, ResourceStatus};

impl Jobs {
    /// Queues a run of a pipeline. [`Error::PipelineBusy`] if it has one already, [`Error::NotReady`] if it is FAILED.
    pub async fn create_job(&self, pipeline: PipelineId) -> Result<Job, Error> {
        self.commit(move |unit| {
            async move {
                let pipeline = unit.usable_pipeline(pipeline).await?;
                if let Some(active) = unit.conn.active_run(pipeline.id).await? {
                    return Err(Error::PipelineBusy { job_id: active.to_string() });
                }
                unit.queue_for_pipeline(&pipeline, JobType::PipelineRun, Cause::USER).await
            }
            .boxed()
        })
        .await
    }

    /// Queues a verification of a pipeline. [`Error::NotReady`] if it is FAILED.
    pub async fn verify_pipeline(&self, pipeline: PipelineId) -> Result<Job, Error> {
        self.commit(move |unit| {
            async move {
                let pipeline = unit.usable_pipeline(pipeline).await?;
                unit.queue_for_pipeline(&pipeline, JobType::PipelineVerify, Cause::USER).await
            }
            .boxed()
        })
        .await
    }

    /// Stops a job: a queued one at once; for a running one the wish is stored, and its runner carries it out.
    /// [`Error::JobNotActive`] if it has ended.
    pub async fn stop_job(&self, id: JobId) -> Result<Job, Error> {
        self.commit(move |unit| {
            async move {
                let job = unit.job(id).await?;
                let stopped = state::stop(&job, JobStopReason::Requested, unit.now)?;
                unit.change(&job, stopped).await
            }
            .boxed()
        })
        .await
    }

    /// Deletes a job: it is gone from every query at once. If it runs it is stopped, and goes when its processes have.
    pub async fn delete_job(&self, id: JobId) -> Result<(), Error> {
        self.commit(move |unit| {
            async move {
                let job = unit.job(id).await?;
                unit.delete(&job).await
            }
            .boxed()
        })
        .await
    }
}

impl Unit<'_> {
    /// A pipeline that jobs can be queued for.
    async fn usable_pipeline(&mut self, id: PipelineId) -> Result<Pipeline, Error> {
        let pipeline = self.pipeline(id).await?;
        self.workspace_not_failed(pipeline.workspace).await?;
        match pipeline.status {
            ResourceStatus::Failed => Err(Error::NotReady(
                "The pipeline is FAILED. See the log of its PIPELINE_CONFIG job, then update the pipeline.".to_owned(),
            )),
            _ => Ok(pipeline),
        }
    }
}
