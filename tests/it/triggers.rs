//! Triggers: pipelines that follow others.

use serde_json::{Value, json};

use crate::support::{TestServer, eventually, text, wait_for};

async fn follower(server: &TestServer, workspace: &str, name: &str, script: &str, sources: &[&str]) -> String {
    let input = json!({ "workspaceId": workspace, "name": name, "script": script, "triggeredBy": sources });
    server.pipeline_with(input).await
}

/// Waits for the first run of a pipeline to end, and answers it.
async fn first_run(server: &TestServer, pipeline: &str) -> Value {
    let query = "query($id: ID!) { jobs(pipelineId: $id, type: [PIPELINE_RUN], last: 1) { nodes { id status cause { type tick job { id } } } } }";
    let job = eventually("a run", async || {
        let found = server.data(query, json!({ "id": pipeline })).await;
        found["jobs"]["nodes"].get(0).cloned()
    })
    .await;
    server.final_job(text(&job["id"])).await;
    job
}

async fn count_runs(server: &TestServer, pipeline: &str) -> i64 {
    let query = "query($id: ID!) { jobs(pipelineId: $id, type: [PIPELINE_RUN]) { totalCount } }";
    server.data(query, json!({ "id": pipeline })).await["jobs"]["totalCount"].as_i64().expect("a count")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_runs_to_its_end_and_each_says_who_started_it() {
    let server = TestServer::start();
    let workspace = server.workspace("W").await;
    let first = server.pipeline(&workspace, "First", "true").await;
    let second = follower(&server, &workspace, "Second", "true", &["First"]).await;
    let third = follower(&server, &workspace, "Third", "true", &["Second"]).await;
    let run = server.run(&first).await;
    let then = first_run(&server, &second).await;
    assert_eq!(then["cause"], json!({ "type": "TRIGGER", "tick": null, "job": { "id": run } }));
    assert_eq!(first_run(&server, &third).await["cause"]["job"]["id"], then["id"]);

    server.change("deleteJob", json!({ "id": run }), "__typename").await;
    assert_eq!(first_run(&server, &second).await["cause"], json!({ "type": "TRIGGER", "tick": null, "job": null }));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_run_that_is_complete_triggers() {
    let server = TestServer::start();
    let workspace = server.workspace("W").await;
    let fails = server.pipeline(&workspace, "Fails", "exit 1").await;
    let stops = server.pipeline(&workspace, "Stops", "sleep 60").await;
    let after = follower(&server, &workspace, "After", "true", &["Fails", "Stops"]).await;
    let failed = server.run(&fails).await;
    server.final_job(&failed).await;
    let stopped = server.run(&stops).await;
    server.stop(&stopped).await;
    server.final_job(&stopped).await;
    server.verify(&fails).await;
    assert_eq!(count_runs(&server, &after).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_triggered_while_it_runs_is_skipped_and_says_so() {
    let server = TestServer::start();
    let workspace = server.workspace("W").await;
    let source = server.pipeline(&workspace, "Source", "true").await;
    let go = server.scratch().join("go");
    let slow = follower(&server, &workspace, "Slow", &wait_for(&go), &["Source"]).await;
    let mut activity = server.activity(json!({ "pipelineId": slow, "level": "ERRORS" })).await;
    for _ in 0..2 {
        let run = server.run(&source).await;
        server.final_job(&run).await;
    }
    let skipped = activity.next().await.expect("a skip");
    assert!(
        text(&skipped["reason"]).starts_with("The pipeline was triggered while a run was active: job "),
        "{skipped}"
    );
    std::fs::write(go, "").expect("a file");
    first_run(&server, &slow).await;
    assert_eq!(count_runs(&server, &slow).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn triggers_follow_a_pipeline_through_its_names_and_go_with_it() {
    let server = TestServer::start();
    let workspace = server.workspace("W").await;
    let source = server.pipeline(&workspace, "Old", "true").await;
    let other = server.pipeline(&workspace, "Other", "true").await;
    let after = follower(&server, &workspace, "After", "true", &["Other", "Old"]).await;
    let triggered_by = async || {
        let query = "query($id: ID!) { pipeline(id: $id) { triggeredBy } }";
        server.data(query, json!({ "id": after })).await["pipeline"]["triggeredBy"].take()
    };
    let renamed = server.change("updatePipeline", json!({ "id": source, "name": "New" }), "job { id }").await;
    server.final_job(text(&renamed["job"]["id"])).await;
    assert_eq!(triggered_by().await, json!(["Other", "New"]));
    server.run(&source).await;
    first_run(&server, &after).await;
    server.change("deletePipeline", json!({ "id": other }), "__typename").await;
    assert_eq!(triggered_by().await, json!(["New"]));
    // Another one of that name is another one.
    server.pipeline(&workspace, "Other", "true").await;
    assert_eq!(triggered_by().await, json!(["New"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelines_that_would_trigger_each_other_for_ever_are_refused() {
    let server = TestServer::with(&["--slots", "0"]);
    let created = server.change("createWorkspace", json!({ "name": "W" }), "workspace { id }").await;
    let workspace = text(&created["workspace"]["id"]).to_owned();
    let mut ids = Vec::new();
    for (name, sources) in [("A", vec![]), ("B", vec!["A"]), ("C", vec!["B"]), ("D", vec!["A", "C"])] {
        let input = json!({ "workspaceId": workspace, "name": name, "script": "true", "triggeredBy": sources });
        let created = server.change("createPipeline", input, "pipeline { id }").await;
        ids.push(text(&created["pipeline"]["id"]).to_owned());
    }
    let refused = server.refused("updatePipeline", json!({ "id": ids[0], "triggeredBy": ["D"] })).await;
    assert_eq!(refused.paths(), ["input.triggeredBy.0"]);
    let message = text(&refused.extensions["problems"][0]["message"]).to_owned();
    assert!(message.contains("A → D → A") || message.contains("A → B → C → D → A"), "{message}");
    let refused = server.refused("updatePipeline", json!({ "id": ids[0], "triggeredBy": ["A"] })).await;
    assert_eq!(refused.paths(), ["input.triggeredBy.0"]);
    server.change("updatePipeline", json!({ "id": ids[3], "triggeredBy": ["B", "C"] }), "__typename").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_is_queued_once_although_the_server_is_killed() {
    let mut server = TestServer::with(&["--retry-backoff", "0.05"]);
    let workspace = server.workspace("W").await;
    let input = json!({ "workspaceId": workspace, "name": "Source", "script": "true", "maxRetries": 5 });
    let source = server.pipeline_with(input).await;
    let input = json!({ "workspaceId": workspace, "name": "After", "script": "true", "maxRetries": 5, "triggeredBy": ["Source"] });
    let after = server.pipeline_with(input).await;
    for round in 1..=6 {
        let run = server.run(&source).await;
        server = server.kill_and_restart();
        assert_eq!(server.final_job(&run).await["status"], "COMPLETE");
        eventually("the follower", async || (count_runs(&server, &after).await == round).then_some(())).await;
        let query = "query($id: ID!) { jobs(pipelineId: $id, type: [PIPELINE_RUN], first: 1) { nodes { id cause { job { id } } } } }";
        let newest = server.data(query, json!({ "id": after })).await["jobs"]["nodes"][0].take();
        assert_eq!(newest["cause"]["job"]["id"], run);
        server.final_job(text(&newest["id"])).await;
    }
}
