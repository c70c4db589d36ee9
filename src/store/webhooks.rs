//! Webhooks, and what has yet to be delivered to them.

use diesel::dsl::{count_star, exists, not};
use diesel::prelude::*;
use diesel::sql_types::Integer;

use super::conn::Conn;
use super::fragment::{Number, SkipLocked, either, maybe};
use super::pages::{Numbered, Page, PageRequest, Part, within};
use super::schema::{changes, deliveries, webhooks, workspaces};
use crate::error::Error;
use crate::model::webhook::address;
use crate::model::{
    ActivityLevel, Delivery, DeliveryId, PipelineId, Sealed, Timestamp, Webhook, WebhookId, WorkspaceId,
};

/// A webhook's place in the list of its workspace, which is in the order of creation.
pub type WebhookPosition = (i64, WebhookId);

const NUMBER: Number = Number("webhooks.number");

#[derive(Queryable)]
struct Row {
    id: WebhookId,
    workspace: WorkspaceId,
    pipeline: Option<PipelineId>,
    created: Timestamp,
    last_modified: Timestamp,
    url: String,
    level: ActivityLevel,
    secret: String,
    last_success: Option<Timestamp>,
    last_failure: Option<Timestamp>,
    last_error: Option<String>,
}

impl From<Row> for Webhook {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            workspace: row.workspace,
            pipeline: row.pipeline,
            created: row.created,
            last_modified: row.last_modified,
            url: address::stored(row.url),
            level: row.level,
            secret: Sealed::from(row.secret),
            last_success: row.last_success,
            last_failure: row.last_failure,
            last_error: row.last_error,
        }
    }
}

impl Conn {
    /// Stores a new webhook.
    pub async fn insert_webhook(&mut self, webhook: &Webhook) -> Result<(), Error> {
        let row = (
            webhooks::id.eq(webhook.id),
            webhooks::workspace.eq(webhook.workspace),
            webhooks::pipeline.eq(webhook.pipeline),
            webhooks::created.eq(webhook.created),
            webhooks::last_modified.eq(webhook.last_modified),
            webhooks::url.eq(&webhook.url),
            webhooks::level.eq(webhook.level),
            webhooks::secret.eq(webhook.secret.as_str()),
        );
        self.run(diesel::insert_into(webhooks::table).values(row)).await?;
        Ok(())
    }

    /// Stores what a user changed in a webhook.
    pub async fn update_webhook(&mut self, webhook: &Webhook) -> Result<(), Error> {
        let change = diesel::update(webhooks::table.find(webhook.id)).set((
            webhooks::last_modified.eq(webhook.last_modified),
            webhooks::pipeline.eq(webhook.pipeline),
            webhooks::url.eq(&webhook.url),
            webhooks::level.eq(webhook.level),
            webhooks::secret.eq(webhook.secret.as_str()),
        ));
        self.run(change).await?;
        Ok(())
    }

    /// Removes a webhook, and what it has not been told.
    pub async fn remove_webhook(&mut self, id: WebhookId) -> Result<(), Error> {
        self.run(diesel::delete(deliveries::table.filter(deliveries::webhook.eq(id)))).await?;
        self.run(diesel::delete(webhooks::table.find(id))).await?;
        Ok(())
    }

    /// Removes the webhooks of a pipeline.
    pub async fn remove_webhooks_of_pipeline(&mut self, pipeline: PipelineId) -> Result<(), Error> {
        let ids: Vec<WebhookId> =
            self.all(webhooks::table.filter(webhooks::pipeline.eq(pipeline)).select(webhooks::id)).await?;
        for id in ids {
            self.remove_webhook(id).await?;
        }
        Ok(())
    }

    /// Removes the webhooks of a workspace.
    pub async fn remove_webhooks_of(&mut self, workspace: WorkspaceId) -> Result<(), Error> {
        let ids: Vec<WebhookId> =
            self.all(webhooks::table.filter(webhooks::workspace.eq(workspace)).select(webhooks::id)).await?;
        for id in ids {
            self.remove_webhook(id).await?;
        }
        Ok(())
    }

    /// The webhook with this id.
    pub async fn webhook(&mut self, id: WebhookId) -> Result<Option<Webhook>, Error> {
        let found = webhooks::table.inner_join(workspaces::table).filter(workspaces::deleted.is_null());
        let row: Option<Row> = self.optional(found.filter(webhooks::id.eq(id)).select(webhooks::all_columns)).await?;
        Ok(row.map(Webhook::from))
    }

    /// The webhooks of a workspace that are told of a pipeline.
    pub async fn webhooks_told_of(
        &mut self,
        workspace: WorkspaceId,
        pipeline: PipelineId,
    ) -> Result<Vec<(WebhookId, ActivityLevel)>, Error> {
        let told = webhooks::table
            .filter(webhooks::workspace.eq(workspace))
            .filter(webhooks::pipeline.is_null().or(webhooks::pipeline.eq(pipeline).assume_not_null()));
        self.all(told.select((webhooks::id, webhooks::level))).await
    }

