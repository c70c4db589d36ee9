//! Data components.

use async_graphql::connection::Connection;
use async_graphql::{Context, ID, Object, Result};

use super::connection::{PageArguments, Position, connect};
use super::data_plugin::DataPlugin;
use super::loaders;
use super::pipeline::Property;
use super::workspace::Workspace;
use crate::catalogue::Catalogue;
use crate::model::{self, Timestamp, WorkspaceId};

pub(super) struct DataComponent(pub(super) model::DataComponent);

pub(super) type DataComponentConnection = Connection<Position<model::DataComponent>, DataComponent, DataComponentCount>;

/// A data component: a workspace's own instance of a data plugin, with a name that pipelines call it by, and settings.
#[Object]
impl DataComponent {
    /// Its id: a version 4 UUID.
    pub(super) async fn id(&self) -> ID {
        self.0.id.to_string().into()
    }

    /// When it was created.
    async fn created(&self) -> Timestamp {
        self.0.created
    }

    /// When a user last changed it.
    async fn last_modified(&self) -> Timestamp {
        self.0.last_modified
    }

    /// Its name, unique in its workspace.
    async fn name(&self) -> &str {
        &self.0.name
    }

    /// The data plugin that it is an instance of; null if that is not in the catalogue any more.
    async fn plugin(&self, ctx: &Context<'_>) -> Option<DataPlugin> {
        ctx.data_unchecked::<Catalogue>().get(&self.0.plugin).cloned().map(DataPlugin)
    }

    /// Its settings, by the names that the plugin has for them.
    async fn properties(&self) -> Vec<Property> {
        self.0.properties.iter().map(Property::from).collect()
    }

    /// The workspace it belongs to.
    async fn workspace(&self, ctx: &Context<'_>) -> Result<Workspace> {
        Ok(Workspace(loaders::workspace(ctx, self.0.workspace).await?))
    }
}

pub(super) struct DataComponentCount {
    workspace: WorkspaceId,
}

/// What a list of data components says beside them.
#[Object]
impl DataComponentCount {
    /// How many data components the workspace has. It is counted only if it is asked for.
    async fn total_count(&self, ctx: &Context<'_>) -> Result<i64> {
        Ok(loaders::component_count(ctx, self.workspace).await?)
    }
}

/// A page of the data components of a workspace.
pub(super) async fn data_components_of(
    ctx: &Context<'_>,
    workspace: WorkspaceId,
    page: PageArguments,
) -> Result<DataComponentConnection> {
    let page = loaders::components(ctx, workspace, page.request(ctx)?).await?;
    Ok(connect(page, DataComponentCount { workspace }, |it| it.id, DataComponent))
}
