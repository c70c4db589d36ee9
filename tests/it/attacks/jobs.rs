//! Jobs that act against the server or against other jobs of the same user. What they find of
//! secrets is in `secrets.rs`.

use std::fs;
use std::path::Path;

use crate::support::TestServer;
use crate::support::unprivileged::secret_file;

const TOKEN: &str = "jobstream-token-of-a-test";

#[tokio::test(flavor = "multi_thread")]
async fn a_job_inherits_no_descriptor_of_the_server() {
    let secrets = tempfile::tempdir().expect("a directory");
    let [token, other] = ["token", "other"].map(|name| secrets.path().join(name));
    secret_file(&token, TOKEN);
    secret_file(&other, TOKEN);
    // The server reads one of them, and knows nothing of the other.
    let script = format!("exec \"$@\" 7< '{}' 8< '{}'", token.display(), other.display());
    let wrapper = |_: &Path| ["sh", "-c", &script, "sh"].map(str::to_owned).to_vec();
    let server = TestServer::wrapped_with_token(wrapper, &["--token-fd", "7"], TOKEN);
    assert!(!leads_to(server.pid(), 7, &token), "the server has closed it");
    let job = server.run_script("cd /proc/self/fd; for it in *; do echo $it $(readlink $it); done").await;
    assert_eq!(server.final_job(&job).await["status"], "COMPLETE");
    let log = server.log_text(&job).await;
    assert!(log.starts_with("0 /dev/null\n1 pipe:"), "{log}");
    for file in [&token, &other] {
        assert!(!log.contains(file.to_str().expect("UTF-8")), "{log}");
    }
}

fn leads_to(pid: i32, descriptor: i32, file: &Path) -> bool {
    fs::read_link(format!("/proc/{pid}/fd/{descriptor}")).is_ok_and(|it| it == file)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_has_no_variable_of_the_server() {
    // Passwords for the network are for what installs, and for nothing else.
    let variables = [
        ("JOBSTREAM_TOKEN", TOKEN),
        ("JOBSTREAM_SHUTDOWN_GRACE", "31.25"),
        ("HTTPS_PROXY", "http://user:password@127.0.0.1:1"),
        ("PIP_INDEX_URL", "http://user:password@127.0.0.1:1/simple"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("PGPASSWORD", "secret"),
    ];
    let server = TestServer::with_environment(&[], &variables);
    let job = server.run_script("cat /proc/self/environ | tr '\\0' '\\n'").await;
    assert_eq!(server.final_job(&job).await["status"], "COMPLETE");
    let log = server.log_text(&job).await;
    assert!(log.contains("JOBSTREAM_JOB_ID="), "{log}");
    for (name, value) in variables {
        assert!(!log.contains(name) && !log.contains(value), "{name}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_in_place_of_the_temporary_directory_is_not_followed() {
    let server = TestServer::start();
    let elsewhere = server.scratch().join("elsewhere");
    fs::create_dir_all(elsewhere.join("kept")).expect("a directory");
    let tmp = server.data_directory().join("tmp");
    fs::remove_dir_all(&tmp).expect("no directory");
    assert_eq!(
        server.final_job(&server.run_script("echo \"$TMPDIR\"").await).await["status"],
        "COMPLETE",
        "it is made again"
    );
    fs::remove_dir_all(&tmp).expect("no directory");
    std::os::unix::fs::symlink(&elsewhere, &tmp).expect("a link");
    let _server = server.kill_and_restart();
    assert!(elsewhere.join("kept").is_dir());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_follows_that_of_a_script_that_removed_its_directory() {
    let server = TestServer::start();
    let workspace = server.workspace("W").await;
    let script = "cd ..; rm -rf \"$JOBSTREAM_WORKSPACE_ID\"";
    let pipeline = server.pipeline(&workspace, "P", script).await;
    for _ in 0..2 {
        let job = server.run(&pipeline).await;
        assert_eq!(server.final_job(&job).await["status"], "COMPLETE");
    }
}
