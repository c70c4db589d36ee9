//! Workspaces, and invitations to them.

use diesel::prelude::*;

use super::{InvitationId, RepositoryUrl, ResourceStatus, Timestamp, WorkspaceId};

/// A workspace: it owns pipelines, jobs and a git repository.
#[derive(Debug, Clone, Queryable, Insertable)]
#[diesel(table_name = crate::store::schema::workspaces, treat_none_as_default_value = false)]
pub struct Workspace {
    /// Its id.
    pub id: WorkspaceId,
    /// When it was created.
    pub created: Timestamp,
    /// When a user last changed it.
    pub last_modified: Timestamp,
    /// Its name, unique among workspaces.
    pub name: String,
    /// Its name as it can stand in an address: lower case letters, digits and hyphens. Not unique.
    pub alias: String,
    /// Follows its `WORKSPACE_INIT` job.
    pub status: ResourceStatus,
    /// When it was deleted: it is kept until the last of its processes is gone.
    pub deleted: Option<Timestamp>,
    /// The git URL that its repository comes from and goes to, if that is not the servers' own.
    pub origin: Option<RepositoryUrl>,
}

impl Workspace {
    /// The alias for a name.
    pub fn alias_of(name: &str) -> String {
        let words = name.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
        words.map(str::to_lowercase).collect::<Vec<_>>().join("-")
    }
}

/// An invitation to a workspace.
#[derive(Debug, Clone, Queryable, Insertable)]
#[diesel(table_name = crate::store::schema::invitations, treat_none_as_default_value = false)]
pub struct Invitation {
    /// Its id.
    pub id: InvitationId,
    /// The workspace it is to.
    pub workspace: WorkspaceId,
    /// When it was made.
    pub created: Timestamp,
    /// Whom it is for.
    pub email: String,
}
