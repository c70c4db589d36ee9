//! Pipelines: create, update, delete.

use futures_util::FutureExt;

use super::{Jobs, Unit, validate};
use crate::error::{Error, Problem};
use crate::model::{
    Definition, DefinitionId, Job, JobType, Pipeline, PipelineId, Property, ResourceStatus, WorkspaceId,
};

/// A pipeline to be created.
#[derive(Debug, Clone)]
pub struct NewPipeline {
    /// Its name.
    pub name: String,
    /// What it is to do.
    pub definition: Definition,
}

impl NewPipeline {
    /// What is wrong with it, as far as it can be told without the workspace.
    pub fn check(&self) -> Result<(), Error> {
        let problems = validate::pipeline(&self.name, &self.definition);
        if problems.is_empty() { Ok(()) } else { Err(Error::BadUserInput(problems)) }
    }
}

/// What is to change in a pipeline: where there is nothing, it stays as it is.
#[derive(Debug, Clone, Default)]
pub struct PipelineChanges {
    /// See [`Pipeline::name`].
    pub name: Option<String>,
    /// See [`Definition::schedule`].
    pub schedule: Option<Option<String>>,
    /// See [`Definition::timeout`].
    pub timeout: Option<i32>,
    /// See [`Definition::max_retries`].
    pub max_retries: Option<i32>,
    /// See [`Definition::script`].
    pub script: Option<Option<String>>,
    /// See [`Definition::data_components`].
    pub data_components: Option<Vec<String>>,
    /// See [`Definition::actions`].
    pub actions: Option<Vec<String>>,
    /// See [`Definition::properties`].
    pub properties: Option<Vec<Property>>,
    /// See [`Definition::triggered_by`].
    pub triggered_by: Option<Vec<String>>,
}

impl PipelineChanges {
    fn apply(self, pipeline: &Pipeline) -> (String, Definition) {
        let old = pipeline.definition.clone();
        let definition = Definition {
            schedule: self.schedule.unwrap_or(old.schedule),
            timeout: self.timeout.unwrap_or(old.timeout),
            max_retries: self.max_retries.unwrap_or(old.max_retries),
            script: self.script.unwrap_or(old.script),
            data_components: self.data_components.unwrap_or(old.data_components),
            actions: self.actions.unwrap_or(old.actions),
            properties: self.properties.unwrap_or(old.properties),
            triggered_by: self.triggered_by.unwrap_or(old.triggered_by),
        };
        (self.name.unwrap_or_else(|| pipeline.name.clone()), definition)
    }
}

impl Jobs {
    /// Creates a pipeline, and queues the job that writes it into the workspace's repository. The first pipeline of a
    /// workspace completes the user task that asks for one.
    pub async fn create_pipeline(&self, workspace: WorkspaceId, new: NewPipeline) -> Result<(Pipeline, Job), Error> {
        let problems = validate::pipeline(&new.name, &new.definition);
        self.commit(move |unit| {
            async move {
                unit.workspace_not_failed(workspace).await?;
                unit.check_triggers(workspace, &new.name, &new.definition, true, problems).await?;
                unit.pipeline_name_is_free(workspace, &new.name, None).await?;
                let pipeline = Pipeline {
                    id: PipelineId::random(),
                    workspace,
                    created: unit.now,
                    last_modified: unit.now,
                    name: new.name,
                    status: ResourceStatus::Provisioning,
                    definition_id: DefinitionId::random(),
                    definition: new.definition,
                };
                unit.conn.insert_pipeline(&pipeline).await?;
                unit.complete_user_task(workspace, JobType::ProfileImport).await?;
                let job = unit.queue_for_pipeline(&pipeline, JobType::PipelineConfig).await?;
                Ok((pipeline, job))
            }
            .boxed()
        })
        .await
    }

    /// Updates a pipeline. One that was FAILED, or that gets another name, is configured again: then the job is answered too.
    pub async fn update_pipeline(
        &self,
        id: PipelineId,
        changes: PipelineChanges,
    ) -> Result<(Pipeline, Option<Job>), Error> {
        self.commit(move |unit| {
            async move {
                let before = unit.pipeline(id).await?;
                // One that was named before may be gone by now.
                let new_triggers = changes.triggered_by.is_some();
                let (name, definition) = changes.apply(&before);
                let problems = validate::pipeline(&name, &definition);
                unit.check_triggers(before.workspace, &name, &definition, new_triggers, problems).await?;
                unit.pipeline_name_is_free(before.workspace, &name, Some(id)).await?;
                let configure = before.status == ResourceStatus::Failed || name != before.name;
                let mut pipeline = Pipeline {
                    last_modified: unit.now,
                    name,
                    definition_id: DefinitionId::random(),
                    definition,
                    ..before
                };
                let mut job = None;
                if configure {
                    unit.workspace_not_failed(pipeline.workspace).await?;
                    pipeline.status = ResourceStatus::Provisioning;
                }
                unit.conn.update_pipeline(&pipeline).await?;
                if configure {
                    job = Some(unit.queue_for_pipeline(&pipeline, JobType::PipelineConfig).await?);
                }
                unit.conn.remove_old_definitions(id).await?;
                Ok((pipeline, job))
            }
            .boxed()
        })
        .await
    }

    /// Deletes a pipeline and its jobs. What runs is stopped first.
    pub async fn delete_pipeline(&self, id: PipelineId) -> Result<(), Error> {
        self.commit(move |unit| {
            async move {
                let pipeline = unit.pipeline(id).await?;
                unit.conn.mark_pipeline_deleted(id, unit.now).await?;
                unit.delete_jobs(pipeline.workspace, Some(id)).await
            }
            .boxed()
        })
        .await
    }
}

impl Unit<'_> {
    /// Adds to the problems of a pipeline what only the database knows, and refuses it if there are any.
    async fn check_triggers(
        &mut self,
        workspace: WorkspaceId,
        name: &str,
        definition: &Definition,
        must_be_there: bool,
        mut problems: Vec<Problem>,
    ) -> Result<(), Error> {
        for (index, other) in definition.triggered_by.iter().enumerate() {
            let message = if other == name {
                "A pipeline cannot be triggered by itself.".to_owned()
            } else if must_be_there && self.conn.pipeline_named(workspace, other).await?.is_none() {
                format!("The workspace has no pipeline named {other:?}.")
            } else {
                continue;
            };
            problems.push(Problem { path: format!("input.triggeredBy.{index}"), message });
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::BadUserInput(problems)) }
    }

    async fn pipeline_name_is_free(
        &mut self,
        workspace: WorkspaceId,
        name: &str,
        except: Option<PipelineId>,
    ) -> Result<(), Error> {
        match self.conn.pipeline_named(workspace, name).await? {
            Some(other) if Some(other) != except => {
                Err(Error::Conflict(format!("The workspace has a pipeline named {name:?} already.")))
            }
            _ => Ok(()),
        }
    }
}
