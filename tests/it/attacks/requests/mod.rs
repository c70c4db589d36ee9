//! Odd and fuzzed HTTP requests: none makes the server panic, answer with a 5xx status, or stop
//! answering.

mod fuzz;
mod odd;

use std::fmt::Write;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{TestServer, within};

/// How many requests are sent in all.
const REQUESTS: usize = 3_190;
/// How many of them at a time.
const AT_A_TIME: usize = 16;
/// How long the server may take for a request that may not be whole. It costs no answer that is
/// checked otherwise.
const CUT_OFF: Duration = Duration::from_millis(200);

/// A request as it is sent.
struct Attack {
    bytes: Vec<u8>,
    /// Whether the server has all that it needs to answer.
    is_whole: bool,
}

impl Attack {
    fn whole(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), is_whole: true }
    }

    fn broken(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), is_whole: false }
    }
}

/// A request with this first line, these headers and this body, after which the connection ends.
fn request(line: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut request = format!("{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}");
    if !body.is_empty() {
        write!(request, "Content-Length: {}\r\n", body.len()).expect("a header");
    }
    request.push_str("\r\n");
    [request.as_bytes(), body].concat()
}

fn post(body: impl AsRef<[u8]>) -> Vec<u8> {
    request("POST /graphql", "Content-Type: application/json\r\n", body.as_ref())
}

/// Requests that are right, to begin from.
fn right() -> Vec<Vec<u8>> {
    let job = "3f2b8c1e-6f0a-4c5e-9d3b-2a7f1e4c5d6b";
    let query = json!({ "query": "query Q($id: ID!) { job(id: $id) { id logs { complete } } }", "variables": { "id": job }, "operationName": "Q" });
    let json = "Content-Type: application/json\r\n";
    vec![
        post(query.to_string()),
        post(json!({ "query": "mutation($i: CreateWorkspaceInput!) { createWorkspace(input: $i) { __typename } }", "variables": { "i": { "name": "W" } } }).to_string()),
        post(json!({ "extensions": { "persistedQuery": { "version": 1, "sha256Hash": "ab".repeat(32) } } }).to_string()),
        request("POST /graphql", &format!("{json}Accept: text/event-stream\r\n"), query.to_string().as_bytes()),
        request("GET /graphql?query=%7B__typename%7D&variables=%7B%7D&operationName=", "Accept: application/json\r\n", b""),
        request(&format!("GET /jobs/{job}/logs?sequence=0&follow=true"), "Accept: application/x-ndjson\r\n", b""),
        request("GET /graphql", "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: graphql-transport-ws\r\n", b""),
        request("OPTIONS /graphql", "Origin: http://localhost:3000\r\nAccess-Control-Request-Method: POST\r\n", b""),
        request("GET /metrics", "Accept-Encoding: gzip, zstd;q=0.5\r\n", b""),
        request("GET /", "If-None-Match: \"x\"\r\n", b""),
    ]
}

/// Sends a request, and answers the beginning of the response: empty if the server closes the
/// connection without one.
async fn send(server: &TestServer, attack: &Attack) -> Vec<u8> {
    let mut stream = within(TcpStream::connect(server.address())).await.expect("a connection");
    // The server may close the connection before it has read everything.
    let _ = within(stream.write_all(&attack.bytes)).await;
    let mut response = vec![0; 64 * 1024];
    let read = stream.read(&mut response);
    let read =
        if attack.is_whole { within(read).await } else { tokio::time::timeout(CUT_OFF, read).await.unwrap_or(Ok(0)) };
    response.truncate(read.unwrap_or(0));
    response
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_and_fuzzed_requests_never_make_the_server_fail() {
    let server = TestServer::with(&["--slots=0"]);
    let mut attacks = odd::requests();
    attacks.extend((attacks.len()..REQUESTS).map(fuzz::request));
    assert_eq!(attacks.len(), REQUESTS);
    let responses = stream::iter(attacks.iter().enumerate())
        .map(|(number, attack)| {
            let server = &server;
            async move { (number, attack, send(server, attack).await) }
        })
        .buffer_unordered(AT_A_TIME);
    let mut answered = 0;
    let mut responses = std::pin::pin!(responses);
    while let Some((number, attack, response)) = responses.next().await {
        let shown = || {
            format!(
                "request {number}: {:.300}\n{:.300}",
                attack.bytes.escape_ascii().to_string(),
                response.escape_ascii().to_string()
            )
        };
        if attack.is_whole {
            assert!(response.starts_with(b"HTTP/1.1 "), "{}", shown());
        }
        if let Some(status) = response.strip_prefix(b"HTTP/1.1 ") {
            assert!(matches!(status.first(), Some(b'1'..=b'4')), "{}", shown());
            answered += 1;
        }
    }
    assert!(answered > REQUESTS / 2, "only {answered} were answered");
    assert_eq!(within(server.http().get(server.url("/healthz")).send()).await.expect("an answer").status(), 200);
    assert_eq!(server.data("{ __typename }", json!({})).await, json!({ "__typename": "Query" }));
    // Also of what was answered after the connection was cut off.
    let metrics = server.metrics().await;
    let failed: Vec<_> = metrics
        .samples("jobstream_http_requests_total", &[])
        .filter(|it| it.labels["status"].starts_with('5'))
        .collect();
    assert!(failed.is_empty(), "{failed:?}");
    let log = server.log();
    assert!(!log.contains("panicked") && !log.contains(" ERROR "), "{log}");
}
