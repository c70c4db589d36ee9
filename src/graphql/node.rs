//! What has an id.

use async_graphql::{ID, Interface};

use super::data_component::DataComponent;
use super::invitation::Invitation;
use super::job::Job;
use super::pipeline::Pipeline;
use super::webhook::Webhook;
use super::workspace::Workspace;

/// Anything that has an id of its own.
#[derive(Interface)]
#[graphql(field(name = "id", ty = "ID", desc = "Its id: a version 4 UUID."))]
pub(super) enum Node {
    DataComponent(Box<DataComponent>),
    Invitation(Invitation),
    Job(Box<Job>),
    Pipeline(Box<Pipeline>),
    Webhook(Box<Webhook>),
    Workspace(Workspace),
}
