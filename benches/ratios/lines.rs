//! One job that prints 1,000,000 lines of 80 bytes, until the last is read back, against the same output through `zstd -1` into a file.

use std::process::Command;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::connect_async_with_config;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;

use crate::server::Server;
use crate::{median, report_share};

const LINES: usize = 1_000_000;
const ROUNDS: usize = 5;

/// Prints the lines: 79 characters and an end each.
fn script() -> String {
    format!("yes {} | head -n {LINES}", "x".repeat(79))
}

pub async fn run() {
    let mut server = Server::start(1).await;
    let workspace = server.workspace("Workspace").await;
    let pipeline = server.pipeline(&workspace, "Pipeline", &script()).await;
    let (mut over_http, mut over_graphql, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        theirs.push(with_zstd());
        let started = Instant::now();
        let job = server.run(&pipeline).await;
        server.completed(&job).await;
        read_over_http(&server, &job).await;
        over_http.push(started.elapsed());
        server.request(DELETE, json!({ "input": { "id": job } })).await;

        let started = Instant::now();
        let job = server.run(&pipeline).await;
        follow_over_graphql(&server, &job).await;
        over_graphql.push(started.elapsed());
        server.request(DELETE, json!({ "input": { "id": job } })).await;
    }
    let theirs = median(theirs);
    report_share("1,000,000 lines of 80 bytes, read back over /jobs/{id}/logs", median(over_http), theirs);
    report_share("1,000,000 lines of 80 bytes, followed over GraphQL", median(over_graphql), theirs);
    println!("memory during the million lines: at most {} MiB", server.memory("VmHWM") / 1024);
}

const DELETE: &str = "mutation($input: DeleteJobInput!) { deleteJob(input: $input) { deletedJobId } }";

async fn read_over_http(server: &Server, job: &str) {
    let mut stream = TcpStream::connect(server.address).await.expect("a connection");
    let request = format!("GET /jobs/{job}/logs HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", server.address);
    stream.write_all(request.as_bytes()).await.expect("a request");
    let (mut buffer, mut ends) = (vec![0; 256 * 1024], 0);
    loop {
        match stream.read(&mut buffer).await.expect("an answer") {
            0 => break,
            count => ends += memchr::memchr_iter(b'\n', &buffer[..count]).count(),
        }
    }
    // The headers and the marks of the chunks have ends too.
    assert!(ends >= LINES, "only {ends} lines came");
}

/// Follows the log over a WebSocket of its own, counting lines in the messages: what a client makes of them is its own affair.
async fn follow_over_graphql(server: &Server, job: &str) {
    let mut request = format!("ws://{}/graphql", server.address).into_client_request().expect("a request");
    request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static("graphql-transport-ws"));
    let (mut socket, _) = connect_async_with_config(request, None, true).await.expect("a connection");
    let query = "subscription($job: ID!) { jobLogs(jobId: $job) { lines { text } nextSequence complete } }";
    let payload = json!({ "query": query, "variables": { "job": job } });
    for message in [json!({ "type": "connection_init" }), json!({ "type": "subscribe", "id": "1", "payload": payload })]
    {
        socket.send(Message::text(message.to_string())).await.expect("a connection");
    }
    let text = memchr::memmem::Finder::new("{\"text\":");
    let mut lines = 0;
    while let Some(Ok(Message::Text(message))) = socket.next().await {
        lines += text.find_iter(message.as_bytes()).count();
        if message.contains("\"complete\":true") {
            assert_eq!(lines, LINES);
            return;
        }
    }
    panic!("the connection ended after {lines} lines");
}

fn with_zstd() -> Duration {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let started = Instant::now();
    let command = format!("{} | zstd -q -1 -f -o {}", script(), file.path().display());
    assert!(Command::new("bash").args(["-c", &command]).status().expect("zstd runs").success());
    started.elapsed()
}
