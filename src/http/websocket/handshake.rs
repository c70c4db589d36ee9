//! The opening handshake (RFC 6455, section 4.2). It is not axum's, whose WebSocket keeps one limit for the size of messages: here the
//! limit is lower until the client has authenticated.

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::response::Builder;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::upgrade::OnUpgrade;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::http::access::text;
use crate::http::reply::refusal;

/// A handshake that the client has begun.
#[derive(Debug)]
pub(in crate::http) struct Handshake {
    key: HeaderValue,
    /// Becomes the connection once the response is sent.
    pub(super) connection: OnUpgrade,
}

/// Whether a request asks for a WebSocket.
pub(in crate::http) fn is_upgrade(headers: &HeaderMap) -> bool {
    text(headers, header::UPGRADE).is_some_and(|it| it.eq_ignore_ascii_case("websocket"))
}

impl Handshake {
    /// Takes the handshake out of a request. The error is the response to a request that is none.
    pub(in crate::http) fn take(parts: &mut Parts) -> Result<Self, (StatusCode, &'static str)> {
        let headers = &parts.headers;
        if parts.method != Method::GET {
            return Err((StatusCode::METHOD_NOT_ALLOWED, "A WebSocket is asked for with GET."));
        }
        if !tokens(headers, header::CONNECTION).any(|it| it.eq_ignore_ascii_case("upgrade")) {
            return Err((StatusCode::UPGRADE_REQUIRED, "The Connection header of a handshake names Upgrade."));
        }
        if text(headers, header::SEC_WEBSOCKET_VERSION) != Some("13") {
            return Err((StatusCode::BAD_REQUEST, "The version of a WebSocket (Sec-WebSocket-Version) is 13."));
        }
        let mut keys = headers.get_all(header::SEC_WEBSOCKET_KEY).iter();
        let key = match (keys.next(), keys.next()) {
            (Some(key), None) if STANDARD.decode(key).is_ok_and(|it| it.len() == 16) => key.clone(),
            _ => return Err((StatusCode::BAD_REQUEST, "A handshake has one Sec-WebSocket-Key of 16 bytes in base64.")),
        };
        let connection = parts.extensions.remove::<OnUpgrade>();
        let connection =
            connection.ok_or((StatusCode::UPGRADE_REQUIRED, "This connection cannot become a WebSocket."))?;
        Ok(Self { key, connection })
    }

    /// The response that accepts the handshake.
    pub(super) fn accept(&self, protocol: &'static str) -> Response {
        let response: Builder = Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header(header::CONNECTION, "upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_ACCEPT, derive_accept_key(self.key.as_bytes()))
            .header(header::SEC_WEBSOCKET_PROTOCOL, protocol);
        // All of it is text that a header can have.
        response.body(Body::empty()).unwrap_or_else(|error| refusal(StatusCode::BAD_REQUEST, &error.to_string()))
    }
}

/// Whether the client speaks this subprotocol.
pub(super) fn offers(headers: &HeaderMap, protocol: &str) -> bool {
    tokens(headers, header::SEC_WEBSOCKET_PROTOCOL).any(|it| it == protocol)
}

/// The elements of a header that is a list.
fn tokens(headers: &HeaderMap, name: header::HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}
