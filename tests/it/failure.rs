//! `Job.failure`: why a job ended with ERROR.

use serde_json::{Value, json};

use crate::support::{TestServer, on_postgres, text};

async fn failure(server: &TestServer, job: &str) -> Value {
    server.final_job(job).await;
    let query = "query($id: ID!) { job(id: $id) { failure { summary plugin line } } }";
    server.data(query, json!({ "id": job })).await["job"]["failure"].take()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_script_it_is_the_line_that_speaks_of_an_error() {
    let server = TestServer::start();
    let job = server.run_script("echo working; echo 'error: the disk is on fire' >&2; echo bye >&2; exit 3").await;
    assert_eq!(failure(&server, &job).await["summary"], "error: the disk is on fire");
    let line = failure(&server, &job).await["line"].as_u64().expect("a number");
    let lines = server.log_lines(&job).await;
    assert_eq!(lines[usize::try_from(line).expect("small")]["text"], "error: the disk is on fire");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_silent_script_it_is_the_exit_code() {
    let server = TestServer::start();
    let job = server.run_script("exit 3").await;
    assert_eq!(failure(&server, &job).await, json!({ "summary": "Exit code 3.", "plugin": null, "line": null }));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_did_not_fail_has_none() {
    let server = TestServer::start();
    let job = server.run_script("echo 'error: not really' >&2").await;
    assert_eq!(failure(&server, &job).await, Value::Null);
    let server = TestServer::start();
    let stopped = server.run_script("sleep 60").await;
    server.change("stopJob", json!({ "id": stopped }), "__typename").await;
    assert_eq!(failure(&server, &stopped).await, Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_job_that_was_lost_it_is_what_the_server_says() {
    let server = TestServer::start();
    let job = server.run_script("echo up; sleep 60").await;
    server.line_appears(&job, "up").await;
    let server = server.kill_and_restart();
    let failure = failure(&server, &job).await;
    assert!(text(&failure["summary"]).starts_with("The server ended while the job was running"), "{failure}");
    assert_eq!(failure["line"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_job_that_could_not_be_started_it_is_the_reason() {
    // A stack of 2 MiB leaves 512 KiB for what a process is given.
    let server = TestServer::wrapped(
        |_| ["sh", "-c", "ulimit -s 2048; exec \"$@\"", "sh"].map(str::to_owned).to_vec(),
        &["--slots", "1"],
    );
    let workspace = server.workspace("Workspace").await;
    let property = |index| json!({ "name": format!("demo.s{index}"), "value": "x".repeat(60_000) });
    let properties: Vec<Value> = (0..8).map(property).collect();
    let script = format!("true # {}", "x".repeat(90_000));
    let input = json!({ "workspaceId": workspace, "name": "P", "script": script, "properties": properties });
    let job = server.run(&server.pipeline_with(input).await).await;
    assert_eq!(server.final_job(&job).await["status"], "ERROR", "{}", server.log_text(&job).await);
    let failure = failure(&server, &job).await;
    let summary = text(&failure["summary"]);
    assert!(summary.contains("Argument list too long"), "{failure}");
    // On PostgreSQL a run is a task first, which brings the clone up to date.
    assert!(on_postgres() || summary.starts_with("The job could not be started:"), "{failure}");
    assert_eq!(failure["line"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_job_that_an_earlier_version_has_stored_without_one_it_is_derived() {
    let server = TestServer::start();
    let workspace = server.workspace("Workspace").await;
    let pipeline = server.pipeline(&workspace, "Pipeline", "echo 'error: it is broken' >&2; exit 4").await;
    let job = server.run(&pipeline).await;
    server.final_job(&job).await;
    server.execute("UPDATE jobs SET failure = NULL WHERE type = 'PIPELINE_RUN'");
    assert_eq!(failure(&server, &job).await, json!({ "summary": "Exit code 4.", "plugin": null, "line": null }));
    server.execute("UPDATE jobs SET exit_code = NULL WHERE type = 'PIPELINE_RUN'");
    let query = "query($id: ID!) { jobs(pipelineId: $id, status: [ERROR]) { nodes { failure { summary } } } }";
    let listed = server.data(query, json!({ "id": pipeline })).await;
    let summary = text(&listed["jobs"]["nodes"][0]["failure"]["summary"]);
    assert!(summary.starts_with("The job has no exit code"), "{summary}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_what_draws_on_a_terminal_it_is_what_is_said() {
    let cases = [
        (
            r"printf '\033[1m\033[31merror\033[0m: it is \007broken\n' >&2; echo 'hint: see the manual' >&2",
            "error: it is broken",
        ),
        (r"printf '10 %%\r20 %%\rerror: it is broken\r\n' >&2", "error: it is broken"),
        (r"echo '2026-11-24 04:51:48,426 - it is broken' >&2; echo 'hint: see the manual' >&2", "it is broken"),
        (
            r"printf '\033[0m10:20:31  \033[31m  Database Error in model a (models/a.sql)\033[0m\n'
              printf '\033[0m10:20:31    relation b does not exist\n'; printf '\033[0m10:20:31  Done. PASS=0 ERROR=1\n'",
            "Database Error in model a (models/a.sql): relation b does not exist",
        ),
    ];
    let server = TestServer::start();
    let workspace = server.workspace("Workspace").await;
    for (index, (script, expected)) in cases.into_iter().enumerate() {
        let pipeline = server.pipeline(&workspace, &index.to_string(), &format!("{script}\nexit 1")).await;
        let job = server.run(&pipeline).await;
        assert_eq!(failure(&server, &job).await["summary"], expected, "{script}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_plugin_it_is_its_exception() {
    let Some(server) = TestServer::with_meltano(&[]) else { return };
    let workspace = server.workspace("W").await;
    let input = json!({
        "workspaceId": workspace, "name": "P", "dataComponents": ["tap-x", "target-y"],
        "properties": [{ "name": "tap-x.behaviour", "value": "raise" }, { "name": "tap-x.password", "value": "hunter2" }],
    });
    let pipeline = server.pipeline_with(input).await;
    let job = server.run(&pipeline).await;
    let failure = failure(&server, &job).await;
    assert_eq!((text(&failure["summary"]), text(&failure["plugin"])), ("ValueError: the source is gone", "tap-x"));
    let log = server.log_text(&job).await;
    assert!(log.contains("the password is ***") && !log.contains("hunter2"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_meltano_itself_it_is_the_whole_of_what_it_says() {
    let Some(server) = TestServer::with_meltano(&[]) else { return };
    let workspace = server.workspace("W").await;
    let pipeline = server.pipeline_with(json!({ "workspaceId": workspace, "name": "P", "actions": ["tap-x"] })).await;
    let job = server.run(&pipeline).await;
    let whole = "BlockSetValidationError: block violates set requirements: Loader missing in block set!";
    assert_eq!(failure(&server, &job).await["summary"], whole);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_was_printed_in_pieces_is_masked_in_the_summary() {
    let server = TestServer::start();
    let workspace = server.workspace("W").await;
    let printed = [
        r"printf 'Error: a topsecret99' | sed 's/secret/\x1b[01;31m\x1b[K&\x1b[m\x1b[K/'",
        "printf 'Error: a topsecret99' | grep --color=always secret",
        r"printf 'Error: a tops\e[1mecret99\n'",
        r"printf 'Error: a tops\0ecret99\n'",
        r"printf 'Error: a tops\becret99\n'",
        r"printf 'Error: a tops\xe2\x80\x8becret99\n'",
        r"printf 'busy\rError: a tops\e[1mecret99\n'",
    ];
    let properties = json!([{ "name": "a.b", "value": "topsecret99", "sensitive": true }]);
    for (index, printed) in printed.into_iter().enumerate() {
        let script = format!("{{ {printed}; }} >&2; exit 3");
        let name = format!("P{index}");
        let input = json!({ "workspaceId": workspace, "name": name, "script": script, "properties": properties });
        let job = server.run(&server.pipeline_with(input).await).await;
        let summary = failure(&server, &job).await["summary"].take();
        assert_eq!(summary, "Error: a ***", "{printed}");
    }
}
