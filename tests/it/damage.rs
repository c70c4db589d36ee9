//! Repositories that are damaged, as by a loss of power: they are repaired, and nothing that the database knows is lost.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::pipeline_config::git;
use crate::repositories::{push, run, users_repository};
use crate::support::{TestServer, on_postgres, text};

/// The newest files below a directory, latest first.
fn newest(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("a directory") {
            let entry = entry.expect("an entry");
            if entry.file_type().expect("its type").is_dir() {
                directories.push(entry.path());
            } else {
                found.push((entry.metadata().expect("it").modified().expect("its time"), entry.path()));
            }
        }
    }
    found.sort();
    found.into_iter().rev().map(|(_, path)| path).collect()
}

/// Cuts a file to a part of its length, or with 0 parts to nothing. git makes objects read-only.
fn cut(path: &Path, parts: u64) {
    let mut permissions = fs::metadata(path).expect("a file").permissions();
    #[allow(clippy::permissions_set_readonly_false)]
    permissions.set_readonly(false);
    fs::set_permissions(path, permissions).expect("permissions");
    let file = File::options().write(true).open(path).expect("a file");
    let length = file.metadata().expect("it").len().checked_div(parts).unwrap_or(0);
    file.set_len(length).expect("it is cut");
}

fn zeros(path: &Path) {
    cut(path, 1);
    let length = fs::metadata(path).expect("a file").len();
    fs::write(path, vec![0; usize::try_from(length).expect("short")]).expect("zeros");
}

fn packed(git_directory: &Path) -> Vec<PathBuf> {
    git(git_directory, &["--git-dir", ".", "-c", "safe.directory=*", "gc", "--quiet", "--prune=now"]);
    newest(&git_directory.join("objects/pack"))
}

