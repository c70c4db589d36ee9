//! Webhooks: create, update, delete; and what they are to be told.

use futures_util::FutureExt;
use serde_json::{Value, json};

use super::{Jobs, Unit};
use crate::error::{Error, Problem};
use crate::model::webhook::address;
use crate::model::{
    ActivityLevel, Delivery, DeliveryId, Job, JobStatus, PipelineId, Webhook, WebhookId, WebhookSecret, WorkspaceId,
};

/// How many webhooks a workspace may have.
const MOST: i64 = 20;

/// A webhook to be created.
#[derive(Debug)]
pub struct NewWebhook {
    /// See [`Webhook::workspace`].
    pub workspace: WorkspaceId,
    /// See [`Webhook::pipeline`].
    pub pipeline: Option<PipelineId>,
    /// See [`Webhook::url`].
    pub url: String,
    /// See [`Webhook::level`].
    pub level: ActivityLevel,
    /// What deliveries are to be signed with.
    pub secret: WebhookSecret,
}

/// What is to change in a webhook: where there is nothing, it stays as it is.
#[derive(Debug, Default)]
pub struct WebhookChanges {
    /// See [`Webhook::pipeline`].
    pub pipeline: Option<Option<PipelineId>>,
    /// See [`Webhook::url`].
    pub url: Option<String>,
    /// See [`Webhook::level`].
    pub level: Option<ActivityLevel>,
    /// What deliveries are to be signed with.
    pub secret: Option<WebhookSecret>,
}

impl Jobs {
    /// Creates a webhook.
    pub async fn create_webhook(&self, new: NewWebhook) -> Result<Webhook, Error> {
        let url = self.parse_url(&new.url)?;
        let cipher = self.cipher.clone();
        self.commit(move |unit| {
            async move {
                let NewWebhook { workspace, pipeline, level, secret, .. } = new;
                unit.workspace(workspace).await?;
                unit.pipeline_is_in(workspace, pipeline).await?;
                if unit.conn.count_webhooks(&[workspace]).await?.first().is_some_and(|count| *count >= MOST) {
                    return Err(Error::LimitExceeded(format!("A workspace has at most {MOST} webhooks.")));
                }
                let id = WebhookId::random();
                let secret = cipher.seal(id, WEBHOOK_SECRET, secret.as_str())?;
                unit.note_key(&cipher).await?;
                let (created, last_modified) = (unit.now, unit.now);
                let (last_success, last_failure, last_error) = (None, None, None);
                let webhook = Webhook {
                    id,
                    workspace,
                    pipeline,
                    created,
                    last_modified,
                    url,
                    level,
                    secret,
                    last_success,
                    last_failure,
                    last_error,
                };
                unit.conn.insert_webhook(&webhook).await?;
                Ok(webhook)
            }
            .boxed()
        })
        .await
    }

    /// Changes a webhook. What waits to be delivered goes where it says then.
    pub async fn update_webhook(&self, id: WebhookId, changes: WebhookChanges) -> Result<Webhook, Error> {
        let url = changes.url.as_deref().map(|url| self.parse_url(url)).transpose()?;
        let cipher = self.cipher.clone();
        self.commit(move |unit| {
            async move {
                let before = unit.webhook(id).await?;
                let WebhookChanges { pipeline, level, secret, .. } = changes;
                let pipeline = pipeline.unwrap_or(before.pipeline);
                unit.pipeline_is_in(before.workspace, pipeline).await?;
                let secret = match secret {
                    Some(secret) => cipher.seal(id, WEBHOOK_SECRET, secret.as_str())?,
                    None => before.secret.clone(),
                };
                let webhook = Webhook {
                    last_modified: unit.now,
                    pipeline,
                    url: url.unwrap_or_else(|| before.url.clone()),
                    level: level.unwrap_or(before.level),
                    secret,
                    ..before
                };
                unit.conn.update_webhook(&webhook).await?;
                Ok(webhook)
            }
            .boxed()
        })
        .await
    }

