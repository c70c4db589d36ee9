//! GraphQL over server-sent events, and logs that are followed over plain HTTP.

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;

use crate::support::{PROTOCOL, TestServer, conformance, eventually, text, wait_for, within};

/// A stream of events as they are on the wire.
struct Events {
    request: Value,
    response: reqwest::Response,
    read: String,
}

impl Events {
    async fn post(server: &TestServer, query: &str, variables: Value) -> Self {
        let body = json!({ "query": query, "variables": variables });
        let request = server.http().post(server.url("/graphql")).header("accept", "text/event-stream").json(&body);
        Self::of(body, within(request.send()).await.expect("an answer"))
    }

    /// The events that answer a request, which is given as JSON.
    fn of(request: Value, response: reqwest::Response) -> Self {
        assert_eq!(response.status(), 200);
        assert_eq!(header(&response, "content-type"), "text/event-stream");
        assert_eq!(header(&response, "cache-control"), "no-store");
        Self { request, response, read: String::new() }
    }

    /// The next block of lines: an event, or a comment. Nothing at the end of the body.
    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.read.find("\n\n") {
                let rest = self.read.split_off(end + 2);
                return Some(std::mem::replace(&mut self.read, rest));
            }
            let bytes = within(self.response.chunk()).await.ok()??;
            self.read.push_str(std::str::from_utf8(&bytes).expect("UTF-8"));
        }
    }

    /// The next event's name, and its data.
    async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            let block = self.block().await?;
            if block.starts_with(':') {
                continue;
            }
            let mut lines = block.lines();
            let name = lines.next().and_then(|it| it.strip_prefix("event: ")).expect("a name").to_owned();
            let data = lines.next().and_then(|it| it.strip_prefix("data:")).expect("data").trim();
            let data = if data.is_empty() { Value::Null } else { serde_json::from_str(data).expect("JSON") };
            if name == "next" {
                conformance::check(&self.request, &data);
            }
            return Some((name, data));
        }
    }
}

