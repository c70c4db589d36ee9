//! Which answers are compressed, and that they are the same.

use std::io::Write;
use std::process::{Command, Stdio};

use reqwest::Response;
use serde_json::json;

use crate::support::{TestServer, wait_for, within};

const SMALL: &str = "/graphql?query={__typename}";
/// The names of all types are some kilobytes.
const LARGE: &str = "/graphql?query={__schema{types{name,description}}}";

async fn get(server: &TestServer, path: &str, encoding: &str) -> Response {
    let request = server.http().get(server.url(path)).header("accept-encoding", encoding);
    within(request.send()).await.expect("an answer")
}

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers().get(name).map(|value| value.to_str().expect("text"))
}

fn decompressed(bytes: &[u8], encoding: Option<&str>) -> Vec<u8> {
    match encoding {
        None => bytes.to_vec(),
        Some("zstd") => zstd::decode_all(bytes).expect("zstd"),
        Some("gzip") => {
            let mut gzip = Command::new("gzip");
            let gzip = gzip.args(["-d", "-c"]).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut gzip = gzip.spawn().expect("gzip");
            gzip.stdin.take().expect("its input").write_all(bytes).expect("it reads");
            let output = gzip.wait_with_output().expect("its end");
            assert!(output.status.success());
            output.stdout
        }
        Some(other) => panic!("not asked for: {other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_answer_is_compressed_for_those_who_can_read_it() {
    let server = TestServer::with(&["--slots=0"]);
    let plain = get(&server, LARGE, "identity").await;
    assert_eq!(header(&plain, "content-encoding"), None);
    let plain = plain.bytes().await.expect("the body");
    assert!(plain.len() > 4096);
    for (accepted, expected) in [("gzip", "gzip"), ("zstd", "zstd"), ("br, gzip;q=0.5", "gzip"), ("gzip, zstd", "zstd")]
    {
        let answer = get(&server, LARGE, accepted).await;
        assert_eq!(header(&answer, "content-encoding"), Some(expected), "{accepted}");
        let varies = answer
            .headers()
            .get_all("vary")
            .iter()
            .any(|it| it.to_str().is_ok_and(|it| it.contains("accept-encoding")));
        assert!(varies, "{:?}", answer.headers());
        let bytes = answer.bytes().await.expect("the body");
        assert!(bytes.len() < plain.len() / 2, "{} of {}", bytes.len(), plain.len());
        assert_eq!(decompressed(&bytes, Some(expected)), plain);
    }
    for (path, accepted) in [(LARGE, "br"), (LARGE, "gzip;q=0"), (SMALL, "gzip, zstd")] {
        assert_eq!(header(&get(&server, path, accepted).await, "content-encoding"), None, "{path} {accepted}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_compressed_unless_it_is_followed() {
    let server = TestServer::start();
    let job = server.run_script("seq 10000").await;
    server.final_job(&job).await;
    let expected = server.log_text(&job).await;
    let path = format!("/jobs/{job}/logs");
    for (path, encoding) in [(path.clone(), Some("gzip")), (format!("{path}?follow=true"), None)] {
        let answer = get(&server, &path, "gzip").await;
        assert_eq!(header(&answer, "content-encoding"), encoding, "{path}");
        let bytes = within(answer.bytes()).await.expect("the body");
        assert!(decompressed(&bytes, encoding) == expected.as_bytes(), "{path}: another body");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_followed_comes_at_once_whatever_encodings_are_accepted() {
    let server = TestServer::start();
    let go = server.scratch().join("go");
    let job = server.run_script(&format!("echo one; {}; echo two", wait_for(&go))).await;
    server.line_appears(&job, "one").await;
    let query = "subscription($id: ID!) { jobLogs(jobId: $id) { lines { text } } }";
    let events =
        server.http().post(server.url("/graphql")).json(&json!({ "query": query, "variables": { "id": job } }));
    let events = events.header("accept", "text/event-stream").header("accept-encoding", "gzip, zstd").send();
    let log = get(&server, &format!("/jobs/{job}/logs?follow=true"), "gzip, zstd").await;
    for (mut stream, line) in [(log, "one\n"), (within(events).await.expect("an answer"), "\"one\"")] {
        assert_eq!(header(&stream, "content-encoding"), None);
        let first = within(stream.chunk()).await.expect("a chunk").expect("no end");
        assert!(String::from_utf8_lossy(&first).contains(line), "{first:?}");
    }
    assert_eq!(server.job(&job).await["status"], "RUNNING", "that was before its end");
    std::fs::write(&go, "").expect("a file");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_has_the_compressed_answer_already_is_told_so() {
    let server = TestServer::with(&["--slots=0"]);
    let answer = get(&server, LARGE, "gzip").await;
    let tag = header(&answer, "etag").expect("a tag").to_owned();
    assert_eq!(header(&get(&server, LARGE, "identity").await, "etag"), Some(tag.as_str()), "it is that of the content");
    for accepted in ["gzip", "zstd", "identity"] {
        let again =
            server.http().get(server.url(LARGE)).header("accept-encoding", accepted).header("if-none-match", &tag);
        let again = within(again.send()).await.expect("an answer");
        assert_eq!((again.status().as_u16(), header(&again, "content-encoding")), (304, None), "{accepted}");
        assert_eq!(header(&again, "etag"), Some(tag.as_str()));
        assert!(again.bytes().await.expect("the body").is_empty());
    }
}
