//! Data plugins and data components: what there is, what it may be set to, and what nobody reads again.

use serde_json::{Value, json};

use crate::support::{TestServer, text, wait_for};

const FIELDS: &str = "id name plugin { name } properties { name value sensitive } workspace { id }";

async fn workspace(server: &TestServer) -> String {
    text(&server.change("createWorkspace", json!({ "name": "W" }), "workspace { id }").await["workspace"]["id"])
        .to_owned()
}

fn tap(workspace: &str, name: &str, properties: Value) -> Value {
    json!({ "workspaceId": workspace, "name": name, "plugin": "tap-x", "properties": properties })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalogue_has_what_comes_with_the_server_and_what_its_operator_has_added() {
    let server = TestServer::with_plugins(&["--slots", "0"]);
    let query = "query($type: [PluginType!]) { dataPlugins(type: $type) { name type label pipUrl requiredSettings \
                 settings { name kind sensitive options default } } }";
    let all = server.data(query, json!({})).await["dataPlugins"].take();
    let names: Vec<&str> = all.as_array().expect("plugins").iter().map(|it| text(&it["name"])).collect();
    assert_eq!(names, ["dbt", "tap-spreadsheets", "tap-x", "target-csv", "target-jsonl", "target-y"]);
    let spreadsheets = &all[1];
    assert_eq!(spreadsheets["pipUrl"], "tap-spreadsheets==1.1.2");
    assert_eq!(spreadsheets["requiredSettings"], json!([["files"]]));
    let settings = all[2]["settings"].as_array().expect("settings");
    let password = settings.iter().find(|it| it["name"] == "password").expect("the setting");
    assert_eq!((&password["sensitive"], &password["kind"]), (&json!(true), &json!("STRING")));
    let loaders = server.data(query, json!({ "type": ["LOADER"] })).await["dataPlugins"].take();
    assert!(loaders.as_array().expect("plugins").iter().all(|it| it["type"] == "LOADER"), "{loaders}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_that_is_none_keeps_the_server_from_starting() {
    let directory = tempfile::tempdir().expect("a directory");
    let plugins = directory.path().join("data/plugins");
    std::fs::create_dir_all(&plugins).expect("a directory");
    std::fs::write(plugins.join("wrong.yml"), "name: wrong\nplugin_type: extractors\n").expect("a file");
    let output = TestServer::command(directory.path()).args(["--listen", "127.0.0.1:0"]).output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("wrong.yml") && said.contains("pip_url"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_is_created_changed_listed_and_deleted() {
    let server = TestServer::with_plugins(&["--slots", "0"]);
    let workspace = workspace(&server).await;
    let properties = json!([{ "name": "records", "value": "7" }, { "name": "password", "value": "a secret" }]);
    let input = tap(&workspace, "source", properties);
    let created = server.change("createDataComponent", input, &format!("dataComponent {{ {FIELDS} }}")).await;
    let component = &created["dataComponent"];
    let expected = json!([
        { "name": "records", "value": "7", "sensitive": false },
        { "name": "password", "value": null, "sensitive": true },
    ]);
    assert_eq!((&component["plugin"]["name"], &component["properties"]), (&json!("tap-x"), &expected));
    let query = format!(
        "query($id: ID!, $workspace: ID!) {{ dataComponent(id: $id) {{ {FIELDS} }} node(id: $id) {{ __typename id }} \
         workspace(id: $workspace) {{ dataComponents {{ totalCount nodes {{ {FIELDS} }} }} }} }}"
    );
    let read = server.data(&query, json!({ "id": component["id"], "workspace": workspace })).await;
    assert_eq!(&read["dataComponent"], component);
    assert_eq!(read["node"]["__typename"], "DataComponent");
    assert_eq!(read["workspace"]["dataComponents"], json!({ "totalCount": 1, "nodes": [component] }));

    let update = json!({ "id": component["id"], "properties": [{ "name": "records", "value": "8" }] });
    let updated = server.change("updateDataComponent", update, "dataComponent { properties { value } }").await;
    assert_eq!(updated["dataComponent"]["properties"], json!([{ "value": "8" }]));

    let pipeline = json!({ "workspaceId": workspace, "name": "P", "script": "true", "dataComponents": ["source"] });
    let pipeline = server.change("createPipeline", pipeline, "pipeline { id }").await["pipeline"]["id"].take();
    let id = json!({ "id": component["id"] });
    assert_eq!(server.refused("deleteDataComponent", id.clone()).await.code, "CONFLICT");
    server.change("deletePipeline", json!({ "id": pipeline }), "__typename").await;
    let deleted = server.change("deleteDataComponent", id.clone(), "deletedDataComponentId").await;
    assert_eq!(deleted["deletedDataComponentId"], component["id"]);
    for mutation in ["updateDataComponent", "deleteDataComponent"] {
        assert_eq!(server.refused(mutation, id.clone()).await.code, "NOT_FOUND");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_stays_for_as_long_as_a_run_needs_it() {
    let Some(server) = TestServer::with_meltano(&[]) else { return };
    let workspace = server.workspace("W").await;
    let properties = json!([{ "name": "key", "value": "there" }]);
    let created =
        server.change("createDataComponent", tap(&workspace, "source", properties), "dataComponent { id }").await;
    let component = json!({ "id": created["dataComponent"]["id"] });
    let go = server.scratch().join("go");
    let script = format!("{}\n[ \"$JOBSTREAM_ATTEMPT\" = 2 ] && echo \"$SOURCE_KEY\"", wait_for(&go));
    let input = json!({
        "workspaceId": workspace, "name": "P", "dataComponents": ["source"], "script": script, "maxRetries": 1,
    });
    let pipeline = server.pipeline_with(input).await;
    let run = server.run(&pipeline).await;
    server.change("updatePipeline", json!({ "id": pipeline, "dataComponents": [] }), "__typename").await;
    assert_eq!(server.refused("deleteDataComponent", component.clone()).await.code, "CONFLICT", "its try may fail");
    std::fs::write(go, "").expect("a file");
    assert_eq!(server.final_job(&run).await["status"], "COMPLETE", "{}", server.log_text(&run).await);
    assert!(server.log_text(&run).await.contains("there"));
    server.change("deleteDataComponent", component, "__typename").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_checked_against_the_plugin() {
    let server = TestServer::with_plugins(&["--slots", "0"]);
    let workspace = workspace(&server).await;
    let wrong = json!([
        { "name": "records", "value": "many" },
        { "name": "nonsense", "value": "1" },
        { "name": "behaviour", "value": "badly" },
        { "name": "_select", "value": "{}" },
    ]);
    let paths = ["0.value", "1.name", "2.value", "3.value"].map(|it| format!("input.properties.{it}"));
    assert_eq!(server.refused("createDataComponent", tap(&workspace, "x", wrong)).await.paths(), paths);
}

#[tokio::test(flavor = "multi_thread")]
async fn required_settings_and_names_are_checked() {
    let server = TestServer::with_plugins(&["--slots", "0"]);
    let workspace = workspace(&server).await;
    let input = |name: &str, plugin: &str| json!({ "workspaceId": workspace, "name": name, "plugin": plugin });
    // `files` has no default.
    let refused = server.refused("createDataComponent", input("sheets", "tap-spreadsheets")).await;
    assert_eq!(refused.paths(), ["input.properties"]);
    assert_eq!(
        server.refused("createDataComponent", input("a b", "nothing")).await.paths(),
        ["input.name", "input.plugin"]
    );
    let refused = server.refused("createDataComponent", input("target-y", "tap-x")).await;
    assert_eq!(refused.paths(), ["input.name"], "the name of another plugin");
    assert_eq!(server.refused("createDataComponent", input("meltano", "tap-x")).await.paths(), ["input.name"]);
    server.change("createDataComponent", input("tap-x", "tap-x"), "__typename").await;
    server.change("createDataComponent", input("my-source", "tap-x"), "__typename").await;
    for taken in ["my-source", "my_source", "MY-SOURCE"] {
        assert_eq!(server.refused("createDataComponent", input(taken, "tap-x")).await.code, "CONFLICT", "{taken}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_properties_of_a_pipeline_are_checked_against_what_it_uses() {
    let server = TestServer::with_plugins(&["--slots", "0"]);
    let workspace = workspace(&server).await;
    server.change("createDataComponent", tap(&workspace, "source", json!([])), "__typename").await;
    let pipeline = |name: &str, properties: Value| json!({ "workspaceId": workspace, "name": name, "dataComponents": ["source", "target-y"], "properties": properties });
    let wrong = json!([
        { "name": "source.records", "value": "many" },
        { "name": "source.nonsense", "value": "1" },
        { "name": "tap-x.records", "value": "1" },
    ]);
    let refused = server.refused("createPipeline", pipeline("P", wrong)).await;
    assert_eq!(refused.paths(), ["input.properties.0.value", "input.properties.1.name", "input.properties.2.name"]);
    let secret = json!([{ "name": "source.password", "value": "hunter2" }]);
    let created =
        server.change("createPipeline", pipeline("P", secret), "pipeline { properties { value sensitive } }").await;
    assert_eq!(
        created["pipeline"]["properties"],
        json!([{ "value": null, "sensitive": true }]),
        "by the plugin's word"
    );
    let missing = json!({ "workspaceId": workspace, "name": "Q", "dataComponents": ["tap-spreadsheets", "target-y"] });
    assert_eq!(server.refused("createPipeline", missing).await.paths(), ["input.properties"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sensitive_is_sealed_with_a_key_outside_of_the_database() {
    let secret = "correct horse battery staple";
    let server = TestServer::with_plugins(&[]);
    let workspace = server.workspace("W").await;
    let properties = json!([{ "name": "password", "value": secret }]);
    server.change("createDataComponent", tap(&workspace, "source", properties), "__typename").await;
    let properties = json!([{ "name": "demo.key", "value": secret, "sensitive": true }]);
    let script = "[ \"$DEMO_KEY\" = 'correct horse'' battery staple' ]";
    let input = json!({ "workspaceId": workspace, "name": "P", "script": script, "properties": properties });
    let pipeline = server.pipeline_with(input).await;
    assert_eq!(server.count_rows(&format!("data_components WHERE properties LIKE '%{secret}%'")), 0);
    assert_eq!(server.count_rows("data_components WHERE properties LIKE '%password%'"), 1);
    let mut server = server;
    server.terminate();
    server.ended().await;
    for name in ["jobstream.db", "jobstream.db-wal"] {
        let stored = std::fs::read(server.data_directory().join(name)).unwrap_or_default();
        assert!(!stored.windows(secret.len()).any(|it| it == secret.as_bytes()), "{name}");
    }
    let key = server.key();
    let other = key.with_extension("other");
    std::fs::rename(&key, &other).expect("the key");
    let refused = server.same_command().args(["--listen", "127.0.0.1:0"]).output().expect("it ends");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("--key-file"), "without the key: {said}");
    assert!(!key.exists(), "no other key is made");
    let server =
        server.kill_and_restart_with(&["--listen", "127.0.0.1:0", "--key-file", other.to_str().expect("UTF-8")]);
    let run = server.run(&pipeline).await;
    assert_eq!(server.final_job(&run).await["status"], "COMPLETE", "{}", server.log_text(&run).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_s_settings_reach_the_job_and_the_pipeline_s_go_over_them() {
    let Some(server) = TestServer::with_meltano(&[]) else { return };
    let workspace = server.workspace("W").await;
    let properties = json!([{ "name": "key", "value": "of the component" }, { "name": "some-key", "value": "stays" }]);
    server.change("createDataComponent", tap(&workspace, "source", properties), "__typename").await;
    let script = "echo \"$SOURCE_KEY, $SOURCE_SOME_KEY, $HTTP_PROXY\"; command -v meltano > /dev/null && echo \"$MELTANO_ENVIRONMENT\"";
    let input = json!({
        "workspaceId": workspace, "name": "P", "script": script, "dataComponents": ["source"],
        "properties": [{ "name": "source.key", "value": "of the pipeline" }, { "name": "http.proxy", "value": "too" }],
    });
    let pipeline = server.pipeline_with(input).await;
    let run = server.run(&pipeline).await;
    assert_eq!(server.final_job(&run).await["status"], "COMPLETE", "{}", server.log_text(&run).await);
    assert_eq!(server.log_text(&run).await, format!("of the pipeline, stays, too\n{pipeline}\n"));
}
