//! Schedules: one run for every tick, or one note that it was skipped.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{TestServer, eventually, text, wait_for};

const RUNS: &str = "query($id: ID!) { jobs(pipelineId: $id, type: [PIPELINE_RUN], first: 500) { nodes { id status created cause { type tick \
                    job { id } } } } }";

async fn runs(server: &TestServer, pipeline: &str) -> Vec<Value> {
    let found = server.data(RUNS, json!({ "id": pipeline })).await;
    found["jobs"]["nodes"].as_array().expect("jobs").clone()
}

/// Waits until a pipeline has so many runs that have ended.
async fn ended_runs(server: &TestServer, pipeline: &str, count: usize) -> Vec<Value> {
    eventually("runs by schedule", async || {
        let ended: Vec<Value> =
            runs(server, pipeline).await.into_iter().filter(|it| it["status"] == "COMPLETE").collect();
        (ended.len() >= count).then_some(ended)
    })
    .await
}

fn every_second(workspace: &str, name: &str, script: &str) -> Value {
    json!({ "workspaceId": workspace, "name": name, "script": script, "schedule": "* * * * * *" })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_tick_has_a_run_that_says_so() {
    let server = TestServer::start();
    let workspace = server.workspace("W").await;
    let pipeline = server.pipeline_with(every_second(&workspace, "P", "true")).await;
    let runs = ended_runs(&server, &pipeline, 3).await;
    let ticks: HashSet<&str> = runs.iter().map(|it| text(&it["cause"]["tick"])).collect();
    assert_eq!(ticks.len(), runs.len(), "a tick has one run");
    for run in &runs {
        assert_eq!((&run["cause"]["type"], &run["cause"]["job"]), (&json!("SCHEDULE"), &Value::Null));
        assert!(
            text(&run["cause"]["tick"]).ends_with(".000000Z")
                && run["created"].as_str() >= run["cause"]["tick"].as_str()
        );
    }
    let asked = server.pipeline(&workspace, "Q", "true").await;
    server.run(&asked).await;
    assert_eq!(ended_runs(&server, &asked, 1).await[0]["cause"], json!({ "type": "USER", "tick": null, "job": null }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_that_is_taken_away_ticks_no_more() {
    let server = TestServer::start();
    let workspace = server.workspace("W").await;
    let pipeline = server.pipeline_with(every_second(&workspace, "P", "true")).await;
    ended_runs(&server, &pipeline, 1).await;
    let update = json!({ "id": pipeline, "schedule": null });
    server.change("updatePipeline", update, "pipeline { schedule nextRuns }").await;
    let before = runs(&server, &pipeline).await.len();
    // Another pipeline's ticks show that time has passed.
    let clock = server.pipeline_with(every_second(&workspace, "Clock", "true")).await;
    ended_runs(&server, &clock, 2).await;
    assert_eq!(runs(&server, &pipeline).await.len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_runs_are_told_and_never_out_of_date() {
    let server = TestServer::with(&["--time-zone", "Europe/Berlin"]);
    let workspace = server.workspace("W").await;
    let pipeline = server.pipeline_with(every_second(&workspace, "P", "true")).await;
    let query = "query($id: ID!) { pipeline(id: $id) { nextRuns(first: 3) } }";
    let first = server.data(query, json!({ "id": pipeline })).await["pipeline"]["nextRuns"].take();
    assert_eq!(first.as_array().map(Vec::len), Some(3), "{first}");
    let later = eventually("other ticks come next", async || {
        let runs = server.data(query, json!({ "id": pipeline })).await["pipeline"]["nextRuns"].take();
        (runs != first).then_some(runs)
    });
    assert!(text(&later.await[0]) > text(&first[0]));
    let nightly = json!({ "workspaceId": workspace, "name": "N", "script": "true", "schedule": "0 30 2 1 7 *" });
    let nightly = server.pipeline_with(nightly).await;
    let runs = server.data(query, json!({ "id": nightly })).await["pipeline"]["nextRuns"].take();
    assert!(runs.as_array().expect("ticks").iter().all(|it| text(it).contains("-07-01T00:30:00")), "in summer: {runs}");
    for (first, code) in [(0, "BAD_USER_INPUT"), (101, "BAD_USER_INPUT")] {
        let query = format!("query($id: ID!) {{ pipeline(id: $id) {{ nextRuns(first: {first}) }} }}");
        assert_eq!(server.code(&query, json!({ "id": pipeline })).await, code);
    }
    let long = format!("{} * * * * *", ["0"; 200].join(","));
    for never in ["0 0 0 30 2 *", "0 0 0 1 1 * 2099", &long] {
        let never = json!({ "workspaceId": workspace, "name": "Never", "script": "true", "schedule": never });
        assert_eq!(server.refused("createPipeline", never).await.paths(), ["input.schedule"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tick_that_finds_the_pipeline_busy_is_skipped_and_says_so() {
    let server = TestServer::start();
    let workspace = server.workspace("W").await;
    let go = server.scratch().join("go");
    let mut activity = server.activity(json!({ "workspaceId": workspace, "level": "ERRORS" })).await;
    let pipeline = server.pipeline_with(every_second(&workspace, "P", &wait_for(&go))).await;
    let skipped = activity.next().await.expect("a skip");
    let run = &runs(&server, &pipeline).await[0];
    assert_eq!(
        (&skipped["kind"], &skipped["pipelineId"], &skipped["job"]),
        (&json!("SKIPPED"), &json!(pipeline), &Value::Null)
    );
    assert_eq!(
        skipped["reason"],
        format!("The schedule's tick came while a run was active: job {}.", text(&run["id"]))
    );
    std::fs::write(go, "").expect("a file");
    ended_runs(&server, &pipeline, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ticks_that_were_missed_are_skipped_with_one_note() {
    let server = TestServer::start();
    let workspace = server.workspace("W").await;
    let pipeline = server.pipeline_with(every_second(&workspace, "P", "true")).await;
    ended_runs(&server, &pipeline, 1).await;
    let server = missing_ticks(server, &[]).await;
    let cursor = json!({ "workspaceId": workspace, "level": "ERRORS", "after": CURSOR_BEFORE_ALL });
    let mut activity = server.activity(cursor).await;
    let skipped = loop {
        let next = activity.next().await.expect("activity");
        if text(&next["reason"]).starts_with("The server was down") {
            break next;
        }
    };
    assert!(text(&skipped["reason"]).contains("are not made up for"), "{skipped}");
    ended_runs(&server, &pipeline, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ticks_that_were_missed_are_made_up_for_by_one_run_where_that_is_wanted() {
    let server = TestServer::start();
    let workspace = server.workspace("W").await;
    let pipeline = server.pipeline_with(every_second(&workspace, "P", "true")).await;
    ended_runs(&server, &pipeline, 1).await;
    let down = std::time::Instant::now();
    let server = missing_ticks(server, &["--missed-ticks", "run-once"]).await;
    let down = down.elapsed();
    let runs = ended_runs(&server, &pipeline, 4).await;
    let ticks: Vec<&str> = runs.iter().map(|it| text(&it["cause"]["tick"])).collect();
    let distinct: HashSet<&str> = ticks.iter().copied().collect();
    assert_eq!(distinct.len(), ticks.len(), "{ticks:?}");
    let seconds = |tick: &str| tick.parse::<chrono::DateTime<chrono::Utc>>().expect("an instant").timestamp();
    let gaps: Vec<i64> = ticks.windows(2).map(|pair| seconds(pair[0]) - seconds(pair[1])).collect();
    let missed = gaps.iter().filter(|gap| **gap > 1).count();
    assert_eq!(missed, 1, "one gap, for {down:?}: {ticks:?}");
}

/// A cursor from before everything.
const CURSOR_BEFORE_ALL: &str = "cwAAAAAAAAAA";

/// Kills a server and starts another one, with these options, when some ticks have gone by.
async fn missing_ticks(mut server: TestServer, options: &[&str]) -> TestServer {
    server.kill();
    tokio::time::sleep(Duration::from_millis(3_200)).await; // time itself is what has to pass
    let options: Vec<&str> = ["--listen", "127.0.0.1:0"].iter().chain(options).copied().collect();
    server.kill_and_restart_with(&options)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_tick_has_two_runs_although_servers_are_killed() {
    let mut server = TestServer::with(&["--missed-ticks", "run-once", "--retry-backoff", "0.05"]);
    let workspace = server.workspace("W").await;
    let mut pipelines = Vec::new();
    for name in ["A", "B", "C"] {
        pipelines.push(server.pipeline_with(every_second(&workspace, name, "true")).await);
    }
    for round in 0..8_u64 {
        let before = runs(&server, &pipelines[0]).await.len();
        eventually("a tick", async || (runs(&server, &pipelines[0]).await.len() > before).then_some(())).await;
        tokio::time::sleep(Duration::from_millis(round * 7 % 30)).await; // not always at the same moment
        server = server.kill_and_restart();
    }
    for pipeline in &pipelines {
        let runs = runs(&server, pipeline).await;
        let ticks: HashSet<&str> = runs.iter().map(|it| text(&it["cause"]["tick"])).collect();
        assert_eq!(ticks.len(), runs.len(), "a tick has two runs");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_schedule_names_the_field() {
    let server = TestServer::with(&["--slots", "0"]);
    let created = server.change("createWorkspace", json!({ "name": "W" }), "workspace { id }").await;
    let workspace = created["workspace"]["id"].clone();
    let wrong = [
        ("0 75 * * * *", "minute: 75 is not between 0 and 59"),
        ("0 */90 * * * *", "minute: the step of */90 is larger than the range 0-59"),
        ("0 0 20-10 * * *", "hour: the range 20-10 is empty"),
        ("0 0 0 * * L", "day of week: L needs a day"),
        ("0 0 0 30 2 *", "There is no such day"),
        ("* * * * *", "there are 6 fields, not 5"),
        ("@daily", "there are 6 fields, not 1"),
    ];
    for (schedule, expected) in wrong {
        let input = json!({ "workspaceId": workspace, "name": "P", "script": "true", "schedule": schedule });
        let refused = server.mutate("createPipeline", input, "__typename").await;
        let problems = refused["errors"][0]["extensions"]["problems"].as_array().expect("problems").clone();
        assert_eq!((problems.len(), &problems[0]["path"]), (1, &json!("input.schedule")), "{refused}");
        assert!(text(&problems[0]["message"]).contains(expected), "{refused}");
    }
    for (nth, schedule) in
        ["0 0 0 LW * *", "0 0 12 * * FRI#2", "0 0 0 */2 * MON", "0 0 0 1-7 * +MON"].iter().enumerate()
    {
        let input =
            json!({ "workspaceId": workspace, "name": nth.to_string(), "script": "true", "schedule": schedule });
        server.change("createPipeline", input, "pipeline { id }").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_schedule_that_would_be_refused_now_goes_on() {
    let mut server = TestServer::with(&["--slots", "0"]);
    let created = server.change("createWorkspace", json!({ "name": "W" }), "workspace { id }").await;
    let input =
        json!({ "workspaceId": created["workspace"]["id"], "name": "P", "script": "true", "schedule": "0 0 0 1 1 *" });
    let created = server.change("createPipeline", input, "pipeline { id }").await;
    let pipeline = created["pipeline"]["id"].clone();
    server.kill();
    server.execute("UPDATE definitions SET body = replace(body, '0 0 0 1 1 *', '* */90 * * * *')");
    let server = server.restart();
    let query = "query($id: ID!) { pipeline(id: $id) { schedule nextRuns(first: 2) } }";
    let found = server.data(query, json!({ "id": pipeline })).await;
    assert_eq!(found["pipeline"]["schedule"], "* */90 * * * *");
    assert_eq!(found["pipeline"]["nextRuns"].as_array().map(Vec::len), Some(2), "{found}");
    // It is no obstacle to a change of something else, but it is not to be given again.
    server.change("updatePipeline", json!({ "id": pipeline, "timeout": 60 }), "pipeline { id }").await;
    let other = json!({ "id": pipeline, "schedule": "0 */91 * * * *" });
    assert_eq!(server.refused("updatePipeline", other).await.paths(), ["input.schedule"]);
}
