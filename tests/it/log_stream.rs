//! `jobLogs`: the lines of a log, from a number on, to its end; and `Job.logs`, a page of it.

use jobstream::client::{ClientError, Said};
use serde_json::{Value, json};

use crate::support::{Client, Refusal, TestServer, text, wait_for, within};

const UNKNOWN: &str = "3f2b8c1e-6f0a-4c5e-9d3b-2a7f1e4c5d6b";
const STREAM: &str = "subscription($id: ID!, $from: Int! = 0) { jobLogs(jobId: $id, sequence: $from) { \
                      lines { sequence text } nextSequence complete } }";

/// A subscriber, and what it has read.
struct Logs {
    client: Client,
    id: String,
    lines: Vec<(i64, String)>,
    next: i64,
    complete: bool,
}

impl Logs {
    async fn from(server: &TestServer, job: &str, from: i64) -> Self {
        let mut client = server.client().await;
        let id = client.begin(STREAM, json!({ "id": job, "from": from })).await.expect("a subscription");
        Self { client, id, lines: Vec::new(), next: from, complete: false }
    }

    /// Reads one event, and checks what every one promises. `false` at the end of the subscription.
    async fn read(&mut self) -> Result<bool, ClientError> {
        let Some(mut data) = within(self.client.next_data(&self.id)).await? else { return Ok(false) };
        assert!(!self.complete, "something came after the last event: {data}");
        let logs = data["jobLogs"].take();
        for line in logs["lines"].as_array().expect("lines") {
            let sequence = line["sequence"].as_i64().expect("a number");
            assert_eq!(sequence, self.next, "a gap, or a repetition");
            self.next += 1;
            self.lines.push((sequence, text(&line["text"]).to_owned()));
        }
        let next = logs["nextSequence"].as_i64().expect("a number");
        self.complete = logs["complete"] == true;
        assert!(next == self.next || (self.complete && self.lines.is_empty()), "{next} after {}", self.next);
        self.next = next;
        Ok(true)
    }

    async fn rest(mut self) -> Self {
        while self.read().await.expect("an event") {}
        assert!(self.complete, "the last event is not complete");
        self
    }

    fn texts(&self) -> Vec<&str> {
        self.lines.iter().map(|(_, text)| text.as_str()).collect()
    }
}

