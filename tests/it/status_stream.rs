//! `jobStatusChanged`: the present, what follows, and where to go on.

use jobstream::client::{ClientError, Said};
use serde_json::{Value, json};

use crate::support::{Client, Refusal, TestServer, eventually, text, wait_for, within};

const UNKNOWN: &str = "3f2b8c1e-6f0a-4c5e-9d3b-2a7f1e4c5d6b";
const STREAM: &str = "subscription($workspaceId: ID, $pipelineId: ID, $jobId: ID, $after: String) { \
                      jobStatusChanged(workspaceId: $workspaceId, pipelineId: $pipelineId, jobId: $jobId, after: $after) { \
                      cursor initial jobId status previousStatus attempt at deleted job { id } } }";

/// A subscriber.
struct Changes {
    client: Client,
    id: String,
}

impl Changes {
    async fn of(server: &TestServer, arguments: Value) -> Self {
        let mut client = server.client().await;
        let id = client.begin(STREAM, arguments).await.expect("a subscription");
        Self { client, id }
    }

    async fn next(&mut self) -> Value {
        let data = within(self.client.next_data(&self.id)).await.expect("a change");
        data.expect("no end")["jobStatusChanged"].take()
    }

    /// The changes up to and with the one that is wanted.
    async fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        let mut seen = Vec::new();
        loop {
            seen.push(self.next().await);
            if seen.last().is_some_and(&wanted) {
                return seen;
            }
        }
    }

    async fn is_over(&mut self) -> bool {
        within(self.client.next_of(&self.id)).await.expect("an answer") == Said::Complete
    }
}

/// The refusal of a subscription.
async fn refusal(server: &TestServer, arguments: Value) -> Refusal {
    let mut changes = Changes::of(server, arguments).await;
    match within(changes.client.next_of(&changes.id)).await.expect("an answer") {
        Said::Error(errors) => Refusal::of(json!({ "errors": errors })),
        other => panic!("it was not refused: {other:?}"),
    }
}

fn short(changes: &[Value]) -> Vec<(&str, &str, i64)> {
    changes
        .iter()
        .map(|it| (text(&it["jobId"]), text(&it["status"]), it["attempt"].as_i64().expect("a number")))
        .collect()
}

/// Changes without what may differ between two readings of the same history.
fn history(changes: &[Value]) -> Vec<Value> {
    let mut changes = changes.to_vec();
    for change in &mut changes {
        change["job"] = Value::Null;
    }
    changes
}

