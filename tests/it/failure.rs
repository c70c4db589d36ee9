//! `Job.failure`: why a job ended with ERROR.

use serde_json::{Value, json};

use crate::support::{TestServer, text};

async fn failure(server: &TestServer, job: &str) -> Value {
    server.final_job(job).await;
    let query = "query($id: ID!) { job(id: $id) { failure { summary plugin line } } }";
    server.data(query, json!({ "id": job })).await["job"]["failure"].take()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_script_it_is_the_line_that_speaks_of_an_error() {
    let server = TestServer::start();
    let job = server.run_script("echo working; echo 'error: the disk is on fire' >&2; echo bye >&2; exit 3").await;
    assert_eq!(failure(&server, &job).await["summary"], "error: the disk is on fire");
    let line = failure(&server, &job).await["line"].as_u64().expect("a number");
    let lines = server.log_lines(&job).await;
    assert_eq!(lines[usize::try_from(line).expect("small")]["text"], "error: the disk is on fire");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_silent_script_it_is_the_exit_code() {
    let server = TestServer::start();
    let job = server.run_script("exit 3").await;
    assert_eq!(failure(&server, &job).await, json!({ "summary": "Exit code 3.", "plugin": null, "line": null }));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_did_not_fail_has_none() {
    let server = TestServer::start();
    let job = server.run_script("echo 'error: not really' >&2").await;
    assert_eq!(failure(&server, &job).await, Value::Null);
    let server = TestServer::start();
    let stopped = server.run_script("sleep 60").await;
    server.change("stopJob", json!({ "id": stopped }), "__typename").await;
    assert_eq!(failure(&server, &stopped).await, Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_job_that_was_lost_it_is_what_the_server_says() {
    let server = TestServer::start();
    let job = server.run_script("echo up; sleep 60").await;
    server.line_appears(&job, "up").await;
    let server = server.kill_and_restart();
    let failure = failure(&server, &job).await;
    assert!(text(&failure["summary"]).starts_with("The server ended while the job was running"), "{failure}");
    assert_eq!(failure["line"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_plugin_it_is_its_exception() {
    let Some(server) = TestServer::with_meltano(&[]) else { return };
    let workspace = server.workspace("W").await;
    let input = json!({
        "workspaceId": workspace, "name": "P", "dataComponents": ["tap-x", "target-y"],
        "properties": [{ "name": "tap-x.behaviour", "value": "raise" }, { "name": "tap-x.password", "value": "hunter2" }],
    });
    let pipeline = server.pipeline_with(input).await;
    let job = server.run(&pipeline).await;
    let failure = failure(&server, &job).await;
    assert_eq!((text(&failure["summary"]), text(&failure["plugin"])), ("ValueError: the source is gone", "tap-x"));
    let log = server.log_text(&job).await;
    assert!(log.contains("the password is ***") && !log.contains("hunter2"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_meltano_itself_it_is_the_whole_of_what_it_says() {
    let Some(server) = TestServer::with_meltano(&[]) else { return };
    let workspace = server.workspace("W").await;
    let pipeline = server.pipeline_with(json!({ "workspaceId": workspace, "name": "P", "actions": ["tap-x"] })).await;
    let job = server.run(&pipeline).await;
    let whole = "BlockSetValidationError: block violates set requirements: Loader missing in block set!";
    assert_eq!(failure(&server, &job).await["summary"], whole);
}
