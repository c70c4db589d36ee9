//! Pipelines and their definitions.

use diesel::dsl::count_star;
use diesel::prelude::*;
use diesel::sql_types::Integer;

use super::conn::Conn;
use super::fragment::{Number, either, maybe};
use super::pages::{Numbered, Page, PageRequest, Part, within};
use super::schema::{definitions, jobs, pipelines};
use crate::error::Error;
use crate::model::{Definition, DefinitionId, Pipeline, PipelineId, ResourceStatus, Timestamp, WorkspaceId, naming};

/// A pipeline's place in the list of its workspace, which is in the order of creation.
pub type PipelinePosition = (i64, PipelineId);

const NUMBER: Number = Number("pipelines.number");

#[derive(Queryable)]
struct Row {
    id: PipelineId,
    workspace: WorkspaceId,
    created: Timestamp,
    last_modified: Timestamp,
    name: String,
    status: ResourceStatus,
    definition: DefinitionId,
    body: String,
}

impl TryFrom<Row> for Pipeline {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        Ok(Self {
            id: row.id,
            workspace: row.workspace,
            created: row.created,
            last_modified: row.last_modified,
            name: row.name,
            status: row.status,
            definition_id: row.definition,
            definition: serde_json::from_str(&row.body).map_err(Error::internal)?,
        })
    }
}

/// The columns of a `Row`.
const COLUMNS: (
    pipelines::id,
    pipelines::workspace,
    pipelines::created,
    pipelines::last_modified,
    pipelines::name,
    pipelines::status,
    pipelines::definition,
    definitions::body,
) = (
    pipelines::id,
    pipelines::workspace,
    pipelines::created,
    pipelines::last_modified,
    pipelines::name,
    pipelines::status,
    pipelines::definition,
    definitions::body,
);

/// The pipelines that are not deleted, each with its definition.
macro_rules! present {
    () => {
        pipelines::table.inner_join(definitions::table).filter(pipelines::deleted.is_null())
    };
}

impl Conn {
    /// Stores a new pipeline, and its definition.
    pub async fn insert_pipeline(&mut self, pipeline: &Pipeline) -> Result<(), Error> {
        let row = (
            pipelines::id.eq(pipeline.id),
            pipelines::workspace.eq(pipeline.workspace),
            pipelines::created.eq(pipeline.created),
            pipelines::last_modified.eq(pipeline.last_modified),
            pipelines::name.eq(&pipeline.name),
            pipelines::name_key.eq(naming::key(&pipeline.name)),
            pipelines::status.eq(pipeline.status),
            pipelines::definition.eq(pipeline.definition_id),
        );
        self.run(diesel::insert_into(pipelines::table).values(row)).await?;
        self.insert_definition(pipeline).await
    }

    /// Stores what a user changed in a pipeline: its name, and a new version of its definition. The key of its name stays as it is.
    pub async fn update_pipeline(&mut self, pipeline: &Pipeline) -> Result<(), Error> {
        self.insert_definition(pipeline).await?;
        let change = diesel::update(pipelines::table.find(pipeline.id)).set((
            pipelines::last_modified.eq(pipeline.last_modified),
            pipelines::name.eq(&pipeline.name),
            pipelines::status.eq(pipeline.status),
            pipelines::definition.eq(pipeline.definition_id),
        ));
        self.run(change).await?;
        Ok(())
    }

    /// Stores the key of a name that a pipeline got.
    pub async fn set_key_of_pipeline(&mut self, id: PipelineId, name: &str) -> Result<(), Error> {
        let key = pipelines::name_key.eq(naming::key(name));
        self.run(diesel::update(pipelines::table.find(id)).set(key)).await?;
        Ok(())
    }

    async fn insert_definition(&mut self, pipeline: &Pipeline) -> Result<(), Error> {
        let row = (
            definitions::id.eq(pipeline.definition_id),
            definitions::pipeline.eq(pipeline.id),
            definitions::body.eq(serde_json::to_string(&pipeline.definition).map_err(Error::internal)?),
        );
        self.run(diesel::insert_into(definitions::table).values(row)).await?;
        Ok(())
    }

    /// One version of a definition.
    pub async fn definition(&mut self, id: DefinitionId) -> Result<Option<Definition>, Error> {
        let body: Option<String> = self.optional(definitions::table.find(id).select(definitions::body)).await?;
        body.map(|body| serde_json::from_str(&body).map_err(Error::internal)).transpose()
    }

    /// The pipeline with this id, unless it is deleted.
    pub async fn pipeline(&mut self, id: PipelineId) -> Result<Option<Pipeline>, Error> {
        let row: Option<Row> = self.optional(present!().filter(pipelines::id.eq(id)).select(COLUMNS)).await?;
        row.map(Pipeline::try_from).transpose()
    }

    /// The pipelines with these ids that are not deleted, in no order.
    pub async fn pipelines_by_id(&mut self, ids: &[PipelineId]) -> Result<Vec<Pipeline>, Error> {
        let rows: Vec<Row> = self.all(present!().filter(pipelines::id.eq_any(ids)).select(COLUMNS)).await?;
        rows.into_iter().map(Pipeline::try_from).collect()
    }

