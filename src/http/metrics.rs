//! `/metrics` for Prometheus, and the counting of requests.

use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use tokio::time::timeout;

use super::Http;
use super::reply::failure;
use crate::error::Error;
use crate::metrics::{self, Method, Present, Queue};
use crate::store::Conn;

/// How long what has to be read may take. What takes longer is left out, and the rest is answered.
const PATIENCE: Duration = Duration::from_secs(2);

/// Answers what was counted, and what is so at the moment.
pub(super) async fn handle(State(http): State<Http>) -> Response {
    let (queue, database) = tokio::join!(
        in_time("the queue", http.store.read(|conn| queue(conn).boxed())),
        in_time("the database's size", http.store.usage()),
    );
    match http.metrics.expose(&Present { queue, database }) {
        Ok(exposition) => ([(header::CONTENT_TYPE, metrics::MEDIA_TYPE)], exposition).into_response(),
        Err(error) => failure(Error::internal(error)),
    }
}

/// Counts a request, and how long it took until the head of its answer was there.
pub(super) async fn count(State(http): State<Http>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = Method::named(request.method().as_str());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    let route = route.as_ref().map(MatchedPath::as_str);
    http.metrics.request_answered(route, method, response.status().as_u16(), started.elapsed());
    response
}

async fn queue(conn: &mut Conn) -> Result<Queue, Error> {
    let active = conn.count_active_jobs().await?;
    let now = conn.now().await?;
    let oldest_ready = conn.oldest_ready(now).await?.map(|ready| now.since(ready));
    Ok(Queue { active, oldest_ready })
}

async fn in_time<T>(what: &str, read: impl Future<Output = Result<T, Error>>) -> Option<T> {
    match timeout(PATIENCE, read).await {
        Ok(Ok(found)) => return Some(found),
        Ok(Err(error)) => tracing::warn!(error = ?error, "{what} is left out of the metrics: it cannot be read"),
        Err(_) => tracing::warn!("{what} is left out of the metrics: reading it takes too long"),
    }
    None
}
