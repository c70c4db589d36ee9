//! Accepting connections.
//!
//! `axum::serve` waits for ever for the head of a request, and accepts as many connections as come. Then anybody, without a token, could
//! take every descriptor that there is, the runner's and the database's too. Here a connection that does not say what it wants is closed, and
//! there are only so many: `peers` says who may have them.

use std::io::{self, Write};
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use futures_util::FutureExt;
use hyper::Request;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::net::sockopt::{set_socket_keepalive, set_tcp_keepidle, set_tcp_keepintvl, set_tcp_user_timeout};
use rustix::process::{Resource, getrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Bounds;
use super::peers::{ConnectionUse, Full, Peers};

/// How many connections there may be beside those that stay.
const REQUESTS: usize = 1_024;
/// How many bytes the head of a request may have. They are kept before anything is known of the client.
const HEAD: usize = 64 * 1024;
/// How long to wait when no connection can be accepted.
const RECOVERY: Duration = Duration::from_secs(1);
/// How long a connection that has to give up its place may take to send the rest of its last response.
const EVICTION: Duration = Duration::from_secs(1);
/// The response to a connection for which there is no place.
const NO_PLACE: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nCache-Control: no-store\r\n\
    Connection: close\r\n\r\n";

/// Serves until `closing`, then until the requests that have come are answered.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    bounds: &Bounds,
    peers: Peers,
    refused: impl Fn(IpAddr, Full),
    closing: CancellationToken,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(bounds.client_timeout).max_buf_size(HEAD);
    let connections = TaskTracker::new();
    while let Some((stream, peer)) = closing.run_until_cancelled(next(&listener)).await {
        set_up(&stream, bounds);
        let permit = match peers.admit(peer) {
            Ok(permit) => permit,
            Err(full) => {
                refused(peer, full);
                refuse(stream);
                continue;
            }
        };
        let router = TowerToHyperService::new(router.clone());
        let of_requests = permit.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            let in_use = of_requests.begin_use();
            request.extensions_mut().insert(of_requests.clone());
            router.call(request).map(|response| response.map(|it| it.map(|body| InUse { body, _until_sent: in_use })))
        });
        let connection = http.serve_connection(TokioIo::new(stream), service).with_upgrades();
        let closing = closing.clone();
        connections.spawn(async move {
            let mut connection = pin!(connection);
            // How it ends is the client's affair.
            tokio::select! {
                _ = connection.as_mut() => {}
                () = permit.evicted() => {
                    if permit.has_served() {
                        connection.as_mut().graceful_shutdown();
                        let _ = timeout(EVICTION, connection).await;
                    }
                }
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

/// A body that keeps its connection in use until it is sent.
struct InUse {
    body: Body,
    _until_sent: ConnectionUse,
}

impl hyper::body::Body for InUse {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// As many as may stay, and some more; but a quarter of the descriptors is for jobs and the database.
pub(super) fn most_connections(bounds: &Bounds) -> usize {
    let descriptors = getrlimit(Resource::Nofile).current.and_then(|it| usize::try_from(it).ok()).unwrap_or(usize::MAX);
    (bounds.max_connections.saturating_add(REQUESTS)).min(descriptors / 4 * 3)
}

/// The next connection, and the address at its other end.
async fn next(listener: &TcpListener) -> (TcpStream, IpAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer.ip()),
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                tracing::error!(%error, "no connection can be accepted; trying again");
                sleep(RECOVERY).await;
            }
        }
    }
}

/// Tells a client that there is no place, as far as that can be said without waiting for it.
fn refuse(stream: TcpStream) {
    if let Ok(mut stream) = stream.into_std() {
        let _ = stream.write(NO_PLACE);
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
