//! Invitations.

use async_graphql::{Context, ID, Object, Result};

use super::loaders;
use super::workspace::Workspace;
use crate::model::{self, Timestamp};

pub(super) struct Invitation(pub(super) model::Invitation);

/// An invitation to a workspace.
#[Object]
impl Invitation {
    /// Its id: a version 4 UUID.
    pub(super) async fn id(&self) -> ID {
        self.0.id.to_string().into()
    }

    /// When it was made.
    async fn created(&self) -> Timestamp {
        self.0.created
    }

    /// Whom it is for.
    async fn email(&self) -> &str {
        &self.0.email
    }

    /// The workspace it is to.
    async fn workspace(&self, ctx: &Context<'_>) -> Result<Workspace> {
        Ok(Workspace(loaders::workspace(ctx, self.0.workspace).await?))
    }
}
