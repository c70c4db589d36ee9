//! The messages of graphql-transport-ws.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio_tungstenite::tungstenite::Utf8Bytes;

/// What a client says.
#[derive(Deserialize)]
pub(super) struct Said<'a> {
    #[serde(borrow)]
    pub(super) r#type: Cow<'a, str>,
    pub(super) id: Option<String>,
    #[serde(borrow)]
    pub(super) payload: Option<&'a RawValue>,
}

/// The payload of `connection_init`: what would be headers, if browsers could set them. As in HTTP, the case of `Authorization` does
/// not count, and it comes once only: a message is one attempt to authenticate.
#[derive(Debug, Default)]
pub(super) struct Init {
    pub(super) authorization: Option<String>,
}

impl<'de> Deserialize<'de> for Init {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Payload;

        impl<'de> Visitor<'de> for Payload {
            type Value = Init;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Init, A::Error> {
                let mut authorization = None;
                while let Some(name) = map.next_key::<Cow<'_, str>>()? {
                    if !name.eq_ignore_ascii_case("authorization") {
                        map.next_value::<IgnoredAny>()?;
                    } else if authorization.replace(map.next_value::<Value>()?).is_some() {
                        return Err(A::Error::custom("several authorizations"));
                    }
                }
                Ok(Init { authorization: authorization.and_then(|it| it.as_str().map(str::to_owned)) })
            }
        }

        deserializer.deserialize_map(Payload)
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