/// Creates a workspace with a pipeline, on a server that runs nothing.
async fn idle(server: &TestServer) -> (String, String) {
    let created = server.change("createWorkspace", json!({ "name": "W" }), "workspace { id }").await;
    let workspace = text(&created["workspace"]["id"]).to_owned();
    let input = json!({ "workspaceId": workspace, "name": "P", "script": "true" });
    let created = server.change("createPipeline", input, "pipeline { id }").await;
    (workspace, text(&created["pipeline"]["id"]).to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn it_begins_with_the_active_jobs_in_the_order_of_their_latest_changes() {
    let server = TestServer::with(&["--slots", "1"]);
    let workspace = server.workspace("W").await;
    let done = server.run(&server.pipeline(&workspace, "Done", "true").await).await;
    server.final_job(&done).await;
    let go = server.scratch().join("go");
    let pipeline = server.pipeline(&workspace, "Running", &wait_for(&go)).await;
    let running = server.run(&pipeline).await;
    server.job_is(&running, "RUNNING").await;
    let queued = server.change("verifyPipeline", json!({ "id": pipeline }), "job { id }").await["job"]["id"].take();
    let queued = text(&queued);

    let mut changes = Changes::of(&server, json!({ "workspaceId": workspace })).await;
    let present = [changes.next().await, changes.next().await, changes.next().await];
    // PROFILE_COLLABORATE waits for a person.
    assert_eq!(short(&present)[1..], [(running.as_str(), "RUNNING", 1), (queued, "QUEUED", 1)]);
    assert_eq!(present[0]["status"], "QUEUED");
    let previous: Vec<_> = present.iter().map(|it| &it["previousStatus"]).collect();
    assert_eq!(previous, [&Value::Null, &json!("QUEUED"), &Value::Null]);
    assert!(present.iter().all(|it| it["initial"] == true && it["deleted"] == false));
    assert!(present.is_sorted_by_key(|it| text(&it["at"])));
    std::fs::write(&go, "").expect("a file");
    let then = changes.until(|it| it["jobId"] == queued && it["status"] == "COMPLETE").await;
    assert!(then.iter().all(|it| it["initial"] == false));
    let expected = [(running.as_str(), "COMPLETE", 1), (queued, "RUNNING", 1), (queued, "COMPLETE", 1)];
    assert_eq!(short(&then), expected);

    let mut after = Changes::of(&server, json!({ "after": present[1]["cursor"], "pipelineId": pipeline })).await;
    let again = after.until(|it| it["jobId"] == queued && it["status"] == "COMPLETE").await;
    assert_eq!(short(&again)[0], (queued, "QUEUED", 1), "the change after that of the running job");
    assert_eq!(history(&again[1..]), history(&then));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_job_that_is_asked_for_comes_first_whatever_its_status() {
    let server = TestServer::start();
    let job = server.run_script("exit 3").await;
    server.final_job(&job).await;
    let change = Changes::of(&server, json!({ "jobId": job })).await.next().await;
    assert_eq!(short(std::slice::from_ref(&change)), [(job.as_str(), "ERROR", 1)]);
    assert_eq!((&change["initial"], &change["previousStatus"]), (&json!(true), &json!("RUNNING")));
    assert_eq!(change["at"], server.job(&job).await["endTime"]);

    let mut changes = Changes::of(&server, json!({ "jobId": job, "after": change["cursor"] })).await;
    server.change("deleteJob", json!({ "id": job }), "deletedJobId").await;
    assert_eq!(changes.next().await["deleted"], true);
    assert!(changes.is_over().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_combine() {
    let server = TestServer::with(&["--slots", "0"]);
    let (workspace, pipeline) = idle(&server).await;
    let other = server.change("createWorkspace", json!({ "name": "Other" }), "workspace { id }").await;
    let input = json!({ "workspaceId": workspace, "name": "Other" });
    let beside = server.change("createPipeline", input, "pipeline { id }").await;
    let cursor = server.data("{ jobs(first: 1) { cursor } }", json!({})).await["jobs"]["cursor"].take();
    server.run(text(&beside["pipeline"]["id"])).await;
    let one = server.run(&pipeline).await;
    server.stop(&one).await;
    let two = server.run(&pipeline).await;
    server.change("deleteWorkspace", json!({ "id": other["workspace"]["id"] }), "__typename").await;
    let both = json!({ "workspaceId": workspace, "pipelineId": pipeline });
    let present = Changes::of(&server, both.clone()).await.until(|it| it["jobId"] == two).await;
    assert_eq!(present.len(), 2, "its PIPELINE_CONFIG job, and its run");
    for (arguments, expected) in [
        (both, vec![(one.as_str(), "QUEUED", 1), (&one, "STOPPED", 1), (&two, "QUEUED", 1)]),
        (json!({ "pipelineId": pipeline, "jobId": two }), vec![(two.as_str(), "QUEUED", 1)]),
    ] {
        let mut arguments = arguments;
        arguments["after"] = cursor.clone();
        let then = Changes::of(&server, arguments).await.until(|it| it["jobId"] == two).await;
        assert_eq!(short(&then), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_attempt_is_in_the_stream() {
    let server = TestServer::with(&["--retry-backoff", "0"]);
    let workspace = server.workspace("W").await;
    let input = json!({ "workspaceId": workspace, "name": "P", "script": "false", "maxRetries": 1 });
    let pipeline = server.pipeline_with(input).await;
    let cursor = server.data("{ jobs(first: 1) { cursor } }", json!({})).await["jobs"]["cursor"].take();
    let mut changes = Changes::of(&server, json!({ "after": cursor })).await;
    let job = server.run(&pipeline).await;
    let seen = changes.until(|it| it["status"] == "ERROR").await;
    let job = job.as_str();
    let expected =
        [(job, "QUEUED", 1), (job, "RUNNING", 1), (job, "QUEUED", 2), (job, "RUNNING", 2), (job, "ERROR", 2)];
    assert_eq!(short(&seen), expected);
    let previous: Vec<_> = seen.iter().map(|it| it["previousStatus"].as_str()).collect();
    assert_eq!(previous, [None, Some("QUEUED"), Some("RUNNING"), Some("QUEUED"), Some("RUNNING")]);
    assert!(seen.is_sorted_by(|one, other| text(&one["at"]) < text(&other["at"])));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_goes_on_after_any_cursor_also_in_a_server_that_was_killed() {
    let server = TestServer::start();
    let nothing_yet = server.data("{ jobs { cursor } }", json!({})).await["jobs"]["cursor"].take();
    let mut changes = Changes::of(&server, json!({ "after": nothing_yet })).await;
    let job = server.run_script("true").await;
    let mut seen = changes.until(|it| it["jobId"] == job && it["status"] == "COMPLETE").await;
    let server = server.kill_and_restart();
    let pipeline = server.data("query($id: ID!) { job(id: $id) { pipeline { id } } }", json!({ "id": job })).await;
    let pipeline = text(&pipeline["job"]["pipeline"]["id"]).to_owned();
    let mut rest = Changes::of(&server, json!({ "after": seen.last().expect("a change")["cursor"] })).await;
    let next = server.run(&pipeline).await;
    server.final_job(&next).await;
    server.change("deleteJob", json!({ "id": job }), "deletedJobId").await;
    server.change("deletePipeline", json!({ "id": pipeline }), "deletedPipelineId").await;
    seen.extend(rest.until(|it| it["jobId"] == next && it["deleted"] == true).await);
    assert!(seen.iter().all(|it| it["initial"] == false));

    for index in 0..seen.len() - 1 {
        let mut again = Changes::of(&server, json!({ "after": seen[index]["cursor"] })).await;
        let replayed = again.until(|it| it["jobId"] == next && it["deleted"] == true).await;
        assert_eq!(history(&replayed), history(&seen[index + 1..]));
    }
    // What is gone can still be followed from where somebody was.
    let at_the_start = seen[0]["cursor"].clone();
    let mut of_deleted = Changes::of(&server, json!({ "jobId": next, "after": at_the_start })).await;
    let replayed = of_deleted.until(|it| it["deleted"] == true).await;
    let next = next.as_str();
    let expected = [(next, "QUEUED", 1), (next, "RUNNING", 1), (next, "COMPLETE", 1), (next, "COMPLETE", 1)];
    assert_eq!(short(&replayed), expected);
    assert!(replayed.iter().all(|it| it["job"].is_null()));
    assert!(of_deleted.is_over().await);
    let end = replayed.last().expect("a change")["cursor"].clone();
    let mut nothing_left = Changes::of(&server, json!({ "jobId": next, "after": end })).await;
    assert!(nothing_left.is_over().await);
    assert_eq!(refusal(&server, json!({ "jobId": next })).await.code, "NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_job_that_is_deleted_is_stopped_and_then_deleted() {
    let server = TestServer::start();
    let job = server.run_script("echo up; sleep 1000").await;
    server.line_appears(&job, "up").await;
    let mut changes = Changes::of(&server, json!({ "jobId": job })).await;
    assert_eq!(changes.next().await["status"], "RUNNING");
    server.change("deleteJob", json!({ "id": job }), "deletedJobId").await;
    let (stopped, deleted) = (changes.next().await, changes.next().await);
    assert_eq!(
        (&stopped["status"], &stopped["deleted"], &stopped["previousStatus"]),
        (&json!("STOPPED"), &json!(false), &json!("RUNNING"))
    );
    assert_eq!(
        (&deleted["status"], &deleted["deleted"], &deleted["previousStatus"]),
        (&json!("STOPPED"), &json!(true), &Value::Null)
    );
    assert!(changes.is_over().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_from_before_what_is_kept_has_expired() {
    let server = TestServer::with(&["--slots", "0", "--keep-status-changes", "3"]);
    let (_, pipeline) = idle(&server).await;
    let job = server.run(&pipeline).await;
    let oldest = Changes::of(&server, json!({})).await.next().await["cursor"].take();
    let mut changes = Changes::of(&server, json!({ "jobId": job })).await;
    let queued = changes.next().await["cursor"].take();
    server.stop(&job).await;
    let stopped = changes.next().await["cursor"].take();
    // What is no longer kept goes when something is deleted.
    server.change("deleteJob", json!({ "id": job }), "deletedJobId").await;
    eventually("the old changes go", async || {
        let mut changes = Changes::of(&server, json!({ "after": oldest })).await;
        let first = within(changes.client.next_of(&changes.id)).await.expect("an answer");
        matches!(first, Said::Error(_)).then_some(())
    })
    .await;
    assert_eq!(refusal(&server, json!({ "after": oldest })).await.code, "CURSOR_EXPIRED");
    // The three newest are those of the run: everything after the change before them can be read.
    for (after, left) in [(&queued, 2), (&stopped, 1)] {
        let mut changes = Changes::of(&server, json!({ "after": after })).await;
        assert_eq!(changes.until(|it| it["deleted"] == true).await.len(), left);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_falls_behind_what_is_kept_is_told() {
    let server = TestServer::with(&["--slots", "0", "--keep-status-changes", "3"]);
    let (workspace, _) = idle(&server).await;
    // Each change carries the script, so that the connection fills up long before the first 500 changes are written.
    let input = json!({ "workspaceId": workspace, "name": "Large", "script": "#".repeat(100_000) });
    let created = server.change("createPipeline", input, "pipeline { id }").await;
    let pipeline = text(&created["pipeline"]["id"]);
    let cursor = server.data("{ jobs(first: 1) { cursor } }", json!({})).await["jobs"]["cursor"].take();
    let queue_50 = (0..50).map(|index| format!("v{index}: verifyPipeline(input: {{ id: $id }}) {{ job {{ id }} }}"));
    let queue_50 = format!("mutation($id: ID!) {{ {} }}", queue_50.collect::<Vec<_>>().join(" "));
    for _ in 0..12 {
        server.data(&queue_50, json!({ "id": pipeline })).await;
    }
    let mut client = server.client().await;
    let query =
        "subscription($after: String) { jobStatusChanged(after: $after) { cursor job { pipeline { script } } } }";
    let changes = client.begin(query, json!({ "after": cursor })).await.expect("a subscription");
    within(client.next_data(&changes)).await.expect("a change");
    let last = server.run(pipeline).await;
    server.change("deleteJob", json!({ "id": last }), "deletedJobId").await;
    eventually("the old changes go", async || {
        let mut changes = Changes::of(&server, json!({ "after": cursor })).await;
        matches!(within(changes.client.next_of(&changes.id)).await, Ok(Said::Error(_))).then_some(())
    })
    .await;
    let mut seen = 1;
    let error = loop {
        match within(client.next_data(&changes)).await {
            Ok(_) => seen += 1,
            Err(error) => break error,
        }
        assert!(seen < 603, "some were left out, and nobody was told");
    };
    assert!(
        matches!(&error, ClientError::Failed(errors) if errors[0]["extensions"]["code"] == "CURSOR_EXPIRED"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_arguments_are_refused() {
    let server = TestServer::with(&["--slots", "0"]);
    idle(&server).await;
    let of_list =
        server.data("{ jobs(first: 1) { edges { cursor } } }", json!({})).await["jobs"]["edges"][0]["cursor"].take();
    for malformed in [json!(""), json!("1"), json!("czAAAA"), of_list] {
        assert_eq!(refusal(&server, json!({ "after": malformed })).await.paths(), ["after"], "{malformed}");
    }
    let all = json!({ "workspaceId": "a", "pipelineId": "b", "jobId": "c", "after": "d" });
    assert_eq!(refusal(&server, all).await.paths(), ["after", "jobId", "pipelineId", "workspaceId"]);
    for argument in ["workspaceId", "pipelineId", "jobId"] {
        let cursor = server.data("{ jobs { cursor } }", json!({})).await["jobs"]["cursor"].take();
        assert_eq!(refusal(&server, json!({ argument: UNKNOWN })).await.code, "NOT_FOUND", "{argument}");
        assert_eq!(
            refusal(&server, json!({ argument: UNKNOWN, "after": cursor })).await.code,
            "NOT_FOUND",
            "{argument}"
        );
    }
    let other = TestServer::with(&["--slots", "0"]);
    let cursor = server.data("{ jobs { cursor } }", json!({})).await["jobs"]["cursor"].take();
    assert_eq!(refusal(&other, json!({ "after": cursor })).await.paths(), ["after"], "a cursor of another server");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_closes_the_socket_with_1012_and_completes_nothing() {
    let mut server = TestServer::with(&["--shutdown-grace", "0"]);
    let job = server.run_script("echo up; sleep 1000").await;
    server.line_appears(&job, "up").await;
    let mut changes = Changes::of(&server, json!({ "jobId": job })).await;
    let running = changes.next().await;
    assert_eq!(running["status"], "RUNNING");
    let logs = "subscription($id: ID!) { jobLogs(jobId: $id) { complete lines { text } } }";
    changes.client.begin(logs, json!({ "id": job })).await.expect("a subscription");
    server.terminate();
    let closed = loop {
        match within(changes.client.next()).await {
            Ok((_, Said::Next(payload))) => assert_ne!(payload["data"]["jobLogs"]["complete"], true),
            Ok(other) => panic!("the server said {other:?}"),
            Err(error) => break error,
        }
    };
    assert!(matches!(&closed, ClientError::Closed(Some(frame)) if u16::from(frame.code) == 1012), "{closed}");
    assert!(server.ended().await.success());

    let server = server.restart();
    let mut changes = Changes::of(&server, json!({ "jobId": job, "after": running["cursor"] })).await;
    assert_eq!(
        short(&[changes.next().await, changes.next().await]),
        [(job.as_str(), "QUEUED", 1), (job.as_str(), "RUNNING", 1)]
    );
}
