//! Invitations.

use diesel::prelude::*;

use super::conn::Conn;
use super::schema::{invitations, workspaces};
use crate::error::Error;
use crate::model::{Invitation, InvitationId, WorkspaceId};

impl Conn {
    /// Stores a new invitation.
    pub async fn insert_invitation(&mut self, invitation: &Invitation) -> Result<(), Error> {
        self.run(diesel::insert_into(invitations::table).values(invitation)).await?;
        Ok(())
    }

    /// The invitation with this id, unless its workspace is deleted.
    pub async fn invitation(&mut self, id: InvitationId) -> Result<Option<Invitation>, Error> {
        let invited = invitations::table.inner_join(workspaces::table).filter(invitations::id.eq(id));
        self.optional(invited.filter(workspaces::deleted.is_null()).select(invitations::all_columns)).await
    }

    /// Removes the invitations to a workspace.
    pub(super) async fn remove_invitations_of(&mut self, workspace: WorkspaceId) -> Result<(), Error> {
        self.run(diesel::delete(invitations::table.filter(invitations::workspace.eq(workspace)))).await?;
        Ok(())
    }
}
