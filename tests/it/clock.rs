//! A clock that is wrong for a while, or that somebody sets: nothing stands still, and afterwards
//! instants are right again.

use std::collections::HashSet;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::nodes::{held_by, nobody_complains};
use crate::support::fake_clock::{ClockedServer, FakeClock};
use crate::support::{Cluster, TestServer, eventually, lines_of, on_postgres, pids_of, text, wait_for};

const JOBS: &str = "query($first: Int, $after: String) { jobs(first: $first, after: $after) { nodes { id created } \
                    pageInfo { hasNextPage endCursor } } }";
const RUNS: &str = "query($id: ID!) { pipeline(id: $id) { nextRuns(first: 3) jobs(type: [PIPELINE_RUN], first: 500) { nodes { id status created \
                    startTime endTime cause { tick } } } } }";
const HOUR: f64 = 3600.0;
const YEAR: f64 = 365.0 * 24.0 * HOUR;

/// How many seconds an instant is ahead of this machine's clock.
fn ahead(instant: &Value) -> f64 {
    let instant: DateTime<Utc> = text(instant).parse().expect("an instant");
    (instant - Utc::now()).as_seconds_f64()
}

/// How many seconds there are between the start and the end of a job.
fn duration(job: &Value) -> f64 {
    let instant = |name: &str| text(&job[name]).parse::<DateTime<Utc>>().expect("an instant");
    (instant("endTime") - instant("startTime")).as_seconds_f64()
}

async fn pipeline_by_schedule(server: &TestServer, workspace: &str, name: &str) -> String {
    let input = json!({ "workspaceId": workspace, "name": name, "script": "true", "schedule": "* * * * * *" });
    server.pipeline_with(input).await
}

/// Waits until a pipeline has so many runs of a kind that have ended.
async fn runs(server: &TestServer, pipeline: &str, count: usize, kind: impl Fn(&Value) -> bool) -> Vec<Value> {
    eventually("runs by schedule", async || {
        // PostgreSQL may end a connection when its clock jumps, because it takes a timeout to be
        // over.
        let found = server.post(RUNS, json!({ "id": pipeline })).await;
        let runs = found["data"]["pipeline"]["jobs"]["nodes"].as_array()?.clone();
        let found: Vec<Value> = runs.into_iter().filter(|run| run["status"] == "COMPLETE" && kind(run)).collect();
        (found.len() >= count).then_some(found)
    })
    .await
}

/// A run was queued at about this time, for a tick at about this time.
fn is_dated(run: &Value, least: f64, most: f64) -> bool {
    let is_within = |instant: &Value| (least..most).contains(&ahead(instant));
    is_within(&run["created"]) && is_within(&run["cause"]["tick"])
}

/// All jobs in pages of three, and whether no page has what another has.
async fn all_jobs(server: &TestServer) -> Vec<String> {
    let (mut seen, mut after) = (Vec::new(), Value::Null);
    loop {
        let page = server.data(JOBS, json!({ "first": 3, "after": after })).await["jobs"].take();
        seen.extend(page["nodes"].as_array().expect("nodes").iter().map(|it| text(&it["id"]).to_owned()));
        if page["pageInfo"]["hasNextPage"] == false {
            let distinct: HashSet<&String> = seen.iter().collect();
            assert_eq!(distinct.len(), seen.len(), "a job is on two pages");
            return seen;
        }
        after = page["pageInfo"]["endCursor"].clone();
    }
}

/// What `jobstream check` says of the server's directory and database.
fn check(server: &TestServer) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jobstream"));
    command.arg("check").arg("--data-dir").arg(server.data_directory()).args(["--listen", "127.0.0.1:0"]);
    if let Some(database) = server.database() {
        command.args(["--database-url", &database.url()]);
    }
    command.env("JOBSTREAM_MELTANO", "none").env_remove("JOBSTREAM_TOKEN");
    String::from_utf8(command.output().expect("it ends").stdout).expect("UTF-8")
}

