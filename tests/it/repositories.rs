//! Repositories that are clones, on several servers of one database.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::nodes::Nodes;
use crate::pipeline_config::git;
use crate::support::{TestServer, eventually, system_lines, text, wait_for};

/// Servers of one database, which share a directory.
struct Site(Nodes);

impl Site {
    /// A new one. Nothing where the suite is that of SQLite.
    fn new() -> Option<Self> {
        Nodes::new().map(Self)
    }

    /// A server of this name with these options.
    fn server(&self, name: &str, more: &[&str]) -> TestServer {
        self.0.plain_node(name, more)
    }

    /// A server that runs jobs, and one that only serves for now.
    fn pair(&self) -> [TestServer; 2] {
        [self.server("n1", &["--slots", "2"]), self.server("n2", &["--slots", "0"])]
    }

    /// Lets the other server of a pair run jobs, and this one none.
    fn swap(&self, [one, other]: [TestServer; 2]) -> [TestServer; 2] {
        [self.again(one, "n1", &["--slots", "0"]), self.again(other, "n2", &["--slots", "2"])]
    }

    /// Lets the first server of a pair run jobs again.
    fn swap_back(&self, [one, other]: [TestServer; 2]) -> [TestServer; 2] {
        [self.again(one, "n1", &["--slots", "2"]), self.again(other, "n2", &["--slots", "0"])]
    }

    /// How many rows there are for a workspace.
    fn rows_of(&self, workspace: &str) -> i64 {
        self.0.database().count(&format!("workspaces WHERE id = '{workspace}'"))
    }

    /// The same server with other options.
    fn again(&self, server: TestServer, name: &str, more: &[&str]) -> TestServer {
        let (url, shared) = (self.0.database().url(), self.0.shared_directory());
        let site = ["--database-url", &url, "--shared-dir", shared.to_str().expect("UTF-8")];
        let own = ["--listen", "127.0.0.1:0", "--node-name", name];
        server.kill_and_restart_with(&[&own[..], &site, more].concat())
    }

    /// The repository that the servers share.
    fn origin(&self, workspace: &str) -> PathBuf {
        self.0.shared_directory().join("repositories").join(format!("{workspace}.git"))
    }
}

/// Runs a pipeline to its end, and answers its log if it is COMPLETE.
pub async fn run(server: &TestServer, pipeline: &str) -> String {
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
pub fn users_repository() -> (TempDir, String) {
    let directory = tempfile::tempdir().expect("a directory");
    git(directory.path(), &["init", "--quiet", "--bare", "--initial-branch=main", "."]);
    let url = format!("file://{}", directory.path().display());
    (directory, url)
}

/// Pushes a file to a repository as somebody else would.
pub fn push(repository: &Path, path: &str, content: &str) {
    let elsewhere = tempfile::tempdir().expect("a directory");
    git(elsewhere.path(), &["clone", "--quiet", repository.to_str().expect("UTF-8"), "."]);
    fs::create_dir_all(elsewhere.path().join(path).parent().expect("a parent")).expect("a directory");
    fs::write(elsewhere.path().join(path), content).expect("a file");
    git(elsewhere.path(), &["add", "."]);
    let own = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.com"];
    git(elsewhere.path(), &[&own[..], &["commit", "--quiet", "--message", path]].concat());
    git(elsewhere.path(), &["push", "--quiet", "origin", "HEAD:main"]);
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
    let script =
        "env | sort | grep -v '^JOBSTREAM_.*_ID=\\|^PWD=\\|^TMPDIR='; trap '' PIPE; ls -l /proc/self/fd | wc -l; umask";
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
    eventually("the rows go", async || (site.rows_of(&workspace) == 0).then_some(())).await;
    assert!(!clones[0].exists() && !clones[2].exists(), "{clones:?}");
    assert!(clones[1].exists());
    let other = other.restart();
    eventually("its clone goes too", async || (!clones[1].exists()).then_some(())).await;
    assert!(other.repository(&kept).exists() && site.origin(&kept).exists());
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
        site.again(other, "n2", &["--allow-file-repositories"])
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

#[tokio::test(flavor = "multi_thread")]
async fn what_a_pipeline_has_loaded_is_known_on_every_server() {
    let Some(site) = Site::new() else { return };
    let (url, shared) = (site.0.database().url(), site.0.shared_directory());
    let with = |name: &str, slots: &str| {
        let shared = shared.to_str().expect("UTF-8");
        let own = ["--database-url", &url, "--shared-dir", shared, "--node-name", name, "--slots", slots];
        TestServer::with_meltano(&own)
    };
    let (Some(one), Some(other)) = (with("n1", "2"), with("n2", "0")) else { return };
    let workspace = one.workspace("W").await;
    let records = |number: &str| json!([{ "name": "tap-x.records", "value": number }]);
    let input = json!({
        "workspaceId": workspace, "name": "P", "dataComponents": ["tap-x", "target-y"], "properties": records("3"),
    });
    let pipeline = one.pipeline_with(input).await;
    let log = run(&one, &pipeline).await;
    assert!(log.contains("Run completed"), "{log}");
    one.change("updatePipeline", json!({ "id": pipeline, "properties": records("5") }), "__typename").await;

    let [_one, other] = site.swap([one, other]);
    let log = run(&other, &pipeline).await;
    assert!(log.contains("Run completed"), "{log}");
    let loaded = fs::read_to_string(other.repository(&workspace).join("output/records.jsonl")).expect("records");
    let ids: Vec<i64> = loaded
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["id"].as_i64().expect("an id"))
        .collect();
    assert_eq!(ids, [4, 5], "the first three stayed where they were loaded");
}
