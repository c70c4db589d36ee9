//! git, in a repository that jobs can write to: nothing that they have put into its configuration, attributes or hooks is run.
//!
//! A commit is made with plumbing, from an index of its own: no filter touches the content, no hook runs, and neither a job that
//! uses the repository's index at the moment nor a lock that a killed git has left there is in the way.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use super::{Failure, say};

/// A lock of git's that is older than this was left by a process that was killed.
const STALE_LOCK: Duration = Duration::from_secs(10);
const LOCKS: [&str; 3] = [".git/config.lock", ".git/HEAD.lock", ".git/refs/heads/main.lock"];
const BRANCH: &str = "refs/heads/main";

/// The repository that is the current directory.
pub(super) struct Repository {
    index: PathBuf,
}

/// What a commit does to a file.
pub(super) enum Change<'a> {
    /// The file has this content.
    Write(&'a Path, &'a str),
    /// The file is gone.
    Remove(&'a Path),
}

impl Repository {
    /// Opens the repository, making it if need be. What git needs beside it is kept in `scratch`.
    pub(super) fn open(scratch: &Path) -> Result<Self, Failure> {
        clear_stale_locks()?;
        let repository = Self { index: scratch.join("index") };
        repository.git(&["init", "--quiet", "--initial-branch=main", "."], "")?;
        Ok(repository)
    }

    /// The newest commit, if there is one.
    pub(super) fn head(&self) -> Option<String> {
        self.git(&["rev-parse", "--verify", "--quiet", BRANCH], "").ok()
    }

    /// The files of the newest commit that these patterns name.
    pub(super) fn files(&self, patterns: &[&str]) -> Result<Vec<PathBuf>, Failure> {
        if self.head().is_none() {
            return Ok(Vec::new());
        }
        // Of `ls-tree` a pattern is only ever the beginning of a path, so what is wanted is found in an index.
        self.git(&["read-tree", BRANCH], "")?;
        let found = self.raw(&[&["ls-files", "-z", "--cached", "--"], patterns].concat(), "")?;
        let names = found.split(|byte| *byte == 0).filter(|name| !name.is_empty());
        Ok(names.map(|name| PathBuf::from(String::from_utf8_lossy(name).into_owned())).collect())
    }

    /// What the newest commit holds in a file, which is a text.
    pub(super) fn content(&self, path: &Path) -> Result<String, Failure> {
        let content = self.raw(&["cat-file", "blob", &format!("{BRANCH}:{}", path.display())], "")?;
        String::from_utf8(content).map_err(|_| Failure::Said(format!("{} is not UTF-8.", path.display())))
    }

    /// Commits these changes on top of what is there, and answers the commit that holds them. If nothing changes, that is the
    /// newest one.
    pub(super) fn commit(&self, message: &str, changes: &[Change<'_>]) -> Result<String, Failure> {
        let parent = self.head();
        match &parent {
            Some(parent) => self.git(&["read-tree", parent], "")?,
            None => self.git(&["read-tree", "--empty"], "")?,
        };
        let entries = changes.iter().map(|change| self.entry(change)).collect::<Result<Vec<_>, _>>()?;
        for entry in &entries {
            self.git(&entry.iter().map(String::as_str).collect::<Vec<_>>(), "")?;
        }
        // A job that has damaged the repository spoils its own files only.
        let tree = self.git(&["write-tree", "--missing-ok"], "")?;
        if let Some(parent) = &parent
            && self.git(&["rev-parse", &format!("{parent}^{{tree}}")], "")? == tree
        {
            say(format_args!("Nothing has changed since commit {parent}."));
            return Ok(parent.clone());
        }
        let parents = parent.as_deref().map_or(vec![], |parent| vec!["-p", parent]);
        let commit = self.git(&[&["commit-tree", &tree][..], &parents].concat(), message)?;
        self.git(&["update-ref", BRANCH, &commit, parent.as_deref().unwrap_or_default()], "")?;
        self.show(&entries);
        say(format_args!("Commit {commit}: {message}"));
        Ok(commit)
    }

    /// The command that puts a change into an index.
    fn entry(&self, change: &Change<'_>) -> Result<Vec<String>, Failure> {
        let words = match change {
            Change::Write(path, content) => {
                let blob = self.git(&["hash-object", "-w", "--no-filters", "--stdin"], content)?;
                vec!["--add".to_owned(), "--cacheinfo".to_owned(), format!("100644,{blob},{}", path.display())]
            }
            Change::Remove(path) => vec!["--force-remove".to_owned(), "--".to_owned(), path.display().to_string()],
        };
        Ok(std::iter::once("update-index".to_owned()).chain(words).collect())
    }

    /// Puts the changes into the repository's own index too, unless somebody is using it: it is what `git status` compares with.
    fn show(&self, entries: &[Vec<String>]) {
        for entry in entries {
            let _ = self.command().env_remove("GIT_INDEX_FILE").args(entry).stdin(Stdio::null()).output();
        }
    }

    /// Runs git with this on its standard input, and answers the line that it prints.
    fn git(&self, arguments: &[&str], input: &str) -> Result<String, Failure> {
        Ok(String::from_utf8_lossy(&self.raw(arguments, input)?).trim().to_owned())
    }

    /// The same, byte for byte.
    fn raw(&self, arguments: &[&str], input: &str) -> Result<Vec<u8>, Failure> {
        let mut command = self.command();
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                Failure::Said("git was not found on the PATH. Install git (Debian: apt-get install git).".to_owned())
            }
            _ => error.into(),
        })?;
        // git reads all of its input before it prints anything, and what it prints is short.
        if let Some(mut stdin) = child.stdin.take() {
            let _ = stdin.write_all(input.as_bytes()); // if it has ended, its exit code says why
        }
        let output = child.wait_with_output()?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(Failure::Said(format!("git {} failed: {}", arguments.join(" "), said.trim())))
    }

    fn command(&self) -> Command {
        let mut command = Command::new("git");
        command.env_clear();
        for setting in ["core.hooksPath=/dev/null", "core.fsmonitor=false", "gc.auto=0", "maintenance.auto=false"] {
            command.args(["-c", setting]);
        }
        for name in ["PATH", "LANG", "JOBSTREAM_JOB_ID"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.env("GIT_INDEX_FILE", &self.index).envs([
            ("GIT_DIR", ".git"),
            ("GIT_WORK_TREE", "."),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_TERMINAL_PROMPT", "0"),
            // Nothing is fetched, least of all by a command that stands in the repository's configuration.
            ("GIT_NO_LAZY_FETCH", "1"),
            ("GIT_ALLOW_PROTOCOL", ""),
            ("GIT_AUTHOR_NAME", "Jobstream"),
            ("GIT_AUTHOR_EMAIL", "jobstream@localhost"),
            ("GIT_COMMITTER_NAME", "Jobstream"),
            ("GIT_COMMITTER_EMAIL", "jobstream@localhost"),
        ]);
        command
    }
}

/// A killed git leaves its locks, and every later one would refuse to work.
fn clear_stale_locks() -> Result<(), Failure> {
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
