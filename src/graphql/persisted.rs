//! Documents that the server knows, so that clients need only name them.
//!
//! Either clients teach them to the server (automatic persisted queries, as Apollo's clients speak it: the hash alone at first, then, if
//! the server does not know it, hash and document), or the server is given a list at its start, and carries out nothing else.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::Cache;
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::operation::Operation;
use crate::error::Error;

/// How many bytes of documents clients can teach. What has not been asked for is forgotten first.
const LEARNED_BYTES: u64 = 8 * 1024 * 1024;
const TYPICAL_DOCUMENT: usize = 1024;

/// The documents. Clones share them.
#[derive(Debug, Clone)]
pub(super) enum Documents {
    /// Those that clients have taught, by the SHA-256 of their text, in lower case hexadecimal digits.
    Learned(Arc<Cache<String, Arc<str>, Length>>),
    /// Those of the list, by their ids; and their texts.
    Listed(Arc<HashMap<String, Arc<str>>>),
}

/// Why a list of documents cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// It cannot be read.
    #[error("the list of operations {0} cannot be read: {1}")]
    Unreadable(PathBuf, #[source] std::io::Error),
    /// It is not a JSON object of documents by their ids.
    #[error("the list of operations {0} is not a JSON object of documents by their ids: {1}")]
    Malformed(PathBuf, #[source] serde_json::Error),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Extensions {
    persisted_query: Option<PersistedQuery>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PersistedQuery {
    version: u64,
    sha256_hash: String,
}

/// A document, and what to call it if it turns out to be one.
pub(super) struct Found {
    pub(super) text: Arc<str>,
    pub(super) learn_as: Option<String>,
}

#[derive(Debug, Clone)]
pub(super) struct Length;

impl Weighter<String, Arc<str>> for Length {
    fn weight(&self, id: &String, text: &Arc<str>) -> u64 {
        (id.len() + text.len()) as u64
    }
}

impl Default for Documents {
    fn default() -> Self {
        let documents = LEARNED_BYTES as usize / TYPICAL_DOCUMENT;
        Self::Learned(Arc::new(Cache::with_weighter(documents, LEARNED_BYTES, Length)))
    }
}

impl Documents {
    /// Reads a list: a JSON object of documents by their ids, as GraphQL Code Generator writes it (`persistedDocuments`).
    pub(super) fn listed(path: &Path) -> Result<Self, ListError> {
        let json = std::fs::read(path).map_err(|error| ListError::Unreadable(path.to_owned(), error))?;
        let list: HashMap<String, String> =
            serde_json::from_slice(&json).map_err(|error| ListError::Malformed(path.to_owned(), error))?;
        let mut list: HashMap<String, Arc<str>> = list.into_iter().map(|(id, text)| (id, text.into())).collect();
        // Whoever sends or hashes the whole text is to find it too.
        let by_hash: Vec<_> = list.values().map(|text| (hash(text), Arc::clone(text))).collect();
        list.extend(by_hash);
        Ok(Self::Listed(list.into()))
    }

    /// The document that an operation sends or names.
    pub(super) fn find(&self, operation: &mut Operation) -> Result<Found, Error> {
        let id = wanted_id(operation)?;
        match (self, operation.query.take(), id) {
            (Self::Listed(list), Some(text), _) => match list.get(&hash(&text)) {
                Some(text) => Ok(Found { text: Arc::clone(text), learn_as: None }),
                None => Err(Error::Forbidden("This server carries out only the operations on its list.".to_owned())),
            },
            (Self::Listed(list), None, Some(Named { id, .. })) => {
                match list.get(&id).or_else(|| list.get(without_prefix(&id))) {
                    Some(text) => Ok(Found { text: Arc::clone(text), learn_as: None }),
                    None => Err(Error::PersistedQueryNotFound),
                }
            }
            (Self::Learned(_), Some(text), None) => Ok(Found { text: text.into(), learn_as: None }),
            (Self::Learned(_), Some(text), Some(Named { id, .. })) if hash(&text) == without_prefix(&id) => {
                Ok(Found { text: text.into(), learn_as: Some(without_prefix(&id).to_owned()) })
            }
            (Self::Learned(_), Some(_), Some(Named { path, .. })) => {
                Err(Error::bad_input(path, "This is not the hash of the query."))
            }
            (Self::Learned(learned), None, Some(Named { id, .. })) => match learned.get(without_prefix(&id)) {
                Some(text) => Ok(Found { text, learn_as: None }),
                None => Err(Error::PersistedQueryNotFound),
            },
            (_, None, None) => Err(Error::bad_input("query", "It is missing.")),
        }
    }

    /// Remembers a document that turned out to be one.
    pub(super) fn learn(&self, id: String, text: &Arc<str>) {
        if let Self::Learned(learned) = self {
            learned.insert(id, Arc::clone(text));
        }
    }
}

/// The id that an operation names a document by, and where it does.
struct Named {
    id: String,
    path: &'static str,
}

/// Looks for `documentId`, or the hash in `extensions.persistedQuery`.
fn wanted_id(operation: &mut Operation) -> Result<Option<Named>, Error> {
    if let Some(id) = operation.document_id.take() {
        return Ok(Some(Named { id, path: "documentId" }));
    }
    let Some(extensions) = operation.extensions.as_deref().map(RawValue::get) else { return Ok(None) };
    let extensions: Extensions = serde_json::from_str(extensions)
        .map_err(|error| Error::bad_input("extensions.persistedQuery", format!("It cannot be read: {error}.")))?;
    match extensions.persisted_query {
        Some(query) if query.version == 1 => {
            let id = query.sha256_hash.to_ascii_lowercase();
            Ok(Some(Named { id, path: "extensions.persistedQuery.sha256Hash" }))
        }
        Some(_) => Err(Error::bad_input("extensions.persistedQuery.version", "Only version 1 is spoken.")),
        None => Ok(None),
    }
}

/// The hash of an id that says which kind of hash it is.
fn without_prefix(id: &str) -> &str {
    id.strip_prefix("sha256:").unwrap_or(id)
}

fn hash(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}
