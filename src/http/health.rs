//! Whether the process lives, and whether it can serve.

use axum::extract::State;
use axum::http::StatusCode;
use futures_util::FutureExt;

use super::Http;

/// The process lives.
pub(super) async fn alive() -> &'static str {
    "alive\n"
}

/// It can reach its database, and is not shutting down.
pub(super) async fn ready(State(http): State<Http>) -> (StatusCode, &'static str) {
    if http.lifecycle.draining.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n");
    }
    match http.store.read(|conn| conn.last_change_position().boxed()).await {
        Ok(_) => (StatusCode::OK, "ready\n"),
        Err(error) => {
            tracing::warn!(error = ?error, "not ready: the database cannot be read");
            (StatusCode::SERVICE_UNAVAILABLE, "the database is not available\n")
        }
    }
}
