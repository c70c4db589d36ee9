//! What a response shows belongs together, also while something else deletes it; and what fails is null where the schema allows null.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::support::{TestServer, text, within};

const UNKNOWN: &str = "3f2b8c1e-6f0a-4c5e-9d3b-2a7f1e4c5d6b";

/// How many workspaces are created and deleted while others read.
const DELETIONS: usize = 25;

/// A server on which jobs only wait.
fn changing() -> TestServer {
    TestServer::with_plugins(&["--slots=0", "--allow-private-webhooks"])
}

/// Creates and deletes workspaces, each with a pipeline, a webhook, a data component and jobs. A few are there at a time.
async fn create_and_delete(server: &TestServer) {
    let mut there = Vec::new();
    for number in 0..DELETIONS {
        let created = server.begin_workspace(&format!("W{number}")).await;
        let id = created["workspace"]["id"].clone();
        server.begin_pipeline(json!({ "workspaceId": id, "name": "P", "script": "true" })).await;
        let webhook = json!({ "workspaceId": id, "url": "http://127.0.0.1:1/" });
        server.change("createWebhook", webhook, "webhook { workspace { name } }").await;
        let component = json!({ "workspaceId": id, "name": "tap", "plugin": "tap-x" });
        server.change("createDataComponent", component, "dataComponent { workspace { name } }").await;
        there.push((id, created["jobs"][0]["id"].clone()));
        if there.len() > 4 {
            let (workspace, job) = there.remove(0);
            server.delete("Job", text(&job)).await;
            server.delete("Workspace", text(&workspace)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_has_no_errors_while_what_it_shows_is_deleted() {
    let server = Arc::new(changing());
    let over = Arc::new(AtomicBool::new(false));
    let queries = [
        "{ jobs { cursor nodes { id workspace { name } logs(first: 500) { lines { text } complete } } } }",
        "{ jobs { totalCount nodes { pipeline { name workspace { name } } workspace { jobs(first: 2) { nodes { \
         workspace { name } logs(last: 1) { nextSequence } } } } cause { type job { workspace { name } } } } } }",
        "{ workspaces(first: 20) { totalCount nodes { name pipelines(first: 5) { nodes { workspace { name } jobs(first: 5) { nodes { workspace { id } } } } } \
         webhooks(first: 5) { nodes { pendingDeliveries workspace { name } } } dataComponents(first: 5) { nodes { workspace { name } } } } } }",
        "{ a: jobs { nodes { id } } b: jobs { nodes { id workspace { id } } } c: workspaces { nodes { id } } }",
    ];
    let readers = queries.map(|query| {
        let (server, over) = (Arc::clone(&server), Arc::clone(&over));
        tokio::spawn(async move {
            let mut responses = 0;
            while !over.load(Ordering::Relaxed) {
                // What is missing is found by the check of every response.
                let data = server.data(query, json!({})).await;
                if !data["a"].is_null() {
                    let ids = |list: &Value| -> Vec<Value> {
                        list["nodes"].as_array().expect("nodes").iter().map(|it| it["id"].clone()).collect()
                    };
                    assert_eq!(ids(&data["a"]), ids(&data["b"]), "two lists of one response");
                    let workspaces = ids(&data["c"]);
                    let nodes = data["b"]["nodes"].as_array().expect("nodes");
                    assert!(nodes.iter().all(|job| workspaces.contains(&job["workspace"]["id"])), "{data}");
                }
                responses += 1;
            }
            responses
        })
    });
    create_and_delete(&server).await;
    over.store(true, Ordering::Relaxed);
    for reader in readers {
        assert!(reader.await.expect("every response is whole") > 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_has_no_errors_while_what_it_shows_is_deleted() {
    let server = changing();
    let mut subscribers = Vec::new();
    for (field, selection) in [
        ("jobStatusChanged", "jobId job { workspace { name } logs(first: 500) { lines { text } complete } }"),
        (
            "jobStatusChanged",
            "jobId job { pipeline { name workspace { name } } workspace { jobs { nodes { id workspace { id } } } } }",
        ),
        (
            "pipelineActivity",
            "jobId job { workspace { name } logs(first: 1) { complete } } pipeline { workspace { name } }",
        ),
    ] {
        let mut client = server.client().await;
        let operation = client.begin(&format!("subscription {{ {field} {{ {selection} }} }}"), json!({})).await;
        client.request("{ __typename }", json!({})).await.expect("an answer");
        subscribers.push((field, client, operation.expect("a subscription")));
    }
    let followed: Vec<_> = subscribers
        .into_iter()
        .map(|(field, mut client, operation)| {
            let (told, mut last) = tokio::sync::oneshot::channel::<Value>();
            let follow = tokio::spawn(async move {
                let (mut seen, mut wanted) = (Vec::new(), None);
                while wanted.as_ref().is_none_or(|job| !seen.contains(job)) {
                    tokio::select! {
                        event = client.next_data(&operation) => {
                            seen.push(event.expect("an event without errors").expect("no end")[field]["jobId"].clone());
                        }
                        job = &mut last, if wanted.is_none() => wanted = Some(job.expect("the last job")),
                    }
                }
            });
            (told, follow)
        })
        .collect();
    create_and_delete(&server).await;
    let workspace = server.begin_workspace("Last").await["workspace"]["id"].clone();
    let pipeline = server.begin_pipeline(json!({ "workspaceId": workspace, "name": "P", "script": "true" })).await;
    let last = &pipeline["job"]["id"];
    server.stop(text(last)).await;
    for (told, follow) in followed {
        told.send(last.clone()).expect("it still follows");
        within(follow).await.expect("every event is whole");
    }
}

/// A server with a workspace and a pipeline that do not change, and their jobs.
async fn still() -> (TestServer, Value) {
    let server = TestServer::with(&["--slots=0"]);
    let created = server.begin_workspace("W").await;
    let workspace = &created["workspace"]["id"];
    let pipeline = server.begin_pipeline(json!({ "workspaceId": workspace, "name": "P", "script": "true" })).await;
    let ids = json!({ "workspace": workspace, "pipeline": pipeline["pipeline"]["id"], "job": pipeline["job"]["id"] });
    (server, ids)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_field_is_null_or_else_its_parent() {
    let (server, ids) = still().await;
    let with_variables = |query: &str| {
        format!(
            "query($workspace: ID!, $pipeline: ID!, $job: ID!) {{ {query} \
        used: __typename @include(if: false) ...V @include(if: false) }} \
        fragment V on Query {{ v: workspace(id: $workspace) {{ id }} p: pipeline(id: $pipeline) {{ id }} j: job(id: $job) {{ id }} }}"
        )
    };
    for (query, data, path) in [
        // nullable: the field itself
        ("a: job(id: \"x\") { id }", json!({ "a": null }), json!(["a"])),
        (
            "a: job(id: \"x\") { id } b: workspaces { totalCount }",
            json!({ "a": null, "b": { "totalCount": 1 } }),
            json!(["a"]),
        ),
        (
            "job(id: $job) { pipeline { nextRuns(first: 0) } }",
            json!({ "job": { "pipeline": null } }),
            json!(["job", "pipeline", "nextRuns"]),
        ),
        // non-null: the parent, up to the first that may be null
        ("job(id: $job) { attempt logs(first: 0) { complete } }", json!({ "job": null }), json!(["job", "logs"])),
        (
            "job(id: $job) { workspace { pipelines { nodes { l: jobs(last: 0) { totalCount } } } } } __typename",
            json!({ "job": null, "__typename": "Query" }),
            json!(["job", "workspace", "pipelines", "nodes", 0, "l"]),
        ),
        (
            "node(id: $job) { id ... on Job { logs(first: 0) { complete } } }",
            json!({ "node": null }),
            json!(["node", "logs"]),
        ),
        ("node(id: $job) { ...L }", json!({ "node": null }), json!(["node", "logs"])),
        // or the data
        ("jobs(first: 0) { totalCount } b: workspaces { totalCount }", Value::Null, json!(["jobs"])),
        (
            "workspaces { totalCount nodes { name jobs(first: 0) { totalCount } } }",
            Value::Null,
            json!(["workspaces", "nodes", 0, "jobs"]),
        ),
        (
            "workspaces { totalCount nodes { name jobs(pipelineId: \"UNKNOWN\") { totalCount } } }",
            Value::Null,
            json!(["workspaces", "nodes", 0, "jobs"]),
        ),
    ] {
        let fragment = if query.contains("...L") { " fragment L on Job { logs(first: 0) { complete } }" } else { "" };
        let query = with_variables(&query.replace("UNKNOWN", UNKNOWN)) + fragment;
        let response = server.post(&query, ids.clone()).await;
        assert_eq!((&response["data"], &response["errors"][0]["path"]), (&data, &path), "{query}: {response}");
        assert!(response.as_object().is_some_and(|it| it.contains_key("data")), "{response}");
        assert_eq!(response["errors"].as_array().map(Vec::len), Some(1), "{response}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_and_an_event_are_null_where_something_in_them_fails() {
    let (server, ids) = still().await;
    let failing = "workspace { name jobs(first: 0) { totalCount } }";
    let response = server.mutate("createWorkspace", json!({ "name": "X" }), failing).await;
    assert_eq!(
        (&response["data"], &response["errors"][0]["path"]),
        (&Value::Null, &json!(["createWorkspace", "workspace", "jobs"]))
    );
    assert_eq!(
        server.data("{ workspaces { totalCount } }", json!({})).await["workspaces"]["totalCount"],
        2,
        "it is done"
    );

    let mut wire = server.ready_wire().await;
    let job = text(&ids["job"]);
    wire.subscribe("1", &format!("subscription {{ jobStatusChanged(jobId: \"{job}\") {{ status job {{ id logs(first: 0) {{ complete }} }} }} }}")).await;
    let event = wire.hear_of("1").await;
    assert_eq!(event["payload"]["data"], json!({ "jobStatusChanged": { "status": "QUEUED", "job": null } }), "{event}");
    assert_eq!(event["payload"]["errors"][0]["path"], json!(["jobStatusChanged", "job", "logs"]));
    server.stop(job).await;
    let event = wire.hear_of("1").await;
    assert_eq!(event["payload"]["data"]["jobStatusChanged"]["status"], "STOPPED", "the stream goes on: {event}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_of_which_no_field_is_selected_is_empty() {
    let (server, ids) = still().await;
    for (query, data) in [
        ("{ __typename @skip(if: true) }", json!({})),
        ("{ workspaces { nodes { name @skip(if: true) } } }", json!({ "workspaces": { "nodes": [{}] } })),
        (
            "{ workspaces @include(if: true) { ...P @skip(if: true) } } fragment P on WorkspaceConnection { totalCount }",
            json!({ "workspaces": {} }),
        ),
        ("query($job: ID!) { node(id: $job) { ... on Pipeline { name } } }", json!({ "node": {} })),
        (
            "query($job: ID!) { node(id: $job) { ...J } } fragment J on Job { attempt workspace { ...W } } fragment W on Workspace { name @include(if: false) }",
            json!({ "node": { "attempt": 1, "workspace": {} } }),
        ),
        (
            "query($job: ID!) { job(id: $job) { workspace { ...W } } } fragment W on Workspace { ... on Node { __typename } name }",
            json!({ "job": { "workspace": { "__typename": "Workspace", "name": "W" } } }),
        ),
        (
            "query($job: ID!) { job(id: $job) { logs { lines { text @skip(if: true) } complete } } }",
            json!({ "job": { "logs": { "lines": [], "complete": false } } }),
        ),
        (
            "query($job: ID!, $no: Boolean! = false) { job(id: $job) { attempt @include(if: $no) } }",
            json!({ "job": {} }),
        ),
        ("{ node(id: \"UNKNOWN\") { ... on Pipeline { name } } }", json!({ "node": null })),
    ] {
        let query = query.replace("UNKNOWN", UNKNOWN);
        assert_eq!(server.data(&query, ids.clone()).await, data, "{query}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_at_the_root_are_merged_and_found_in_fragments() {
    let (server, ids) = still().await;
    let query = "mutation { ...C createWorkspace(input: { name: \"X\" }) { jobs { type } } ... on Mutation { ...C } } \
                 fragment C on Mutation { createWorkspace(input: { name: \"X\" }) { workspace { name } } }";
    let created = server.data(query, json!({})).await;
    assert_eq!(created["createWorkspace"]["workspace"]["name"], "X");
    assert_eq!(created["createWorkspace"]["jobs"].as_array().map(Vec::len), Some(3));
    let conflict = "mutation { createWorkspace(input: { name: \"Y\" }) { __typename } \
                    createWorkspace(input: { name: \"Z\" }) { __typename } }";
    assert_eq!(server.code(conflict, json!({})).await, "GRAPHQL_VALIDATION_FAILED");
    assert_eq!(server.data("{ workspaces { totalCount } }", json!({})).await["workspaces"]["totalCount"], 2);

    let mut client = server.client().await;
    let query = "subscription($job: ID!) { ...S } fragment S on Subscription { ... { change: jobStatusChanged(jobId: $job) { status } } }";
    let changes = client.begin(query, ids).await.expect("a connection");
    let change = within(client.next_data(&changes)).await.expect("a change").expect("no end");
    assert_eq!(change, json!({ "change": { "status": "QUEUED" } }));
}
