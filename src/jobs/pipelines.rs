//! Pipelines: create, update, delete.

use futures_util::FutureExt;
use jiff::tz::TimeZone;

use super::components::used_by;
use super::schedules::Cause;
use super::{Jobs, Unit, Used, validate};
use crate::error::{Error, Problem};
use crate::model::{
    Definition, DefinitionId, Job, JobType, Pipeline, PipelineId, Property, Quoted, ResourceStatus, WorkspaceId,
    naming, script_lines,
};

/// A pipeline to be created.
#[derive(Debug, Clone)]
pub struct NewPipeline {
    /// Its name.
    pub name: String,
    /// What it is to do.
    pub definition: Definition,
    /// The names of the pipelines whose successful completion starts this one.
    pub triggered_by: Vec<String>,
}

impl NewPipeline {
    /// The same in the form in which it is checked and stored.
    pub fn normalized(mut self) -> Self {
        self.name = naming::normalize(&self.name).into_owned();
        self.triggered_by = normalized_names(self.triggered_by);
        self.definition.schedule = self.definition.schedule.map(normalized_schedule);
        self.definition.script = self.definition.script.map(script_lines);
        self
    }

    /// What is wrong with it, as far as it can be told without the workspace.
    pub fn check(&self) -> Result<(), Error> {
        let problems = validate::pipeline(Some(&self.name), &self.definition, &self.triggered_by);
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
    /// See [`NewPipeline::triggered_by`].
    pub triggered_by: Option<Vec<String>>,
}

impl PipelineChanges {
    /// The same in the form in which they are checked and stored.
    pub fn normalized(mut self) -> Self {
        self.name = self.name.map(|name| naming::normalize(&name).into_owned());
        self.triggered_by = self.triggered_by.map(normalized_names);
        self.schedule = self.schedule.map(|schedule| schedule.map(normalized_schedule));
        self.script = self.script.map(|script| script.map(script_lines));
        self
    }

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
        };
        (self.name.unwrap_or_else(|| pipeline.name.clone()), definition)
    }
}

fn normalized_names(names: Vec<String>) -> Vec<String> {
    names.into_iter().map(|name| naming::normalize(&name).into_owned()).collect()
}

