//! What a pipeline runs is what its names mean: when definitions change, when names are given anew, and after Meltano was killed.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::meltano::{configurations, numbers, property, run};
use crate::support::{TestServer, pids_of, signal, text};

/// Changes a pipeline so that it is configured again, and answers the log of that.
async fn configure(server: &TestServer, update: serde_json::Value) -> String {
    let updated = server.change("updatePipeline", update, "job { id }").await;
    let job = text(&updated["job"]["id"]);
    let ended = server.final_job(job).await;
    let log = server.log_text(job).await;
    assert_eq!(ended["status"], "COMPLETE", "{log}");
    log
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_that_has_the_name_of_an_earlier_one_is_not_taken_for_it() {
    let Some(server) = TestServer::with_meltano(&[]) else { return };
    let workspace = server.workspace("W").await;
    let component = |plugin: &str| json!({ "workspaceId": workspace, "name": "it", "plugin": plugin });
    let earlier = server.change("createDataComponent", component("tap-x"), "dataComponent { id }").await;
    let input = json!({ "workspaceId": workspace, "name": "P", "dataComponents": ["it", "target-y"] });
    let pipeline = server.pipeline_with(input).await;
    configure(&server, json!({ "id": pipeline, "dataComponents": ["tap-x", "target-y"] })).await;
    server.delete("DataComponent", text(&earlier["dataComponent"]["id"])).await;

    server.change("createDataComponent", component("target-y"), "__typename").await;
    let log = configure(&server, json!({ "id": pipeline, "dataComponents": ["tap-x", "it"] })).await;
    assert!(log.contains("Added loader it, an instance of target-y."), "{log}");
    let (done, log) = run(&server, &pipeline).await;
    assert_eq!(done["status"], "COMPLETE", "{log}");
    let loaded = fs::read_to_string(server.repository(&workspace).join("output/records.jsonl")).expect("a file");
    assert_eq!(loaded.lines().count(), 3, "{log}");
}

/// Defines a loader that is installed from a package of this version.
fn define_loader(server: &TestServer, version: u8) {
    let wheel = server.scratch().join(format!("jobstream_target_w-{version}-py3-none-any.whl"));
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plugins/make-wheel");
    let made = Command::new(program).arg(&wheel).arg(version.to_string()).status().expect("Python 3");
    assert!(made.success());
    let definition = json!({
        "plugin_type": "loaders", "name": "target-w", "namespace": "target_w", "pip_url": wheel, "executable": "jobstream-target-w",
    });
    fs::write(server.data_directory().join("plugins/target-w.yml"), definition.to_string()).expect("a file");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_is_the_one_that_was_configured_until_it_is_configured_again() {
    let Some(server) = TestServer::with_meltano(&[]) else { return };
    define_loader(&server, 1);
    let server = server.kill_and_restart();
    let workspace = server.workspace("W").await;
    let input = json!({ "workspaceId": workspace, "name": "P", "dataComponents": ["tap-x", "target-w"] });
    let pipeline = server.pipeline_with(input).await;
    let (done, log) = run(&server, &pipeline).await;
    assert_eq!(done["status"], "COMPLETE", "{log}");
    assert!(log.contains("version 1") && !log.contains("has changed"), "{log}");

    define_loader(&server, 2);
    let server = server.kill_and_restart();
    let (done, log) = run(&server, &pipeline).await;
    assert_eq!(done["status"], "COMPLETE", "{log}");
    assert!(log.contains("The definition of target-w has changed") && log.contains("version 1"), "{log}");
    configure(&server, json!({ "id": pipeline, "actions": ["tap-x", "target-w"] })).await;
    let (done, log) = run(&server, &pipeline).await;
    assert_eq!(done["status"], "COMPLETE", "{log}");
    assert!(log.contains("version 2") && !log.contains("Installing"), "{log}");
}

/// The process that has started this one.
fn parent_of(pid: i32) -> i32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("PPid");
    parent.trim().parse().expect("a pid")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_goes_on_at_once_where_meltano_was_killed_by_a_script_too() {
    let Some(server) = TestServer::with_meltano(&["--stop-grace", "0.2"]) else { return };
    let workspace = server.workspace("W").await;
    for (name, script) in [("Actions", json!(null)), ("Script", json!("meltano run tap-x target-y; exit $?"))] {
        let started = server.scratch().join(name);
        let started_there = property("tap-x.started", started.to_str().expect("UTF-8"));
        let hang = property("tap-x.behaviour", "hang");
        let mut input = numbers(&workspace, name, json!([started_there, hang, property("tap-x.password", "hunter2")]));
        input["script"] = script;
        let pipeline = server.pipeline_with(input).await;
        let job = server.run(&pipeline).await;
        // It writes down that it runs, and cannot take that back.
        signal(parent_of(pids_of(&started, 1).await[0]), "KILL");
        assert_eq!(server.final_job(&job).await["exitCode"], 137);
        assert!(!configurations(&server).is_empty(), "nor can it clear away what it has written for its plugins");
        server.change("updatePipeline", json!({ "id": pipeline, "properties": [] }), "__typename").await;
        let (done, log) = run(&server, &pipeline).await;
        assert_eq!(done["status"], "COMPLETE", "{log}");
        assert!(configurations(&server).is_empty(), "the next run does");
    }
}
