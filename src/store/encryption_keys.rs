//! Which keys open what is sealed, and what an earlier version has left unsealed.

use diesel::prelude::*;

use super::conn::Conn;
use super::fragment::maybe;
use super::schema::{data_components, definitions, encryption_keys, webhooks};
use crate::error::Error;
use crate::model::{ComponentId, DefinitionId, PipelineId, Sealed, WebhookId};

/// A definition as it is stored: JSON.
pub type StoredDefinition = (DefinitionId, PipelineId, String);

impl Conn {
    /// The fingerprint of the key that values are sealed with, if any have been.
    pub async fn encryption_key(&mut self) -> Result<Option<String>, Error> {
        self.optional(encryption_keys::table.select(encryption_keys::fingerprint).limit(1)).await
    }

    /// Notes which key values are sealed with, unless another is noted already.
    pub async fn insert_encryption_key(&mut self, fingerprint: &str) -> Result<(), Error> {
        let created = self.now().await?;
        let row = (encryption_keys::fingerprint.eq(fingerprint), encryption_keys::created.eq(created));
        self.run(diesel::insert_into(encryption_keys::table).values(row).on_conflict_do_nothing()).await?;
        Ok(())
    }

    /// Some definitions with sensitive values that are not sealed: an earlier version wrote them so.
    pub async fn unsealed_definitions(&mut self, at_most: i64) -> Result<Vec<StoredDefinition>, Error> {
        let unsealed = definitions::table.filter(definitions::body.like("%\"sensitive\":true%")).limit(at_most);
        self.all(unsealed.select((definitions::id, definitions::pipeline, definitions::body))).await
    }

    /// Stores a definition in another form. What it says stays the same.
    pub async fn rewrite_definition(&mut self, id: DefinitionId, body: &str) -> Result<(), Error> {
        self.run(diesel::update(definitions::table.find(id)).set(definitions::body.eq(body))).await?;
        Ok(())
    }

    /// Notes that values are sealed with another key from now on.
    pub async fn replace_encryption_key(&mut self, fingerprint: &str) -> Result<(), Error> {
        self.run(diesel::delete(encryption_keys::table)).await?;
        self.insert_encryption_key(fingerprint).await
    }

    /// Keeps servers from registering, and from renewing their leases, until the transaction ends.
    pub async fn lock_nodes(&mut self) -> Result<(), Error> {
        if self.is_shared() { self.control("LOCK TABLE nodes IN SHARE ROW EXCLUSIVE MODE").await } else { Ok(()) }
    }

    /// Some definitions, by their ids, after one of them.
    pub async fn definitions_after(
        &mut self,
        last: Option<DefinitionId>,
        at_most: i64,
    ) -> Result<Vec<StoredDefinition>, Error> {
        let after = definitions::table.filter(maybe(last, |last| definitions::id.gt(last)));
        let columns = (definitions::id, definitions::pipeline, definitions::body);
        self.all(after.order(definitions::id).limit(at_most).select(columns)).await
    }

    /// The settings of all data components, as JSON.
    pub async fn all_component_properties(&mut self) -> Result<Vec<(ComponentId, String)>, Error> {
        self.all(data_components::table.select((data_components::id, data_components::properties))).await
    }

    /// Stores the settings of a data component in another form. What they say stays the same.
    pub async fn rewrite_component_properties(&mut self, id: ComponentId, properties: &str) -> Result<(), Error> {
        let change = data_components::properties.eq(properties);
        self.run(diesel::update(data_components::table.find(id)).set(change)).await?;
        Ok(())
    }

    /// The secrets of all webhooks.
    pub async fn all_webhook_secrets(&mut self) -> Result<Vec<(WebhookId, Sealed)>, Error> {
        let rows: Vec<(WebhookId, String)> = self.all(webhooks::table.select((webhooks::id, webhooks::secret))).await?;
        Ok(rows.into_iter().map(|(id, secret)| (id, Sealed::from(secret))).collect())
    }

    /// Stores the secret of a webhook in another form.
    pub async fn rewrite_webhook_secret(&mut self, id: WebhookId, secret: &Sealed) -> Result<(), Error> {
        self.run(diesel::update(webhooks::table.find(id)).set(webhooks::secret.eq(secret.as_str()))).await?;
        Ok(())
    }
}
