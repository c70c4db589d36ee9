//! What a job prints, and how it is read.

use serde_json::{Value, json};

use crate::support::{TestServer, eventually, text, wait_for, within};

fn texts<'a>(lines: &'a [Value], stream: &str) -> Vec<&'a str> {
    lines.iter().filter(|line| line["stream"] == stream).map(|line| text(&line["text"])).collect()
}

fn are_numbered_from_0(lines: &[Value]) -> bool {
    lines.iter().enumerate().all(|(index, line)| line["sequence"] == index)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_stream_keeps_its_order() {
    let server = TestServer::start();
    let job = server.run_script("for i in $(seq 2000); do echo out $i; echo err $i >&2; done").await;
    let lines = server.log_lines(&job).await;
    assert!(are_numbered_from_0(&lines));
    assert_eq!(lines.len(), 4000);
    for (stream, word) in [("STDOUT", "out"), ("STDERR", "err")] {
        let expected: Vec<String> = (1..=2000).map(|number| format!("{word} {number}")).collect();
        assert_eq!(texts(&lines, stream), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_invalid_utf8_is_replaced() {
    let server = TestServer::start();
    let script = r"printf 'a\xffb\n'; printf 'nul \0 nul\n'; printf 'ten%%\rtwenty%%\n'; printf '\033[31mred\033[0m\n';
                   printf '\n'; printf 'caf\xc3\xa9 \xf0\x9f\x98\x80\n'; printf 'cut \xe2\x82\n'; printf ' spaces \t\n'";
    let job = server.run_script(script).await;
    let lines = server.log_lines(&job).await;
    assert_eq!(
        texts(&lines, "STDOUT"),
        [
            "a\u{fffd}b",
            "nul \0 nul",
            "ten%\rtwenty%",
            "\u{1b}[31mred\u{1b}[0m",
            "",
            "café 😀",
            "cut \u{fffd}",
            " spaces \t"
        ]
    );
    assert!(server.log_text(&job).await.starts_with("a\u{fffd}b\nnul \0 nul\nten%\rtwenty%\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_line_comes_in_pieces() {
    let server = TestServer::start();
    let script = "head -c 5000000 /dev/zero | tr '\\0' x; printf '\\xe2\\x82\\xac'; head -c 100000 /dev/zero | tr '\\0' y; \
                  echo; echo short";
    let job = server.run_script(script).await;
    let lines = server.log_lines(&job).await;
    assert!(are_numbered_from_0(&lines));
    let (last, pieces) = lines.split_last().expect("lines");
    assert_eq!((text(&last["text"]), &last["continued"]), ("short", &json!(false)));
    let (end, begun) = pieces.split_last().expect("pieces");
    assert_eq!(end["continued"], false);
    assert!(begun.iter().all(|piece| piece["continued"] == true));
    assert!(pieces.iter().all(|piece| text(&piece["text"]).len() <= 64 * 1024));
    let whole: String = pieces.iter().map(|piece| text(&piece["text"])).collect();
    assert!(whole == format!("{}€{}", "x".repeat(5_000_000), "y".repeat(100_000)), "{} bytes", whole.len());
    // A page is bounded by what it holds, not only by its number of lines.
    let query = "query($id: ID!) { job(id: $id) { logs(first: 10000) { lines { text } nextSequence complete } } }";
    let page = server.data(query, json!({ "id": job })).await;
    let page = &page["job"]["logs"];
    let bytes: usize = page["lines"].as_array().expect("lines").iter().map(|line| text(&line["text"]).len()).sum();
    assert!((900_000..=1024 * 1024).contains(&bytes), "{bytes} bytes");
    assert_eq!(page["complete"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_appears_while_the_job_waits_for_its_answer() {
    let server = TestServer::start();
    let gate = server.scratch().join("gate");
    // The job goes on only when the test has seen the piece.
    let script = format!("printf 'Continue? '; printf '10%%\\r' >&2; {}; echo yes; echo >&2", wait_for(&gate));
    let job = server.run_script(&script).await;
    server.line_appears(&job, "Continue? ").await;
    server.line_appears(&job, "10%\r").await;
    assert_eq!(server.job(&job).await["status"], "RUNNING");
    std::fs::write(&gate, "").expect("the gate");
    let lines = server.log_lines(&job).await;
    let pieces = |stream: &str| -> Vec<(String, bool)> {
        let of_stream = lines.iter().filter(|line| line["stream"] == stream);
        of_stream.map(|line| (text(&line["text"]).to_owned(), line["continued"] == true)).collect()
    };
    assert_eq!(pieces("STDOUT"), [("Continue? ".to_owned(), true), ("yes".to_owned(), false)]);
    assert_eq!(pieces("STDERR"), [("10%\r".to_owned(), true), (String::new(), false)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_grows_all_the_time_appears_piece_by_piece() {
    // A bar that is redrawn, dots, and writes without any pause: none of them ends its line before the test has seen pieces of it.
    for write in [r"printf '\r%d %%' $((i++)); sleep 0.2", "printf .; sleep 0.5", "printf x"] {
        let server = TestServer::start();
        let gate = server.scratch().join("gate");
        let job = server.run_script(&format!("until [ -e '{}' ]; do {write}; done; echo", gate.display())).await;
        let mut client = server.client().await;
        let query = "subscription($id: ID!) { jobLogs(jobId: $id) { lines { text continued } } }";
        let logs = client.begin(query, json!({ "id": job })).await.expect("a subscription");
        let mut pieces = 0;
        while pieces < 3 {
            let event = within(client.next_data(&logs)).await.expect("an event").expect("no end");
            for line in event["jobLogs"]["lines"].as_array().expect("lines") {
                assert_eq!(line["continued"], true, "{write}");
                pieces += 1;
            }
        }
        std::fs::write(&gate, "").expect("the gate");
        let lines = server.log_lines(&job).await;
        let (last, begun) = lines.split_last().expect("lines");
        assert!(begun.iter().all(|line| line["continued"] == true) && last["continued"] == false, "{write}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_is_not_cut_where_the_next_write_follows_soon() {
    let server = TestServer::start();
    let job = server.run_script("printf 1; sleep 0.1; printf 2; echo").await;
    let lines = server.log_lines(&job).await;
    assert_eq!(texts(&lines, "STDOUT"), ["12"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_last_line_needs_no_end() {
    let server = TestServer::start();
    let job = server.run_script("echo first; printf last; printf error >&2").await;
    let lines = server.log_lines(&job).await;
    assert_eq!(texts(&lines, "STDOUT"), ["first", "last"]);
    assert_eq!(texts(&lines, "STDERR"), ["error"]);
    assert!(lines.iter().all(|line| line["continued"] == false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_is_seen_while_the_job_runs() {
    let server = TestServer::start();
    let gate = server.scratch().join("gate");
    let job = server.run_script(&format!("echo first; {}; echo last", wait_for(&gate))).await;
    server.line_appears(&job, "first").await;
    assert_eq!(server.log_text(&job).await, "first\n");
    let query = "query($id: ID!) { job(id: $id) { status logs { lines { text } nextSequence complete } } }";
    let running = server.data(query, json!({ "id": job })).await;
    let logs = json!({ "lines": [{ "text": "first" }], "nextSequence": 1, "complete": false });
    assert_eq!(running["job"], json!({ "status": "RUNNING", "logs": logs }));
    std::fs::write(&gate, "").expect("the gate");
    server.final_job(&job).await;
    assert_eq!(server.log_text(&job).await, "first\nlast\n");
    assert_eq!(server.data(query, json!({ "id": job })).await["job"]["logs"]["complete"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_event_of_a_log_is_complete_even_without_lines() {
    let server = TestServer::start();
    let gate = server.scratch().join("gate");
    let job = server.run_script(&wait_for(&gate)).await;
    server.job_is(&job, "RUNNING").await;
    let mut client = server.client().await;
    let query = "subscription($id: ID!) { jobLogs(jobId: $id) { lines { text } nextSequence complete } }";
    let logs = client.begin(query, json!({ "id": job })).await.expect("a subscription");
    std::fs::write(&gate, "").expect("the gate");
    let event = within(client.next_data(&logs)).await.expect("an event");
    assert_eq!(event, Some(json!({ "jobLogs": { "lines": [], "nextSequence": 0, "complete": true } })));
    assert_eq!(within(client.next_data(&logs)).await.expect("the end"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_read_on_from_a_number() {
    let server = TestServer::start();
    let job = server.run_script("seq 0 2999").await;
    server.final_job(&job).await;
    let mut client = server.client().await;
    let query =
        "subscription($id: ID!) { jobLogs(jobId: $id, sequence: 1500) { lines { sequence text } nextSequence } }";
    let logs = client.begin(query, json!({ "id": job })).await.expect("a subscription");
    let mut next = 1500;
    while let Some(event) = within(client.next_data(&logs)).await.expect("an event") {
        for line in event["jobLogs"]["lines"].as_array().expect("lines") {
            assert_eq!((&line["sequence"], text(&line["text"])), (&json!(next), next.to_string().as_str()));
            next += 1;
        }
        assert_eq!(event["jobLogs"]["nextSequence"], next);
    }
    assert_eq!(next, 3000);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_beyond_the_limit_is_discarded_and_the_job_goes_on() {
    let server = TestServer::with(&["--max-log-bytes", "10000", "--retry-backoff", "0.01"]);
    let workspace = server.workspace("Workspace").await;
    let end = server.scratch().join("end");
    let script = format!(
        "for i in $(seq 1000 1599); do echo $i 456789; done; \
         [ $JOBSTREAM_ATTEMPT = 2 ] || exit 1; yes | head -c 3000000; touch {}",
        end.display()
    );
    let input = json!({ "workspaceId": workspace, "name": "Pipeline", "script": script, "maxRetries": 1 });
    let job = server.run(&server.pipeline_with(input).await).await;
    let done = server.final_job(&job).await;
    assert_eq!((&done["status"], &done["exitCode"]), (&json!("COMPLETE"), &json!(0)));
    assert!(end.exists(), "the job was not held up");
    let lines = server.log_lines(&job).await;
    assert!(are_numbered_from_0(&lines));
    let printed = texts(&lines, "STDOUT");
    // 600 lines of 12 bytes in the first attempt; the second has what is left.
    assert_eq!(printed.len(), 10000 / 12);
    assert_eq!((printed[0], printed[599], printed[600]), ("1000 456789", "1599 456789", "1000 456789"));
    let said = texts(&lines, "SYSTEM");
    assert_eq!(said.iter().filter(|line| line.contains("limit of 10000 bytes")).count(), 1, "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_process_elsewhere_writes_after_the_end_is_not_waited_for() {
    let server = TestServer::start();
    let pipe = server.scratch().join("fd");
    // The test opens the job's own pipe, as a process outside of the job could have been handed it.
    let gate = server.scratch().join("gate");
    let script = format!("echo /proc/$$/fd/1 > {}; echo hello; {}", pipe.display(), wait_for(&gate));
    let job = server.run_script(&script).await;
    server.line_appears(&job, "hello").await;
    let path = std::fs::read_to_string(&pipe).expect("the path");
    let held = std::fs::File::options().write(true).open(path.trim()).expect("the job's pipe");
    std::fs::write(&gate, "").expect("the gate");
    assert_eq!(server.final_job(&job).await["status"], "COMPLETE");
    assert_eq!(server.log_text(&job).await, "hello\n");
    drop(held);
}

/// How many lines a job prints in the tests of memory.
fn many() -> usize {
    if std::env::var_os("JOBSTREAM_LONG_TESTS").is_some_and(|it| it == "1") { 10_000_000 } else { 2_000_000 }
}

/// How much more memory than before a server may have used at most, in KiB: far less than what is printed, 80 bytes a line.
const FLAT: u64 = 40 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn memory_stays_flat_whatever_is_printed_and_whoever_reads() {
    let server = TestServer::start();
    let count = many();
    let line = "x".repeat(79);
    let workspace = server.workspace("Workspace").await;
    let input = json!({ "workspaceId": workspace, "name": "P", "script": format!("yes {line} | head -n {count}"), "timeout": 3600 });
    let pipeline = server.pipeline_with(input).await;
    let before = server.peak_memory();
    let job = server.run(&pipeline).await;

    // One subscriber that reads nothing, one that reads from the end on, and one that reads it all over HTTP.
    let mut idle = server.client().await;
    let query = "subscription($id: ID!) { jobLogs(jobId: $id) { lines { sequence text timestamp } complete } }";
    idle.begin(query, json!({ "id": job })).await.expect("a subscription");
    let mut live = server.client().await;
    let query = "subscription($id: ID!, $from: Int!) { jobLogs(jobId: $id, sequence: $from) { lines { text } nextSequence complete } }";
    let from = count - 50_000;
    let logs = live.begin(query, json!({ "id": job, "from": from })).await.expect("a subscription");
    let mut seen = 0;
    loop {
        let event = tokio::time::timeout(std::time::Duration::from_secs(600), live.next_data(&logs));
        let Some(event) = event.await.expect("in time").expect("an event") else { break };
        let lines = event["jobLogs"]["lines"].as_array().expect("lines");
        assert!(lines.iter().all(|it| it["text"] == line));
        seen += lines.len();
        assert_eq!(event["jobLogs"]["nextSequence"], from + seen);
    }
    assert_eq!(seen, 50_000);
    assert_eq!(server.job(&job).await["status"], "COMPLETE");
    let printed = server.peak_memory() - before;
    assert!(printed < FLAT, "{printed} KiB while the job printed");

    let mut response = server.http().get(server.url(&format!("/jobs/{job}/logs"))).send().await.expect("an answer");
    let mut bytes = 0;
    while let Some(chunk) = response.chunk().await.expect("a chunk") {
        bytes += chunk.len();
    }
    assert_eq!(bytes, count * 80);
    let read = server.peak_memory() - before;
    assert!(read < FLAT, "{read} KiB when all of it was read");
    eprintln!("{count} lines: {printed} KiB more while they were printed, {read} when they were read");
    drop(idle);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_pauses_misses_nothing() {
    let server = TestServer::start();
    let job = server.run_script("seq 0 199999").await;
    let mut client = server.client().await;
    let query = "subscription($id: ID!) { jobLogs(jobId: $id) { lines { sequence text } nextSequence complete } }";
    let logs = client.begin(query, json!({ "id": job })).await.expect("a subscription");
    // It reads on only when the job is over and far more was printed than any buffer on the way holds.
    server.final_job(&job).await;
    let mut next = 0;
    while let Some(event) = within(client.next_data(&logs)).await.expect("an event") {
        for line in event["jobLogs"]["lines"].as_array().expect("lines") {
            assert_eq!((&line["sequence"], text(&line["text"])), (&json!(next), next.to_string().as_str()));
            next += 1;
        }
    }
    assert_eq!(next, 200_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_stored_compressed() {
    let server = TestServer::start();
    let job = server.run_script("yes 'the same line again and again' | head -n 200000").await;
    server.final_job(&job).await;
    let database = server.data_directory().join("jobstream.db");
    let size = |suffix: &str| {
        std::fs::metadata(format!("{}{suffix}", database.display())).map_or(0, |metadata| metadata.len())
    };
    // 6 MB as they were printed.
    let stored = async || (size("") + size("-wal") < 3_000_000).then_some(());
    eventually("the log is small", stored).await;
    let chunks = "(SELECT 1 WHERE (SELECT sum(length(bytes)) FROM log_chunks) BETWEEN 1000 AND 1000000) AS small";
    assert_eq!(server.count_rows(chunks), 1);
}
