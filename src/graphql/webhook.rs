//! Webhooks.

use async_graphql::connection::Connection;
use async_graphql::{Context, ID, Object, Result};

use super::connection::{PageArguments, Position, connect};
use super::loaders;
use super::pipeline::Pipeline;
use super::workspace::Workspace;
use crate::model::{self, ActivityLevel, Timestamp, WorkspaceId};

pub(super) struct Webhook(pub(super) model::Webhook);

pub(super) type WebhookConnection = Connection<Position<model::Webhook>, Webhook, WebhookCount>;

/// A webhook: an address outside of the server to which it posts what happens to pipelines, as the Standard Webhooks specification says: signed, with an
/// id that is the same with every try. A delivery that fails is tried again for days. It may arrive twice, and later than others that
/// came after it; its `data.cursor` tells the order.
#[Object]
impl Webhook {
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

    /// Where it leads.
    async fn url(&self) -> &str {
        &self.0.url
    }

    /// Which activity it is told of.
    async fn level(&self) -> ActivityLevel {
        self.0.level
    }

    /// When a delivery last arrived.
    async fn last_success(&self) -> Option<Timestamp> {
        self.0.last_success
    }

    /// When a try last failed.
    async fn last_failure(&self) -> Option<Timestamp> {
        self.0.last_failure
    }

    /// Why that failed.
    async fn last_error(&self) -> Option<&str> {
        self.0.last_error.as_deref()
    }

    /// How many deliveries have not arrived yet.
    async fn pending_deliveries(&self, ctx: &Context<'_>) -> Result<i64> {
        Ok(loaders::delivery_count(ctx, self.0.id).await?)
    }

    /// The only pipeline whose activity it is told of; null if it is that of all.
    async fn pipeline(&self, ctx: &Context<'_>) -> Result<Option<Pipeline>> {
        let Some(id) = self.0.pipeline else { return Ok(None) };
        Ok(loaders::pipeline(ctx, id).await?.map(Pipeline))
    }

    /// The workspace it belongs to.
    async fn workspace(&self, ctx: &Context<'_>) -> Result<Workspace> {
        Ok(Workspace(loaders::workspace(ctx, self.0.workspace).await?))
    }
}

pub(super) struct WebhookCount {
    workspace: WorkspaceId,
}

/// What a list of webhooks says beside them.
#[Object]
impl WebhookCount {
    /// How many webhooks the workspace has. It is counted only if it is asked for.
    async fn total_count(&self, ctx: &Context<'_>) -> Result<i64> {
        Ok(loaders::webhook_count(ctx, self.workspace).await?)
    }
}

/// A page of the webhooks of a workspace.
pub(super) async fn webhooks_of(
    ctx: &Context<'_>,
    workspace: WorkspaceId,
    page: PageArguments,
) -> Result<WebhookConnection> {
    let page = loaders::webhooks(ctx, workspace, page.request(ctx)?).await?;
    Ok(connect(page, WebhookCount { workspace }, |it| it.id, Webhook))
}
