//! Names of workspaces, pipelines and data components; and line endings of scripts.

use serde_json::{Value, json};

use crate::support::{TestServer, on_postgres, text};

async fn conflict(server: &TestServer, mutation: &str, input: Value) -> String {
    let response = server.mutate(mutation, input, "__typename").await;
    assert_eq!(response["errors"][0]["extensions"]["code"], "CONFLICT", "{response}");
    text(&response["errors"][0]["message"]).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_stored_composed_and_is_unique_without_regard_to_case() {
    let server = TestServer::with(&["--slots", "0"]);
    let create = async |name: &str| {
        let created = server.change("createWorkspace", json!({ "name": name }), "workspace { id name }").await;
        created["workspace"].clone()
    };
    let cafe = create("Cafe\u{301}").await;
    assert_eq!(cafe["name"], "Caf\u{e9}");
    for same in ["Caf\u{e9}", "Cafe\u{301}", "CAF\u{c9}", "cafe\u{301}"] {
        let message = conflict(&server, "createWorkspace", json!({ "name": same })).await;
        assert!(message.contains("\"Caf\u{e9}\"") && !message.contains("u{"), "{message}");
    }
    create("Straße").await;
    conflict(&server, "createWorkspace", json!({ "name": "STRASSE" })).await;
    // Its own name, in another case.
    let renamed = json!({ "id": cafe["id"], "name": "CAFÉ" });
    let renamed = server.change("updateWorkspace", renamed, "workspace { name }").await;
    assert_eq!(renamed["workspace"]["name"], "CAFÉ");
    let taken = json!({ "id": cafe["id"], "name": "strasse" });
    assert!(conflict(&server, "updateWorkspace", taken).await.contains("\"Straße\""));

    let (one, other) = (text(&cafe["id"]).to_owned(), text(&create("Other").await["id"]).to_owned());
    let pipeline = |workspace: &str, name: &str| json!({ "workspaceId": workspace, "name": name, "script": "true" });
    let load = server.change("createPipeline", pipeline(&one, "Load"), "pipeline { id }").await;
    assert!(conflict(&server, "createPipeline", pipeline(&one, "load")).await.contains("\"Load\""));
    server.change("createPipeline", pipeline(&other, "load"), "pipeline { id }").await;
    let second = server.change("createPipeline", pipeline(&one, "Second"), "pipeline { id }").await;
    let update = json!({ "id": second["pipeline"]["id"], "name": "LOAD" });
    conflict(&server, "updatePipeline", update).await;
    let update = json!({ "id": load["pipeline"]["id"], "name": "LOAD" });
    server.change("updatePipeline", update, "pipeline { name }").await;
    // A deleted pipeline's name is free at once.
    server.delete("Pipeline", text(&load["pipeline"]["id"])).await;
    server.change("createPipeline", pipeline(&one, "loaD"), "pipeline { id }").await;

    let component = |name: &str| json!({ "workspaceId": one, "name": name, "plugin": "target-jsonl" });
    server.change("createDataComponent", component("Store"), "dataComponent { id }").await;
    assert!(conflict(&server, "createDataComponent", component("sTORE")).await.contains("\"Store\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clients_cannot_create_names_that_differ_in_case_at_the_same_time() {
    let server = TestServer::with(&["--slots", "0"]);
    for round in 0..10 {
        let names =
            [format!("Name {round}"), format!("NAME {round}"), format!("name {round}"), format!("nAME {round}")];
        let create = async |name: &String| {
            let response = server.mutate("createWorkspace", json!({ "name": name }), "workspace { id }").await;
            response["errors"].is_null()
        };
        let (a, b, c, d) = tokio::join!(create(&names[0]), create(&names[1]), create(&names[2]), create(&names[3]));
        assert_eq!([a, b, c, d].into_iter().filter(|it| *it).count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_is_named_in_the_case_that_it_is_stored_in() {
    let server = TestServer::with(&["--slots", "0"]);
    let workspace = server.begin_workspace("W").await["workspace"]["id"].clone();
    let source = json!({ "workspaceId": workspace, "name": "Cafe\u{301}", "script": "true" });
    server.begin_pipeline(source).await;
    let follower = |name: &str, wanted: &str| json!({ "workspaceId": workspace, "name": name, "script": "true", "triggeredBy": [wanted] });
    for (name, wanted) in [("One", "Caf\u{e9}"), ("Two", "Cafe\u{301}")] {
        let created = server.change("createPipeline", follower(name, wanted), "pipeline { triggeredBy }").await;
        assert_eq!(created["pipeline"]["triggeredBy"], json!(["Caf\u{e9}"]));
    }
    let refused = server.refused("createPipeline", follower("Three", "café\u{301}")).await;
    assert_eq!(refused.paths(), ["input.triggeredBy.0"]);
    let refused = server.refused("createPipeline", follower("Three", "CAFÉ")).await;
    assert!(
        text(&refused.extensions["problems"][0]["message"]).contains("There is one named \"Café\"."),
        "{refused:?}"
    );
    let refused = server.refused("createPipeline", follower("It\u{e9}", "ITe\u{301}")).await;
    assert_eq!(refused.paths(), ["input.triggeredBy.0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_an_earlier_version_that_differ_only_in_case_stay() {
    let mut server = TestServer::start();
    let workspace = server.workspace("W").await;
    let first = server.pipeline(&workspace, "Load", "echo first").await;
    let second = server.pipeline(&workspace, "Other", "echo second").await;
    server.workspace("Other").await;
    server.terminate();
    server.ended().await;
    // As the earlier version had it: without keys, and with names that this one would not take.
    let sql = "UPDATE pipelines SET name = 'load', name_key = NULL WHERE name = 'Other'; UPDATE pipelines SET name_key = NULL; \
               UPDATE workspaces SET name = 'w' || chr(8203), name_key = NULL WHERE name = 'Other'; UPDATE workspaces SET name_key = NULL;";
    match server.database() {
        Some(database) => database.execute(sql),
        None => {
            use diesel::Connection;
            use diesel::connection::SimpleConnection;
            let path = server.data_directory().join("jobstream.db");
            let mut sqlite = diesel::SqliteConnection::establish(path.to_str().expect("UTF-8")).expect("the database");
            sqlite.batch_execute(&sql.replace("chr(", "char(")).expect(sql);
        }
    }
    // The second time nothing is left to be done.
    for _ in 0..2 {
        server = server.restart();
        let input = |name: &str| json!({ "workspaceId": workspace, "name": name, "script": "true" });
        for name in ["LOAD", "load", "Load"] {
            conflict(&server, "createPipeline", input(name)).await;
        }
        for (pipeline, expected) in [(&first, "first"), (&second, "second")] {
            let update = json!({ "id": pipeline, "timeout": 100 });
            server.change("updatePipeline", update, "pipeline { id }").await;
            let run = server.run(pipeline).await;
            server.final_job(&run).await;
            assert_eq!(server.log_text(&run).await.trim(), expected);
        }
        server.terminate();
        server.ended().await;
    }
    server = server.restart();
    // The name of the first stays taken by the second when the first is gone.
    server.delete("Pipeline", &first).await;
    conflict(&server, "createPipeline", json!({ "workspaceId": workspace, "name": "LOAD", "script": "true" })).await;
    assert!(!on_postgres() || server.database().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_has_line_feeds_whatever_it_was_written_with() {
    let server = TestServer::start();
    let workspace = server.workspace("W").await;
    let script = "\u{feff}if true; then\r\n  echo 'a b'\r\nfi\r\nfor i in 1 2\rdo echo $i\rdone\r\n";
    let expected = "if true; then\n  echo 'a b'\nfi\nfor i in 1 2\ndo echo $i\ndone\n";
    let pipeline = server.pipeline(&workspace, "P", script).await;
    let stored = async || {
        let query = "query($id: ID!) { pipeline(id: $id) { script schedule } }";
        server.data(query, json!({ "id": pipeline })).await["pipeline"].clone()
    };
    assert_eq!(stored().await["script"], expected);
    let verified = server.final_job(&server.verify(&pipeline).await).await;
    assert_eq!(verified["status"], "COMPLETE");
    let run = server.run(&pipeline).await;
    assert_eq!(server.final_job(&run).await["status"], "COMPLETE");
    assert_eq!(server.log_text(&run).await, "a b\n1\n2\n");
    // A change is treated alike, and the values of properties keep their bytes.
    let property = json!({ "name": "a.b", "value": "x\r\ny\r" });
    let update = json!({ "id": pipeline, "script": "printf %s \"$A_B\" | od -An -tx1\r\n", "properties": [property],
        "schedule": "0  0\t6 * *\r\n MON " });
    server.change("updatePipeline", update, "pipeline { id }").await;
    assert_eq!(stored().await["schedule"], "0 0 6 * * MON");
    let run = server.run(&pipeline).await;
    server.final_job(&run).await;
    assert_eq!(server.log_text(&run).await.trim(), "78 0d 0a 79 0d");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_show_texts_as_they_are() {
    let server = TestServer::with(&["--slots", "0"]);
    let workspace = server.begin_workspace("W").await["workspace"]["id"].clone();
    let input = |property: &str| json!({ "workspaceId": workspace, "name": "P", "script": "true", "properties": [{ "name": property, "value": "x" }] });
    let refused = server.refused("createPipeline", input("password")).await;
    let message = text(&refused.extensions["problems"][0]["message"]).to_owned();
    assert!(message.contains("with a dot between the two"), "{message}");
    let wanted = "Cafe\u{301} \\ \u{202e}\r\n\u{1b}[31m";
    let follower = json!({ "workspaceId": workspace, "name": "P", "script": "true", "triggeredBy": [wanted] });
    let refused = server.refused("createPipeline", follower).await;
    let message = text(&refused.extensions["problems"][0]["message"]);
    assert!(message.contains("\"Café \\ \u{fffd}\u{fffd}\u{fffd}\u{fffd}[31m\""), "{message}");
}
