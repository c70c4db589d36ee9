//! WebSockets that are silent, slow, greedy or cut off: what the server bounds, and that the others do not feel it.

use std::collections::HashSet;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::support::{TestServer, eventually, text, wait_for, within};

const CHANGES: &str = "subscription { jobStatusChanged { status } }";

/// Waits until so many WebSockets, subscriptions and shared executions are open.
async fn open(server: &TestServer, sockets: usize, subscriptions: usize, executions: usize) {
    let wanted = [sockets, subscriptions, executions].map(|it| it as f64);
    eventually(&format!("{wanted:?} are open"), async || {
        let metrics = server.metrics().await;
        let names = ["websocket_connections_open", "subscriptions_open", "subscription_executions"];
        (names.map(|name| metrics.value(&format!("jobstream_{name}"), &[])) == wanted).then_some(())
    })
    .await;
}

fn logs(job: &str) -> String {
    format!("subscription {{ jobLogs(jobId: \"{job}\") {{ lines {{ text }} complete }} }}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_initialise_in_time_is_closed_with_4408() {
    let server = TestServer::with(&["--slots=0", "--init-timeout=1"]);
    let (mut silent, mut chatty) = (server.wire().await, server.wire().await);
    let mut ready = server.ready_wire().await;
    chatty.hears_nothing().await;
    assert_eq!((silent.closed().await, chatty.closed().await), (4408, 4408));
    ready.hears_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_answer_pings_is_dropped() {
    let server = TestServer::with(&["--slots=0", "--ping-interval=0.1", "--client-timeout=5"]);
    let mut lively = server.ready_wire().await;
    lively.subscribe("1", CHANGES).await;
    // What answers pings is reading.
    let lively = tokio::spawn(async move { lively.hear().await });
    let mut dead = server.ready_wire().await;
    dead.subscribe("1", CHANGES).await;
    open(&server, 2, 2, 1).await;
    open(&server, 1, 1, 1).await;
    server.begin_workspace("W").await;
    assert_eq!(within(lively).await.expect("a message")["payload"]["data"]["jobStatusChanged"]["status"], "QUEUED");
    // It is told why, should it look.
    let mut told = Vec::new();
    within(dead.socket.into_inner().read_to_end(&mut told)).await.expect("the rest");
    let close = [&4499_u16.to_be_bytes(), b"No sign of life".as_slice()].concat();
    assert!(told.ends_with(&close), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_dropped_and_holds_nobody_back() {
    let server = TestServer::with(&["--client-timeout=2"]);
    let go = server.scratch().join("go");
    let job = server.run_script(&format!("{}; yes $(printf 'x%.0s' {{1..1000}}) | head -n 20000", wait_for(&go))).await;
    let (mut stuck, mut reading) = (server.narrow_wire().await, server.ready_wire().await);
    for wire in [&mut stuck, &mut reading] {
        wire.subscribe("1", &logs(&job)).await;
    }
    open(&server, 2, 2, 1).await;
    std::fs::write(&go, "").expect("a file");
    let (mut lines, mut last) = (0, false);
    loop {
        let message = reading.hear().await;
        if message["type"] == "complete" {
            break;
        }
        let logs = &message["payload"]["data"]["jobLogs"];
        lines += logs["lines"].as_array().expect("lines").len();
        last = logs["complete"] == true;
    }
    assert_eq!((lines, last), (20_000, true));
    open(&server, 1, 0, 0).await;
    reading.hears_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_too_large_closes_with_1009() {
    let server = TestServer::with(&["--slots=0", "--max-request-bytes=10000"]);
    let ping = |length: usize| {
        let empty = json!({ "type": "ping", "payload": { "x": "" } }).to_string().len();
        json!({ "type": "ping", "payload": { "x": "x".repeat(length - empty) } }).to_string()
    };
    let mut bystander = server.ready_wire().await;
    let mut wire = server.ready_wire().await;
    wire.send(Message::text(ping(10_000))).await;
    assert_eq!(wire.hear().await["type"], "pong");
    wire.send(Message::text(ping(10_001))).await;
    assert_eq!(wire.closed().await, 1009);

    let mut wire = server.ready_wire().await;
    for (opcode, last) in [(Data::Text, false), (Data::Continue, true)] {
        wire.send(Message::Frame(Frame::message(vec![b' '; 6_000], OpCode::Data(opcode), last))).await;
    }
    assert_eq!(wire.closed().await, 1009, "also if it comes in pieces");
    bystander.hears_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_operation_too_many_is_refused_and_the_others_go_on() {
    let server = TestServer::with(&["--slots=0"]);
    let mut wire = server.ready_wire().await;
    for id in 0..100 {
        wire.subscribe(&id.to_string(), CHANGES).await;
    }
    for query in [CHANGES, "{ __typename }", "{"] {
        wire.subscribe("more", query).await;
        let refused = wire.hear().await;
        assert_eq!((&refused["id"], &refused["type"]), (&json!("more"), &json!("error")));
        assert_eq!(refused["payload"][0]["extensions"]["code"], "LIMIT_EXCEEDED", "{query}");
    }
    open(&server, 1, 100, 1).await;
    server.begin_workspace("W").await;
    let mut told = HashSet::new();
    for _ in 0..300 {
        let message = wire.hear().await;
        assert_eq!(message["type"], "next");
        told.insert(text(&message["id"]).to_owned());
    }
    assert_eq!(told.len(), 100);
    wire.say(json!({ "id": "0", "type": "complete" })).await;
    wire.subscribe("more", "{ __typename }").await;
    assert_eq!(wire.hear().await["type"], "next", "one that is over makes room");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_ends_with_its_socket_though_no_event_comes() {
    let server = TestServer::start();
    let job = server.run_script("echo up; sleep 1000").await;
    server.line_appears(&job, "up").await;
    open(&server, 0, 0, 0).await;
    for way in ["closed", "ended", "cut", "reset"] {
        let mut wire = server.ready_wire().await;
        for (id, query) in [("1", CHANGES), ("2", &logs(&job)), ("3", "subscription { jobStatusChanged { attempt } }")]
        {
            wire.subscribe(id, query).await;
            assert_eq!(wire.hear_of(id).await["type"], "next");
        }
        open(&server, 1, 3, 3).await;
        match way {
            "closed" => {
                wire.socket.close(None).await.expect("the connection");
                open(&server, 0, 0, 0).await; // though the client keeps its end
            }
            "ended" => {
                for id in ["1", "2", "3"] {
                    wire.say(json!({ "id": id, "type": "complete" })).await;
                }
                open(&server, 1, 0, 0).await;
            }
            "reset" => wire.socket.get_ref().set_zero_linger().expect("an option"),
            _ => {}
        }
        drop(wire);
        open(&server, 0, 0, 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_is_answered_while_many_subscriptions_stream_on_its_connection() {
    let server = TestServer::start();
    let job = server.run_script("yes").await;
    let mut wire = server.ready_wire().await;
    for id in 0..50 {
        wire.subscribe(&id.to_string(), &logs(&job)).await;
    }
    for _ in 0..10 {
        let mut streaming = HashSet::new();
        while streaming.len() < 50 {
            let message = wire.hear().await;
            assert_eq!(message["type"], "next");
            streaming.insert(text(&message["id"]).to_owned());
        }
        wire.subscribe("query", "{ __typename }").await;
        assert_eq!(wire.hear_of("query").await["payload"]["data"]["__typename"], "Query");
        assert_eq!(wire.hear_of("query").await["type"], "complete");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let server = TestServer::with(&["--slots=0", "--client-timeout=0.2"]);
    let mut connection = TcpStream::connect(server.address()).await.expect("a connection");
    let head = format!(
        "POST /graphql HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{{",
        server.address()
    );
    connection.write_all(head.as_bytes()).await.expect("a request");
    let mut answer = vec![0; 12];
    within(connection.read_exact(&mut answer)).await.expect("an answer");
    assert_eq!(answer, b"HTTP/1.1 408");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_say_nothing_are_closed_and_keep_nobody_out() {
    let server = TestServer::wrapped(
        |_| ["sh", "-c", "ulimit -n 200; exec \"$@\"", "sh"].map(str::to_owned).to_vec(),
        &["--client-timeout=1"],
    );
    let mut silent = Vec::new();
    for number in 0..400 {
        let mut connection = TcpStream::connect(server.address()).await.expect("a connection");
        if number % 2 == 0 {
            connection.write_all(b"GET /healthz HTTP/1.1\r\nHost:").await.expect("half a request");
        }
        silent.push(connection);
    }
    // Files and processes are left for jobs meanwhile; and then there is room again.
    let job = server.run_script("ulimit -Sn").await;
    server.final_job(&job).await;
    assert_eq!(server.log_text(&job).await, "200\n");
    for mut connection in silent {
        let mut rest = Vec::new();
        let _ = within(connection.read_to_end(&mut rest)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_may_have_as_many_files_open_as_the_server_when_it_was_started() {
    let server = TestServer::wrapped(
        |_| ["sh", "-c", "ulimit -Sn 321; exec \"$@\"", "sh"].map(str::to_owned).to_vec(),
        &["--client-timeout=1"],
    );
    let job = server.run_script("ulimit -Sn").await;
    server.final_job(&job).await;
    assert_eq!(server.log_text(&job).await, "321\n");
}
