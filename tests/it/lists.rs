//! Lists: pages, filters and counts; lookups.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::support::{TestServer, conformance, text, within};

const UNKNOWN: &str = "3f2b8c1e-6f0a-4c5e-9d3b-2a7f1e4c5d6b";
const PAGE: &str = "query($first: Int, $after: String, $last: Int, $before: String) { \
                    jobs(first: $first, after: $after, last: $last, before: $before) { \
                    edges { cursor node { id created } } nodes { id } totalCount \
                    pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }";

/// A server that runs nothing, with a workspace and a pipeline, and jobs of it beside the four that come with them.
async fn idle(more_jobs: usize) -> (TestServer, String, String) {
    let server = TestServer::with(&["--slots", "0"]);
    let created = server.change("createWorkspace", json!({ "name": "W" }), "workspace { id }").await;
    let workspace = text(&created["workspace"]["id"]).to_owned();
    let input = json!({ "workspaceId": workspace, "name": "P", "script": "true" });
    let created = server.change("createPipeline", input, "pipeline { id }").await;
    let pipeline = text(&created["pipeline"]["id"]).to_owned();
    queue(&server, &pipeline, more_jobs).await;
    (server, workspace, pipeline)
}

/// Queues that many verifications of a pipeline.
async fn queue(server: &TestServer, pipeline: &str, count: usize) {
    let one = |index: usize| format!("v{index}: verifyPipeline(input: {{ id: $id }}) {{ job {{ id }} }}");
    for start in (0..count).step_by(50) {
        let aliases: Vec<String> = (start..count.min(start + 50)).map(one).collect();
        server.data(&format!("mutation($id: ID!) {{ {} }}", aliases.join(" ")), json!({ "id": pipeline })).await;
    }
}

async fn page(server: &TestServer, arguments: Value) -> Value {
    server.data(PAGE, arguments).await["jobs"].take()
}

