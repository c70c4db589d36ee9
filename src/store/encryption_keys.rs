//! Which keys open what is sealed, and what an earlier version has left unsealed.

use diesel::prelude::*;

use super::conn::Conn;
use super::schema::{definitions, encryption_keys};
use crate::error::Error;
use crate::model::{DefinitionId, PipelineId};

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
}
