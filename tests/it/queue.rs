//! Which jobs start, in which order, and how many at a time.

use serde_json::{Value, json};

use crate::support::{TestServer, eventually, lines_of, text, wait_for};

#[tokio::test(flavor = "multi_thread")]
async fn jobs_wait_while_what_they_need_is_provisioning() {
    let server = TestServer::with(&["--slots", "8"]);
    let cursor = server.cursor().await;
    // Nothing is waited for in between: the run is queued long before its workspace is there.
    let workspace = server.begin_workspace("Workspace").await;
    assert_eq!(workspace["workspace"]["status"], "PROVISIONING");
    let workspace_id = text(&workspace["workspace"]["id"]);
    let pipeline =
        server.begin_pipeline(json!({ "workspaceId": workspace_id, "name": "P", "script": "cat README.md" })).await;
    assert_eq!(pipeline["pipeline"]["status"], "PROVISIONING");
    let run = server.run(text(&pipeline["pipeline"]["id"])).await;
    assert_eq!(server.final_job(&run).await["status"], "COMPLETE", "{}", server.log_text(&run).await);

    let mut changes = server.changes(json!({ "workspaceId": workspace_id, "after": cursor })).await;
    let seen = changes.until(|change| change["jobId"] == run && change["status"] == "COMPLETE").await;
    let order: Vec<(&str, &str)> = seen
        .iter()
        .filter(|change| !text(&change["job"]["type"]).starts_with("PROFILE") && change["status"] != "QUEUED")
        .map(|change| (text(&change["job"]["type"]), text(&change["status"])))
        .collect();
    assert_eq!(
        order,
        [
            ("WORKSPACE_INIT", "RUNNING"),
            ("WORKSPACE_INIT", "COMPLETE"),
            ("PIPELINE_CONFIG", "RUNNING"),
            ("PIPELINE_CONFIG", "COMPLETE"),
            ("PIPELINE_RUN", "RUNNING"),
            ("PIPELINE_RUN", "COMPLETE"),
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_job_starts_first() {
    let server = TestServer::with(&["--slots", "1"]);
    let (gate, order) = (server.scratch().join("gate"), server.scratch().join("order"));
    let workspace = server.workspace("Workspace").await;
    let blocker = server.pipeline(&workspace, "Blocker", &wait_for(&gate)).await;
    let mut pipelines = Vec::new();
    for number in 0..5 {
        let script = format!("echo {number} >> '{}'", order.display());
        pipelines.push(server.pipeline(&workspace, &number.to_string(), &script).await);
    }
    let blocker = server.run(&blocker).await;
    server.job_is(&blocker, "RUNNING").await;
    for number in [3, 0, 4, 1, 2] {
        server.run(&pipelines[number]).await;
    }
    std::fs::write(&gate, "").expect("the gate");
    assert_eq!(lines_of(&order, 5).await, ["3", "0", "4", "1", "2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_jobs_run_than_there_are_slots() {
    let server = TestServer::with(&["--slots", "2"]);
    let (gate, running) = (server.scratch().join("gate"), server.scratch().join("running"));
    let workspace = server.workspace("Workspace").await;
    let mut pipelines = Vec::new();
    for number in 0..5 {
        let script = format!("echo {number} >> '{}'; {}", running.display(), wait_for(&gate));
        pipelines.push(server.pipeline(&workspace, &number.to_string(), &script).await);
    }
    let cursor = server.cursor().await;
    let mut jobs = Vec::new();
    for pipeline in &pipelines {
        jobs.push(server.run(pipeline).await);
    }
    lines_of(&running, 2).await;
    let query = "{ running: jobs(status: [RUNNING]) { totalCount } queued: jobs(status: [QUEUED], type: [PIPELINE_RUN]) { totalCount } }";
    let counts = server.data(query, json!({})).await;
    assert_eq!((&counts["running"]["totalCount"], &counts["queued"]["totalCount"]), (&json!(2), &json!(3)));
    std::fs::write(&gate, "").expect("the gate");
    for job in &jobs {
        assert_eq!(server.final_job(job).await["status"], "COMPLETE");
    }
    let mut changes = server.changes(json!({ "workspaceId": workspace, "after": cursor })).await;
    let (mut now, mut most, mut ended) = (0, 0, 0);
    changes
        .until(|change| {
            match text(&change["status"]) {
                "RUNNING" => now += 1,
                "COMPLETE" => (now, ended) = (now - 1, ended + 1),
                _ => {}
            }
            most = most.max(now);
            ended == jobs.len()
        })
        .await;
    assert_eq!(most, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_slots_runs_nothing_and_serves() {
    let server = TestServer::with(&["--slots", "0"]);
    let workspace = server.begin_workspace("Workspace").await;
    let id = text(&workspace["workspace"]["id"]);
    let pipeline = server.begin_pipeline(json!({ "workspaceId": id, "name": "P", "script": "true" })).await;
    let job = server.run(text(&pipeline["pipeline"]["id"])).await;
    // A queued job can be stopped all the same, and nothing else happens in the meantime.
    server.stop(&job).await;
    let mut changes = server.changes(json!({ "workspaceId": id })).await;
    for _ in 0..3 {
        let change = changes.next().await.expect("a queued job");
        assert_eq!((&change["status"], &change["initial"]), (&json!("QUEUED"), &json!(true)));
    }
    assert!(server.data_directory().join("repositories").read_dir().expect("it").next().is_none());
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", server.pid())).unwrap_or_default();
    assert_eq!(children.trim(), "", "no supervisor is started");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_is_changed_by_one_task_at_a_time() {
    let server = TestServer::with(&["--slots", "8"]);
    let first = server.workspace("First").await;
    let second = server.workspace("Second").await;
    let cursor = server.cursor().await;
    let mut jobs = Vec::new();
    for number in 0..6 {
        for workspace in [&first, &second] {
            let input = json!({ "workspaceId": workspace, "name": format!("P{number}"), "script": "true" });
            jobs.push(text(&server.begin_pipeline(input).await["job"]["id"]).to_owned());
        }
    }
    for job in &jobs {
        assert_eq!(server.final_job(job).await["status"], "COMPLETE", "{}", server.log_text(job).await);
    }
    for workspace in [&first, &second] {
        let mut changes = server.changes(json!({ "workspaceId": workspace, "after": cursor })).await;
        let (mut running, mut ended) = (0, 0);
        changes
            .until(|change| {
                match text(&change["status"]) {
                    "RUNNING" => running += 1,
                    "COMPLETE" if change["previousStatus"] == "RUNNING" => (running, ended) = (running - 1, ended + 1),
                    _ => {}
                }
                assert!(running <= 1, "two at a time");
                ended == 6
            })
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_failed_pipeline_ends_with_an_error() {
    let server = TestServer::with(&["--slots", "1"]);
    let gate = server.scratch().join("gate");
    let workspace = server.workspace("Workspace").await;
    let blocker = server.pipeline(&workspace, "Blocker", &wait_for(&gate)).await;
    let blocker = server.run(&blocker).await;
    server.job_is(&blocker, "RUNNING").await;
    let pipeline = server.begin_pipeline(json!({ "workspaceId": workspace, "name": "P", "script": "true" })).await;
    let run = server.run(text(&pipeline["pipeline"]["id"])).await;
    server.stop(text(&pipeline["job"]["id"])).await;
    std::fs::write(&gate, "").expect("the gate");
    let done = server.final_job(&run).await;
    assert_eq!((&done["status"], &done["exitCode"]), (&json!("ERROR"), &Value::Null));
    assert!(server.log_text(&run).await.contains("FAILED"));
    let refused = "mutation($input: CreateJobInput!) { createJob(input: $input) { job { id } } }";
    let id = text(&pipeline["pipeline"]["id"]);
    assert_eq!(server.code(refused, json!({ "input": { "pipelineId": id } })).await, "NOT_READY");

    // An update provisions it again.
    let update = "mutation($input: UpdatePipelineInput!) { updatePipeline(input: $input) { job { id } } }";
    let updated = server.data(update, json!({ "input": { "id": id } })).await;
    server.final_job(text(&updated["updatePipeline"]["job"]["id"])).await;
    let query = "query($id: ID!) { pipeline(id: $id) { status } }";
    let ready = async || {
        let found = server.data(query, json!({ "id": id })).await;
        (found["pipeline"]["status"] == "READY").then_some(())
    };
    eventually("the pipeline is READY", ready).await;
    assert_eq!(server.final_job(&server.run(id).await).await["status"], "COMPLETE");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_queued_wakes_one_slot_and_not_all() {
    let statements_of_ten_jobs = async |slots: &str| {
        let server = TestServer::with(&["--slots", slots]);
        let workspace = server.workspace("Workspace").await;
        let pipeline = server.pipeline(&workspace, "P", "true").await;
        let counted = async || server.metrics().await.value("jobstream_database_statements_total", &[]);
        let before = counted().await;
        for _ in 0..10 {
            let job = server.run(&pipeline).await;
            server.final_job(&job).await;
        }
        counted().await - before
    };
    let (one, many) = (statements_of_ten_jobs("1").await, statements_of_ten_jobs("32").await);
    assert!(many < 2.0 * one, "{many} statements with many slots, {one} with one");
}
