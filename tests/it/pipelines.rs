//! Pipelines: what may be in them, and how they change.

use std::fs;

use serde_json::{Value, json};

use crate::support::{TestServer, text, wait_for};

const UNKNOWN: &str = "3f2b8c1e-6f0a-4c5e-9d3b-2a7f1e4c5d6b";
const FIELDS: &str = "id name status created lastModified schedule timeout maxRetries script dataComponents actions \
                      properties { name value sensitive } triggeredBy workspace { id }";
const ALL_FIELDS: [&str; 9] = [
    "input.actions.0",
    "input.dataComponents.1",
    "input.maxRetries",
    "input.name",
    "input.properties.0.name",
    "input.schedule",
    "input.script",
    "input.timeout",
    "input.triggeredBy.0",
];

async fn read(server: &TestServer, pipeline: &str) -> Value {
    let query = format!("query($id: ID!) {{ pipeline(id: $id) {{ {FIELDS} }} }}");
    server.data(&query, json!({ "id": pipeline })).await["pipeline"].take()
}

/// A workspace and a pipeline in it, on a server that runs nothing.
async fn idle() -> (TestServer, String, String) {
    let server = TestServer::with_plugins(&["--slots", "0"]);
    let created = server.change("createWorkspace", json!({ "name": "Workspace" }), "workspace { id }").await;
    let workspace = text(&created["workspace"]["id"]).to_owned();
    let pipeline = create(&server, &workspace, "Pipeline").await;
    (server, workspace, pipeline)
}

async fn create(server: &TestServer, workspace: &str, name: &str) -> String {
    let input = json!({ "workspaceId": workspace, "name": name, "script": "true" });
    text(&server.change("createPipeline", input, "pipeline { id }").await["pipeline"]["id"]).to_owned()
}

/// An input in which every field is wrong.
fn all_wrong() -> Value {
    json!({
        "name": "a/b", "schedule": "* * * * *", "timeout": -1, "maxRetries": 101, "script": "\0",
        "dataComponents": ["tap-x", "a b"], "actions": ["a:b:c"], "properties": [{ "name": "tap", "value": "" }],
        "triggeredBy": ["Nobody"]
    })
}