    /// All pipelines of a workspace that are not deleted, by name.
    pub async fn pipelines_of(&mut self, workspace: WorkspaceId) -> Result<Vec<Pipeline>, Error> {
        let found = present!().filter(pipelines::workspace.eq(workspace)).order(pipelines::name).select(COLUMNS);
        let rows: Vec<Row> = self.all(found).await?;
        rows.into_iter().map(Pipeline::try_from).collect()
    }

    /// Pages of the lists of workspaces' pipelines, newest first.
    pub async fn pipelines(
        &mut self,
        requests: &[(WorkspaceId, PageRequest<PipelinePosition>)],
    ) -> Result<Vec<Page<Numbered<Pipeline>>>, Error> {
        use pipelines::{id, workspace};
        let query = |number: i32, &of: &WorkspaceId, part: &Part<PipelinePosition>| {
            present!()
                .filter(workspace.eq(of))
                .filter(within!(part, NUMBER, id))
                .select((number.into_sql::<Integer>(), (COLUMNS, NUMBER)))
                .order((
                    either(part.oldest_first, NUMBER.asc(), NUMBER.desc()),
                    either(part.oldest_first, id.asc(), id.desc()),
                ))
                .limit(part.limit)
        };
        let pages = self.pages(requests, query, |(row, number): &Numbered<Row>| (*number, row.id)).await?;
        pages.into_iter().map(|page| page.try_map(|(row, number)| Ok((row.try_into()?, number)))).collect()
    }

    /// How many pipelines each of these workspaces has.
    pub async fn count_pipelines(&mut self, workspaces: &[WorkspaceId]) -> Result<Vec<i64>, Error> {
        let count = |number: i32, &of: &WorkspaceId| {
            pipelines::table
                .filter(pipelines::workspace.eq(of))
                .filter(pipelines::deleted.is_null())
                .select((number.into_sql::<Integer>(), count_star()))
        };
        Ok(self.each(workspaces, count).await?.into_iter().flatten().collect())
    }

    /// Sets a pipeline's status.
    pub async fn set_pipeline_status(&mut self, id: PipelineId, status: ResourceStatus) -> Result<(), Error> {
        self.run(diesel::update(pipelines::table.find(id)).set(pipelines::status.eq(status))).await?;
        Ok(())
    }

    /// Marks a pipeline as deleted.
    pub async fn mark_pipeline_deleted(&mut self, id: PipelineId, at: Timestamp) -> Result<(), Error> {
        self.run(diesel::update(pipelines::table.find(id)).set(pipelines::deleted.eq(at))).await?;
        Ok(())
    }

    /// Marks all pipelines of a workspace as deleted.
    pub async fn mark_pipelines_of_workspace_deleted(
        &mut self,
        workspace: WorkspaceId,
        at: Timestamp,
    ) -> Result<(), Error> {
        let present = pipelines::table.filter(pipelines::workspace.eq(workspace)).filter(pipelines::deleted.is_null());
        self.run(diesel::update(present).set(pipelines::deleted.eq(at))).await?;
        Ok(())
    }

    /// The deleted pipelines that have no jobs left.
    pub async fn cleared_pipelines(&mut self) -> Result<Vec<PipelineId>, Error> {
        let jobs_left = jobs::table.filter(jobs::pipeline.eq(pipelines::id.nullable()));
        let cleared = pipelines::table
            .filter(pipelines::deleted.is_not_null())
            .filter(diesel::dsl::not(diesel::dsl::exists(jobs_left)))
            .select(pipelines::id);
        self.all(cleared).await
    }

    /// Which of these pipelines there are, deleted ones that are not cleared away yet among them.
    pub async fn known_pipelines(&mut self, ids: &[PipelineId]) -> Result<Vec<PipelineId>, Error> {
        self.all(pipelines::table.filter(pipelines::id.eq_any(ids)).select(pipelines::id)).await
    }

    /// Removes a deleted pipeline that has no jobs left.
    pub async fn remove_pipeline(&mut self, id: PipelineId) -> Result<(), Error> {
        self.plan_anew().await?;
        self.remove_triggers_of(id).await?;
        self.run(diesel::delete(definitions::table.filter(definitions::pipeline.eq(id)))).await?;
        self.run(diesel::delete(pipelines::table.find(id))).await?;
        Ok(())
    }

    /// Removes the pipelines of a workspace that has no jobs left.
    pub(super) async fn remove_pipelines_of(&mut self, workspace: WorkspaceId) -> Result<(), Error> {
        let ids: Vec<PipelineId> =
            self.all(pipelines::table.filter(pipelines::workspace.eq(workspace)).select(pipelines::id)).await?;
        for id in ids {
            self.remove_pipeline(id).await?;
        }
        Ok(())
    }

    /// Removes the versions of a definition that are neither its pipeline's present one nor any job's.
    pub async fn remove_old_definitions(&mut self, pipeline: PipelineId) -> Result<(), Error> {
        use diesel::dsl::{exists, not};
        self.plan_anew().await?;
        let in_use = pipelines::table.find(pipeline).filter(pipelines::definition.eq(definitions::id));
        let of_a_job = jobs::table.filter(jobs::definition.eq(definitions::id.nullable()));
        let old = definitions::table
            .filter(definitions::pipeline.eq(pipeline))
            .filter(not(exists(in_use)))
            .filter(not(exists(of_a_job)));
        self.run(diesel::delete(old)).await?;
        Ok(())
    }
}
