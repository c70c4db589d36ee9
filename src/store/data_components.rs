//! Data components.

use diesel::dsl::count_star;
use diesel::prelude::*;
use diesel::sql_types::Integer;

use super::conn::Conn;
use super::fragment::{Number, either, maybe};
use super::pages::{Numbered, Page, PageRequest, Part, within};
use super::schema::{data_components, workspaces};
use crate::error::Error;
use crate::model::{ComponentId, DataComponent, Property, Timestamp, WorkspaceId};

/// A data component's place in the list of its workspace, which is in the order of creation.
pub type ComponentPosition = (i64, ComponentId);

const NUMBER: Number = Number("data_components.number");

#[derive(Queryable)]
struct Row {
    id: ComponentId,
    workspace: WorkspaceId,
    created: Timestamp,
    last_modified: Timestamp,
    name: String,
    plugin: String,
    properties: String,
}

impl TryFrom<Row> for DataComponent {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        Ok(Self {
            id: row.id,
            workspace: row.workspace,
            created: row.created,
            last_modified: row.last_modified,
            name: row.name,
            plugin: row.plugin,
            properties: serde_json::from_str(&row.properties).map_err(Error::internal)?,
        })
    }
}

/// The data components of workspaces that are not deleted.
macro_rules! present {
    () => {
        data_components::table.inner_join(workspaces::table).filter(workspaces::deleted.is_null())
    };
}

impl Conn {
    /// Stores a new data component.
    pub async fn insert_data_component(&mut self, component: &DataComponent) -> Result<(), Error> {
        let row = (
            data_components::id.eq(component.id),
            data_components::workspace.eq(component.workspace),
            data_components::created.eq(component.created),
            data_components::last_modified.eq(component.last_modified),
            data_components::name.eq(&component.name),
            data_components::plugin.eq(&component.plugin),
            data_components::properties.eq(json(&component.properties)?),
        );
        self.run(diesel::insert_into(data_components::table).values(row)).await?;
        Ok(())
    }

    /// Stores what a user changed in a data component.
    pub async fn update_data_component(&mut self, component: &DataComponent) -> Result<(), Error> {
        let change = diesel::update(data_components::table.find(component.id)).set((
            data_components::last_modified.eq(component.last_modified),
            data_components::properties.eq(json(&component.properties)?),
        ));
        self.run(change).await?;
        Ok(())
    }

    /// Removes a data component.
    pub async fn remove_data_component(&mut self, id: ComponentId) -> Result<(), Error> {
        self.run(diesel::delete(data_components::table.find(id))).await?;
        Ok(())
    }

    /// Removes the data components of a workspace.
    pub(super) async fn remove_data_components_of(&mut self, workspace: WorkspaceId) -> Result<(), Error> {
        self.run(diesel::delete(data_components::table.filter(data_components::workspace.eq(workspace)))).await?;
        Ok(())
    }

    /// The data component with this id, unless its workspace is deleted.
    pub async fn data_component(&mut self, id: ComponentId) -> Result<Option<DataComponent>, Error> {
        let found = present!().filter(data_components::id.eq(id)).select(data_components::all_columns);
        let row: Option<Row> = self.optional(found).await?;
        row.map(DataComponent::try_from).transpose()
    }

    /// The data components of a workspace, or those of them that have one of these names, by name.
    pub async fn data_components_of(
        &mut self,
        workspace: WorkspaceId,
        names: Option<Vec<&str>>,
    ) -> Result<Vec<DataComponent>, Error> {
        let found = data_components::table
            .filter(data_components::workspace.eq(workspace))
            .filter(maybe(names, |it| data_components::name.eq_any(it)))
            .order(data_components::name);
        let rows: Vec<Row> = self.all(found).await?;
        rows.into_iter().map(DataComponent::try_from).collect()
    }

    /// Pages of the lists of workspaces' data components, newest first.
    pub async fn data_components(
        &mut self,
        requests: &[(WorkspaceId, PageRequest<ComponentPosition>)],
    ) -> Result<Vec<Page<Numbered<DataComponent>>>, Error> {
        use data_components::{id, workspace};
        let query = |number: i32, &of: &WorkspaceId, part: &Part<ComponentPosition>| {
            data_components::table
                .filter(workspace.eq(of))
                .filter(within!(part, NUMBER, id))
                .select((number.into_sql::<Integer>(), (data_components::all_columns, NUMBER)))
                .order((
                    either(part.oldest_first, NUMBER.asc(), NUMBER.desc()),
                    either(part.oldest_first, id.asc(), id.desc()),
                ))
                .limit(part.limit)
        };
        let pages = self.pages(requests, query, |(row, number): &Numbered<Row>| (*number, row.id)).await?;
        pages.into_iter().map(|page| page.try_map(|(row, number)| Ok((row.try_into()?, number)))).collect()
    }

    /// How many data components each of these workspaces has.
    pub async fn count_data_components(&mut self, workspaces: &[WorkspaceId]) -> Result<Vec<i64>, Error> {
        let count = |number: i32, &of: &WorkspaceId| {
            data_components::table
                .filter(data_components::workspace.eq(of))
                .select((number.into_sql::<Integer>(), count_star()))
        };
        Ok(self.each(workspaces, count).await?.into_iter().flatten().collect())
    }
}

fn json(properties: &[Property]) -> Result<String, Error> {
    serde_json::to_string(properties).map_err(Error::internal)
}