/// Bash that fails until a file is there.
fn fails_until(file: &std::path::Path) -> String {
    format!("test -e '{}'", file.display())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_was_ahead_for_a_moment_stops_nothing() {
    let Some(ClockedServer { server, clock, cluster: _cluster }) =
        ClockedServer::start(&["--retry-backoff", "20", "--slots", "8"])
    else {
        return;
    };
    let scratch = server.scratch();
    let (gate, other_gate, mended) = (scratch.join("gate"), scratch.join("other"), scratch.join("mended"));
    let workspace = server.workspace("W").await;
    let ticking = pipeline_by_schedule(&server, &workspace, "Ticking").await;
    let held = server.pipeline(&workspace, "Held", &wait_for(&gate)).await;
    let other = server.pipeline(&workspace, "Other", &wait_for(&other_gate)).await;
    let failing = json!({ "workspaceId": workspace, "name": "F", "script": fails_until(&mended), "maxRetries": 3 });
    let failing = server.pipeline_with(failing).await;
    let quick = server.pipeline(&workspace, "Quick", "true").await;
    runs(&server, &ticking, 1, |run| is_dated(run, -HOUR, HOUR)).await;
    let before = server.run(&held).await;
    server.job_is(&before, "RUNNING").await;

    clock.set("+400d");
    runs(&server, &ticking, 1, |run| is_dated(run, YEAR, 2.0 * YEAR)).await;
    let during = server.run(&other).await;
    server.job_is(&during, "RUNNING").await;
    let retried = server.run(&failing).await;
    server.job_until(&retried, |change| change["attempt"] == 2 && change["status"] == "QUEUED").await;
    std::fs::write(&gate, "").expect("the gate");
    let before = server.final_job(&before).await;
    assert!((0.0..120.0).contains(&duration(&before)), "started before, ended meanwhile: {before}");

    std::fs::write(&mended, "").expect("a file");
    clock.set("+0");
    let set_back = Utc::now();
    let now_right = |run: &Value| {
        is_dated(run, -HOUR, HOUR) && ahead(&run["created"]) + 1.0 > (set_back - Utc::now()).as_seconds_f64()
    };
    let ticks = runs(&server, &ticking, 3, now_right).await;
    for run in &ticks {
        assert!((0.0..60.0).contains(&duration(run)), "{run}");
    }
    let new = pipeline_by_schedule(&server, &workspace, "New").await;
    runs(&server, &new, 2, |run| is_dated(run, -HOUR, HOUR)).await;
    let next = server.data(RUNS, json!({ "id": new })).await["pipeline"]["nextRuns"].take();
    assert!(next.as_array().expect("ticks").iter().all(|tick| (-30.0..60.0).contains(&ahead(tick))), "{next}");
    let retried = server.final_job(&retried).await;
    assert_eq!((&retried["status"], &retried["attempt"]), (&json!("COMPLETE"), &json!(2)));
    std::fs::write(&other_gate, "").expect("the gate");
    let during = server.final_job(&during).await;
    assert!(ahead(&during["startTime"]) > YEAR && (0.0..120.0).contains(&duration(&during)), "{during}");

    // Instants are right again, and no list is in the order of those that are wrong.
    for pipeline in [&ticking, &new] {
        let input = json!({ "id": pipeline, "schedule": null });
        server.change("updatePipeline", input, "pipeline { id }").await;
    }
    let after = server.run(&quick).await;
    let job = server.final_job(&after).await;
    assert!(ahead(&job["created"]).abs() < HOUR && (0.0..60.0).contains(&duration(&job)), "{job}");
    let newest = all_jobs(&server).await;
    let place = |id: &Value| newest.iter().position(|it| it == text(id)).expect("the job");
    assert_eq!(place(&job["id"]), 0, "the newest job comes first");
    assert!(place(&during["id"]) < place(&before["id"]));

    assert!(server.metrics().await.value("jobstream_clock_jumps_total", &[]) >= 2.0);
    let log = server.log();
    assert!(log.matches("clock jumped").count() >= 2, "{log}");
    let found = check(&server);
    assert!(
        found.contains("remark  the clock jumped from ") && found.contains("jobs were created later than now"),
        "{found}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_clock_that_was_ahead_has_stored_is_put_right_at_the_next_start() {
    let Some(mut clocked) = ClockedServer::start(&["--retry-backoff", "20", "--stop-grace", "0.5"]) else { return };
    let workspace = clocked.server.workspace("W").await;
    let ticking = pipeline_by_schedule(&clocked.server, &workspace, "Ticking").await;
    let scratch = clocked.server.scratch();
    let (gate, mended) = (scratch.join("gate"), scratch.join("mended"));
    let failing = json!({ "workspaceId": workspace, "name": "F", "script": fails_until(&mended), "maxRetries": 3 });
    let failing = clocked.server.pipeline_with(failing).await;
    let held = json!({ "workspaceId": workspace, "name": "H", "script": wait_for(&gate), "maxRetries": 1 });
    let held = clocked.server.pipeline_with(held).await;
    clocked.clock.set("+400d");
    runs(&clocked.server, &ticking, 1, |run| is_dated(run, YEAR, 2.0 * YEAR)).await;
    let retried = clocked.server.run(&failing).await;
    let lost = clocked.server.run(&held).await;
    clocked.server.job_is(&lost, "RUNNING").await;
    clocked.server.job_until(&retried, |change| change["attempt"] == 2 && change["status"] == "QUEUED").await;
    clocked.server.kill();
    clocked.clock.set("+0");
    std::fs::write(&mended, "").expect("a file");
    std::fs::write(&gate, "").expect("a file");
    let clocked = clocked.map(TestServer::restart);
    let server = &clocked.server;
    runs(server, &ticking, 2, |run| is_dated(run, -10.0 * 60.0, 60.0)).await;
    for job in [retried, lost] {
        let job = server.final_job(&job).await;
        assert_eq!((&job["status"], &job["attempt"]), (&json!("COMPLETE"), &json!(2)));
        assert!(ahead(&job["startTime"]).abs() < HOUR && (0.0..60.0).contains(&duration(&job)), "{job}");
    }
    assert!(check(server).contains("jobs were created later than now"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_back_stops_nothing() {
    let Some(ClockedServer { server, clock, cluster: _cluster }) = ClockedServer::start(&[
        "--retry-backoff",
        "20",
        "--slots",
        "8",
        "--allow-private-webhooks",
        "--webhook-backoff",
        "1",
        "--webhook-retry-for",
        "120",
    ]) else {
        return;
    };
    let mended = server.scratch().join("mended");
    let receiver = Receiver::start().await;
    let workspace = server.workspace("W").await;
    let ticking = pipeline_by_schedule(&server, &workspace, "Ticking").await;
    let failing = json!({ "workspaceId": workspace, "name": "F", "script": fails_until(&mended), "maxRetries": 3 });
    let failing = server.pipeline_with(failing).await;
    runs(&server, &ticking, 1, |run| is_dated(run, -HOUR, HOUR)).await;
    let webhook = json!({ "workspaceId": workspace, "pipelineId": failing, "url": receiver.url, "level": "ALL" });
    server.change("createWebhook", webhook, "webhook { id }").await;
    let retried = server.run(&failing).await;
    server.job_until(&retried, |change| change["attempt"] == 2 && change["status"] == "QUEUED").await;
    receiver.refused(1).await;

    clock.set("-86400");
    std::fs::write(&mended, "").expect("a file");
    receiver.accepts.store(true, Ordering::Relaxed);
    let day = 24.0 * HOUR;
    let ticks = runs(&server, &ticking, 3, |run| is_dated(run, -day - HOUR, -day + HOUR)).await;
    let distinct: HashSet<&str> = ticks.iter().map(|run| text(&run["cause"]["tick"])).collect();
    assert_eq!(distinct.len(), ticks.len(), "a tick has one run");
    let retried = server.final_job(&retried).await;
    assert_eq!((&retried["status"], &retried["attempt"]), (&json!("COMPLETE"), &json!(2)));
    receiver.accepted(2).await;
    assert!(server.log().contains("clock jumped"), "{}", server.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_survives_a_clock_beyond_the_calendar() {
    let Some(ClockedServer { server, clock, cluster: _cluster }) = ClockedServer::start(&[]) else { return };
    let workspace = server.workspace("W").await;
    let ticking = pipeline_by_schedule(&server, &workspace, "Ticking").await;
    runs(&server, &ticking, 1, |run| is_dated(run, -HOUR, HOUR)).await;
    clock.set("+4000y");
    eventually("the jump is noticed", async || server.log().contains("clock jumped").then_some(())).await;
    let next = server.data(RUNS, json!({ "id": ticking })).await["pipeline"]["nextRuns"].take();
    assert_eq!(next, json!([]), "no tick is known there");
    // It is taken, with the note that it was missed.
    let next_run = "pipelines WHERE next_run > ";
    let limit = if on_postgres() { "'5000-01-01'" } else { "95617584000000000" };
    eventually("no tick is expected", async || (server.count_rows(&format!("{next_run}{limit}")) == 1).then_some(()))
        .await;
    clock.set("+0");
    let back = Utc::now();
    let since =
        |run: &Value| is_dated(run, -HOUR, HOUR) && ahead(&run["created"]) + 1.0 > (back - Utc::now()).as_seconds_f64();
    runs(&server, &ticking, 2, since).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_is_not_given_up_because_the_clock_was_ahead() {
    let Some(ClockedServer { server, clock, cluster: _cluster }) =
        ClockedServer::start(&["--allow-private-webhooks", "--webhook-backoff", "0.2"])
    else {
        return;
    };
    let receiver = Receiver::start().await;
    let workspace = server.workspace("W").await;
    let pipeline = server.pipeline(&workspace, "P", "true").await;
    let webhook = json!({ "workspaceId": workspace, "pipelineId": pipeline, "url": receiver.url, "level": "ALL" });
    server.change("createWebhook", webhook, "webhook { id }").await;
    server.run(&pipeline).await;
    receiver.refused(1).await;
    clock.set("+400d");
    eventually("the jump is noticed", async || server.log().contains("clock jumped").then_some(())).await;
    let before = receiver.refusals.load(Ordering::Relaxed);
    receiver.refused(before + 2).await;
    clock.set("+0");
    receiver.accepts.store(true, Ordering::Relaxed);
    receiver.accepted(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_node_takes_over_what_another_runs_because_the_clock_jumped() {
    if !on_postgres() {
        return;
    }
    let Some(clock) = FakeClock::new() else { return };
    let Some(cluster) = Cluster::start_with(&clock.environment()) else { return };
    let nodes = crate::nodes::Nodes::in_cluster(&cluster);
    let scratch = nodes.scratch();
    let margin = ["--lease-margin", "3"];
    let mut one = nodes.node("one", &margin);
    let other = nodes.node("other", &margin);
    let (workspace, script) = (one.workspace("W").await, held_by(&scratch));
    // The other one has no job while this one has slots for all.
    let input = json!({ "workspaceId": workspace, "name": "P", "script": script, "maxRetries": 1 });
    let pipeline = one.pipeline_with(input).await;
    let job = one.run(&pipeline).await;
    pids_of(&scratch.join("pids"), 1).await;
    // It is not to be seen that its process lives, as on another machine.
    nodes.database().execute("UPDATE nodes SET machine = name");
    for ahead in ["+400d", "+0", "+1d", "+0"] {
        clock.set(ahead);
        let jumps = |server: &TestServer| server.log().matches("clock jumped").count();
        let before = (jumps(&one), jumps(&other));
        eventually("both notice", async || (jumps(&one) > before.0 && jumps(&other) > before.1).then_some(())).await;
        let lease = "nodes WHERE lease_until BETWEEN clock_timestamp() AND clock_timestamp() + interval '1 minute'";
        eventually("leases are right", async || (nodes.database().count(lease) == 2).then_some(())).await;
    }
    assert_eq!(one.job(&job).await["attempt"], 1, "{}\n{}", one.log(), other.log());
    nobody_complains(&scratch);
    // One that is gone is missed in time, although its lease was once to last for more than a year.
    let runs_it = one.data("query($id: ID!) { job(id: $id) { node } }", json!({ "id": job })).await;
    let runs_it = text(&runs_it["job"]["node"]).to_owned();
    let survivor = if runs_it == "one" {
        one.kill();
        &other
    } else {
        drop(other);
        &one
    };
    lines_of(&scratch.join("pids"), 2).await;
    std::fs::write(scratch.join("gate"), "").expect("the gate");
    let done = survivor.final_job(&job).await;
    assert_eq!((&done["status"], &done["attempt"]), (&json!("COMPLETE"), &json!(2)));
}

/// Takes deliveries of webhooks, or refuses them.
struct Receiver {
    url: String,
    accepts: Arc<AtomicBool>,
    refusals: Arc<AtomicUsize>,
    acceptances: Arc<AtomicUsize>,
}

impl Receiver {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/hook", listener.local_addr().expect("its address"));
        let (accepts, refusals, acceptances): (Arc<AtomicBool>, Arc<AtomicUsize>, Arc<AtomicUsize>) =
            Default::default();
        let receiver = Self {
            url,
            accepts: Arc::clone(&accepts),
            refusals: Arc::clone(&refusals),
            acceptances: Arc::clone(&acceptances),
        };
        let answer = async move || {
            if accepts.load(Ordering::Relaxed) {
                acceptances.fetch_add(1, Ordering::Relaxed);
                StatusCode::NO_CONTENT
            } else {
                refusals.fetch_add(1, Ordering::Relaxed);
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        let app = axum::Router::new().route("/hook", axum::routing::post(answer));
        tokio::spawn(async move { axum::serve(listener, app).await });
        receiver
    }

    async fn refused(&self, count: usize) {
        eventually("refusals", async || (self.refusals.load(Ordering::Relaxed) >= count).then_some(())).await;
    }

    async fn accepted(&self, count: usize) {
        let accepted =
            eventually("deliveries", async || (self.acceptances.load(Ordering::Relaxed) >= count).then_some(()));
        tokio::time::timeout(Duration::from_secs(90), accepted).await.expect("deliveries");
    }
}
