//! Data plugins: what the catalogue knows.

use std::sync::Arc;

use async_graphql::{Context, Object, SimpleObject};

use crate::catalogue::{Catalogue, DataPlugin as Plugin, Setting};
use crate::model::{PluginType, SettingKind};

pub(super) struct DataPlugin(pub(super) Arc<Plugin>);

/// A data plugin: a program that reads from a source, writes to a destination, or does something else with what is loaded.
#[Object]
impl DataPlugin {
    /// Its name: what data components, and pipelines, call it.
    async fn name(&self) -> &str {
        &self.0.name
    }

    /// What it is for.
    async fn r#type(&self) -> PluginType {
        self.0.type_
    }

    /// Its name for people.
    async fn label(&self) -> &str {
        self.0.label.as_deref().unwrap_or(&self.0.name)
    }

    /// What it does.
    async fn description(&self) -> Option<&str> {
        self.0.description.as_deref()
    }

    /// Which of several plugins of this name it is.
    async fn variant(&self) -> Option<&str> {
        self.0.variant.as_deref()
    }

    /// What is installed for it from the Python package index; null if nothing has to be.
    async fn pip_url(&self) -> Option<&str> {
        self.0.pip_url.as_deref()
    }

    /// What it can do, in the words of its kind.
    async fn capabilities(&self) -> &[String] {
        &self.0.capabilities
    }

    /// Its settings.
    async fn settings(&self) -> Vec<PluginSetting> {
        self.0.settings.iter().map(PluginSetting::from).collect()
    }

    /// Which settings are required: all of one of these groups. Empty if none is.
    async fn required_settings(&self) -> &[Vec<String>] {
        &self.0.required
    }
}

/// A setting of a data plugin.
#[derive(SimpleObject)]
struct PluginSetting {
    /// Its name.
    name: String,
    /// Its name for people.
    label: Option<String>,
    /// What it does.
    description: Option<String>,
    /// What its values are.
    kind: SettingKind,
    /// Whether its value can be written but never read.
    sensitive: bool,
    /// The values that it can have, where there are only some.
    options: Vec<String>,
    /// What it is set to where nobody has set it.
    default: Option<String>,
}

impl From<&Setting> for PluginSetting {
    fn from(setting: &Setting) -> Self {
        let Setting { name, label, description, kind, sensitive, options, default } = setting.clone();
        Self { name, label, description, kind, sensitive, options, default }
    }
}

/// The plugins of these types, or all.
pub(super) fn data_plugins(ctx: &Context<'_>, types: Option<Vec<PluginType>>) -> Vec<DataPlugin> {
    let wanted = |plugin: &&Arc<Plugin>| types.as_ref().is_none_or(|types| types.contains(&plugin.type_));
    ctx.data_unchecked::<Catalogue>().iter().filter(wanted).map(|plugin| DataPlugin(Arc::clone(plugin))).collect()
}
