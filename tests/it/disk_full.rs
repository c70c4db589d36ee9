//! A disk that is full: the job waits, and no line is lost.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{TestServer, eventually, on_postgres, skip, text};

/// Bash that mounts a small file system at its first argument and becomes the command that follows.
const ON_SMALL_DISK: &str = "mkdir -p \"$1\" && mount -t tmpfs -o size=64m tmpfs \"$1\" && shift && exec \"$@\"";
const UNSHARE: [&str; 3] = ["--user", "--map-root-user", "--mount"];

/// Whether a file system of the test's own can be made here. In CI it has to be.
fn can_mount() -> bool {
    let directory = tempfile::tempdir().expect("a directory");
    let mut command = Command::new("unshare");
    command.args(UNSHARE).args(["sh", "-c", ON_SMALL_DISK, "sh"]).arg(directory.path()).arg("true");
    let can = command.status().is_ok_and(|status| status.success());
    if !can {
        skip("a full disk. `unshare --user --map-root-user --mount` is not permitted here.");
    }
    can
}

fn start() -> TestServer {
    let wrapper = |data: &Path| {
        let mut words: Vec<String> = ["unshare"].iter().chain(&UNSHARE).map(ToString::to_string).collect();
        words.extend(["sh", "-c", ON_SMALL_DISK, "sh"].map(str::to_owned));
        words.push(data.to_str().expect("UTF-8").to_owned());
        words
    };
    TestServer::wrapped(wrapper, &["--slots", "2", "--stop-grace", "0.5"])
}

/// The server's data directory as the server sees it.
fn seen_by(server: &TestServer) -> PathBuf {
    let data = server.data_directory();
    PathBuf::from(format!("/proc/{}/root", server.pid())).join(data.strip_prefix("/").expect("an absolute path"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_waits_while_the_disk_is_full_and_no_line_is_lost() {
    if on_postgres() {
        return; // A database elsewhere has a disk of its own.
    }
    if !can_mount() {
        return;
    }
    let server = start();
    let workspace = server.workspace("Workspace").await;
    let (progress, total) = (server.scratch().join("progress"), 24_000);
    // Lines of 750 bytes that cannot be compressed much, with a number: 18 MB, more than fits beside the ballast. They go to a file as well.
    let (copy, pattern) = (server.scratch().join("copy"), "s/^/ /");
    let script = format!(
        "base64 -w 740 /dev/urandom | head -n {total} | sed '{pattern}' | nl -w 1 -s '' | \
         while read -r line; do echo \"$line\"; echo \"$line\" >> {}; echo >> {}; done",
        copy.display(),
        progress.display()
    );
    let input = json!({ "workspaceId": workspace, "name": "P", "script": script, "timeout": 3600 });
    let pipeline = server.pipeline_with(input).await;
    let other = server.pipeline(&workspace, "Other", "true").await;
    let ballast = seen_by(&server).join("ballast");
    std::fs::write(&ballast, vec![b'x'; 56 << 20]).expect("there is room for the ballast");

    let job = server.run(&pipeline).await;
    let complaint = async || server.log().contains("cannot be stored yet; the job waits").then_some(());
    eventually("the server says that the disk is full", complaint).await;
    // The job has room in its pipe and in the server's batch, and then it stands still.
    let printed = || std::fs::metadata(&progress).map_or(0, |metadata| metadata.len());
    let mut before = (printed(), 0);
    let stands_still = async || {
        let now = printed();
        before = if now == before.0 { (now, before.1 + 1) } else { (now, 0) };
        (before.1 > 100).then_some(now)
    };
    let standing = eventually("the job stands still", stands_still).await;
    assert!(standing < total, "{standing} lines were printed, so that nothing was full");
    assert_eq!(server.job(&job).await["status"], "RUNNING");
    let mutation = "mutation($input: CreateJobInput!) { createJob(input: $input) { job { id } } }";
    let refused = server.post(mutation, json!({ "input": { "pipelineId": other } })).await;
    if refused["data"].is_null() {
        assert_eq!(refused["errors"][0]["extensions"]["code"], "UNAVAILABLE", "{refused}");
    }
    let stored = server.log_text(&job).await.lines().count() as u64;
    assert!(stored > 0 && stored < total, "{stored} lines are stored, and can be read");

    std::fs::remove_file(&ballast).expect("the ballast");
    let done = server.final_job(&job).await;
    assert_eq!((&done["status"], &done["exitCode"]), (&json!("COMPLETE"), &json!(0)), "{}", server.log());
    let expected = std::fs::read_to_string(&copy).expect("the copy");
    assert_eq!(expected.lines().count() as u64, total);
    let lines = server.log_lines(&job).await;
    assert!(lines.iter().enumerate().all(|(index, line)| line["sequence"] == index));
    let printed = lines.iter().filter(|line| line["stream"] == "STDOUT").map(|line| text(&line["text"]));
    assert!(printed.eq(expected.lines()), "not every line once and in order: {} lines", lines.len());

    let after = match &refused["data"]["createJob"]["job"]["id"] {
        Value::String(accepted) => accepted.clone(),
        _ => server.run(&other).await,
    };
    assert_eq!(server.final_job(&after).await["status"], "COMPLETE");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_on_a_full_disk_ends_when_it_is_told_to() {
    if on_postgres() {
        return; // A database elsewhere has a disk of its own.
    }
    if !can_mount() {
        return;
    }
    let mut server = start();
    let workspace = server.workspace("Workspace").await;
    let pipeline = server.pipeline(&workspace, "P", "base64 /dev/urandom").await;
    let ballast = seen_by(&server).join("ballast");
    std::fs::write(&ballast, vec![b'x'; 56 << 20]).expect("there is room for the ballast");
    server.run(&pipeline).await;
    let complaint = async || server.log().contains("cannot be stored yet; the job waits").then_some(());
    eventually("the server says that the disk is full", complaint).await;
    server.terminate();
    let told = async || server.log().contains("shutting down").then_some(());
    eventually("the server has heard it", told).await;
    server.terminate();
    // How the job ended cannot be stored, so this is no success.
    assert_eq!(server.ended().await.code(), Some(1), "{}", server.log());
}
