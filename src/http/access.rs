//! Who may talk to the server: the token, and the Host and Origin headers.
//!
//! Without a token the server listens to this machine only; but a browser on this machine shows pages from elsewhere. A page
//! of another site is told by its Origin, and a name of its own that it has made point here (DNS rebinding) by its Host.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::Response;
use subtle::ConstantTimeEq;

use super::Http;
use super::reply::failure;
use crate::error::Error;
use crate::graphql::Caller;

/// A secret that clients show. Its `Debug` hides it.
#[derive(Clone)]
pub struct Token(Arc<str>);

impl Token {
    /// The token with this text.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    fn is(&self, shown: &str) -> bool {
        self.0.as_bytes().ct_eq(shown.as_bytes()).into()
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

/// What the server asks of those who talk to it.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// The token that clients must show, if there is one.
    pub token: Option<Token>,
    /// Names, beside addresses and `localhost`, that clients may call the server by.
    pub hosts: Vec<String>,
    /// Origins, beside the server's own and those of this machine, whose pages may talk to it: `*` for any.
    pub origins: Vec<String>,
}

impl Access {
    /// Who shows an `Authorization` of this value, if that is good enough.
    pub(super) fn admit(&self, authorization: Option<&str>) -> Option<Caller> {
        let Some(token) = &self.token else { return Some(Caller::default()) };
        let (scheme, shown) = authorization?.split_once(' ')?;
        let admitted = scheme.eq_ignore_ascii_case("Bearer") && token.is(shown.trim());
        admitted.then(|| Caller::with_token(shown.trim()))
    }

    /// Who sends these headers, if they say enough.
    pub(super) fn admit_headers(&self, headers: &HeaderMap) -> Option<Caller> {
        self.admit(text(headers, header::AUTHORIZATION))
    }

    /// Whether pages of an origin may talk to the server, which they call by this host.
    pub(super) fn knows_origin(&self, origin: &str, host: &str) -> bool {
        let authority = origin.split_once("://").map_or("", |(_, authority)| authority);
        let own = authority.eq_ignore_ascii_case(host);
        let neighbour = is_local(host_name(authority)) && is_local(host_name(host));
        own || neighbour || self.origins.iter().any(|it| it == "*" || it.eq_ignore_ascii_case(origin))
    }

    fn check_origin(&self, headers: &HeaderMap) -> Result<(), Error> {
        let host = text(headers, header::HOST).unwrap_or_default();
        let name = host_name(host);
        if !is_address(name) && !is_local(name) && !self.hosts.iter().any(|it| it.eq_ignore_ascii_case(name)) {
            return Err(Error::Forbidden(format!(
                "The server does not know the name {name:?}. If it is its own, allow it with --allow-host."
            )));
        }
        let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
        let origin = origin.to_str().unwrap_or_default();
        if self.knows_origin(origin, host) {
            return Ok(());
        }
        Err(Error::Forbidden(format!(
            "Pages of {origin:?} may not talk to this server. Allow them with --allow-origin."
        )))
    }
}

/// Refuses requests that come from a page of another site, or by a name that is not the server's.
pub(super) async fn require_known_origin(State(http): State<Http>, request: Request, next: Next) -> Response {
    match http.access.check_origin(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => failure(error),
    }
}

/// Refuses requests without the token.
pub(super) async fn require_token(State(http): State<Http>, request: Request, next: Next) -> Response {
    if http.access.admit_headers(request.headers()).is_some() {
        next.run(request).await
    } else {
        failure(Error::Unauthenticated)
    }
}

/// A header's value, if it is text.
pub(super) fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The host of `host:port`, without the brackets of an IPv6 address.
fn host_name(authority: &str) -> &str {
    match authority.strip_prefix('[').and_then(|it| it.split_once(']')) {
        Some((address, _)) => address,
        None => authority.rsplit_once(':').map_or(authority, |(name, _)| name),
    }
}

fn is_address(name: &str) -> bool {
    name.parse::<IpAddr>().is_ok()
}

fn is_local(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost") || name.parse::<IpAddr>().is_ok_and(|it| it.is_loopback())
}
