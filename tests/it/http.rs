//! GraphQL over HTTP, logs, health, and GraphiQL's page.

use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::support::{TestServer, conformance, eventually, signal, text, wait_for};

const UNKNOWN: &str = "3f2b8c1e-6f0a-4c5e-9d3b-2a7f1e4c5d6b";

async fn post(server: &TestServer, content_type: &str, body: impl Into<reqwest::Body>) -> Response {
    let request = server.http().post(server.url("/graphql")).header("content-type", content_type);
    request.body(body).send().await.expect("an answer")
}

async fn get(server: &TestServer, path: &str) -> Response {
    server.http().get(server.url(path)).send().await.expect("an answer")
}

/// A path with a query string.
fn with_query(path: &str, parameters: &[(&str, &str)]) -> String {
    let mut url = reqwest::Url::parse("http://h").expect("a URL");
    url.query_pairs_mut().extend_pairs(parameters);
    format!("{path}?{}", url.query().unwrap_or_default())
}

async fn code(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let body: Value = response.json().await.expect("JSON");
    conformance::check(&Value::Null, &body);
    assert!(body["data"].is_null() && !text(&body["errors"][0]["message"]).is_empty(), "{body}");
    (status, text(&body["errors"][0]["extensions"]["code"]).to_owned())
}

