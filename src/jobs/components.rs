//! Data components: create, update, delete; and what pipelines mean by the names of them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use futures_util::FutureExt;

use super::pipelines::taken;
use super::{Jobs, Unit, validate};
use crate::catalogue::{Catalogue, DataPlugin};
use crate::error::{Error, Problem};
use crate::model::{ComponentId, DataComponent, Definition, JobId, JobType, Property, Quoted, WorkspaceId, variable};
use crate::store::Conn;

/// What a pipeline means by one of the names in its definition.
#[derive(Debug, Clone)]
pub struct Used {
    /// The name.
    pub name: String,
    /// The data plugin: none if its definition is gone.
    pub plugin: Option<Arc<DataPlugin>>,
    /// The data component, if the name is not that of the plugin itself.
    pub component: Option<DataComponent>,
}

impl Jobs {
    /// Creates a data component. Answers warnings about sensitive values too.
    pub async fn create_data_component(
        &self,
        workspace: WorkspaceId,
        name: String,
        plugin: String,
        mut properties: Vec<Property>,
    ) -> Result<(DataComponent, Vec<Problem>), Error> {
        let mut problems = validate::component_name(&name);
        let known = self.catalogue.get(&plugin).cloned();
        if known.is_none() {
            problems.push(Problem::at("input.plugin", format!("There is no data plugin {}.", Quoted(&plugin))));
        }
        if self.catalogue.get(&name).is_some() && name != plugin {
            let message = "A data plugin has this name: only an instance of it can be called so.";
            problems.push(Problem::at("input.name", message));
        }
        if let Some(plugin) = &known {
            problems.extend(validate::settings(plugin, &properties));
        }
        let cipher = self.cipher.clone();
        self.commit(move |unit| {
            async move {
                unit.workspace(workspace).await?;
                let Some(known) = known.filter(|_| problems.is_empty()) else {
                    return Err(Error::BadUserInput(problems));
                };
                unit.component_name_is_free(workspace, &name).await?;
                let id = ComponentId::random();
                let warnings = unit.seal(&cipher, id, &mut properties, |name| known.is_sensitive(name)).await?;
                let (created, last_modified) = (unit.now, unit.now);
                let component = DataComponent { id, workspace, created, last_modified, name, plugin, properties };
                unit.conn.insert_data_component(&component).await?;
                Ok((component, warnings))
            }
            .boxed()
        })
        .await
    }

    /// Replaces the settings of a data component; without any, only marks it as modified. Jobs that start from now on have the new ones. Answers
    /// warnings about sensitive values too.
    pub async fn update_data_component(
        &self,
        id: ComponentId,
        properties: Option<Vec<Property>>,
    ) -> Result<(DataComponent, Vec<Problem>), Error> {
        let (catalogue, cipher) = (self.catalogue.clone(), self.cipher.clone());
        self.commit(move |unit| {
            async move {
                let before = unit.data_component(id).await?;
                let mut properties = properties.unwrap_or_else(|| before.properties.clone());
                let plugin = catalogue.get(&before.plugin).ok_or_else(|| {
                    Error::NotReady(format!(
                        "The data plugin {} is not in the catalogue any more.",
                        Quoted(&before.plugin)
                    ))
                })?;
                let problems = validate::settings(plugin, &properties);
                if !problems.is_empty() {
                    return Err(Error::BadUserInput(problems));
                }
                let warnings = unit.seal(&cipher, id, &mut properties, |name| plugin.is_sensitive(name)).await?;
                let component = DataComponent { last_modified: unit.now, properties, ..before };
                unit.conn.update_data_component(&component).await?;
                Ok((component, warnings))
            }
            .boxed()
        })
        .await
    }

