//! Accepting connections.
//!
//! `axum::serve` waits for ever for the head of a request, and accepts as many connections as come. Then anybody, without a token, could
//! take every descriptor that there is, the runner's and the database's too. Here a connection that does not say what it wants is closed, and
//! there are only so many.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::net::sockopt::{set_socket_keepalive, set_tcp_keepidle, set_tcp_keepintvl, set_tcp_user_timeout};
use rustix::process::{Resource, getrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Bounds;

/// How many connections there may be beside those that stay.
const REQUESTS: usize = 1_024;
/// How long to wait when no connection can be accepted.
const RECOVERY: Duration = Duration::from_secs(1);

/// A place among the connections that are accepted. It goes with each request, for what becomes of the connection to keep.
#[derive(Debug, Clone)]
pub(super) struct Accepted(#[allow(dead_code, reason = "it is held, not used")] Arc<OwnedSemaphorePermit>);

/// Serves until `closing`, then until the requests that have come are answered.
pub(super) async fn serve(listener: TcpListener, router: Router, bounds: &Bounds, closing: CancellationToken) {
    let places = Arc::new(Semaphore::new(most_connections(bounds)));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(bounds.client_timeout);
    let connections = TaskTracker::new();
    while let Some((stream, place)) = closing.run_until_cancelled(next(&listener, &places)).await {
        set_up(&stream, bounds);
        let place = Accepted(Arc::new(place));
        let router = TowerToHyperService::new(router.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(place.clone());
            router.call(request)
        });
        let connection = http.serve_connection(TokioIo::new(stream), service).with_upgrades();
        let closing = closing.clone();
        connections.spawn(async move {
            let mut connection = pin!(connection);
            // How it ends is the client's affair.
            tokio::select! {
                _ = connection.as_mut() => {}
                () = closing.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    let _ = connection.await;
                }
            }
        });
    }
    connections.close();
    connections.wait().await;
}

/// As many as may stay, and some more; but a quarter of the descriptors is for jobs and the database.
fn most_connections(bounds: &Bounds) -> usize {
    let descriptors = getrlimit(Resource::Nofile).current.and_then(|it| usize::try_from(it).ok()).unwrap_or(usize::MAX);
    (bounds.max_connections.saturating_add(REQUESTS)).min(descriptors / 4 * 3).min(Semaphore::MAX_PERMITS)
}

/// The next connection, as soon as there is a place for it.
async fn next(listener: &TcpListener, places: &Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
    loop {
        // Nobody closes the semaphore.
        let Ok(place) = Arc::clone(places).acquire_owned().await else { return std::future::pending().await };
        match listener.accept().await {
            Ok((stream, _)) => return (stream, place),
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                tracing::error!(%error, "no connection can be accepted; trying again");
                sleep(RECOVERY).await;
            }
        }
    }
}

/// Whether a connection was over before it was accepted.
fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    [ConnectionAborted, ConnectionRefused, ConnectionReset].contains(&error.kind())
}

fn set_up(connection: &TcpStream, bounds: &Bounds) {
    // Every message is whole when it is sent; to hold it back for more costs 40 ms.
    let _ = connection.set_nodelay(true);
    // A client that does not read, or is gone without a word, is dropped: also one that there is nothing to tell.
    let patience = u32::try_from(bounds.client_timeout.as_millis()).unwrap_or(u32::MAX);
    let interval = bounds.ping_interval.max(Duration::from_secs(1));
    let _ = set_tcp_user_timeout(connection, patience);
    let _ = set_socket_keepalive(connection, true);
    let _ = set_tcp_keepidle(connection, interval);
    let _ = set_tcp_keepintvl(connection, interval);
}
