//! How a server ends: in every state that it, or its clients, may be in.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::{Client, TestServer, eventually, signal, wait_for, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_slots_ends_when_it_is_told_to() {
    let mut server = TestServer::with(&["--slots", "0"]);
    server.terminate();
    assert_eq!(server.ended().await.code(), Some(0), "{}", server.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_do_not_read_do_not_keep_a_server_from_ending() {
    let mut server = TestServer::with(&["--shutdown-grace", "0"]);
    // More than fits into the buffers between the two.
    let job = server.run_script("yes 0123456789012345678901234567890123456789 | head -n 2000000").await;
    assert_eq!(server.final_job(&job).await["status"], "COMPLETE");
    let mut subscriber = Client::connect(server.address(), None).await.expect("a connection");
    let query = "subscription($id: ID!) { jobLogs(jobId: $id) { lines { sequence text } } }";
    subscriber.begin(query, json!({ "id": job })).await.expect("a subscription");
    let mut reader = TcpStream::connect(server.address()).await.expect("a connection");
    let request = format!("GET /jobs/{job}/logs HTTP/1.1\r\nHost: localhost\r\n\r\n");
    reader.write_all(request.as_bytes()).await.expect("a request");
    within(reader.readable()).await.expect("an answer");
    server.terminate();
    assert_eq!(server.ended().await.code(), Some(0), "{}", server.log());
    drop((subscriber, reader));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_has_succeeded_is_not_run_again_because_the_server_ends() {
    let mut server = TestServer::with(&["--shutdown-grace", "0", "--stop-grace", "2"]);
    let [exited, term, trapped] = ["exited", "term", "trapped"].map(|it| server.scratch().join(it));
    // What it leaves behind goes only when it is killed, so that the server ends in between.
    let script = format!(
        "(trap 'touch {term}' TERM; touch {trapped}; while :; do sleep 0.05; done) & {wait}; touch {exited}; exit 0",
        term = term.display(),
        trapped = trapped.display(),
        wait = wait_for(&trapped),
        exited = exited.display()
    );
    let job = server.run_script(&script).await;
    eventually("what was left behind is told to end", async || term.exists().then_some(())).await;
    server.terminate();
    assert_eq!(server.ended().await.code(), Some(0), "{}", server.log());
    let server = server.restart();
    assert_eq!(server.job(&job).await["status"], "COMPLETE");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_that_was_told_to_end_takes_no_other_job() {
    let server = TestServer::with(&["--slots", "1"]);
    let workspace = server.workspace("Workspace").await;
    let deadly = server.pipeline(&workspace, "Deadly", "kill $PPID; sleep 100").await;
    let harmless = server.pipeline(&workspace, "Harmless", "sleep 0.3; echo done").await;
    for _ in 0..3 {
        let (one, other) = (server.run(&deadly).await, server.run(&harmless).await);
        assert_eq!(server.final_job(&one).await["status"], "ERROR");
        assert_eq!(server.final_job(&other).await["status"], "COMPLETE", "{}", server.log_text(&other).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_ends_with_an_error_if_a_job_does_and_can_be_ended() {
    let directory = tempfile::tempdir().expect("a directory");
    let demo = |path: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jobstream"));
        command.args(["demo", "--once", "--listen", "127.0.0.1:0", "--shutdown-grace", "0", "--data-dir"]);
        command.arg(directory.path().join("data")).env("PATH", path).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let path = std::env::var("PATH").expect("a path");
    assert_eq!(demo(&path).status().expect("the demo runs").code(), Some(0));

    // Its scripts need awk. Here they find everything but that.
    let tools = directory.path().join("tools");
    std::fs::create_dir(&tools).expect("a directory");
    for tool in
        ["bash", "cat", "date", "dirname", "git", "mkdir", "mktemp", "mv", "rm", "sed", "sh", "sleep", "sort", "wc"]
    {
        let found = path.split(':').map(|it| std::path::Path::new(it).join(tool)).find(|it| it.exists());
        std::os::unix::fs::symlink(found.expect(tool), tools.join(tool)).expect("a link");
    }
    let status = demo(tools.to_str().expect("UTF-8")).status().expect("the demo runs");
    assert_eq!(status.code(), Some(1));

    let mut running = demo(&path).stdout(Stdio::piped()).spawn().expect("the demo runs");
    let mut shown = BufReader::new(running.stdout.take().expect("its output"));
    assert!(shown.read_line(&mut String::new()).expect("its output") > 0, "it shows something");
    signal(i32::try_from(running.id()).expect("a pid"), "TERM");
    let ended = eventually("it ends", async || running.try_wait().expect("its status")).await;
    assert!(ended.code().is_some(), "it was killed by the signal: {ended}");
}

#[tokio::test(flavor = "multi_thread")]
async fn subscribers_see_the_last_changes_before_the_connection_closes() {
    let server = TestServer::with(&["--shutdown-grace", "0", "--stop-grace", "1"]);
    let go = server.scratch().join("never");
    let job = server.run_script(&format!("echo up; {}", wait_for(&go))).await;
    server.line_appears(&job, "up").await;
    let mut changes = server.changes(json!({ "jobId": job })).await;
    changes.until(|change| change["status"] == "RUNNING").await;
    server.terminate();
    let seen = changes.until(|change| change["status"] == "QUEUED").await;
    assert_eq!(seen.last().expect("a change")["previousStatus"], "RUNNING");
}
