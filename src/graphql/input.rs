//! The inputs of mutations, and what they come to.

use async_graphql::{ID, InputObject, MaybeUndefined};

use crate::jobs::{NewPipeline, PipelineChanges};
use crate::model::{self, ActivityLevel, Definition, PropertyValue};

/// A workspace to be created.
#[derive(InputObject)]
pub(super) struct CreateWorkspaceInput {
    /// Its name, at most 100 characters, without invisible ones. It is stored in Unicode's normalization form C. No two workspaces have names that
    /// differ only in case.
    pub(super) name: String,
    /// Where its repository comes from and goes to: a git URL (https, http, ssh, git, or `user@host:path`) whose branch `main` the server works on.
    /// Without it, the servers' own place.
    pub(super) repository_url: Option<String>,
}

/// What is to change in a workspace. A field left out is unchanged, null is the default.
#[derive(InputObject)]
pub(super) struct UpdateWorkspaceInput {
    /// The workspace.
    pub(super) id: ID,
    /// Its new name.
    name: MaybeUndefined<String>,
    /// Where its repository comes from and goes to from now on. Null: the servers' own place. If it is another than now, the workspace is PROVISIONING
    /// until its `WORKSPACE_INIT` job has brought there what the repository holds.
    repository_url: MaybeUndefined<String>,
}

impl UpdateWorkspaceInput {
    /// The workspace, as it is named; the new name, if there is to be one; and the new URL, if there is to be one or none.
    pub(super) fn parts(self) -> (ID, Option<String>, Option<Option<String>>) {
        (self.id, name(self.name), nullable(self.repository_url))
    }
}

/// A workspace to be deleted.
#[derive(InputObject)]
pub(super) struct DeleteWorkspaceInput {
    /// The workspace.
    pub(super) id: ID,
}

/// A setting of a pipeline, or of a data component.
#[derive(InputObject)]
pub(super) struct PropertyInput {
    /// Of a pipeline, `{datacomponent}.{setting}`; of a data component, the name of the setting. A job finds it in its environment:
    /// `tap-x.some-key` as TAP_X_SOME_KEY.
    name: String,
    /// The value. Where the setting is not a text, as JSON has it. Unlike a script it is stored as it is, line endings included.
    value: String,
    /// Whether the value is sensitive: then it can be written but never read, and it is masked as `***` in the log of every job that has it. The
    /// data plugin may say that a setting is sensitive in any case. Masked are the value and each of its lines, without white space at both ends,
    /// wherever they occur in the output, also as part of another word. A value or line below 4 bytes is not masked. `warnings` of the payload
    /// names values that are short or common, which are masked in unrelated text too.
    #[graphql(default = false)]
    sensitive: bool,
}

impl From<PropertyInput> for model::Property {
    fn from(input: PropertyInput) -> Self {
        let value =
            if input.sensitive { PropertyValue::Unsealed(input.value) } else { PropertyValue::Plain(input.value) };
        Self { name: input.name, value }
    }
}

/// A pipeline to be created.
#[derive(InputObject)]
pub(super) struct CreatePipelineInput {
    /// The workspace it is to belong to.
    pub(super) workspace_id: ID,
    /// Its name, at most 100 characters, without slashes and invisible characters. It is stored in Unicode's normalization form C. No two pipelines of
    /// a workspace have names that differ only in case.
    name: String,
    /// When it runs by itself: a cron expression of six fields, such as `0 0 9-17 * * MON-FRI`. See `Pipeline.schedule` for what it may say.
    schedule: Option<String>,
    /// The seconds after which an attempt is stopped, up to a week. 0, the default, means 300.
    timeout: Option<i32>,
    /// How often a run that ends with an error is tried again: 0, the default, to 100.
    max_retries: Option<i32>,
    /// A Bash script that is run instead of the actions: at most 100 KiB. CR LF and CR become LF, and a byte order mark at its beginning is removed.
    script: Option<String>,
    /// The names of the data components, or of the data plugins themselves, that it uses.
    data_components: Option<Vec<String>>,
    /// Data component names or commands (`plugin:command`) to run, in order.
    actions: Option<Vec<String>>,
    /// Its settings.
    properties: Option<Vec<PropertyInput>>,
    /// The names of the workspace's pipelines whose successful completion starts this one, in the case that they are stored in.
    triggered_by: Option<Vec<String>>,
}

impl From<CreatePipelineInput> for NewPipeline {
    fn from(input: CreatePipelineInput) -> Self {
        let definition = Definition {
            schedule: input.schedule,
            timeout: input.timeout.unwrap_or_default(),
            max_retries: input.max_retries.unwrap_or_default(),
            script: input.script,
            data_components: input.data_components.unwrap_or_default(),
            actions: input.actions.unwrap_or_default(),
            properties: input.properties.unwrap_or_default().into_iter().map(Into::into).collect(),
        };
        Self { name: input.name, definition, triggered_by: input.triggered_by.unwrap_or_default() }.normalized()
    }
}

/// What is to change in a pipeline. A field left out is unchanged, null is the default, a list is replaced.
#[derive(InputObject)]
pub(super) struct UpdatePipelineInput {
    /// The pipeline.
    pub(super) id: ID,
    /// Its new name.
    name: MaybeUndefined<String>,
    /// When it runs by itself: a cron expression of six fields. Null: it does not. See `Pipeline.schedule` for what it may say.
    schedule: MaybeUndefined<String>,
    /// The seconds after which an attempt is stopped, up to a week. 0 means 300.
    timeout: MaybeUndefined<i32>,
    /// How often a run that ends with an error is tried again: 0 to 100.
    max_retries: MaybeUndefined<i32>,
    /// A Bash script that is run instead of the actions; its line endings become LF. Null: there is none.
    script: MaybeUndefined<String>,
    /// The names of the data components, or of the data plugins themselves, that it uses.
    data_components: MaybeUndefined<Vec<String>>,
    /// Data component names or commands to run, in order.
    actions: MaybeUndefined<Vec<String>>,
    /// Its settings: all of them, the sensitive ones with their values too.
    properties: MaybeUndefined<Vec<PropertyInput>>,
    /// The names of the workspace's pipelines whose successful completion starts this one, in the case that they are stored in.
    triggered_by: MaybeUndefined<Vec<String>>,
}

