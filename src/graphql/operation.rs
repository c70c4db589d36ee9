//! What a client asks for, as every transport brings it, and what it is told.

use std::sync::Arc;

use async_graphql::Value;
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::error::Error;

/// Who asks. Whatever is shared between requests is shared only between those of one caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Caller([u8; 32]);

impl Caller {
    /// Whoever shows this token. Only its fingerprint is kept.
    pub fn with_token(token: &str) -> Self {
        Self(Sha256::digest(token).into())
    }
}

/// A request in its JSON form: <https://graphql.github.io/graphql-over-http/>.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Operation {
    /// The document.
    pub query: Option<String>,
    /// Which of the document's operations is meant, where it has several.
    pub operation_name: Option<String>,
    /// An object.
    pub variables: Option<Box<RawValue>>,
    /// What else there is to say: an object.
    pub extensions: Option<Box<RawValue>>,
    /// Names a document that the server knows.
    pub document_id: Option<String>,
}

impl Operation {
    /// Reads an operation. The error says, to a client, why it is none.
    pub fn from_json(json: &[u8]) -> Result<Self, String> {
        match json.trim_ascii_start().first() {
            Some(b'[') => return Err("A request is a JSON object; there are no batches.".to_owned()),
            Some(b'{') | None => {}
            Some(_) => return Err("A request is a JSON object.".to_owned()),
        }
        let operation: Self =
            serde_json::from_slice(json).map_err(|error| format!("The body is not a request: {error}."))?;
        operation.checked()
    }

    /// The operation, if its parts are of the right kind.
    pub fn checked(self) -> Result<Self, String> {
        for (name, value) in [("variables", &self.variables), ("extensions", &self.extensions)] {
            if value.as_ref().is_some_and(|value| !value.get().starts_with('{')) {
                return Err(format!("`{name}` is an object."));
            }
        }
        if self.query.is_none() && self.document_id.is_none() && self.extensions.is_none() {
            return Err("`query` is missing.".to_owned());
        }
        Ok(self)
    }
}

/// JSON that is ready to be sent. Clones share it.
#[derive(Debug, Clone)]
pub struct Json(Arc<str>);

impl Json {
    /// What the schema makes can always be written as JSON.
    pub(super) fn of(value: &(impl serde::Serialize + ?Sized)) -> Self {
        Self(serde_json::to_string(value).unwrap_or_default().into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<[u8]> for Json {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// What a client is told of an operation.
#[derive(Debug, Clone)]
pub enum Answer {
    /// It was carried out: an object with `data`, and with `errors` if there were any. Of a subscription there are many.
    Result(Json),
    /// It was not carried out, or, a subscription, it has failed. Nothing comes after it.
    Refused(Refusal),
}

/// Why an operation was not carried out.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// A list of errors.
    pub errors: Json,
    /// The code of the first.
    pub code: Arc<str>,
}

impl Refusal {
    /// Of an operation that a response of the schema refuses.
    pub(super) fn of(response: &async_graphql::Response) -> Self {
        let code = match response.errors.first().and_then(|it| it.extensions.as_ref()?.get("code")) {
            Some(Value::String(code)) => code.as_str().into(),
            _ => "INTERNAL".into(),
        };
        Self { errors: Json::of(&response.errors), code }
    }

    /// The body of a response that says only this.
    pub fn body(&self) -> String {
        format!("{{\"errors\":{}}}", self.errors.as_str())
    }

    /// Whether it is the server's own fault.
    pub fn is_fault(&self) -> bool {
        &*self.code == "INTERNAL"
    }
}

impl Answer {
    /// The answer that a response of the schema is. Of a subscription whose field is null nothing is left to be told.
    pub(super) fn of(response: &async_graphql::Response, is_subscription: bool) -> Self {
        let refused = response.data == Value::Null
            && !response.errors.is_empty()
            && (is_subscription || response.errors.iter().all(|error| error.path.is_empty()));
        if refused { Self::Refused(Refusal::of(response)) } else { Self::Result(Json::of(response)) }
    }

    /// Whether nothing comes after it.
    pub fn is_last(&self) -> bool {
        !matches!(self, Self::Result(_))
    }

    /// How many bytes it has.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Result(json) | Self::Refused(Refusal { errors: json, .. }) => json.as_str().len(),
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        #[derive(serde::Serialize)]
        struct Told {
            message: String,
            extensions: Option<async_graphql::ErrorExtensionValues>,
        }
        let code = error.code().into();
        let async_graphql::Error { message, extensions, .. } = error.into();
        Self { errors: Json::of(&[Told { message, extensions }]), code }
    }
}

impl From<Error> for Answer {
    fn from(error: Error) -> Self {
        Self::Refused(error.into())
    }
}
