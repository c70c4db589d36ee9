//! `pipelineActivity`: what happens to pipelines, for who follows them.

use serde_json::{Value, json};

use crate::support::{TestServer, text};

fn kinds(activity: &[Value]) -> Vec<(&str, &str)> {
    activity.iter().map(|it| (text(&it["kind"]), it["job"]["type"].as_str().unwrap_or_default())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_tells_what_starts_and_ends_and_fails() {
    let server = TestServer::start();
    let workspace = server.workspace("W").await;
    let mut all = server.activity(json!({ "workspaceId": workspace })).await;
    let mut errors = server.activity(json!({ "workspaceId": workspace, "level": "ERRORS" })).await;
    let good = server.pipeline(&workspace, "Good", "true").await;
    let bad = server.pipeline(&workspace, "Bad", "echo 'error: no' >&2; exit 1").await;
    let run = server.run(&good).await;
    server.final_job(&run).await;
    let failed = server.run(&bad).await;
    server.final_job(&failed).await;
    let mut seen = Vec::new();
    while seen.last().is_none_or(|it: &Value| it["kind"] != "FAILED") {
        seen.push(all.next().await.expect("activity"));
    }
    let config = "PIPELINE_CONFIG";
    let expected = [
        ("STARTED", config),
        ("ENDED", config),
        ("STARTED", config),
        ("ENDED", config),
        ("STARTED", "PIPELINE_RUN"),
        ("ENDED", "PIPELINE_RUN"),
        ("STARTED", "PIPELINE_RUN"),
        ("FAILED", "PIPELINE_RUN"),
    ];
    assert_eq!(kinds(&seen), expected);
    let error = errors.next().await.expect("activity");
    assert_eq!(&error, seen.last().expect("it"));
    assert_eq!((&error["pipelineId"], &error["jobId"], &error["attempt"]), (&json!(bad), &json!(failed), &json!(1)));
    assert_eq!(error["job"]["failure"]["summary"], "error: no");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_goes_on_after_a_cursor_also_in_a_server_that_was_killed() {
    let server = TestServer::start();
    let workspace = server.workspace("W").await;
    let pipeline = server.pipeline(&workspace, "P", "true").await;
    let cursor = server.cursor().await;
    for _ in 0..3 {
        let run = server.run(&pipeline).await;
        server.final_job(&run).await;
    }
    let mut activity = server.activity(json!({ "pipelineId": pipeline, "after": cursor })).await;
    let first = activity.next().await.expect("activity");
    let mut rest = Vec::new();
    for _ in 0..5 {
        rest.push(activity.next().await.expect("activity"));
    }
    let server = server.kill_and_restart();
    let mut again = server.activity(json!({ "pipelineId": pipeline, "after": first["cursor"] })).await;
    for expected in rest {
        assert_eq!(again.next().await.expect("activity"), expected);
    }
    // One stream, two views: a cursor of the one is one of the other.
    let mut changes = server.changes(json!({ "pipelineId": pipeline, "after": first["cursor"] })).await;
    let change = changes.next().await.expect("a change");
    assert_eq!((&change["status"], &change["jobId"]), (&json!("COMPLETE"), &first["jobId"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_one_pipeline_hears_of_no_other() {
    let server = TestServer::start();
    let workspace = server.workspace("W").await;
    let one = server.pipeline(&workspace, "One", "true").await;
    let other = server.pipeline(&workspace, "Other", "true").await;
    let mut activity = server.activity(json!({ "pipelineId": one })).await;
    let unheard = server.run(&other).await;
    server.final_job(&unheard).await;
    let heard = server.run(&one).await;
    assert_eq!(activity.next().await.expect("activity")["jobId"], json!(heard));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_arguments_are_refused() {
    let server = TestServer::with(&["--slots", "0"]);
    let unknown = "3f2b8c1e-6f0a-4c5e-9d3b-2a7f1e4c5d6b";
    for (arguments, code) in [
        (format!("workspaceId: \"{unknown}\""), "NOT_FOUND"),
        (format!("pipelineId: \"{unknown}\""), "NOT_FOUND"),
        ("pipelineId: \"7\", after: \"x\"".to_owned(), "BAD_USER_INPUT"),
        ("after: \"cwAAAAAAAA__\"".to_owned(), "BAD_USER_INPUT"),
    ] {
        let mut client = server.client().await;
        let query = format!("subscription {{ pipelineActivity({arguments}) {{ kind }} }}");
        let operation = client.begin(&query, json!({})).await.expect("a connection");
        let refused = client.next_of(&operation).await.expect("an answer");
        assert!(format!("{refused:?}").contains(code), "{arguments}: {refused:?}");
    }
}
