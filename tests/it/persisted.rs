//! Operations that the server knows: those that clients have taught it, and those of a list.

use serde_json::{Value, json};

use crate::support::{TestServer, text};

const QUERY: &str = "query Names($first: Int) { workspaces(first: $first) { nodes { name } } }";
const HASH: &str = "04186e65fa6f1ed404a4ff1874aeca2be2ba9ddd57d55b137fd48b5c45e307ce";

async fn post(server: &TestServer, body: Value) -> Value {
    server.graphql(&body).await
}

fn code(response: &Value) -> &str {
    text(&response["errors"][0]["extensions"]["code"])
}

fn by_hash(hash: &str) -> Value {
    json!({ "persistedQuery": { "version": 1, "sha256Hash": hash } })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_was_sent_with_its_hash_is_known_by_it() {
    let server = TestServer::with(&["--slots=0"]);
    server.begin_workspace("W").await;
    let unknown = post(&server, json!({ "extensions": by_hash(HASH) })).await;
    assert_eq!(
        (code(&unknown), text(&unknown["errors"][0]["message"])),
        ("PERSISTED_QUERY_NOT_FOUND", "PersistedQueryNotFound")
    );

    let taught = post(&server, json!({ "query": QUERY, "extensions": by_hash(HASH) })).await;
    let expected = json!({ "data": { "workspaces": { "nodes": [{ "name": "W" }] } } });
    assert_eq!(taught, expected);
    let named = json!({ "extensions": by_hash(&HASH.to_uppercase()), "variables": { "first": 1 } });
    assert_eq!(post(&server, named).await, expected);

    // Over GET too, as clients do for the sake of caches.
    let url = format!("/graphql?extensions={}", urlencoded(&by_hash(HASH).to_string()));
    let over_get = server.http().get(server.url(&url)).send().await.expect("an answer");
    assert_eq!(over_get.json::<Value>().await.expect("JSON"), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hash_that_is_not_that_of_the_document_is_refused_and_nothing_is_learned() {
    let server = TestServer::with(&["--slots=0"]);
    let other = HASH.replace('2', "3");
    let wrong = post(&server, json!({ "query": QUERY, "extensions": by_hash(&other) })).await;
    assert_eq!(code(&wrong), "BAD_USER_INPUT");
    assert_eq!(code(&post(&server, json!({ "extensions": by_hash(&other) })).await), "PERSISTED_QUERY_NOT_FOUND");
    let version = json!({ "extensions": { "persistedQuery": { "version": 2, "sha256Hash": HASH } } });
    assert_eq!(code(&post(&server, version).await), "BAD_USER_INPUT");
    assert_eq!(code(&post(&server, json!({ "extensions": { "persistedQuery": 1 } })).await), "BAD_USER_INPUT");
    assert_eq!(code(&post(&server, json!({ "extensions": {} })).await), "BAD_USER_INPUT");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mutation_that_is_known_is_not_carried_out_over_get() {
    let mutation = "mutation { createWorkspace(input: { name: \"W\" }) { workspace { id } } }";
    let list = list(&json!({ "make": mutation }));
    let server = TestServer::with(&["--slots=0", "--operations", path(&list)]);
    let refused = server.http().get(server.url("/graphql?documentId=make")).send().await.expect("an answer");
    assert_eq!(refused.status(), 405);
    let done = post(&server, json!({ "documentId": "make" })).await;
    assert!(done["data"]["createWorkspace"]["workspace"]["id"].is_string(), "{done}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_list_nothing_else_is_carried_out() {
    let list = list(&json!({ "names": QUERY, "live": "subscription { jobStatusChanged { status } }" }));
    let server = TestServer::with(&["--slots=0", "--operations", path(&list)]);
    let expected = json!({ "data": { "workspaces": { "nodes": [] } } });
    for allowed in [
        json!({ "documentId": "names" }),
        json!({ "query": QUERY }),
        json!({ "documentId": format!("sha256:{HASH}") }),
        json!({ "extensions": by_hash(HASH) }),
        json!({ "query": QUERY, "extensions": by_hash(HASH) }),
    ] {
        assert_eq!(post(&server, allowed.clone()).await, expected, "{allowed}");
    }
    for (other, expected) in [
        (json!({ "query": "{ __typename }" }), "FORBIDDEN"),
        (json!({ "query": format!("{QUERY} ") }), "FORBIDDEN"),
        (json!({ "query": "{ __schema { types { name } } }" }), "FORBIDDEN"),
        (json!({ "query": "mutation { createWorkspace(input: { name: \"W\" }) { workspace { id } } }" }), "FORBIDDEN"),
        (json!({ "query": "{ __typename }", "documentId": "names" }), "FORBIDDEN"),
        (json!({ "documentId": "other" }), "PERSISTED_QUERY_NOT_FOUND"),
        (json!({ "extensions": by_hash(&HASH.replace('2', "3")) }), "PERSISTED_QUERY_NOT_FOUND"),
    ] {
        assert_eq!(code(&post(&server, other.clone()).await), expected, "{other}");
    }
    for (name, body) in [
        (
            "operationName",
            json!({ "query": format!("{QUERY} query Other {{ __typename }}"), "operationName": "Names" }),
        ),
        ("an event stream", json!({ "query": "{ __typename }" })),
    ] {
        let request = server.http().post(server.url("/graphql")).header("accept", "text/event-stream").json(&body);
        let events = request.send().await.expect("an answer").text().await.expect("events");
        assert!(events.contains("FORBIDDEN"), "{name}: {events}");
    }
    let mut wire = server.ready_wire().await;
    wire.say(json!({ "id": "1", "type": "subscribe", "payload": { "documentId": "names" } })).await;
    assert_eq!(wire.hear().await["payload"], expected, "by its id, over a WebSocket");
    let mut client = server.client().await;
    let refused = client.request("{ __typename }", json!({})).await;
    assert!(refused.is_err_and(|error| error.to_string().contains("FORBIDDEN")));
    let live = client.begin("subscription { jobStatusChanged { status } }", json!({})).await.expect("a connection");
    let other = client.begin("subscription { jobStatusChanged { attempt } }", json!({})).await.expect("a connection");
    assert!(client.next_data(&other).await.is_err());
    client.end(&live).await.expect("a connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_cannot_be_used_ends_the_start() {
    let malformed = list(&json!(["x"]));
    for (list, says) in [(path(&malformed), "is not a JSON object"), ("/no/such/file", "cannot be read")] {
        let directory = tempfile::tempdir().expect("a directory");
        let mut command = TestServer::command(directory.path());
        let ended = command.args(["--listen", "127.0.0.1:0", "--operations", list]).output().expect("it runs");
        assert_eq!(ended.status.code(), Some(1));
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(said.contains(says) && said.contains(list), "{said}");
    }
}

/// A file with this content.
fn list(content: &Value) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), content.to_string()).expect("a file");
    file
}

fn path(file: &tempfile::NamedTempFile) -> &str {
    file.path().to_str().expect("UTF-8")
}

fn urlencoded(text: &str) -> String {
    let mut url = reqwest::Url::parse("http://h").expect("a URL");
    url.query_pairs_mut().append_pair("x", text);
    url.query().and_then(|it| it.strip_prefix("x=")).unwrap_or_default().to_owned()
}
