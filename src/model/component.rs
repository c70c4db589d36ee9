//! Data components: a workspace's named instances of data plugins.

use super::{ComponentId, Property, Timestamp, WorkspaceId};

/// A data component.
#[derive(Debug, Clone)]
pub struct DataComponent {
    /// Its id.
    pub id: ComponentId,
    /// The workspace it belongs to.
    pub workspace: WorkspaceId,
    /// When it was created.
    pub created: Timestamp,
    /// When a user last changed it.
    pub last_modified: Timestamp,
    /// Its name, unique in its workspace: what pipelines call it.
    pub name: String,
    /// The name of the data plugin that it is an instance of.
    pub plugin: String,
    /// The settings of the plugin, by their own names.
    pub properties: Vec<Property>,
}