/// The name of a damage, and how it is done to a git directory.
type Damage = (&'static str, fn(&Path));

/// What can be damaged of a git directory, and how.
const DAMAGES: [Damage; 17] = [
    ("the newest three objects are empty", |it| newest(&it.join("objects"))[..3].iter().for_each(|it| cut(it, 0))),
    ("the newest objects are cut", |it| newest(&it.join("objects"))[..3].iter().for_each(|it| cut(it, 2))),
    ("the newest objects are zeros", |it| newest(&it.join("objects"))[..3].iter().for_each(|it| zeros(it))),
    ("the newest object is gone", |it| fs::remove_file(&newest(&it.join("objects"))[0]).expect("it goes")),
    ("all objects are empty", |it| newest(&it.join("objects")).iter().for_each(|it| cut(it, 0))),
    ("all objects are gone", |it| fs::remove_dir_all(it.join("objects")).expect("they go")),
    ("the branch is empty", |it| cut(&it.join("refs/heads/main"), 0)),
    ("the branch is zeros", |it| zeros(&it.join("refs/heads/main"))),
    ("the branch is gone", |it| fs::remove_file(it.join("refs/heads/main")).expect("it goes")),
    ("HEAD is empty", |it| cut(&it.join("HEAD"), 0)),
    ("HEAD is gone", |it| fs::remove_file(it.join("HEAD")).expect("it goes")),
    ("all references are empty", |it| newest(&it.join("refs")).iter().for_each(|it| cut(it, 0))),
    ("all references are gone", |it| fs::remove_dir_all(it.join("refs")).expect("they go")),
    ("the configuration is zeros", |it| zeros(&it.join("config"))),
    ("packs are cut", |it| packed(it).iter().for_each(|it| cut(it, 2))),
    ("packs are gone", |it| packed(it).iter().for_each(|it| fs::remove_file(it).expect("it goes"))),
    ("everything is gone", |it| fs::remove_dir_all(it).expect("it goes")),
];

/// A workspace with two pipelines, one of them renamed, and files of a job.
async fn furnished(server: &TestServer, name: &str) -> (String, String) {
    let workspace = server.workspace(name).await;
    let input = json!({ "workspaceId": workspace, "name": "Old", "script": "echo one", "schedule": "0 0 0 1 1 *" });
    let pipeline = server.pipeline_with(input).await;
    let input = json!({ "workspaceId": workspace, "name": "Two", "script": "echo two", "triggeredBy": ["Old"] });
    server.pipeline_with(input).await;
    let renamed = server.change("updatePipeline", json!({ "id": pipeline, "name": "One" }), "job { id }").await;
    assert_eq!(server.final_job(text(&renamed["job"]["id"])).await["status"], "COMPLETE");
    fs::write(server.repository(&workspace).join("mine.txt"), "mine").expect("a file");
    (workspace, pipeline)
}

/// Configures a pipeline in a workspace, and answers the log of that.
async fn configured(server: &TestServer, workspace: &str, damage: &str) -> String {
    let input = json!({ "workspaceId": workspace, "name": "Next", "script": "echo next" });
    let created = server.begin_pipeline(input).await;
    let job = text(&created["job"]["id"]);
    let (done, log) = (server.final_job(job).await, server.log_text(job).await);
    assert_eq!((&done["status"], &done["attempt"]), (&json!("COMPLETE"), &json!(1)), "{damage}: {log}");
    log
}

/// Checks that a repository is whole, and has the definitions of all pipelines.
fn is_whole(repository: &Path, damage: &str) {
    git(repository, &["-c", "safe.directory=*", "fsck", "--strict", "--no-dangling"]);
    let show = |path: &str| git(repository, &["cat-file", "blob", &format!("main:{path}")]);
    let files = git(repository, &["ls-tree", "-r", "--name-only", "main", "pipelines"]);
    assert_eq!(files, "pipelines/Next.yml\npipelines/One.yml\npipelines/Two.yml", "{damage}");
    let (one, two) = (show("pipelines/One.yml"), show("pipelines/Two.yml"));
    assert!(one.contains("echo one") && one.contains("0 0 0 1 1 *"), "{damage}: {one}");
    // The file has the name that the other pipeline had when it was written.
    assert!(two.contains("echo two") && (two.contains("- One") || two.contains("- Old")), "{damage}: {two}");
    assert!(show("README.md").starts_with("# "), "{damage}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_repository_is_repaired_when_a_pipeline_is_configured() {
    let server = TestServer::with(&["--slots", "4"]);
    let (other, _) = furnished(&server, "Other").await;
    configured(&server, &other, "nothing").await;
    let other_commit = git(&server.repository(&other), &["rev-parse", "main"]);
    for (damage, inflict) in DAMAGES {
        let (workspace, pipeline) = furnished(&server, damage).await;
        let repository = server.repository(&workspace);
        // What a job has made of the definition is not what the database has.
        fs::write(repository.join("pipelines/Two.yml"), "not this").expect("a file");
        inflict(&repository.join(".git"));
        let log = configured(&server, &workspace, damage).await;
        is_whole(&repository, &format!("{damage}: {log}"));
        assert_eq!(git(&repository, &["rev-parse", "--abbrev-ref", "HEAD"]), "main", "{damage}: {log}");
        assert_eq!(fs::read_to_string(repository.join("mine.txt")).expect("it"), "mine", "{damage}: {log}");
        assert_eq!(run(&server, &pipeline).await, "echo one\n".replace("echo ", ""), "{damage}");
        let status = git(&repository, &["status", "--porcelain"]);
        assert!(["?? mine.txt", "M pipelines/Two.yml\n?? mine.txt"].contains(&status.as_str()), "{damage}: {status}");
        // Once is enough.
        let again = json!({ "workspaceId": workspace, "name": "Last", "script": "true" });
        let created = server.begin_pipeline(again).await;
        let job = text(&created["job"]["id"]);
        assert_eq!(server.final_job(job).await["status"], "COMPLETE", "{damage}");
        assert!(!server.log_text(job).await.contains("damaged"), "{damage}");
    }
    assert_eq!(git(&server.repository(&other), &["rev-parse", "main"]), other_commit, "the other is as it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_that_can_be_read_is_kept_and_the_damaged_repository_too() {
    let server = TestServer::start();
    let (workspace, _) = furnished(&server, "W").await;
    let repository = server.repository(&workspace);
    let before = git(&repository, &["rev-parse", "main^"]);
    newest(&repository.join(".git/objects"))[..3].iter().for_each(|it| cut(it, 0));
    let log = configured(&server, &workspace, "empty objects").await;
    assert!(log.contains("was damaged") && log.contains(".git-damaged-"), "{log}");
    assert!(git(&repository, &["rev-list", "main"]).contains(&before), "{log}");
    let kept = fs::read_dir(&repository).expect("a directory").map(|it| it.expect("an entry").file_name());
    let kept: Vec<_> = kept.filter(|it| it.to_string_lossy().starts_with(".git-damaged-")).collect();
    assert_eq!(kept.len(), 1, "{log}");
    assert!(server.log().contains("repository is damaged") || on_postgres(), "the server's log says so");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_that_was_killed_is_done_by_the_next_job() {
    let server = TestServer::with(&["--slots", "1"]);
    let (workspace, _) = furnished(&server, "W").await;
    let repository = server.repository(&workspace);
    fs::remove_dir_all(repository.join(".git")).expect("it goes");
    // As if the server had been killed after the damaged repository was set aside.
    fs::create_dir(repository.join(".git")).expect("a directory");
    fs::write(server.data_directory().join("tasks").join(format!("rebuild-{workspace}")), "").expect("a marker");
    let server = server.kill_and_restart();
    configured(&server, &workspace, "killed").await;
    is_whole(&repository, "killed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_is_to_be_rebuilt_until_a_job_has_rebuilt_it() {
    let server = TestServer::with(&["--slots", "1"]);
    let workspace = server.workspace("W").await;
    let pipeline = server.pipeline(&workspace, "P", "exit 3").await;
    let input = json!({ "workspaceId": workspace, "name": "Q", "script": "true" });
    let other = server.pipeline_with(input).await;
    let marker = server.data_directory().join("tasks").join(format!("rebuild-{workspace}"));
    // A run brings a clone up to date first, and rebuilds it, however its script ends. Where there is no clone, it does not.
    for (pipeline, status) in [(&pipeline, "ERROR"), (&other, "COMPLETE")] {
        fs::write(&marker, "").expect("a marker");
        let job = server.run(pipeline).await;
        assert_eq!(server.final_job(&job).await["status"], status);
        assert_eq!(marker.exists(), !on_postgres(), "{status}");
    }
    configured(&server, &workspace, "marked").await;
    assert!(!marker.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_clone_of_a_users_repository_is_cloned_again() {
    let server = TestServer::with(&["--allow-file-repositories"]);
    for (damage, inflict) in DAMAGES {
        let (origin, url) = users_repository();
        let input = json!({ "name": damage, "repositoryUrl": url });
        let created = server.change("createWorkspace", input, "workspace { id }").await;
        let workspace = text(&created["workspace"]["id"]).to_owned();
        let pipeline = server.pipeline(&workspace, "P", "cat new.txt").await;
        let clone = server.repository(&workspace);
        let commit = git(origin.path(), &["rev-parse", "main"]);
        inflict(&clone.join(".git"));
        push(origin.path(), "new.txt", "new\n");
        let log = run(&server, &pipeline).await;
        assert!(log.ends_with("new\n"), "{damage}: {log}");
        git(&clone, &["fsck", "--no-dangling"]);
        assert_eq!(git(&clone, &["rev-parse", "main"]), git(origin.path(), &["rev-parse", "main"]), "{damage}: {log}");
        assert_eq!(git(&clone, &["status", "--porcelain"]), "", "{damage}: {log}");
        assert_eq!(git(origin.path(), &["rev-parse", "main^"]), commit, "the origin is as it was");
        git(origin.path(), &["fsck", "--no-dangling"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_repository_of_the_servers_is_rebuilt() {
    if !on_postgres() {
        return;
    }
    let server = TestServer::with(&["--slots", "4"]);
    for (damage, inflict) in DAMAGES {
        // With an intact clone, and without one.
        for clone_is_gone in [false, true] {
            let name = format!("{damage} {clone_is_gone}");
            let (workspace, _) = furnished(&server, &name).await;
            let origin = server.data_directory().join("shared/repositories").join(format!("{workspace}.git"));
            inflict(&origin);
            if clone_is_gone {
                fs::remove_dir_all(server.repository(&workspace)).expect("it goes");
            }
            let log = configured(&server, &workspace, &name).await;
            let files = git(&origin, &["ls-tree", "-r", "--name-only", "main", "pipelines"]);
            assert_eq!(files, "pipelines/Next.yml\npipelines/One.yml\npipelines/Two.yml", "{name}: {log}");
            git(&origin, &["fsck", "--no-dangling"]);
            let clone = server.repository(&workspace);
            assert_eq!(git(&clone, &["rev-parse", "main"]), git(&origin, &["rev-parse", "main"]), "{name}: {log}");
            if !clone_is_gone {
                is_whole(&clone, &name);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_workspace_leaves_nothing_of_its_damaged_repositories() {
    let server = TestServer::start();
    let (workspace, _) = furnished(&server, "W").await;
    let repository = server.repository(&workspace);
    let git_directory = if on_postgres() {
        server.data_directory().join("shared/repositories").join(format!("{workspace}.git"))
    } else {
        repository.join(".git")
    };
    newest(&git_directory.join("objects"))[..3].iter().for_each(|it| cut(it, 0));
    configured(&server, &workspace, "empty objects").await;
    server.delete("Workspace", &workspace).await;
    let found = async || {
        let data = server.data_directory();
        let output = std::process::Command::new("find").arg(&data).args(["-name", &format!("*{workspace}*")]).output();
        let found = String::from_utf8(output.expect("find").stdout).expect("UTF-8");
        found.is_empty().then_some(())
    };
    crate::support::eventually("all of it goes", found).await;
}
