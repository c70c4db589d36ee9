//! What is refused because it asks for too much, before it costs much.

use serde_json::{Value, json};

use crate::support::{TestServer, text};

/// Options that make each limit small.
const SMALL: &[&str] = &[
    "--slots=0",
    "--max-document-bytes=2000",
    "--max-tokens=300",
    "--max-selections=60",
    "--max-aliases=3",
    "--max-directives=3",
    "--max-depth=8",
    "--max-recursion=10",
    "--max-complexity=1000",
    "--max-page=20",
    "--max-log-page=30",
    "--max-request-bytes=5000",
];

async fn code(server: &TestServer, query: &str) -> Option<String> {
    let response = server.post(query, json!({})).await;
    response["errors"][0]["extensions"]["code"].as_str().map(str::to_owned)
}

/// Documents that a limit allows only just, and that it refuses only just.
fn either_side_of_each_limit() -> Vec<(&'static str, String, String)> {
    let repeated = |count: usize, part: &dyn Fn(usize) -> String| -> String { (0..count).map(part).collect() };
    let nested = |depth: usize| {
        let levels = (depth - 3) / 3;
        let open = "jobs(first: 1) { nodes { workspace { ".repeat(levels);
        format!("{{ {open} id {} }}", "} } }".repeat(levels))
    };
    let comment = |bytes: usize| format!("{{ __typename }} #{}", "x".repeat(bytes - 16));
    vec![
        ("bytes", comment(2_000), comment(2_001)),
        (
            "tokens",
            format!(
                "query($a: [Int!] = [{}]) {{ __typename @skip(if: false) ...on Query {{ jobs(first: 1) {{ totalCount }} }} }}",
                "1 ".repeat(100)
            ),
            format!("query($a: [Int!] = [{}]) {{ __typename }}", "1 ".repeat(300)),
        ),
        (
            "selections",
            format!("{{ {} }}", "__typename ".repeat(60)),
            "{ ...A } fragment A on Query { ...B ...B ...B } fragment B on Query { ...C ...C ...C } \
             fragment C on Query { ...D ...D ...D } fragment D on Query { __typename }"
                .to_owned(),
        ),
        (
            "aliases",
            format!("{{ {} }}", repeated(3, &|n| format!("a{n}: __typename "))),
            format!("{{ {} }}", repeated(4, &|n| format!("a{n}: __typename "))),
        ),
        (
            "directives",
            format!("{{ {} }}", "__typename @skip(if: true) ".repeat(3) + "__typename"),
            format!("{{ {} }}", "__typename @skip(if: true) ".repeat(4) + "__typename"),
        ),
        ("depth", nested(6), nested(12)),
        (
            "recursion",
            "{ ...A } fragment A on Query { ...B } fragment B on Query { __typename }".to_owned(),
            format!(
                "{{ ...F0 }} {} fragment F12 on Query {{ __typename }}",
                repeated(12, &|n| format!("fragment F{n} on Query {{ ...F{} }} ", n + 1))
            ),
        ),
        (
            "complexity",
            "{ jobs(first: 20) { nodes { id type status } } }".to_owned(),
            "{ workspaces(first: 20) { nodes { jobs(first: 20) { nodes { id type status } } } } }".to_owned(),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_limit_refuses_what_is_beyond_it_and_nothing_else() {
    let server = TestServer::with(SMALL);
    for (limit, allowed, refused) in either_side_of_each_limit() {
        let code_of_allowed = code(&server, &allowed).await;
        assert_ne!(code_of_allowed.as_deref(), Some("LIMIT_EXCEEDED"), "{limit}: {allowed}");
        assert_eq!(code(&server, &refused).await.as_deref(), Some("LIMIT_EXCEEDED"), "{limit}: {refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_limit_refuses_the_others_allow_by_default() {
    let server = TestServer::with(&["--slots=0"]);
    for (limit, allowed, refused) in either_side_of_each_limit() {
        for document in [allowed, refused] {
            assert_ne!(code(&server, &document).await.as_deref(), Some("LIMIT_EXCEEDED"), "{limit}: {document}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_beyond_the_largest_is_an_error() {
    let server = TestServer::with(SMALL);
    let job = "3f2b8c1e-6f0a-4c5e-9d3b-2a7f1e4c5d6b";
    for (query, path) in [
        ("{ jobs(first: 21) { totalCount } }".to_owned(), "first"),
        ("{ jobs(last: 0) { totalCount } }".to_owned(), "last"),
        ("{ workspaces(first: -1) { totalCount } }".to_owned(), "first"),
        (format!("{{ pipelines(workspaceId: \"{job}\", last: 21) {{ totalCount }} }}"), "last"),
    ] {
        assert_eq!(server.refusal(&query, json!({})).await.paths(), [path], "{query}");
    }
    for query in ["{ jobs(first: 20) { totalCount } }", "{ jobs { totalCount } }"] {
        server.data(query, json!({})).await;
    }
    let created = server.begin_workspace("W").await;
    let query = "query($id: ID!, $first: Int) { job(id: $id) { logs(first: $first) { complete } } }";
    let id = &created["jobs"][0]["id"];
    assert_eq!(server.refusal(query, json!({ "id": id, "first": 31 })).await.paths(), ["first"]);
    server.data(query, json!({ "id": id, "first": 30 })).await;
    server.data(query, json!({ "id": id })).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_asks_for_many_logs_gets_less_of_each() {
    let server = TestServer::with(&["--max-aliases=1000"]);
    let job = server.run_script(&format!("yes {} | head -n 20000", "x".repeat(199))).await;
    server.final_job(&job).await;
    let logs = (0..34).map(|n| format!("j{n}: job(id: $id) {{ logs(first: 10000) {{ nextSequence complete }} }} "));
    let query = format!("query($id: ID!) {{ {} }}", logs.collect::<String>());
    let answer = server.data(&query, json!({ "id": job })).await;
    let lines = |n: usize| answer[format!("j{n}")]["logs"]["nextSequence"].as_i64().expect("a number");
    // A line has 199 bytes of text. All that is left out can be read from there on.
    let (whole, less) = (1024 * 1024 / 199, 64 * 1024 / 199);
    assert_eq!((0..34).map(lines).filter(|it| *it == whole).count(), 32);
    assert_eq!((0..34).map(lines).filter(|it| *it == less).count(), 2);

    let logs = (0..60).map(|n| format!("l{n}: logs(first: {}) {{ complete }} ", n + 1)).collect::<String>();
    let jobs = (0..9).map(|n| format!("j{n}: job(id: $id) {{ {logs} }} ")).collect::<String>();
    assert_eq!(server.code(&format!("query($id: ID!) {{ {jobs} }}"), json!({ "id": job })).await, "LIMIT_EXCEEDED");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_introspection_that_tools_ask_for_is_allowed_unless_it_is_turned_off() {
    let query = "{ __schema { types { name } } __type(name: \"Job\") { name } }";
    let server = TestServer::with(&["--slots=0"]);
    assert_eq!(server.data(query, json!({})).await["__type"]["name"], "Job");

    let server = TestServer::with(&["--slots=0", "--introspection=false"]);
    for query in
        [query, "{ __type(name: \"Job\") { name } }", "{ ...A } fragment A on Query { s: __schema { types { name } } }"]
    {
        assert_eq!(server.code(query, json!({})).await, "FORBIDDEN", "{query}");
    }
    let misspelt = server.post("{ jbos { totalCount } }", json!({})).await;
    assert!(!text(&misspelt["errors"][0]["message"]).contains("jobs"), "no name is given away: {misspelt}");
    assert_eq!(server.data("{ __typename }", json!({})).await, json!({ "__typename": "Query" }));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_some_of_the_reasons_for_refusing_a_document_are_told() {
    let server = TestServer::with(&["--slots=0"]);
    let variables: String = (0..2_000).map(|n| format!("$v{n}:Int ")).collect();
    let response = server.post(&format!("query({variables}) {{ __typename }}"), json!({})).await;
    assert_eq!(response["errors"].as_array().map(Vec::len), Some(20));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_has_one_field() {
    let server = TestServer::with(&["--slots=0"]);
    let mut client = server.client().await;
    let query = "subscription { a: jobStatusChanged { status } b: jobStatusChanged { status } }";
    let operation = client.begin(query, json!({})).await.expect("a connection");
    match client.next_of(&operation).await.expect("an answer") {
        jobstream::client::Said::Error(errors) => {
            assert_eq!(errors[0]["extensions"]["code"], Value::from("BAD_USER_INPUT"));
        }
        other => panic!("it was not refused: {other:?}"),
    }
}
