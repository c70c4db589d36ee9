//! Stopping and deleting: nothing of a job is left, and nothing of it can be seen.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use jobstream::client::ClientError;
use serde_json::{Value, json};

use crate::support::{TestServer, eventually, is_alive, on_postgres, pids_of, system_lines, text, wait_for, within};

const STOP: &str = "mutation($input: StopJobInput!) { stopJob(input: $input) { job { id } } }";
const GRACE: &[&str] = &["--stop-grace", "0.5"];
const NONE: [i32; 0] = [];

/// Bash that writes its pid into a file and sleeps.
fn noted_sleep(pids: &Path) -> String {
    format!("bash -c 'echo $$ >> {}; exec sleep 600'", pids.display())
}

fn alive(pids: &[i32]) -> Vec<i32> {
    pids.iter().copied().filter(|pid| is_alive(*pid)).collect()
}

/// Stops a job that runs this script, which notes `count` pids first, and checks that none of them is left.
async fn stop_ends_all(script: impl FnOnce(&Path) -> String, count: usize) {
    let server = TestServer::with(GRACE);
    let file = server.scratch().join("pids");
    let script = format!("echo $$ >> {}\n{}", file.display(), script(&file));
    let job = server.run_script(&script).await;
    let pids = pids_of(&file, count + 1).await;
    assert_eq!(alive(&pids), pids, "they run, or there is nothing to test");
    server.stop(&job).await;
    let done = server.final_job(&job).await;
    assert_eq!(alive(&pids), NONE, "left over when the job was STOPPED");
    assert_eq!((&done["status"], &done["stopReason"]), (&json!("STOPPED"), &json!("REQUESTED")));
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_ends_the_whole_process_group() {
    stop_ends_all(|pids| format!("{0} &\n{0} &\nwait", noted_sleep(pids)), 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_ends_processes_in_sessions_of_their_own() {
    stop_ends_all(|pids| format!("setsid {0} &\nnohup setsid {0} > /dev/null &\nwait", noted_sleep(pids)), 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_ends_daemons_that_have_left_their_parents() {
    stop_ends_all(
        |pids| format!("( ( setsid {0} < /dev/null > /dev/null 2>&1 & ) & )\nsleep 600", noted_sleep(pids)),
        1,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_ends_processes_that_have_forgotten_their_environment() {
    stop_ends_all(|pids| format!("env -i setsid {} &\nwait", noted_sleep(pids).replace("bash", "/bin/bash")), 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_kills_processes_that_ignore_term_after_the_grace() {
    let stubborn = |pids: &Path| format!("trap '' TERM HUP INT\n{0} &\nsetsid {0} &\nwait", noted_sleep(pids));
    stop_ends_all(stubborn, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_ends_processes_that_are_suspended() {
    let suspended =
        |pids: &Path| format!("bash -c 'kill -STOP $$; exec sleep 600' &\necho $! >> {}\nwait", pids.display());
    stop_ends_all(suspended, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_ends_processes_that_go_on_starting_others() {
    let forking = |pids: &Path| {
        format!(
            "trap '' TERM\nfor i in 1 2 3; do\n( trap '' TERM; while :; do setsid sleep 0.02; done ) &\necho $! >> {}\ndone\nwait",
            pids.display()
        )
    };
    stop_ends_all(forking, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_ends_a_process_whose_first_thread_has_ended() {
    let threaded = |pids: &Path| {
        let program = "import ctypes, os, threading, time\n\
                       threading.Thread(target=lambda: [print(os.getpid(), file=open(os.sys.argv[1], \"a\")), time.sleep(600)]).start()\n\
                       ctypes.CDLL(None).pthread_exit(None)";
        format!("python3 -c '{program}' {} &\nwait", pids.display())
    };
    let server = TestServer::with(GRACE);
    let file = server.scratch().join("pids");
    let job = server.run_script(&threaded(&file)).await;
    let pid = pids_of(&file, 1).await[0];
    // Its first thread is a zombie now, so that the process looks like one.
    eventually("the first thread ends", async || (!is_alive(pid)).then_some(())).await;
    let threads = || std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    assert_eq!(threads(), 2);
    server.stop(&job).await;
    assert_eq!(server.final_job(&job).await["status"], "STOPPED");
    assert_eq!(threads(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_ends_a_job_that_has_suspended_its_supervisor() {
    stop_ends_all(|pids| format!("kill -STOP $PPID\n{} &\nwait", noted_sleep(pids)), 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queued_job_stops_at_once() {
    let server = TestServer::with(&["--slots", "1"]);
    let gate = server.scratch().join("gate");
    let workspace = server.workspace("Workspace").await;
    let blocker = server.pipeline(&workspace, "Blocker", &wait_for(&gate)).await;
    let pipeline = server.pipeline(&workspace, "Pipeline", "true").await;
    let blocker = server.run(&blocker).await;
    server.job_is(&blocker, "RUNNING").await;
    let job = server.run(&pipeline).await;
    assert_eq!(server.stop(&job).await["status"], "STOPPED");
    let stopped = server.job(&job).await;
    assert_eq!((&stopped["status"], &stopped["stopReason"]), (&json!("STOPPED"), &json!("REQUESTED")));
    assert_eq!((&stopped["startTime"], &stopped["exitCode"]), (&Value::Null, &Value::Null));
    assert_eq!(stopped["stopRequested"], stopped["endTime"]);
    assert_eq!(server.code(STOP, json!({ "input": { "id": job } })).await, "JOB_NOT_ACTIVE");
    std::fs::write(&gate, "").expect("the gate");
    server.final_job(&blocker).await;
    // The pipeline is free again.
    assert_eq!(server.final_job(&server.run(&pipeline).await).await["status"], "COMPLETE");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_job_is_stopped_whatever_its_exit_code_and_not_tried_again() {
    let server = TestServer::with(&["--stop-grace", "60"]);
    let gate = server.scratch().join("gate");
    let workspace = server.workspace("Workspace").await;
    let script =
        format!("trap 'echo told; {}; exit 0' TERM; echo ready; while :; do sleep 0.01; done", wait_for(&gate));
    let input = json!({ "workspaceId": workspace, "name": "Pipeline", "script": script, "maxRetries": 3 });
    let job = server.run(&server.pipeline_with(input).await).await;
    server.line_appears(&job, "ready").await;
    let answered = server.stop(&job).await;
    assert_eq!((&answered["status"], &answered["stopReason"]), (&json!("RUNNING"), &json!("REQUESTED")));
    assert!(answered["stopRequested"].is_string());
    server.line_appears(&job, "told").await;
    // It takes its time, and a second stop changes nothing.
    let again = server.stop(&job).await;
    assert_eq!((&again["status"], &again["stopRequested"]), (&json!("RUNNING"), &answered["stopRequested"]));
    std::fs::write(&gate, "").expect("the gate");
    let done = server.final_job(&job).await;
    assert_eq!((&done["status"], &done["exitCode"], &done["attempt"]), (&json!("STOPPED"), &json!(0), &json!(1)));
    assert_eq!(done["stopRequested"], answered["stopRequested"]);
    assert_eq!(server.code(STOP, json!({ "input": { "id": job } })).await, "JOB_NOT_ACTIVE");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_waits_for_another_try_stops_at_once() {
    let server = TestServer::with(&["--retry-backoff", "600"]);
    let workspace = server.workspace("Workspace").await;
    let input = json!({ "workspaceId": workspace, "name": "Pipeline", "script": "exit 1", "maxRetries": 3 });
    let job = server.run(&server.pipeline_with(input).await).await;
    let mut changes = server.changes(json!({ "jobId": job })).await;
    changes.until(|change| change["status"] == "QUEUED" && change["attempt"] == 2).await;
    assert_eq!(server.stop(&job).await["status"], "STOPPED");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_job_leaves_behind_is_ended_and_its_log_says_so() {
    let server = TestServer::with(GRACE);
    let file = server.scratch().join("pids");
    let script = format!(
        "{0} &\nsetsid {0} &\ntrap '' TERM\n{0} &\nuntil [ \"$(wc -l < {1})\" = 3 ]; do sleep 0.01; done; echo done",
        noted_sleep(&file),
        file.display()
    );
    let job = server.run_script(&script).await;
    let done = server.final_job(&job).await;
    let pids = pids_of(&file, 3).await;
    assert_eq!(alive(&pids), NONE);
    assert_eq!((&done["status"], &done["exitCode"]), (&json!("COMPLETE"), &json!(0)));
    let lines = server.log_lines(&job).await;
    let killed = "Sending KILL to 1 process that did not end after TERM: sleep (";
    let said = system_lines(&lines);
    assert!(said[0].starts_with(killed), "{said:?}");
    assert_eq!(said[1..], ["Ended 3 processes that the job had left behind."]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_takes_the_next_job_after_one_that_was_stopped() {
    let server = TestServer::with(&["--slots", "1", "--stop-grace", "0.2"]);
    let workspace = server.workspace("Workspace").await;
    let pipeline = server.pipeline(&workspace, "Pipeline", "echo $PPID; trap '' TERM; sleep 600").await;
    let mut supervisors = Vec::new();
    for _ in 0..3 {
        let job = server.run(&pipeline).await;
        server.job_is(&job, "RUNNING").await;
        eventually("a line", async || (!server.log_text(&job).await.is_empty()).then_some(())).await;
        server.stop(&job).await;
        assert_eq!(server.final_job(&job).await["status"], "STOPPED");
        supervisors.push(text(&server.log_lines(&job).await[0]["text"]).to_owned());
    }
    assert_eq!(supervisors[0], supervisors[1]);
    assert_eq!(supervisors[1], supervisors[2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_job_that_is_deleted_is_stopped_then_gone() {
    let server = TestServer::with(GRACE);
    let (pids, gate) = (server.scratch().join("pids"), server.scratch().join("gate"));
    let script = format!(
        "trap '{}' TERM; echo $$ >> {}; echo ready; while :; do sleep 0.01; done",
        wait_for(&gate),
        pids.display()
    );
    let job = server.run_script(&script).await;
    server.line_appears(&job, "ready").await;
    let pids = pids_of(&pids, 1).await;
    let mut changes = server.changes(json!({ "jobId": job })).await;
    assert_eq!(changes.next().await.expect("the present")["status"], "RUNNING");
    let mut follower = server.client().await;
    let query = "subscription($id: ID!) { jobLogs(jobId: $id) { lines { text } complete } }";
    let logs = follower.begin(query, json!({ "id": job })).await.expect("a subscription");

    server.delete("Job", &job).await;
    assert_eq!(server.job(&job).await, Value::Null);
    let listed = server.data("{ jobs(type: [PIPELINE_RUN]) { totalCount nodes { id } } }", json!({})).await;
    assert_eq!(listed["jobs"], json!({ "totalCount": 0, "nodes": [] }));
    assert_eq!(server.code(STOP, json!({ "input": { "id": job } })).await, "NOT_FOUND");
    let over = loop {
        match within(follower.next_data(&logs)).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the log is complete although its job is deleted"),
            Err(ClientError::Failed(errors)) => break errors,
            Err(other) => panic!("{other}"),
        }
    };
    assert_eq!(over[0]["extensions"]["code"], "NOT_FOUND");
    std::fs::write(&gate, "").expect("the gate");

    let stopped = changes.next().await.expect("a change");
    assert_eq!(
        (&stopped["status"], &stopped["deleted"], &stopped["job"]),
        (&json!("STOPPED"), &json!(false), &Value::Null)
    );
    assert_eq!(alive(&pids), NONE);
    let deleted = changes.next().await.expect("a change");
    assert_eq!((&deleted["deleted"], &deleted["job"]), (&json!(true), &Value::Null));
    assert_eq!(changes.next().await, None, "nothing follows");
    eventually("its rows go", async || (server.count_rows(&rows_of(&job)) == 0).then_some(())).await;
}

/// The rows of a job and its log.
fn rows_of(job: &str) -> String {
    let id = if on_postgres() { format!("'{job}'") } else { format!("x'{}'", job.replace('-', "")) };
    format!("(SELECT id AS job FROM jobs UNION ALL SELECT job FROM log_chunks) AS rows_of_jobs WHERE job = {id}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_final_job_that_is_deleted_takes_its_log_with_it() {
    let server = TestServer::start();
    let job = server.run_script("seq 1000").await;
    server.final_job(&job).await;
    assert!(server.count_rows(&rows_of(&job)) >= 2, "the query finds the rows of a job");
    let mut changes = server.changes(json!({ "jobId": job })).await;
    assert_eq!(changes.next().await.expect("the present")["status"], "COMPLETE");
    server.delete("Job", &job).await;
    let change = changes.next().await.expect("a change");
    assert_eq!((&change["status"], &change["deleted"]), (&json!("COMPLETE"), &json!(true)));
    assert_eq!(changes.next().await, None);
    let response = server.http().get(server.url(&format!("/jobs/{job}/logs"))).send().await.expect("an answer");
    assert_eq!(response.status(), 404);
    eventually("its rows go", async || (server.count_rows(&rows_of(&job)) == 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_is_deleted_takes_its_running_job_with_it() {
    let server = TestServer::with(GRACE);
    let pids = server.scratch().join("pids");
    let workspace = server.workspace("Workspace").await;
    let script = format!("trap '' TERM; echo $$ >> {}; setsid {} & wait", pids.display(), noted_sleep(&pids));
    let pipeline = server.pipeline(&workspace, "Pipeline", &script).await;
    let job = server.run(&pipeline).await;
    let pids = pids_of(&pids, 2).await;
    let mut changes = server.changes(json!({ "workspaceId": workspace })).await;
    changes.until(|change| change["jobId"] == job).await;
    server.delete("Pipeline", &pipeline).await;
    let query = "query($id: ID!) { pipeline(id: $id) { id } }";
    assert_eq!(server.data(query, json!({ "id": pipeline })).await["pipeline"], Value::Null);
    assert_eq!(server.job(&job).await, Value::Null);
    // The name is free while the old one's job may still run.
    let again = server.pipeline(&workspace, "Pipeline", "true").await;
    let seen = changes.until(|change| change["jobId"] == job && change["deleted"] == true).await;
    assert_eq!(alive(&pids), NONE);
    let of_job = seen.iter().filter(|change| change["jobId"] == job);
    let statuses: Vec<&str> = of_job.map(|change| text(&change["status"])).collect();
    assert_eq!(statuses, ["STOPPED", "STOPPED"], "the end, and the deletion");
    assert_eq!(server.final_job(&server.run(&again).await).await["status"], "COMPLETE");
    eventually("its rows go", async || (server.count_rows(&rows_of(&job)) == 0).then_some(())).await;
    eventually("one pipeline is left", async || (server.count_rows("pipelines") == 1).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_that_is_deleted_takes_everything_with_it() {
    let server = TestServer::with(GRACE);
    let pids = server.scratch().join("pids");
    let other = server.workspace("Other").await;
    let workspace = server.workspace("Workspace").await;
    let mut jobs = Vec::new();
    for number in 0..2 {
        let script = format!("trap '' TERM; echo $$ >> {}; while :; do sleep 0.05; done", pids.display());
        let pipeline = server.pipeline(&workspace, &format!("P{number}"), &script).await;
        jobs.push(server.run(&pipeline).await);
    }
    let pids = pids_of(&pids, 2).await;
    let repository = server.data_directory().join("repositories").join(&workspace);
    assert!(repository.join(".git").exists());
    let mut changes = server.changes(json!({ "workspaceId": workspace })).await;
    changes.until(|change| change["jobId"] == jobs[1]).await;
    server.delete("Workspace", &workspace).await;
    let query = "query($id: ID!) { workspace(id: $id) { id } workspaces { totalCount } }";
    let found = server.data(query, json!({ "id": workspace })).await;
    assert_eq!(found, json!({ "workspace": null, "workspaces": { "totalCount": 1 } }));
    let list = "query($id: ID!) { jobs(workspaceId: $id) { totalCount } }";
    assert_eq!(server.code(list, json!({ "id": workspace })).await, "NOT_FOUND");
    let mut left = jobs.clone();
    changes
        .until(|change| {
            left.retain(|job| change["deleted"] != true || change["jobId"] != *job);
            left.is_empty()
        })
        .await;
    assert_eq!(alive(&pids), NONE);
    eventually("the repository goes", async || (!repository.exists()).then_some(())).await;
    eventually("one workspace is left", async || (server.count_rows("workspaces") == 1).then_some(())).await;
    assert_eq!(server.count_rows("pipelines"), 0);
    assert_eq!(server.count_rows("jobs"), 3, "the other workspace's");
    assert!(server.data_directory().join("repositories").join(other).exists());
    // The name is free.
    server.workspace("Workspace").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_goes_although_a_job_has_made_directories_read_only() {
    // Nothing is read-only to root, so the server must not be that.
    let as_nobody = |data: &Path| {
        let directory = data.parent().expect("its directory");
        if std::fs::metadata("/proc/self").expect("it").uid() != 0 {
            return Vec::new();
        }
        std::os::unix::fs::chown(directory, Some(65534), None).expect("its owner");
        ["setpriv", "--reuid=65534", "--clear-groups"].map(str::to_owned).to_vec()
    };
    let server = TestServer::wrapped(as_nobody, GRACE);
    let workspace = server.workspace("Workspace").await;
    let pipeline = server.pipeline(&workspace, "P", "mkdir -p a/b; touch a/b/c; ln -s / a/root; chmod 555 a/b a").await;
    assert_eq!(server.final_job(&server.run(&pipeline).await).await["status"], "COMPLETE");
    let repository = server.data_directory().join("repositories").join(&workspace);
    server.delete("Workspace", &workspace).await;
    eventually("the repository goes", async || (!repository.exists()).then_some(())).await;
    eventually("its row goes", async || (server.count_rows("workspaces") == 0).then_some(())).await;
}
