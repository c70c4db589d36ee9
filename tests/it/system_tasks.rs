//! System tasks that a crash of the server cuts off: they are repeated.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::{TestServer, eventually, system_lines, text};

/// How many of the calls of git a test is at most held at.
const MOST_HELD: usize = 6;

/// A `git` that counts its calls in a file, and waits in the one whose number another file holds.
fn counting_git(directory: &Path) -> PathBuf {
    let programs = directory.join("programs");
    fs::create_dir_all(&programs).expect("a directory");
    let path = std::env::var_os("PATH").expect("a PATH");
    let git = std::env::split_paths(&path).map(|it| it.join("git")).find(|it| it.exists()).expect("git");
    let script = format!(
        "#!/bin/bash\necho >> '{0}/calls'\nif [ -e '{0}/hold' ] && [ \"$(wc -l < '{0}/calls')\" = \"$(cat '{0}/hold')\" ]; then\n\
         echo >> '{0}/held'; while [ -e '{0}/hold' ]; do sleep 0.01; done\nfi\nexec '{1}' \"$@\"\n",
        directory.display(),
        git.display()
    );
    let program = programs.join("git");
    fs::write(&program, script).expect("a program");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("it can be run");
    programs
}

/// A workspace and a pipeline whose jobs are queued: the pipeline, and both jobs.
async fn begin(server: &TestServer, name: &str) -> (String, [String; 2]) {
    let workspace = server.begin_workspace(name).await;
    let jobs = workspace["jobs"].as_array().expect("jobs");
    let init = jobs.iter().find(|it| it["type"] == "WORKSPACE_INIT").expect("the job");
    let input = json!({ "workspaceId": workspace["workspace"]["id"], "name": "P", "script": "echo fine" });
    let pipeline = server.begin_pipeline(input).await;
    let jobs = [text(&init["id"]).to_owned(), text(&pipeline["job"]["id"]).to_owned()];
    (text(&pipeline["pipeline"]["id"]).to_owned(), jobs)
}

async fn all_are_ready(server: &TestServer, pipeline: &str) {
    let query = "query($id: ID!) { pipeline(id: $id) { status workspace { status } } }";
    let pipeline = server.data(query, json!({ "id": pipeline })).await["pipeline"].take();
    assert_eq!(pipeline, json!({ "status": "READY", "workspace": { "status": "READY" } }));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_a_kill_of_the_server_cuts_off_anywhere_is_repeated_and_what_waits_for_it_runs() {
    let scratch = tempfile::tempdir().expect("a directory");
    let programs = counting_git(scratch.path());
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").expect("a PATH"));
    let mut server = TestServer::with_environment(&["--slots", "1", "--stop-grace", "0.3"], &[("PATH", &path)]);
    let calls = scratch.path().join("calls");
    let count = || fs::read_to_string(&calls).expect("the calls").len();
    let (pipeline, jobs) = begin(&server, "Undisturbed").await;
    for job in &jobs {
        assert_eq!(server.final_job(job).await["attempt"], 1);
    }
    all_are_ready(&server, &pipeline).await;
    let all = count();
    assert!(all > 1, "the tasks call git");
    for round in 0..MOST_HELD.min(all) {
        let at = 1 + round * (all - 1) / (MOST_HELD.min(all) - 1);
        let (hold, held) = (scratch.path().join("hold"), scratch.path().join("held"));
        fs::write(&calls, "").expect("the calls");
        fs::write(&hold, at.to_string()).expect("what is held");
        let (pipeline, jobs) = begin(&server, &format!("Held at call {at}")).await;
        let run = server.run(&pipeline).await;
        eventually("git is held", async || held.exists().then_some(())).await;
        server.kill();
        fs::remove_file(&hold).expect("what is held");
        fs::remove_file(&held).expect("what is held");
        server = server.restart();
        let done = server.final_job(&run).await;
        assert_eq!(done["status"], "COMPLETE", "held at call {at}: {}", server.log_text(&run).await);
        all_are_ready(&server, &pipeline).await;
        let mut cut_off = 0;
        for job in &jobs {
            let done = server.job(job).await;
            assert_eq!((&done["status"], &done["maxAttempts"]), (&json!("COMPLETE"), &json!(3)));
            if done["attempt"] == 2 {
                cut_off += 1;
                let said = system_lines(&server.log_lines(job).await);
                assert!(said[0].contains("in attempt 1 of 3") && said[0].contains("queued again"), "{said:?}");
            }
        }
        assert_eq!(cut_off, 1, "held at call {at}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_cut_off_in_each_attempt_ends_with_an_error() {
    let scratch = tempfile::tempdir().expect("a directory");
    let programs = counting_git(scratch.path());
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").expect("a PATH"));
    let mut server = TestServer::with_environment(&["--slots", "1", "--stop-grace", "0.3"], &[("PATH", &path)]);
    let (hold, held, calls) = (scratch.path().join("hold"), scratch.path().join("held"), scratch.path().join("calls"));
    fs::write(&hold, "1").expect("what is held");
    let (pipeline, [init, _]) = begin(&server, "Unlucky").await;
    for _ in 0..3 {
        eventually("git is held", async || held.exists().then_some(())).await;
        server.kill();
        fs::remove_file(&held).expect("what is held");
        fs::write(&calls, "").expect("the calls");
        server = server.restart();
    }
    let done = server.final_job(&init).await;
    assert_eq!((&done["status"], &done["attempt"], &done["exitCode"]), (&json!("ERROR"), &json!(3), &Value::Null));
    let query = "query($id: ID!) { job(id: $id) { failure { summary } workspace { status } } }";
    let job = server.data(query, json!({ "id": init })).await["job"].take();
    assert_eq!(job["workspace"]["status"], "FAILED");
    assert!(text(&job["failure"]["summary"]).contains("in attempt 3 of 3"), "{job}");
    let query = "query($id: ID!) { pipeline(id: $id) { workspace { id } } }";
    let workspace = server.data(query, json!({ "id": pipeline })).await["pipeline"]["workspace"]["id"].take();
    fs::remove_file(&hold).expect("what is held");
    server.change("updateWorkspace", json!({ "id": workspace }), "__typename").await;
    let query = "query($id: ID!) { jobs(workspaceId: $id, type: [WORKSPACE_INIT], first: 1) { nodes { id } } }";
    let again = server.data(query, json!({ "id": workspace })).await["jobs"]["nodes"][0]["id"].take();
    assert_eq!(server.final_job(text(&again)).await["status"], "COMPLETE");
}
