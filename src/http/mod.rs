//! The transports: everything that a client can connect to.
//!
//! GraphQL over HTTP and WebSocket is our own thin layer over axum, not async-graphql-axum's: that one executes mutations over GET
//! and takes any content type, so a page on another site could start a job; and its WebSocket closes with codes other than the
//! protocol's, answers refused operations with `next`, and cannot end with 1012 at a shutdown.

mod accept;
mod access;
mod address;
mod bounds;
mod connections;
mod graphiql;
mod graphql;
mod health;
mod listener;
mod logs;
mod metrics;
mod origin;
mod peers;
mod refusals;
mod reply;
mod sse;
mod websocket;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{Extensions, HeaderMap, Method, StatusCode, Version, header};
use axum::middleware;
use axum::response::Response;
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
pub use address::trusted_proxy;
pub use bounds::Bounds;
pub use origin::{AllowedHost, AllowedOrigin};

use access::Authentication;
use address::ClientAddress;
use connections::{Connections, Place};
use logs::Followed;
use peers::{ConnectionPermit, Full, Peers};
use refusals::{Pace, Refusals, Refused};

/// How long connections that are told to close may take.
const CLOSING: Duration = Duration::from_secs(5);
/// How many connections there may be at the address of `--admin-listen`.
const ADMIN_CONNECTIONS: usize = 256;
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
    refusals: Refusals,
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
        let connections = Connections::new(bounds.max_connections, bounds.max_connections_per_address);
        let (access, refusals) = (Arc::new(access), Refusals::default());
        Self { api, store, events, access, bounds, connections, refusals, lifecycle, metrics }
    }

    /// Serves until `closing`, then closes what is open. Clients that do not read do not hold it up. At the address of `admin` there are
    /// health and metrics only, with places that other clients cannot take.
    pub async fn serve(self, listener: TcpListener, admin: Option<TcpListener>) {
        let Lifecycle { closing, sockets, .. } = self.lifecycle.clone();
        let most = listener::most_connections(&self.bounds);
        let admin = async {
            if let Some(admin) = admin {
                self.listen(admin, self.clone().admin_router(), ADMIN_CONNECTIONS).await;
            }
        };
        let closed = async {
            let listening = self.listen(listener, self.clone().router(), most);
            tokio::join!(listening, admin, self.refusals.clone().report(closing.clone()));
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

    async fn listen(&self, listener: TcpListener, router: Router, most: usize) {
        let peers = Peers::new(most, self.bounds.max_connections_per_address, self.access.proxies.clone());
        let refused = |peer: IpAddr, full| match full {
            Full::Address => {
                self.metrics.connection_refused(ConnectionRefusal::Address);
                self.refusals.record(peer.into(), Refused::Connection);
            }
            Full::Everywhere => self.metrics.connection_refused(ConnectionRefusal::Limit),
        };
        listener::serve(listener, router, &self.bounds, peers, refused, self.lifecycle.closing.clone()).await;
    }

    /// Takes a place for a connection of this client that stays.
    fn take_place(&self, client: ClientAddress) -> Result<Place, Error> {
        self.connections.take(client).map_err(|(reason, error)| {
            self.metrics.connection_refused(reason);
            error
        })
    }

    /// The address that limits per client count for a request.
    fn client(&self, extensions: &Extensions, headers: &HeaderMap) -> ClientAddress {
        // Every connection has a permit.
        let peer = extensions.get::<ConnectionPermit>().map_or(Ipv4Addr::UNSPECIFIED.into(), ConnectionPermit::peer);
        self.access.proxies.client(peer, headers).into()
    }

    /// Records that a client could not be authenticated, and waits as long as it has to. Whether it is answered as usual: if not, it has
    /// to come back later.
    async fn refuse(&self, client: ClientAddress, authentication: Authentication) -> bool {
        let refused = match authentication {
            Authentication::Passed(_) => return true,
            Authentication::NoToken => Refused::NoToken,
            Authentication::WrongToken => Refused::WrongToken,
        };
        match self.refusals.record(client, refused) {
            Pace::AtOnce => true,
            Pace::Delayed(delay) => {
                delay.over(&self.lifecycle.closing).await;
                true
            }
            Pace::TooMany => false,
        }
    }

    /// The response to a request that could not be authenticated.
    async fn unauthenticated(&self, client: ClientAddress, authentication: Authentication) -> Response {
        if self.refuse(client, authentication).await {
            reply::failure(Error::Unauthenticated)
        } else {
            reply::too_many_attempts()
        }
    }

    fn router(self) -> Router {
        // A WebSocket may show the token in its `connection_init`, so `/graphql` looks at it itself.
        let with_token = Router::new()
            .route("/jobs/{id}/logs", get(logs::handle))
            .layer(middleware::from_fn_with_state(self.clone(), access::require_token));
        let router = Router::new()
            .route("/", get(graphiql::page))
            .route("/assets/{name}", get(graphiql::asset))
            .route("/graphql", any(graphql::handle))
            .merge(with_token)
            .merge(self.health_and_metrics());
        self.finish(router)
    }

    /// What there is at the address of `--admin-listen`.
    fn admin_router(self) -> Router {
        let router = self.health_and_metrics();
        self.finish(router)
    }

    fn health_and_metrics(&self) -> Router<Self> {
        let with_token = Router::new()
            .route("/metrics", get(metrics::handle))
            .layer(middleware::from_fn_with_state(self.clone(), access::require_token));
        Router::new().route("/healthz", get(health::alive)).route("/readyz", get(health::ready)).merge(with_token)
    }

    /// Adds what all paths have.
    fn finish(self, router: Router<Self>) -> Router {
        router
            .fallback(reply::no_such_page)
            .method_not_allowed_fallback(reply::no_such_method)
            .layer(CatchPanicLayer::custom(reply::after_panic))
            .layer(compression())
            .layer(cors())
            .layer(middleware::from_fn_with_state(self.clone(), access::require_known_origin))
            // Outside of what refuses, so that refusals are counted and have the headers too.
            .layer(middleware::map_response(reply::with_safe_headers))
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

/// Pages of the origins that are known may read answers; requests of others do not come this far. What tells pages apart from others is
/// a header that the page has to set itself, so there are no credentials for a browser to send by itself.
fn cors() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(AllowOrigin::mirror_request())
        .allow_methods([Method::GET, Method::POST])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([header::ETAG])
        .max_age(PREFLIGHT)
}
