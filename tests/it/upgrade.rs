//! What an earlier version stored is all there in this one. `tests/fixtures` says what that is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{TestServer, on_postgres, text};

/// The query whose response is stored beside the data.
const QUERY: &str = "{ workspaces(first: 5) { nodes { id name alias status created lastModified repositoryUrl \
    dataComponents(first: 5) { nodes { id name properties { name value sensitive } } } webhooks(first: 5) { nodes { id url level } } \
    pipelines(first: 10) { nodes { id name status schedule timeout maxRetries script actions dataComponents triggeredBy \
    properties { name value sensitive } created } } } } \
    jobs(first: 40) { cursor totalCount nodes { id type status attempt maxAttempts exitCode stopReason commitId created startTime endTime \
    stopRequested failure { summary plugin line } cause { type } pipeline { id } workspace { id } \
    logs(first: 60) { nextSequence complete lines { sequence stream text timestamp continued } } } } }";

/// The SHA-256 of the sensitive value of two of its pipelines.
const SENSITIVE: &str = "84ca44583745ccf15b7bf24814907969c6afa3e380daf3bbe35a353fe192dace";

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/ca1700b").join(name)
}

fn unpack(archive: &str, into: &Path) {
    std::fs::create_dir_all(into).expect("a directory");
    let unpacked = Command::new("tar").arg("-xzf").arg(fixture(archive)).arg("-C").arg(into).status().expect("tar");
    assert!(unpacked.success(), "{archive}");
}

/// A server on what the version of this commit stored.
fn upgraded(arguments: &[&str]) -> TestServer {
    TestServer::prepared(
        |directory, database| match database {
            None => unpack("sqlite.tar.gz", directory),
            Some(database) => {
                database.restore(&fixture("postgres.sql.gz"));
                unpack("postgres-shared.tar.gz", &directory.join("data"));
            }
        },
        arguments,
    )
}

fn expected() -> Value {
    let name = if on_postgres() { "postgres.json" } else { "sqlite.json" };
    serde_json::from_str(&std::fs::read_to_string(fixture(name)).expect("the response")).expect("JSON")
}

/// The pipelines by their names.
fn pipelines(response: &Value) -> BTreeMap<String, Value> {
    let workspaces = response["workspaces"]["nodes"].as_array().expect("workspaces");
    let pipelines = workspaces.iter().flat_map(|it| it["pipelines"]["nodes"].as_array().expect("pipelines"));
    pipelines.map(|it| (text(&it["name"]).to_owned(), it.clone())).collect()
}

/// Whether all that was there is there with the same value. A failure may have been told since where there was none.
fn compare(path: &str, before: &Value, after: &Value) {
    match (before, after) {
        (Value::Object(fields), Value::Object(_)) => {
            for (name, value) in fields {
                compare(&format!("{path}.{name}"), value, &after[name]);
            }
        }
        (Value::Array(items), Value::Array(others)) => {
            assert_eq!(items.len(), others.len(), "{path}");
            for (index, (item, other)) in items.iter().zip(others).enumerate() {
                compare(&format!("{path}.{index}"), item, other);
            }
        }
        (Value::Null, _) if path.ends_with(".failure") => {}
        _ => assert_eq!(before, after, "{path}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_value_of_an_earlier_version_is_kept() {
    let mut server = upgraded(&["--slots", "0"]);
    let before = expected();
    // The second start finds what the first has made of it.
    for _ in 0..2 {
        let mut after = server.data(QUERY, Value::Null).await;
        let jobs = after["jobs"]["nodes"].as_array_mut().expect("jobs");
        let count = jobs.len();
        jobs.retain(|job| job["cause"]["type"] != "SCHEDULE");
        if jobs.len() != count {
            // The schedule has had a tick meanwhile.
            after["jobs"]["cursor"] = before["jobs"]["cursor"].clone();
            after["jobs"]["totalCount"] = before["jobs"]["totalCount"].clone();
        }
        compare("", &before, &after);
        server = server.kill_and_restart();
    }
    // The stream goes on after the cursor that a client has kept.
    let mut changes = server.changes(json!({ "after": before["jobs"]["cursor"] })).await;
    let masked = &pipelines(&before)["Masked"]["id"];
    let run = server.run(text(masked)).await;
    let first = loop {
        let change = changes.next().await.expect("a change");
        if change["jobId"] == json!(run) {
            break change;
        }
    };
    assert_eq!((&first["initial"], &first["status"]), (&json!(false), &json!("QUEUED")));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_pipeline_of_an_earlier_version_runs() {
    let server = upgraded(&["--retry-backoff", "0.1", "--stop-grace", "1"]);
    let pipelines = pipelines(&expected());
    let id = |name: &str| text(&pipelines[name]["id"]).to_owned();
    // As they are. The one that is triggered comes first, so that nothing else runs it.
    for (name, status, attempt) in [
        ("After Good", "COMPLETE", 1),
        ("Scheduled", "COMPLETE", 1),
        ("Masked", "COMPLETE", 1),
        ("Bad", "ERROR", 2),
        ("Slow", "STOPPED", 1),
        ("Good", "COMPLETE", 1),
    ] {
        let job = server.final_job(&server.run(&id(name)).await).await;
        assert_eq!((text(&job["status"]), &job["attempt"]), (status, &json!(attempt)), "{name}: {job}");
    }
    let long = server.run(&id("Long")).await;
    server.line_appears(&long, "started").await;
    server.stop(&long).await;
    assert_eq!(server.final_job(&long).await["status"], "STOPPED");

    for name in ["Good", "Masked"] {
        let script = "printf %s \"$A_SECRET\" | sha256sum";
        server.change("updatePipeline", json!({ "id": id(name), "script": script }), "pipeline { id }").await;
        let run = server.run(&id(name)).await;
        assert_eq!(server.final_job(&run).await["status"], "COMPLETE");
        assert_eq!(server.log_text(&run).await.split(' ').next(), Some(SENSITIVE), "{name}");
    }
    for (name, pipeline) in &pipelines {
        let verified = server.final_job(&server.verify(text(&pipeline["id"])).await).await;
        assert_eq!(verified["status"], "COMPLETE", "{name}");
    }
}
