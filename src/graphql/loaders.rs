//! Neighbours, many at a time: one query for all the workspaces that a list of jobs asks for.
//!
//! A loader waits a millisecond for others that ask, so a lookup that stands alone goes straight to the store. Loaders are made anew
//! for each request, so that nothing is shared between requests, and nothing is stale in a long one.

use std::collections::HashMap;

use async_graphql::Context;
use async_graphql::dataloader::{DataLoader, Loader};
use futures_util::FutureExt;

use crate::error::Error;
use crate::model::{Pipeline, PipelineId, Workspace, WorkspaceId};
use crate::store::Store;

/// The loaders of one request.
pub(super) struct Loaders {
    by_id: DataLoader<ById>,
}

struct ById {
    store: Store,
}

impl Loaders {
    pub(super) fn new(store: &Store) -> Self {
        Self { by_id: DataLoader::new(ById { store: store.clone() }, tokio::spawn) }
    }
}

/// The workspace with this id, if it is there.
pub(super) async fn workspace(ctx: &Context<'_>, id: WorkspaceId) -> Result<Option<Workspace>, Error> {
    ctx.data_unchecked::<Loaders>().by_id.load_one(id).await
}

/// The pipeline with this id, if it is there.
pub(super) async fn pipeline(ctx: &Context<'_>, id: PipelineId) -> Result<Option<Pipeline>, Error> {
    ctx.data_unchecked::<Loaders>().by_id.load_one(id).await
}

impl Loader<WorkspaceId> for ById {
    type Value = Workspace;
    type Error = Error;

    async fn load(&self, ids: &[WorkspaceId]) -> Result<HashMap<WorkspaceId, Workspace>, Error> {
        let ids = ids.to_vec();
        let found = self.store.read(move |conn| async move { conn.workspaces_by_id(&ids).await }.boxed()).await?;
        Ok(found.into_iter().map(|it| (it.id, it)).collect())
    }
}

impl Loader<PipelineId> for ById {
    type Value = Pipeline;
    type Error = Error;

    async fn load(&self, ids: &[PipelineId]) -> Result<HashMap<PipelineId, Pipeline>, Error> {
        let ids = ids.to_vec();
        let found = self.store.read(move |conn| async move { conn.pipelines_by_id(&ids).await }.boxed()).await?;
        Ok(found.into_iter().map(|it| (it.id, it)).collect())
    }
}