impl From<UpdatePipelineInput> for PipelineChanges {
    fn from(input: UpdatePipelineInput) -> Self {
        Self {
            name: name(input.name),
            schedule: nullable(input.schedule),
            timeout: or_default(input.timeout),
            max_retries: or_default(input.max_retries),
            script: nullable(input.script),
            data_components: or_default(input.data_components),
            actions: or_default(input.actions),
            properties: or_default(input.properties).map(|it| it.into_iter().map(Into::into).collect()),
            triggered_by: or_default(input.triggered_by),
        }
        .normalized()
    }
}

/// A data component to be created.
#[derive(InputObject)]
pub(super) struct CreateDataComponentInput {
    /// The workspace it is to belong to.
    pub(super) workspace_id: ID,
    /// Its name, unique in the workspace, by which pipelines call it: letters, digits, hyphens and underscores.
    pub(super) name: String,
    /// The name of the data plugin that it is an instance of.
    pub(super) plugin: String,
    /// Settings of the plugin.
    pub(super) properties: Option<Vec<PropertyInput>>,
}

/// What is to change in a data component. A field left out is unchanged, a list is replaced.
#[derive(InputObject)]
pub(super) struct UpdateDataComponentInput {
    /// The data component.
    pub(super) id: ID,
    /// Settings of the plugin: all of them, the sensitive ones with their values too.
    pub(super) properties: MaybeUndefined<Vec<PropertyInput>>,
}

impl UpdateDataComponentInput {
    /// The new settings, if there are to be others.
    pub(super) fn properties(self) -> Option<Vec<model::Property>> {
        or_default(self.properties).map(|it| it.into_iter().map(Into::into).collect())
    }
}

/// A data component to be deleted.
#[derive(InputObject)]
pub(super) struct DeleteDataComponentInput {
    /// The data component.
    pub(super) id: ID,
}

/// A webhook to be created.
#[derive(InputObject)]
pub(super) struct CreateWebhookInput {
    /// The workspace whose activity it is to be told of.
    pub(super) workspace_id: ID,
    /// The only pipeline that it is to be told of, if it is not all.
    pub(super) pipeline_id: Option<ID>,
    /// Where deliveries are posted: `https://…`, or `http://…`. Private addresses are refused, unless the server allows them.
    pub(super) url: String,
    /// What deliveries are signed with: `whsec_` and bytes in base64, or any text of 16 to 256 bytes. Without it the server makes one.
    pub(super) secret: Option<String>,
    /// Which activity it is to be told of.
    #[graphql(default_with = "ActivityLevel::All")]
    pub(super) level: ActivityLevel,
}

/// What is to change in a webhook. A field left out is unchanged.
#[derive(InputObject)]
pub(super) struct UpdateWebhookInput {
    /// The webhook.
    pub(super) id: ID,
    /// The only pipeline that it is to be told of. Null: all.
    pub(super) pipeline_id: MaybeUndefined<ID>,
    /// Where deliveries are posted, those too that have not arrived yet.
    pub(super) url: MaybeUndefined<String>,
    /// What deliveries are signed with from now on. Null: the server makes a new one.
    pub(super) secret: MaybeUndefined<String>,
    /// Which activity it is to be told of. Null: all.
    pub(super) level: MaybeUndefined<ActivityLevel>,
}

/// A webhook to be deleted.
#[derive(InputObject)]
pub(super) struct DeleteWebhookInput {
    /// The webhook.
    pub(super) id: ID,
}

/// A pipeline to be deleted.
#[derive(InputObject)]
pub(super) struct DeletePipelineInput {
    /// The pipeline.
    pub(super) id: ID,
}

/// A pipeline to be verified.
#[derive(InputObject)]
pub(super) struct VerifyPipelineInput {
    /// The pipeline.
    pub(super) id: ID,
}

/// Somebody to be invited.
#[derive(InputObject)]
pub(super) struct CreateInvitationInput {
    /// The workspace the invitation is to.
    pub(super) workspace_id: ID,
    /// The e-mail address of whom it is for.
    pub(super) email: String,
}

/// A run to be queued.
#[derive(InputObject)]
pub(super) struct CreateJobInput {
    /// The pipeline to run.
    pub(super) pipeline_id: ID,
}

/// A job to be stopped.
#[derive(InputObject)]
pub(super) struct StopJobInput {
    /// The job.
    pub(super) id: ID,
}

/// A job to be deleted.
#[derive(InputObject)]
pub(super) struct DeleteJobInput {
    /// The job.
    pub(super) id: ID,
}

/// A name has no default: null is refused as an empty one is.
fn name(field: MaybeUndefined<String>) -> Option<String> {
    or_default(field)
}

pub(super) fn nullable<T>(field: MaybeUndefined<T>) -> Option<Option<T>> {
    match field {
        MaybeUndefined::Undefined => None,
        MaybeUndefined::Null => Some(None),
        MaybeUndefined::Value(value) => Some(Some(value)),
    }
}

pub(super) fn or_default<T: Default>(field: MaybeUndefined<T>) -> Option<T> {
    nullable(field).map(Option::unwrap_or_default)
}