fn with(mut input: Value, fields: Value) -> Value {
    let fields = fields.as_object().expect("an object").clone();
    input.as_object_mut().expect("an object").extend(fields);
    input
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_is_created_with_every_field() {
    let (server, workspace, _) = idle().await;
    let fields = json!({
        "name": "Daily report", "schedule": "0 0 9-17 * * MON-FRI", "timeout": 60, "maxRetries": 2, "script": "true",
        "dataComponents": ["tap-x", "target-y"], "actions": ["tap-x", "dbt:run"],
        "properties": [
            { "name": "tap-x.key", "value": "plain", "sensitive": false },
            { "name": "tap-x._select", "value": "[\"*.*\"]", "sensitive": false },
            { "name": "tap-x._metadata", "value": "{}", "sensitive": false },
        ],
        "triggeredBy": ["Pipeline"]
    });
    let selection = format!("pipeline {{ {FIELDS} }} job {{ type status attempt maxAttempts pipeline {{ name }} }}");
    let input = with(fields.clone(), json!({ "workspaceId": workspace }));
    let created = server.change("createPipeline", input, &selection).await;
    let pipeline = &created["pipeline"];
    for (name, value) in fields.as_object().expect("an object") {
        assert_eq!(&pipeline[name], value, "{name}");
    }
    assert_eq!((&pipeline["status"], &pipeline["workspace"]["id"]), (&json!("PROVISIONING"), &json!(workspace)));
    assert_eq!(pipeline["created"], pipeline["lastModified"]);
    let job = json!({
        "type": "PIPELINE_CONFIG", "status": "QUEUED", "attempt": 1, "maxAttempts": 3,
        "pipeline": { "name": "Daily report" }
    });
    assert_eq!(created["job"], job);
    assert_eq!(&read(&server, text(&pipeline["id"])).await, pipeline);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_out_of_a_new_pipeline_is_the_default() {
    let (server, workspace, _) = idle().await;
    let input = json!({ "workspaceId": workspace, "name": "Bare" });
    let pipeline = server.change("createPipeline", input, &format!("pipeline {{ {FIELDS} }}")).await["pipeline"].take();
    for name in ["schedule", "script"] {
        assert_eq!(pipeline[name], Value::Null, "{name}");
    }
    for name in ["timeout", "maxRetries"] {
        assert_eq!(pipeline[name], 0, "{name}");
    }
    for name in ["dataComponents", "actions", "properties", "triggeredBy"] {
        assert_eq!(pipeline[name], json!([]), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_pipeline_completes_the_import_task() {
    let server = TestServer::with(&["--slots", "0"]);
    let created = server.change("createWorkspace", json!({ "name": "W" }), "workspace { id } jobs { id type }").await;
    let workspace = text(&created["workspace"]["id"]);
    let task = created["jobs"].as_array().expect("jobs").iter().find(|it| it["type"] == "PROFILE_IMPORT");
    let task = text(&task.expect("the task")["id"]);
    let wrong = with(all_wrong(), json!({ "workspaceId": workspace }));
    server.refused("createPipeline", wrong).await;
    assert_eq!(server.job(task).await["status"], "QUEUED");
    let pipeline = create(&server, workspace, "First").await;
    let done = server.job(task).await;
    assert_eq!(done["status"], "COMPLETE");
    assert_eq!((&done["startTime"], &done["exitCode"]), (&Value::Null, &Value::Null));
    assert_eq!(done["endTime"], read(&server, &pipeline).await["created"]);
    create(&server, workspace, "Second").await;
    assert_eq!(server.job(task).await, done);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_problems_are_reported_at_once() {
    let (server, workspace, pipeline) = idle().await;
    let create = with(all_wrong(), json!({ "workspaceId": workspace }));
    assert_eq!(server.refused("createPipeline", create).await.paths(), ALL_FIELDS);
    let before = read(&server, &pipeline).await;
    let update = with(all_wrong(), json!({ "id": pipeline }));
    assert_eq!(server.refused("updatePipeline", update).await.paths(), ALL_FIELDS);
    assert_eq!(read(&server, &pipeline).await, before);

    // What is in a workspace that cannot be named cannot be checked.
    let without_triggers = || with(all_wrong(), json!({ "triggeredBy": [] }));
    let create = with(without_triggers(), json!({ "workspaceId": "7" }));
    let mut expected = ALL_FIELDS[..8].to_vec();
    expected.push("input.workspaceId");
    assert_eq!(server.refused("createPipeline", create).await.paths(), expected);
    let update = json!({ "id": pipeline, "name": null, "timeout": -1 });
    assert_eq!(server.refused("updatePipeline", update).await.paths(), ["input.name", "input.timeout"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_field_has_its_bounds() {
    let (server, _, pipeline) = idle().await;
    let long = |length: usize| "x".repeat(length);
    let property = |name: &str, value: &str| json!([{ "name": name, "value": value }]);
    let many = |n: usize| vec!["tap-x"; n];
    let right = [
        ("name", json!(long(100))),
        ("name", json!("Ärger & Söhne (2)")),
        ("schedule", json!("*/10 * * * * *")),
        ("timeout", json!(7 * 24 * 60 * 60)),
        ("maxRetries", json!(100)),
        ("script", json!(long(100 * 1024))),
        ("dataComponents", json!(many(200))),
        ("actions", json!(["tap-x", "dbt:run", "dbt:a_b.c"])),
        ("properties", property("a.b.c", &long(64 * 1024))),
        ("properties", property("tap-x._select", "[]")),
    ];
    for (field, value) in right {
        let updated = server.change("updatePipeline", json!({ "id": pipeline, field: value }), "__typename").await;
        assert_eq!(updated["__typename"], "UpdatePipelinePayload");
    }
    let wrong = [
        ("name", json!(long(101)), "name"),
        ("name", json!(""), "name"),
        ("name", json!(" a"), "name"),
        ("name", json!(".."), "name"),
        ("name", json!("a\\b"), "name"),
        ("name", json!("a\nb"), "name"),
        ("name", Value::Null, "name"),
        ("schedule", json!(""), "schedule"),
        ("schedule", json!("60 * * * * *"), "schedule"),
        ("schedule", json!("every day"), "schedule"),
        ("timeout", json!(7 * 24 * 60 * 60 + 1), "timeout"),
        ("timeout", json!(-1), "timeout"),
        ("maxRetries", json!(-1), "maxRetries"),
        ("script", json!(long(100 * 1024 + 1)), "script"),
        ("dataComponents", json!(many(201)), "dataComponents"),
        ("dataComponents", json!([""]), "dataComponents.0"),
        ("dataComponents", json!(["tap-x", "-tap"]), "dataComponents.1"),
        ("dataComponents", json!(["tap-x", "tap-unknown"]), "dataComponents.1"),
        ("actions", json!(["tap-x", "unknown:run"]), "actions.1"),
        ("actions", json!([long(129)]), "actions.0"),
        ("actions", json!(["tap:"]), "actions.0"),
        ("actions", json!(["$(reboot)"]), "actions.0"),
        ("properties", property("tap.", ""), "properties.0.name"),
        ("properties", property(".key", ""), "properties.0.name"),
        ("properties", property("tap.a=b", ""), "properties.0.name"),
        ("properties", property("jobstream.token", ""), "properties.0.name"),
        ("properties", property("tap.key", &long(64 * 1024 + 1)), "properties.0.value"),
        ("properties", property("tap.key", "\0"), "properties.0.value"),
        ("properties", property("tap._select", "{}"), "properties.0.value"),
        ("properties", property("tap._metadata", "[]"), "properties.0.value"),
        ("triggeredBy", json!(["Pipeline"]), "triggeredBy.0"),
        ("triggeredBy", json!([long(100)]), "triggeredBy.0"),
    ];
    let rename = json!({ "id": pipeline, "name": "Pipeline" });
    server.change("updatePipeline", rename, "__typename").await;
    for (field, value, path) in wrong {
        let refused = server.refused("updatePipeline", json!({ "id": pipeline, field: value })).await;
        assert_eq!(refused.paths(), [format!("input.{path}")], "{field}: {value}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_properties_cannot_become_one_variable() {
    let (server, workspace, _) = idle().await;
    let properties = json!([{ "name": "tap.a-b", "value": "1" }, { "name": "tap.a_b", "value": "2" }]);
    let input = json!({ "workspaceId": workspace, "name": "Two", "properties": properties });
    assert_eq!(server.refused("createPipeline", input).await.paths(), ["input.properties.1.name"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_name_is_taken_in_its_workspace_until_it_is_changed_or_deleted() {
    let (server, workspace, first) = idle().await;
    let second = create(&server, &workspace, "Second").await;
    let take = |name: &str| json!({ "workspaceId": workspace, "name": name });
    assert_eq!(server.refused("createPipeline", take("Pipeline")).await.code, "CONFLICT");
    let rename = |id: &str, name: &str| json!({ "id": id, "name": name });
    assert_eq!(server.refused("updatePipeline", rename(&second, "Pipeline")).await.code, "CONFLICT");
    let other = server.change("createWorkspace", json!({ "name": "Other" }), "workspace { id }").await;
    create(&server, text(&other["workspace"]["id"]), "Pipeline").await;

    server.change("updatePipeline", rename(&first, "First"), "__typename").await;
    create(&server, &workspace, "Pipeline").await;
    let deleted = server.change("deletePipeline", json!({ "id": first }), "deletedPipelineId").await;
    assert_eq!(deleted["deletedPipelineId"], *first);
    create(&server, &workspace, "First").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_leaves_what_is_left_out_resets_what_is_null_and_replaces_lists() {
    let (server, workspace, _) = idle().await;
    let fields = json!({
        "name": "Full", "schedule": "0 0 0 * * *", "timeout": 60, "maxRetries": 2, "script": "true",
        "dataComponents": ["tap-x", "target-y"], "actions": ["tap-x", "target-y"], "triggeredBy": ["Pipeline"],
        "properties": [{ "name": "a.b", "value": "c", "sensitive": false }]
    });
    let created =
        server.change("createPipeline", with(fields.clone(), json!({ "workspaceId": workspace })), "pipeline { id }");
    let pipeline = text(&created.await["pipeline"]["id"]).to_owned();
    let selection = format!("pipeline {{ {FIELDS} }} job {{ id }}");

    let before = read(&server, &pipeline).await;
    let mut same = server.change("updatePipeline", json!({ "id": pipeline }), &selection).await;
    assert_eq!(same["job"], Value::Null);
    assert!(text(&same["pipeline"]["lastModified"]) > text(&before["lastModified"]));
    same["pipeline"]["lastModified"] = before["lastModified"].clone();
    assert_eq!(same["pipeline"], before);

    let lists = json!({
        "id": pipeline, "dataComponents": ["dbt"], "actions": [], "triggeredBy": [],
        "properties": [{ "name": "d.e", "value": "f" }]
    });
    let updated = server.change("updatePipeline", lists, &selection).await["pipeline"].take();
    assert_eq!((&updated["dataComponents"], &updated["actions"]), (&json!(["dbt"]), &json!([])));
    assert_eq!(updated["properties"], json!([{ "name": "d.e", "value": "f", "sensitive": false }]));
    assert_eq!((&updated["triggeredBy"], &updated["timeout"]), (&json!([]), &json!(60)));

    let nulls: Value = fields
        .as_object()
        .expect("an object")
        .keys()
        .filter(|it| *it != "name")
        .map(|it| (it.clone(), Value::Null))
        .collect();
    let reset =
        server.change("updatePipeline", with(nulls, json!({ "id": pipeline })), &selection).await["pipeline"].take();
    let bare = server.change("createPipeline", json!({ "workspaceId": workspace, "name": "Bare" }), &selection).await["pipeline"].take();
    for name in fields.as_object().expect("an object").keys().filter(|it| *it != "name") {
        assert_eq!(reset[name], bare[name], "{name}");
    }
    assert_eq!(read(&server, &pipeline).await, reset);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_can_be_updated_after_its_trigger_is_gone() {
    let (server, workspace, trigger) = idle().await;
    let input = json!({ "workspaceId": workspace, "name": "Second", "triggeredBy": ["Pipeline"] });
    let created = server.change("createPipeline", input, "pipeline { id }").await;
    let pipeline = text(&created["pipeline"]["id"]);
    server.change("deletePipeline", json!({ "id": trigger }), "__typename").await;
    server.change("updatePipeline", json!({ "id": pipeline, "timeout": 5 }), "__typename").await;
    let after = read(&server, pipeline).await;
    assert_eq!((&after["timeout"], &after["triggeredBy"]), (&json!(5), &json!([])));
    let itself = json!({ "id": pipeline, "name": "Pipeline", "triggeredBy": ["Pipeline"] });
    assert_eq!(server.refused("updatePipeline", itself).await.paths(), ["input.triggeredBy.0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sensitive_value_is_given_to_the_job_and_to_nobody_else() {
    let secret = "correct horse battery staple";
    let server = TestServer::with(&["--log", "debug"]);
    let workspace = server.workspace("W").await;
    let properties = json!([{ "name": "tap-x.some-key", "value": secret, "sensitive": true }]);
    let script = "[ \"$TAP_X_SOME_KEY\" = 'correct horse'' battery staple' ]";
    let input = json!({ "workspaceId": workspace, "name": "P", "script": script, "properties": properties });
    let pipeline = server.pipeline_with(input).await;
    let hidden = json!([{ "name": "tap-x.some-key", "value": null, "sensitive": true }]);
    assert_eq!(read(&server, &pipeline).await["properties"], hidden);
    let update = json!({ "id": pipeline, "timeout": 9 });
    let updated = server.change("updatePipeline", update, "pipeline { properties { name value sensitive } }").await;
    assert_eq!(updated["pipeline"]["properties"], hidden);

    let run = server.run(&pipeline).await;
    assert_eq!(server.final_job(&run).await["status"], "COMPLETE", "the job has the value");
    let verify = server.change("verifyPipeline", json!({ "id": pipeline }), "job { id }").await;
    let verify = text(&verify["job"]["id"]).to_owned();
    assert_eq!(server.final_job(&verify).await["status"], "COMPLETE");
    let jobs = server.data("{ jobs { nodes { id } } }", json!({})).await;
    for job in jobs["jobs"]["nodes"].as_array().expect("jobs") {
        assert!(!server.log_text(text(&job["id"])).await.contains(secret));
    }
    let wrong = json!([{ "name": "tap-x._select", "value": secret, "sensitive": true }]);
    let refused = server.mutate("updatePipeline", json!({ "id": pipeline, "properties": wrong }), "__typename").await;
    assert!(!refused["errors"].is_null() && !refused.to_string().contains(secret), "{refused}");
    assert!(!server.log().contains(secret), "the server's own log");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_uses_the_definition_that_was_stored_when_it_was_queued() {
    let server = TestServer::with(&["--slots", "1"]);
    let workspace = server.workspace("W").await;
    let input = json!({
        "workspaceId": workspace, "name": "P", "script": "echo old $TAP_KEY", "maxRetries": 3,
        "properties": [{ "name": "tap.key", "value": "one" }]
    });
    let pipeline = server.pipeline_with(input).await;
    let go = server.scratch().join("go");
    let blocker = server.pipeline(&workspace, "Blocker", &wait_for(&go)).await;
    let blocking = server.run(&blocker).await;
    server.job_is(&blocking, "RUNNING").await;
    let queued = server.run(&pipeline).await;
    let update = json!({
        "id": pipeline, "script": "echo new $TAP_KEY", "maxRetries": 0, "properties": [{ "name": "tap.key", "value": "two" }]
    });
    server.change("updatePipeline", update.clone(), "__typename").await;
    server.change("updatePipeline", update, "__typename").await;
    fs::write(&go, "").expect("a file");
    let done = server.final_job(&queued).await;
    assert_eq!((server.log_text(&queued).await.as_str(), &done["maxAttempts"]), ("old one\n", &json!(4)));
    let next = server.run(&pipeline).await;
    let done = server.final_job(&next).await;
    assert_eq!((server.log_text(&next).await.as_str(), &done["maxAttempts"]), ("new two\n", &json!(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn verification_shows_the_definition_and_checks_the_script() {
    let server = TestServer::start();
    let workspace = server.workspace("W").await;
    let pipeline = server.pipeline(&workspace, "P", "echo never run").await;
    let verify = async |status: &str, code: i32| {
        let job = server.change("verifyPipeline", json!({ "id": pipeline }), "job { id type }").await["job"].take();
        assert_eq!(job["type"], "PIPELINE_VERIFY");
        let done = server.final_job(text(&job["id"])).await;
        let log = server.log_text(text(&job["id"])).await;
        assert_eq!((&done["status"], &done["exitCode"]), (&json!(status), &json!(code)), "{log}");
        log
    };
    let log = verify("COMPLETE", 0).await;
    assert!(log.contains("inline_script: echo never run") && !log.contains("\nnever run"), "{log}");
    server.change("updatePipeline", json!({ "id": pipeline, "script": "if true; then" }), "__typename").await;
    let log = verify("ERROR", 1).await;
    assert!(log.contains("syntax error"), "{log}");
    server.change("updatePipeline", json!({ "id": pipeline, "script": null }), "__typename").await;
    verify("ERROR", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_pipeline_is_gone_at_once_with_its_jobs() {
    let (server, workspace, pipeline) = idle().await;
    let run = server.run(&pipeline).await;
    server.change("deletePipeline", json!({ "id": pipeline }), "__typename").await;
    assert_eq!(read(&server, &pipeline).await, Value::Null);
    assert_eq!(server.job(&run).await, Value::Null);
    let query =
        "query($id: ID!) { pipelines(workspaceId: $id) { totalCount } jobs(workspaceId: $id) { nodes { type } } }";
    let left = server.data(query, json!({ "id": workspace })).await;
    assert_eq!(left["pipelines"]["totalCount"], 0);
    let mut types: Vec<&str> =
        left["jobs"]["nodes"].as_array().expect("jobs").iter().map(|it| text(&it["type"])).collect();
    types.sort_unstable();
    assert_eq!(types, ["PROFILE_COLLABORATE", "PROFILE_IMPORT", "WORKSPACE_INIT"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mutation_on_an_unknown_pipeline_is_not_found() {
    let (server, _, pipeline) = idle().await;
    server.change("deletePipeline", json!({ "id": pipeline }), "__typename").await;
    for id in [UNKNOWN, &pipeline] {
        for mutation in ["updatePipeline", "deletePipeline", "verifyPipeline"] {
            assert_eq!(server.refused(mutation, json!({ "id": id })).await.code, "NOT_FOUND", "{mutation}");
        }
        assert_eq!(server.refused("createJob", json!({ "pipelineId": id })).await.code, "NOT_FOUND");
    }
    for mutation in ["updatePipeline", "deletePipeline", "verifyPipeline"] {
        assert_eq!(server.refused(mutation, json!({ "id": "x" })).await.paths(), ["input.id"], "{mutation}");
    }
    assert_eq!(server.refused("createJob", json!({ "pipelineId": "x" })).await.paths(), ["input.pipelineId"]);
}
