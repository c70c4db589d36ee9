//! Ends that nobody planned, and the one that everybody plans: kill -9, a supervisor killed by hand, SIGTERM.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::support::{TestServer, eventually, is_alive, lines_of, pids_of, signal, system_lines, text, wait_for};

fn numbered(lines: &[Value]) -> bool {
    lines.iter().enumerate().all(|(index, line)| line["sequence"] == index)
}

/// A script whose first attempt notes its processes and sleeps, ignoring TERM, and whose second prints.
fn sleeps_once(pids: &Path) -> String {
    format!(
        "echo attempt $JOBSTREAM_ATTEMPT\n[ $JOBSTREAM_ATTEMPT = 1 ] || exit 0\ntrap '' TERM\necho $$ >> {0}\n\
         setsid env -i /bin/bash -c 'echo $$ >> {0}; exec sleep 600' &\n\
         until [ \"$(wc -l < {0})\" = 2 ]; do sleep 0.01; done; echo ready; sleep 600",
        pids.display()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_a_killed_server_is_queued_again_if_tries_are_left() {
    let server = TestServer::with(&["--stop-grace", "0.3"]);
    let file = server.scratch().join("pids");
    let workspace = server.workspace("Workspace").await;
    let input = json!({ "workspaceId": workspace, "name": "Pipeline", "script": sleeps_once(&file), "maxRetries": 1 });
    let pipeline = server.pipeline_with(input).await;
    let cursor = server.cursor().await;
    let job = server.run(&pipeline).await;
    server.line_appears(&job, "ready").await;
    let pids = pids_of(&file, 2).await;

    let server = server.kill_and_restart();
    let done = server.final_job(&job).await;
    assert!(!pids.iter().any(|pid| is_alive(*pid)), "something of the first attempt is left");
    assert_eq!((&done["status"], &done["attempt"]), (&json!("COMPLETE"), &json!(2)));
    let lines = server.log_lines(&job).await;
    assert!(numbered(&lines));
    let all: Vec<&str> = lines.iter().map(|line| text(&line["text"])).collect();
    assert_eq!((all[0], all[1], all[3]), ("attempt 1", "ready", "attempt 2"));
    let said = system_lines(&lines);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("server ended") && said[0].contains("attempt 1 of 2"), "{said:?}");
    assert!(said[0].contains("queued again"), "{said:?}");

    let mut changes = server.changes(json!({ "jobId": job, "after": cursor })).await;
    let seen = changes.until(|change| change["status"] == "COMPLETE").await;
    let path: Vec<(&str, i64)> =
        seen.iter().map(|it| (text(&it["status"]), it["attempt"].as_i64().expect("a number"))).collect();
    assert_eq!(path, [("QUEUED", 1), ("RUNNING", 1), ("QUEUED", 2), ("RUNNING", 2), ("COMPLETE", 2)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_a_killed_server_ends_with_an_error_if_no_tries_are_left() {
    let server = TestServer::with(&["--stop-grace", "0.3"]);
    let file = server.scratch().join("pids");
    let job = server.run_script(&sleeps_once(&file)).await;
    server.line_appears(&job, "ready").await;
    let pids = pids_of(&file, 2).await;
    let server = server.kill_and_restart();
    let done = server.final_job(&job).await;
    assert!(!pids.iter().any(|pid| is_alive(*pid)), "something of the job is left");
    assert_eq!((&done["status"], &done["exitCode"], &done["attempt"]), (&json!("ERROR"), &Value::Null, &json!(1)));
    assert!(done["endTime"].is_string());
    let said = system_lines(&server.log_lines(&job).await);
    assert!(said[0].contains("server ended") && said[0].contains("No tries are left"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wish_to_stop_survives_a_kill_of_the_server() {
    let server = TestServer::with(&["--stop-grace", "60"]);
    let workspace = server.workspace("Workspace").await;
    let told = server.scratch().join("told");
    // Not to its output: after the kill nobody reads that, and writing would end the job.
    let script =
        format!("trap 'echo told >> {}' TERM; echo $$; echo ready; while :; do sleep 0.02; done", told.display());
    let input = json!({ "workspaceId": workspace, "name": "Pipeline", "script": script, "maxRetries": 5 });
    let job = server.run(&server.pipeline_with(input).await).await;
    server.line_appears(&job, "ready").await;
    let pid: i32 = server.log_text(&job).await.lines().next().expect("a pid").parse().expect("a pid");
    let requested = server.stop(&job).await["stopRequested"].clone();
    lines_of(&told, 1).await;

    let mut server = server;
    server.kill();
    // The grace is long, and the job does not end: its supervisor is told to hurry by hand, not by the next server.
    signal(parent_of(pid), "TERM");
    let server = server.restart();
    let done = server.final_job(&job).await;
    assert!(!is_alive(pid));
    assert_eq!((&done["status"], &done["stopReason"]), (&json!("STOPPED"), &json!("REQUESTED")));
    assert_eq!((&done["stopRequested"], &done["attempt"]), (&requested, &json!(1)));
    let said = system_lines(&server.log_lines(&job).await);
    assert!(said.last().is_some_and(|line| line.contains("server ended")), "{said:?}");
}

fn parent_of(pid: i32) -> i32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("a parent");
    parent.trim().parse().expect("a pid")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_that_was_suspended_does_not_keep_a_server_from_its_jobs() {
    let server = TestServer::with(&["--stop-grace", "0.3"]);
    let file = server.scratch().join("pids");
    let job = server.run_script(&sleeps_once(&file)).await;
    server.line_appears(&job, "ready").await;
    let pids = pids_of(&file, 2).await;
    signal(parent_of(pids[0]), "STOP");
    let server = server.kill_and_restart();
    assert_eq!(server.final_job(&job).await["status"], "ERROR");
    assert!(!pids.iter().any(|pid| is_alive(*pid)), "something of the job is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_supervisor_is_killed_is_ended_without_it() {
    for (retries, expected) in [(0, "ERROR"), (1, "COMPLETE")] {
        let server = TestServer::start();
        let file = server.scratch().join("pids");
        let workspace = server.workspace("Workspace").await;
        // Without one of `env -i` and `setsid`: the job's id in the environment, and the session, are all there is to find its processes by.
        let script = sleeps_once(&file).replace(if retries == 0 { "env -i " } else { "setsid " }, "");
        let input = json!({ "workspaceId": workspace, "name": "P", "script": script, "maxRetries": retries });
        let job = server.run(&server.pipeline_with(input).await).await;
        server.line_appears(&job, "ready").await;
        let pids = pids_of(&file, 2).await;
        signal(parent_of(pids[0]), "KILL");
        let done = server.final_job(&job).await;
        assert!(!pids.iter().any(|pid| is_alive(*pid)), "something of the first attempt is left");
        assert_eq!((&done["status"], &done["attempt"]), (&json!(expected), &json!(retries + 1)));
        let lines = server.log_lines(&job).await;
        assert!(numbered(&lines));
        let said = system_lines(&lines);
        assert!(said[0].contains("supervisor was killed"), "{said:?}");
        // The slot has another supervisor.
        let pipeline = server.pipeline(&workspace, "Next", "true").await;
        assert_eq!(server.final_job(&server.run(&pipeline).await).await["status"], "COMPLETE");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_running_jobs_finish_and_starts_no_others() {
    let mut server = TestServer::with(&["--slots", "1", "--shutdown-grace", "60"]);
    let gate = server.scratch().join("gate");
    let workspace = server.workspace("Workspace").await;
    let running = server.pipeline(&workspace, "Running", &format!("{}; echo finished", wait_for(&gate))).await;
    let waiting = server.pipeline(&workspace, "Waiting", "true").await;
    let running = server.run(&running).await;
    server.job_is(&running, "RUNNING").await;
    let waiting = server.run(&waiting).await;
    server.terminate();
    eventually("it says that it shuts down", async || server.log().contains("shutting down").then_some(())).await;
    std::fs::write(&gate, "").expect("the gate");
    assert!(server.ended().await.success());

    let server = server.restart();
    let done = server.job(&running).await;
    assert_eq!((&done["status"], &done["exitCode"], &done["attempt"]), (&json!("COMPLETE"), &json!(0), &json!(1)));
    assert_eq!(server.log_text(&running).await, "finished\n");
    let done = server.final_job(&waiting).await;
    assert_eq!((&done["status"], &done["attempt"]), (&json!("COMPLETE"), &json!(1)));
    assert_eq!(server.log_lines(&waiting).await, Vec::<Value>::new(), "it was not started before");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_outlasts_the_grace_is_queued_again_with_the_same_attempt() {
    let mut server = TestServer::with(&["--shutdown-grace", "0.2", "--stop-grace", "0.3"]);
    let (pids, gate) = (server.scratch().join("pids"), server.scratch().join("gate"));
    let script =
        format!("trap '' TERM; echo attempt $JOBSTREAM_ATTEMPT; echo $$ >> {}; {}", pids.display(), wait_for(&gate));
    let job = server.run_script(&script).await;
    server.line_appears(&job, "attempt 1").await;
    let pid = pids_of(&pids, 1).await[0];
    server.terminate();
    assert!(server.ended().await.success(), "{}", server.log());
    assert!(!is_alive(pid));

    std::fs::write(&gate, "").expect("the gate");
    let server = server.restart();
    let done = server.final_job(&job).await;
    assert_eq!((&done["status"], &done["attempt"], &done["maxAttempts"]), (&json!("COMPLETE"), &json!(1), &json!(1)));
    let lines = server.log_lines(&job).await;
    assert!(numbered(&lines));
    let printed: Vec<&str> =
        lines.iter().filter(|line| line["stream"] == "STDOUT").map(|line| text(&line["text"])).collect();
    assert_eq!(printed, ["attempt 1", "attempt 1"]);
    let said = system_lines(&lines);
    assert!(said[0].starts_with("Sending KILL to ") && said[1].contains("shuts down"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_on_the_same_directory_is_refused() {
    let server = TestServer::start();
    let second = TestServer::command(server.directory()).stderr(Stdio::piped()).output().expect("it ends");
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(said.contains("in use by another jobstream server"), "{said}");
    assert!(said.contains("--data-dir"), "{said}");
    // The first is unharmed, and its end frees the directory.
    server.workspace("Workspace").await;
    let server = server.kill_and_restart();
    assert_eq!(server.data("{ workspaces { totalCount } }", json!({})).await["workspaces"]["totalCount"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_that_a_kill_interrupts_is_resumed() {
    let server = TestServer::with(&["--stop-grace", "60"]);
    let file = server.scratch().join("pids");
    let workspace = server.workspace("Workspace").await;
    let script = format!("trap '' TERM; echo $$ >> {}; seq 1000; while :; do sleep 0.02; done", file.display());
    let job = server.run(&server.pipeline(&workspace, "Pipeline", &script).await).await;
    let pid = pids_of(&file, 1).await[0];
    let mut changes = server.changes(json!({ "jobId": job })).await;
    let cursor = text(&changes.next().await.expect("the present")["cursor"]).to_owned();
    let repository = server.data_directory().join("repositories").join(&workspace);
    // The job does not hear, so at the moment of the kill the deletion is accepted and nothing of it is done.
    server.delete("Workspace", &workspace).await;
    assert!(repository.exists() && is_alive(pid));
    let mut server = server;
    server.kill();
    signal(parent_of(pid), "TERM");
    let server = server.restart();

    let query = "query($id: ID!) { workspace(id: $id) { id } }";
    assert_eq!(server.data(query, json!({ "id": workspace })).await["workspace"], Value::Null);
    let mut changes = server.changes(json!({ "jobId": job, "after": cursor })).await;
    let stopped = changes.next().await.expect("a change");
    assert_eq!((&stopped["status"], &stopped["deleted"]), (&json!("STOPPED"), &json!(false)));
    assert!(!is_alive(pid));
    assert_eq!(changes.next().await.expect("a change")["deleted"], true);
    eventually("the repository goes", async || (!repository.exists()).then_some(())).await;
    for table in ["workspaces", "pipelines", "jobs", "log_chunks"] {
        eventually(table, async || (server.count_rows(table) == 0).then_some(())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn locks_of_a_git_that_was_killed_do_not_keep_a_workspace_from_being_made() {
    let server = TestServer::with(&["--slots", "0"]);
    let workspace = server.begin_workspace("Workspace").await;
    let (id, jobs) = (text(&workspace["workspace"]["id"]), workspace["jobs"].as_array().expect("jobs"));
    let init = jobs.iter().find(|job| job["type"] == "WORKSPACE_INIT").expect("the job");
    // What `git init` leaves when it is killed at the wrong moment, a while ago.
    let git = server.data_directory().join("repositories").join(id).join(".git");
    std::fs::create_dir_all(&git).expect("a directory");
    let long_ago = SystemTime::now() - Duration::from_secs(60);
    for lock in ["config.lock", "index.lock", "HEAD.lock"] {
        let file = std::fs::File::create(git.join(lock)).expect("a lock");
        file.set_modified(long_ago).expect("its time");
    }
    let server = server.kill_and_restart_with(&["--slots", "1"]);
    let job = text(&init["id"]);
    assert_eq!(server.final_job(job).await["status"], "COMPLETE", "{}", server.log_text(job).await);
}
