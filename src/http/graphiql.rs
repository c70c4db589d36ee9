//! GraphiQL: the page at `/`, and the files under `/assets/` that it is made of.
//!
//! They are inside the program if npm could build them along with it: `build.rs` says how. If not, there are none, and a page without
//! scripts says how to build them. No page loads anything from another server.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use super::access::text;
use super::reply::no_such_page;

/// The files' names, the page's among them, and their contents.
const FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/graphiql.rs"));
const PAGE: &str = "index.html";

/// The page talks to this server only. Its editor sets styles on elements, and fonts are inside of its style sheets.
const POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; font-src 'self' data:; img-src 'self' data:; \
    object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// The page of a program without GraphiQL loads nothing at all.
const EXPLANATION_POLICY: &str = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const EXPLANATION: &str = include_str!("no_graphiql.html");

/// Tells one build's page from another's. Weak, for on its way the page may be compressed.
static PAGE_TAG: LazyLock<String> = LazyLock::new(|| {
    let mut hasher = DefaultHasher::new();
    file(PAGE).hash(&mut hasher);
    format!("W/\"{:x}\"", hasher.finish())
});

/// The page. It names its files by their content, so it alone has to be asked for again.
pub(super) async fn page(headers: HeaderMap) -> Response {
    let Some(page) = file(PAGE) else { return explanation() };
    let known = text(&headers, header::IF_NONE_MATCH).is_some_and(|it| it == *PAGE_TAG);
    let headers = [
        (header::CONTENT_TYPE, content_type(PAGE)),
        (header::CACHE_CONTROL, "no-cache"),
        (header::ETAG, PAGE_TAG.as_str()),
        (header::CONTENT_SECURITY_POLICY, POLICY),
    ];
    if known { (StatusCode::NOT_MODIFIED, headers).into_response() } else { (headers, page).into_response() }
}

/// A file of the page: another content has another name, so it can be kept for ever.
pub(super) async fn asset(Path(name): Path<String>, uri: Uri) -> Response {
    let Some(content) = file(&name).filter(|_| name != PAGE) else { return no_such_page(uri).await };
    let headers = [
        (header::CONTENT_TYPE, content_type(&name)),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
        // Of a worker, its own policy counts and not the page's.
        (header::CONTENT_SECURITY_POLICY, POLICY),
    ];
    (headers, content).into_response()
}

fn explanation() -> Response {
    let headers = [
        (header::CONTENT_TYPE, content_type(PAGE)),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, EXPLANATION_POLICY),
    ];
    (headers, EXPLANATION).into_response()
}

fn file(name: &str) -> Option<&'static [u8]> {
    FILES.iter().find(|(it, _)| *it == name).map(|(_, content)| *content)
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "ttf" => "font/ttf",
        _ => "application/octet-stream",
    }
}
