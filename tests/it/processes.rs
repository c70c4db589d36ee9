//! Processes of jobs that are hard to find or to end.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{TestServer, eventually, is_alive, pids_of, signal, skip, system_lines};

const GRACE: &[&str] = &["--stop-grace", "0.5"];

/// Scripts that start a process whose name is not UTF-8, and note its pid. The kernel cuts the name of the first after 15 bytes, within a character.
fn unnameable(pids: &Path) -> [String; 2] {
    let pids = pids.display();
    let cut = format!("cp \"$(type -P sleep)\" aaaaaaaaaaaaaaé\n./aaaaaaaaaaaaaaé 600 & echo $! >> {pids}");
    let renamed = format!(
        "python3 -c 'import ctypes, os, time\nctypes.CDLL(None).prctl(15, b\"\\xff\\xfe\")\n\
         print(os.getpid(), file=open(\"{pids}\", \"a\"))\ntime.sleep(600)' &"
    );
    [cut, renamed]
}

/// The name of a process, as the kernel has it.
fn name(pid: i32) -> Vec<u8> {
    std::fs::read(format!("/proc/{pid}/comm")).expect("its name")
}

async fn unnameable_pids(file: &Path) -> Vec<i32> {
    let pids = pids_of(file, 1).await;
    let is_there = async || std::str::from_utf8(&name(pids[0])).is_err().then_some(());
    eventually("the process has its name", is_there).await;
    pids
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_ends_a_process_whose_name_is_not_utf8() {
    for variant in 0..2 {
        let server = TestServer::with(GRACE);
        let file = server.scratch().join("pids");
        let job = server.run_script(&format!("{}\nwait", unnameable(&file)[variant])).await;
        let pids = unnameable_pids(&file).await;
        server.stop(&job).await;
        let done = server.final_job(&job).await;
        assert_eq!((&done["status"], &done["stopReason"]), (&json!("STOPPED"), &json!("REQUESTED")));
        assert!(!is_alive(pids[0]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_ends_a_process_whose_name_is_not_utf8() {
    let server = TestServer::with(GRACE);
    let file = server.scratch().join("pids");
    let workspace = server.workspace("Workspace").await;
    let script = format!("trap '' TERM\n{}\nwait", unnameable(&file)[0]);
    let input = json!({ "workspaceId": workspace, "name": "P", "script": script, "timeout": 2 });
    let job = server.run(&server.pipeline_with(input).await).await;
    let pids = pids_of(&file, 1).await;
    let done = server.final_job(&job).await;
    assert_eq!((&done["status"], &done["stopReason"]), (&json!("STOPPED"), &json!("TIMEOUT")));
    assert!(!is_alive(pids[0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_script_ends_a_process_whose_name_is_not_utf8() {
    for variant in 0..2 {
        let server = TestServer::with(GRACE);
        let file = server.scratch().join("pids");
        let wait = format!("until [ -s {} ]; do sleep 0.01; done", file.display());
        let job = server.run_script(&format!("{}\n{wait}", unnameable(&file)[variant])).await;
        let done = server.final_job(&job).await;
        assert_eq!((&done["status"], &done["exitCode"]), (&json!("COMPLETE"), &json!(0)));
        assert!(!is_alive(pids_of(&file, 1).await[0]));
        let said = system_lines(&server.log_lines(&job).await);
        assert_eq!(said, ["Ended 1 process that the job had left behind."]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_whose_name_is_not_utf8_keeps_no_later_server_from_its_jobs() {
    let server = TestServer::with(GRACE);
    let other = server.workspace("Other").await;
    let next = server.pipeline(&other, "Next", "true").await;
    let file = server.scratch().join("pids");
    let job = server.run_script(&format!("{}\nwait", unnameable(&file)[0])).await;
    let pids = unnameable_pids(&file).await;
    let server = server.kill_and_restart();
    assert_eq!(server.final_job(&server.run(&next).await).await["status"], "COMPLETE");
    assert_eq!(server.final_job(&job).await["status"], "ERROR");
    assert!(!is_alive(pids[0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_cannot_be_cleared_up_keeps_nothing_but_itself_from_running() {
    // The supervisor of the killed server gives the job ten minutes.
    let server = TestServer::with(&["--stop-grace", "600", "--slots", "1"]);
    let other = server.workspace("Other").await;
    let elsewhere = server.pipeline(&other, "Elsewhere", "true").await;
    let workspace = server.workspace("Workspace").await;
    let beside = server.pipeline(&workspace, "Beside", "true").await;
    let file = server.scratch().join("pids");
    let script =
        format!("trap '' TERM; echo $$ >> {0}; echo $PPID >> {0}; while :; do sleep 0.05; done", file.display());
    let stuck = server.pipeline(&workspace, "Stuck", &script).await;
    let job = server.run(&stuck).await;
    let pids = pids_of(&file, 2).await;

    let server = server.kill_and_restart();
    for pipeline in [&elsewhere, &beside] {
        assert_eq!(server.final_job(&server.run(pipeline).await).await["status"], "COMPLETE");
    }
    assert!(is_alive(pids[0]), "it is still there, or there is nothing to test");
    assert_eq!(server.job(&job).await["status"], "RUNNING");
    let again = "mutation($input: CreateJobInput!) { createJob(input: $input) { job { id } } }";
    assert_eq!(server.code(again, json!({ "input": { "pipelineId": stuck } })).await, "PIPELINE_BUSY");
    // A stop can be asked for meanwhile.
    assert_eq!(server.stop(&job).await["status"], "RUNNING");

    signal(pids[1], "TERM");
    assert_eq!(server.final_job(&job).await["status"], "STOPPED");
    assert!(!is_alive(pids[0]));
    server
        .data(
            "mutation($input: CreateJobInput!) { createJob(input: $input) { job { id } } }",
            json!({ "input": { "pipelineId": stuck } }),
        )
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_says_which_processes_are_killed() {
    let server = TestServer::with(GRACE);
    let file = server.scratch().join("pids");
    let workspace = server.workspace("Workspace").await;
    let secret = "hunter2-hunter2";
    let script = format!(
        "cp \"$(type -P sleep)\" ./\"$TAP_KEY\"; trap '' TERM\n./\"$TAP_KEY\" 600 & echo $! >> {0}\necho $$ >> {0}; echo ready; wait",
        file.display()
    );
    let properties = json!([{ "name": "tap.key", "value": secret, "sensitive": true }]);
    let input = json!({ "workspaceId": workspace, "name": "P", "script": script, "properties": properties });
    let job = server.run(&server.pipeline_with(input).await).await;
    server.line_appears(&job, "ready").await;
    let pids = pids_of(&file, 2).await;
    server.stop(&job).await;
    assert_eq!(server.final_job(&job).await["status"], "STOPPED");
    let said = system_lines(&server.log_lines(&job).await);
    // A name that shows a sensitive value is left out.
    let expected = format!("Sending KILL to 2 processes that did not end after TERM: bash ({}), {}.", pids[1], pids[0]);
    assert_eq!(said.last(), Some(&expected), "{said:?}");
    assert!(said.iter().all(|line| !line.contains("hunter2")), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_said_of_kill_where_term_was_enough() {
    let server = TestServer::with(&["--stop-grace", "60"]);
    let job = server.run_script("echo ready; sleep 600").await;
    server.line_appears(&job, "ready").await;
    server.stop(&job).await;
    assert_eq!(server.final_job(&job).await["status"], "STOPPED");
    assert_eq!(system_lines(&server.log_lines(&job).await), ["Stopping: TERM to all that the job has started."]);
}

/// The processes whose parent is this one: pid and state.
fn children_of(parent: i32) -> Vec<(i32, u8)> {
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let child = |pid: i32| {
        let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
        let end = stat.iter().rposition(|byte| *byte == b')')?;
        let fields: Vec<&str> = std::str::from_utf8(&stat[end + 1..]).ok()?.split_ascii_whitespace().collect();
        (fields[1].parse::<i32>().ok()? == parent).then(|| (pid, fields[0].as_bytes()[0]))
    };
    pids.filter_map(child).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn as_process_1_a_server_reaps_what_a_killed_supervisor_leaves() {
    let namespace = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"].map(str::to_owned).to_vec();
    let works = std::process::Command::new(&namespace[0]).args(&namespace[1..]).arg("true").output();
    if !works.is_ok_and(|output| output.status.success()) {
        return skip("a server as process 1: a namespace of process ids cannot be made here");
    }
    let server = TestServer::wrapped(|_| namespace, &["--slots", "2", "--stop-grace", "0.3"]);
    let init = children_of(server.pid())[0].0;
    let workspace = server.workspace("Workspace").await;
    let script = "setsid sleep 600 & setsid env -i /bin/sleep 600 & ( setsid sleep 600 & ); echo ready; wait";
    let pipeline = server.pipeline(&workspace, "P", script).await;
    for _ in 0..3 {
        let job = server.run(&pipeline).await;
        server.line_appears(&job, "ready").await;
        let holds = |pid: &i32| !children_of(*pid).is_empty();
        let supervisor = children_of(init).into_iter().map(|it| it.0).find(holds).expect("the supervisor");
        signal(supervisor, "KILL");
        let done = server.final_job(&job).await;
        assert_eq!((&done["status"], &done["exitCode"]), (&json!("ERROR"), &Value::Null));
        // What has dropped its environment is missed, and ended here: an orphan as any.
        let sleeps = |pid: &i32| name(*pid) == b"sleep\n";
        for (pid, _) in children_of(init).into_iter().filter(|(pid, state)| *state != b'Z' && sleeps(pid)) {
            signal(pid, "KILL");
        }
        let no_zombie = async || children_of(init).iter().all(|(_, state)| *state != b'Z').then_some(());
        eventually("the orphans are reaped", no_zombie).await;
    }
    // The exit codes of jobs and of supervisors are still told.
    let failing = server.pipeline(&workspace, "Failing", "exit 7").await;
    assert_eq!(server.final_job(&server.run(&failing).await).await["exitCode"], 7);
    signal(init, "TERM");
    let mut server = server;
    assert!(server.ended().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn hidden_processes_are_ended_too() {
    // Of other processes, `/proc` shows only what this user may trace: not the supervisors, and not what protects itself.
    let as_nobody = |data: &Path| {
        std::os::unix::fs::chown(data.parent().expect("its directory"), Some(65534), None).expect("its owner");
        let hidden = "mount -t proc -o hidepid=2 proc /proc && exec setpriv --reuid=65534 --clear-groups \"$@\"";
        ["unshare", "--mount", "bash", "-c", hidden, "bash"].map(str::to_owned).to_vec()
    };
    let works = std::process::Command::new("unshare")
        .args(["--mount", "mount", "-t", "proc", "-o", "hidepid=2", "proc", "/proc"])
        .output();
    if !works.is_ok_and(|output| output.status.success()) {
        return skip("hidden processes: /proc cannot be mounted here");
    }
    let server = TestServer::wrapped(as_nobody, GRACE);
    std::os::unix::fs::chown(server.scratch(), Some(65534), None).expect("its owner");
    let file = server.scratch().join("pids");
    let protected = format!(
        "python3 -c 'import ctypes, os, time\nctypes.CDLL(None).prctl(4, 0)\nprint(os.getpid(), file=open(\"{}\", \"a\"))\n\
         time.sleep(600)' &",
        file.display()
    );
    let workspace = server.workspace("Workspace").await;
    let script = format!("{protected}\nwait");
    let pipeline = server.pipeline(&workspace, "P", &script).await;
    let job = server.run(&pipeline).await;
    let pid = pids_of(&file, 1).await[0];
    server.stop(&job).await;
    assert_eq!(server.final_job(&job).await["status"], "STOPPED");
    assert!(!is_alive(pid));

    // A later server does not take a supervisor that it cannot see for one that has ended.
    let job = server.run(&pipeline).await;
    let pid = pids_of(&file, 2).await[1];
    let server = server.kill_and_restart();
    assert_eq!(server.final_job(&job).await["status"], "ERROR");
    assert!(!is_alive(pid));
    server.run(&pipeline).await;
}