    /// Deletes a webhook, and what it has not been told yet.
    pub async fn delete_webhook(&self, id: WebhookId) -> Result<(), Error> {
        self.commit(move |unit| {
            async move {
                unit.webhook(id).await?;
                unit.conn.remove_webhook(id).await
            }
            .boxed()
        })
        .await
    }

    /// What the deliveries of a webhook are signed with.
    pub fn webhook_secret(&self, webhook: &Webhook) -> Result<WebhookSecret, Error> {
        Ok(WebhookSecret::from(self.cipher.unseal(webhook.id, WEBHOOK_SECRET, &webhook.secret)?))
    }

    /// The URL in the form in which it is stored and used.
    fn parse_url(&self, url: &str) -> Result<String, Error> {
        address::parse(url, self.rules.private_webhooks).map_err(|fault| Error::bad_input("input.url", fault))
    }
}

/// The name that a secret is sealed under.
pub const WEBHOOK_SECRET: &str = "secret";

impl Unit<'_> {
    async fn webhook(&mut self, id: WebhookId) -> Result<Webhook, Error> {
        self.conn.webhook(id).await?.ok_or_else(|| Error::not_found("webhook", id))
    }

    async fn pipeline_is_in(&mut self, workspace: WorkspaceId, pipeline: Option<PipelineId>) -> Result<(), Error> {
        let Some(id) = pipeline else { return Ok(()) };
        if self.pipeline(id).await?.workspace == workspace {
            return Ok(());
        }
        Err(Error::BadUserInput(vec![Problem::at("input.pipelineId", "The pipeline belongs to another workspace.")]))
    }

    /// Leaves what a job's change tells for the webhooks that want to hear of it.
    pub(super) async fn tell_of_job(&mut self, job: &Job) -> Result<(), Error> {
        let (Some(pipeline), false) = (job.pipeline, job.deleted.is_some()) else { return Ok(()) };
        let type_ = match job.status {
            JobStatus::Queued => return Ok(()),
            JobStatus::Running => "job.started",
            JobStatus::Complete | JobStatus::Stopped => "job.ended",
            JobStatus::Error => "job.failed",
        };
        let told = json!({
            "jobId": job.id.to_string(), "jobType": job.type_.as_str(), "status": job.status.as_str(), "attempt": job.attempt,
            "exitCode": job.exit_code, "failure": job.reason_of_error(),
        });
        let level = if job.status == JobStatus::Error { ActivityLevel::Errors } else { ActivityLevel::All };
        self.tell(type_, level, job.workspace, pipeline, job.latest_change, told).await
    }

    /// Leaves for the webhooks that a run was skipped.
    pub(super) async fn tell_of_skip(
        &mut self,
        workspace: WorkspaceId,
        pipeline: PipelineId,
        change: i64,
        why: &str,
    ) -> Result<(), Error> {
        self.tell("run.skipped", ActivityLevel::Errors, workspace, pipeline, change, json!({ "reason": why })).await
    }

    async fn tell(
        &mut self,
        type_: &str,
        level: ActivityLevel,
        workspace: WorkspaceId,
        pipeline: PipelineId,
        change: i64,
        mut told: Value,
    ) -> Result<(), Error> {
        let mut webhooks = self.conn.webhooks_told_of(workspace, pipeline).await?;
        webhooks.retain(|(_, wanted)| *wanted == ActivityLevel::All || level == ActivityLevel::Errors);
        if webhooks.is_empty() {
            return Ok(());
        }
        let name = self.conn.pipeline(pipeline).await?.map(|it| it.name);
        told["workspaceId"] = workspace.to_string().into();
        told["pipelineId"] = pipeline.to_string().into();
        told["pipelineName"] = name.into();
        let body = json!({ "type": type_, "timestamp": self.now.to_string(), "data": told }).to_string();
        for (webhook, _) in webhooks {
            let (id, created, attempt, body) = (DeliveryId::random(), self.now, 0, body.clone());
            self.conn.insert_delivery(webhook, &Delivery { id, change, created, attempt, body }).await?;
        }
        self.rings.deliveries = true;
        Ok(())
    }
}
