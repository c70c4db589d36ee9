//! git, in a repository that jobs can write to: nothing that they have put into its configuration, attributes or hooks is run.
//!
//! A commit is made with plumbing, from an index of its own: no filter touches the content, no hook runs, and neither a job that
//! uses the repository's index at the moment nor a lock that a killed git has left there is in the way.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use super::{Failure, say};

/// A lock of git's that is older than this was left by a process that was killed.
const STALE_LOCK: Duration = Duration::from_secs(10);
const LOCKS: [&str; 4] =
    [".git/config.lock", ".git/HEAD.lock", ".git/refs/heads/main.lock", ".git/refs/jobstream/placed.lock"];
/// What a repository is not one without.
const PARTS: [&str; 3] = [".git/HEAD", ".git/objects", ".git/refs"];

/// The newest commit,
pub(super) const BRANCH: &str = "refs/heads/main";
/// and the one whose files were last put in place.
pub(super) const PLACED: &str = "refs/jobstream/placed";

/// The repository that is the current directory, and the commit in it that is built on.
pub(super) struct Repository {
    index: PathBuf,
    base: Option<String>,
    /// A commit that was the newest, and that this one does not follow.
    pub(super) left: Option<String>,
}

/// What a commit does to a file.
pub(super) enum Change<'a> {
    /// The file has this content.
    Write(&'a Path, &'a str),
    /// The file is gone.
    Remove(&'a Path),
}

/// A file of a commit: its mode, and the name of its content.
pub(super) type Entry = (String, String);

impl Repository {
    /// Opens the repository, making it if need be, at its newest commit. What git needs beside it is kept in `scratch`.
    pub(super) fn open(scratch: &Path) -> Result<Self, Failure> {
        clear_stale_locks()?;
        let repository = Self { index: scratch.join("index"), base: None, left: None };
        repository.git(&["init", "--quiet", "--initial-branch=main", "."], "")?;
        Ok(Self { base: repository.resolve(BRANCH), ..repository })
    }

    /// The same while jobs may be using it: if it is there, it stays as it is.
    pub(super) fn find(scratch: &Path) -> Result<Self, Failure> {
        if !PARTS.iter().all(|part| Path::new(part).exists()) {
            return Self::open(scratch);
        }
        let repository = Self { index: scratch.join("index"), base: None, left: None };
        Ok(Self { base: repository.resolve(BRANCH), ..repository })
    }

    /// The same repository, to build on another commit.
    pub(super) fn on(self, base: Option<String>, left: Option<String>) -> Self {
        Self { base, left, ..self }
    }

    /// The commit that is built on, if there is one.
    pub(super) fn head(&self) -> Option<&str> {
        self.base.as_deref()
    }

    /// The commit that a reference leads to.
    pub(super) fn resolve(&self, reference: &str) -> Option<String> {
        self.git(&["rev-parse", "--verify", "--quiet", reference], "").ok()
    }

    /// Has a reference lead to a commit.
    pub(super) fn set(&self, reference: &str, commit: &str) -> Result<(), Failure> {
        let set = || self.git(&["update-ref", reference, commit], "");
        if set().is_err() {
            clear_stale_locks()?;
            set()?;
        }
        Ok(())
    }

    /// Makes a commit the newest one, if that is still the one that it was built on.
    pub(super) fn advance(&self, commit: &str) -> Result<(), Failure> {
        self.git(&["update-ref", BRANCH, commit, self.head().unwrap_or_default()], "").map(drop)
    }

    /// Whether one commit follows another, or is the same.
    pub(super) fn follows(&self, commit: &str, earlier: &str) -> bool {
        commit == earlier || self.git(&["merge-base", "--is-ancestor", earlier, commit], "").is_ok()
    }

    /// The files of the commit that is built on that these patterns name.
    pub(super) fn files(&self, patterns: &[&str]) -> Result<Vec<PathBuf>, Failure> {
        self.base.as_deref().map_or(Ok(Vec::new()), |base| self.files_of(base, patterns))
    }

    /// The files of a commit that these patterns name.
    pub(super) fn files_of(&self, commit: &str, patterns: &[&str]) -> Result<Vec<PathBuf>, Failure> {
        // Of `ls-tree` a pattern is only ever the beginning of a path, so what is wanted is found in an index.
        self.git(&["read-tree", commit], "")?;
        let found = self.raw(&[&["ls-files", "-z", "--cached", "--"], patterns].concat(), "")?;
        let names = found.split(|byte| *byte == 0).filter(|name| !name.is_empty());
        Ok(names.map(|name| PathBuf::from(String::from_utf8_lossy(name).into_owned())).collect())
    }

    /// All files of a commit. Its paths are such as can stand in a working directory.
    pub(super) fn entries(&self, commit: &str) -> Result<BTreeMap<PathBuf, Entry>, Failure> {
        self.git(&["read-tree", commit], "")?;
        let listed = self.raw(&["ls-files", "-z", "--stage"], "")?;
        let entry = |line: &[u8]| {
            let tab = line.iter().position(|byte| *byte == b'\t')?;
            let mut words = std::str::from_utf8(&line[..tab]).ok()?.split(' ');
            let entry = (words.next()?.to_owned(), words.next()?.to_owned());
            Some((PathBuf::from(OsStr::from_bytes(&line[tab + 1..])), entry))
        };
        Ok(listed.split(|byte| *byte == 0).filter_map(entry).collect())
    }