async fn refusal(server: &TestServer, arguments: Value) -> Refusal {
    let mut client = server.client().await;
    let logs = client.begin(STREAM, arguments).await.expect("a subscription");
    match within(client.next_of(&logs)).await.expect("an answer") {
        Said::Error(errors) => Refusal::of(json!({ "errors": errors })),
        other => panic!("it was not refused: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_read_from_any_line_to_its_end() {
    let server = TestServer::start();
    let job = server.run_script("seq 0 4").await;
    server.final_job(&job).await;
    for (from, texts, next) in [(0, "0 1 2 3 4", 5), (3, "3 4", 5), (4, "4", 5), (5, "", 5), (1000, "", 5)] {
        let logs = Logs::from(&server, &job, from).await.rest().await;
        assert_eq!((logs.texts().join(" ").as_str(), logs.next), (texts, next), "from {from}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_log_is_delivered_whole_and_in_order() {
    let server = TestServer::start();
    let job = server.run_script("seq 0 49999").await;
    // One follows from the start, one from the middle, one comes when all is over.
    let (first, middle) = (Logs::from(&server, &job, 0).await, Logs::from(&server, &job, 25_000).await);
    let (first, middle) = (first.rest().await, middle.rest().await);
    let late = Logs::from(&server, &job, 0).await.rest().await;
    assert_eq!((first.lines.len(), middle.lines.len()), (50_000, 25_000));
    assert!(first.lines.iter().all(|(sequence, text)| *text == sequence.to_string()));
    assert!(first.lines == late.lines && first.lines[25_000..] == middle.lines, "every subscriber sees the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_are_delivered_while_the_job_runs_and_reading_goes_on_where_it_was() {
    let server = TestServer::start();
    let (one, two) = (server.scratch().join("one"), server.scratch().join("two"));
    let script = format!("echo a; {}; echo b; echo c; {}; echo d", wait_for(&one), wait_for(&two));
    let job = server.run_script(&script).await;
    let mut first = Logs::from(&server, &job, 0).await;
    let mut beyond = Logs::from(&server, &job, 2).await;
    while first.lines.is_empty() {
        first.read().await.expect("an event");
    }
    assert_eq!((first.texts(), server.job(&job).await["status"].take()), (vec!["a"], json!("RUNNING")));
    std::fs::write(&one, "").expect("a file");
    while beyond.lines.is_empty() {
        beyond.read().await.expect("an event");
    }
    assert_eq!(beyond.texts(), ["c"]);
    // The connection is lost here; another goes on.
    let again = Logs::from(&server, &job, first.next).await;
    drop(first);
    std::fs::write(&two, "").expect("a file");
    assert_eq!(again.rest().await.texts(), ["b", "c", "d"]);
    assert_eq!(beyond.rest().await.texts(), ["c", "d"]);
    assert_eq!(server.final_job(&job).await["status"], "COMPLETE");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_ends_before_the_line_that_was_asked_for_says_where() {
    let server = TestServer::start();
    let go = server.scratch().join("go");
    let job = server.run_script(&format!("echo a; {}; echo b", wait_for(&go))).await;
    server.line_appears(&job, "a").await;
    let logs = Logs::from(&server, &job, 100).await;
    std::fs::write(&go, "").expect("a file");
    let logs = logs.rest().await;
    assert_eq!((logs.lines.len(), logs.next), (0, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_without_lines_is_complete_when_its_job_is_final() {
    let server = TestServer::with(&["--slots", "0"]);
    let created = server.change("createWorkspace", json!({ "name": "W" }), "jobs { id type }").await;
    let task = text(&created["jobs"][1]["id"]);
    let page = server.data(
        "query($id: ID!) { job(id: $id) { logs { lines { text } nextSequence complete } } }",
        json!({ "id": task }),
    );
    assert_eq!(page.await["job"]["logs"], json!({ "lines": [], "nextSequence": 0, "complete": false }));
    let logs = Logs::from(&server, task, 0).await;
    server.stop(task).await;
    assert_eq!(logs.rest().await.next, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_every_attempt_is_one_log() {
    let server = TestServer::with(&["--retry-backoff", "0"]);
    let workspace = server.workspace("W").await;
    let input =
        json!({ "workspaceId": workspace, "name": "P", "script": "echo $JOBSTREAM_ATTEMPT; exit 7", "maxRetries": 1 });
    let job = server.run(&server.pipeline_with(input).await).await;
    let logs = Logs::from(&server, &job, 0).await.rest().await;
    let texts = logs.texts();
    assert_eq!((texts.len(), texts[0], texts[2]), (3, "1", "2"));
    assert!(texts[1].contains("Exit code 7 in attempt 1 of 2"), "{texts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_ends_with_not_found_when_the_job_is_deleted() {
    let server = TestServer::start();
    let job = server.run_script("echo up; sleep 1000").await;
    let mut logs = Logs::from(&server, &job, 0).await;
    while logs.lines.is_empty() {
        logs.read().await.expect("an event");
    }
    server.change("deleteJob", json!({ "id": job }), "deletedJobId").await;
    let error = loop {
        match logs.read().await {
            Ok(more) => assert!(more && !logs.complete, "it ended as if the log were complete"),
            Err(error) => break error,
        }
    };
    assert!(matches!(&error, ClientError::Failed(errors) if errors[0]["extensions"]["code"] == "NOT_FOUND"), "{error}");
    assert_eq!(refusal(&server, json!({ "id": job })).await.code, "NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_arguments_are_refused() {
    let server = TestServer::with(&["--slots", "0"]);
    assert_eq!(refusal(&server, json!({ "id": UNKNOWN })).await.code, "NOT_FOUND");
    assert_eq!(refusal(&server, json!({ "id": "7", "from": -1 })).await.paths(), ["jobId", "sequence"]);
    assert_eq!(refusal(&server, json!({ "id": UNKNOWN, "from": -1 })).await.paths(), ["sequence"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_a_log_has_what_was_asked_for_and_says_where_to_go_on() {
    let server = TestServer::start();
    let job = server.run_script("seq 0 11999").await;
    server.final_job(&job).await;
    for (arguments, first, count, next, complete) in [
        ("", 0, 1000, 1000, false),
        ("(first: 10000)", 0, 10_000, 10_000, false),
        ("(sequence: 11998)", 11_998, 2, 12_000, true),
        ("(sequence: 5, first: 1)", 5, 1, 6, false),
        ("(last: 3)", 11_997, 3, 12_000, true),
        ("(last: 10000)", 2000, 10_000, 12_000, true),
    ] {
        let query = format!(
            "query($id: ID!) {{ job(id: $id) {{ logs{arguments} {{ lines {{ sequence text stream timestamp continued }} nextSequence complete }} }} }}"
        );
        let logs = server.data(&query, json!({ "id": job })).await["job"]["logs"].take();
        let lines = logs["lines"].as_array().expect("lines");
        assert_eq!(
            (lines.len(), &logs["nextSequence"], &logs["complete"]),
            (count, &json!(next), &json!(complete)),
            "{arguments}"
        );
        for (sequence, line) in (first..).zip(lines) {
            assert_eq!((&line["sequence"], text(&line["text"])), (&json!(sequence), sequence.to_string().as_str()));
            assert_eq!((&line["stream"], &line["continued"]), (&json!("STDOUT"), &json!(false)));
        }
    }
    for (arguments, paths) in [
        ("first: 1, last: 1", vec!["last"]),
        ("sequence: 1, last: 1", vec!["last"]),
        ("first: 0", vec!["first"]),
        ("first: 10001", vec!["first"]),
        ("sequence: -1, last: 10001", vec!["last", "last", "sequence"]),
    ] {
        let query = format!("query($id: ID!) {{ job(id: $id) {{ logs({arguments}) {{ nextSequence }} }} }}");
        assert_eq!(server.refusal(&query, json!({ "id": job })).await.paths(), paths, "{arguments}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_a_log_has_at_most_1_mib_of_text_and_at_least_one_line() {
    let server = TestServer::start();
    let job = server
        .run_script("for i in 1 2 3 4 5 6; do head -c 300000 /dev/zero | tr '\\0' x | fold -w 50000; echo; done")
        .await;
    server.final_job(&job).await;
    let query = "query($id: ID!, $from: Int) { job(id: $id) { logs(sequence: $from, first: 10000) { lines { sequence text } nextSequence complete } } }";
    let (mut from, mut total) = (0, 0);
    loop {
        let logs = server.data(query, json!({ "id": job, "from": from })).await["job"]["logs"].take();
        let lines = logs["lines"].as_array().expect("lines");
        let bytes: usize = lines.iter().map(|it| text(&it["text"]).len()).sum();
        assert!(bytes <= 1024 * 1024 && !lines.is_empty());
        total += bytes;
        from = logs["nextSequence"].as_i64().expect("a number");
        if logs["complete"] == true {
            break;
        }
        assert!(bytes > 1024 * 1024 - 50_000, "the page could have held another line");
    }
    assert_eq!(total, 6 * 300_000);
}