fn content_type(response: &Response) -> String {
    response.headers()["content-type"].to_str().expect("text").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_is_json_and_nothing_else() {
    let server = TestServer::with(&["--slots", "0"]);
    let query = r#"{ "query": "mutation { createWorkspace(input: { name: \"W\" }) { workspace { id } } }" }"#;
    for other in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/graphql",
        "text/json",
        "",
    ] {
        let refused = code(post(&server, other, query).await).await;
        assert_eq!(refused, (415, "BAD_REQUEST".to_owned()), "{other}");
    }
    let without = server.http().post(server.url("/graphql")).body(query).send().await.expect("an answer");
    assert_eq!(without.status(), 415);
    let count = server.data("{ workspaces { totalCount } }", json!({})).await;
    assert_eq!(count["workspaces"]["totalCount"], 0, "none of these was carried out");
    for right in ["application/json", "Application/JSON; charset=utf-8"] {
        assert_eq!(post(&server, right, r#"{ "query": "{ __typename }" }"#).await.status(), 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_not_a_request_is_refused() {
    let server = TestServer::with(&["--slots", "0"]);
    for body in [
        "",
        "{",
        "[]",
        r#"[{ "query": "{ __typename }" }]"#,
        "{}",
        r#"{ "query": null }"#,
        r#"{ "query": 1 }"#,
        r#"{ "query": "{ __typename }", "variables": [] }"#,
        r#"{ "query": "{ __typename }", "operationName": 1 }"#,
        r#"{ "query": "{ __typename }", "extensions": "x" }"#,
    ] {
        assert_eq!(code(post(&server, "application/json", body).await).await.0, 400, "{body}");
    }
    assert_eq!(post(&server, "application/json", b"{ \"query\": \"\xff\" }".to_vec()).await.status(), 400);
    let nulls =
        r#"{ "query": "{ __typename }", "variables": null, "operationName": null, "extensions": null, "more": 1 }"#;
    assert_eq!(post(&server, "application/json", nulls).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_beyond_2_mib_is_refused() {
    let server = TestServer::with(&["--slots", "0"]);
    let body = |length: usize| {
        let frame = json!({ "query": "{ __typename }", "more": "" }).to_string();
        json!({ "query": "{ __typename }", "more": "x".repeat(length - frame.len()) }).to_string()
    };
    assert_eq!(post(&server, "application/json", body(2 * 1024 * 1024)).await.status(), 200);
    assert_eq!(code(post(&server, "application/json", body(2 * 1024 * 1024 + 1)).await).await.0, 413);
}

#[tokio::test(flavor = "multi_thread")]
async fn how_large_a_body_may_be_is_an_option() {
    let server = TestServer::with(&["--slots", "0", "--max-request-bytes", "1000"]);
    let body = |length: usize| format!("{:<length$}", r#"{ "query": "{ __typename }" }"#);
    assert_eq!(post(&server, "application/json", body(1_000)).await.status(), 200);
    let refused = code(post(&server, "application/json", body(1_001)).await).await;
    assert_eq!(refused, (413, "BAD_REQUEST".to_owned()));
    // One that does not say how long it is.
    let in_pieces = |length: usize| {
        let pieces: Vec<_> =
            body(length).into_bytes().chunks(300).map(|it| Ok::<_, std::io::Error>(it.to_vec())).collect();
        reqwest::Body::wrap_stream(futures_util::stream::iter(pieces))
    };
    assert_eq!(post(&server, "application/json", in_pieces(1_000)).await.status(), 200);
    assert_eq!(post(&server, "application/json", in_pieces(1_001)).await.status(), 413);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mutation_is_told_over_get_however_it_is_named() {
    let server = TestServer::with(&["--slots", "0"]);
    let named = "mutation M { createWorkspace(input: { name: \"W\" }) { __typename } }";
    let both = format!("{named} query Q {{ __typename }}");
    for (parameters, status) in [
        (vec![("query", named)], 405),
        (vec![("query", named), ("operationName", "M")], 405),
        (vec![("query", named), ("operationName", "")], 405),
        (vec![("query", &both), ("operationName", "M")], 405),
        (vec![("query", &both), ("operationName", "Q")], 200),
        // It cannot be told which is meant, or there is no such operation: these are refused as documents.
        (vec![("query", &both)], 400),
        (vec![("query", named), ("operationName", "Other")], 400),
    ] {
        let request = server.http().get(server.url(&with_query("/graphql", &parameters)));
        let answer = request.header("accept", "application/graphql-response+json").send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), status, "{parameters:?}");
    }
    let count = server.data("{ workspaces { totalCount } }", json!({})).await;
    assert_eq!(count["workspaces"]["totalCount"], 0, "no mutation was carried out");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_get_is_for_queries() {
    let server = TestServer::with(&["--slots", "0"]);
    let query = "query Q($n: Int) { workspaces(first: $n) { totalCount } } mutation M { createWorkspace(input: { name: \"W\" }) { __typename } }";
    let path = with_query("/graphql", &[("query", query), ("operationName", "Q"), ("variables", r#"{ "n": 1 }"#)]);
    let answer = get(&server, &path).await;
    assert_eq!((answer.status().as_u16(), content_type(&answer).as_str()), (200, "application/json; charset=utf-8"));
    assert_eq!(answer.json::<Value>().await.expect("JSON"), json!({ "data": { "workspaces": { "totalCount": 0 } } }));

    let mutation = get(&server, &with_query("/graphql", &[("query", query), ("operationName", "M")])).await;
    assert_eq!(mutation.headers()["allow"], "GET, POST");
    assert_eq!(code(mutation).await.0, 405);
    let alone = "mutation { createWorkspace(input: { name: \"W\" }) { __typename } }";
    assert_eq!(get(&server, &with_query("/graphql", &[("query", alone)])).await.status(), 405);
    let count = server.data("{ workspaces { totalCount } }", json!({})).await;
    assert_eq!(count["workspaces"]["totalCount"], 0, "no mutation was carried out");

    let subscription = "subscription { jobStatusChanged { status } }";
    assert_eq!(code(get(&server, &with_query("/graphql", &[("query", subscription)])).await).await.0, 400);
    for wrong in [
        vec![],
        vec![("query", "{ __typename }"), ("variables", "{")],
        vec![("query", "{ __typename }"), ("variables", "1")],
    ] {
        assert_eq!(code(get(&server, &with_query("/graphql", &wrong)).await).await.0, 400, "{wrong:?}");
    }
    for method in [Method::PUT, Method::DELETE, Method::PATCH] {
        let answer = server.http().request(method, server.url("/graphql")).send().await.expect("an answer");
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["allow"]),
            (405, &"GET, POST".parse().expect("a value"))
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_skipped_and_included_follows_from_variables_and_their_defaults() {
    let server = TestServer::with(&["--slots", "0"]);
    for (directive, default, variables, shown) in [
        ("include", "= true", json!({}), true),
        ("include", "= false", json!({}), false),
        ("include", "= true", json!({ "it": false }), false),
        ("skip", "= true", json!({}), false),
        ("skip", "= false", json!({}), true),
        ("skip", "= false", json!({ "it": true }), false),
        ("skip", "", json!({ "it": false }), true),
    ] {
        let query = format!(
            "query($it: Boolean! {default}) {{ __typename ... @{directive}(if: $it) {{ jobs {{ totalCount }} }} }}"
        );
        let data = server.data(&query, variables.clone()).await;
        assert_eq!(data.get("jobs").is_some(), shown, "{query} with {variables}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_has_the_better_of_the_types_that_are_accepted() {
    let server = TestServer::with(&["--slots", "0"]);
    let (json, response) = ("application/json", "application/graphql-response+json");
    for (accept, expected) in [
        ("*/*", Some(json)),
        ("application/*;q=0.5, text/html", Some(json)),
        (response, Some(response)),
        ("application/graphql-response+json; charset=utf-8, application/json; q=0.9", Some(response)),
        ("application/json, application/graphql-response+json;q=0.1", Some(json)),
        ("text/html", None),
        ("application/json;q=0", None),
        ("", None),
    ] {
        // What is refused before it is carried out has a status of its own in the newer type only.
        for (query, refused) in [
            ("{ __typename }", false),
            ("{ nothing }", true),
            ("{", true),
            ("query A { __typename } query B { __typename }", true),
        ] {
            let request = json!({ "query": query });
            let post = server.http().post(server.url("/graphql")).header("accept", accept).json(&request);
            let answer = post.send().await.expect("an answer");
            let status = answer.status().as_u16();
            match expected {
                None => assert_eq!(status, 406, "{accept}"),
                Some(type_) => {
                    assert_eq!(content_type(&answer), format!("{type_}; charset=utf-8"), "{accept}");
                    assert_eq!(status, if refused && type_ == response { 400 } else { 200 }, "{accept}: {query}");
                    let body: Value = answer.json().await.expect("JSON");
                    conformance::check(&request, &body);
                    assert_eq!(body.get("data").is_some(), !refused, "{body}");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_error_has_a_code() {
    let server = TestServer::with(&["--slots", "0"]);
    for (query, variables, code) in [
        ("{", json!({}), "GRAPHQL_PARSE_FAILED"),
        ("{ nothing }", json!({}), "GRAPHQL_VALIDATION_FAILED"),
        ("{ jobs(first: \"x\") { totalCount } }", json!({}), "GRAPHQL_VALIDATION_FAILED"),
        ("{ jobs(type: [NOTHING]) { totalCount } }", json!({}), "GRAPHQL_VALIDATION_FAILED"),
        (
            "query($t: [JobType!]) { jobs(type: $t) { totalCount } }",
            json!({ "t": ["NOTHING"] }),
            "GRAPHQL_VALIDATION_FAILED",
        ),
        ("query A { __typename } query B { __typename }", json!({}), "GRAPHQL_VALIDATION_FAILED"),
        ("{ job(id: \"x\") { id } }", json!({}), "BAD_USER_INPUT"),
        (
            "query($n: Int) { jobs(first: $n) { totalCount } }",
            json!({ "n": 3_000_000_000_u32 }),
            "GRAPHQL_VALIDATION_FAILED",
        ),
    ] {
        assert_eq!(server.code(query, variables).await, code, "{query}");
    }
    // What is found wrong only when the operation is carried out is told as every other wrong input.
    for (query, variables, path) in
        [("query($id: ID!) { job(id: $id) { id } }", json!({}), "job"), ("{ job(id: \"x\") { id } }", json!({}), "id")]
    {
        assert_eq!(server.refusal(query, variables).await.paths(), [path], "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_served_as_it_was_printed_and_as_json_lines() {
    let server = TestServer::start();
    let job = server.run_script(r"printf 'one\ntwo\r\033[1m\0\xff\n\nlast'").await;
    server.final_job(&job).await;
    let path = format!("/jobs/{job}/logs");
    let plain = get(&server, &path).await;
    assert_eq!((plain.status().as_u16(), content_type(&plain).as_str()), (200, "text/plain; charset=utf-8"));
    assert_eq!(plain.text().await.expect("text"), "one\ntwo\r\u{1b}[1m\0\u{fffd}\n\nlast\n");
    for (sequence, expected) in [("0", "one\n"), ("2", "\nlast\n"), ("3", "last\n"), ("4", ""), ("9999999999", "")] {
        let part = get(&server, &format!("{path}?sequence={sequence}")).await.text().await.expect("text");
        assert!(part.starts_with(expected) && (sequence == "0" || part == expected), "{sequence}: {part:?}");
    }

    let request = server.http().get(server.url(&format!("{path}?sequence=1"))).header("accept", "application/x-ndjson");
    let answer = request.send().await.expect("an answer");
    assert_eq!(content_type(&answer), "application/x-ndjson");
    let body = answer.text().await.expect("text");
    assert!(body.ends_with('\n'));
    let lines: Vec<Value> = body.lines().map(|it| serde_json::from_str(it).expect("JSON")).collect();
    let query =
        "query($id: ID!) { job(id: $id) { logs(sequence: 1) { lines { sequence timestamp stream text continued } } } }";
    let stored = server.data(query, json!({ "id": job })).await;
    assert_eq!(json!(lines), stored["job"]["logs"]["lines"]);
    assert_eq!((lines.len(), &lines[0]["stream"], &lines[0]["continued"]), (3, &json!("STDOUT"), &json!(false)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_a_running_job_is_served_as_far_as_it_is() {
    let server = TestServer::start();
    let go = server.scratch().join("go");
    let job = server.run_script(&format!("echo a; {}; echo b", wait_for(&go))).await;
    server.line_appears(&job, "a").await;
    assert_eq!(server.log_text(&job).await, "a\n");
    std::fs::write(&go, "").expect("a file");
    server.final_job(&job).await;
    assert_eq!(server.log_text(&job).await, "a\nb\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_not_there_says_why() {
    let server = TestServer::start();
    let job = server.run_script("true").await;
    server.final_job(&job).await;
    server.change("deleteJob", json!({ "id": job }), "__typename").await;
    for (path, expected) in [
        (format!("/jobs/{UNKNOWN}/logs"), (404, "NOT_FOUND")),
        (format!("/jobs/{job}/logs"), (404, "NOT_FOUND")),
        ("/jobs/7/logs".to_owned(), (400, "BAD_USER_INPUT")),
        (format!("/jobs/{job}/logs?sequence=-1"), (400, "BAD_USER_INPUT")),
        (format!("/jobs/{job}/logs?sequence=x"), (400, "BAD_USER_INPUT")),
        ("/nothing".to_owned(), (404, "NOT_FOUND")),
    ] {
        let (status, code) = code(get(&server, &path).await).await;
        assert_eq!((status, code.as_str()), expected, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_drains_is_alive_and_answers_but_is_not_ready() {
    let mut server = TestServer::with(&["--shutdown-grace", "600"]);
    let go = server.scratch().join("go");
    let job = server.run_script(&format!("echo up; {}", wait_for(&go))).await;
    server.line_appears(&job, "up").await;
    assert_eq!(
        (get(&server, "/healthz").await.status(), get(&server, "/readyz").await.status()),
        (200.try_into().expect("a status"), 200.try_into().expect("a status"))
    );
    server.terminate();
    eventually("it is not ready any more", async || (get(&server, "/readyz").await.status() == 503).then_some(()))
        .await;
    assert_eq!(get(&server, "/healthz").await.status(), 200);
    assert_eq!(server.job(&job).await["status"], "RUNNING");
    std::fs::write(&go, "").expect("a file");
    assert!(server.ended().await.success());
    let server = server.restart();
    assert_eq!(server.job(&job).await["status"], "COMPLETE", "it was given the time to end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_the_grace() {
    let mut server = TestServer::with(&["--shutdown-grace", "600"]);
    let job = server.run_script("echo up; sleep 1000").await;
    server.line_appears(&job, "up").await;
    server.terminate();
    eventually("it is not ready any more", async || (get(&server, "/readyz").await.status() == 503).then_some(()))
        .await;
    signal(server.pid(), "INT");
    assert!(server.ended().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn graphiql_is_at_the_root() {
    let server = TestServer::with(&["--slots", "0"]);
    let page = get(&server, "/").await;
    assert_eq!((page.status().as_u16(), content_type(&page).as_str()), (200, "text/html; charset=utf-8"));
    assert!(page.text().await.expect("text").contains("graphiql"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_cannot_be_parsed_is_not_repeated() {
    let server = TestServer::with(&["--slots", "0"]);
    let query = "mutation { createPipeline(input: { properties: [{ name: \"a.b\", value: \"hunter2\" ) }";
    let refused = server.post(query, json!({})).await;
    assert_eq!(refused["errors"][0]["extensions"]["code"], "GRAPHQL_PARSE_FAILED");
    assert!(refused["errors"][0]["locations"][0]["column"].is_u64(), "{refused}");
    assert!(!refused.to_string().contains("hunter2"), "{refused}");
}