/// One space between two fields.
fn normalized_schedule(schedule: String) -> String {
    schedule.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl Jobs {
    /// Creates a pipeline, and queues the job that writes it into the workspace's repository. The first pipeline of a
    /// workspace completes the user task that asks for one. Answers warnings about sensitive values too.
    pub async fn create_pipeline(
        &self,
        workspace: WorkspaceId,
        new: NewPipeline,
    ) -> Result<(Pipeline, Job, Vec<Problem>), Error> {
        let mut problems = validate::pipeline(Some(&new.name), &new.definition, &new.triggered_by);
        let (catalogue, cipher, zone) = (self.catalogue.clone(), self.cipher.clone(), self.rules.zone.clone());
        self.commit(move |unit| {
            async move {
                unit.workspace_not_failed(workspace).await?;
                let uses = unit.used_by(&catalogue, workspace, &new.definition).await?;
                problems.extend(validate::uses(&new.definition, &uses));
                let (sources, more) = unit.sources(workspace, None, &new.name, &new.triggered_by).await?;
                problems.extend(more);
                if !problems.is_empty() {
                    return Err(Error::BadUserInput(problems));
                }
                unit.pipeline_name_is_free(workspace, &new.name, None).await?;
                let (id, mut definition) = (PipelineId::random(), new.definition);
                let properties = &mut definition.properties;
                let warnings = unit.seal(&cipher, id, properties, |name| is_sensitive(&uses, name)).await?;
                let pipeline = Pipeline {
                    id,
                    workspace,
                    created: unit.now,
                    last_modified: unit.now,
                    name: new.name,
                    status: ResourceStatus::Provisioning,
                    definition_id: DefinitionId::random(),
                    definition,
                };
                unit.conn.insert_pipeline(&pipeline).await?;
                unit.conn.set_triggers(id, &sources).await?;
                unit.set_schedule(&pipeline, &zone).await?;
                unit.complete_user_task(workspace, JobType::ProfileImport).await?;
                let job = unit.queue_for_pipeline(&pipeline, JobType::PipelineConfig, Cause::USER).await?;
                Ok((pipeline, job, warnings))
            }
            .boxed()
        })
        .await
    }

    /// Updates a pipeline. One that was FAILED, or that gets another name or other data components or actions, is configured again: then
    /// the job is answered too. Answers warnings about sensitive values as well.
    pub async fn update_pipeline(
        &self,
        id: PipelineId,
        changes: PipelineChanges,
    ) -> Result<(Pipeline, Option<Job>, Vec<Problem>), Error> {
        let (catalogue, cipher, zone) = (self.catalogue.clone(), self.cipher.clone(), self.rules.zone.clone());
        self.commit(move |unit| {
            async move {
                let before = unit.pipeline(id).await?;
                let triggered_by = changes.triggered_by.clone();
                let (name, mut definition) = changes.apply(&before);
                // A name that an earlier version took stays.
                let new_name = Some(name.as_str()).filter(|name| *name != before.name);
                let mut problems =
                    validate::pipeline(new_name, &definition, triggered_by.as_deref().unwrap_or_default());
                // A schedule from before a rule that refuses it goes on.
                let schedule_changed = definition.schedule != before.definition.schedule;
                problems.retain(|problem| schedule_changed || problem.path != "input.schedule");
                let uses = unit.used_by(&catalogue, before.workspace, &definition).await?;
                problems.extend(validate::uses(&definition, &uses));
                let wanted = triggered_by.as_deref().unwrap_or_default();
                let (sources, more) = unit.sources(before.workspace, Some(id), &name, wanted).await?;
                problems.extend(more);
                if !problems.is_empty() {
                    return Err(Error::BadUserInput(problems));
                }
                let renamed = name != before.name;
                if renamed {
                    unit.pipeline_name_is_free(before.workspace, &name, Some(id)).await?;
                }
                let properties = &mut definition.properties;
                let warnings = unit.seal(&cipher, id, properties, |name| is_sensitive(&uses, name)).await?;
                let plugins = |it: &Definition| (it.data_components.clone(), it.actions.clone());
                let configure = before.status == ResourceStatus::Failed
                    || renamed
                    || plugins(&definition) != plugins(&before.definition);
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
                if renamed {
                    unit.conn.set_key_of_pipeline(id, &pipeline.name).await?;
                }
                if triggered_by.is_some() {
                    unit.conn.set_triggers(id, &sources).await?;
                }
                if schedule_changed {
                    unit.set_schedule(&pipeline, &zone).await?;
                }
                if configure {
                    unit.sort_queue(pipeline.workspace, Some(id)).await?;
                    job = Some(unit.queue_for_pipeline(&pipeline, JobType::PipelineConfig, Cause::USER).await?);
                }
                unit.conn.remove_old_definitions(id).await?;
                Ok((pipeline, job, warnings))
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
                unit.conn.remove_triggers_of(id).await?;
                unit.conn.remove_webhooks_of_pipeline(id).await?;
                unit.delete_jobs(pipeline.workspace, Some(id)).await
            }
            .boxed()
        })
        .await
    }
}

/// A pipeline, with what its definition means now.
#[derive(Debug)]
pub struct Defined {
    /// The pipeline.
    pub pipeline: Pipeline,
    /// The names of the pipelines that trigger it.
    pub triggered_by: Vec<String>,
    /// What the names in its definition mean.
    pub uses: Vec<Used>,
}

impl Jobs {
    /// All pipelines of a workspace, for a repository that has to be rebuilt.
    pub async fn definitions_of(&self, workspace: WorkspaceId) -> Result<Vec<Defined>, Error> {
        let catalogue = self.catalogue.clone();
        self.store
            .read(move |conn| {
                async move {
                    let pipelines = conn.pipelines_of(workspace).await?;
                    let mut defined = Vec::with_capacity(pipelines.len());
                    for pipeline in pipelines {
                        let triggers = conn.triggers_of(&[pipeline.id]).await?;
                        let triggered_by = triggers.into_iter().map(|(_, name)| name).collect();
                        let uses = used_by(conn, &catalogue, workspace, &pipeline.definition).await?;
                        defined.push(Defined { pipeline, triggered_by, uses });
                    }
                    Ok(defined)
                }
                .boxed()
            })
            .await
    }
}

/// Whether what a property sets can be written but never read, by the word of a plugin.
fn is_sensitive(uses: &[Used], property: &str) -> bool {
    let Some((name, setting)) = property.split_once('.') else { return false };
    let plugin = uses.iter().find(|used| used.name == name).and_then(|used| used.plugin.as_ref());
    plugin.is_some_and(|plugin| plugin.is_sensitive(setting))
}

impl Unit<'_> {
    /// From now on the pipeline has the ticks of its schedule.
    async fn set_schedule(&mut self, pipeline: &Pipeline, zone: &TimeZone) -> Result<(), Error> {
        let schedule = pipeline.definition.schedule_in(zone);
        self.rings.schedules = true;
        self.conn.set_next_run(pipeline.id, schedule.map(|it| it.next_tick(self.now, None))).await
    }

    async fn pipeline_name_is_free(
        &mut self,
        workspace: WorkspaceId,
        name: &str,
        except: Option<PipelineId>,
    ) -> Result<(), Error> {
        let same = self.conn.pipelines_named(workspace, name).await?;
        match same.into_iter().find(|(other, _)| Some(*other) != except) {
            Some((_, existing)) => Err(Error::Conflict(taken("The workspace has a pipeline", name, &existing))),
            None => Ok(()),
        }
    }
}

/// What is said of a name that something else has already: with that one's spelling, if it is another.
pub(super) fn taken(what: &str, name: &str, existing: &str) -> String {
    let existing_quoted = Quoted(existing);
    if name == existing {
        return format!("{what} named {existing_quoted} already.");
    }
    format!(
        "{what} named {existing_quoted} already, and {} differs from that only in case or in the form of characters.",
        Quoted(name)
    )
}
