//! `PIPELINE_CONFIG`: pipelines in the workspace's repository, and the status that follows.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{TestServer, text, wait_for};

/// Runs git in a repository, and answers what it prints.
pub fn git(repository: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git").arg("-C").arg(repository).args(arguments).output().expect("git");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

async fn status(server: &TestServer, pipeline: &str) -> Value {
    let query = "query($id: ID!) { pipeline(id: $id) { status } }";
    server.data(query, json!({ "id": pipeline })).await["pipeline"]["status"].take()
}

/// The newest PIPELINE_CONFIG job of a pipeline.
async fn config_job(server: &TestServer, pipeline: &str) -> Value {
    let query =
        "query($id: ID!) { jobs(pipelineId: $id, type: [PIPELINE_CONFIG], first: 1) { nodes { id status commitId } } }";
    server.data(query, json!({ "id": pipeline })).await["jobs"]["nodes"][0].take()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_definition_is_committed_to_the_repository_without_values() {
    let Some(server) = TestServer::with_meltano(&[]) else { return };
    let workspace = server.workspace("W").await;
    server.pipeline(&workspace, "Import", "true").await;
    let input = json!({
        "workspaceId": workspace, "name": "Daily report", "schedule": "0 0 9-17 * * MON-FRI", "timeout": 60,
        "maxRetries": 2, "script": "set -e\necho \"it's: $TAP_X_KEY\"\n", "dataComponents": ["tap-x", "target-y"],
        "actions": ["tap-x", "dbt:run"], "triggeredBy": ["Import"],
        "properties": [
            { "name": "tap-x.key", "value": "a plain value" },
            { "name": "tap-x.password", "value": "a sensitive value", "sensitive": true },
        ]
    });
    let pipeline = server.pipeline_with(input).await;
    assert_eq!(status(&server, &pipeline).await, "READY");
    let repository = server.repository(&workspace);
    let content = fs::read_to_string(repository.join("pipelines/Daily report.yml")).expect("the file");
    insta::assert_snapshot!(content.replace(&pipeline, "[id]"), @r#"
    # Jobstream pipeline [id]: this file is written by the server.
    version: pipelines/v0.1
    data_components:
    - tap-x
    - target-y
    actions:
    - tap-x
    - dbt:run
    properties:
    - tap-x.key
    - tap-x.password
    triggered_by:
    - Import
    schedule: 0 0 9-17 * * MON-FRI
    timeout: 60
    max_retries: 2
    inline_script: |
      set -e
      echo "it's: $TAP_X_KEY"
    "#);

    let commit = config_job(&server, &pipeline).await["commitId"].take();
    assert_eq!(commit, git(&repository, &["rev-parse", "HEAD"]));
    assert_eq!(git(&repository, &["show", "HEAD:pipelines/Daily report.yml"]), content.trim());
    assert_eq!(git(&repository, &["status", "--porcelain"]), "");
    let history = git(&repository, &["log", "--all", "--patch"]);
    assert!(
        history.contains("tap-x.password") && !history.contains("plain value") && !history.contains("sensitive value")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rename_moves_the_file() {
    let server = TestServer::start();
    let workspace = server.workspace("W").await;
    let pipeline = server.pipeline(&workspace, "Old", "true").await;
    server.pipeline(&workspace, "Other", "true").await;
    let input = json!({ "id": pipeline, "name": "New" });
    let updated = server.change("updatePipeline", input, "pipeline { status } job { id type }").await;
    assert_eq!(updated["pipeline"]["status"], "PROVISIONING");
    assert_eq!(updated["job"]["type"], "PIPELINE_CONFIG");
    let done = server.final_job(text(&updated["job"]["id"])).await;
    let repository = server.repository(&workspace);
    assert_eq!(done["commitId"], git(&repository, &["rev-parse", "HEAD"]));
    assert_eq!(
        git(&repository, &["ls-tree", "--name-only", "HEAD", "pipelines/"]),
        "pipelines/New.yml\npipelines/Other.yml"
    );
    assert!(!repository.join("pipelines/Old.yml").exists());
    assert_eq!(status(&server, &pipeline).await, "READY");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_only_ever_the_name_of_a_file() {
    let server = TestServer::start();
    let workspace = server.workspace("W").await;
    for name in ["-rf *", "$(touch x)", ":(exclude)*", "é 😀", "a.yml"] {
        let pipeline = server.pipeline(&workspace, name, "true").await;
        let path = format!("pipelines/{name}.yml");
        let content = git(&server.repository(&workspace), &["show", &format!("HEAD:{path}")]);
        assert!(content.contains(&pipeline), "{content}");
    }
    assert_eq!(git(&server.repository(&workspace), &["status", "--porcelain"]), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_job_leaves_in_the_repository_is_run() {
    let server = TestServer::start();
    let workspace = server.workspace("W").await;
    let marker = server.scratch().join("marker");
    let script = format!(
        r#"
        printf '#!/bin/sh\ntouch {marker}-$(basename "$0")\n' > evil && chmod +x evil
        mkdir -p .git/hooks hooks
        for hook in pre-commit post-commit prepare-commit-msg commit-msg post-index-change reference-transaction; do
            cp evil .git/hooks/$hook; cp evil hooks/$hook
        done
        git config core.hooksPath "$PWD/hooks"
        git config core.fsmonitor "$PWD/evil"
        git config gpg.program "$PWD/evil"
        git config commit.gpgSign true
        git config core.editor "$PWD/evil"
        git config core.pager "$PWD/evil"
        git config filter.evil.clean "$PWD/evil"
        git config filter.evil.process "$PWD/evil"
        git config diff.external "$PWD/evil"
        echo '* filter=evil' > .git/info/attributes
        mkfifo pipelines/pipe.yml
        ln -s /dev/zero pipelines/endless.yml
        git config core.repositoryFormatVersion 1
        git config extensions.partialClone evil
        git config remote.evil.promisor true
        git config remote.evil.url "ext::$PWD/evil"
        git config protocol.ext.allow always
        rm -f .git/objects/$(git rev-parse HEAD:README.md | sed 's|..|&/|')
        "#,
        marker = marker.display()
    );
    let job = server.run(&server.pipeline(&workspace, "Evil", &script).await).await;
    let done = server.final_job(&job).await;
    assert_eq!(done["status"], "COMPLETE", "{}", server.log_text(&job).await);
    let next = server.pipeline(&workspace, "Next", "true").await;
    assert_eq!(status(&server, &next).await, "READY");
    let run: Vec<_> =
        fs::read_dir(server.scratch()).expect("a directory").map(|it| it.expect("an entry").file_name()).collect();
    assert_eq!(run, Vec::<std::ffi::OsString>::new());
    let committed = git(&server.repository(&workspace), &["show", "HEAD:pipelines/Next.yml"]);
    assert!(committed.contains(&next), "{committed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_cannot_be_configured_is_failed_until_an_update_succeeds() {
    let server = TestServer::start();
    let workspace = server.workspace("W").await;
    let repository = server.repository(&workspace);
    fs::remove_dir_all(repository.join("pipelines")).expect("it goes");
    fs::write(repository.join("pipelines"), "in the way").expect("a file");
    let input = json!({ "workspaceId": workspace, "name": "P", "script": "true" });
    let created = server.change("createPipeline", input, "pipeline { id } job { id }").await;
    let pipeline = text(&created["pipeline"]["id"]);
    let done = server.final_job(text(&created["job"]["id"])).await;
    assert_eq!((&done["status"], &done["exitCode"], &done["commitId"]), (&json!("ERROR"), &json!(1), &Value::Null));
    assert_eq!(status(&server, pipeline).await, "FAILED");
    assert_eq!(server.refused("createJob", json!({ "pipelineId": pipeline })).await.code, "NOT_READY");
    assert_eq!(server.refused("verifyPipeline", json!({ "id": pipeline })).await.code, "NOT_READY");

    fs::remove_file(repository.join("pipelines")).expect("it goes");
    let updated =
        server.change("updatePipeline", json!({ "id": pipeline }), "pipeline { status } job { id type }").await;
    assert_eq!(updated["pipeline"]["status"], "PROVISIONING");
    assert_eq!(updated["job"]["type"], "PIPELINE_CONFIG");
    let done = server.final_job(text(&updated["job"]["id"])).await;
    assert_eq!(done["commitId"], git(&repository, &["rev-parse", "HEAD"]));
    assert_eq!(status(&server, pipeline).await, "READY");
    let again = server.change("updatePipeline", json!({ "id": pipeline }), "pipeline { status } job { id }").await;
    assert_eq!(again, json!({ "pipeline": { "status": "READY" }, "job": null }));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_pipeline_that_fails_ends_with_an_error() {
    let server = TestServer::with(&["--slots", "1"]);
    let workspace = server.workspace("W").await;
    let go = server.scratch().join("go");
    // It takes the repository away, after what is to fail has been queued.
    let script = format!("{}; rm -rf pipelines; touch pipelines", wait_for(&go));
    let blocking = server.run(&server.pipeline(&workspace, "Blocker", &script).await).await;
    server.job_is(&blocking, "RUNNING").await;
    let input = json!({ "workspaceId": workspace, "name": "P", "script": "true" });
    let created = server.change("createPipeline", input, "pipeline { id } job { id }").await;
    let pipeline = text(&created["pipeline"]["id"]);
    let run = server.run(pipeline).await;
    fs::write(&go, "").expect("a file");
    assert_eq!(server.final_job(text(&created["job"]["id"])).await["status"], "ERROR");
    let done = server.final_job(&run).await;
    assert_eq!((&done["status"], &done["exitCode"]), (&json!("ERROR"), &Value::Null));
    let lines = server.log_lines(&run).await;
    assert_eq!(lines.iter().map(|it| text(&it["stream"])).collect::<Vec<_>>(), ["SYSTEM"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_configuration_leaves_the_pipeline_failed() {
    let server = TestServer::with(&["--slots", "0"]);
    let created = server.change("createWorkspace", json!({ "name": "W" }), "workspace { id }").await;
    let input = json!({ "workspaceId": created["workspace"]["id"], "name": "P" });
    let created = server.change("createPipeline", input, "pipeline { id } job { id }").await;
    let pipeline = text(&created["pipeline"]["id"]);
    assert_eq!(status(&server, pipeline).await, "PROVISIONING");
    server.stop(text(&created["job"]["id"])).await;
    assert_eq!(status(&server, pipeline).await, "FAILED");
}
