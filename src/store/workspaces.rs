//! Workspaces.

use diesel::prelude::*;
use diesel::sql_types::Integer;

use super::conn::Conn;
use super::fragment::{Number, either, maybe};
use super::pages::{Numbered, Page, PageRequest, Part, within};
use super::schema::{jobs, workspaces};
use crate::error::Error;
use crate::model::{RepositoryUrl, ResourceStatus, Timestamp, Workspace, WorkspaceId, naming};

/// The columns of a `Workspace`.
type Columns = (
    workspaces::id,
    workspaces::created,
    workspaces::last_modified,
    workspaces::name,
    workspaces::alias,
    workspaces::status,
    workspaces::deleted,
    workspaces::origin,
);
const COLUMNS: Columns = (
    workspaces::id,
    workspaces::created,
    workspaces::last_modified,
    workspaces::name,
    workspaces::alias,
    workspaces::status,
    workspaces::deleted,
    workspaces::origin,
);

/// A workspace's place in the list of all.
pub type WorkspacePosition = (i64, WorkspaceId);

const NUMBER: Number = Number("workspaces.number");

impl Conn {
    /// Stores a new workspace.
    pub async fn insert_workspace(&mut self, workspace: &Workspace) -> Result<(), Error> {
        let key = workspaces::name_key.eq(naming::key(&workspace.name));
        self.run(diesel::insert_into(workspaces::table).values((workspace, key))).await?;
        Ok(())
    }

    /// The workspace with this id, unless it is deleted.
    pub async fn workspace(&mut self, id: WorkspaceId) -> Result<Option<Workspace>, Error> {
        self.optional(workspaces::table.find(id).filter(workspaces::deleted.is_null()).select(COLUMNS)).await
    }

    /// The workspaces with these ids, in no order, also while they are deleted but not yet gone.
    pub async fn workspaces_even_deleted(&mut self, ids: &[WorkspaceId]) -> Result<Vec<Workspace>, Error> {
        self.all(workspaces::table.filter(workspaces::id.eq_any(ids)).select(COLUMNS)).await
    }

    /// A page of the list of workspaces, newest first.
    pub async fn workspaces(
        &mut self,
        request: PageRequest<WorkspacePosition>,
    ) -> Result<Page<Numbered<Workspace>>, Error> {
        use workspaces::{deleted, id};
        let query = |number: i32, (): &(), part: &Part<WorkspacePosition>| {
            workspaces::table
                .filter(deleted.is_null())
                .filter(within!(part, NUMBER, id))
                .select((number.into_sql::<Integer>(), (COLUMNS, NUMBER)))
                .order((
                    either(part.oldest_first, NUMBER.asc(), NUMBER.desc()),
                    either(part.oldest_first, id.asc(), id.desc()),
                ))
                .limit(part.limit)
        };
        let mut pages =
            self.pages(&[((), request)], query, |(it, number): &Numbered<Workspace>| (*number, it.id)).await?;
        Ok(pages.remove(0)) // one for each request
    }

    /// How many workspaces there are.
    pub async fn count_workspaces(&mut self) -> Result<i64, Error> {
        self.one(workspaces::table.filter(workspaces::deleted.is_null()).count()).await
    }

    /// Marks a workspace as modified.
    pub async fn touch_workspace(&mut self, id: WorkspaceId, at: Timestamp) -> Result<(), Error> {
        self.run(diesel::update(workspaces::table.find(id)).set(workspaces::last_modified.eq(at))).await?;
        Ok(())
    }

    /// Gives a workspace another name.
    pub async fn rename_workspace(&mut self, id: WorkspaceId, name: &str, alias: &str) -> Result<(), Error> {
        let change = diesel::update(workspaces::table.find(id)).set((
            workspaces::name.eq(name),
            workspaces::name_key.eq(naming::key(name)),
            workspaces::alias.eq(alias),
        ));
        self.run(change).await?;
        Ok(())
    }

    /// Sets where a workspace's repository comes from and goes to.
    pub async fn set_workspace_origin(&mut self, id: WorkspaceId, origin: Option<&RepositoryUrl>) -> Result<(), Error> {
        self.run(diesel::update(workspaces::table.find(id)).set(workspaces::origin.eq(origin))).await?;
        Ok(())
    }

    /// Which of these workspaces there are, deleted ones that are not cleared away yet among them.
    pub async fn known_workspaces(&mut self, ids: &[WorkspaceId]) -> Result<Vec<WorkspaceId>, Error> {
        self.all(workspaces::table.filter(workspaces::id.eq_any(ids)).select(workspaces::id)).await
    }

    /// Sets a workspace's status.
    pub async fn set_workspace_status(&mut self, id: WorkspaceId, status: ResourceStatus) -> Result<(), Error> {
        self.run(diesel::update(workspaces::table.find(id)).set(workspaces::status.eq(status))).await?;
        Ok(())
    }

    /// Marks a workspace as deleted.
    pub async fn mark_workspace_deleted(&mut self, id: WorkspaceId, at: Timestamp) -> Result<(), Error> {
        self.run(diesel::update(workspaces::table.find(id)).set(workspaces::deleted.eq(at))).await?;
        Ok(())
    }

    /// The deleted workspaces that have no jobs left.
    pub async fn cleared_workspaces(&mut self) -> Result<Vec<WorkspaceId>, Error> {
        let jobs_left = jobs::table.filter(jobs::workspace.eq(workspaces::id));
        let cleared = workspaces::table
            .filter(workspaces::deleted.is_not_null())
            .filter(diesel::dsl::not(diesel::dsl::exists(jobs_left)))
            .select(workspaces::id);
        self.all(cleared).await
    }

    /// Removes a deleted workspace that has no jobs left, and all that it owns.
    pub async fn remove_workspace(&mut self, id: WorkspaceId) -> Result<(), Error> {
        self.plan_anew().await?;
        self.remove_invitations_of(id).await?;
        self.remove_data_components_of(id).await?;
        self.remove_webhooks_of(id).await?;
        self.remove_pipelines_of(id).await?;
        self.remove_queue(id).await?;
        self.run(diesel::delete(workspaces::table.find(id))).await?;
        Ok(())
    }
}
