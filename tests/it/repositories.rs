//! Repositories that are clones: on several servers of one database, and of a git URL.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::pipeline_config::git;
use crate::support::postgres::{Cluster, Database};
use crate::support::{TestServer, eventually, system_lines, text, wait_for};

/// What servers share: a database, and a directory.
struct Site {
    database: Database,
    shared: TempDir,
}

impl Site {
    /// A new one. Nothing, and a word on why, if PostgreSQL cannot be had.
    fn new() -> Option<Self> {
        Some(Self { database: Cluster::shared()?.database(), shared: tempfile::tempdir().expect("a directory") })
    }

    /// A server of this name with these options.
    fn server(&self, name: &str, more: &[&str]) -> TestServer {
        let (url, shared) = (self.database.url(), self.shared.path().to_str().expect("UTF-8").to_owned());
        let own = ["--database-url", &url, "--shared-dir", &shared, "--node-name", name];
        TestServer::with(&[&own[..], more].concat())
    }

    /// A server that runs jobs, and one that only serves for now.
    fn pair(&self) -> [TestServer; 2] {
        [self.server("n1", &["--slots", "2"]), self.server("n2", &["--slots", "0"])]
    }

    /// Lets the other server of a pair run jobs, and this one none.
    fn swap(&self, [one, other]: [TestServer; 2]) -> [TestServer; 2] {
        [self.with_slots(one, "n1", "0"), self.with_slots(other, "n2", "2")]
    }

    fn with_slots(&self, server: TestServer, name: &str, slots: &str) -> TestServer {
        let (url, shared) = (self.database.url(), self.shared.path().to_str().expect("UTF-8").to_owned());
        server.kill_and_restart_with(&[
            "--listen",
            "127.0.0.1:0",
            "--database-url",
            &url,
            "--shared-dir",
            &shared,
            "--node-name",
            name,
            "--slots",
            slots,
        ])
    }

    /// The repository that the servers share.
    fn origin(&self, workspace: &str) -> PathBuf {
        self.shared.path().join("repositories").join(format!("{workspace}.git"))
    }
}

/// Runs a pipeline to its end, and answers its log if it is COMPLETE.
async fn run(server: &TestServer, pipeline: &str) -> String {
    let job = server.run(pipeline).await;
    let done = server.final_job(&job).await;
    let log = server.log_text(&job).await;
    assert_eq!(done["status"], "COMPLETE", "{log}");
    log
}

/// The newest job of this type of a workspace.
async fn newest_job(server: &TestServer, workspace: &str, type_: &str) -> Value {
    let query = "query($id: ID!, $type: JobType!) { jobs(workspaceId: $id, type: [$type], first: 1) { nodes { id commitId } } }";
    server.data(query, json!({ "id": workspace, "type": type_ })).await["jobs"]["nodes"][0].take()
}

/// A bare repository that is a user's, and its URL.
fn users_repository() -> (TempDir, String) {
    let directory = tempfile::tempdir().expect("a directory");
    git(directory.path(), &["init", "--quiet", "--bare", "--initial-branch=main", "."]);
    let url = format!("file://{}", directory.path().display());
    (directory, url)
}

/// Pushes a file to a repository as somebody else would.
fn push(repository: &Path, path: &str, content: &str) {
    let elsewhere = tempfile::tempdir().expect("a directory");
    git(elsewhere.path(), &["clone", "--quiet", repository.to_str().expect("UTF-8"), "."]);
    fs::create_dir_all(elsewhere.path().join(path).parent().expect("a parent")).expect("a directory");
    fs::write(elsewhere.path().join(path), content).expect("a file");
    git(elsewhere.path(), &["add", "."]);
    let own = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.com"];
    git(elsewhere.path(), &[&own[..], &["commit", "--quiet", "--message", path]].concat());
    git(elsewhere.path(), &["push", "--quiet", "origin", "HEAD:main"]);
}

