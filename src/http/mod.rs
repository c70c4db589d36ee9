//! The transports: everything that a client can connect to.
//!
//! GraphQL over HTTP and WebSocket is our own thin layer over axum, not async-graphql-axum's: that one executes mutations over GET
//! and takes any content type, so a page on another site could start a job; and its WebSocket closes with codes other than the
//! protocol's, answers refused operations with `next`, and cannot end with 1012 at a shutdown.

mod access;
mod graphiql;
mod graphql;
mod health;
mod logs;
mod reply;
mod websocket;

use std::time::Duration;

use axum::Router;
use axum::middleware;
use axum::routing::{any, get};
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::graphql::Api;
use crate::store::Store;

pub use access::{Access, Token};

/// How long connections that are told to close may take.
const CLOSING: Duration = Duration::from_secs(5);

/// What the handlers share.
#[derive(Debug, Clone)]
pub struct Http {
    api: Api,
    store: Store,
    access: Access,
    lifecycle: Lifecycle,
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
    pub fn new(api: Api, store: Store, access: Access, lifecycle: Lifecycle) -> Self {
        Self { api, store, access, lifecycle }
    }

    /// Serves until `closing`, then closes what is open. Clients that do not read do not hold it up.
    pub async fn serve(self, listener: TcpListener) -> std::io::Result<()> {
        let Lifecycle { closing, sockets, .. } = self.lifecycle.clone();
        // Every message is whole when it is sent; to hold it back for more costs 40 ms.
        let listener = listener.tap_io(|connection| drop(connection.set_nodelay(true)));
        let server = axum::serve(listener, self.router()).with_graceful_shutdown(closing.clone().cancelled_owned());
        let closed = async {
            let served = server.await;
            sockets.close();
            sockets.wait().await;
            served
        };
        let patience = async {
            closing.cancelled().await;
            tokio::time::sleep(CLOSING).await;
        };
        tokio::select! {
            served = closed => served,
            () = patience => Ok(()),
        }
    }

    fn router(self) -> Router {
        // A WebSocket may show the token in its `connection_init`, so `/graphql` looks at it itself.
        let with_token = Router::new()
            .route("/jobs/{id}/logs", get(logs::handle))
            .layer(middleware::from_fn_with_state(self.clone(), access::require_token));
        Router::new()
            .route("/", get(graphiql::page))
            .route("/assets/{name}", get(graphiql::asset))
            .route("/healthz", get(health::alive))
            .route("/readyz", get(health::ready))
            .route("/graphql", any(graphql::handle))
            .merge(with_token)
            .fallback(reply::no_such_page)
            .layer(middleware::from_fn_with_state(self.clone(), access::require_known_origin))
            .with_state(self)
    }
}
