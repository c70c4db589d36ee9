//! The WebSocket protocol, graphql-transport-ws, as it is on the wire.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::support::{PROTOCOL, TestServer, text};

const TOKEN: &str = "a-token-that-is-long-enough";

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_without_the_subprotocol_is_refused() {
    let server = TestServer::with(&["--slots", "0"]);
    assert_eq!(server.handshake(&[]).await.err(), Some(400));
    for other in ["graphql-ws", "chat"] {
        assert_eq!(server.handshake(&[("sec-websocket-protocol", other)]).await.err(), Some(400), "{other}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_speaks_only_the_older_subprotocol_is_told_the_right_one() {
    let server = TestServer::with(&["--slots", "0"]);
    let request = server
        .http()
        .get(server.url("/graphql"))
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13");
    let complete = request.try_clone().expect("a copy").header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    let refused = complete.header("sec-websocket-protocol", "graphql-ws").send().await.expect("an answer");
    assert_eq!(refused.status(), 400);
    let body: Value = refused.json().await.expect("JSON");
    assert!(text(&body["errors"][0]["message"]).contains("graphql-transport-ws"), "{body}");

    let without_key = request.send().await.expect("an answer");
    assert_eq!(without_key.status(), 400);
    let body: Value = without_key.json().await.expect("JSON");
    assert_eq!(body["errors"][0]["extensions"]["code"], "BAD_REQUEST", "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_subprotocols_the_one_that_is_chosen_is_spoken() {
    let server = TestServer::with(&["--slots", "0"]);
    for both in ["graphql-ws, graphql-transport-ws", "graphql-transport-ws,graphql-ws"] {
        let mut wire = server.handshake(&[("sec-websocket-protocol", both)]).await.expect("a socket");
        wire.say(json!({ "type": "connection_init" })).await;
        assert_eq!(wire.hear().await["type"], "connection_ack");
        wire.subscribe("1", "{ __typename }").await;
        assert_eq!(wire.hear().await["type"], "next", "the older one calls it data");
        assert_eq!(wire.hear().await["type"], "complete");
        wire.say(json!({ "type": "start", "id": "1", "payload": { "query": "{ __typename }" } })).await;
        assert_eq!(wire.closed().await, 4400);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_a_message_closes_with_4400() {
    let server = TestServer::with(&["--slots", "0"]);
    let messages = [
        Message::text("no JSON"),
        Message::text("1"),
        Message::text("{}"),
        Message::text(r#"{ "type": "start", "id": "1" }"#),
        Message::text(r#"{ "type": "connection_init", "payload": 7 }"#),
        Message::text(r#"{ "type": "subscribe", "payload": { "query": "{ __typename }" } }"#),
        Message::text(r#"{ "type": "complete" }"#),
        Message::text(r#"{ "type": "complete", "id": "" }"#),
        Message::text(r#"{ "type": "subscribe", "id": "", "payload": { "query": "{ __typename }" } }"#),
        Message::text(r#"{ "type": "subscribe", "id": 1, "payload": { "query": "{ __typename }" } }"#),
        Message::text(r#"{ "type": "ping", "type": "pong" }"#),
        Message::text(r#"["ping", null, null]"#),
        Message::text(r#"{ "type": "connection_init", "payload": [] }"#),
        // The reason must not repeat it: it would not fit into a close frame.
        Message::text(json!({ "type": "x".repeat(1000) }).to_string()),
        Message::binary(r#"{ "type": "ping" }"#),
    ];
    for message in messages {
        let mut wire = server.wire().await;
        wire.send(message.clone()).await;
        assert_eq!(wire.closed().await, 4400, "{message}");
    }
    for payload in [
        json!(null),
        json!("{ __typename }"),
        json!({}),
        json!([]),
        json!({ "query": 1 }),
        json!({ "query": null }),
        json!({ "query": "{ __typename }", "variables": [] }),
        json!({ "query": "{ __typename }", "operationName": 1 }),
        json!({ "query": "{ __typename }", "extensions": "x" }),
    ] {
        let mut wire = server.ready_wire().await;
        wire.say(json!({ "id": "1", "type": "subscribe", "payload": payload })).await;
        assert_eq!(wire.closed().await, 4400, "{payload}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_before_the_initialisation_closes_with_4401() {
    let server = TestServer::with(&["--slots", "0"]);
    let mut wire = server.wire().await;
    wire.subscribe("1", "{ __typename }").await;
    assert_eq!(wire.closed().await, 4401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_initialisation_closes_with_4429() {
    let server = TestServer::with(&["--slots", "0"]);
    let mut wire = server.ready_wire().await;
    wire.say(json!({ "type": "connection_init" })).await;
    assert_eq!(wire.closed().await, 4429);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_is_in_use_closes_with_4409_and_is_free_after_its_end() {
    let server = TestServer::with(&["--slots", "0"]);
    let mut wire = server.ready_wire().await;
    for _ in 0..2 {
        wire.subscribe("1", "{ __typename }").await;
        assert_eq!(wire.hear().await["type"], "next");
        assert_eq!(wire.hear().await, json!({ "id": "1", "type": "complete" }));
    }
    for _ in 0..2 {
        wire.subscribe("1", "{ nothing }").await;
        assert_eq!(wire.hear().await["type"], "error");
    }
    wire.subscribe("1", "subscription { jobStatusChanged { status } }").await;
    wire.say(json!({ "id": "1", "type": "complete" })).await;
    wire.subscribe("1", "subscription { jobStatusChanged { status } }").await;
    wire.subscribe("1", "{ __typename }").await;
    assert_eq!(wire.closed().await, 4409);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_client_with_the_token_is_admitted() {
    let server = TestServer::with_environment(&["--slots", "0"], &[("JOBSTREAM_TOKEN", TOKEN)]);
    let wrong = [
        json!({}),
        json!({ "Authorization": "Bearer wrong" }),
        json!({ "Authorization": TOKEN }),
        json!({ "Authorization": format!("Basic {TOKEN}") }),
        json!({ "Authorization": format!("Bearer {TOKEN}x") }),
        json!({ "token": TOKEN }),
        json!({ "Authorization": null }),
        json!({ "Authorization": [format!("Bearer {TOKEN}")] }),
    ];
    for payload in wrong {
        let mut wire = server.wire().await;
        wire.say(json!({ "type": "connection_init", "payload": payload })).await;
        assert_eq!(wire.closed().await, 4403, "{payload}");
    }
    let mut wire = server.wire().await;
    wire.say(json!({ "type": "connection_init" })).await;
    assert_eq!(wire.closed().await, 4403);

    let bearer = format!("Bearer {TOKEN}");
    for payload in [
        json!({ "Authorization": bearer }),
        json!({ "authorization": bearer }),
        json!({ "AUTHORIZATION": bearer, "more": 1 }),
    ] {
        let mut wire = server.wire().await;
        wire.say(json!({ "type": "connection_init", "payload": payload })).await;
        assert_eq!(wire.hear().await["type"], "connection_ack", "{payload}");
    }
    let mut shown_in_the_handshake = server.handshake(&[PROTOCOL, ("authorization", &bearer)]).await.expect("a socket");
    shown_in_the_handshake.say(json!({ "type": "connection_init" })).await;
    assert_eq!(shown_in_the_handshake.hear().await["type"], "connection_ack");

    for (handshake, payload) in [(&*bearer, "Bearer wrong"), (&*bearer, TOKEN), ("Bearer wrong", &*bearer)] {
        let mut wire = server.handshake(&[PROTOCOL, ("authorization", handshake)]).await.expect("a socket");
        wire.say(json!({ "type": "connection_init", "payload": { "Authorization": payload } })).await;
        assert_eq!(wire.closed().await, 4403, "{handshake} {payload}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ping_is_answered_with_a_pong_at_any_time() {
    let server = TestServer::with(&["--slots", "0"]);
    let mut wire = server.wire().await;
    wire.say(json!({ "type": "ping", "payload": { "any": "thing" } })).await;
    assert_eq!(wire.hear().await, json!({ "type": "pong" }));
    wire.say(json!({ "type": "pong" })).await;
    wire.say(json!({ "type": "connection_init" })).await;
    assert_eq!(wire.hear().await["type"], "connection_ack");
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_and_mutations_are_carried_out() {
    let server = TestServer::with(&["--slots", "0"]);
    let mut wire = server.ready_wire().await;
    let document = "mutation Make($name: String!) { createWorkspace(input: { name: $name }) { workspace { name } } } \
                    query Look { workspaces { nodes { name } } }";
    let payload = |name: &str| json!({ "query": document, "operationName": name, "variables": { "name": "W" } });
    wire.say(json!({ "id": "a", "type": "subscribe", "payload": payload("Make") })).await;
    let expected = json!({ "id": "a", "type": "next", "payload": { "data": { "createWorkspace": { "workspace": { "name": "W" } } } } });
    assert_eq!(wire.hear().await, expected);
    assert_eq!(wire.hear().await, json!({ "id": "a", "type": "complete" }));
    wire.say(json!({ "id": "a", "type": "subscribe", "payload": payload("Look") })).await;
    let expected =
        json!({ "id": "a", "type": "next", "payload": { "data": { "workspaces": { "nodes": [{ "name": "W" }] } } } });
    assert_eq!(wire.hear().await, expected);
    assert_eq!(wire.hear().await, json!({ "id": "a", "type": "complete" }));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_is_an_error_and_nothing_more() {
    let server = TestServer::with(&["--slots", "0"]);
    let mut wire = server.ready_wire().await;
    for (query, code) in [
        ("{", "GRAPHQL_PARSE_FAILED"),
        ("{ nothing }", "GRAPHQL_VALIDATION_FAILED"),
        ("mutation { createWorkspace(input: {}) { workspace { id } } }", "GRAPHQL_VALIDATION_FAILED"),
        ("subscription { jobStatusChanged(after: \"x\") { status } }", "BAD_USER_INPUT"),
        ("subscription { jobLogs(jobId: \"3f2b8c1e-6f0a-4c5e-9d3b-2a7f1e4c5d6b\") { complete } }", "NOT_FOUND"),
        ("subscription { jobStatusChanged { nothing } }", "GRAPHQL_VALIDATION_FAILED"),
    ] {
        wire.subscribe("1", query).await;
        let error = wire.hear().await;
        assert_eq!((&error["id"], &error["type"]), (&json!("1"), &json!("error")), "{query}");
        assert_eq!(error["payload"][0]["extensions"]["code"], code, "{query}");
        assert!(!text(&error["payload"][0]["message"]).is_empty());
    }
    // One that was carried out, and failed, has a result: what the schema says is null.
    wire.subscribe("1", "mutation { createWorkspace(input: { name: \"\" }) { workspace { id } } }").await;
    let next = wire.hear().await;
    assert_eq!(next["type"], "next", "and nothing more was said of those before");
    assert_eq!(next["payload"]["errors"][0]["extensions"]["code"], "BAD_USER_INPUT");
    assert_eq!(wire.hear().await, json!({ "id": "1", "type": "complete" }));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_said_of_an_operation_that_the_client_has_ended() {
    let server = TestServer::with(&["--slots", "0"]);
    let mut wire = server.ready_wire().await;
    wire.subscribe("ended", "subscription { jobStatusChanged { status } }").await;
    wire.subscribe("kept", "subscription { jobStatusChanged { status } }").await;
    server.change("createWorkspace", json!({ "name": "A" }), "__typename").await;
    for _ in 0..6 {
        let message = wire.hear().await;
        assert_eq!(message["payload"]["data"]["jobStatusChanged"]["status"], "QUEUED");
    }
    wire.say(json!({ "id": "ended", "type": "complete" })).await;
    wire.say(json!({ "id": "unknown", "type": "complete" })).await;
    wire.hears_nothing().await;
    server.change("createWorkspace", json!({ "name": "B" }), "__typename").await;
    for _ in 0..3 {
        assert_eq!(wire.hear().await["id"], "kept");
    }
    wire.hears_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_operations_share_a_connection() {
    let server = TestServer::start();
    let job = server.run_script("seq 1 100").await;
    let mut wire = server.ready_wire().await;
    for id in 0..50 {
        let query = format!("subscription {{ jobLogs(jobId: \"{job}\") {{ lines {{ text }} complete }} }}");
        wire.subscribe(&id.to_string(), &query).await;
    }
    let mut lines = vec![0; 50];
    let mut over = 0;
    while over < 50 {
        let message = wire.hear().await;
        let id: usize = text(&message["id"]).parse().expect("a number");
        match text(&message["type"]) {
            "next" => lines[id] += message["payload"]["data"]["jobLogs"]["lines"].as_array().expect("lines").len(),
            "complete" => over += 1,
            other => panic!("{other}: {message}"),
        }
    }
    assert_eq!(lines, [100; 50]);
}
