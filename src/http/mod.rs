//! The transports: everything that a client can connect to.
//!
//! GraphQL over HTTP and WebSocket is our own thin layer over axum, not async-graphql-axum's: that one executes mutations over GET
//! and takes any content type, so a page on another site could start a job; and its WebSocket closes with codes other than the
//! protocol's, answers refused operations with `next`, and cannot end with 1012 at a shutdown.

mod accept;
mod access;
mod bounds;
mod connections;
mod graphiql;
mod graphql;
mod health;
mod listener;
mod logs;
mod metrics;
mod reply;
mod sse;
mod websocket;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use axum::middleware;
use axum::routing::{any, get};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::predicate::{NotForContentType, Predicate, SizeAbove};
use tower_http::compression::{CompressionLayer, CompressionLevel};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use crate::error::Error;
use crate::events::Events;
use crate::graphql::Api;
use crate::metrics::{ConnectionRefusal, Metrics};
use crate::store::Store;

pub use access::{Access, Token};
pub use bounds::Bounds;

use connections::{Connections, Place};
use logs::Followed;

/// How long connections that are told to close may take.
const CLOSING: Duration = Duration::from_secs(5);
/// Smaller answers go out as they are.
const COMPRESS_FROM: u16 = 2048;
/// How long a browser may remember that a page may talk to the server.
const PREFLIGHT: Duration = Duration::from_secs(600);

/// What the handlers share.
#[derive(Debug, Clone)]
pub struct Http {
    api: Api,
    store: Store,
    events: Events,
    access: Arc<Access>,
    bounds: Bounds,
    connections: Connections,
    lifecycle: Lifecycle,
    metrics: Metrics,
}

/// How far the server is. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Lifecycle {
    /// It has begun to shut down: `/readyz` says so.
    pub draining: CancellationToken,
    /// Connections are to be closed.
    pub closing: CancellationToken,
    sockets: TaskTracker,
}

impl Http {
    /// The endpoints of this API.
    pub fn new(
        api: Api,
        store: Store,
        events: Events,
        access: Access,
        bounds: Bounds,
        lifecycle: Lifecycle,
        metrics: Metrics,
    ) -> Self {
        let connections = Connections::new(bounds.max_connections);
        Self { api, store, events, access: Arc::new(access), bounds, connections, lifecycle, metrics }
    }

    /// Serves until `closing`, then closes what is open. Clients that do not read do not hold it up.
    pub async fn serve(self, listener: TcpListener) {
        let Lifecycle { closing, sockets, .. } = self.lifecycle.clone();
        let bounds = self.bounds.clone();
        let closed = async {
            listener::serve(listener, self.router(), &bounds, closing.clone()).await;
            sockets.close();
            sockets.wait().await;
        };
        let patience = async {
            closing.cancelled().await;
            tokio::time::sleep(CLOSING).await;
        };
        tokio::select! {
            () = closed => {}
            () = patience => {}
        }
    }

    /// Takes a place for a connection that stays.
    fn take_place(&self) -> Result<Place, Error> {
        self.connections.take().inspect_err(|_| self.metrics.connection_refused(ConnectionRefusal::Limit))
    }

    fn router(self) -> Router {
        // A WebSocket may show the token in its `connection_init`, so `/graphql` looks at it itself.
        let with_token = Router::new()
            .route("/jobs/{id}/logs", get(logs::handle))
            .route("/metrics", get(metrics::handle))
            .layer(middleware::from_fn_with_state(self.clone(), access::require_token));
        Router::new()
            .route("/", get(graphiql::page))
            .route("/assets/{name}", get(graphiql::asset))
            .route("/healthz", get(health::alive))
            .route("/readyz", get(health::ready))
            .route("/graphql", any(graphql::handle))
            .merge(with_token)
            .fallback(reply::no_such_page)
            .method_not_allowed_fallback(reply::no_such_method)
            .layer(CatchPanicLayer::custom(reply::after_panic))
            .layer(compression())
            .layer(cors(Arc::clone(&self.access)))
            .layer(middleware::from_fn_with_state(self.clone(), access::require_known_origin))
            // The outermost, so that what is refused is counted too.
            .layer(middleware::from_fn_with_state(self.clone(), metrics::count))
            .with_state(self)
    }
}

/// Large answers are compressed, unless they are streams whose parts must not wait for one another.
fn compression() -> CompressionLayer<impl Predicate> {
    let large = SizeAbove::new(COMPRESS_FROM).and(NotForContentType::SSE);
    let stands_alone =
        |_: StatusCode, _: Version, _: &HeaderMap, extensions: &Extensions| extensions.get::<Followed>().is_none();
    CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(large.and(stands_alone))
}

/// Pages of the origins that are known may read answers. What tells them apart from others is a header that the page has to set itself, so
/// there are no credentials for a browser to send by itself.
fn cors(access: Arc<Access>) -> CorsLayer {
    let known = move |origin: &HeaderValue, request: &Parts| {
        let host = access::text(&request.headers, header::HOST).unwrap_or_default();
        origin.to_str().is_ok_and(|origin| access.knows_origin(origin, host))
    };
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(known))
        .allow_methods([Method::GET, Method::POST])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([header::ETAG])
        .max_age(PREFLIGHT)
}
