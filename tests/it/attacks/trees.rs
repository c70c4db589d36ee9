//! Jobs that leave directories nested so deep that a recursive removal overflows a stack, and jobs that
//! plant something where the server looks when it starts.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::TestServer;

/// Defines `nest`, which makes 20,000 directories in each other.
const NEST: &str = "nest() { python3 -c 'import os, sys\nos.chdir(sys.argv[1])\n\
                    for _ in range(20000): os.mkdir(\"d\"); os.chdir(\"d\")' \"$1\"; }\n";

/// Waits for what a slow disk takes long for.
async fn slowly(what: &str, mut look: impl AsyncFnMut() -> Option<()>) {
    for _ in 0..6000 {
        if look().await.is_some() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("it takes far too long until {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_cannot_end_the_server_by_nested_directories() {
    let server = TestServer::with(&["--slots", "1", "--stop-grace", "0.3"]);
    let job = server.run_script(&format!("{NEST}nest $TMPDIR; echo nested")).await;
    slowly("it nests", async || server.log_text(&job).await.contains("nested").then_some(())).await;
    slowly("the job ends", async || (server.job(&job).await["status"] == "COMPLETE").then_some(())).await;
    let temporary = server.data_directory().join("tmp");
    assert_eq!(fs::read_dir(&temporary).expect("it").count(), 0);

    // Also what a job of a server that was killed has left, and what nobody knows.
    let workspace = server.workspace("Nested").await;
    let script =
        format!("{NEST}nest .; echo nested; mkdir $TMPDIR/../left; nest $TMPDIR/../left; echo ready; sleep 600");
    let pipeline = server.pipeline(&workspace, "P", &script).await;
    let job = server.run(&pipeline).await;
    slowly("it nests", async || server.log_text(&job).await.contains("nested").then_some(())).await;
    slowly("it nests again", async || server.log_text(&job).await.contains("ready").then_some(())).await;
    let server = server.kill_and_restart();
    slowly("the job ends", async || (server.job(&job).await["status"] == "ERROR").then_some(())).await;
    let temporary = server.data_directory().join("tmp");
    let is_empty = async || (fs::read_dir(&temporary).expect("it").count() == 0).then_some(());
    slowly("the temporary directories go", is_empty).await;
    let repository = server.repository(&workspace);
    assert!(repository.join("d").exists());
    server.delete("Workspace", &workspace).await;
    slowly("the repository goes", async || (!repository.exists()).then_some(())).await;
    let workspace = server.workspace("Next").await;
    assert!(server.repository(&workspace).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_cannot_keep_the_server_from_starting_by_what_it_plants() {
    let mut server = TestServer::with(&["--stop-grace", "0.3"]);
    for kind in ["link", "directory", "FIFO", "text"] {
        let outside = server.scratch().join("outside");
        fs::write(&outside, "kept").expect("a file");
        let workspace = server.workspace(kind).await;
        let pipeline = server.pipeline(&workspace, "P", "echo ready; sleep 600").await;
        let job = server.run(&pipeline).await;
        server.line_appears(&job, "ready").await;
        // In the place of the lines of this job, and of those of jobs that are gone.
        for name in [format!("{job}.1"), "left".to_owned(), "00000000-0000-4000-8000-000000000000.1".to_owned()] {
            for directory in ["spool", "tmp", "tasks", "meltano", "repositories", "unstored"] {
                let path = server.data_directory().join(directory).join(&name);
                if path.symlink_metadata().is_err() {
                    plant(kind, &path, &outside);
                }
            }
        }
        server = server.kill_and_restart();
        assert_eq!(server.final_job(&job).await["status"], "ERROR", "{kind}");
        let next = server.pipeline(&workspace, "Next", "echo fine").await;
        let run = server.run(&next).await;
        assert_eq!(server.final_job(&run).await["status"], "COMPLETE", "{kind}");
        let outside = server.scratch().join("outside");
        assert_eq!(fs::read_to_string(outside).expect("it"), "kept", "{kind}");
        for name in [format!("{job}.1"), "left".to_owned()] {
            let path = server.data_directory().join("spool").join(name);
            assert!(kind == "text" || path.symlink_metadata().is_err(), "{kind}");
        }
    }
}

fn plant(kind: &str, path: &Path, outside: &Path) {
    match kind {
        "link" => symlink(outside, path).expect("a link"),
        "directory" => fs::create_dir_all(path.join("a/b")).expect("a directory"),
        "FIFO" => assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo").success()),
        _ => fs::write(path, [0; 40]).expect("a file"),
    }
}
