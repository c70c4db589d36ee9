//! Repositories that come from a git URL and go there.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use base64::Engine;
use serde_json::{Value, json};

use crate::pipeline_config::git;
use crate::repositories::{push, run, users_repository};
use crate::support::{TestServer, eventually, text, wait_for};

async fn workspace_at(server: &TestServer, name: &str, url: &str) -> String {
    let input = json!({ "name": name, "repositoryUrl": url });
    let created = server.change("createWorkspace", input, "workspace { id } jobs { id type }").await;
    let jobs = created["jobs"].as_array().expect("jobs");
    let init = text(&jobs.iter().find(|it| it["type"] == "WORKSPACE_INIT").expect("the job")["id"]);
    assert_eq!(server.final_job(init).await["status"], "COMPLETE", "{}", server.log_text(init).await);
    text(&created["workspace"]["id"]).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_is_killed_before_it_has_pushed_is_complete_when_it_is_repeated() {
    let server = TestServer::with(&["--allow-file-repositories"]);
    let (origin, url) = users_repository();
    let workspace = workspace_at(&server, "W", &url).await;
    let before = git(origin.path(), &["rev-parse", "main"]);
    // The origin does not take the commit until the server is gone.
    let (reached, go) = (server.scratch().join("reached"), server.scratch().join("go"));
    hook(origin.path(), &format!("touch {}; {}", reached.display(), wait_for(&go)));
    let created = server.begin_pipeline(json!({ "workspaceId": workspace, "name": "P", "script": "true" })).await;
    eventually("it pushes", async || reached.exists().then_some(())).await;
    fs::remove_file(&reached).expect("it was reached");
    let server = server.kill_and_restart();
    eventually("it pushes again", async || reached.exists().then_some(())).await;
    assert_eq!(git(origin.path(), &["rev-parse", "main"]), before);
    assert!(!server.repository(&workspace).join("pipelines/P.yml").exists(), "what the origin has not is nowhere");

    fs::write(&go, "").expect("a file");
    let done = server.final_job(text(&created["job"]["id"])).await;
    assert_eq!(
        (&done["status"], &done["attempt"], text(&done["commitId"])),
        (&json!("COMPLETE"), &json!(2), git(origin.path(), &["rev-parse", "main"]).as_str())
    );
    assert_eq!(git(origin.path(), &["rev-parse", "main^"]), before);
    assert!(server.repository(&workspace).join("pipelines/P.yml").exists());
}

/// Has a repository run this before it takes a commit.
fn hook(repository: &Path, script: &str) {
    let hook = repository.join("hooks/pre-receive");
    fs::create_dir_all(hook.parent().expect("a parent")).expect("a directory");
    fs::write(&hook, format!("#!/bin/sh\n{script}\n")).expect("a file");
    assert!(Command::new("chmod").arg("+x").arg(&hook).status().expect("chmod").success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_with_a_url_has_its_commits_there() {
    let server = TestServer::with(&["--allow-file-repositories"]);
    let (origin, url) = users_repository();
    let workspace = workspace_at(&server, "W", &url).await;
    let pipeline = server.pipeline(&workspace, "P", "cat more/data.txt").await;
    let files = git(origin.path(), &["ls-tree", "-r", "--name-only", "main"]);
    assert_eq!(files, "README.md\npipelines/P.yml");
    push(origin.path(), "more/data.txt", "from the user\n");
    let log = run(&server, &pipeline).await;
    assert_eq!(log, "from the user\n");
    let again = server.pipeline(&workspace, "Q", "true").await;
    assert_eq!(git(origin.path(), &["rev-list", "--count", "main"]), "4");

    let query = "query($id: ID!) { workspace(id: $id) { repositoryUrl status } }";
    let read = server.data(query, json!({ "id": workspace })).await;
    assert_eq!(read["workspace"]["repositoryUrl"], url);
    // Elsewhere, where something is already, nothing is lost.
    let (other, other_url) = users_repository();
    let elsewhere = tempfile::tempdir().expect("a directory");
    git(elsewhere.path(), &["init", "--quiet", "--initial-branch=main", "."]);
    fs::write(elsewhere.path().join("theirs.txt"), "").expect("a file");
    git(elsewhere.path(), &["add", "."]);
    let own = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.com"];
    git(elsewhere.path(), &[&own[..], &["commit", "--quiet", "--message", "Theirs"]].concat());
    git(elsewhere.path(), &["push", "--quiet", other.path().to_str().expect("UTF-8"), "main"]);
    let input = json!({ "id": workspace, "repositoryUrl": other_url });
    let moved = server.change("updateWorkspace", input, "workspace { status repositoryUrl }").await;
    assert_eq!(moved["workspace"], json!({ "status": "PROVISIONING", "repositoryUrl": other_url }));
    run(&server, &again).await;
    let files = git(other.path(), &["ls-tree", "-r", "--name-only", "main"]);
    assert_eq!(files, "pipelines/P.yml\npipelines/Q.yml\ntheirs.txt");

    let back = json!({ "id": workspace, "repositoryUrl": null });
    let back = server.change("updateWorkspace", back, "workspace { repositoryUrl }").await;
    assert_eq!(back["workspace"]["repositoryUrl"], Value::Null);
    server.pipeline(&workspace, "R", "true").await;
    assert!(!git(other.path(), &["ls-tree", "-r", "--name-only", "main"]).contains("R.yml"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_comes_too_late_is_done_again() {
    let server = TestServer::with(&["--allow-file-repositories"]);
    let (origin, url) = users_repository();
    let workspace = workspace_at(&server, "W", &url).await;
    // Somebody else is always faster, once.
    let rival = tempfile::tempdir().expect("a directory");
    git(rival.path(), &["clone", "--quiet", &url, "."]);
    let own = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.com"];
    git(rival.path(), &[&own[..], &["commit", "--quiet", "--allow-empty", "--message", "Rival"]].concat());
    let push = format!("git -C {} push --quiet origin main", rival.path().display());
    hook(origin.path(), &format!("rm \"$0\"\nunset $(git rev-parse --local-env-vars) GIT_QUARANTINE_PATH\n{push}"));
    server.pipeline(&workspace, "P", "true").await;
    let log = git(origin.path(), &["log", "--format=%s", "main"]);
    assert_eq!(log, "Configure pipeline P\nRival\nCreate the workspace");
}

/// A web server that lets nobody in, and what it is asked.
fn closed_web_server() -> (std::net::SocketAddr, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let (address, asked) = (listener.local_addr().expect("an address"), Arc::new(Mutex::new(String::new())));
    let keep = Arc::clone(&asked);
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = BufReader::new(connection.expect("a connection"));
            let mut line = String::new();
            while connection.read_line(&mut line).is_ok_and(|read| read > 2) {
                keep.lock().expect("what is asked").push_str(&std::mem::take(&mut line));
            }
            let refusal = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"git\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            let _ = connection.get_mut().write_all(refusal.as_bytes());
        }
    });
    (address, asked)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_in_a_url_is_for_its_server_and_shown_nowhere() {
    let server = TestServer::start();
    let (address, asked) = closed_web_server();
    let secret = "swordfish-1234";
    let url = format!("http://user:{secret}@{address}/a.git");
    let created = server
        .change(
            "createWorkspace",
            json!({ "name": "W", "repositoryUrl": url }),
            "workspace { id repositoryUrl } jobs { id type }",
        )
        .await;
    let shown = format!("http://{address}/a.git");
    assert_eq!(created["workspace"]["repositoryUrl"], shown);
    let jobs = created["jobs"].as_array().expect("jobs");
    let init = text(&jobs.iter().find(|it| it["type"] == "WORKSPACE_INIT").expect("the job")["id"]);
    assert_eq!(server.final_job(init).await["status"], "ERROR");
    let log = server.log_text(init).await;
    assert!(log.contains(&shown) && !log.contains(secret), "{log}");
    let credentials = base64::engine::general_purpose::STANDARD.encode(format!("user:{secret}"));
    let asked = asked.lock().expect("what is asked").clone();
    assert!(asked.contains(&format!("Authorization: Basic {credentials}")), "{asked}");
    let failure = server.data("query($id: ID!) { job(id: $id) { failure { summary } } }", json!({ "id": init })).await;
    assert!(!failure.to_string().contains(secret), "{failure}");
    assert!(!server.log().contains(secret), "{}", server.log());
    let repository = server.repository(text(&created["workspace"]["id"]));
    let found = Command::new("grep").args(["-rlF", secret]).arg(&repository).output().expect("grep");
    assert_eq!(String::from_utf8_lossy(&found.stdout), "", "no file of the repository holds it");
    eventually("what the job was told is gone", async || {
        let left = fs::read_dir(server.data_directory().join("tasks")).expect("tasks").count();
        (left == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_that_leads_elsewhere_is_refused_with_its_path() {
    let server = TestServer::start();
    for url in [
        "",
        "/srv/a.git",
        "file:///srv/a.git",
        "ext::sh -c true",
        "-oProxyCommand=true",
        "--upload-pack=true",
        "ssh://-oProxyCommand=true/a",
        "ftp://example.com/a",
        "https://",
    ] {
        let refused = server.refused("createWorkspace", json!({ "name": "W", "repositoryUrl": url })).await;
        assert_eq!(refused.paths(), ["input.repositoryUrl"], "{url}");
    }
    let refused = server.refused("createWorkspace", json!({ "name": "", "repositoryUrl": "no" })).await;
    assert_eq!(refused.paths(), ["input.name", "input.repositoryUrl"]);
    let refused = server.refused("updateWorkspace", json!({ "id": "no", "name": "", "repositoryUrl": "no" })).await;
    assert_eq!(refused.paths(), ["input.id", "input.name", "input.repositoryUrl"]);
}
