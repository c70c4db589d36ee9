//! What a job finds in its environment.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::support::{TestServer, eventually, pids_of, signal, text, wait_for};

/// Runs a script on a server that this command starts, and answers what it prints.
async fn printed_by(wrapper: &[&str], script: &str) -> String {
    let wrapper = wrapper.iter().map(ToString::to_string).collect();
    let server = TestServer::wrapped(|_| wrapper, &[]);
    let job = server.run_script(script).await;
    assert_eq!(server.final_job(&job).await["status"], "COMPLETE", "{}", server.log_text(&job).await);
    server.log_text(&job).await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_home_of_the_server_a_job_has_that_of_the_user() {
    let script = "echo \"$HOME\"; getent passwd \"$(id -u)\" | cut -d: -f6";
    for wrapper in [&["env", "-u", "HOME"][..], &["env", "HOME="], &["env", "HOME=relative"]] {
        let printed = printed_by(wrapper, script).await;
        let lines: Vec<&str> = printed.lines().collect();
        assert_eq!(lines.len(), 2, "{printed}");
        assert_eq!(lines[0], lines[1], "{wrapper:?}");
    }
    assert_eq!(printed_by(&["env", "HOME=/somewhere/else"], "echo \"$HOME\"").await, "/somewhere/else\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn variables_of_the_server_need_not_be_utf8() {
    let set = "export HOME=$'/tmp/\\xff' LANG=$'C\\xfe' PATH=\"$PATH\":$'/\\xfd'; exec \"$@\"";
    let script = "for it in \"$HOME\" \"$LANG\" \"${PATH##*:}\"; do printf %s \"$it\" | od -An -tx1; done";
    let printed = printed_by(&["bash", "-c", set, "bash"], script).await;
    assert_eq!(printed, " 2f 74 6d 70 2f ff\n 43 fe\n 2f fd\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn python_shows_its_lines_at_once() {
    let server = TestServer::start();
    let script = "python3 -c 'import time; print(\"first\"); time.sleep(600)'";
    let job = server.run_script(script).await;
    server.line_appears(&job, "first").await;
    assert_eq!(server.job(&job).await["status"], "RUNNING");
    // A script can have it otherwise.
    let workspace = server.workspace("Other").await;
    let script = "unset PYTHONUNBUFFERED; python3 -c 'import sys; print(sys.stdout.write_through)'";
    let job = server.run(&server.pipeline(&workspace, "P", script).await).await;
    server.final_job(&job).await;
    assert_eq!(server.log_text(&job).await, "False\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_attempt_has_a_temporary_directory_that_goes_with_it() {
    let server = TestServer::with(&["--retry-backoff", "0.1", "--slots", "2"]);
    let workspace = server.workspace("Workspace").await;
    let gate = server.scratch().join("gate");
    // What is left in it is read-only, and in use until the end.
    let script = format!(
        "echo \"$TMPDIR\"; stat -c %a \"$TMPDIR\"; ls -A \"$TMPDIR\" | wc -l; cd \"$(mktemp -d)\"; touch left; mkdir -p a/b; chmod 555 a\n\
         [ $JOBSTREAM_ATTEMPT = 2 ] || exit 1; {}",
        wait_for(&gate)
    );
    let input = json!({ "workspaceId": workspace, "name": "P", "script": script, "maxRetries": 1 });
    let job = server.run(&server.pipeline_with(input).await).await;
    let lines = eventually("both attempts have begun", async || {
        let text = server.log_text(&job).await;
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        (lines.len() >= 7).then_some(lines)
    })
    .await;
    // Between them the server says why there is another.
    let (first, second) = (std::path::PathBuf::from(&lines[0]), std::path::PathBuf::from(&lines[4]));
    assert_ne!(first, second);
    assert_eq!((&lines[1..3], &lines[5..7]), (&["700".to_owned(), "0".to_owned()][..], &lines[1..3]));
    assert!(!first.exists() && second.exists());
    assert!(second.starts_with(server.data_directory().canonicalize().expect("its path")));
    assert_eq!(second.metadata().expect("it").permissions().mode() & 0o777, 0o700);
    std::fs::write(&gate, "").expect("the gate");
    server.final_job(&job).await;
    assert!(!second.exists());
    // Tasks of the server's own have one too, and it goes as well.
    let left = std::fs::read_dir(server.data_directory().join("tmp")).expect("the directory").count();
    assert_eq!(left, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_temporary_directory_of_a_killed_server_s_job_goes_when_its_processes_have() {
    let server = TestServer::with(&["--stop-grace", "0.3"]);
    let file = server.scratch().join("pids");
    let script = format!(
        "mktemp; mktemp -d; echo \"$TMPDIR\"; echo $$ >> {}; trap '' TERM; while :; do sleep 0.05; done",
        file.display()
    );
    let job = server.run_script(&script).await;
    pids_of(&file, 1).await;
    let directory = server.data_directory().join("tmp");
    let names = || std::fs::read_dir(&directory).expect("the directory").count();
    assert_eq!(names(), 1);
    // What an earlier server has left, of a job that another has taken over since.
    std::fs::create_dir_all(directory.join("0b8e5c56-0000-4000-8000-000000000000.1/x")).expect("a directory");
    let server = server.kill_and_restart();
    assert_eq!(server.final_job(&job).await["status"], "ERROR");
    assert_eq!(names(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_temporary_directory_of_a_job_whose_supervisor_is_killed_goes_too() {
    let server = TestServer::start();
    let job = server.run_script("mktemp; echo $PPID; sleep 600").await;
    let supervisor = eventually("its lines", async || {
        server.log_text(&job).await.lines().nth(1).map(|line| line.parse::<i32>().expect("a pid"))
    })
    .await;
    signal(supervisor, "KILL");
    assert_eq!(server.final_job(&job).await["status"], "ERROR");
    assert_eq!(std::fs::read_dir(server.data_directory().join("tmp")).expect("the directory").count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_in_a_clone_finds_its_settings_and_an_empty_standard_input() {
    let server = TestServer::with(&["--allow-file-repositories"]);
    let origin = server.scratch().join("origin.git");
    let made = std::process::Command::new("git").args(["init", "--quiet", "--bare"]).arg(&origin).status();
    assert!(made.expect("git").success());
    let url = format!("file://{}", origin.display());
    let created = server.change(
        "createWorkspace",
        json!({ "name": "W", "repositoryUrl": url }),
        "workspace { id } jobs { id type }",
    );
    let created = created.await;
    let jobs = created["jobs"].as_array().expect("jobs");
    let init = jobs.iter().find(|job| job["type"] == "WORKSPACE_INIT").expect("the job");
    assert_eq!(server.final_job(text(&init["id"])).await["status"], "COMPLETE");
    let secret = "correct horse\nbattery staple\n";
    let input = json!({
        "workspaceId": created["workspace"]["id"], "name": "P",
        "script": "printf %s \"$TAP_KEY\" | od -An -c; printf '[%s]\\n' \"$TAP_EMPTY\"; cat; readlink /proc/self/fd/0",
        "properties": [{ "name": "tap.key", "value": "a\nb=\u{fc}" }, { "name": "tap.empty", "value": "" },
                       { "name": "tap.secret", "value": secret, "sensitive": true }],
    });
    let job = server.run(&server.pipeline_with(input).await).await;
    assert_eq!(server.final_job(&job).await["status"], "COMPLETE");
    assert_eq!(server.log_text(&job).await, "   a  \\n   b   = 303 274\n[]\n/dev/null\n");
}
