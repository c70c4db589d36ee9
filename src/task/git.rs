//! git, on the objects of a repository that jobs can write to: nothing that they have put into its configuration, attributes
//! or hooks is used, for git works in a directory of the task's own, and only reads the objects of the workspace's repository.
//!
//! A commit is made with plumbing, from an index of its own: no filter touches the content, no hook runs, and neither a job that
//! uses the repository's index at the moment nor a lock that a killed git has left there is in the way.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::gitdir::{BRANCH, GitDirectory};
use super::plumbing::{Complaint, git_in, not_started, one_line, private, run};
use super::{Failure, say};
use crate::confined::ConfinedDirectory;

/// Changes an index as its standard input says.
const UPDATE_INDEX: [&str; 4] = ["update-index", "--add", "-z", "--index-info"];
/// A mode of an entry that is a repository in the repository.
const REPOSITORY: &str = "160000";

/// The repository of the workspace that is the current directory, and the commit in it that is built on.
pub(super) struct Repository {
    worktree: ConfinedDirectory,
    directory: GitDirectory,
    /// The git directory of the task's own.
    private: PathBuf,
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
    pub(super) fn open(scratch: &Path, workspace: &str) -> Result<Self, Failure> {
        let repository = Self::find(scratch, workspace)?;
        repository.directory.clear_stale_locks()?;
        Ok(repository)
    }

    /// The same while jobs may be using it: it is not waited for locks of theirs.
    pub(super) fn find(scratch: &Path, workspace: &str) -> Result<Self, Failure> {
        let worktree = ConfinedDirectory::open(Path::new("."))?;
        let directory = GitDirectory::open(&worktree, workspace)?;
        let private = private(scratch.join("repository"), &[&std::env::current_dir()?.join(".git/objects")])?;
        let base = directory.reference(BRANCH)?;
        let repository = Self { worktree, directory, private, base, left: None };
        if let Some(base) = &repository.base {
            repository.verify(base)?;
        }
        Ok(repository)
    }

    /// The directory that the files are in.
    pub(super) fn worktree(&self) -> &ConfinedDirectory {
        &self.worktree
    }

    /// The git directory of the task's own, whose objects are this repository's and what is new.
    pub(super) fn private(&self) -> &Path {
        &self.private
    }

    /// Whether a commit, and all that its files are made of, can be read. If not, the repository is damaged.
    pub(super) fn verify(&self, commit: &str) -> Result<(), Failure> {
        let damaged = |failure: Failure| match failure {
            Failure::Git { said: Complaint { said, is_passing: false }, .. } => {
                Failure::damaged(format!("commit {commit} cannot be read: {said}"))
            }
            failure => failure,
        };
        let entries = self.entries(commit).map_err(damaged)?;
        let names = entries.values().filter(|(mode, _)| mode != REPOSITORY).map(|(_, name)| name.as_str());
        let asked: String = std::iter::once(commit).chain(names).flat_map(|name| [name, "\n"]).collect();
        let found = self.raw(&["cat-file", "--batch-check"], &asked).map_err(damaged)?;
        match String::from_utf8_lossy(&found).lines().find(|line| line.ends_with(" missing")) {
            Some(line) => Err(Failure::damaged(format!("object {line}"))),
            None => Ok(()),
        }
    }

