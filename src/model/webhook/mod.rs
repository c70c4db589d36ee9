//! Webhooks: who outside of the server is told what happens, where that may be, and what it is signed with.

pub mod address;
mod secret;

pub use secret::WebhookSecret;

use super::{ActivityLevel, DeliveryId, PipelineId, Sealed, Timestamp, WebhookId, WorkspaceId};

/// A webhook.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// Its id.
    pub id: WebhookId,
    /// The workspace whose activity it is told of.
    pub workspace: WorkspaceId,
    /// The only pipeline that it is told of, if there is such a one.
    pub pipeline: Option<PipelineId>,
    /// When it was created.
    pub created: Timestamp,
    /// When a user last changed it.
    pub last_modified: Timestamp,
    /// Where deliveries are posted.
    pub url: String,
    /// Which activity it is told of.
    pub level: ActivityLevel,
    /// What deliveries are signed with.
    pub secret: Sealed,
    /// When a delivery last arrived.
    pub last_success: Option<Timestamp>,
    /// When a try last failed,
    pub last_failure: Option<Timestamp>,
    /// and why.
    pub last_error: Option<String>,
}

/// Something that a webhook has yet to be told.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Its id: the same with every try.
    pub id: DeliveryId,
    /// Which change it tells of, by the number by which that arrived.
    pub change: i64,
    /// When it came to be.
    pub created: Timestamp,
    /// How often it was tried before.
    pub attempt: i32,
    /// What is told: a JSON object.
    pub body: String,
}
