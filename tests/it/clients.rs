//! Clients that people use, against the server. What each does is in a script of its own in `tests/clients`, or in
//! `examples/typescript`.

mod script;

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use self::script::Script;
use crate::support::{TestServer, installation, text, wait_for};

const TOKEN: &str = "jobstream-test-3f2b8c1e6f0a";
/// Not where other tests have their connections: one of those could get the port while the server restarts.
const ADDRESS: &str = "127.0.0.2:0";

fn start() -> TestServer {
    TestServer::listening(ADDRESS, &["--retry-backoff", "0", "--stop-grace", "0.3"], &[("JOBSTREAM_TOKEN", TOKEN)])
}

/// The command, told where the server is and what it wants to be shown.
fn aimed_at(server: &TestServer, mut command: Command) -> Command {
    command.env("JOBSTREAM_URL", server.url("/graphql")).env("JOBSTREAM_TOKEN", TOKEN);
    command
}

/// A pipeline whose first attempt prints three lines and is then held until the server is killed. The second ends.
async fn held_pipeline(server: &TestServer) -> String {
    let workspace = server.workspace("Workspace").await;
    let script = format!(
        "for line in 1 2 3; do echo \"attempt $JOBSTREAM_ATTEMPT, line $line\"; done\n\
         [ $JOBSTREAM_ATTEMPT = 2 ] || {{ {}; }}",
        wait_for(&server.scratch().join("never"))
    );
    server.pipeline_with(json!({ "workspaceId": workspace, "name": "Held", "script": script, "maxRetries": 1 })).await
}

/// The log of a pipeline's only run: numbers and texts.
async fn log_of_the_run(server: &TestServer, pipeline: &str) -> Vec<Value> {
    let query = "query($id: ID!) { jobs(pipelineId: $id, type: [PIPELINE_RUN]) { nodes { id } } }";
    let jobs = server.data(query, json!({ "id": pipeline })).await;
    let [job] = jobs["jobs"]["nodes"].as_array().expect("jobs").as_slice() else { panic!("not one run: {jobs}") };
    let lines = server.log_lines(text(&job["id"])).await;
    lines.iter().map(|line| json!([line["sequence"], line["text"]])).collect()
}

/// A client that follows a run while the server is killed and started again, and sees everything once.
async fn resumes(command: Option<Command>) {
    let Some(mut command) = command else { return };
    let server = start();
    let pipeline = held_pipeline(&server).await;
    command.env("JOBSTREAM_PIPELINE", &pipeline);
    let mut client = Script::start(aimed_at(&server, command));
    client.says("following 3").await;
    let server = server.kill_and_restart_in_place();
    let saw: Value = serde_json::from_str(&client.ends_well().await).expect("JSON");

    let changes = json!([["QUEUED", 1], ["RUNNING", 1], ["QUEUED", 2], ["RUNNING", 2], ["COMPLETE", 2]]);
    assert_eq!(saw["changes"], changes);
    let lines = log_of_the_run(&server, &pipeline).await;
    assert_eq!(lines.len(), 7, "three of each attempt, and what the server says between them: {lines:?}");
    assert_eq!((&saw["lines"], &saw["complete"]), (&json!(lines), &json!(true)));
}

#[tokio::test(flavor = "multi_thread")]
async fn graphql_ws_queries_mutates_subscribes_is_refused_and_resumes() {
    resumes(installation::node("graphql-ws.js")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn graphql_sse_queries_mutates_subscribes_is_refused_and_resumes() {
    resumes(installation::node("graphql-sse.js")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn apollo_queries_mutates_subscribes_is_refused_and_resumes() {
    resumes(installation::node("apollo.js")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn urql_queries_mutates_subscribes_is_refused_and_resumes() {
    resumes(installation::node("urql.js")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gql_queries_mutates_subscribes_is_refused_and_resumes() {
    resumes(installation::python("gql_client.py")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_audit_of_graphql_over_http_passes() {
    let Some(command) = installation::node("graphql-http.js") else { return };
    let server = start();
    assert_eq!(Script::start(aimed_at(&server, command)).ends_well().await, "61 of 61");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_typescript_example_is_as_generated_and_follows_a_run_across_a_restart() {
    let Some(example) = installation::typescript_example() else { return };
    let npm = async |task: &str| {
        let mut command = Command::new("npm");
        command.args(["run", "--silent", task]).current_dir(&example);
        Script::start(command).ends_well().await;
    };
    npm("generate").await;
    let generated = |root: &Path| std::fs::read_to_string(root.join("src/generated.ts")).expect("the generated types");
    let committed = generated(&Path::new(env!("CARGO_MANIFEST_DIR")).join(installation::TYPESCRIPT_EXAMPLE));
    assert!(
        generated(&example) == committed,
        "`npm run generate` in {} makes another",
        installation::TYPESCRIPT_EXAMPLE
    );
    npm("check").await;
    npm("build").await;

    let server = start();
    let pipeline = held_pipeline(&server).await;
    let mut command = Command::new("node");
    command.arg(example.join("dist/follow.js")).arg(&pipeline);
    let mut client = Script::start(aimed_at(&server, command));
    client.says("│ attempt 1, line 3").await;
    let server = server.kill_and_restart_in_place();
    let said = client.all_it_says().await;

    let beginning_with = |marks: &[char]| -> Vec<String> {
        let lines = said.iter().filter(|line| line.starts_with(marks));
        lines.map(|line| line.chars().skip(2).collect()).collect()
    };
    let changes =
        ["QUEUED, attempt 1", "RUNNING, attempt 1", "QUEUED, attempt 2", "RUNNING, attempt 2", "COMPLETE, attempt 2"];
    assert_eq!(beginning_with(&['●']), changes);
    let lines = log_of_the_run(&server, &pipeline).await;
    assert_eq!(beginning_with(&['│', '┆']), lines.iter().map(|line| text(&line[1])).collect::<Vec<_>>());
}
