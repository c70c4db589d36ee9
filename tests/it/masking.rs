//! Sensitive values do not reach a log, whatever they are cut up by.

use serde_json::json;

use crate::support::{TestServer, text, wait_for};

/// Runs a script whose property `demo.secret` is this, and answers its log.
async fn log_of(server: &TestServer, name: &str, secret: &str, script: &str) -> String {
    let workspace = server.workspace(name).await;
    let properties = json!([{ "name": "demo.secret", "value": secret, "sensitive": true }]);
    let input = json!({ "workspaceId": workspace, "name": "P", "script": script, "properties": properties });
    let pipeline = server.pipeline_with(input).await;
    let run = server.run(&pipeline).await;
    server.final_job(&run).await;
    server.log_text(&run).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_is_masked_on_both_streams_wherever_it_stands() {
    let server = TestServer::start();
    let script = r#"echo "a $DEMO_SECRET b"; echo "$DEMO_SECRET$DEMO_SECRET" >&2; printf 'no line: %s' "$DEMO_SECRET""#;
    let log = log_of(&server, "W", "hunter2", script).await;
    let mut lines: Vec<&str> = log.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["******", "a *** b", "no line: ***"]);
    let log = log_of(&server, "X", "abc", "echo $DEMO_SECRET").await;
    assert_eq!(log, "abc\n", "three bytes occur in everything");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_is_masked_that_comes_byte_by_byte_and_with_pauses() {
    let server = TestServer::start();
    let script = r#"printf 'byte by byte: '; for ((i = 0; i < ${#DEMO_SECRET}; i++)); do printf %s "${DEMO_SECRET:i:1}"; sleep 0.02; done; echo
        printf 'with a pause: %s' "${DEMO_SECRET:0:4}"; sleep 1.6; echo "${DEMO_SECRET:4}"
        printf 'the beginning of it: %s' "${DEMO_SECRET:0:4}"; sleep 1.6; echo ', and no more'"#;
    let log = log_of(&server, "W", "correct horse", script).await;
    assert_eq!(log, "byte by byte: ***\nwith a pause: ***\nthe beginning of it: corr, and no more\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_is_masked_across_the_pieces_of_a_long_line() {
    let server = TestServer::start();
    // The value begins before the 64 KiB at which a piece ends, and ends after them.
    let script = r#"printf '%065530d' 0; printf %s "$DEMO_SECRET"; printf '%070000d\n' 0"#;
    let log = log_of(&server, "W", "correct horse", script).await;
    assert!(!log.contains("correct") && !log.contains("horse") && log.contains("0***0"), "{} bytes", log.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_of_several_lines_is_masked_whole_and_line_by_line() {
    let server = TestServer::start();
    let secret = "-----BEGIN KEY-----\nMIIEvQIBADANBg\n-----END KEY-----\n";
    let script = r#"printf %s "$DEMO_SECRET"; echo; printf %s "$DEMO_SECRET" | sed 's/^/log: /'"#;
    let log = log_of(&server, "W", secret, script).await;
    assert_eq!(log, "***\n\nlog: ***\nlog: ***\nlog: ***\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_beginning_of_a_value_is_held_back_where_a_piece_is_due() {
    let server = TestServer::start();
    let workspace = server.workspace("W").await;
    let gate = server.scratch().join("gate");
    // What comes on standard error later is due later.
    let script = format!(
        r#"printf 'it begins: %s' "${{DEMO_SECRET:0:4}}"; sleep 0.1; printf later >&2; {}; echo "${{DEMO_SECRET:4}}"; echo >&2"#,
        wait_for(&gate)
    );
    let properties = json!([{ "name": "demo.secret", "value": "correct horse", "sensitive": true }]);
    let input = json!({ "workspaceId": workspace, "name": "P", "script": script, "properties": properties });
    let job = server.run(&server.pipeline_with(input).await).await;
    server.line_appears(&job, "later").await;
    server.line_appears(&job, "it begins: ").await;
    std::fs::write(&gate, "").expect("the gate");
    let lines = server.log_lines(&job).await;
    let stdout: Vec<&str> = lines.iter().filter(|it| it["stream"] == "STDOUT").map(|it| text(&it["text"])).collect();
    assert_eq!(stdout, ["it begins: ", "***"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_are_masked_badly_are_warned_of_and_never_shown() {
    let server = TestServer::with_plugins(&[]);
    let workspace = server.workspace("W").await;
    let property = |name: &str, value: &str| json!({ "name": name, "value": value, "sensitive": true });
    let values = ["abc", "true", "data", "2026", "correct horse battery", "", "line one 1\nfalse", "x7$Kq9!zL"];
    let mut properties: Vec<_> =
        values.iter().enumerate().map(|(index, value)| property(&format!("demo.s{index}"), value)).collect();
    properties.push(json!({ "name": "demo.plain", "value": "true" }));
    let input = json!({ "workspaceId": workspace, "name": "P", "script": "true", "properties": properties });
    let created = server.change("createPipeline", input, "pipeline { id } warnings { path message }").await;
    let warnings = created["warnings"].as_array().expect("warnings");
    let paths: Vec<&str> = warnings.iter().map(|it| text(&it["path"])).collect();
    let expected = [0, 1, 2, 3, 6].map(|index| format!("input.properties.{index}.value"));
    assert_eq!(paths, expected);
    let messages: Vec<&str> = warnings.iter().map(|it| text(&it["message"])).collect();
    assert!(messages[0].contains("not masked") && messages[1].contains("unrelated text"), "{messages:?}");
    assert!(values.iter().filter(|it| it.len() >= 4).all(|it| !messages.concat().contains(it)), "{messages:?}");

    let id = &created["pipeline"]["id"];
    let same = server.change("updatePipeline", json!({ "id": id, "timeout": 5 }), "warnings { path }").await;
    assert_eq!(same["warnings"], json!([]), "what is sealed is not looked at again");
    let input = json!({ "id": id, "properties": [property("demo.s", "password")] });
    let updated = server.change("updatePipeline", input, "warnings { path }").await;
    assert_eq!(updated["warnings"], json!([{ "path": "input.properties.0.value" }]));

    // The plugin says that its password is sensitive.
    let weak = json!([{ "name": "password", "value": "1234567" }]);
    let input = json!({ "workspaceId": workspace, "name": "source", "plugin": "tap-x", "properties": weak });
    let created = server.change("createDataComponent", input, "dataComponent { id } warnings { path }").await;
    assert_eq!(created["warnings"], json!([{ "path": "input.properties.0.value" }]));
    let input = json!({ "id": created["dataComponent"]["id"], "properties": weak });
    let updated = server.change("updateDataComponent", input, "warnings { path }").await;
    assert_eq!(updated["warnings"], json!([{ "path": "input.properties.0.value" }]));
}