async fn workspace_at(server: &TestServer, name: &str, url: &str) -> String {
    let input = json!({ "name": name, "repositoryUrl": url });
    let created = server.change("createWorkspace", input, "workspace { id } jobs { id type }").await;
    let jobs = created["jobs"].as_array().expect("jobs");
    let init = text(&jobs.iter().find(|it| it["type"] == "WORKSPACE_INIT").expect("the job")["id"]);
    assert_eq!(server.final_job(init).await["status"], "COMPLETE", "{}", server.log_text(init).await);
    text(&created["workspace"]["id"]).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_configured_on_one_server_runs_on_another_in_a_clone_of_its_own() {
    let Some(site) = Site::new() else { return };
    let servers = site.pair();
    let workspace = servers[0].workspace("W").await;
    let pipeline = servers[0].pipeline(&workspace, "P", "cat pipelines/P.yml; echo \"$0\"; pwd; exit 7").await;
    let commit = newest_job(&servers[0], &workspace, "PIPELINE_CONFIG").await["commitId"].take();
    assert_eq!(commit, git(&site.origin(&workspace), &["rev-parse", "main"]));

    let servers = site.swap(servers);
    let clone = servers[1].repository(&workspace);
    assert!(!clone.exists(), "the other has done nothing yet");
    let job = servers[1].run(&pipeline).await;
    // The exit code is the script's.
    assert_eq!(servers[0].final_job(&job).await["exitCode"], 7);
    let log = servers[0].log_text(&job).await;
    let clone = clone.canonicalize().expect("the clone");
    assert!(log.contains(&pipeline), "the file is in the clone: {log}");
    assert!(log.ends_with(&format!("P\n{}\n", clone.display())), "{log}");
    assert_eq!(git(&clone, &["rev-parse", "main"]), commit);
    assert_eq!(git(&clone, &["status", "--porcelain"]), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_script_has_the_environment_that_it_has_on_one_server() {
    let Some(site) = Site::new() else { return };
    let script = "env | sort | grep -v '^JOBSTREAM_.*_ID=\\|^PWD='; trap '' PIPE; ls -l /proc/self/fd | wc -l; umask";
    let input = |workspace: &str| json!({ "workspaceId": workspace, "name": "P", "script": script, "properties": [{ "name": "a.b", "value": "c" }] });
    let mut logs = Vec::new();
    for server in [TestServer::start(), site.server("n1", &[])] {
        let workspace = server.workspace("W").await;
        let pipeline = server.pipeline_with(input(&workspace)).await;
        logs.push(run(&server, &pipeline).await);
    }
    assert_eq!(logs[0], logs[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_configure_in_turn_make_one_history() {
    let Some(site) = Site::new() else { return };
    let servers = site.pair();
    let workspace = servers[0].workspace("W").await;
    servers[0].pipeline(&workspace, "First", "true").await;
    let servers = site.swap(servers);
    let second = servers[1].pipeline(&workspace, "Second", "true").await;
    // What has been renamed elsewhere is not found under its old name here.
    let first =
        servers[0].data("{ pipelines: workspaces { nodes { pipelines { nodes { id name } } } } }", json!({})).await;
    let pipelines = first["pipelines"]["nodes"][0]["pipelines"]["nodes"].as_array().expect("pipelines").clone();
    let first = pipelines.iter().find(|it| it["name"] == "First").expect("the first");
    let renamed =
        servers[0].change("updatePipeline", json!({ "id": first["id"], "name": "Renamed" }), "job { id }").await;
    assert_eq!(servers[0].final_job(text(&renamed["job"]["id"])).await["status"], "COMPLETE");
    let servers = site.swap_back(servers);
    run(&servers[0], &second).await;

    let origin = site.origin(&workspace);
    let files = git(&origin, &["ls-tree", "-r", "--name-only", "main", "pipelines"]);
    assert_eq!(files, "pipelines/Renamed.yml\npipelines/Second.yml");
    assert_eq!(git(&origin, &["rev-list", "--count", "main"]), "4");
    assert_eq!(git(&origin, &["rev-list", "--min-parents=2", "main"]), "", "no merge");
    let clone = servers[0].repository(&workspace);
    assert!(!clone.join("pipelines/First.yml").exists() && clone.join("pipelines/Renamed.yml").exists());
    assert_eq!(git(&clone, &["status", "--porcelain"]), "");
}

impl Site {
    /// Lets the first server of a pair run jobs again.
    fn swap_back(&self, [one, other]: [TestServer; 2]) -> [TestServer; 2] {
        [self.with_slots(one, "n1", "2"), self.with_slots(other, "n2", "0")]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_that_is_ahead_of_its_origin_or_behind_is_brought_up_to_date() {
    let Some(site) = Site::new() else { return };
    let server = site.server("n1", &[]);
    let workspace = server.workspace("W").await;
    let pipeline = server.pipeline(&workspace, "P", "cat shown.txt; ls pipelines").await;
    let (origin, clone) = (site.origin(&workspace), server.repository(&workspace));
    let before = git(&origin, &["rev-parse", "main"]);

    // As if its server had been killed before it could push.
    let own = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.com"];
    fs::write(clone.join("pipelines/Lost.yml"), "").expect("a file");
    git(&clone, &["add", "pipelines/Lost.yml"]);
    git(&clone, &[&own[..], &["commit", "--quiet", "--message", "Lost"]].concat());
    assert_ne!(git(&clone, &["rev-parse", "main"]), before);
    server.pipeline(&workspace, "Next", "true").await;
    assert_eq!(git(&origin, &["rev-parse", "main^"]), before);
    assert_eq!(git(&clone, &["rev-parse", "main"]), git(&origin, &["rev-parse", "main"]));

    push(&origin, "shown.txt", "from elsewhere\n");
    push(&origin, "deep/er/file.txt", "deep\n");
    let log = run(&server, &pipeline).await;
    assert!(log.contains("from elsewhere\n"), "{log}");
    assert_eq!(fs::read_to_string(clone.join("deep/er/file.txt")).expect("the file"), "deep\n");
    assert_eq!(git(&clone, &["rev-parse", "main"]), git(&origin, &["rev-parse", "main"]));
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
    let server = server.kill_and_restart();
    let job = text(&created["job"]["id"]);
    assert_eq!(server.final_job(job).await["status"], "ERROR", "it has one try");
    assert_eq!(git(origin.path(), &["rev-parse", "main"]), before);
    assert!(!server.repository(&workspace).join("pipelines/P.yml").exists(), "what the origin has not is nowhere");

    fs::write(&go, "").expect("a file");
    let input = json!({ "id": created["pipeline"]["id"] });
    let updated = server.change("updatePipeline", input, "job { id }").await;
    let done = server.final_job(text(&updated["job"]["id"])).await;
    assert_eq!(
        (&done["status"], text(&done["commitId"])),
        (&json!("COMPLETE"), git(origin.path(), &["rev-parse", "main"]).as_str())
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
async fn what_jobs_have_made_stays_whatever_comes_from_the_origin() {
    let Some(site) = Site::new() else { return };
    let server = site.server("n1", &[]);
    let workspace = server.workspace("W").await;
    let script = "echo own > mine.txt; mkdir -p taken; echo own > taken/inside.txt; ln -sfn /tmp linked; echo changed >> README.md";
    let pipeline = server.pipeline(&workspace, "P", script).await;
    run(&server, &pipeline).await;
    let (origin, clone) = (site.origin(&workspace), server.repository(&workspace));
    for (path, content) in [("mine.txt", "theirs"), ("taken", "theirs"), ("linked/x", "theirs"), ("new.sh", "new")] {
        push(&origin, path, content);
    }
    let nothing = server.pipeline(&workspace, "Nothing", "true").await;
    run(&server, &nothing).await;
    let read = |path: &str| fs::read_to_string(clone.join(path)).expect(path);
    assert_eq!(
        (read("mine.txt"), read("taken/inside.txt"), read("new.sh")),
        ("own\n".into(), "own\n".into(), "new".into())
    );
    assert!(read("README.md").ends_with("changed\n") && !Path::new("/tmp/x").exists());
    assert!(fs::symlink_metadata(clone.join("linked")).expect("it").is_symlink());
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_a_workspace_may_start_at_the_same_time() {
    let Some(site) = Site::new() else { return };
    let server = site.server("n1", &["--slots", "8"]);
    let workspace = server.workspace("W").await;
    let mut pipelines = Vec::new();
    for number in 0..8 {
        pipelines.push(server.pipeline(&workspace, &format!("P{number}"), "cat several.txt").await);
    }
    push(&site.origin(&workspace), "several.txt", "for all\n");
    let runs = pipelines.iter().map(|pipeline| run(&server, pipeline));
    for log in futures_util::future::join_all(runs).await {
        assert!(log.ends_with("for all\n"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_run_writes_stays_where_it_ran_and_the_job_says_where() {
    let Some(site) = Site::new() else { return };
    let servers = site.pair();
    let workspace = servers[0].workspace("W").await;
    let pipeline = servers[0].pipeline(&workspace, "P", "mkdir -p output; echo $RANDOM > output/file; ls output").await;
    let log = run(&servers[1], &pipeline).await;
    let place = servers[0].repository(&workspace).canonicalize().expect("the clone");
    assert_eq!(log, "file\n");
    let ran = servers[0].data("{ jobs(first: 1) { nodes { type node } } }", json!({})).await;
    assert_eq!(ran["jobs"]["nodes"][0], json!({ "type": "PIPELINE_RUN", "node": "n1" }));
    assert!(place.join("output/file").exists() && !servers[1].repository(&workspace).exists());
    assert!(!git(&site.origin(&workspace), &["ls-tree", "-r", "--name-only", "main"]).contains("output"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_another_shared_directory_or_key_is_refused() {
    let Some(site) = Site::new() else { return };
    let _server = site.server("n1", &[]);
    let elsewhere = tempfile::tempdir().expect("a directory");
    let refused = |shared: &Path, more: &[&str]| {
        let mut command = TestServer::command(elsewhere.path());
        command.args(["--listen", "127.0.0.1:0", "--database-url", &site.database.url(), "--shared-dir"]).arg(shared);
        let output = command.args(more).output().expect("it ends");
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = refused(&elsewhere.path().join("shared"), &[]);
    assert!(said.contains("n1") && said.contains("need the same --shared-dir"), "{said}");
    let key = elsewhere.path().join("key");
    let said = refused(site.shared.path(), &["--key-file", key.to_str().expect("UTF-8")]);
    assert!(said.contains("there is no key file") || said.contains("is not that of"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_start_at_the_same_time_agree_on_a_key() {
    let Some(site) = Site::new() else { return };
    let start = |name: &'static str| {
        std::thread::scope(|scope| scope.spawn(|| site.server(name, &["--slots", "0"])).join().expect("it starts"))
    };
    let names = ["n1", "n2", "n3"];
    let servers: Vec<TestServer> = std::thread::scope(|scope| {
        let starting: Vec<_> = names.iter().map(|name| scope.spawn(move || start(name))).collect();
        starting.into_iter().map(|it| it.join().expect("it starts")).collect()
    });
    assert_eq!(servers.len(), names.len());
    assert_eq!(site.database.count("encryption_keys"), 1);
    assert!(
        servers.iter().all(|it| !it.data_directory().join("key").exists()) && site.shared.path().join("key").exists()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_workspace_leaves_nothing_on_any_server() {
    let Some(site) = Site::new() else { return };
    let servers = site.pair();
    let workspace = servers[0].workspace("W").await;
    let kept = servers[0].workspace("Kept").await;
    let pipeline = servers[0].pipeline(&workspace, "P", "true").await;
    run(&servers[0], &pipeline).await;
    let servers = site.swap(servers);
    run(&servers[1], &pipeline).await;
    let others = servers[1].pipeline(&kept, "P", "true").await;
    run(&servers[1], &others).await;
    let clones = [servers[0].repository(&workspace), servers[1].repository(&workspace), site.origin(&workspace)];
    assert!(clones.iter().all(|it| it.exists()), "{clones:?}");

    let [one, mut other] = servers;
    // It is gone when the rows go.
    other.kill();
    one.delete("Workspace", &workspace).await;
    eventually("the rows go", async || (one.count_in(&site, &workspace) == 0).then_some(())).await;
    assert!(!clones[0].exists() && !clones[2].exists(), "{clones:?}");
    assert!(clones[1].exists());
    let other = other.restart();
    eventually("its clone goes too", async || (!clones[1].exists()).then_some(())).await;
    assert!(other.repository(&kept).exists() && site.origin(&kept).exists());
}

impl TestServer {
    fn count_in(&self, site: &Site, workspace: &str) -> i64 {
        site.database.count(&format!("workspaces WHERE id = '{workspace}'"))
    }
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
    assert_eq!(log, "from the user\n", "nobody else could run it, so it is not said where it runs");
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
async fn where_the_repository_goes_can_change_on_any_server() {
    let Some(site) = Site::new() else { return };
    let servers = site.pair();
    let workspace = servers[0].workspace("W").await;
    servers[0].pipeline(&workspace, "P", "true").await;
    let before = git(&site.origin(&workspace), &["rev-parse", "main"]);
    // The other server has no clone yet.
    let (origin, url) = users_repository();
    let other = {
        let [one, other] = servers;
        drop(one);
        let (database, shared) = (site.database.url(), site.shared.path().to_str().expect("UTF-8").to_owned());
        let listen = ["--listen", "127.0.0.1:0", "--allow-file-repositories", "--node-name", "n2"];
        other.kill_and_restart_with(&[&listen[..], &["--database-url", &database, "--shared-dir", &shared]].concat())
    };
    let input = json!({ "id": workspace, "repositoryUrl": url });
    other.change("updateWorkspace", input, "workspace { id }").await;
    other.pipeline(&workspace, "Q", "true").await;
    assert_eq!(git(origin.path(), &["rev-parse", "main^"]), before, "the history came with it");
    assert_eq!(
        git(origin.path(), &["rev-parse", "main"]),
        git(&site.origin(&workspace), &["rev-parse", "main"]),
        "the servers have a copy"
    );
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

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_cannot_be_reached_is_told_without_its_password() {
    let server = TestServer::start();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
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

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_takes_nothing_from_what_jobs_have_configured() {
    let Some(site) = Site::new() else { return };
    let server = site.server("n1", &[]);
    let workspace = server.workspace("W").await;
    let marker = server.scratch().join("marker");
    let origin = site.origin(&workspace);
    let script = format!(
        r#"
        printf '#!/bin/sh\ntouch {marker}\nexec "$@"\n' > evil && chmod +x evil
        for hook in pre-push post-checkout post-merge reference-transaction; do cp evil .git/hooks/$hook 2>/dev/null || (mkdir -p .git/hooks; cp evil .git/hooks/$hook); done
        mkdir -p {origin}/hooks
        for hook in pre-receive update post-receive post-update reference-transaction; do cp evil {origin}/hooks/$hook; done
        git config core.sshCommand "$PWD/evil"
        git config credential.helper "$PWD/evil"
        git config uploadpack.packObjectsHook "$PWD/evil"
        git config url."ext::$PWD/evil ".insteadOf {origin}
        git config protocol.ext.allow always
        git config filter.evil.smudge "$PWD/evil cat"
        echo '* filter=evil' > .git/info/attributes 2>/dev/null || (mkdir -p .git/info; echo '* filter=evil' > .git/info/attributes)
        "#,
        marker = marker.display(),
        origin = origin.display(),
    );
    let pipeline = server.pipeline(&workspace, "Evil", &script).await;
    run(&server, &pipeline).await;
    push_quietly(&origin, "new.txt", "new\n");
    let next = server.pipeline(&workspace, "Next", "cat new.txt").await;
    let log = run(&server, &next).await;
    assert!(log.ends_with("new\n"), "{log}");
    assert!(!marker.exists(), "something was run");
    assert!(system_lines(&server.log_lines(&server.run(&next).await).await).is_empty());
}

/// Pushes a file past the hooks of a repository.
fn push_quietly(repository: &Path, path: &str, content: &str) {
    let (hooks, away) = (repository.join("hooks"), repository.join("hooks-away"));
    fs::rename(&hooks, &away).expect("the hooks");
    push(repository, path, content);
    fs::rename(&away, &hooks).expect("the hooks");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_script_in_a_clone_gets_its_signals() {
    let Some(site) = Site::new() else { return };
    let server = site.server("n1", &[]);
    let file = server.scratch().join("got");
    let script = format!(
        "trap 'echo got > {}; exit 3' TERM; echo up; {}",
        file.display(),
        wait_for(&server.scratch().join("never"))
    );
    let job = server.run_script(&script).await;
    server.line_appears(&job, "up").await;
    server.stop(&job).await;
    assert_eq!(server.final_job(&job).await["status"], "STOPPED");
    assert!(file.exists());
}