fn ids(page: &Value) -> Vec<String> {
    page["nodes"].as_array().expect("nodes").iter().map(|it| text(&it["id"]).to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_forwards_are_the_whole_list_newest_first() {
    let (server, _, _) = idle(6).await;
    let whole = page(&server, json!({})).await;
    assert_eq!((ids(&whole).len(), &whole["totalCount"]), (10, &json!(10)));
    let created: Vec<&str> =
        whole["edges"].as_array().expect("edges").iter().map(|it| text(&it["node"]["created"])).collect();
    assert!(created.is_sorted_by(|newer, older| newer >= older), "{created:?}");
    let mut seen = Vec::new();
    let mut after = Value::Null;
    loop {
        let part = page(&server, json!({ "first": 4, "after": after })).await;
        let info = &part["pageInfo"];
        assert_eq!(info["hasPreviousPage"], !seen.is_empty());
        assert_eq!(
            (&info["startCursor"], &info["endCursor"]),
            (&part["edges"][0]["cursor"], &part["edges"][ids(&part).len() - 1]["cursor"])
        );
        assert_eq!(part["totalCount"], 10);
        seen.extend(ids(&part));
        after = info["endCursor"].clone();
        if info["hasNextPage"] == false {
            break;
        }
        assert!(seen.len() < 10, "there is no next page");
    }
    assert_eq!(seen, ids(&whole));
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_backwards_are_the_whole_list_from_its_end() {
    let (server, _, _) = idle(6).await;
    let whole = ids(&page(&server, json!({})).await);
    let mut seen = Vec::new();
    let mut before = Value::Null;
    loop {
        let part = page(&server, json!({ "last": 4, "before": before })).await;
        let info = &part["pageInfo"];
        assert_eq!(info["hasNextPage"], !seen.is_empty());
        seen = [ids(&part), seen].concat();
        before = info["startCursor"].clone();
        if info["hasPreviousPage"] == false {
            break;
        }
        assert!(seen.len() < 10, "there is no previous page");
    }
    assert_eq!(seen, whole);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_between_two_cursors_has_neither_of_their_items() {
    let (server, _, _) = idle(6).await;
    let whole = page(&server, json!({})).await;
    let cursor = |index: usize| whole["edges"][index]["cursor"].clone();
    let between = json!({ "after": cursor(2), "before": cursor(7) });
    assert_eq!(ids(&page(&server, between.clone()).await), ids(&whole)[3..7]);
    let mut first = between.clone();
    first["first"] = json!(2);
    assert_eq!(ids(&page(&server, first).await), ids(&whole)[3..5]);
    let mut last = between;
    last["last"] = json!(2);
    assert_eq!(ids(&page(&server, last).await), ids(&whole)[5..7]);
    let past_the_end = page(&server, json!({ "after": cursor(9) })).await;
    assert_eq!(ids(&past_the_end), Vec::<String>::new());
    assert_eq!(past_the_end["pageInfo"]["endCursor"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_go_on_where_they_were_while_jobs_come_and_go() {
    let (server, _, pipeline) = idle(6).await;
    let whole = ids(&page(&server, json!({})).await);
    let first = page(&server, json!({ "first": 4 })).await;
    queue(&server, &pipeline, 3).await;
    let at_the_cursor = whole[3].clone();
    server.change("deleteJob", json!({ "id": at_the_cursor }), "deletedJobId").await;
    let rest = page(&server, json!({ "first": 500, "after": first["pageInfo"]["endCursor"] })).await;
    assert_eq!(ids(&rest), whole[4..]);
    let newer = page(&server, json!({ "before": first["pageInfo"]["startCursor"] })).await;
    assert_eq!(ids(&newer).len(), 3);
    assert!(ids(&newer).iter().all(|it| !whole.contains(it)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_has_50_items_unless_it_is_asked_for_1_to_500() {
    let (server, _, _) = idle(500).await;
    assert_eq!(ids(&page(&server, json!({})).await).len(), 50);
    for (arguments, size) in [
        (json!({ "first": 1 }), 1),
        (json!({ "first": 500 }), 500),
        (json!({ "last": 500 }), 500),
        (json!({ "first": null, "last": null }), 50),
    ] {
        let part = page(&server, arguments).await;
        assert_eq!((ids(&part).len(), &part["totalCount"]), (size, &json!(504)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_page_arguments_are_told_all_at_once() {
    let (server, workspace, pipeline) = idle(0).await;
    let data = server.data("{ jobs(first: 1) { cursor edges { cursor } } }", json!({})).await;
    let (of_stream, of_list) = (text(&data["jobs"]["cursor"]), text(&data["jobs"]["edges"][0]["cursor"]));
    let wrong: [(String, &[&str]); 9] = [
        ("first: 0".to_owned(), &["first"]),
        ("first: 501".to_owned(), &["first"]),
        ("last: 501".to_owned(), &["last"]),
        ("last: -1".to_owned(), &["last"]),
        ("first: 5, last: 5".to_owned(), &["last"]),
        ("after: \"\"".to_owned(), &["after"]),
        (format!("before: \"{of_stream}\""), &["before"]),
        (format!("after: \"{of_list}A\""), &["after"]),
        ("first: 0, after: \"x\", before: \"y\"".to_owned(), &["after", "before", "first"]),
    ];
    for (arguments, paths) in wrong {
        for query in [
            format!("{{ jobs({arguments}) {{ totalCount }} }}"),
            format!("{{ workspaces({arguments}) {{ totalCount }} }}"),
            format!("{{ pipelines(workspaceId: \"{workspace}\", {arguments}) {{ totalCount }} }}"),
            format!("{{ workspace(id: \"{workspace}\") {{ jobs({arguments}) {{ totalCount }} }} }}"),
            format!("{{ workspace(id: \"{workspace}\") {{ pipelines({arguments}) {{ totalCount }} }} }}"),
            format!("{{ pipeline(id: \"{pipeline}\") {{ jobs({arguments}) {{ totalCount }} }} }}"),
        ] {
            assert_eq!(server.refusal(&query, json!({})).await.paths(), paths, "{query}");
        }
    }
    let query = "{ jobs(workspaceId: \"a\", pipelineId: \"b\", first: 0) { totalCount } }";
    assert_eq!(server.refusal(query, json!({})).await.paths(), ["first", "pipelineId", "workspaceId"]);
    let query = "{ pipelines(workspaceId: \"a\", last: 0) { totalCount } }";
    assert_eq!(server.refusal(query, json!({})).await.paths(), ["last", "workspaceId"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_combine_and_an_empty_list_matches_none() {
    let (server, workspace, pipeline) = idle(3).await;
    let other = server.change("createWorkspace", json!({ "name": "Other" }), "workspace { id }").await;
    let other = text(&other["workspace"]["id"]);
    let run = server.run(&pipeline).await;
    server.stop(&run).await;
    let run = server.run(&pipeline).await;
    let of = |id: &str| format!("workspaceId: \"{id}\"");
    let of_pipeline = format!("pipelineId: \"{pipeline}\"");
    for (filter, count) in [
        ("first: 1".to_owned(), 12),
        (of(&workspace), 9),
        (of(other), 3),
        (of_pipeline.clone(), 6),
        (format!("{of_pipeline}, {}", of(&workspace)), 6),
        (format!("{of_pipeline}, {}", of(other)), 0),
        ("type: [PIPELINE_RUN]".to_owned(), 2),
        ("type: [PIPELINE_RUN, WORKSPACE_INIT]".to_owned(), 4),
        ("type: PIPELINE_RUN, status: STOPPED".to_owned(), 1),
        ("status: [QUEUED]".to_owned(), 10),
        // The first pipeline completed the import task.
        ("status: [COMPLETE, STOPPED]".to_owned(), 2),
        ("status: [RUNNING, ERROR]".to_owned(), 0),
        ("type: []".to_owned(), 0),
        ("status: []".to_owned(), 0),
        ("type: null, status: null, workspaceId: null".to_owned(), 12),
        (format!("{of_pipeline}, type: [PIPELINE_RUN], status: [QUEUED]"), 1),
    ] {
        let data = server.data(&format!("{{ jobs({filter}) {{ totalCount nodes {{ id }} }} }}"), json!({})).await;
        let listed = ids(&data["jobs"]).len();
        assert_eq!(
            (&data["jobs"]["totalCount"], listed),
            (&json!(count), count.min(if filter == "first: 1" { 1 } else { 50 })),
            "{filter}"
        );
    }
    let query = "query($w: ID!, $p: ID!) { workspace(id: $w) { jobs(type: [PIPELINE_RUN], status: [QUEUED]) { nodes { id } } \
                 pipelines { nodes { id } totalCount } } pipeline(id: $p) { jobs(type: [PIPELINE_RUN], status: [QUEUED]) { nodes { id } } } }";
    let nested = server.data(query, json!({ "w": workspace, "p": pipeline })).await;
    assert_eq!(ids(&nested["workspace"]["jobs"]), std::slice::from_ref(&run));
    assert_eq!(ids(&nested["pipeline"]["jobs"]), [run]);
    assert_eq!(nested["workspace"]["pipelines"], json!({ "nodes": [{ "id": pipeline }], "totalCount": 1 }));
    let query = "query($id: ID!) { pipelines(workspaceId: $id) { totalCount nodes { id } } }";
    let none = server.data(query, json!({ "id": other })).await;
    assert_eq!(none["pipelines"], json!({ "totalCount": 0, "nodes": [] }));
}

#[tokio::test(flavor = "multi_thread")]
async fn workspaces_and_pipelines_are_listed_newest_first_in_pages() {
    let server = TestServer::with(&["--slots", "0"]);
    let mut workspaces = Vec::new();
    for name in ["a", "b", "c"] {
        let created = server.change("createWorkspace", json!({ "name": name }), "workspace { id }").await;
        workspaces.insert(0, text(&created["workspace"]["id"]).to_owned());
    }
    let mut pipelines = Vec::new();
    for name in ["a", "b", "c"] {
        let input = json!({ "workspaceId": workspaces[0], "name": name });
        let created = server.change("createPipeline", input, "pipeline { id }").await;
        pipelines.insert(0, text(&created["pipeline"]["id"]).to_owned());
    }
    let page = "totalCount nodes { id } pageInfo { hasNextPage hasPreviousPage startCursor endCursor }";
    for (list, scope, expected) in [
        ("workspaces", String::new(), workspaces.clone()),
        ("pipelines", format!("workspaceId: \"{}\"", workspaces[0]), pipelines),
    ] {
        let read = async |arguments: String| {
            server.data(&format!("{{ {list}({scope} {arguments}) {{ {page} }} }}"), json!({})).await[list].take()
        };
        let first = read("first: 2".to_owned()).await;
        assert_eq!((ids(&first), &first["totalCount"]), (expected[..2].to_vec(), &json!(3)));
        let rest = read(format!("after: {}", first["pageInfo"]["endCursor"])).await;
        assert_eq!((ids(&rest), &rest["pageInfo"]["hasNextPage"]), (expected[2..].to_vec(), &json!(false)));
        let last = read("last: 1".to_owned()).await;
        assert_eq!((ids(&last), &last["pageInfo"]["hasPreviousPage"]), (expected[2..].to_vec(), &json!(true)));
        let rest = read(format!("last: 2, before: {}", last["pageInfo"]["startCursor"])).await;
        assert_eq!((ids(&rest), &rest["pageInfo"]["hasPreviousPage"]), (expected[..2].to_vec(), &json!(false)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lookup_of_what_is_unknown_is_null_and_a_list_in_it_is_not_found() {
    let (server, _, pipeline) = idle(0).await;
    for field in ["node", "job", "workspace", "pipeline"] {
        let query = format!("query($id: ID!) {{ {field}(id: $id) {{ id }} }}");
        assert_eq!(server.data(&query, json!({ "id": UNKNOWN })).await[field], Value::Null, "{field}");
        for malformed in ["", "7", "3f2b8c1e-6f0a-4c5e-9d3b-2a7f1e4c5d6z"] {
            assert_eq!(server.refusal(&query, json!({ "id": malformed })).await.paths(), ["id"], "{field}");
        }
    }
    for query in [
        "query($id: ID!) { jobs(workspaceId: $id) { totalCount } }",
        "query($id: ID!) { jobs(pipelineId: $id) { totalCount } }",
        "query($id: ID!) { pipelines(workspaceId: $id) { totalCount } }",
    ] {
        assert_eq!(server.code(query, json!({ "id": UNKNOWN })).await, "NOT_FOUND", "{query}");
    }
    // An id of something else is unknown too.
    assert_eq!(server.job(&pipeline).await, Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_found_by_its_id_whatever_it_is() {
    let (server, workspace, pipeline) = idle(0).await;
    let input = json!({ "workspaceId": workspace, "email": "a@example.com" });
    let invited = server.change("createInvitation", input, "invitation { id } job { id }").await;
    for (id, type_) in [
        (&json!(workspace), "Workspace"),
        (&json!(pipeline), "Pipeline"),
        (&invited["job"]["id"], "Job"),
        (&invited["invitation"]["id"], "Invitation"),
    ] {
        let query = "query($id: ID!) { node(id: $id) { __typename id ... on Job { workspace { id } } \
                     ... on Pipeline { workspace { id } } ... on Invitation { workspace { id } } } }";
        let node = server.data(query, json!({ "id": id })).await["node"].take();
        assert_eq!((&node["__typename"], &node["id"]), (&json!(type_), id));
        if type_ != "Workspace" {
            assert_eq!(node["workspace"]["id"], *workspace);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_changes_after_the_cursor_of_a_page_go_on_from_the_page() {
    let server = TestServer::start();
    let workspace = server.workspace("W").await;
    let mut pipelines = Vec::new();
    for index in 0..8 {
        pipelines.push(server.pipeline(&workspace, &format!("P{index}"), "true").await);
    }
    let mut pages = Vec::new();
    let query = "{ jobs(type: [PIPELINE_RUN], first: 500) { cursor nodes { id status } } }";
    for pipeline in &pipelines {
        server.run(pipeline).await;
        pages.push(server.data(query, json!({})).await["jobs"].take());
    }
    for page in pages {
        let mut client = server.client().await;
        let query = "subscription($after: String) { jobStatusChanged(after: $after) { jobId status previousStatus initial job { type } } }";
        let changes = client.begin(query, json!({ "after": page["cursor"] })).await.expect("a subscription");
        let mut status: HashMap<String, Value> = HashMap::new();
        for job in page["nodes"].as_array().expect("nodes") {
            status.insert(text(&job["id"]).to_owned(), job["status"].clone());
        }
        let complete = |status: &HashMap<String, Value>| status.values().filter(|it| **it == "COMPLETE").count();
        while complete(&status) < pipelines.len() {
            let change =
                within(client.next_data(&changes)).await.expect("a change").expect("no end")["jobStatusChanged"].take();
            assert_eq!((&change["initial"], &change["job"]["type"]), (&json!(false), &json!("PIPELINE_RUN")));
            let before = status.insert(text(&change["jobId"]).to_owned(), change["status"].clone());
            assert_eq!(change["previousStatus"], before.unwrap_or(Value::Null), "a gap, or a repetition");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fields_of_an_answer_come_in_the_order_in_which_they_were_asked_for() {
    let server = TestServer::with(&["--slots", "0"]);
    server.data("mutation { createWorkspace(input: { name: \"W\" }) { workspace { id } } }", json!({})).await;
    let query = "query One { __typename } query Other { b: workspaces { totalCount nodes { ...W status jobs { nodes { \
                 workspace { name } id ... on Node { id } type } } id } } __typename a: jobs { cursor } } \
                 fragment W on Workspace { pipelines { totalCount } name }";
    let body = json!({ "query": query, "operationName": "Other" });
    let answer = server.http().post(server.url("/graphql")).json(&body).send().await.expect("an answer");
    let answer = answer.text().await.expect("a text");
    conformance::check(&body, &serde_json::from_str(&answer).expect("JSON"));
    let keys = [
        "b",
        "totalCount",
        "nodes",
        "pipelines",
        "name",
        "status",
        "jobs",
        "workspace",
        "type",
        "id",
        "__typename",
        "a",
    ];
    let mut rest = answer.as_str();
    for key in keys {
        let place = rest.find(&format!("\"{key}\":")).unwrap_or_else(|| panic!("{key} is not in its place: {answer}"));
        rest = &rest[place..];
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fragment_of_a_mutation_may_be_used_by_another_operation_or_fragment() {
    let server = TestServer::with(&["--slots", "0"]);
    let fragment = |name: &str| {
        format!(
            "fragment {name} on Mutation {{ createWorkspace(input: {{ name: \"{name}\" }}) {{ workspace {{ name }} }} }}"
        )
    };
    for (name, document) in [
        ("F", format!("mutation A {{ ...F }} mutation B {{ ...F }} {}", fragment("F"))),
        (
            "G",
            format!("mutation A {{ ...G }} mutation B {{ ...H }} fragment H on Mutation {{ ...G }} {}", fragment("G")),
        ),
        ("I", format!("mutation A {{ ... on Mutation {{ ...I }} }} {}", fragment("I"))),
    ] {
        let response = post(&server, &json!({ "query": document, "operationName": "A" })).await;
        let expected = json!({ "data": { "createWorkspace": { "workspace": { "name": name } } } });
        assert_eq!(response, expected, "{document}");
    }
    let unused = format!("mutation A {{ __typename }} {}", fragment("J"));
    let response = post(&server, &json!({ "query": unused })).await;
    assert_eq!(response["errors"][0]["extensions"]["code"], "GRAPHQL_VALIDATION_FAILED", "{response}");
}

async fn post(server: &TestServer, body: &Value) -> Value {
    let response = server.http().post(server.url("/graphql")).json(body).send().await.expect("a response");
    response.json().await.expect("JSON")
}
