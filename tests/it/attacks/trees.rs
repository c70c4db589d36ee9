//! Jobs that plant something where the server looks when it starts. That directories which are nested
//! 20,000 deep are removed without recursion is a unit test of `confined::removal`: a test server's
//! own directory could not be removed if it failed here.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use crate::support::TestServer;

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
