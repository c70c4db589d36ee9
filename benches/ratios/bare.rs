//! The other side of a comparison: an axum handler in a process of its own that answers bytes that are ready.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use axum::Router;
use axum::body::Bytes;
use axum::http::header;
use axum::routing::post;
use tokio::net::TcpListener;

/// A process that runs the handler.
pub struct BareServer {
    process: Child,
    pub address: SocketAddr,
    _answer: tempfile::NamedTempFile,
}

impl BareServer {
    /// Starts a handler that answers these bytes.
    pub async fn start(answer: &[u8]) -> Self {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(answer).expect("a file");
        let program = std::env::current_exe().expect("this program");
        let mut process = Command::new(program)
            .arg("bare-server")
            .arg(file.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the bare server starts");
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("its output")).read_line(&mut line).expect("its address");
        Self { process, address: line.trim().parse().expect("an address"), _answer: file }
    }
}

impl Drop for BareServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What that process does.
pub async fn serve(answer: String) {
    let answer = Bytes::from(std::fs::read(answer).expect("the answer"));
    let handler = post(move |body: Bytes| async move {
        drop(body);
        ([(header::CONTENT_TYPE, "application/json; charset=utf-8")], answer.clone())
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    println!("{}", listener.local_addr().expect("an address"));
    axum::serve(listener, Router::new().route("/graphql", handler)).await.expect("it serves");
}
