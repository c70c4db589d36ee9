//! Answers that say only that something is wrong.

use std::any::Any;

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::error::Error;
use crate::graphql::Refusal;

/// Tells a proxy such as nginx to pass on what comes as it comes.
pub(super) const UNBUFFERED: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));

/// Tells browsers and proxies to keep no copy.
pub(super) const NOT_STORED: (HeaderName, HeaderValue) = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));

/// Tells browsers to believe the content type: what a job has printed is text, whatever it looks like.
const NOT_GUESSED: (HeaderName, HeaderValue) = (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));

/// Adds the headers that every response has. A response that may be stored says so itself.
pub(super) async fn with_safe_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let (nosniff, value) = NOT_GUESSED;
    headers.insert(nosniff, value);
    let (cache_control, value) = NOT_STORED;
    headers.entry(cache_control).or_insert(value);
    response
}

/// The answer to a client that has shown too many wrong tokens.
pub(super) fn too_many_attempts() -> Response {
    let message = "Too many wrong tokens came from this address. Try again later.".to_owned();
    let mut response = failure(Error::LimitExceeded(message));
    *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// The answer to a request that failed: its status follows from the error.
pub(super) fn failure(error: Error) -> Response {
    let status = match &error {
        Error::NotFound { .. } => StatusCode::NOT_FOUND,
        Error::BadUserInput(_) | Error::PersistedQueryNotFound => StatusCode::BAD_REQUEST,
        Error::Unauthenticated => StatusCode::UNAUTHORIZED,
        Error::Forbidden(_) => StatusCode::FORBIDDEN,
        Error::Conflict(_) | Error::PipelineBusy { .. } | Error::JobNotActive { .. } | Error::NotReady(_) => {
            StatusCode::CONFLICT
        }
        Error::CursorExpired => StatusCode::GONE,
        Error::LimitExceeded(_) => StatusCode::SERVICE_UNAVAILABLE,
        Error::Unavailable(_) | Error::Uncertain(_) => StatusCode::SERVICE_UNAVAILABLE,
        Error::Stale | Error::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let json = [(header::CONTENT_TYPE, "application/json")];
    let mut response = (status, json, Refusal::from(error).body()).into_response();
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// The answer to a request that is not one: wrong as HTTP, before there is any GraphQL to it.
pub(super) fn refusal(status: StatusCode, message: &str) -> Response {
    let body = json!({ "errors": [{ "message": message, "extensions": { "code": "BAD_REQUEST" } }] });
    let mut response = (status, Json(body)).into_response();
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, POST"));
    }
    response
}

/// The answer to a request with a method that its path does not have. Which it has, the router adds.
pub(super) async fn no_such_method() -> Response {
    let mut response = refusal(StatusCode::METHOD_NOT_ALLOWED, "This path does not have this method.");
    response.headers_mut().remove(header::ALLOW);
    response
}

/// The answer to a request for a path that is not there.
pub(super) async fn no_such_page(uri: Uri) -> Response {
    failure(Error::not_found("page", uri.path()))
}

/// The answer to a request whose handler panicked.
pub(super) fn after_panic(panic: Box<dyn Any + Send>) -> Response {
    failure(Error::after_panic("a request", &*panic))
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    #[tokio::test]
    async fn after_a_panic_the_client_is_told_an_id_and_nothing_of_the_panic() {
        for panic in [Box::new("a secret") as Box<dyn Any + Send>, Box::new("a secret".to_owned()), Box::new(7)] {
            let response = after_panic(panic);
            assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
            let body = to_bytes(response.into_body(), 10_000).await.unwrap_or_default();
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
            let extensions = &body["errors"][0]["extensions"];
            assert_eq!(extensions["code"], "INTERNAL");
            assert!(extensions["requestId"].as_str().is_some_and(|it| it.len() == 36), "{body}");
            assert!(!body.to_string().contains("secret") && !body.to_string().contains("panic"), "{body}");
        }
    }
}