const LOGS: &str = "subscription($id: ID!, $from: Int! = 0) { jobLogs(jobId: $id, sequence: $from) { \
                    lines { text } nextSequence complete } }";

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_is_a_stream_of_events_that_ends_with_complete() {
    let server = TestServer::start();
    let go = server.scratch().join("go");
    let job = server.run_script(&format!("echo one; {}; echo two", wait_for(&go))).await;
    let mut events = Events::post(&server, LOGS, json!({ "id": job })).await;
    let mut lines = Vec::new();
    let mut complete = false;
    while let Some((name, data)) = events.next().await {
        if name == "complete" {
            assert_eq!(data, Value::Null);
            assert!(complete, "the last event has it");
            break;
        }
        assert_eq!(name, "next");
        let logs = &data["data"]["jobLogs"];
        lines.extend(logs["lines"].as_array().expect("lines").iter().map(|it| text(&it["text"]).to_owned()));
        complete = logs["complete"] == true;
        std::fs::write(&go, "").expect("a file");
    }
    assert_eq!(lines, ["one", "two"]);
    assert_eq!(events.block().await, None, "nothing comes after it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_get_begins_a_subscription_too() {
    let server = TestServer::start();
    let job = server.run_script("echo one").await;
    server.final_job(&job).await;
    let query = format!("{LOGS} query Other {{ __typename }} subscription Last {{ jobStatusChanged {{ status }} }}");
    let query = query.replacen("subscription(", "subscription Logs(", 1);
    let mut url = reqwest::Url::parse(&server.url("/graphql")).expect("a URL");
    url.query_pairs_mut()
        .append_pair("query", &query)
        .append_pair("operationName", "Logs")
        .append_pair("variables", &json!({ "id": job }).to_string());
    let request = json!({ "query": query, "operationName": "Logs", "variables": { "id": job } });
    let get = server.http().get(url).header("accept", "text/event-stream");
    let mut events = Events::of(request, get.send().await.expect("an answer"));
    let (name, data) = events.next().await.expect("an event");
    assert_eq!((name.as_str(), &data["data"]["jobLogs"]["lines"][0]["text"]), ("next", &json!("one")));
    assert_eq!(events.next().await.expect("an event").0, "complete");
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_and_mutations_are_streams_of_one_result() {
    let server = TestServer::with(&["--slots=0"]);
    for query in ["{ __typename }", "mutation { createWorkspace(input: { name: \"W\" }) { __typename } }"] {
        let mut events = Events::post(&server, query, json!({})).await;
        let (name, data) = events.next().await.expect("an event");
        assert!(name == "next" && data["data"].is_object() && data.get("errors").is_none(), "{data}");
        assert_eq!(events.next().await.expect("an event").0, "complete");
        assert_eq!(events.block().await, None);
    }
    let over_get =
        server.http().get(server.url("/graphql?query=mutation{createWorkspace(input:{name:\"X\"}){__typename}}"));
    let refused = over_get.header("accept", "text/event-stream").send().await.expect("an answer");
    assert_eq!(refused.status(), 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_is_told_as_an_event() {
    let server = TestServer::with(&["--slots=0"]);
    let unknown = "3f2b8c1e-6f0a-4c5e-9d3b-2a7f1e4c5d6b";
    for (query, code) in [
        ("{", "GRAPHQL_PARSE_FAILED"),
        ("subscription { nothing }", "GRAPHQL_VALIDATION_FAILED"),
        (&format!("subscription {{ jobLogs(jobId: \"{unknown}\") {{ complete }} }}"), "NOT_FOUND"),
    ] {
        let mut events = Events::post(&server, query, json!({})).await;
        let (name, data) = events.next().await.expect("an event");
        assert_eq!((name.as_str(), &data["errors"][0]["extensions"]["code"]), ("next", &json!(code)), "{query}");
        assert!(data.get("data").is_none());
        assert_eq!(events.next().await.expect("an event").0, "complete");
    }
    let plain = server.post("subscription { jobStatusChanged { status } }", json!({})).await;
    assert!(text(&plain["errors"][0]["message"]).contains("text/event-stream"), "{plain}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_stream_shows_signs_of_life_and_ends_when_its_client_does() {
    let server = TestServer::with(&["--slots=0", "--ping-interval=0.05"]);
    let mut events = Events::post(&server, "subscription { jobStatusChanged { status } }", json!({})).await;
    for _ in 0..3 {
        assert!(events.block().await.expect("a comment").starts_with(':'));
    }
    assert_eq!(open(&server).await, (1.0, 1.0));
    drop(events);
    eventually("nothing is left of it", async || (open(&server).await == (0.0, 0.0)).then_some(())).await;
}

/// How many streams of events and how many subscriptions are open.
async fn open(server: &TestServer) -> (f64, f64) {
    let metrics = server.metrics().await;
    (metrics.value("jobstream_event_streams_open", &[]), metrics.value("jobstream_subscriptions_open", &[]))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_ends_leaves_a_stream_without_complete() {
    let mut server = TestServer::with(&["--slots=0"]);
    let mut events = Events::post(&server, "subscription { jobStatusChanged { status } }", json!({})).await;
    server.begin_workspace("W").await;
    assert_eq!(events.next().await.expect("an event").0, "next");
    server.terminate();
    let mut last = String::new();
    while let Some((name, _)) = events.next().await {
        last = name;
    }
    assert_eq!(last, "next", "it does not say that it is over");
    assert!(server.ended().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_streams_are_open_than_are_allowed() {
    let server = TestServer::with(&["--max-connections=2"]);
    let job = server.run_script("echo up; sleep 1000").await;
    server.line_appears(&job, "up").await;
    // Those of the requests above may not be closed yet.
    let none =
        async || (server.metrics().await.value("jobstream_websocket_connections_open", &[]) == 0.0).then_some(());
    eventually("all are closed", none).await;
    let follow = server.url(&format!("/jobs/{job}/logs?follow=true"));
    let held = server.http().get(&follow).send().await.expect("an answer");
    let events = Events::post(&server, "subscription { jobStatusChanged { status } }", json!({})).await;
    let request = server.http().get(&follow).send().await.expect("an answer");
    assert_eq!(request.status(), 503);
    assert_eq!(request.json::<Value>().await.expect("JSON")["errors"][0]["extensions"]["code"], "LIMIT_EXCEEDED");
    assert_eq!(server.handshake(&[PROTOCOL]).await.err(), Some(503));
    let refused = server.metrics().await.value("jobstream_connections_refused_total", &[("reason", "limit")]);
    assert_eq!(refused, 2.0);
    assert_eq!(server.data("{ __typename }", json!({})).await["__typename"], "Query", "requests are answered");
    drop((held, events));
    eventually("there is room again", async || server.handshake(&[PROTOCOL]).await.ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_followed_to_its_end() {
    let server = TestServer::start();
    let go = server.scratch().join("go");
    let job = server.run_script(&format!("echo one; echo two; {}; echo three; printf four", wait_for(&go))).await;
    server.line_appears(&job, "two").await;
    let get = async |accept: &str, parameters: &str| {
        let request = server.http().get(server.url(&format!("/jobs/{job}/logs?follow=true{parameters}")));
        within(request.header("accept", accept).send()).await.expect("an answer")
    };
    let mut plain = get("*/*", "").await;
    assert_eq!(header(&plain, "content-type"), "text/plain; charset=utf-8");
    let mut read = String::new();
    while read != "one\ntwo\n" {
        let chunk = within(plain.chunk()).await.expect("a chunk").expect("no end");
        read.push_str(std::str::from_utf8(&chunk).expect("UTF-8"));
    }
    // What may be compressed comes line by line all the same.
    let ndjson = get("application/x-ndjson", "&sequence=1").await;
    assert_eq!(header(&ndjson, "content-type"), "application/x-ndjson");
    std::fs::write(&go, "").expect("a file");
    assert_eq!(within(plain.text()).await.expect("the rest"), "three\nfour\n");
    let lines = within(ndjson.text()).await.expect("all lines");
    let texts: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")["text"].take()).collect();
    assert_eq!(texts, ["two", "three", "four"]);
    assert_eq!(get("*/*", "&sequence=3").await.text().await.expect("text"), "four\n", "its end is there already");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_a_log_and_does_not_read_is_dropped() {
    let server = TestServer::with(&["--client-timeout=0.5"]);
    let job = server.run_script("yes 'a line that nobody reads'").await;
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let mut connection = socket.connect(server.address()).await.expect("a connection");
    let request = format!("GET /jobs/{job}/logs?follow=true HTTP/1.1\r\nHost: {}\r\n\r\n", server.address());
    connection.write_all(request.as_bytes()).await.expect("a request");
    let followed = async || server.metrics().await.value("jobstream_followed_logs_open", &[]);
    eventually("it is followed", async || (followed().await == 1.0).then_some(())).await;
    eventually("it is dropped", async || (followed().await == 0.0).then_some(())).await;
    drop(connection);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_breaks_off_is_told_from_one_that_has_ended() {
    let mut server = TestServer::with(&["--shutdown-grace=0"]);
    let job = server.run_script("echo up; sleep 1000").await;
    server.line_appears(&job, "up").await;
    let mut followed =
        server.http().get(server.url(&format!("/jobs/{job}/logs?follow=true"))).send().await.expect("an answer");
    assert_eq!(within(followed.chunk()).await.expect("a chunk").expect("no end").as_ref(), b"up\n");
    server.terminate();
    // What the server says of the interruption may come before.
    let broken = within(async {
        loop {
            match followed.chunk().await {
                Ok(Some(_)) => {}
                Ok(None) => break false,
                Err(_) => break true,
            }
        }
    });
    assert!(broken.await, "the body does not end as a whole one");
    assert!(server.ended().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_a_flag_is_refused() {
    let server = TestServer::with(&["--slots=0"]);
    let created = server.begin_workspace("W").await;
    let job = text(&created["jobs"][0]["id"]);
    for (value, status) in [("yes", 400), ("1", 400), ("false", 200)] {
        let request = server.http().get(server.url(&format!("/jobs/{job}/logs?follow={value}")));
        assert_eq!(request.send().await.expect("an answer").status(), status, "{value}");
    }
}

fn header(response: &reqwest::Response, name: impl reqwest::header::AsHeaderName) -> &str {
    response.headers().get(name).expect("the header").to_str().expect("text")
}
