//! Jobs, from their creation to their end.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::{TestServer, lines_of, text, wait_for};

fn texts(lines: &[Value], stream: &str) -> Vec<String> {
    lines.iter().filter(|line| line["stream"] == stream).map(|line| text(&line["text"]).to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_exits_with_0_is_complete() {
    let server = TestServer::start();
    let job = server.run_script("echo hello; echo trouble >&2").await;
    let done = server.final_job(&job).await;
    assert_eq!((&done["status"], &done["exitCode"]), (&json!("COMPLETE"), &json!(0)));
    let mut lines = server.log_text(&job).await.lines().map(str::to_owned).collect::<Vec<_>>();
    lines.sort();
    assert_eq!(lines, ["hello", "trouble"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_six_types_are_seen() {
    let server = TestServer::start();
    let workspace = server.workspace("Workspace").await;
    let pipeline = server.pipeline(&workspace, "Pipeline", "true").await;
    let run = server.run(&pipeline).await;
    let verify = server.verify(&pipeline).await;
    server.final_job(&run).await;
    server.final_job(&verify).await;
    let invite = "mutation($input: CreateInvitationInput!) { createInvitation(input: $input) { job { id } } }";
    server.data(invite, json!({ "input": { "workspaceId": workspace, "email": "ada@example.com" } })).await;

    let query = "query($id: ID!) { jobs(workspaceId: $id) { nodes { type status startTime exitCode commitId maxAttempts \
                 pipeline { id } } } }";
    let jobs = server.data(query, json!({ "id": workspace })).await;
    let jobs: BTreeMap<&str, &Value> =
        jobs["jobs"]["nodes"].as_array().expect("jobs").iter().map(|job| (text(&job["type"]), job)).collect();
    let types: Vec<&str> = jobs.keys().copied().collect();
    assert_eq!(
        types,
        [
            "PIPELINE_CONFIG",
            "PIPELINE_RUN",
            "PIPELINE_VERIFY",
            "PROFILE_COLLABORATE",
            "PROFILE_IMPORT",
            "WORKSPACE_INIT"
        ]
    );
    for (type_, job) in jobs {
        assert_eq!(job["status"], "COMPLETE", "{type_}");
        let is_system_task = matches!(type_, "WORKSPACE_INIT" | "PIPELINE_CONFIG" | "PIPELINE_VERIFY");
        assert_eq!(job["maxAttempts"], if is_system_task { 3 } else { 1 }, "{type_}");
        let (user_task, of_pipeline) = (type_.starts_with("PROFILE"), type_.starts_with("PIPELINE"));
        assert_eq!(job["startTime"].is_null(), user_task, "{type_}");
        assert_eq!(job["exitCode"], if user_task { Value::Null } else { json!(0) }, "{type_}");
        assert_eq!(job["pipeline"]["id"], if of_pipeline { json!(pipeline) } else { Value::Null }, "{type_}");
        let commits = matches!(type_, "WORKSPACE_INIT" | "PIPELINE_CONFIG");
        assert_eq!(job["commitId"].is_string(), commits, "{type_}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exit_code_is_the_scripts_or_128_and_the_signal() {
    let server = TestServer::start();
    let workspace = server.workspace("Workspace").await;
    for (script, code) in [("exit 3", 3), ("exit 255", 255), ("kill -TERM $$", 143), ("kill -KILL $$", 137)] {
        let pipeline = server.pipeline(&workspace, script, script).await;
        let done = server.final_job(&server.run(&pipeline).await).await;
        assert_eq!((&done["status"], &done["exitCode"]), (&json!("ERROR"), &json!(code)), "{script}");
        assert_eq!(done["stopReason"], Value::Null, "{script}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jobs_environment_is_what_is_promised_and_nothing_else() {
    let secret = ("SECRET_OF_THE_SERVER", "hunter2");
    let server = TestServer::with_environment(&[], &[secret, ("LANG", "C.UTF-8"), ("JOBSTREAM_RETRY_BACKOFF", "0.1")]);
    let (given, exported) = (server.scratch().join("given"), server.scratch().join("exported"));
    let script = format!("cat /proc/$$/environ > '{}'; env -0 > '{}'", given.display(), exported.display());
    let workspace = server.workspace("Workspace").await;
    let properties = json!([
        { "name": "tap-x.some-key", "value": "a value with 'quotes' = and\nlines" },
        { "name": "target_y.password", "value": "s3cret", "sensitive": true },
    ]);
    let input = json!({ "workspaceId": workspace, "name": "Pipeline", "script": script, "properties": properties });
    let pipeline = server.pipeline_with(input).await;
    let job = server.run(&pipeline).await;
    assert_eq!(server.final_job(&job).await["status"], "COMPLETE");
    let promised = BTreeMap::from([
        ("HOME", std::env::var("HOME").expect("HOME")),
        ("JOBSTREAM_ATTEMPT", "1".to_owned()),
        ("JOBSTREAM_JOB_ID", job.clone()),
        ("JOBSTREAM_PIPELINE_ID", pipeline),
        ("JOBSTREAM_WORKSPACE_ID", workspace),
        ("LANG", "C.UTF-8".to_owned()),
        ("PATH", std::env::var("PATH").expect("PATH")),
        ("PYTHONUNBUFFERED", "1".to_owned()),
        ("TAP_X_SOME_KEY", "a value with 'quotes' = and\nlines".to_owned()),
        ("TARGET_Y_PASSWORD", "s3cret".to_owned()),
        ("TMPDIR", server.data_directory().join(format!("tmp/{job}.1")).display().to_string()),
    ]);
    let variables = |content: String| -> BTreeMap<String, String> {
        let variables = content.split_terminator('\0').map(|it| it.split_once('=').expect("a variable"));
        variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    };
    let promised: BTreeMap<String, String> = promised.into_iter().map(|(name, it)| (name.to_owned(), it)).collect();
    assert_eq!(variables(std::fs::read_to_string(given).expect("it")), promised);
    let mut seen_by_programs = variables(std::fs::read_to_string(exported).expect("it"));
    for of_bash in ["PWD", "SHLVL", "_"] {
        seen_by_programs.remove(of_bash);
    }
    assert_eq!(seen_by_programs, promised);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_has_no_input_a_private_umask_and_runs_in_the_repository() {
    let server = TestServer::start();
    let script = "readlink /proc/self/fd/0; umask; pwd -P; ls -d .git; touch made; stat -c %a made; \
                  for fd in /proc/$$/fd/*; do readlink $fd; done; true";
    let job = server.run_script(script).await;
    assert_eq!(server.final_job(&job).await["status"], "COMPLETE");
    let workspace = server.data("{ workspaces { nodes { id } } }", json!({})).await;
    let workspace = text(&workspace["workspaces"]["nodes"][0]["id"]).to_owned();
    let repository = server.data_directory().join("repositories").join(workspace);
    let repository = repository.canonicalize().expect("the repository");
    let printed = server.log_text(&job).await;
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines[..5], ["/dev/null", "0077", repository.to_str().expect("UTF-8"), ".git", "600"]);
    // Nothing of what the server was started with, and nothing of its own.
    let descriptors: Vec<&str> = lines[5..].iter().map(|it| it.split(':').next().unwrap_or(it)).collect();
    assert_eq!(descriptors, ["/dev/null", "pipe", "pipe"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_run_is_tried_again_after_a_backoff() {
    let server = TestServer::with(&["--retry-backoff", "0.5"]);
    let workspace = server.workspace("Workspace").await;
    let script = "echo attempt $JOBSTREAM_ATTEMPT; [ $JOBSTREAM_ATTEMPT = 3 ] || exit 7";
    let input = json!({ "workspaceId": workspace, "name": "Pipeline", "script": script, "maxRetries": 4 });
    let pipeline = server.pipeline_with(input).await;
    let cursor = server.cursor().await;
    let job = server.run(&pipeline).await;
    let mut changes = server.changes(json!({ "jobId": job, "after": cursor })).await;
    let seen = changes.until(|change| change["status"] == "COMPLETE").await;
    let path: Vec<(&str, i64)> =
        seen.iter().map(|it| (text(&it["status"]), it["attempt"].as_i64().expect("a number"))).collect();
    assert_eq!(
        path,
        [("QUEUED", 1), ("RUNNING", 1), ("QUEUED", 2), ("RUNNING", 2), ("QUEUED", 3), ("RUNNING", 3), ("COMPLETE", 3)]
    );
    for (failed, backoff) in [(2, 500), (4, 1000)] {
        let at = |index: usize| chrono::DateTime::parse_from_rfc3339(text(&seen[index]["at"])).expect("a time");
        let waited = (at(failed + 1) - at(failed)).num_milliseconds();
        assert!(waited >= backoff, "{waited} ms");
    }
    let done = server.job(&job).await;
    assert_eq!((&done["exitCode"], &done["attempt"], &done["maxAttempts"]), (&json!(0), &json!(3), &json!(5)));
    let lines = server.log_lines(&job).await;
    assert_eq!(texts(&lines, "STDOUT"), ["attempt 1", "attempt 2", "attempt 3"]);
    let said = texts(&lines, "SYSTEM");
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].contains("Exit code 7 in attempt 1 of 5"), "{said:?}");
    assert!(said[1].contains("Exit code 7 in attempt 2 of 5"), "{said:?}");
    let sequences: Vec<i64> = lines.iter().map(|line| line["sequence"].as_i64().expect("a number")).collect();
    assert_eq!(sequences, [0, 1, 2, 3, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_code_and_end_time_are_null_until_the_last_try_has_ended() {
    let server = TestServer::with(&["--retry-backoff", "0.05"]);
    let gate = server.scratch().join("gate");
    let workspace = server.workspace("Workspace").await;
    let script = format!("[ $JOBSTREAM_ATTEMPT = 1 ] && exit 7; {}; exit 8", wait_for(&gate));
    let input = json!({ "workspaceId": workspace, "name": "Pipeline", "script": script, "maxRetries": 1 });
    let job = server.run(&server.pipeline_with(input).await).await;
    let mut changes = server.changes(json!({ "jobId": job })).await;
    changes.until(|change| change["status"] == "RUNNING" && change["attempt"] == 2).await;
    let running = server.job(&job).await;
    assert_eq!((&running["status"], &running["attempt"]), (&json!("RUNNING"), &json!(2)));
    assert_eq!((&running["exitCode"], &running["endTime"]), (&Value::Null, &Value::Null));
    std::fs::write(&gate, "").expect("the gate");
    let done = server.final_job(&job).await;
    assert_eq!((&done["status"], &done["exitCode"], &done["attempt"]), (&json!("ERROR"), &json!(8), &json!(2)));
    assert!(text(&done["startTime"]) < text(&done["endTime"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_past_its_timeout_is_stopped_and_not_tried_again() {
    let server = TestServer::with(&["--stop-grace", "0.5"]);
    let workspace = server.workspace("Workspace").await;
    let script = "trap '' TERM; echo started; while :; do sleep 0.1; done";
    let input =
        json!({ "workspaceId": workspace, "name": "Pipeline", "script": script, "timeout": 1, "maxRetries": 3 });
    let job = server.run(&server.pipeline_with(input).await).await;
    let done = server.final_job(&job).await;
    assert_eq!((&done["status"], &done["stopReason"]), (&json!("STOPPED"), &json!("TIMEOUT")));
    assert_eq!((&done["attempt"], &done["maxAttempts"]), (&json!(1), &json!(4)));
    assert!(done["stopRequested"].is_string());
    let said = texts(&server.log_lines(&job).await, "SYSTEM");
    assert!(said.iter().any(|line| line.contains("timeout")), "{said:?}");
    assert_eq!(server.code(STOP, json!({ "input": { "id": job } })).await, "JOB_NOT_ACTIVE");
}

const STOP: &str = "mutation($input: StopJobInput!) { stopJob(input: $input) { job { id } } }";
const RUN: &str = "mutation($input: CreateJobInput!) { createJob(input: $input) { job { id } } }";

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_of_0_does_not_stop_a_job_at_once() {
    let server = TestServer::start();
    let gate = server.scratch().join("gate");
    let workspace = server.workspace("Workspace").await;
    let script = format!("echo started; {}", wait_for(&gate));
    let input = json!({ "workspaceId": workspace, "name": "Pipeline", "script": script, "timeout": 0 });
    let pipeline = server.pipeline_with(input).await;
    let query = "query($id: ID!) { pipeline(id: $id) { timeout } }";
    assert_eq!(server.data(query, json!({ "id": pipeline })).await["pipeline"]["timeout"], 0);
    let job = server.run(&pipeline).await;
    server.line_appears(&job, "started").await;
    std::fs::write(&gate, "").expect("the gate");
    assert_eq!(server.final_job(&job).await["status"], "COMPLETE");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_with_an_active_run_is_busy() {
    let server = TestServer::start();
    let gate = server.scratch().join("gate");
    let workspace = server.workspace("Workspace").await;
    let pipeline = server.pipeline(&workspace, "Pipeline", &wait_for(&gate)).await;
    let job = server.run(&pipeline).await;
    server.job_is(&job, "RUNNING").await;
    let refused = server.post(RUN, json!({ "input": { "pipelineId": pipeline } })).await;
    assert_eq!(refused["data"], Value::Null);
    let extensions = &refused["errors"][0]["extensions"];
    assert_eq!((&extensions["code"], &extensions["jobId"]), (&json!("PIPELINE_BUSY"), &json!(job)));
    // A verification is no run.
    let verify = server.verify(&pipeline).await;
    assert_eq!(server.final_job(&verify).await["status"], "COMPLETE");
    std::fs::write(&gate, "").expect("the gate");
    server.final_job(&job).await;
    let next = server.run(&pipeline).await;
    assert_eq!(server.final_job(&next).await["status"], "COMPLETE");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_without_a_script_ends_with_an_error_that_says_so() {
    let server = TestServer::start();
    let workspace = server.workspace("Workspace").await;
    let pipeline = server.pipeline_with(json!({ "workspaceId": workspace, "name": "Pipeline", "maxRetries": 2 })).await;
    let job = server.run(&pipeline).await;
    let done = server.final_job(&job).await;
    assert_eq!((&done["status"], &done["exitCode"], &done["attempt"]), (&json!("ERROR"), &Value::Null, &json!(1)));
    let lines = server.log_lines(&job).await;
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0]["stream"], "SYSTEM");
    assert!(text(&lines[0]["text"]).contains("no script"), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_with_a_syntax_error_does_not_pass_verification() {
    let server = TestServer::start();
    let witness = server.scratch().join("witness");
    let workspace = server.workspace("Workspace").await;
    let broken = server.pipeline(&workspace, "Broken", &format!("touch '{}'\nif true; then", witness.display())).await;
    let job = server.verify(&broken).await;
    let done = server.final_job(&job).await;
    assert_eq!((&done["type"], &done["status"]), (&json!("PIPELINE_VERIFY"), &json!("ERROR")));
    let said = texts(&server.log_lines(&job).await, "STDERR");
    assert!(said.iter().any(|line| line.contains("syntax error")), "{said:?}");
    assert!(!witness.exists(), "a verification runs nothing");
    let fine = server.pipeline(&workspace, "Fine", "if true; then echo; fi").await;
    assert_eq!(server.final_job(&server.verify(&fine).await).await["status"], "COMPLETE");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_is_numbered_in_the_environment() {
    let server = TestServer::with(&["--retry-backoff", "0.01"]);
    let attempts = server.scratch().join("attempts");
    let workspace = server.workspace("Workspace").await;
    let script = format!("echo $JOBSTREAM_ATTEMPT >> '{}'; exit 1", attempts.display());
    let input = json!({ "workspaceId": workspace, "name": "Pipeline", "script": script, "maxRetries": 2 });
    let job = server.run(&server.pipeline_with(input).await).await;
    assert_eq!(server.final_job(&job).await["status"], "ERROR");
    assert_eq!(lines_of(&attempts, 3).await, ["1", "2", "3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_definition_can_be_run() {
    let server = TestServer::start();
    let workspace = server.workspace("Workspace").await;
    let end = "\necho ${#TAP_P0} ${#TAP_P6}";
    let script = format!("#{}{end}", "x".repeat(100 * 1024 - end.len() - 1));
    let value = "v".repeat(64 * 1024);
    let properties: Vec<Value> =
        (0..7).map(|number| json!({ "name": format!("tap.p{number}"), "value": value })).collect();
    let input = json!({ "workspaceId": workspace, "name": "P", "script": script, "properties": properties });
    let job = server.run(&server.pipeline_with(input).await).await;
    assert_eq!(server.final_job(&job).await["status"], "COMPLETE", "{}", server.log_text(&job).await);
    assert_eq!(server.log_text(&job).await, "65536 65536\n");
}
