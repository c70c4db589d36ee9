//! Attacks of a job on the repository of its workspace, through which the server would read, write or run something else.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::pipeline_config::git;
use crate::repositories::{push, run, users_repository};
use crate::support::{TestServer, on_postgres, text};

/// A directory outside of the workspace, with a file of the names that the server writes and removes.
fn outside(server: &TestServer, name: &str) -> PathBuf {
    let outside = server.scratch().join(name);
    fs::create_dir_all(outside.join("plugins")).expect("a directory");
    for name in ["Old.yml", "P.yml", "Next.yml", "main", "HEAD", "config", "index", "meltano.yml", "file"] {
        fs::write(outside.join(name), "outside").expect("a file");
    }
    outside
}

/// Checks that nothing in a directory has changed, and nothing was added.
fn is_untouched(outside: &Path, attack: &str) {
    for entry in fs::read_dir(outside).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_file() {
            assert_eq!(fs::read_to_string(&path).expect("a file"), "outside", "{attack}: {}", path.display());
        }
    }
    assert_eq!(fs::read_dir(outside).expect("a directory").count(), 10, "{attack}: {}", outside.display());
    assert_eq!(fs::read_dir(outside.join("plugins")).expect("a directory").count(), 0, "{attack}");
}

/// Queues a configuration of a pipeline, and answers its job and log once it has ended.
async fn configure(server: &TestServer, workspace: &str, name: &str) -> (Value, String) {
    let created = server.begin_pipeline(json!({ "workspaceId": workspace, "name": name, "script": "true" })).await;
    let job = text(&created["job"]["id"]);
    (server.final_job(job).await, server.log_text(job).await)
}

/// Removes whatever is at a path, and makes the directory that it is in.
fn clear(path: &Path) {
    let _ = fs::remove_file(path);
    let _ = fs::remove_dir_all(path);
    fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
}

