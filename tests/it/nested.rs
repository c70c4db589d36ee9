//! Lists in lists: each parent's own are told, and however many parents there are, they are read together.

use serde_json::{Value, json};

use crate::support::{TestServer, on_postgres, text, within};

/// A server that runs nothing, with 20 workspaces of two pipelines and four jobs more than come with them.
async fn idle() -> TestServer {
    let server = TestServer::with(&["--slots", "0"]);
    for workspace in 0..20 {
        let created = server.begin_workspace(&format!("W{workspace}")).await;
        for name in ["A", "B"] {
            let input = json!({ "workspaceId": created["workspace"]["id"], "name": name, "script": "true" });
            let pipeline = text(&server.begin_pipeline(input).await["pipeline"]["id"]).to_owned();
            server.verify(&pipeline).await;
            server.run(&pipeline).await;
        }
    }
    server
}

/// A server on which 20 pipelines have run, with the lines 0 to 299 in the log of each, and the runs.
async fn ran() -> (TestServer, Vec<String>) {
    let server = TestServer::start();
    let workspace = server.workspace("W").await;
    let mut jobs = Vec::new();
    for index in 0..20 {
        let pipeline = server.pipeline(&workspace, &format!("P{index}"), "seq 0 299").await;
        jobs.push(server.run(&pipeline).await);
    }
    for job in &jobs {
        assert_eq!(server.final_job(job).await["status"], "COMPLETE");
    }
    (server, jobs)
}

/// How many statements a query takes. What else goes on in a server, and looking itself, only adds to them. The query has another
/// name each time, so that it is carried out each time.
async fn statements_of(server: &TestServer, query: &str, variables: &Value) -> u64 {
    let (mut least, mut looking) = (u64::MAX, u64::MAX);
    for attempt in 0..5 {
        let query = query.replacen("query(", &format!("query Q{}x{attempt}(", variables["n"]), 1);
        let before = server.sql_statements().await;
        server.data(&query, variables.clone()).await;
        let after = server.sql_statements().await;
        least = least.min(after - before);
        looking = looking.min(server.sql_statements().await - after);
    }
    least - looking
}

/// Where others write too, it is looked after each list of jobs whether the stream of changes has told of all that it shows.
fn in_step() -> u64 {
    if on_postgres() { 2 } else { 0 }
}

