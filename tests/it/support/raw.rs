//! Requests as bytes: for what no HTTP client would send.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::{TestServer, within};

/// A response as it came.
#[derive(Debug)]
pub struct RawResponse {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl TestServer {
    /// A connection from a loopback address of this number: the server sees several clients.
    pub async fn connection_from(&self, last: u8) -> TcpStream {
        let socket = TcpSocket::new_v4().expect("a socket");
        let from = SocketAddr::from((IpAddr::from(Ipv4Addr::new(127, 0, 0, last)), 0));
        socket.bind(from).expect("a loopback address");
        within(socket.connect(self.address())).await.expect("a connection")
    }

    /// The response to a request, which is a head without its end, and a body.
    pub async fn raw(&self, head: &str, body: &str) -> RawResponse {
        let connection = within(TcpStream::connect(self.address())).await.expect("a connection");
        ask(connection, head, body).await
    }
}

/// Sends a request over a connection, and reads all that comes back until the server ends it.
pub async fn ask(mut connection: TcpStream, head: &str, body: &str) -> RawResponse {
    let request = format!("{head}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    // A server that refuses a request by its head need not read the rest.
    let _ = within(connection.write_all(request.as_bytes())).await;
    let mut bytes = Vec::new();
    let _ = within(connection.read_to_end(&mut bytes)).await;
    let response = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or((&response, ""));
    let status = head.split(' ').nth(1).and_then(|it| it.parse().ok()).unwrap_or(0);
    RawResponse { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}
