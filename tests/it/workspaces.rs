//! Workspaces, invitations and user tasks.

use std::fs;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{TestServer, eventually, text, wait_for};

const UNKNOWN: &str = "3f2b8c1e-6f0a-4c5e-9d3b-2a7f1e4c5d6b";
const WORKSPACE: &str = "workspace { id name alias status created lastModified }";

async fn read(server: &TestServer, workspace: &str) -> Value {
    let query = "query($id: ID!) { workspace(id: $id) { id name alias status created lastModified } }";
    server.data(query, json!({ "id": workspace })).await["workspace"].take()
}

/// Creates a workspace, and answers its id and that of its job of a type, without waiting for anything.
async fn create(server: &TestServer, name: &str, type_: &str) -> (String, String) {
    let created = server.change("createWorkspace", json!({ "name": name }), "workspace { id } jobs { id type }").await;
    let job = created["jobs"].as_array().expect("jobs").iter().find(|it| it["type"] == type_).expect("the job");
    (text(&created["workspace"]["id"]).to_owned(), text(&job["id"]).to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn creating_a_workspace_queues_its_three_jobs() {
    let server = TestServer::with(&["--slots", "0"]);
    let selection =
        format!("{WORKSPACE} jobs {{ type status attempt maxAttempts pipeline {{ id }} workspace {{ name }} }}");
    let created = server.change("createWorkspace", json!({ "name": "Sales & Söhne" }), &selection).await;
    let workspace = &created["workspace"];
    assert_eq!(Uuid::parse_str(text(&workspace["id"])).map(|it| it.get_version_num()), Ok(4));
    assert_eq!(
        (&workspace["name"], &workspace["alias"], &workspace["status"]),
        (&json!("Sales & Söhne"), &json!("sales-söhne"), &json!("PROVISIONING"))
    );
    assert_eq!(workspace["created"], workspace["lastModified"]);
    let created_at = text(&workspace["created"]);
    assert!(created_at.len() == "2026-11-23T09:30:00.000000Z".len() && created_at.ends_with('Z'), "{created_at}");
    let queued = |(type_, max_attempts): (&str, i32)| {
        json!({
            "type": type_, "status": "QUEUED", "attempt": 1, "maxAttempts": max_attempts, "pipeline": null,
            "workspace": { "name": "Sales & Söhne" }
        })
    };
    let expected = [("WORKSPACE_INIT", 3), ("PROFILE_COLLABORATE", 1), ("PROFILE_IMPORT", 1)].map(queued);
    assert_eq!(created["jobs"], json!(expected));
    assert_eq!(&read(&server, text(&workspace["id"])).await, workspace);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_is_ready_with_a_repository_when_its_init_job_is_complete() {
    let server = TestServer::start();
    let (workspace, job) = create(&server, "Sales", "WORKSPACE_INIT").await;
    let done = server.final_job(&job).await;
    assert_eq!((&done["status"], &done["exitCode"]), (&json!("COMPLETE"), &json!(0)));
    assert_eq!(read(&server, &workspace).await["status"], "READY");
    assert_eq!(done["commitId"], git(&server, &workspace, &["rev-parse", "HEAD"]));
    assert_eq!(git(&server, &workspace, &["status", "--porcelain"]), "");
}

fn git(server: &TestServer, workspace: &str, arguments: &[&str]) -> String {
    crate::pipeline_config::git(&server.repository(workspace), arguments)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_whose_init_job_fails_is_failed_until_an_update_succeeds() {
    let server = TestServer::start();
    let repositories = server.data_directory().join("repositories");
    fs::remove_dir(&repositories).expect("it is empty");
    fs::write(&repositories, "in the way").expect("a file");
    let (workspace, job) = create(&server, "Sales", "WORKSPACE_INIT").await;
    assert_eq!(server.final_job(&job).await["status"], "ERROR");
    assert_eq!(read(&server, &workspace).await["status"], "FAILED");
    let pipeline = json!({ "workspaceId": workspace, "name": "Daily" });
    assert_eq!(server.refused("createPipeline", pipeline).await.code, "NOT_READY");

    fs::remove_file(&repositories).expect("the file goes");
    fs::create_dir(&repositories).expect("a directory");
    let updated = server.change("updateWorkspace", json!({ "id": workspace }), WORKSPACE).await;
    assert_eq!(updated["workspace"]["status"], "PROVISIONING");
    let query = "query($id: ID!) { jobs(workspaceId: $id, type: [WORKSPACE_INIT]) { nodes { id } totalCount } }";
    let jobs = server.data(query, json!({ "id": workspace })).await;
    assert_eq!(jobs["jobs"]["totalCount"], 2);
    let again = text(&jobs["jobs"]["nodes"][0]["id"]);
    assert_eq!(server.final_job(again).await["status"], "COMPLETE");
    assert_eq!(read(&server, &workspace).await["status"], "READY");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_workspace_that_fails_ends_with_an_error() {
    let server = TestServer::with(&["--slots", "1"]);
    let go = server.scratch().join("go");
    let blocking = server.run_script(&wait_for(&go)).await;
    server.job_is(&blocking, "RUNNING").await;
    let (workspace, init) = create(&server, "Doomed", "WORKSPACE_INIT").await;
    let pipeline = json!({ "workspaceId": workspace, "name": "Daily", "script": "true" });
    let created = server.change("createPipeline", pipeline, "pipeline { id status } job { id status }").await;
    assert_eq!(created["pipeline"]["status"], "PROVISIONING");
    let run = server.run(text(&created["pipeline"]["id"])).await;
    fs::write(server.repository(&workspace), "in the way").expect("a file");
    fs::write(&go, "").expect("a file");
    assert_eq!(server.final_job(&init).await["status"], "ERROR");
    for job in [text(&created["job"]["id"]), &run] {
        let done = server.final_job(job).await;
        assert_eq!((&done["status"], &done["exitCode"]), (&json!("ERROR"), &Value::Null));
        let lines = server.log_lines(job).await;
        assert_eq!(lines.iter().map(|it| &it["stream"]).collect::<Vec<_>>(), ["SYSTEM"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_renames_a_workspace_and_nothing_else() {
    let server = TestServer::start();
    let workspace = server.workspace("Old Name").await;
    let before = read(&server, &workspace).await;
    let input = json!({ "id": workspace, "name": "New Name" });
    let updated = server.change("updateWorkspace", input, WORKSPACE).await["workspace"].take();
    assert_eq!(updated, read(&server, &workspace).await);
    assert_eq!((&updated["name"], &updated["alias"]), (&json!("New Name"), &json!("new-name")));
    assert_eq!((&updated["created"], &updated["status"]), (&before["created"], &json!("READY")));
    assert!(text(&updated["lastModified"]) > text(&before["lastModified"]));

    let unchanged = server.change("updateWorkspace", json!({ "id": workspace }), WORKSPACE).await;
    assert_eq!(unchanged["workspace"]["name"], "New Name");
    let refused = server.refused("updateWorkspace", json!({ "id": workspace, "name": null })).await;
    assert_eq!(refused.paths(), ["input.name"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_name_is_taken_until_it_is_changed_or_deleted() {
    let server = TestServer::with(&["--slots", "0"]);
    let (first, _) = create(&server, "A", "WORKSPACE_INIT").await;
    let (second, _) = create(&server, "B", "WORKSPACE_INIT").await;
    assert_eq!(server.refused("createWorkspace", json!({ "name": "A" })).await.code, "CONFLICT");
    let take_a = json!({ "id": second, "name": "A" });
    assert_eq!(server.refused("updateWorkspace", take_a.clone()).await.code, "CONFLICT");
    server.change("updateWorkspace", json!({ "id": first, "name": "A" }), "__typename").await;
    server.change("updateWorkspace", json!({ "id": first, "name": "C" }), "__typename").await;
    server.change("updateWorkspace", take_a, "__typename").await;
    let deleted = server.change("deleteWorkspace", json!({ "id": first }), "deletedWorkspaceId").await;
    assert_eq!(deleted["deletedWorkspaceId"], *first);
    create(&server, "C", "WORKSPACE_INIT").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_name_or_id_is_told_by_its_path() {
    let server = TestServer::with(&["--slots", "0"]);
    let (workspace, _) = create(&server, "Right", "WORKSPACE_INIT").await;
    for name in ["", "  ", " x", "x ", "a\nb", "\u{7}", &"x".repeat(101), &"😀".repeat(51)] {
        let refused = server.refused("createWorkspace", json!({ "name": name })).await;
        assert_eq!(refused.paths(), ["input.name"], "{name:?}");
        let refused = server.refused("updateWorkspace", json!({ "id": workspace, "name": name })).await;
        assert_eq!(refused.paths(), ["input.name"], "{name:?}");
    }
    create(&server, &"x".repeat(100), "WORKSPACE_INIT").await;
    let refused = server.refused("updateWorkspace", json!({ "id": "7", "name": null })).await;
    assert_eq!(refused.paths(), ["input.id", "input.name"]);
    let refused = server.refused("updateWorkspace", json!({ "id": "7", "name": "" })).await;
    assert_eq!(refused.paths(), ["input.id", "input.name"]);
    assert_eq!(server.refused("deleteWorkspace", json!({ "id": "" })).await.paths(), ["input.id"]);
    let refused = server.refused("createInvitation", json!({ "workspaceId": "7", "email": "nobody" })).await;
    assert_eq!(refused.paths(), ["input.email", "input.workspaceId"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mutation_on_an_unknown_workspace_is_not_found() {
    let server = TestServer::with(&["--slots", "0"]);
    for (mutation, input) in [
        ("updateWorkspace", json!({ "id": UNKNOWN, "name": "A" })),
        ("deleteWorkspace", json!({ "id": UNKNOWN })),
        ("createPipeline", json!({ "workspaceId": UNKNOWN, "name": "A" })),
        ("createInvitation", json!({ "workspaceId": UNKNOWN, "email": "a@example.com" })),
    ] {
        assert_eq!(server.refused(mutation, input).await.code, "NOT_FOUND", "{mutation}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_invitation_completes_the_collaborate_task() {
    let server = TestServer::with(&["--slots", "0"]);
    let (workspace, task) = create(&server, "Sales", "PROFILE_COLLABORATE").await;
    let refused = server.refused("createInvitation", json!({ "workspaceId": workspace, "email": "a@b@c" })).await;
    assert_eq!(refused.paths(), ["input.email"]);
    assert_eq!(server.job(&task).await["status"], "QUEUED");

    let selection = "invitation { id email created workspace { id } } job { id status startTime exitCode endTime }";
    let input = json!({ "workspaceId": workspace, "email": "a@example.com" });
    let invited = server.change("createInvitation", input.clone(), selection).await;
    assert_eq!(invited["invitation"]["email"], "a@example.com");
    assert_eq!(invited["invitation"]["workspace"]["id"], *workspace);
    let job = &invited["job"];
    assert_eq!((text(&job["id"]), text(&job["status"])), (task.as_str(), "COMPLETE"));
    assert_eq!((&job["startTime"], &job["exitCode"]), (&Value::Null, &Value::Null));
    assert_eq!(job["endTime"], invited["invitation"]["created"]);

    let again = server.change("createInvitation", input, selection).await;
    assert_eq!(again["job"], Value::Null);
    assert_ne!(again["invitation"]["id"], invited["invitation"]["id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_task_waits_for_a_person_and_can_be_stopped() {
    let server = TestServer::start();
    let (workspace, task) = create(&server, "Sales", "PROFILE_COLLABORATE").await;
    // Whatever a runner may take from this workspace, it has taken when its pipeline is configured.
    server.pipeline(&workspace, "Daily", "true").await;
    assert_eq!(server.job(&task).await["status"], "QUEUED");
    assert_eq!(server.stop(&task).await["status"], "STOPPED");
    let stopped = server.job(&task).await;
    assert_eq!((&stopped["startTime"], &stopped["exitCode"]), (&Value::Null, &Value::Null));
    let input = json!({ "workspaceId": workspace, "email": "a@example.com" });
    let invited = server.change("createInvitation", input, "job { id }").await;
    assert_eq!(invited["job"], Value::Null);
    assert_eq!(server.job(&task).await, stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_workspace_is_gone_at_once_with_all_that_it_owns() {
    let server = TestServer::with(&["--stop-grace", "0.5"]);
    let workspace = server.workspace("Sales").await;
    let pipeline = server.pipeline(&workspace, "Daily", "trap '' TERM; echo up; while :; do sleep 0.1; done").await;
    let job = server.run(&pipeline).await;
    server.line_appears(&job, "up").await;
    let input = json!({ "workspaceId": workspace, "email": "a@example.com" });
    let invitation = server.change("createInvitation", input, "invitation { id }").await["invitation"]["id"].take();
    let mut client = server.client().await;
    let query = "subscription($id: ID!) { jobStatusChanged(jobId: $id) { status deleted job { id } } }";
    let changes = client.begin(query, json!({ "id": job })).await.expect("a subscription");
    client.next_data(&changes).await.expect("the present");

    // It holds out against TERM, so all this is seen while it still runs.
    server.change("deleteWorkspace", json!({ "id": workspace }), "deletedWorkspaceId").await;
    let query = "query($w: ID!, $p: ID!, $j: ID!, $i: ID!) { workspace(id: $w) { id } pipeline(id: $p) { id } \
                 job(id: $j) { id } w: node(id: $w) { id } p: node(id: $p) { id } j: node(id: $j) { id } \
                 i: node(id: $i) { id } jobs { totalCount } workspaces { totalCount nodes { id } } }";
    let ids = json!({ "w": workspace, "p": pipeline, "j": job, "i": invitation });
    let gone = server.data(query, ids).await;
    let expected = json!({
        "workspace": null, "pipeline": null, "job": null, "w": null, "p": null, "j": null, "i": null,
        "jobs": { "totalCount": 0 }, "workspaces": { "totalCount": 0, "nodes": [] }
    });
    assert_eq!(gone, expected);
    assert_eq!(
        server.code("query($id: ID!) { jobs(workspaceId: $id) { totalCount } }", json!({ "id": workspace })).await,
        "NOT_FOUND"
    );
    assert_eq!(server.refused("deleteWorkspace", json!({ "id": workspace })).await.code, "NOT_FOUND");
    assert_eq!(server.refused("stopJob", json!({ "id": job })).await.code, "NOT_FOUND");
    server.workspace("Sales").await;

    let mut seen = Vec::new();
    while let Some(change) = client.next_data(&changes).await.expect("a change") {
        seen.push(change["jobStatusChanged"].clone());
    }
    let expected = [
        json!({ "status": "STOPPED", "deleted": false, "job": null }),
        json!({ "status": "STOPPED", "deleted": true, "job": null }),
    ];
    assert_eq!(seen, expected);
    eventually("the repository goes", async || (!server.repository(&workspace).exists()).then_some(())).await;
}