/// A workspace that a user's repository is the origin of, with a pipeline: the server, the origin, and the ids.
async fn clone() -> (TestServer, tempfile::TempDir, String, String) {
    let server = TestServer::with(&["--allow-file-repositories"]);
    let (origin, url) = users_repository();
    let input = json!({ "name": "W", "repositoryUrl": url });
    let created = server.change("createWorkspace", input, "workspace { id } jobs { id type }").await;
    let workspace = text(&created["workspace"]["id"]).to_owned();
    let pipeline = server.pipeline(&workspace, "P", "true").await;
    (server, origin, workspace, pipeline)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_behind_a_link_is_not_removed_when_the_origin_removes_it() {
    let (server, origin, workspace, pipeline) = clone().await;
    push(origin.path(), "pipelines/Old.yml", "old");
    push(origin.path(), "deep/er/file", "outside");
    run(&server, &pipeline).await;
    let (clone, outside) = (server.repository(&workspace), outside(&server, "outside"));
    for path in ["pipelines", "deep/er"] {
        clear(&clone.join(path));
        symlink(&outside, clone.join(path)).expect("a link");
    }
    let elsewhere = tempfile::tempdir().expect("a directory");
    git(elsewhere.path(), &["clone", "--quiet", origin.path().to_str().expect("UTF-8"), "."]);
    git(elsewhere.path(), &["rm", "--quiet", "pipelines/Old.yml", "deep/er/file"]);
    let own = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.com"];
    git(elsewhere.path(), &[&own[..], &["commit", "--quiet", "--message", "Remove"]].concat());
    git(elsewhere.path(), &["push", "--quiet", "origin", "HEAD:main"]);
    let job = server.run(&pipeline).await;
    server.final_job(&job).await;
    is_untouched(&outside, &server.log_text(&job).await);
}

/// Places in a workspace where a job can plant something.
const PLACES: [&str; 16] = [
    "pipelines",
    "pipelines/Next.yml",
    "pipelines/.jobstream-unfinished",
    ".git",
    ".git/HEAD",
    ".git/config",
    ".git/index",
    ".git/refs",
    ".git/refs/heads",
    ".git/refs/heads/main",
    ".git/refs/jobstream",
    ".git/refs/jobstream/placed",
    ".git/logs",
    ".git/logs/refs/heads/main",
    ".git/objects",
    ".git/objects/pack",
];

/// Plants things in every place, in a workspace of its own each, and configures a pipeline: the configuration ends, and nothing
/// outside of the workspace has changed.
async fn plant_everywhere(what: &str, plant: impl Fn(&Path, &Path)) {
    let server = TestServer::with(&["--slots", "4"]);
    let outside = outside(&server, "outside");
    for place in PLACES {
        let workspace = server.workspace(place).await;
        server.pipeline(&workspace, "P", "true").await;
        let path = server.repository(&workspace).join(place);
        clear(&path);
        plant(&path, &outside);
        let (done, log) = configure(&server, &workspace, "Next").await;
        is_untouched(&outside, &format!("{what} at {place}: {log}"));
        if place.starts_with(".git") {
            // What is wrong with the repository is repaired.
            assert_eq!(done["status"], "COMPLETE", "{what} at {place}: {log}");
            let committed = git(&server.repository(&workspace), &["ls-tree", "-r", "--name-only", "main", "pipelines"]);
            assert_eq!(committed, "pipelines/Next.yml\npipelines/P.yml", "{what} at {place}: {log}");
        } else if place == "pipelines" {
            assert_eq!(done["status"], "ERROR", "{what} at {place}: {log}");
            assert!(log.contains("not a directory"), "{log}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_in_any_place_is_not_followed() {
    plant_everywhere("a link to a directory", |path, outside| symlink(outside, path).expect("a link")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_to_a_file_of_the_same_name_is_not_followed() {
    plant_everywhere("a link to a file", |path, outside| {
        let name =
            if path.ends_with(".git") { "file" } else { path.file_name().and_then(|it| it.to_str()).expect("it") };
        let name = if outside.join(name).exists() { name } else { "file" };
        symlink(outside.join(name), path).expect("a link");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_of_links_in_any_place_is_not_followed() {
    plant_everywhere("a loop", |path, _| symlink(path, path).expect("a link")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fifo_in_any_place_is_not_waited_for() {
    plant_everywhere("a FIFO", |path, _| {
        assert!(std::process::Command::new("mkfifo").arg(path).status().expect("mkfifo").success());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_leads_to_another_workspace_is_not_used() {
    let server = TestServer::start();
    let other = server.workspace("Other").await;
    server.pipeline(&other, "Theirs", "true").await;
    let theirs = server.repository(&other).canonicalize().expect("the other").join(".git");
    let worktree = theirs.parent().expect("a directory").to_owned();
    let before = (git(&theirs, &["rev-parse", "main"]), git(&worktree, &["status", "--porcelain"]));
    let attacks: [(&str, &str); 7] = [
        ("a gitfile", "rm -rf .git; echo 'gitdir: THEIRS' > .git"),
        ("a relative gitfile", "rm -rf .git; echo \"gitdir: ../$(basename $(dirname THEIRS))/.git\" > .git"),
        ("a link", "rm -rf .git; ln -s THEIRS .git"),
        ("alternates", "mkdir -p .git/objects/info; echo THEIRS/objects > .git/objects/info/alternates"),
        ("commondir", "echo THEIRS > .git/commondir"),
        ("core.worktree", "git config core.worktree \"$(dirname THEIRS)\""),
        (
            "the branch of the other",
            "git fetch -q THEIRS main && git update-ref refs/heads/main FETCH_HEAD; rm -rf .git/refs; ln -s THEIRS/refs .git/refs",
        ),
    ];
    for (attack, script) in attacks {
        let workspace = server.workspace(attack).await;
        let script = script.replace("THEIRS", theirs.to_str().expect("UTF-8"));
        let pipeline = server.pipeline(&workspace, "P", &script).await;
        run(&server, &pipeline).await;
        let (done, log) = configure(&server, &workspace, "Next").await;
        assert_eq!(done["status"], "COMPLETE", "{attack}: {log}");
        let after = (git(&theirs, &["rev-parse", "main"]), git(&worktree, &["status", "--porcelain"]));
        assert_eq!(after, before, "{attack}: {log}");
        let repository = server.repository(&workspace).join(".git");
        let own = repository.to_str().expect("UTF-8");
        let files = git(Path::new("/"), &["--git-dir", own, "ls-tree", "-r", "--name-only", "main", "pipelines"]);
        assert_eq!(files, "pipelines/Next.yml\npipelines/P.yml", "{attack}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_configuration_or_hook_of_a_job_is_used() {
    let server = TestServer::start();
    let workspace = server.workspace("W").await;
    let marker = server.scratch().join("marker");
    fs::create_dir_all(&marker).expect("a directory");
    let script = format!(
        r#"
        printf '#!/bin/sh\ntouch "{}/$(basename "$0")"\nexec cat\n' > evil && chmod +x evil
        mkdir -p .git/hooks hooks .git/info
        for hook in applypatch-msg commit-msg fsmonitor-watchman post-applypatch post-checkout post-commit post-index-change \
            post-merge post-receive post-rewrite post-update pre-applypatch pre-auto-gc pre-commit pre-merge-commit pre-push \
            pre-receive prepare-commit-msg push-to-checkout reference-transaction update; do
            cp evil .git/hooks/$hook; cp evil hooks/$hook
        done
        printf '[core]\n\tfsmonitor = %s/evil\n' "$PWD" > included
        for setting in core.hooksPath=$PWD/hooks core.fsmonitor=$PWD/evil core.sshCommand=$PWD/evil core.editor=$PWD/evil \
            core.pager=$PWD/evil core.askPass=$PWD/evil core.gitProxy=$PWD/evil core.alternateRefsCommand=$PWD/evil \
            core.attributesFile=$PWD/attributes core.autocrlf=true gpg.program=$PWD/evil gpg.ssh.program=$PWD/evil \
            commit.gpgSign=true diff.external=$PWD/evil diff.evil.textconv=$PWD/evil diff.evil.command=$PWD/evil \
            merge.evil.driver=$PWD/evil filter.evil.clean=$PWD/evil filter.evil.smudge=$PWD/evil \
            filter.evil.process=$PWD/evil filter.evil.required=true credential.helper=$PWD/evil \
            uploadpack.packObjectsHook=$PWD/evil include.path=$PWD/included includeIf.gitdir:/.path=$PWD/included \
            protocol.ext.allow=always sequence.editor=$PWD/evil trace2.eventTarget=$PWD/traced \
            extensions.worktreeConfig=true extensions.partialClone=evil remote.evil.promisor=true \
            "remote.evil.url=ext::$PWD/evil" "alias.commit-tree=!$PWD/evil" "alias.cat-file=!$PWD/evil" \
            core.bare=true core.repositoryFormatVersion=1; do
            git config "${{setting%%=*}}" "${{setting#*=}}"
        done
        echo '* filter=evil diff=evil merge=evil ident' | tee .git/info/attributes attributes .gitattributes > /dev/null
        ls .git/hooks | wc -l
        "#,
        marker.display()
    );
    let pipeline = server.pipeline(&workspace, "Evil", &script).await;
    run(&server, &pipeline).await;
    let content = "echo '$Id$'\n";
    let next = server.pipeline(&workspace, "Next", content).await;
    let verify = server.verify(&next).await;
    assert_eq!(server.final_job(&verify).await["status"], "COMPLETE");
    run(&server, &next).await;
    let run: Vec<_> = fs::read_dir(&marker).expect("a directory").map(|it| it.expect("an entry").file_name()).collect();
    assert_eq!(run, Vec::<std::ffi::OsString>::new(), "nothing of it was run");
    assert!(!server.repository(&workspace).join("traced").exists());
    let repository = server.repository(&workspace).join(".git");
    let bare = ["--git-dir", repository.to_str().expect("UTF-8"), "-c", "core.bare=true", "-c", "core.fsmonitor=false"];
    let committed = git(Path::new("/"), &[&bare[..], &["cat-file", "blob", "main:pipelines/Next.yml"]].concat());
    assert!(committed.contains("$Id$"), "no filter has changed it: {committed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_task_leaves_for_the_server_cannot_be_replaced_by_a_job() {
    let server = TestServer::with(&["--retry-backoff", "0.01"]);
    let (workspace, outside) = (server.workspace("W").await, outside(&server, "outside"));
    let tasks = server.data_directory().join("tasks");
    // The first try leaves a link where the second finds what it is to do; the others, what the server reads.
    let script = format!(
        r#"
        place={}/$JOBSTREAM_JOB_ID
        rm -rf "$place"
        case $JOBSTREAM_ATTEMPT in
            1) ln -s {} "$place"; exit 1;;
            2) rm -f "$place"; mkdir -p "$place"; mkfifo "$place/outcome.json"; exit 1;;
            3) mkdir -p "$place"; ln -s /dev/zero "$place/outcome.json"; exit 1;;
            4) mkdir -p "$place"; echo '{{"commit_id":null,"needs_definitions":true}}' > "$place/outcome.json"; exit 1;;
            *) mkdir -p "$place"; echo '{{"commit_id":"0123456789012345678901234567890123456789"}}' > "$place/outcome.json";;
        esac
        "#,
        tasks.display(),
        outside.display()
    );
    let input = json!({ "workspaceId": workspace, "name": "P", "script": script, "maxRetries": 5 });
    let pipeline = server.pipeline_with(input).await;
    let job = server.run(&pipeline).await;
    let done = server.final_job(&job).await;
    assert_eq!((&done["status"], &done["commitId"]), (&json!("COMPLETE"), &Value::Null), "{done}");
    is_untouched(&outside, "a link in place of the task's directory");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_in_place_of_the_servers_own_repository_is_not_followed() {
    if !on_postgres() {
        return;
    }
    let server = TestServer::start();
    let repositories = server.data_directory().join("shared/repositories");
    let other = server.workspace("Other").await;
    let theirs = repositories.join(format!("{other}.git"));
    let before = git(&theirs, &["rev-parse", "main"]);
    for attack in ["link", "gitfile", "alternates", "commondir"] {
        let workspace = server.workspace(attack).await;
        server.pipeline(&workspace, "P", "true").await;
        let origin = repositories.join(format!("{workspace}.git"));
        match attack {
            "link" => {
                clear(&origin);
                symlink(&theirs, &origin).expect("a link");
            }
            "gitfile" => {
                clear(&origin);
                fs::write(&origin, format!("gitdir: {}\n", theirs.display())).expect("a file");
            }
            "alternates" => {
                let path = origin.join("objects/info/alternates");
                clear(&path);
                fs::write(path, format!("{}/objects\n", theirs.display())).expect("a file");
            }
            _ => fs::write(origin.join("commondir"), theirs.to_str().expect("UTF-8")).expect("a file"),
        }
        let (done, log) = configure(&server, &workspace, "Next").await;
        assert_eq!(done["status"], "COMPLETE", "{attack}: {log}");
        assert_eq!(git(&theirs, &["rev-parse", "main"]), before, "{attack}: {log}");
        let files = git(&origin, &["ls-tree", "-r", "--name-only", "main", "pipelines"]);
        assert_eq!(files, "pipelines/Next.yml\npipelines/P.yml", "{attack}: {log}");
    }
}

/// Configures a pipeline in a workspace, and checks that the repository is complete afterwards.
async fn is_configured(server: &TestServer, workspace: &str, attack: &str) -> String {
    let (done, log) = configure(server, workspace, "Next").await;
    assert_eq!(done["status"], "COMPLETE", "{attack}: {log}");
    let repository = server.repository(workspace);
    let committed = git(&repository, &["ls-tree", "-r", "--name-only", "main", "pipelines"]);
    assert_eq!(committed, "pipelines/Next.yml\npipelines/P.yml", "{attack}: {log}");
    assert!(repository.join("pipelines/Next.yml").is_file(), "{attack}: {log}");
    log
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_in_place_of_a_file_is_replaced() {
    let server = TestServer::with(&["--slots", "4"]);
    let places = [
        ".git/HEAD",
        ".git/config",
        ".git/index",
        ".git/index.lock",
        ".git/jobstream-workspace",
        ".git/HEAD.lock",
        ".git/refs/heads/main",
        ".git/refs/heads/main.lock",
        ".git/refs/jobstream/placed",
        ".git/logs/refs/heads/main",
        ".git/.jobstream-unfinished",
        ".git/refs/heads/.jobstream-unfinished",
        "pipelines/.jobstream-unfinished",
        "pipelines/Next.yml",
        ".jobstream-unfinished",
    ];
    for place in places {
        for content in ["", "/sub"] {
            let attack = format!("{place}{content}");
            let workspace = server.workspace(&attack.replace('/', " ")).await;
            server.pipeline(&workspace, "P", "true").await;
            let path = server.repository(&workspace).join(place);
            clear(&path);
            fs::create_dir_all(server.repository(&workspace).join(&attack)).expect("a directory");
            let log = is_configured(&server, &workspace, &attack).await;
            if place == "pipelines/Next.yml" {
                assert!(log.contains("pipelines/Next.yml is a directory"), "{log}");
            }
            for file in ["HEAD", "config", "index"] {
                assert!(server.repository(&workspace).join(".git").join(file).is_file(), "{attack}: {file}: {log}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_behind_a_hard_link_is_not_written() {
    let server = TestServer::with(&["--slots", "4"]);
    let outside = outside(&server, "outside");
    for place in PLACES.iter().filter(|place| place.ends_with("main") || place.contains('.')) {
        let workspace = server.workspace(&place.replace('/', " ")).await;
        server.pipeline(&workspace, "P", "true").await;
        let path = server.repository(&workspace).join(place);
        clear(&path);
        fs::hard_link(outside.join("file"), &path).expect("a hard link");
        let (_, log) = configure(&server, &workspace, "Next").await;
        is_untouched(&outside, &format!("a hard link at {place}: {log}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_another_workspaces_repository_is_not_used() {
    let server = TestServer::start();
    let other = server.workspace("Other").await;
    server.pipeline(&other, "Theirs", "true").await;
    let theirs = server.repository(&other);
    let commit = git(&theirs, &["rev-parse", "main"]);
    for attack in ["rm -rf .git; cp -a OTHER/.git .git", "rm -rf .git; cp -al OTHER/.git .git"] {
        let workspace = server.workspace(if attack.contains("-al") { "hard links" } else { "copy" }).await;
        let script = attack.replace("OTHER", theirs.to_str().expect("UTF-8"));
        let pipeline = server.pipeline(&workspace, "P", &script).await;
        run(&server, &pipeline).await;
        let log = is_configured(&server, &workspace, attack).await;
        assert!(log.contains("another workspace"), "{log}");
        let history = git(&server.repository(&workspace), &["rev-list", "main"]);
        assert!(!history.contains(&commit), "{attack}: {history}");
        assert_eq!(git(&theirs, &["rev-parse", "main"]), commit, "{attack}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_without_the_id_of_its_workspace_gets_it() {
    let server = TestServer::start();
    let workspace = server.workspace("W").await;
    server.pipeline(&workspace, "P", "true").await;
    let marker = server.repository(&workspace).join(".git/jobstream-workspace");
    // As in a repository that an earlier version has created.
    fs::remove_file(&marker).expect("a marker");
    let log = is_configured(&server, &workspace, "no marker").await;
    assert!(!log.contains("damaged"), "{log}");
    assert_eq!(fs::read_to_string(marker).expect("a marker"), format!("{workspace}\n"));
}
