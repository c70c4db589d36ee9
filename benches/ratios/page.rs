//! A page of the 50 newest jobs out of 100,000, with 8 connections, against a bare axum handler that answers the same bytes: one that
//! was asked for before, and one that was not.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::bare::BareServer;
use crate::server::Server;
use crate::{median, report_share};

const JOBS: usize = 100_000;
const CONNECTIONS: usize = 8;
const REQUESTS: usize = 250;
const ROUNDS: usize = 5;
/// How many mutations one request carries.
const AT_ONCE: usize = 250;

const QUERY: &str = "{ jobs(first: 50) { nodes { id type status exitCode created startTime endTime attempt } } }";

pub async fn run() {
    let mut server = Server::with(1, &["--max-aliases", "250"]).await;
    let workspace = server.workspace("Workspace").await;
    let pipeline = server.pipeline(&workspace, "Pipeline", "true").await;
    let server = {
        // Nothing is to run while it is measured: the jobs wait for a pipeline that is PROVISIONING behind a job that sleeps.
        let fields = (0..AT_ONCE)
            .map(|index| format!("j{index}: verifyPipeline(input: {{ id: \"{pipeline}\" }}) {{ job {{ id }} }}"));
        let mutation = format!("mutation {{ {} }}", fields.collect::<Vec<_>>().join(" "));
        let sleeping = server.pipeline(&workspace, "Sleeping", "sleep 600").await;
        server.run(&sleeping).await;
        for _ in 0..JOBS / AT_ONCE {
            server.request(&mutation, json!({})).await;
        }
        server
    };
    let mut stream = TcpStream::connect(server.address).await.expect("a connection");
    let answer = exchange(&mut stream, &request(server.address, QUERY)).await;
    let bare = BareServer::start(&answer).await;
    let (mut repeated, mut fresh, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        theirs.push(load(bare.address, |_| QUERY.to_owned()).await);
        repeated.push(load(server.address, |_| QUERY.to_owned()).await);
        // A name of its own makes each an operation that was not answered before.
        let name = |number: usize| format!("query Page{round}x{number} {QUERY}");
        fresh.push(load(server.address, name).await);
    }
    let theirs = median(theirs);
    report_share("a page of 50 jobs out of 100,000, asked for again, 8 connections", median(repeated), theirs);
    report_share("a page of 50 jobs out of 100,000, asked for the first time, 8 connections", median(fresh), theirs);
}

fn request(address: SocketAddr, query: &str) -> String {
    let body = json!({ "query": query }).to_string();
    format!(
        "POST /graphql HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// How long all connections take for all their requests, which are numbered.
async fn load(address: SocketAddr, query: impl Fn(usize) -> String) -> Duration {
    let requests: Vec<Vec<String>> = (0..CONNECTIONS)
        .map(|connection| {
            (0..REQUESTS).map(|number| request(address, &query(connection * REQUESTS + number))).collect()
        })
        .collect();
    let started = Instant::now();
    let connections = requests.into_iter().map(|requests| {
        tokio::spawn(async move {
            let mut stream = TcpStream::connect(address).await.expect("a connection");
            for request in requests {
                exchange(&mut stream, &request).await;
            }
        })
    });
    for connection in connections.collect::<Vec<_>>() {
        connection.await.expect("a connection");
    }
    started.elapsed()
}

/// Sends a request and reads its answer's body: as little work as can be, for the client shares the machine.
async fn exchange(stream: &mut TcpStream, request: &str) -> Vec<u8> {
    stream.write_all(request.as_bytes()).await.expect("a request");
    let mut answer = Vec::with_capacity(32 * 1024);
    loop {
        assert!(stream.read_buf(&mut answer).await.expect("an answer") > 0, "the connection was closed");
        let Some(head) = memchr::memmem::find(&answer, b"\r\n\r\n") else { continue };
        let headers = std::str::from_utf8(&answer[..head]).expect("headers").to_ascii_lowercase();
        assert!(headers.starts_with("http/1.1 200"), "{headers}");
        let length = headers.lines().find_map(|it| it.strip_prefix("content-length: ")).expect("a length");
        let end = head + 4 + length.parse::<usize>().expect("a length");
        if answer.len() >= end {
            return answer.split_off(head + 4);
        }
    }
}
