//! Answers that say only that something is wrong.

use axum::Json;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use crate::error::Error;
use crate::graphql::error_body;

/// The answer to a request that failed: its status follows from the error.
pub(super) fn failure(error: Error) -> Response {
    let status = match &error {
        Error::NotFound { .. } => StatusCode::NOT_FOUND,
        Error::BadUserInput(_) => StatusCode::BAD_REQUEST,
        Error::Unauthenticated => StatusCode::UNAUTHORIZED,
        Error::Forbidden(_) => StatusCode::FORBIDDEN,
        Error::Conflict(_) | Error::PipelineBusy { .. } | Error::JobNotActive { .. } | Error::NotReady(_) => {
            StatusCode::CONFLICT
        }
        Error::CursorExpired => StatusCode::GONE,
        Error::LimitExceeded(_) => StatusCode::PAYLOAD_TOO_LARGE,
        Error::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        Error::Stale | Error::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let mut response = (status, Json(error_body(error))).into_response();
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
    }
    response
}

/// The answer to a request for a path that is not there.
pub(super) async fn no_such_page(uri: Uri) -> Response {
    failure(Error::not_found("page", uri.path()))
}