    /// Pages of the lists of workspaces' webhooks, newest first.
    pub async fn webhooks(
        &mut self,
        requests: &[(WorkspaceId, PageRequest<WebhookPosition>)],
    ) -> Result<Vec<Page<Numbered<Webhook>>>, Error> {
        use webhooks::{id, workspace};
        let query = |number: i32, &of: &WorkspaceId, part: &Part<WebhookPosition>| {
            webhooks::table
                .filter(workspace.eq(of))
                .filter(within!(part, NUMBER, id))
                .select((number.into_sql::<Integer>(), (webhooks::all_columns, NUMBER)))
                .order((
                    either(part.oldest_first, NUMBER.asc(), NUMBER.desc()),
                    either(part.oldest_first, id.asc(), id.desc()),
                ))
                .limit(part.limit)
        };
        let pages = self.pages(requests, query, |(row, number): &Numbered<Row>| (*number, row.id)).await?;
        pages.into_iter().map(|page| page.try_map(|(row, number)| Ok((row.into(), number)))).collect()
    }

    /// How many webhooks each of these workspaces has.
    pub async fn count_webhooks(&mut self, workspaces: &[WorkspaceId]) -> Result<Vec<i64>, Error> {
        let count = |number: i32, &of: &WorkspaceId| {
            webhooks::table.filter(webhooks::workspace.eq(of)).select((number.into_sql::<Integer>(), count_star()))
        };
        Ok(self.each(workspaces, count).await?.into_iter().flatten().collect())
    }

    /// How many deliveries wait for each of these webhooks.
    pub async fn count_deliveries(&mut self, ids: &[WebhookId]) -> Result<Vec<i64>, Error> {
        let count = |number: i32, &of: &WebhookId| {
            deliveries::table.filter(deliveries::webhook.eq(of)).select((number.into_sql::<Integer>(), count_star()))
        };
        Ok(self.each(ids, count).await?.into_iter().flatten().collect())
    }

    /// Stores something that a webhook is to be told.
    pub async fn insert_delivery(&mut self, webhook: WebhookId, delivery: &Delivery) -> Result<(), Error> {
        let row = (
            deliveries::id.eq(delivery.id),
            deliveries::webhook.eq(webhook),
            deliveries::change.eq(delivery.change),
            deliveries::created.eq(delivery.created),
            deliveries::attempt.eq(delivery.attempt),
            deliveries::not_before.eq(delivery.created),
            deliveries::body.eq(&delivery.body),
        );
        self.run(diesel::insert_into(deliveries::table).values(row)).await?;
        Ok(())
    }

    /// The delivery that is due first, but none to these webhooks; with the position in the stream of the change that it tells of, if that is
    /// still kept. It is nobody else's until the transaction ends.
    pub async fn due_delivery(
        &mut self,
        now: Timestamp,
        except: &[WebhookId],
    ) -> Result<Option<(Webhook, Delivery, Option<i64>)>, Error> {
        type Columns = (DeliveryId, i64, Timestamp, i32, String);
        let unnumbered =
            changes::table.filter(changes::arrival.eq(deliveries::change)).filter(changes::position.is_null());
        let first = deliveries::table
            .filter(deliveries::not_before.le(now))
            .filter(deliveries::webhook.ne_all(except))
            .filter(not(exists(unnumbered)))
            .order((deliveries::not_before, deliveries::change))
            .select(deliveries::id)
            .limit(1);
        let Some(first): Option<DeliveryId> = self.optional(SkipLocked(first)).await? else { return Ok(None) };
        let found = deliveries::table
            .inner_join(webhooks::table)
            .left_join(changes::table.on(changes::arrival.eq(deliveries::change)))
            .filter(deliveries::id.eq(first))
            .select((
                webhooks::all_columns,
                (deliveries::id, deliveries::change, deliveries::created, deliveries::attempt, deliveries::body),
                changes::position.nullable(),
            ));
        let found: Option<(Row, Columns, Option<i64>)> = self.optional(found).await?;
        let delivery = |(id, change, created, attempt, body)| Delivery { id, change, created, attempt, body };
        Ok(found.map(|(webhook, columns, position)| (webhook.into(), delivery(columns), position)))
    }

    /// When the next delivery is due.
    pub async fn next_delivery(&mut self) -> Result<Option<Timestamp>, Error> {
        self.optional(deliveries::table.order(deliveries::not_before).select(deliveries::not_before).limit(1)).await
    }

    /// Puts a delivery off, having tried it so often.
    pub async fn put_off_delivery(&mut self, id: DeliveryId, attempt: i32, until: Timestamp) -> Result<(), Error> {
        let change = (deliveries::attempt.eq(attempt), deliveries::not_before.eq(until));
        self.run(diesel::update(deliveries::table.find(id)).set(change)).await?;
        Ok(())
    }

    /// Removes a delivery.
    pub async fn remove_delivery(&mut self, id: DeliveryId) -> Result<(), Error> {
        self.run(diesel::delete(deliveries::table.find(id))).await?;
        Ok(())
    }

    /// Notes that a delivery has arrived.
    pub async fn note_success(&mut self, id: WebhookId, at: Timestamp) -> Result<(), Error> {
        self.run(diesel::update(webhooks::table.find(id)).set(webhooks::last_success.eq(at))).await?;
        Ok(())
    }

    /// Notes that a try has failed, and why.
    pub async fn note_failure(&mut self, id: WebhookId, at: Timestamp, error: &str) -> Result<(), Error> {
        let change = (webhooks::last_failure.eq(at), webhooks::last_error.eq(error));
        self.run(diesel::update(webhooks::table.find(id)).set(change)).await?;
        Ok(())
    }
}
