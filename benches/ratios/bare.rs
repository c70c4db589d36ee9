//! The other side of a comparison: axum handlers in a process of its own that answer, and broadcast over WebSockets, bytes that are
//! ready.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::WebSocketUpgrade;
use axum::extract::ws::{Message, Utf8Bytes, WebSocket};
use axum::http::header;
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio::sync::broadcast;

use crate::server::processor_time;

/// A process that runs the handler.
pub struct BareServer {
    process: Child,
    pub address: SocketAddr,
    _answer: tempfile::NamedTempFile,
}

impl BareServer {
    /// Starts a handler that broadcasts this text.
    pub async fn broadcasting(text: &str) -> Self {
        Self::start(text.as_bytes()).await
    }

    /// Sends the text to whoever listens.
    pub async fn broadcast(&self) {
        let sent = reqwest::Client::new().post(format!("http://{}/broadcast", self.address)).send().await;
        assert!(sent.expect("an answer").status().is_success());
    }

    /// How much of the processor it has used so far.
    pub fn processor_time(&self) -> Duration {
        processor_time(self.process.id())
    }

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
    let broadcast_frame = answer.clone();
    let handler = post(move |body: Bytes| async move {
        drop(body);
        ([(header::CONTENT_TYPE, "application/json; charset=utf-8")], answer.clone())
    });
    let frame = Utf8Bytes::try_from(broadcast_frame).expect("a text");
    let (frames, _) = broadcast::channel(16);
    let listeners = frames.clone();
    let socket = get(async move |upgrade: WebSocketUpgrade| {
        let frames = listeners.subscribe();
        // As the server's own: with the default, tungstenite spends most of the time on its read buffer.
        upgrade.protocols(["graphql-transport-ws"]).read_buffer_size(4096).on_upgrade(|socket| listen(socket, frames))
    });
    let broadcast = post(async move || drop(frames.send(frame.clone())));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    println!("{}", listener.local_addr().expect("an address"));
    let router = Router::new().route("/graphql", handler.merge(socket)).route("/broadcast", broadcast);
    axum::serve(listener, router).await.expect("it serves");
}

async fn listen(mut socket: WebSocket, mut frames: broadcast::Receiver<Utf8Bytes>) {
    loop {
        tokio::select! {
            frame = frames.recv() => match frame {
                Ok(frame) => match socket.send(Message::Text(frame)).await {
                    Ok(()) => {}
                    Err(_) => return,
                },
                Err(_) => return,
            },
            message = socket.recv() => match message {
                Some(Ok(_)) => {}
                _ => return,
            },
        }
    }
}
