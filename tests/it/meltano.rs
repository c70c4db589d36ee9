//! The system jobs on a real Meltano, with plugins that need no installation.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::pipeline_config::git;
use crate::support::{TestServer, eventually, is_alive, pids_of, text};

/// A pipeline of the plugins of the tests, with these properties.
pub fn numbers(workspace: &str, name: &str, properties: Value) -> Value {
    json!({ "workspaceId": workspace, "name": name, "dataComponents": ["tap-x", "target-y"], "properties": properties })
}

pub fn property(name: &str, value: &str) -> Value {
    json!({ "name": name, "value": value })
}

/// Runs a pipeline to its end, and answers the job and its log.
pub async fn run(server: &TestServer, pipeline: &str) -> (Value, String) {
    let job = server.run(pipeline).await;
    (server.final_job(&job).await, server.log_text(&job).await)
}

fn records(server: &TestServer, workspace: &str) -> Vec<i64> {
    let path = server.repository(workspace).join("output/records.jsonl");
    let content = fs::read_to_string(path).unwrap_or_default();
    content
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["id"].as_i64().expect("an id"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_has_a_project_and_a_pipeline_has_its_plugins_in_it() {
    let Some(server) = TestServer::with_meltano(&[]) else { return };
    let workspace = server.workspace("W").await;
    let repository = server.repository(&workspace);
    let tree = git(&repository, &["ls-tree", "-r", "--name-only", "HEAD"]);
    assert!(tree.lines().any(|it| it == "meltano.yml") && tree.lines().any(|it| it == ".gitignore"), "{tree}");
    assert!(git(&repository, &["show", "HEAD:README.md"]).starts_with("# W"), "the workspace's own");

    server
        .change(
            "createDataComponent",
            json!({ "workspaceId": workspace, "name": "source", "plugin": "tap-x", "properties": [] }),
            "__typename",
        )
        .await;
    let input = json!({ "workspaceId": workspace, "name": "P", "dataComponents": ["source", "target-y"] });
    let pipeline = server.pipeline_with(input).await;
    let project = git(&repository, &["show", "HEAD:meltano.yml"]);
    for wanted in ["name: tap-x", "name: target-y", "name: source", "inherit_from: tap-x", &format!("name: {pipeline}")]
    {
        assert!(project.contains(wanted), "{wanted}: {project}");
    }
    assert_eq!(git(&repository, &["status", "--porcelain"]), "");
    let head = git(&repository, &["rev-parse", "HEAD"]);
    // Configured again, nothing changes.
    let again = server
        .change("updatePipeline", json!({ "id": pipeline, "actions": ["source", "target-y"] }), "job { id }")
        .await;
    assert_eq!(server.final_job(text(&again["job"]["id"])).await["status"], "COMPLETE");
    assert_eq!(git(&repository, &["show", "HEAD:meltano.yml"]), project);
    assert_ne!(git(&repository, &["rev-parse", "HEAD"]), head, "the actions stand in the pipeline's own file");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_loads_what_is_new_and_says_nothing_that_is_sensitive() {
    let Some(server) = TestServer::with_meltano(&[]) else { return };
    let workspace = server.workspace("W").await;
    let secret = "correct horse battery staple";
    let properties = json!([property("tap-x.records", "3"), property("tap-x.password", secret)]);
    let pipeline = server.pipeline_with(numbers(&workspace, "P", properties)).await;
    let (done, log) = run(&server, &pipeline).await;
    assert_eq!(done["status"], "COMPLETE", "{log}");
    assert!(log.contains("the password is ***") && log.contains("Run completed"), "{log}");
    assert_eq!(records(&server, &workspace), [1, 2, 3]);
    assert!(!log.contains("Force option"), "{log}");
    let more = json!([property("tap-x.records", "5"), property("tap-x.password", secret)]);
    server.change("updatePipeline", json!({ "id": pipeline, "properties": more }), "__typename").await;
    let (done, log) = run(&server, &pipeline).await;
    assert_eq!(done["status"], "COMPLETE", "{log}");
    assert!(!log.contains("Force option"), "{log}");
    assert_eq!(records(&server, &workspace), [1, 2, 3, 4, 5], "the bookmark was kept");
    let state = server.meltano_state(&pipeline);
    assert!(fs::read_dir(state).is_ok_and(|mut it| it.next().is_some()), "and not in what Meltano keeps for itself");

    let verify = server.verify(&pipeline).await;
    assert_eq!(server.final_job(&verify).await["status"], "COMPLETE", "{}", server.log_text(&verify).await);
    let shown = server.log_text(&verify).await;
    assert!(
        shown.contains("Configuration of tap-x") && shown.contains("(redacted)") && !shown.contains(secret),
        "{shown}"
    );

    assert!(!shown.contains("debug"), "{shown}");
    let everything = Path::new(&server.data_directory()).to_owned();
    let found = std::process::Command::new("grep").args(["-rlF", secret]).arg(&everything).output().expect("grep");
    assert_eq!(String::from_utf8_lossy(&found.stdout), "", "no file holds it");
}

#[tokio::test(flavor = "multi_thread")]
async fn actions_are_run_in_order_and_a_script_finds_meltano() {
    let Some(server) = TestServer::with_meltano(&[]) else { return };
    let workspace = server.workspace("W").await;
    let input = json!({
        "workspaceId": workspace, "name": "Script", "dataComponents": ["tap-x", "target-y"],
        "script": "set -e\nmeltano run tap-x target-y\nwc -l < output/records.jsonl",
    });
    let pipeline = server.pipeline_with(input).await;
    let (done, log) = run(&server, &pipeline).await;
    assert_eq!(done["status"], "COMPLETE", "{log}");
    assert!(log.contains("\n3\n"), "{log}");
    let input =
        json!({ "workspaceId": workspace, "name": "Actions", "actions": ["tap-x", "target-y", "tap-x", "target-y"] });
    let pipeline = server.pipeline_with(input).await;
    let (done, log) = run(&server, &pipeline).await;
    assert_eq!((&done["status"], log.matches("Block run completed").count()), (&json!("COMPLETE"), 2), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_put_together_is_told_when_it_is_configured() {
    let Some(server) = TestServer::with_meltano(&[]) else { return };
    let workspace = server.workspace("W").await;
    let input = json!({ "workspaceId": workspace, "name": "Half", "dataComponents": ["tap-x"] });
    let created = server.begin_pipeline(input).await;
    let job = text(&created["job"]["id"]);
    assert_eq!(server.final_job(job).await["status"], "ERROR");
    let log = server.log_text(job).await;
    assert!(log.contains("1 extractors and 0 loaders"), "{log}");
    let update = json!({ "id": created["pipeline"]["id"], "dataComponents": ["tap-x", "target-y"] });
    let updated = server.change("updatePipeline", update, "job { id }").await;
    assert_eq!(server.final_job(text(&updated["job"]["id"])).await["status"], "COMPLETE");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_whose_definition_is_gone_or_whose_program_is_missing_is_an_error() {
    let Some(server) = TestServer::with_meltano(&[]) else { return };
    let workspace = server.workspace("W").await;
    let pipeline = server.pipeline_with(numbers(&workspace, "P", json!([]))).await;
    let definition = server.data_directory().join("plugins/target-y.yml");
    fs::remove_file(&definition).expect("the definition");
    let server = server.kill_and_restart();
    let (done, log) = run(&server, &pipeline).await;
    assert_eq!(done["status"], "ERROR");
    assert!(log.contains("no data plugin of that name"), "{log}");

    let missing = "plugin_type: loaders\nname: target-y\nnamespace: target_y\nexecutable: jobstream-not-there\n";
    fs::write(&definition, missing).expect("a file");
    let server = server.kill_and_restart();
    let update = json!({ "id": pipeline, "actions": ["tap-x", "target-y"] });
    let updated = server.change("updatePipeline", update, "job { id }").await;
    let job = text(&updated["job"]["id"]);
    assert_eq!(server.final_job(job).await["status"], "ERROR");
    let log = server.log_text(job).await;
    assert!(
        log.contains("target-y: its definition is another now") && log.contains("jobstream-not-there, is not there"),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_in_the_middle_of_a_run_leaves_no_process_and_no_lock() {
    let Some(server) = TestServer::with_meltano(&["--stop-grace", "1"]) else { return };
    let workspace = server.workspace("W").await;
    let started = server.scratch().join("started");
    let started_text = started.to_str().expect("UTF-8").to_owned();
    let hang = json!([property("tap-x.behaviour", "hang"), property("tap-x.started", &started_text)]);
    let pipeline = server.pipeline_with(numbers(&workspace, "P", hang)).await;
    let job = server.run(&pipeline).await;
    // It does not mind TERM.
    let plugin = pids_of(&started, 1).await[0];
    server.stop(&job).await;
    assert_eq!(server.final_job(&job).await["status"], "STOPPED");
    assert!(!is_alive(plugin));
    let well = json!({ "id": pipeline, "properties": [property("tap-x.started", &started_text)] });
    server.change("updatePipeline", well, "__typename").await;
    let (done, log) = run(&server, &pipeline).await;
    assert_eq!(done["status"], "COMPLETE", "the next run starts at once: {log}");
    assert!(configurations(&server).is_empty(), "no configuration of a run is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_was_killed_with_the_server_is_run_again() {
    let Some(server) = TestServer::with_meltano(&["--stop-grace", "0.2"]) else { return };
    let workspace = server.workspace("W").await;
    let started = server.scratch().join("started");
    let hang = json!([
        property("tap-x.behaviour", "hang"),
        property("tap-x.started", started.to_str().expect("UTF-8")),
        property("tap-x.password", "correct horse battery staple"),
    ]);
    let pipeline = server.pipeline_with(numbers(&workspace, "P", hang)).await;
    let job = server.run(&pipeline).await;
    let plugin = pids_of(&started, 1).await[0];
    let server = server.kill_and_restart();
    assert_eq!(server.final_job(&job).await["status"], "ERROR");
    assert!(!is_alive(plugin));
    let well = json!({ "id": pipeline, "properties": [] });
    server.change("updatePipeline", well, "__typename").await;
    let (done, log) = run(&server, &pipeline).await;
    assert_eq!(done["status"], "COMPLETE", "{log}");
    assert!(configurations(&server).is_empty(), "what the killed run has left is cleared away");
}

/// The configurations that plugins were run with and that are still there.
pub fn configurations(server: &TestServer) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![server.data_directory().join("meltano/pipelines")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("a directory") {
            let entry = entry.expect("an entry");
            if entry.file_type().expect("its type").is_dir() {
                directories.push(entry.path());
            } else if entry.file_name().to_string_lossy().ends_with("config.json") {
                found.push(entry.path());
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pipelines_of_a_workspace_run_at_once() {
    let Some(server) = TestServer::with_meltano(&[]) else { return };
    let workspace = server.workspace("W").await;
    let mut pipelines = Vec::new();
    for name in ["One", "Two"] {
        let file = format!("output/{name}.jsonl");
        let properties = json!([property("tap-x.records", "50"), property("target-y.file", &file)]);
        pipelines.push(server.pipeline_with(numbers(&workspace, name, properties)).await);
    }
    let mut jobs = Vec::new();
    for pipeline in &pipelines {
        jobs.push(server.run(pipeline).await);
    }
    for job in &jobs {
        assert_eq!(server.final_job(job).await["status"], "COMPLETE", "{}", server.log_text(job).await);
    }
    for name in ["One", "Two"] {
        let loaded =
            fs::read_to_string(server.repository(&workspace).join(format!("output/{name}.jsonl"))).expect("a file");
        assert_eq!(loaded.lines().count(), 50);
    }
    // What is kept for a pipeline goes with it.
    let kept = server.data_directory().join("meltano/pipelines").join(&pipelines[0]);
    assert!(kept.exists());
    server.delete("Pipeline", &pipelines[0]).await;
    eventually("it goes", async || (!kept.exists()).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_was_killed_at_any_moment_is_done_again() {
    let Some(mut server) = TestServer::with_meltano(&["--stop-grace", "0.2"]) else { return };
    let workspace = server.workspace("W").await;
    let created = server.begin_pipeline(numbers(&workspace, "P", json!([]))).await;
    let pipeline = text(&created["pipeline"]["id"]).to_owned();
    let mut job = text(&created["job"]["id"]).to_owned();
    // Of the seconds that it takes, ever more are granted.
    for round in 1..5 {
        tokio::time::sleep(std::time::Duration::from_millis(round * 400)).await;
        server = server.kill_and_restart();
        server.final_job(&job).await;
        let updated = server.change("updatePipeline", json!({ "id": pipeline }), "job { id }").await;
        match updated["job"]["id"].as_str() {
            Some(next) => job = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(server.final_job(&job).await["status"], "COMPLETE", "{}", server.log_text(&job).await);
    let (done, log) = run(&server, &pipeline).await;
    assert_eq!(done["status"], "COMPLETE", "{log}");
}