fn nodes(connection: &Value) -> &Vec<Value> {
    connection["nodes"].as_array().expect("nodes")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nested_query_takes_as_many_statements_for_20_parents_as_for_2() {
    let server = idle().await;
    let data = server.data("{ jobs(first: 1) { edges { cursor } } }", json!({})).await;
    let newest = text(&data["jobs"]["edges"][0]["cursor"]);
    for (selection, most) in [
        ("workspaces(first: $n) { totalCount nodes { jobs(first: 3) { nodes { id } } } }", 4),
        ("workspaces(first: $n) { nodes { jobs(first: 3) { totalCount cursor nodes { id } } } }", 4),
        ("workspaces(first: $n) { nodes { jobs(last: 3, status: QUEUED) { nodes { workspace { name } } } } }", 4),
        ("workspaces(first: $n) { nodes { jobs(first: 1, after: \"NEWEST\") { pageInfo { hasPreviousPage } } } }", 3),
        ("workspaces(first: $n) { nodes { pipelines { totalCount nodes { name workspace { name } } } } }", 4),
        ("workspaces(first: $n) { nodes { pipelines { nodes { jobs(first: 2) { totalCount nodes { id } } } } } }", 5),
        ("workspaces(first: $n) { nodes { a: jobs(first: 1) { cursor } b: jobs(last: 2) { nodes { id } } } }", 3),
        ("jobs(first: $n) { totalCount cursor nodes { workspace { name } } }", 4),
        (
            "jobs(first: $n, type: PIPELINE_RUN) { nodes { pipeline { name workspace { pipelines { totalCount } } } } }",
            6,
        ),
        ("jobs(first: $n) { nodes { logs(last: 2) { lines { text } complete } } }", 4),
    ] {
        let query = format!("query($n: Int) {{ {} }}", selection.replace("NEWEST", newest));
        let few = statements_of(&server, &query, &json!({ "n": 2 })).await;
        let many = statements_of(&server, &query, &json!({ "n": 100 })).await;
        assert_eq!(few, many, "{selection}");
        assert!((1..=most + in_step()).contains(&many), "{many} statements: {selection}");
    }
    // Here two lists are read side by side: what comes of them is read together or not, as they happen to be done.
    let query = "query($n: Int) { workspaces(first: $n) { nodes { jobs(first: 5) { totalCount nodes { pipeline { name } \
                 workspace { name } } } pipelines(first: 5) { totalCount nodes { workspace { name } jobs(first: 2) { \
                 totalCount cursor nodes { workspace { name } logs { nextSequence } } } } } } } }";
    for parents in [2, 20] {
        let taken = statements_of(&server, query, &json!({ "n": parents })).await;
        assert!((1..=15 + 2 * in_step()).contains(&taken), "{taken} statements for {parents} parents");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_logs_of_20_jobs_take_as_many_statements_as_those_of_2() {
    let (server, _) = ran().await;
    for arguments in ["", "(first: 3)", "(last: 3)", "(sequence: 290, first: 5)", "(sequence: 1000)"] {
        let query = format!(
            "query($n: Int) {{ jobs(type: PIPELINE_RUN, first: $n) {{ nodes {{ logs{arguments} {{ lines {{ text }} }} }} }} }}"
        );
        let few = statements_of(&server, &query, &json!({ "n": 2 })).await;
        let many = statements_of(&server, &query, &json!({ "n": 100 })).await;
        assert_eq!(few, many, "{arguments}");
        assert!((1..=5 + in_step()).contains(&many), "{many} statements: {arguments}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_many_jobs_has_the_lines_of_its_own_log() {
    let (server, jobs) = ran().await;
    let other = server.run_script("echo one; echo two; echo three").await;
    server.final_job(&other).await;
    let query = "{ jobs(type: PIPELINE_RUN) { nodes { id all: logs { lines { text } nextSequence complete } \
                 last: logs(last: 2) { lines { sequence text } nextSequence complete } \
                 some: logs(sequence: 1, first: 1) { lines { sequence text } nextSequence complete } \
                 past: logs(sequence: 1000) { lines { text } nextSequence complete } } } }";
    let data = server.data(query, json!({})).await;
    assert_eq!(nodes(&data["jobs"]).len(), jobs.len() + 1);
    for job in nodes(&data["jobs"]) {
        let stored = server.log_text(text(&job["id"])).await;
        let stored: Vec<&str> = stored.lines().collect();
        let end = stored.len();
        let lines: Vec<&str> =
            job["all"]["lines"].as_array().expect("lines").iter().map(|it| text(&it["text"])).collect();
        assert_eq!((&lines, end), (&stored, if job["id"] == *other { 3 } else { 300 }));
        assert_eq!((&job["all"]["nextSequence"], &job["all"]["complete"]), (&json!(end), &json!(true)));
        let line = |index: usize| json!({ "sequence": index, "text": stored[index] });
        let last = json!({ "lines": [line(end - 2), line(end - 1)], "nextSequence": end, "complete": true });
        assert_eq!(job["last"], last);
        assert_eq!(job["some"], json!({ "lines": [line(1)], "nextSequence": 2, "complete": false }));
        assert_eq!(job["past"], json!({ "lines": [], "nextSequence": end, "complete": true }));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nested_list_is_that_of_its_parent_alone() {
    let server = idle().await;
    let page =
        "totalCount edges { cursor } nodes { id } pageInfo { hasNextPage hasPreviousPage startCursor endCursor }";
    let query = format!(
        "{{ workspaces {{ nodes {{ id two: jobs(first: 2) {{ {page} }} runs: jobs(last: 1, type: PIPELINE_RUN) {{ {page} }} \
         none: jobs(status: []) {{ {page} }} pipelines(first: 1) {{ {page} nodes {{ jobs(last: 1) {{ {page} }} \
         workspace {{ id }} }} }} }} }} }}"
    );
    let data = server.data(&query, json!({})).await;
    assert_eq!(nodes(&data["workspaces"]).len(), 20);
    for workspace in nodes(&data["workspaces"]) {
        let query = format!(
            "query($id: ID!, $pipeline: ID!) {{ two: jobs(workspaceId: $id, first: 2) {{ {page} }} \
             runs: jobs(workspaceId: $id, last: 1, type: PIPELINE_RUN) {{ {page} }} \
             none: jobs(workspaceId: $id, status: []) {{ {page} }} \
             pipelines(workspaceId: $id, first: 1) {{ {page} }} jobs(pipelineId: $pipeline, last: 1) {{ {page} }} }}"
        );
        let pipeline = &workspace["pipelines"]["nodes"][0];
        let alone = server.data(&query, json!({ "id": workspace["id"], "pipeline": pipeline["id"] })).await;
        for list in ["two", "runs", "none"] {
            assert_eq!(workspace[list], alone[list], "{list}");
        }
        assert_eq!(workspace["pipelines"]["pageInfo"], alone["pipelines"]["pageInfo"]);
        assert_eq!((&workspace["two"]["totalCount"], &workspace["pipelines"]["totalCount"]), (&json!(9), &json!(2)));
        assert_eq!((&pipeline["jobs"], &pipeline["workspace"]["id"]), (&alone["jobs"], &workspace["id"]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nested_query_costs_what_its_pages_can_hold() {
    let server = TestServer::with(&["--slots", "0"]);
    for (query, refused) in [
        (
            "{ workspaces(first: 20) { nodes { pipelines(first: 10) { nodes { jobs(first: 5) { nodes { id } } } } } } }",
            false,
        ),
        ("{ workspaces(first: 500) { nodes { jobs(first: 500) { nodes { id } } } } }", true),
        ("{ workspaces(last: 500) { nodes { jobs(last: 500) { nodes { id } } } } }", true),
        ("{ workspaces(first: 500) { nodes { pipelines { nodes { jobs { nodes { id } } } } } } }", true),
        ("{ jobs(first: 50) { nodes { logs { lines { sequence timestamp stream text } } } } }", false),
        ("{ jobs(first: 500) { nodes { logs(first: 10000) { lines { text } } } } }", true),
    ] {
        let answer = server.post(query, json!({})).await;
        let code = &answer["errors"][0]["extensions"]["code"];
        assert_eq!(*code, if refused { json!("LIMIT_EXCEEDED") } else { Value::Null }, "{query}: {answer}");
    }
    // More than any number can count.
    let open = "jobs(first: 500) { nodes { workspace { ".repeat(12);
    let query = format!("{{ {open} id {} }}", "} } } ".repeat(12));
    assert_eq!(server.code(&query, json!({})).await, "LIMIT_EXCEEDED");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_in_a_nested_list_is_refused_once_and_keeps_nobody_waiting() {
    let server = idle().await;
    let unknown = "3f2b8c1e-6f0a-4c5e-9d3b-2a7f1e4c5d6b";
    for (arguments, code) in
        [(format!("pipelineId: \"{unknown}\""), "NOT_FOUND"), ("first: 0".to_owned(), "BAD_USER_INPUT")]
    {
        let query = format!(
            "{{ workspaces(first: 20) {{ nodes {{ a: jobs(last: 5) {{ totalCount }} b: jobs({arguments}) {{ totalCount }} \
             pipelines(first: 2) {{ nodes {{ workspace {{ jobs({arguments}) {{ totalCount }} }} }} }} }} }} }}"
        );
        assert_eq!(within(server.code(&query, json!({}))).await, code);
    }
}