    /// Deletes a data component. [`Error::Conflict`] if a pipeline names it, or did when a run was queued that has not ended.
    pub async fn delete_data_component(&self, id: ComponentId) -> Result<(), Error> {
        self.commit(move |unit| {
            async move {
                let component = unit.data_component(id).await?;
                let pipelines = unit.conn.pipelines_of(component.workspace).await?;
                let naming = pipelines.iter().filter(|it| names(&it.definition).contains(component.name.as_str()));
                let naming: Vec<String> = naming.map(|it| Quoted(&it.name).to_string()).collect();
                if !naming.is_empty() {
                    return Err(Error::Conflict(format!("Pipelines name the data component: {}.", naming.join(", "))));
                }
                if let Some(job) = unit.job_that_names(&component).await? {
                    return Err(Error::Conflict(format!("Job {job} has not ended, and uses the data component.")));
                }
                unit.conn.remove_data_component(id).await
            }
            .boxed()
        })
        .await
    }
}

/// The names of data components and plugins in a definition, each once.
pub(super) fn names(definition: &Definition) -> BTreeSet<&str> {
    let components = definition.data_components.iter().map(String::as_str);
    components.chain(definition.actions.iter().map(|action| plugin_of(action))).collect()
}

/// The part of an action that names what does it.
fn plugin_of(action: &str) -> &str {
    action.split_once(':').map_or(action, |(plugin, _)| plugin)
}

impl Unit<'_> {
    async fn data_component(&mut self, id: ComponentId) -> Result<DataComponent, Error> {
        let unknown = || Error::not_found("data component", id);
        let component = self.conn.data_component(id).await?.ok_or_else(unknown)?;
        if self.hold(component.workspace).await? {
            return self.conn.data_component(id).await?.ok_or_else(unknown);
        }
        Ok(component)
    }

    /// A job that has not ended, and whose definition names this data component: its pipeline's may name it no more.
    async fn job_that_names(&mut self, component: &DataComponent) -> Result<Option<JobId>, Error> {
        for job in self.conn.active_jobs(Some(component.workspace), None).await? {
            let Some(definition) = job.definition.filter(|_| job.type_ != JobType::PipelineConfig) else { continue };
            let definition = self.conn.definition(definition).await?.unwrap_or_default();
            if names(&definition).contains(component.name.as_str()) {
                return Ok(Some(job.id));
            }
        }
        Ok(None)
    }

    /// Two names must not come to the same variables either.
    async fn component_name_is_free(&mut self, workspace: WorkspaceId, name: &str) -> Result<(), Error> {
        let others = self.conn.data_components_of(workspace, None).await?;
        match others.iter().find(|other| variable(&other.name) == variable(name)) {
            Some(other) if other.name.eq_ignore_ascii_case(name) => {
                Err(Error::Conflict(taken("The workspace has a data component", name, &other.name)))
            }
            Some(other) => Err(Error::Conflict(format!(
                "The variables of {} would have the names of those of the data component {}.",
                Quoted(name),
                Quoted(&other.name)
            ))),
            None => Ok(()),
        }
    }

    /// What a definition's names mean now, in the order of its components and then of its actions.
    pub(super) async fn used_by(
        &mut self,
        catalogue: &Catalogue,
        workspace: WorkspaceId,
        definition: &Definition,
    ) -> Result<Vec<Used>, Error> {
        used_by(self.conn, catalogue, workspace, definition).await
    }
}

/// What the names in a definition mean in a workspace.
pub(super) async fn used_by(
    conn: &mut Conn,
    catalogue: &Catalogue,
    workspace: WorkspaceId,
    definition: &Definition,
) -> Result<Vec<Used>, Error> {
    let names = names(definition);
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let components = conn.data_components_of(workspace, Some(names.iter().copied().collect())).await?;
    let mut components: HashMap<String, DataComponent> =
        components.into_iter().map(|it| (it.name.clone(), it)).collect();
    let mut used: Vec<Used> = Vec::new();
    let actions = definition.actions.iter().map(|action| plugin_of(action));
    for name in definition.data_components.iter().map(String::as_str).chain(actions) {
        if used.iter().all(|earlier| earlier.name != name) {
            let component = components.remove(name);
            let plugin = catalogue.get(component.as_ref().map_or(name, |it| &it.plugin)).cloned();
            used.push(Used { name: name.to_owned(), plugin, component });
        }
    }
    Ok(used)
}
