//! Sensitive values: sealed before they are stored, opened when a job starts.

use std::collections::BTreeMap;

use futures_util::FutureExt;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::attempts::Claimed;
use super::{Jobs, Unit};
use crate::cipher::Cipher;
use crate::error::{Error, Problem};
use crate::model::{Definition, Id, Property, PropertyValue, variable, weakness};

/// How many definitions one transaction rewrites.
const REWRITTEN: i64 = 100;
/// How often the keys of names are computed anew if another server changes names meanwhile.
const NAME_KEY_TRIES: u32 = 10;

/// What a job finds in its environment of the settings of its pipeline.
#[derive(Default)]
pub struct Settings {
    /// Variables and their values.
    pub variables: BTreeMap<String, Zeroizing<String>>,
    /// The values that nobody is to read.
    pub sensitive: Vec<Zeroizing<String>>,
}

impl Jobs {
    /// Opens the settings of a claimed job: those of its data components, and over them those of its pipeline.
    pub fn settings(&self, claimed: &Claimed) -> Result<Settings, Error> {
        let mut settings = Settings::default();
        for component in claimed.uses.iter().filter_map(|used| used.component.as_ref()) {
            for property in &component.properties {
                let name = format!("{}.{}", component.name, property.name);
                settings.add(&name, open(&self.cipher, component.id, property)?, property.plain().is_none());
            }
        }
        if let Some(pipeline) = &claimed.pipeline {
            for property in &claimed.definition.properties {
                settings.add(&property.name, open(&self.cipher, pipeline.id, property)?, property.plain().is_none());
            }
        }
        Ok(settings)
    }

    /// Notes the key, and says whether it is the one that the database needs.
    pub async fn note_key(&self) -> Result<bool, Error> {
        let cipher = self.cipher.clone();
        self.commit(move |unit| {
            async move {
                if unit.conn.encryption_key().await?.is_none() {
                    unit.conn.insert_encryption_key(cipher.fingerprint()).await?;
                }
                let noted = unit.conn.encryption_key().await?;
                Ok(noted.as_deref() == Some(cipher.fingerprint()))
            }
            .boxed()
        })
        .await
    }

    /// Gives the names that an earlier version stored the keys by which they are unique. Several servers may do this at the same time.
    pub async fn set_name_keys(&self) -> Result<(), Error> {
        let mut tries = NAME_KEY_TRIES;
        loop {
            let set = self.store.write(|conn| conn.set_name_keys().boxed()).await;
            tries -= 1;
            match set {
                Ok(0) => return Ok(()),
                Ok(count) => {
                    tracing::info!(count, "set the keys of names that were stored by an earlier version");
                    return Ok(());
                }
                // Another server has given one of the keys to something new meanwhile.
                Err(Error::Conflict(_)) if tries > 0 => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Seals the sensitive values that an earlier version has stored as they are.
    pub async fn seal_what_is_not(&self) -> Result<(), Error> {
        loop {
            let cipher = self.cipher.clone();
            let some_left = self.commit(move |unit| {
                async move {
                    let unsealed = unit.conn.unsealed_definitions(REWRITTEN).await?;
                    for (id, pipeline, body) in &unsealed {
                        let earlier: EarlierDefinition = serde_json::from_str(body).map_err(Error::internal)?;
                        let mut definition: Definition = serde_json::from_str(body).map_err(Error::internal)?;
                        definition.properties = earlier.properties.into_iter().map(EarlierProperty::now).collect();
                        unit.seal(&cipher, *pipeline, &mut definition.properties, |_| false).await?;
                        let body = serde_json::to_string(&definition).map_err(Error::internal)?;
                        unit.conn.rewrite_definition(*id, &body).await?;
                    }
                    Ok(!unsealed.is_empty())
                }
                .boxed()
            });
            if !some_left.await? {
                return Ok(());
            }
        }
    }
}

impl Unit<'_> {
    /// Seals the properties of this owner that the user, or this condition, says are sensitive. Answers warnings about those that are masked badly.
    pub(super) async fn seal<T>(
        &mut self,
        cipher: &Cipher,
        owner: Id<T>,
        properties: &mut [Property],
        is_sensitive: impl Fn(&str) -> bool,
    ) -> Result<Vec<Problem>, Error> {
        let mut sealed = false;
        let mut warnings = Vec::new();
        for (index, Property { name, value }) in properties.iter_mut().enumerate() {
            let text = match value {
                PropertyValue::Unsealed(text) => text,
                PropertyValue::Plain(text) if is_sensitive(name) => text,
                _ => continue,
            };
            let warning = weakness(text).map(|why| Problem::at(format!("input.properties.{index}.value"), why));
            warnings.extend(warning);
            *value = PropertyValue::Sealed(cipher.seal(owner, name, &Zeroizing::new(std::mem::take(text)))?);
            sealed = true;
        }
        if sealed {
            self.note_key(cipher).await?;
        }
        Ok(warnings)
    }

    /// From now on the database needs this key. It must not need another: a server that hung while the
    /// key was replaced would store what nobody can open.
    pub(super) async fn note_key(&mut self, cipher: &Cipher) -> Result<(), Error> {
        match self.conn.encryption_key().await? {
            None => self.conn.insert_encryption_key(cipher.fingerprint()).await,
            Some(noted) if noted == cipher.fingerprint() => Ok(()),
            Some(_) => {
                Err(Error::internal("failed to seal: the key was replaced; restart the server with the new key"))
            }
        }
    }
}

impl Settings {
    fn add(&mut self, name: &str, value: Zeroizing<String>, sensitive: bool) {
        if sensitive {
            self.sensitive.push(value.clone());
        }
        self.variables.insert(variable(name), value);
    }

    /// How many bytes the variables have, or the sensitive values if those are more.
    pub fn bytes(&self) -> usize {
        let variables = self.variables.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        variables.max(self.sensitive.iter().map(|value| value.len()).sum())
    }
}

fn open<T>(cipher: &Cipher, owner: Id<T>, property: &Property) -> Result<Zeroizing<String>, Error> {
    match &property.value {
        PropertyValue::Plain(value) | PropertyValue::Unsealed(value) => Ok(Zeroizing::new(value.clone())),
        PropertyValue::Sealed(sealed) => cipher.unseal(owner, &property.name, sealed),
    }
}

/// What an earlier version stored of a definition's properties.
#[derive(Deserialize)]
struct EarlierDefinition {
    properties: Vec<EarlierProperty>,
}

#[derive(Deserialize)]
struct EarlierProperty {
    name: String,
    value: String,
    sensitive: bool,
}

impl EarlierProperty {
    fn now(self) -> Property {
        let Self { name, value, sensitive } = self;
        Property { name, value: if sensitive { PropertyValue::Unsealed(value) } else { PropertyValue::Plain(value) } }
    }
}