    /// Reads everything that a commit follows, and says what is wrong with it.
    pub(super) fn check_history(&self, commit: &str) -> Result<(), Failure> {
        let arguments = ["fsck", "--no-dangling", "--no-reflogs", "--no-progress", commit];
        self.raw(&arguments, "").map(drop).map_err(|failure| match failure {
            Failure::Git { said: Complaint { said, is_passing: false }, .. } => Failure::damaged(one_line(&said)),
            failure => failure,
        })
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
    pub(super) fn resolve(&self, reference: &str) -> Result<Option<String>, Failure> {
        self.directory.reference(reference)
    }

    /// Has a reference lead to a commit, once all that it is made of is on the disk.
    pub(super) fn set(&self, reference: &str, commit: &str) -> Result<(), Failure> {
        self.keep_objects()?;
        self.directory.set(reference, commit, None)
    }

    /// Makes a commit the newest one, if that is still the one that it was built on.
    pub(super) fn advance(&self, commit: &str) -> Result<(), Failure> {
        self.keep_objects()?;
        self.directory.set(BRANCH, commit, Some(self.head()))
    }

    fn keep_objects(&self) -> Result<(), Failure> {
        self.directory.take_objects(&self.private.join("objects"))
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
        let output = command.stdin(Stdio::null()).output().map_err(not_started)?;
        match output.status.code() {
            Some(0) => {}
            Some(1) => return Ok(Vec::new()), // none does
            _ => {
                let said = Complaint::of(&output);
                return Err(Failure::Git { command: "grep".to_owned(), said });
            }
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
        let mut entries = Vec::new();
        for change in changes {
            match change {
                Change::Write(path, content) => {
                    let blob = self.git(&["hash-object", "-w", "--no-filters", "--stdin"], content)?;
                    push_entry(&mut entries, path, Some(&("100644".to_owned(), blob)));
                }
                Change::Remove(path) => push_entry(&mut entries, path, None),
            }
        }
        self.raw(&UPDATE_INDEX, &entries)?;
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

    /// Puts entries into the repository's own index too, unless somebody is using it: it is what `git status` compares with. One without a mode
    /// and a name is gone.
    pub(super) fn show<'a>(&self, commit: &str, entries: impl Iterator<Item = (&'a PathBuf, Option<&'a Entry>)>) {
        let mut input = Vec::new();
        for (path, entry) in entries {
            push_entry(&mut input, path, entry);
        }
        // One that is damaged is made anew.
        let shown = self.private.join("shown-index");
        let update = |index: Option<Vec<u8>>| -> Option<Vec<u8>> {
            match index {
                Some(index) => fs::write(&shown, index).ok()?,
                None => self.read_tree_into(&shown, commit)?,
            }
            let mut command = self.command();
            command.env("GIT_INDEX_FILE", &shown).args(UPDATE_INDEX);
            run(&mut command, &input).ok()?;
            fs::read(&shown).ok()
        };
        let updated = self.directory.index().and_then(|index| update(Some(index))).or_else(|| update(None));
        if let Some(index) = updated {
            let _ = self.directory.set_index(&index);
        }
    }

    fn read_tree_into(&self, index: &Path, commit: &str) -> Option<()> {
        let _ = fs::remove_file(index);
        run(self.command().env("GIT_INDEX_FILE", index).args(["read-tree", commit]), b"").ok().map(drop)
    }

    /// Runs git with this on its standard input, and answers the line that it prints.
    fn git(&self, arguments: &[&str], input: &str) -> Result<String, Failure> {
        Ok(String::from_utf8_lossy(&self.raw(arguments, input)?).trim().to_owned())
    }

    /// The same, byte for byte.
    fn raw(&self, arguments: &[&str], input: impl AsRef<[u8]>) -> Result<Vec<u8>, Failure> {
        run(self.command().args(arguments), input.as_ref())
            .map_err(|said| Failure::Git { command: arguments.join(" "), said })
    }

    /// git on this repository.
    pub(super) fn command(&self) -> Command {
        git_in(&self.private)
    }
}

/// Adds to what `git update-index --index-info` reads. An entry without a mode and a name is gone.
fn push_entry(input: &mut Vec<u8>, path: &Path, entry: Option<&Entry>) {
    let gone = ("0".to_owned(), "0".repeat(40));
    let (mode, name) = entry.unwrap_or(&gone);
    input.extend(format!("{mode} {name}\t").into_bytes());
    input.extend(path.as_os_str().as_bytes());
    input.push(0);
}