    /// The files of a directory of the commit that is built on that hold this text.
    pub(super) fn files_with(&self, text: &str, directory: &str) -> Result<Vec<PathBuf>, Failure> {
        let Some(base) = &self.base else { return Ok(Vec::new()) };
        let mut command = self.command();
        command.args(["grep", "-z", "--files-with-matches", "--fixed-strings", "-e", text, base, "--", directory]);
        let output = command.stdin(Stdio::null()).output()?;
        match output.status.code() {
            Some(0) => {}
            Some(1) => return Ok(Vec::new()), // none does
            _ => return Err(Failure::Said(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
        }
        let names = output.stdout.split(|byte| *byte == 0).filter_map(|name| {
            let path = name.strip_prefix(base.as_bytes())?.strip_prefix(b":")?;
            Some(PathBuf::from(OsStr::from_bytes(path)))
        });
        Ok(names.collect())
    }

    /// What the commit that is built on holds in a file, which is a text.
    pub(super) fn content(&self, path: &Path) -> Result<String, Failure> {
        self.base.as_deref().map_or(Ok(String::new()), |base| self.content_of(base, path))
    }

    /// What a commit holds in a file, which is a text.
    pub(super) fn content_of(&self, commit: &str, path: &Path) -> Result<String, Failure> {
        let content = self.raw(&["cat-file", "blob", &format!("{commit}:{}", path.display())], "")?;
        String::from_utf8(content).map_err(|_| Failure::Said(format!("{} is not UTF-8.", path.display())))
    }

    /// Makes a commit of these changes on top of the one that is built on, and answers it. If nothing changes, that is the one that is there.
    pub(super) fn commit(&self, message: &str, changes: &[Change<'_>]) -> Result<String, Failure> {
        let parent = self.head();
        match parent {
            Some(parent) => self.git(&["read-tree", parent], "")?,
            None => self.git(&["read-tree", "--empty"], "")?,
        };
        for change in changes {
            let entry = self.entry(change)?;
            self.git(&entry.iter().map(String::as_str).collect::<Vec<_>>(), "")?;
        }
        // A job that has damaged the repository spoils its own files only.
        let tree = self.git(&["write-tree", "--missing-ok"], "")?;
        if let Some(parent) = parent
            && self.git(&["rev-parse", &format!("{parent}^{{tree}}")], "")? == tree
        {
            say(format_args!("Nothing has changed since commit {parent}."));
            return Ok(parent.to_owned());
        }
        let parents = parent.map_or(vec![], |parent| vec!["-p", parent]);
        let commit = self.git(&[&["commit-tree", &tree][..], &parents].concat(), message)?;
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

    /// Puts entries into the repository's own index too, unless somebody is using it: it is what `git status` compares with. One without a mode
    /// and a name is gone.
    pub(super) fn show<'a>(&self, entries: impl Iterator<Item = (&'a PathBuf, Option<&'a Entry>)>) {
        let mut input = Vec::new();
        for (path, entry) in entries {
            let gone = ("0".to_owned(), "0".repeat(40));
            let (mode, name) = entry.unwrap_or(&gone);
            input.extend(format!("{mode} {name}\t").into_bytes());
            input.extend(path.as_os_str().as_bytes());
            input.push(0);
        }
        let mut command = self.command();
        command.env_remove("GIT_INDEX_FILE").args(["update-index", "--add", "-z", "--index-info"]);
        let _ = run(&mut command, &input);
    }

    /// Runs git with this on its standard input, and answers the line that it prints.
    fn git(&self, arguments: &[&str], input: &str) -> Result<String, Failure> {
        Ok(String::from_utf8_lossy(&self.raw(arguments, input)?).trim().to_owned())
    }

    /// The same, byte for byte.
    fn raw(&self, arguments: &[&str], input: &str) -> Result<Vec<u8>, Failure> {
        run(self.command().args(arguments), input.as_bytes())
            .map_err(|said| Failure::Said(format!("git {} failed: {said}", arguments.join(" "))))
    }

    /// git on this repository.
    pub(super) fn command(&self) -> Command {
        let mut command = plumbing();
        command.env("GIT_INDEX_FILE", &self.index).env("GIT_DIR", ".git").env("GIT_WORK_TREE", ".");
        command
    }
}

/// What a reference leads to, if that stands in a file of its own, as it does until somebody packs references.
pub(super) fn loose(directory: &Path, reference: &str) -> Option<String> {
    let commit = fs::read_to_string(directory.join(reference)).ok()?.trim_end().to_owned();
    (commit.len() >= 40 && commit.chars().all(|it| it.is_ascii_hexdigit())).then_some(commit)
}

/// git with an environment of its own.
pub(super) fn plumbing() -> Command {
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
    command.envs([
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

/// Runs git with this on its standard input, and answers what it prints; or what it says if it fails.
pub(super) fn run(command: &mut Command, input: &[u8]) -> Result<Vec<u8>, String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            "git was not found on the PATH. Install git (Debian: apt-get install git).".to_owned()
        }
        _ => error.to_string(),
    })?;
    // git reads all of its input before it prints anything, and what it prints is short.
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(input); // if it has ended, its exit code says why
    }
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
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
