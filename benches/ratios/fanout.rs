//! Many subscribers on one job's log: what a delivered message costs the server's processor, against an axum WebSocket in a process of
//! its own that broadcasts frames of the same size which are ready.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_tungstenite::connect_async_with_config;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use crate::bare::BareServer;
use crate::server::Server;
use crate::{median, report_times};

const SUBSCRIBERS: usize = 1_000;
/// After how many of them the memory of the others is measured.
const FIRST: usize = 256;
const EVENTS: usize = 100;
const ROUNDS: usize = 3;
/// Between two events, in seconds.
const PAUSE: &str = "0.05";
const LINE: &str = "2026-11-23 12:00:00 INFO loaded a batch of 1000 records from the source into the target";
const QUERY: &str = "subscription($job: ID!) { jobLogs(jobId: $job) { lines { text } nextSequence complete } }";

pub async fn run() {
    for lines in [1, 10, 100] {
        let (mut ours, mut raw, mut memory) = (Vec::new(), Vec::new(), 0.0);
        for _ in 0..ROUNDS {
            let load = Load { subscribers: SUBSCRIBERS, events: EVENTS, lines, pause: PAUSE };
            let (cost, message, each) = load.on_jobstream().await;
            raw.push(load.on_a_raw_websocket(message).await);
            ours.push(cost);
            memory = each;
        }
        let what = format!("{SUBSCRIBERS} subscribers, {lines} lines an event: processor time of a delivered message");
        report_times(&what, median(ours), median(raw));
        println!("    {memory:.1} KiB a subscriber");
    }
}

/// Ten thousand subscribers on one process, who all see every line once.
pub async fn ten_thousand() {
    let load = Load { subscribers: 10_000, events: 30, lines: 1, pause: "1" };
    let (cost, _, each) = load.on_jobstream().await;
    println!(
        "10,000 subscribers, each of whom saw each of 30 lines once: {cost:.1?} a message, {each:.1} KiB a subscriber"
    );
}

struct Load {
    subscribers: usize,
    events: usize,
    lines: usize,
    pause: &'static str,
}

impl Load {
    /// The processor time of a message, one of the messages, and the memory of a subscriber in KiB.
    async fn on_jobstream(&self) -> (Duration, String, f64) {
        let mut server = Server::start(1).await;
        let go = tempfile::NamedTempFile::new().expect("a file");
        let script = format!(
            "event=$(for i in $(seq {}); do echo '{LINE}'; done)\n\
             until [ -s '{}' ]; do sleep 0.05; done\n\
             for i in $(seq {}); do printf '%s\\n' \"$event\"; sleep {}; done",
            self.lines,
            go.path().display(),
            self.events,
            self.pause
        );
        let workspace = server.workspace("Workspace").await;
        let pipeline = server.pipeline(&workspace, "Pipeline", &script).await;
        let job = server.run(&pipeline).await;
        let mut subscribers = JoinSet::new();
        // What is there once, such as the caches of connections to the database, comes with the first of them.
        self.connect(server.address, Some(&job), FIRST, &mut subscribers).await;
        let before = server.memory("VmRSS");
        self.connect(server.address, Some(&job), self.subscribers - FIRST, &mut subscribers).await;
        let each = (server.memory("VmRSS") - before) as f64 / (self.subscribers - FIRST) as f64;

        let used = server.processor_time();
        std::fs::write(go.path(), "go").expect("a file");
        let seen = subscribers.join_all().await;
        let used = server.processor_time() - used;
        let lines = self.events * self.lines;
        assert!(seen.iter().all(|it| it.lines == lines && it.next == lines as u64), "a subscriber missed something");
        let messages: usize = seen.iter().map(|it| it.messages).sum();
        let message = seen.into_iter().next().expect("a subscriber").first;
        (used / u32::try_from(messages).expect("not that many"), message, each)
    }

    async fn on_a_raw_websocket(&self, message: String) -> Duration {
        let server = BareServer::broadcasting(&message).await;
        let mut subscribers = JoinSet::new();
        self.connect(server.address, None, self.subscribers, &mut subscribers).await;
        let used = server.processor_time();
        let pause: f64 = self.pause.parse().expect("a number");
        for _ in 0..self.events {
            server.broadcast().await;
            tokio::time::sleep(Duration::from_secs_f64(pause)).await;
        }
        let seen = subscribers.join_all().await;
        let used = server.processor_time() - used;
        let messages: usize = seen.iter().map(|it| it.messages).sum();
        assert_eq!(messages, self.events * self.subscribers);
        used / u32::try_from(messages).expect("not that many")
    }

    /// Connects so many subscribers, who follow a job's log; or listen for as many messages as there are events.
    async fn connect(&self, address: SocketAddr, job: Option<&str>, number: usize, subscribers: &mut JoinSet<Seen>) {
        let ready = Arc::new(Semaphore::new(0));
        let mut left = number;
        while left > 0 {
            // The queue of connections that nobody has accepted yet is bounded.
            let some = left.min(128);
            for _ in 0..some {
                subscribers.spawn(subscribe(address, job.map(str::to_owned), self.events, Arc::clone(&ready)));
            }
            ready.acquire_many(some as u32).await.expect("they connect").forget();
            left -= some;
        }
    }
}

/// What a subscriber has seen.
#[derive(Default)]
struct Seen {
    messages: usize,
    lines: usize,
    next: u64,
    first: String,
}

async fn subscribe(address: SocketAddr, job: Option<String>, events: usize, ready: Arc<Semaphore>) -> Seen {
    let mut request = format!("ws://{address}/graphql").into_client_request().expect("a request");
    request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static("graphql-transport-ws"));
    let config = WebSocketConfig::default().read_buffer_size(4096);
    let (mut socket, _) = connect_async_with_config(request, Some(config), true).await.expect("a connection");
    if let Some(job) = &job {
        let payload = json!({ "query": QUERY, "variables": { "job": job } });
        for message in [
            json!({ "type": "connection_init" }),
            json!({ "type": "subscribe", "id": "1", "payload": payload }),
            json!({ "type": "ping" }),
        ] {
            socket.send(Message::text(message.to_string())).await.expect("a connection");
        }
    } else {
        ready.add_permits(1);
    }
    let text = memchr::memmem::Finder::new("{\"text\":");
    let mut seen = Seen::default();
    while job.is_some() || seen.messages < events {
        let message = match socket.next().await.expect("no end").expect("a connection") {
            Message::Text(message) => message,
            _ => continue,
        };
        match message.as_str() {
            r#"{"type":"connection_ack"}"# => continue,
            r#"{"type":"pong"}"# => {
                ready.add_permits(1);
                continue;
            }
            _ => seen.messages += 1,
        }
        seen.lines += text.find_iter(message.as_bytes()).count();
        if seen.first.is_empty() {
            seen.first = message.to_string();
        }
        if job.is_some() && message.contains("\"complete\":true") {
            let message: Value = serde_json::from_str(&message).expect("JSON");
            seen.next = message["payload"]["data"]["jobLogs"]["nextSequence"].as_u64().expect("a number");
            break;
        }
    }
    seen
}
