//! git, in a repository that jobs can write to: nothing that stands in its configuration or hooks is run.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use super::{Failure, say};

/// A lock of git's that is older than this was left by a process that was killed.
const STALE_LOCK: Duration = Duration::from_secs(10);
const LOCKS: [&str; 3] = [".git/index.lock", ".git/HEAD.lock", ".git/refs/heads/main.lock"];

/// Runs git in the current directory, and answers what it prints.
pub(super) fn git(arguments: &[&str]) -> Result<String, Failure> {
    git_with(arguments, &[])
}

fn git_with(arguments: &[&str], emptied: &[String]) -> Result<String, Failure> {
    let output = run(arguments, emptied)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Failure::Said(format!("git {} failed: {}", arguments.join(" "), said.trim())))
}

/// Commits everything under `path` that has changed, and answers the commit that holds it now.
pub(super) fn commit(path: &str, message: &str) -> Result<String, Failure> {
    clear_stale_locks()?;
    let filters = filters()?;
    git_with(&["add", "--all", "--", path], &filters)?;
    if run(&["diff", "--cached", "--quiet", "HEAD", "--", path], &filters)?.status.success() {
        say("Nothing has changed.");
    } else {
        git_with(&["commit", "--quiet", "--message", message, "--", path], &filters)?;
    }
    let commit = git(&["rev-parse", "HEAD"])?;
    say(format_args!("Commit {commit}"));
    Ok(commit)
}

/// The settings that define filters: commands through which git would pass what it adds.
fn filters() -> Result<Vec<String>, Failure> {
    let found = run(&["config", "--null", "--name-only", "--get-regexp", r"^filter\."], &[])?;
    let names = String::from_utf8_lossy(&found.stdout);
    Ok(names.split_terminator('\0').map(str::to_owned).collect())
}

/// Runs git with these settings of the repository emptied.
fn run(arguments: &[&str], emptied: &[String]) -> Result<Output, Failure> {
    let mut command = Command::new("git");
    command.env_clear().args([
        "-c",
        "core.hooksPath=/dev/null",
        "-c",
        "core.fsmonitor=false",
        "-c",
        "core.attributesFile=/dev/null",
        "-c",
        "core.autocrlf=false",
        "-c",
        "commit.gpgSign=false",
        "-c",
        "gc.auto=0",
        "-c",
        "maintenance.auto=false",
    ]);
    for name in ["PATH", "LANG"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.envs([
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_TERMINAL_PROMPT", "0"),
        ("GIT_AUTHOR_NAME", "Jobstream"),
        ("GIT_AUTHOR_EMAIL", "jobstream@localhost"),
        ("GIT_COMMITTER_NAME", "Jobstream"),
        ("GIT_COMMITTER_EMAIL", "jobstream@localhost"),
    ]);
    command.env("GIT_CONFIG_COUNT", emptied.len().to_string());
    for (index, name) in emptied.iter().enumerate() {
        command.env(format!("GIT_CONFIG_KEY_{index}"), name).env(format!("GIT_CONFIG_VALUE_{index}"), "");
    }
    command.args(arguments).output().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            Failure::Said("git was not found on the PATH. Install git (Debian: apt-get install git).".to_owned())
        }
        _ => error.into(),
    })
}

/// A killed git leaves its locks, and every later one would refuse to work.
pub(super) fn clear_stale_locks() -> Result<(), Failure> {
    for lock in LOCKS {
        let Ok(modified) = fs::metadata(lock).and_then(|it| it.modified()) else { continue };
        let age = SystemTime::now().duration_since(modified).unwrap_or_default();
        // A younger one may be in use; git says so itself if it still is when its turn comes.
        if age < STALE_LOCK {
            std::thread::sleep(STALE_LOCK - age);
        }
        if Path::new(lock).exists() {
            say(format_args!("Removing {lock}, which a process that was killed has left."));
            fs::remove_file(lock)?;
        }
    }
    Ok(())
}
