//! The messages of graphql-transport-ws.

use std::borrow::Cow;
use std::collections::HashMap;

use axum::extract::ws::Utf8Bytes;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// What a client says.
#[derive(Deserialize)]
pub(super) struct Said<'a> {
    #[serde(borrow)]
    pub(super) r#type: Cow<'a, str>,
    pub(super) id: Option<String>,
    #[serde(borrow)]
    pub(super) payload: Option<&'a RawValue>,
}

/// The payload of `connection_init`: what would be headers, if browsers could set them.
#[derive(Default, Deserialize)]
#[serde(transparent)]
pub(super) struct Init(HashMap<String, Value>);

impl Init {
    /// Every `Authorization`. As in HTTP, it may be written in capitals or not; a client that merges its settings may send both.
    pub(super) fn authorizations(&self) -> impl Iterator<Item = &str> {
        let named = self.0.iter().filter(|(name, _)| name.eq_ignore_ascii_case("authorization"));
        named.filter_map(|(_, value)| value.as_str())
    }
}

pub(super) const ACK: &str = r#"{"type":"connection_ack"}"#;
pub(super) const PONG: &str = r#"{"type":"pong"}"#;

/// What the server says of one operation. The bytes of a payload are shared by all who are told it; what is around them is each
/// operation's own.
#[derive(Debug)]
pub(super) struct Envelope {
    id: String,
    /// The id as JSON.
    quoted: Box<str>,
}

impl Envelope {
    /// For the operation with this id.
    pub(super) fn new(id: String) -> Self {
        // A text can always be written as JSON.
        let quoted = serde_json::to_string(&id).unwrap_or_default().into();
        Self { id, quoted }
    }

    /// The operation's id.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// A result.
    pub(super) fn next(&self, result: &str) -> Utf8Bytes {
        self.with_payload("next", result)
    }

    /// It is refused, or has failed: a list of errors.
    pub(super) fn error(&self, errors: &str) -> Utf8Bytes {
        self.with_payload("error", errors)
    }

    /// It is over.
    pub(super) fn complete(&self) -> Utf8Bytes {
        format!(r#"{{"id":{},"type":"complete"}}"#, self.quoted).into()
    }

    fn with_payload(&self, r#type: &str, payload: &str) -> Utf8Bytes {
        let mut text = String::with_capacity(self.quoted.len() + payload.len() + 40);
        for piece in [r#"{"id":"#, &self.quoted, r#","type":""#, r#type, r#"","payload":"#, payload, "}"] {
            text.push_str(piece);
        }
        text.into()
    }
}
