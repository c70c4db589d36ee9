//! Who may talk to the server: the token, and the Host, Origin and Sec-Fetch-Site headers.
//!
//! Without a token the server listens to this machine only; but a browser on this machine shows pages from elsewhere. A page
//! of another site is told by its Origin, and a name of its own that it has made point here (DNS rebinding) by its Host. A page can
//! send a GET without an Origin; then the browser says in Sec-Fetch-Site that another site has sent it.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use subtle::ConstantTimeEq;

use super::Http;
use super::address::TrustedProxies;
use super::origin::{AllowedHost, AllowedOrigin, Authority, Origin};
use super::reply::{failure, refusal};
use crate::error::Error;
use crate::graphql::Caller;

/// The page that links of other sites may lead to.
const PAGE: &str = "/";

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
    pub hosts: Vec<AllowedHost>,
    /// Origins, beside the server's own and those of this machine, whose pages may talk to it.
    pub origins: Vec<AllowedOrigin>,
    /// Proxies whose forwarded headers say who the client is.
    pub proxies: TrustedProxies,
}

/// The result of an authentication.
#[derive(Debug, Clone, Copy)]
pub(super) enum Authentication {
    /// The token is right, or none is needed.
    Passed(Caller),
    /// There is no bearer token.
    NoToken,
    /// There is a bearer token, and it is not the server's.
    WrongToken,
}

impl Authentication {
    /// Who passed.
    pub(super) fn caller(self) -> Option<Caller> {
        match self {
            Self::Passed(caller) => Some(caller),
            Self::NoToken | Self::WrongToken => None,
        }
    }
}

impl Access {
    /// Authenticates by the value of an `Authorization`.
    pub(super) fn authenticate(&self, authorization: Option<&str>) -> Authentication {
        let Some(token) = &self.token else { return Authentication::Passed(Caller::default()) };
        let shown = authorization.and_then(|it| it.split_once(' '));
        match shown.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("Bearer")) {
            None => Authentication::NoToken,
            Some((_, shown)) if token.is(shown.trim()) => Authentication::Passed(Caller::with_token(shown.trim())),
            Some(_) => Authentication::WrongToken,
        }
    }

    /// Authenticates by the headers of a request. Of several `Authorization` headers none counts.
    pub(super) fn authenticate_headers(&self, headers: &HeaderMap) -> Authentication {
        match only(headers, AUTHORIZATION) {
            Ok(authorization) => self.authenticate(authorization),
            Err(_) if self.token.is_none() => self.authenticate(None),
            Err(_) => Authentication::WrongToken,
        }
    }

    /// Refuses a request that calls the server by a name that is not its own, or that a page of another site sends.
    fn check(&self, request: &Request) -> Result<(), Objection> {
        let headers = request.headers();
        let host = only(headers, HOST)?.unwrap_or_default();
        if request.uri().authority().is_some_and(|it| !it.as_str().eq_ignore_ascii_case(host)) {
            return Err(Objection::Malformed("The Host header and the request's target name different hosts."));
        }
        let Some(server) = Authority::parse(host).filter(|it| it.is_known(&self.hosts)) else {
            return Err(Objection::Forbidden(format!(
                "The server does not know the name {host:?}. If it is its own, allow it with --allow-host."
            )));
        };
        let site = FetchSite::of(headers);
        let Some(origin) = only(headers, ORIGIN)? else {
            let any = || self.origins.contains(&AllowedOrigin::Any);
            return if site != FetchSite::Other || is_link_to_page(request) || any() {
                Ok(())
            } else {
                Err(Objection::Forbidden("Pages of other sites may not send requests without an Origin.".to_owned()))
            };
        };
        let parsed = Origin::parse(origin);
        let known = self.origins.iter().any(|it| it.allows(parsed.as_ref()))
            || parsed.is_some_and(|it| {
                // With TLS taken off by a proxy, only the browser knows whether the schemes are the same.
                it.is_of(&server) && site != FetchSite::Other || it.is_neighbour_of(&server)
            });
        if known {
            return Ok(());
        }
        Err(Objection::Forbidden(format!(
            "Pages of {origin:?} may not talk to this server. Allow them with --allow-origin."
        )))
    }
}

/// Why a request is refused by its headers.
enum Objection {
    Malformed(&'static str),
    Forbidden(String),
}

impl From<Objection> for Response {
    fn from(objection: Objection) -> Self {
        match objection {
            Objection::Malformed(message) => refusal(StatusCode::BAD_REQUEST, message),
            Objection::Forbidden(message) => failure(Error::Forbidden(message)),
        }
    }
}

/// Which pages a browser sends a request for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FetchSite {
    /// A browser that does not say, or a client that is no browser.
    Unknown,
    /// A page of the same origin; or none, where the user typed the address.
    Same,
    /// A page of another origin: that of another site, or of another port or subdomain of the same one.
    Other,
}

impl FetchSite {
    fn of(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all("sec-fetch-site").iter();
        match (values.next().map(|it| it.as_bytes()), values.next()) {
            (None, _) => Self::Unknown,
            (Some(b"same-origin" | b"none"), None) => Self::Same,
            _ => Self::Other,
        }
    }
}

/// Whether a request opens GraphiQL in a tab: links of other sites may do that.
fn is_link_to_page(request: &Request) -> bool {
    let is = |name: &str, value: &str| request.headers().get(name).is_some_and(|it| it == value);
    [Method::GET, Method::HEAD].contains(request.method())
        && request.uri().path() == PAGE
        && is("sec-fetch-mode", "navigate")
        && is("sec-fetch-dest", "document")
}

/// Refuses requests that come from a page of another site, or by a name that is not the server's.
pub(super) async fn require_known_origin(State(http): State<Http>, request: Request, next: Next) -> Response {
    match http.access.check(&request) {
        Ok(()) => next.run(request).await,
        Err(objection) => objection.into(),
    }
}

/// Refuses requests without the token.
pub(super) async fn require_token(State(http): State<Http>, request: Request, next: Next) -> Response {
    match http.access.authenticate_headers(request.headers()) {
        Authentication::Passed(_) => next.run(request).await,
        refused => {
            let client = http.client(request.extensions(), request.headers());
            http.unauthenticated(client, refused).await
        }
    }
}

/// A header's value, if it is text.
pub(super) fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The value of a header that may come once only.
fn only(headers: &HeaderMap, name: HeaderName) -> Result<Option<&str>, Objection> {
    let mut values = headers.get_all(name).iter();
    match (values.next().map(|it| it.to_str()), values.next()) {
        (None, _) => Ok(None),
        (Some(Ok(value)), None) => Ok(Some(value)),
        (Some(Err(_)), None) => Err(Objection::Malformed("The headers Host, Origin and Authorization are ASCII text.")),
        (_, Some(_)) => {
            Err(Objection::Malformed("The headers Host, Origin and Authorization may each come once only."))
        }
    }
}
