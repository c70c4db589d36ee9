//! Connections, tokens and headers: clients without a token, and clients that hold connections.

use futures_util::StreamExt;
use futures_util::future::join_all;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio_tungstenite::tungstenite::Message;

use crate::support::raw::ask;
use crate::support::{PROTOCOL, TestServer, Wire, eventually, within};

const TOKEN: &str = "jobstream-test-8d41c7f2a95e";

fn guarded(options: &[&str]) -> TestServer {
    TestServer::with_environment(options, &[("JOBSTREAM_TOKEN", TOKEN)])
}

/// The `Authorization` headers of clients that do not have the token.
fn wrong_authorizations() -> Vec<String> {
    let start = &TOKEN[..TOKEN.len() - 1];
    [
        "".to_owned(),
        "Authorization: Bearer wrong\r\n".to_owned(),
        format!("Authorization: {TOKEN}\r\n"),
        format!("Authorization: Bearer{TOKEN}\r\n"),
        format!("Authorization: Bearer {start}\r\n"),
        format!("Authorization: Bearer {TOKEN}x\r\n"),
        format!("Authorization: Bearer {}\r\n", TOKEN.to_uppercase()),
        format!("Authorization: Bearer \"{TOKEN}\"\r\n"),
        format!("Authorization: Bearer x {TOKEN}\r\n"),
        format!("Authorization: Basic {TOKEN}\r\n"),
        format!("Authorization: Token {TOKEN}\r\n"),
        "Authorization: Bearer \r\n".to_owned(),
        "Authorization: Bearer null\r\n".to_owned(),
        format!("Authorization: Bearer wrong\r\nAuthorization: Bearer {TOKEN}\r\n"),
        format!("Authorization: Bearer {TOKEN}\r\nAuthorization: Bearer wrong\r\n"),
        "Authorization: Bearer \u{e9}\r\n".to_owned(),
        format!("Proxy-Authorization: Bearer {TOKEN}\r\n"),
        format!("Cookie: token={TOKEN}; Authorization=Bearer {TOKEN}\r\n"),
        format!("X-Authorization: Bearer {TOKEN}\r\n"),
        format!("X-Forwarded-For: 127.0.0.1\r\nX-Original-Url: /healthz?{TOKEN}\r\n"),
    ]
    .to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_the_token_gets_no_data() {
    let server = guarded(&["--trusted-proxy=127.0.0.1"]);
    let job = server.run_script("echo a-secret-line").await;
    server.final_job(&job).await;
    let query = "query=%7Bworkspaces%7Bnodes%7Bid%20name%7D%7D%7D";
    let paths = [
        format!("/graphql?{query}"),
        format!("/graphql?{query}&token={TOKEN}&access_token={TOKEN}&authorization=Bearer%20{TOKEN}"),
        format!("/graphql/?{query}"),
        format!("//graphql?{query}"),
        format!("/%67raphql?{query}"),
        format!("/healthz/../graphql?{query}"),
        format!("/assets/../graphql?{query}"),
        format!("/jobs/{job}/logs"),
        format!("/jobs/{job}/logs?follow=true"),
        format!("/jobs/{job}/logs/"),
        format!("/jobs//{job}/logs"),
        format!("/assets/..%2fjobs%2f{job}%2flogs"),
        "/metrics".to_owned(),
        "/metrics?".to_owned(),
        "/Metrics".to_owned(),
        "/metrics/".to_owned(),
        "/assets/..%2f..%2fjobstream.db".to_owned(),
    ];
    let body = json!({ "query": "{ workspaces { nodes { id name } } }" }).to_string();
    let mut asked = 0;
    for path in &paths {
        for (number, authorization) in wrong_authorizations().into_iter().enumerate() {
            // Every path with GET, and with each other method in turn.
            let other = ["POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "X"][number % 8];
            for method in ["GET", other] {
                asked += 1;
                // Each comes from another client, so that none of them is slowed down.
                let head = format!(
                    "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{authorization}\
                     X-Forwarded-For: 198.51.{}.{}",
                    asked / 200,
                    asked % 200
                );
                let answer = server.raw(&head, &body).await;
                let right = match method {
                    "OPTIONS" => [200, 400, 404].contains(&answer.status),
                    _ => [400, 401, 404, 405].contains(&answer.status),
                };
                assert!(right, "{head}: {answer:?}");
                for secret in ["a-secret-line", "\"nodes\"", "jobstream_", "SQLite"] {
                    assert!(!answer.body.contains(secret), "{head}: {answer:?}");
                }
                if answer.status == 401 {
                    assert!(answer.head.contains("www-authenticate: bearer"), "{head}: {answer:?}");
                }
            }
        }
    }
    assert!(asked > 125);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_initialisation_is_one_attempt_to_authenticate() {
    let server = guarded(&["--slots=0"]);
    let bearer = format!("Bearer {TOKEN}");
    let letters = "authorization";
    let spelled = |number: usize| -> String {
        let letter = |(at, letter): (usize, char)| {
            if number >> at & 1 == 1 { letter.to_ascii_uppercase() } else { letter }
        };
        letters.chars().enumerate().map(letter).collect()
    };
    let guesses: serde_json::Map<_, _> = (0..200).map(|number| (spelled(number), json!("Bearer a-guess"))).collect();
    let mut with_the_right_one = guesses.clone();
    with_the_right_one.insert(spelled(8_191), json!(bearer));
    for payload in [
        json!(guesses).to_string(),
        json!(with_the_right_one).to_string(),
        json!({ "Authorization": bearer, "authorization": bearer }).to_string(),
        json!({ "Authorization": null, "authorization": bearer }).to_string(),
        format!(r#"{{ "Authorization": "Bearer a-guess", "Authorization": "{bearer}" }}"#),
        format!(r#"{{ "authorization": "{bearer}", "\u0061uthorization": "Bearer a-guess" }}"#),
    ] {
        let mut wire = server.wire().await;
        wire.send(Message::text(format!(r#"{{ "type": "connection_init", "payload": {payload} }}"#))).await;
        assert_eq!(wire.closed().await, 4400, "{payload:.200}");
    }
    for name in ["Authorization".to_owned(), "authorization".to_owned(), "AUTHORIZATION".to_owned(), spelled(4_711)] {
        let mut wire = server.wire().await;
        wire.say(json!({ "type": "connection_init", "payload": { name: bearer, "more": [{}] } })).await;
        assert_eq!(wire.hear().await["type"], "connection_ack");
    }
}

/// A masked frame, or its beginning: its payload is said to be this long.
fn frame(first: u8, length: u64, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match length {
        0..126 => bytes.push(0x80 | length as u8),
        126..65_536 => {
            bytes.push(0x80 | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 127);
            bytes.extend(length.to_be_bytes());
        }
    }
    // A mask of zeros changes nothing.
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

async fn send_raw(wire: &mut Wire, bytes: &[u8]) {
    // The server may have closed the connection already.
    let _ = within(wire.socket.get_mut().write_all(bytes)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn little_is_kept_of_a_client_before_it_is_initialised() {
    const LARGE: usize = (2 << 20) - 1;
    let server = guarded(&["--slots=0"]);
    let letters = vec![b'x'; LARGE];
    let pieces: Vec<u8> = (0..32).flat_map(|number| frame(u8::from(number == 0), 60_000, &letters[..60_000])).collect();
    let pings: Vec<u8> = (0..1_000).flat_map(|_| frame(0x81, 15, br#"{"type":"ping"}"#)).collect();
    // None of these messages ends, so all that comes has to be kept.
    let attacks = [frame(0x81, LARGE as u64 + 1, &letters), frame(0x82, LARGE as u64 + 1, &letters), pieces];
    drop(server.ready_wire_with(TOKEN).await);
    let before = server.peak_memory();
    let mut wires = Vec::new();
    for number in 0..60 {
        let mut wire = server.wire().await;
        send_raw(&mut wire, &attacks[number % 3]).await;
        wires.push(wire);
    }
    for mut wire in wires {
        assert_eq!(wire.closed().await, 1009);
    }
    let more = (server.peak_memory() - before) / 1024;
    assert!(more < 40, "{more} MiB more");
    let mut wire = server.wire().await;
    send_raw(&mut wire, &pings).await;
    loop {
        match within(wire.socket.next()).await {
            Some(Ok(Message::Close(Some(close)))) => break assert_eq!(u16::from(close.code), 1009),
            Some(Ok(_)) => {}
            other => panic!("not a close: {other:?}"),
        }
    }
    // After that a message may be as large as ever.
    let mut wire = server.ready_wire_with(TOKEN).await;
    wire.say(json!({ "type": "ping", "payload": { "x": "x".repeat(1 << 20) } })).await;
    assert_eq!(wire.hear().await, json!({ "type": "pong" }));
}

impl TestServer {
    async fn ready_wire_with(&self, token: &str) -> Wire {
        let mut wire = self.wire().await;
        let payload = json!({ "Authorization": format!("Bearer {token}") });
        wire.say(json!({ "type": "connection_init", "payload": payload })).await;
        assert_eq!(wire.hear().await["type"], "connection_ack");
        wire
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_tokens_are_slowed_by_address_and_logged_and_right_ones_are_not() {
    let mut server = guarded(&["--slots=0"]);
    let guess = |number: usize| {
        format!(
            "GET /graphql?query={{__typename}} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer guess-{number}\r\n\
             X-Forwarded-For: 198.51.100.{}\r\nForwarded: for=198.51.100.{}",
            number % 200,
            number % 200
        )
    };
    // All connections are there before the first guess is sent. The forwarded headers of a client that is no trusted proxy do not make
    // it another client.
    let mut connections = Vec::new();
    for _ in 0..300 {
        connections.push(server.connection_from(2).await);
    }
    let guesses = join_all(
        connections.into_iter().enumerate().map(async |(number, connection)| ask(connection, &guess(number), "").await),
    );
    let right = async {
        let head =
            format!("GET /graphql?query={{__typename}} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}");
        let mut statuses = Vec::new();
        for _ in 0..20 {
            statuses.push(ask(server.connection_from(2).await, &head, "").await.status);
        }
        statuses
    };
    let other = async { ask(server.connection_from(3).await, &guess(0), "").await.status };
    let (guesses, right, other) = tokio::join!(guesses, right, other);
    assert_eq!(right, [200; 20], "the right token from the same address");
    assert_eq!(other, 401, "a wrong one from another");
    let late: Vec<_> = guesses.iter().filter(|it| it.status == 429).collect();
    assert!(!late.is_empty() && late.iter().all(|it| it.head.contains("retry-after: ")), "{guesses:?}");
    assert!(late.iter().all(|it| it.body.contains("LIMIT_EXCEEDED")));
    assert!(guesses.iter().all(|it| [401, 429].contains(&it.status)), "{guesses:?}");
    let mut wire = server.wire().await;
    wire.say(json!({ "type": "connection_init", "payload": { "Authorization": "Bearer a-guess" } })).await;
    assert_eq!(wire.closed().await, 4403);

    let of_guesses = |server: &TestServer| -> Vec<String> {
        let log = server.log();
        log.lines().filter(|it| it.contains("refused authentication attempts")).map(str::to_owned).collect()
    };
    eventually("the first is logged at once", async || (!of_guesses(&server).is_empty()).then_some(())).await;
    server.terminate();
    assert!(server.ended().await.success());
    let lines = eventually("all are counted", async || {
        let lines = of_guesses(&server);
        let all: u64 = lines
            .iter()
            .filter_map(|it| it.split_once("wrong_tokens=")?.1.split(' ').next()?.parse::<u64>().ok())
            .sum();
        (all == 302).then_some(lines)
    })
    .await;
    assert!(lines.len() < 20 && lines.iter().any(|it| it.contains("127.0.0.2")), "{lines:?}");
    assert!(!server.log().contains("guess-") && !server.log().contains(TOKEN), "a token is not logged");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_with_a_wrong_token_is_dropped_when_too_many_refusals_are_held_back() {
    let server = guarded(&["--slots=0"]);
    let guess = json!({ "type": "connection_init", "payload": { "Authorization": "Bearer a-guess" } });
    let mut wires = Vec::new();
    for _ in 0..200 {
        wires.push(server.wire().await);
    }
    // All guesses are sent before the first delay is over.
    join_all(wires.iter_mut().map(async |wire| wire.say(guess.clone()).await)).await;
    let ends = join_all(wires.iter_mut().map(async |wire| within(wire.socket.next()).await)).await;
    let (closed, dropped): (Vec<_>, Vec<_>) = ends.iter().partition(|it| matches!(it, Some(Ok(Message::Close(_)))));
    for end in &closed {
        let Some(Ok(Message::Close(Some(frame)))) = end else { panic!("a close without a code: {end:?}") };
        assert_eq!(u16::from(frame.code), 4403);
    }
    assert!(closed.len() >= 84 && !dropped.is_empty(), "{} were told, {} were dropped", closed.len(), dropped.len());
    assert!(dropped.iter().all(|it| matches!(it, None | Some(Err(_)))), "{dropped:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_addresses_of_a_trusted_proxys_clients_are_told_apart() {
    let server = guarded(&["--slots=0", "--trusted-proxy=127.0.0.2,10.0.0.0/8"]);
    let guess = |client: String| {
        format!(
            "GET /metrics HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer a-guess\r\n\
             X-Forwarded-For: 203.0.113.5, {client}, 10.0.0.9"
        )
    };
    let mut connections = Vec::new();
    for _ in 0..200 {
        connections.push(server.connection_from(2).await);
    }
    let clients = connections.into_iter().enumerate();
    let answers =
        join_all(clients.map(async |(number, it)| ask(it, &guess(format!("198.51.100.{number}")), "").await.status));
    assert!(answers.await.iter().all(|it| *it == 401), "no client is slowed down because of the others");
    eventually("one is logged", async || server.log().contains("address=198.51.100.").then_some(())).await;
}

async fn is_healthy(connection: TcpStream) -> bool {
    ask(connection, "GET /healthz HTTP/1.1\r\nHost: localhost", "").await.status == 200
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_of_one_peer_keep_nobody_out() {
    // So there are 150 places. Nothing is closed because it is slow.
    let few = |_: &std::path::Path| ["sh", "-c", "ulimit -n 200; exec \"$@\"", "sh"].map(str::to_owned).to_vec();
    let server = TestServer::wrapped(few, &["--slots=0", "--client-timeout=600", "--init-timeout=600"]);
    let mut kept = server.ready_wire().await;
    let mut idle = Vec::new();
    for number in 0..400 {
        let mut connection = server.connection_from(2).await;
        let _ = match number % 4 {
            0 => Ok(()),
            1 => connection.write_all(b"GET /healthz HTTP/1.1\r\nHost:").await,
            2 => connection.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await,
            _ => {
                let head = "GET /graphql HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
                            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                            Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n";
                connection.write_all(head.as_bytes()).await
            }
        };
        idle.push(connection);
    }
    assert!(is_healthy(server.connection_from(1).await).await, "another peer");
    assert!(is_healthy(server.connection_from(2).await).await, "and the same one");
    kept.hears_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_has_so_many_connections_in_use_and_no_more() {
    let server = TestServer::with(&["--slots=0", "--max-connections-per-address=3"]);
    let mut wires = Vec::new();
    for _ in 0..3 {
        wires.push(server.ready_wire().await);
    }
    let refused = ask(
        TcpStream::connect(server.address()).await.expect("a connection"),
        "GET /healthz HTTP/1.1\r\nHost: localhost",
        "",
    );
    assert_eq!(refused.await.status, 503);
    assert!(is_healthy(server.connection_from(2).await).await, "another peer has its own");
    eventually("it is logged", async || server.log().contains("name it with --trusted-proxy").then_some(())).await;
    for wire in &mut wires {
        wire.hears_nothing().await;
    }
    drop(wires.pop());
    eventually("there is room again", async || is_healthy(server.connection_from(1).await).await.then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_trusted_proxy_each_client_has_so_many_connections() {
    let options = ["--slots=0", "--max-connections-per-address=3", "--trusted-proxy=127.0.0.1"];
    let server = TestServer::with(&options);
    let mut wires = Vec::new();
    for client in ["198.51.100.1", "198.51.100.2", "2001:db8::1"] {
        for _ in 0..3 {
            wires.push(server.handshake(&[PROTOCOL, ("x-forwarded-for", client)]).await.expect("a socket"));
        }
    }
    for client in ["198.51.100.1", "203.0.113.7, 198.51.100.2", "2001:db8::2"] {
        assert_eq!(server.handshake(&[PROTOCOL, ("x-forwarded-for", client)]).await.err(), Some(503), "{client}");
    }
    assert!(server.handshake(&[PROTOCOL, ("x-forwarded-for", "198.51.100.3")]).await.is_ok());
    let refused = server.metrics().await.value("jobstream_connections_refused_total", &[("reason", "address")]);
    assert_eq!(refused, 3.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_metrics_can_have_an_address_of_their_own() {
    let server = guarded(&["--slots=0", "--admin-listen=127.0.0.1:0"]);
    let log = server.log();
    let line = log.lines().find(|it| it.contains("serving health and metrics")).expect("its address");
    let address = line.split_once("address=").expect("its address").1.trim();
    let get = async |path: &str, token: Option<&str>| {
        let request = reqwest::Client::new().get(format!("http://{address}{path}"));
        let request = token.map_or(request.try_clone().expect("a copy"), |it| request.bearer_auth(it));
        request.send().await.expect("an answer").status().as_u16()
    };
    for (path, without, with) in
        [("/healthz", 200, 200), ("/readyz", 200, 200), ("/metrics", 401, 200), ("/graphql", 404, 404), ("/", 404, 404)]
    {
        assert_eq!((get(path, None).await, get(path, Some(TOKEN)).await), (without, with), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_is_too_large_is_refused() {
    let server = TestServer::with(&["--slots=0"]);
    let head = |bytes: usize| format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Filler: {}", "x".repeat(bytes));
    assert_eq!(server.raw(&head(50_000), "").await.status, 200);
    let refused = server.raw(&head(300_000), "").await.status;
    assert!([431, 0].contains(&refused), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_cannot_be_sent_is_refused_at_the_start() {
    let directory = tempfile::tempdir().expect("a directory");
    for token in [
        "a-token-with-\u{fc}mlauts",
        "a-token-with\u{1}-control",
        "a-token-with-delete\u{7f}",
        "a-token-\u{200b}-with-nothing",
    ] {
        for command in ["serve", "check"] {
            let mut program = Command::new(env!("CARGO_BIN_EXE_jobstream"));
            program.args([command, "--listen", "127.0.0.1:0", "--data-dir"]).arg(directory.path().join("data"));
            program.env("JOBSTREAM_TOKEN", token).kill_on_drop(true);
            let output = within(program.output()).await.expect("the program runs");
            let told = [output.stdout, output.stderr].concat();
            let told = String::from_utf8_lossy(&told);
            assert!(!output.status.success() && told.contains("cannot be sent"), "{token:?}: {told}");
            assert!(!told.contains("a-token"), "{told}");
        }
    }
}

/// What may come over a WebSocket before it is initialised, as bytes.
fn oddities() -> Vec<(&'static str, Vec<u8>)> {
    let text = |payload: &str| frame(0x81, payload.len() as u64, payload.as_bytes());
    let unmasked = [&[0x81, 2][..], b"{}"].concat();
    vec![
        ("an unmasked frame", unmasked),
        ("a reserved bit", frame(0xc1, 2, b"{}")),
        ("all reserved bits", frame(0xf1, 2, b"{}")),
        ("a reserved opcode for data", frame(0x83, 2, b"{}")),
        ("a reserved opcode for control", frame(0x8b, 2, b"{}")),
        ("a continuation of nothing", frame(0x80, 2, b"{}")),
        ("a ping in pieces", frame(0x09, 2, b"{}")),
        ("a ping that is too long", frame(0x89, 126, &[b'x'; 126])),
        ("a close of one byte", frame(0x88, 1, b"x")),
        ("a close that is no UTF-8", frame(0x88, 4, b"\x03\xe8\xff\xff")),
        ("a close with a code that is reserved", frame(0x88, 2, &1005_u16.to_be_bytes())),
        ("a length of all bits", frame(0x81, u64::MAX, b"")),
        ("a length beyond what is allowed", frame(0x81, 1 << 40, b"")),
        ("a text that is no UTF-8", frame(0x81, 2, b"\xff\xfe")),
        ("a binary message", frame(0x82, 2, b"{}")),
        ("a text in a text", [frame(0x01, 1, b"{"), frame(0x81, 1, b"}")].concat()),
        ("an empty text", text("")),
        ("no JSON", text("{")),
        ("brackets", text(&"[".repeat(16_000))),
        ("braces", text(&r#"{"type":"connection_init","payload":{"a":"#.repeat(300))),
        ("a query", text(r#"{"id":"1","type":"subscribe","payload":{"query":"{workspaces{nodes{name}}}"}}"#)),
        ("a start of the older protocol", text(r#"{"id":"1","type":"start","payload":{"query":"{__typename}"}}"#)),
        ("the end of an operation of no id", text(r#"{"type":"complete"}"#)),
        ("an initialisation without a token", text(r#"{"type":"connection_init"}"#)),
        ("a token that is a number", text(r#"{"type":"connection_init","payload":{"Authorization":1}}"#)),
        ("a token elsewhere", text(&format!(r#"{{"type":"connection_init","Authorization":"Bearer {TOKEN}"}}"#))),
        ("a query in front of an initialisation", {
            let query = text(r#"{"id":"1","type":"subscribe","payload":{"query":"{workspaces{nodes{name}}}"}}"#);
            [query, text(&format!(r#"{{"type":"connection_init","payload":{{"Authorization":"Bearer {TOKEN}"}}}}"#))]
                .concat()
        }),
        ("another request", b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_messages_before_the_initialisation_end_the_connection() {
    let server = guarded(&["--slots=0", "--init-timeout=600"]);
    for (name, bytes) in oddities() {
        let mut wire = server.wire().await;
        send_raw(&mut wire, &bytes).await;
        let mut told = Vec::new();
        let _ = within(wire.socket.into_inner().read_to_end(&mut told)).await;
        let told = String::from_utf8_lossy(&told);
        for answer in ["\"next\"", "connection_ack", "nodes", "jobstream_"] {
            assert!(!told.contains(answer), "{name}: {told}");
        }
    }
    for (name, headers) in [
        ("no key", "Sec-WebSocket-Version: 13"),
        ("a short key", "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAA"),
        ("a key that is no base64", "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: !!!!!!!!!!!!!!!!!!!!!!=="),
        ("no version", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
        ("an older version", "Sec-WebSocket-Version: 8\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
        (
            "two keys",
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        ),
    ] {
        let head = format!(
            "GET /graphql HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: graphql-transport-ws\r\n\
             Connection: upgrade\r\n{headers}"
        );
        assert_eq!(server.raw(&head, "").await.status, 400, "{name}");
    }
    let mut wire = server.ready_wire_with(TOKEN).await;
    wire.hears_nothing().await;
}
