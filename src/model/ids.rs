//! Typed ids: the id of a job cannot be taken for that of a pipeline.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use diesel::deserialize::FromSqlRow;
use diesel::expression::AsExpression;
use uuid::Uuid;

use super::{DataComponent, Definition, Delivery, Invitation, Job, Pipeline, Webhook, Workspace};
use crate::store::Uid;

/// The id of a `T`: a version 4 UUID.
#[derive(AsExpression, FromSqlRow)]
#[diesel(sql_type = Uid)]
pub struct Id<T: 'static>(Uuid, PhantomData<fn() -> T>);

/// The id of a job.
pub type JobId = Id<Job>;
/// The id of a pipeline.
pub type PipelineId = Id<Pipeline>;
/// The id of one version of a pipeline's definition.
pub type DefinitionId = Id<Definition>;
/// The id of a data component.
pub type ComponentId = Id<DataComponent>;
/// The id of a webhook.
pub type WebhookId = Id<Webhook>;
/// The id of a delivery to a webhook.
pub type DeliveryId = Id<Delivery>;
/// The id of a workspace.
pub type WorkspaceId = Id<Workspace>;
/// The id of an invitation.
pub type InvitationId = Id<Invitation>;
/// The id of one server process, new at every start: the owner of the jobs that it runs.
pub type ServerId = Id<Server>;

/// A server process. Only its id is kept.
#[derive(Debug)]
pub struct Server;

impl<T> Id<T> {
    /// A new random id.
    pub fn random() -> Self {
        Self::from(Uuid::new_v4())
    }

    /// The 16 bytes of it.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl<T> From<Uuid> for Id<T> {
    fn from(uuid: Uuid) -> Self {
        Self(uuid, PhantomData)
    }
}

impl<T> FromStr for Id<T> {
    type Err = uuid::Error;

    /// Reads the form with hyphens, and no other.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        uuid::fmt::Hyphenated::from_str(text).map(|id| Self::from(id.into_uuid()))
    }
}

// Written out, because a derive would ask the same of `T`.
impl<T> Clone for Id<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Id<T> {}
impl<T> PartialEq for Id<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl<T> Eq for Id<T> {}
impl<T> PartialOrd for Id<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for Id<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}
impl<T> std::hash::Hash for Id<T> {
    fn hash<H: std::hash::Hasher>(&self, hasher: &mut H) {
        self.0.hash(hasher);
    }
}
impl<T> fmt::Debug for Id<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
impl<T> fmt::Display for Id<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
