//! The `.git` directory of a workspace, which jobs can write to: its layout, references and objects.
//!
//! git itself never writes here, and uses neither its configuration nor its hooks. The server has git write objects to a
//! directory of the task's own, moves them here and sets references itself: no link that a job has planted is followed,
//! and everything is flushed before a reference leads to it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::{Failure, say};
use crate::confined::{ConfinedDirectory, Flush, Kind, is_misplaced};

/// A lock of git's that is older than this was left by a process that was killed.
const STALE_LOCK: Duration = Duration::from_secs(10);
const LOCKS: [&str; 4] = ["config.lock", "HEAD.lock", "refs/heads/main.lock", "refs/jobstream/placed.lock"];

/// Branch of the newest commit.
pub(super) const BRANCH: &str = "refs/heads/main";
/// Reference to the commit whose files were last put in place.
pub(super) const PLACED: &str = "refs/jobstream/placed";
/// Holds the id of the workspace that the server created the repository for.
const WORKSPACE: &str = "jobstream-workspace";
/// No more of a small file is read: a job can make it of any length.
const SMALL: u64 = 1 << 20;
/// More of a marker than this is not shown.
const LONGEST_ID: usize = 100;
/// What a reference has been.
const LOGS: &str = "logs";

const HEAD: &[u8] = b"ref: refs/heads/main\n";
const CONFIG: &[u8] =
    b"[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n\tlogallrefupdates = true\n";
/// What `git status` does not show: damaged repositories, which are kept, and what an interrupted task leaves.
const EXCLUDE: &[u8] = b"/.git-damaged-*\n/.git-jobstream-new\n.jobstream-unfinished\n.jobstream-replaced-*\n";
/// Directories that a new repository has, for the server and for people.
const DIRECTORIES: [&str; 6] = ["hooks", "info", "objects/info", "objects/pack", "refs/heads", "refs/tags"];
/// Files that make git look for objects or references in another place.
pub(super) const DETOURS: [&str; 3] = ["commondir", "objects/info/alternates", "objects/info/http-alternates"];

/// The `.git` directory.
#[derive(Debug)]
pub(super) struct GitDirectory(ConfinedDirectory);

impl GitDirectory {
    /// Opens the `.git` directory of a workspace. It is created if nothing is there, and small parts that are missing or
    /// broken are replaced. Everything else that the server did not create is damage, a copy of the repository of another
    /// workspace included.
    pub(super) fn open(worktree: &ConfinedDirectory, workspace: &str) -> Result<Self, Failure> {
        let path = Path::new(".git");
        match worktree.metadata(path)? {
            Some(found) if found.kind != Kind::Directory => {
                return Err(Failure::damaged(".git is not a directory"));
            }
            _ => {}
        }
        let directory = Self(worktree.make_directories(path)?);
        directory.check(workspace)?;
        directory.complete(workspace)?;
        Ok(directory)
    }

    /// A new directory of this name, in place of a file or nothing.
    pub(super) fn create(worktree: &ConfinedDirectory, name: &str, workspace: &str) -> Result<Self, Failure> {
        let directory = Self(worktree.make_directories(Path::new(name))?);
        directory.complete(workspace)?;
        Ok(directory)
    }

    /// Whether it holds only what the server and git put there.
    fn check(&self, workspace: &str) -> Result<(), Failure> {
        let marked = self.marked()?;
        if marked.as_deref().is_some_and(|marked| marked != workspace) {
            let other = marked.unwrap_or_default();
            return Err(Failure::damaged(format!(".git is the repository of another workspace, {other:?}")));
        }
        for path in ["objects", "refs", "refs/heads", "refs/jobstream"] {
            if self.0.metadata(Path::new(path)).map_err(misplaced)?.is_some_and(|it| it.kind != Kind::Directory) {
                return Err(Failure::damaged(format!(".git/{path} is not a directory")));
            }
        }
        for path in DETOURS {
            if self.0.metadata(Path::new(path)).map_err(misplaced)?.is_some() {
                return Err(Failure::damaged(format!(".git/{path} leads to another repository")));
            }
        }
        // git would follow a link here, and wait for a FIFO.
        for (name, kind) in self.entries("objects")? {
            let is_of_objects = name.len() == 2 || name == "pack" || name == "info";
            match kind {
                _ if !is_of_objects => {}
                Kind::Directory => {
                    let path = format!("objects/{name}");
                    for (name, kind) in self.entries(&path)? {
                        if kind != Kind::File && kind != Kind::Directory {
                            return Err(Failure::damaged(format!(".git/{path}/{name} is not a regular file")));
                        }
                    }
                }
                _ => return Err(Failure::damaged(format!(".git/objects/{name} is not a directory"))),
            }
        }
        Ok(())
    }

    /// The workspace that the repository was created for. Repositories of earlier versions do not say.
    fn marked(&self) -> Result<Option<String>, Failure> {
        let content = self.small_file(Path::new(WORKSPACE))?;
        let id = String::from_utf8_lossy(&content);
        let id: String = id.trim_end().chars().take(LONGEST_ID).collect();
        // A loss of power leaves files empty or full of zeros.
        Ok(Some(id).filter(|id| !id.is_empty() && !id.contains('\0')))
    }

    fn entries(&self, path: &str) -> Result<Vec<(String, Kind)>, Failure> {
        match self.0.entries(Path::new(path)) {
            Ok(entries) => {
                Ok(entries.into_iter().map(|(name, kind)| (name.to_string_lossy().into_owned(), kind)).collect())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(misplaced(error)),
        }
    }

    /// Creates what is missing, `HEAD` last: without it git sees no repository.
    fn complete(&self, workspace: &str) -> Result<(), Failure> {
        if self.marked()?.is_none() {
            self.0.write(Path::new(WORKSPACE), format!("{workspace}\n").as_bytes(), None, Flush::Now)?;
        }
        let path = Path::new("config");
        // A loss of power leaves files empty or full of zeros.
        let config = self.small_file(path)?;
        if config.is_empty() || config.contains(&0) {
            self.0.write(path, CONFIG, None, Flush::Now)?;
        }
        let head = self.small_file(Path::new("HEAD"))?;
        let head = String::from_utf8_lossy(&head);
        if head.starts_with("ref: refs/") || is_commit(head.trim_end()) {
            return Ok(());
        }
        if !head.is_empty() {
            say("The file .git/HEAD was damaged. It refers to the branch main again.");
        }
        for path in DIRECTORIES {
            self.0.make_directories(Path::new(path)).map_err(misplaced)?;
        }
        let exclude = Path::new("info/exclude");
        if self.0.metadata(exclude)?.is_none() {
            self.0.write(exclude, EXCLUDE, None, Flush::Now)?;
        }
        Ok(self.0.write(Path::new("HEAD"), HEAD, None, Flush::Now)?)
    }

    /// The beginning of a file. A file that does not exist or cannot be opened, and anything but a file, is empty.
    fn small_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        use io::ErrorKind::{NotFound, PermissionDenied};
        let file = match self.0.file(path) {
            Err(error) if matches!(error.kind(), NotFound | PermissionDenied) || is_misplaced(&error) => {
                return Ok(Vec::new());
            }
            file => file?,
        };
        let mut content = Vec::new();
        file.take(SMALL).read_to_end(&mut content)?;
        Ok(content)
    }

    /// The commit that a reference leads to.
    pub(super) fn reference(&self, name: &str) -> Result<Option<String>, Failure> {
        read_reference(&self.0, name)
    }

    /// Has a reference lead to a commit. With `expected`, only if it leads to that one until now.
    pub(super) fn set(&self, name: &str, commit: &str, expected: Option<Option<&str>>) -> Result<(), Failure> {
        let (path, lock) = (Path::new(name), format!("{name}.lock"));
        let lock = Path::new(&lock);
        let mut file = match self.0.create_new(lock) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.clear_stale_locks()?;
                self.0.create_new(lock)
            }
            created => created,
        }
        .map_err(|error| lock_failure(name, error))?;
        let mut set = || -> Result<Option<String>, Failure> {
            // A damaged reference has no value to expect.
            let before = if expected.is_some() { self.reference(name)? } else { self.reference(name).ok().flatten() };
            if expected.is_some_and(|expected| expected != before.as_deref()) {
                return Err(Failure::Said(format!("{name} was changed by another process meanwhile.")));
            }
            file.write_all(format!("{commit}\n").as_bytes())?;
            file.sync_all()?;
            self.0.rename_over(lock, path).map_err(misplaced)?;
            Ok(before)
        };
        match set() {
            Ok(before) => {
                self.log(name, before.as_deref(), commit);
                Ok(())
            }
            Err(failure) => {
                let _ = self.0.remove(lock);
                Err(failure)
            }
        }
    }

    /// Notes what a reference leads to. The log helps people, and a repair; it is not needed.
    fn log(&self, name: &str, before: Option<&str>, commit: &str) {
        if name != BRANCH || before == Some(commit) {
            return;
        }
        let none = "0".repeat(40);
        let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let line = format!(
            "{} {commit} Jobstream <jobstream@localhost> {seconds} +0000\tjobstream\n",
            before.unwrap_or(&none)
        );
        let _ = self.0.append(&Path::new(LOGS).join(name), line.as_bytes());
    }

    /// The commit whose files are in place in the workspace of a repository that may be damaged.
    pub(super) fn placed(worktree: &ConfinedDirectory, workspace: &str) -> Option<String> {
        let directory = Self(worktree.directory(Path::new(".git")).ok()?);
        if directory.marked().ok()?.is_some_and(|marked| marked != workspace) {
            return None;
        }
        directory.reference(PLACED).ok()?
    }

    /// Commits that were the newest, latest first, as far as that can be read in a damaged repository.
    pub(super) fn former_commits(worktree: &ConfinedDirectory, workspace: &str) -> Vec<String> {
        let Ok(directory) = worktree.directory(Path::new(".git")) else { return Vec::new() };
        let directory = Self(directory);
        if directory.check(workspace).is_err() {
            return Vec::new(); // nothing of it can be trusted
        }
        let log = directory.0.read(&Path::new(LOGS).join(BRANCH)).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let logged = log.lines().rev().filter_map(|line| line.split(' ').nth(1));
        let references = [BRANCH, PLACED].map(|name| directory.reference(name).ok().flatten());
        let mut commits: Vec<String> = Vec::new();
        for commit in references.into_iter().flatten().chain(logged.map(str::to_owned)) {
            if is_commit(&commit) && !commits.contains(&commit) {
                commits.push(commit);
            }
        }
        commits
    }

    /// Moves the objects that git has written to a directory of the task's own into this repository.
    pub(super) fn take_objects(&self, from: &Path) -> Result<(), Failure> {
        let mut changed = BTreeSet::new();
        for directory in fs::read_dir(from)? {
            let directory = directory?;
            let name = directory.file_name();
            if name == "info" || !directory.file_type()?.is_dir() {
                continue;
            }
            let mut files: Vec<PathBuf> =
                fs::read_dir(directory.path())?.map(|it| it.map(|it| it.path())).collect::<io::Result<_>>()?;
            // git sees a pack once its index is there.
            files.sort_by_key(|path| path.extension().is_some_and(|it| it == "idx"));
            let target = Path::new("objects").join(&name);
            for file in files {
                let Some(name) = file.file_name().filter(|name| !name.as_encoded_bytes().starts_with(b"tmp_")) else {
                    continue;
                };
                self.0.take(&file, &target.join(name)).map_err(misplaced)?;
                changed.insert(target.clone());
            }
        }
        for directory in changed {
            self.0.directory(&directory).map_err(misplaced)?.flush()?;
        }
        Ok(())
    }

    /// Content of the index, if there is one that can be read.
    pub(super) fn index(&self) -> Option<Vec<u8>> {
        self.0.read(Path::new("index")).ok()
    }

    /// Replaces the index, unless a process is using it.
    pub(super) fn set_index(&self, content: &[u8]) -> io::Result<()> {
        let lock = Path::new("index.lock");
        // git makes a file: nothing else of this name is a lock that is in use.
        if self.0.metadata(lock)?.is_some_and(|found| found.kind != Kind::File) {
            self.0.clear(lock)?;
        }
        let mut file = self.0.create_new(lock)?;
        let written = file.write_all(content).and_then(|()| file.sync_all());
        let renamed = written.and_then(|()| self.0.rename_over(lock, Path::new("index")));
        if renamed.is_err() {
            let _ = self.0.remove(lock);
        }
        renamed
    }

    /// A killed git leaves its locks, and every later one would refuse to work.
    pub(super) fn clear_stale_locks(&self) -> Result<(), Failure> {
        for lock in LOCKS.map(Path::new) {
            let Some(found) = self.0.metadata(lock).map_err(misplaced)? else { continue };
            // A younger one may be in use; git says so itself if it still is when its turn comes. A lock of git's is a file.
            if found.kind == Kind::File && found.age() < STALE_LOCK {
                std::thread::sleep(STALE_LOCK.saturating_sub(found.age()));
            }
            if self.0.metadata(lock).map_err(misplaced)?.is_some() {
                say(format_args!("Removing .git/{}, which a process that was killed has left.", lock.display()));
                self.0.clear(lock).map_err(misplaced)?;
            }
        }
        Ok(())
    }
}

/// The commit that a reference of a repository leads to.
pub(super) fn read_reference(directory: &ConfinedDirectory, name: &str) -> Result<Option<String>, Failure> {
    match directory.read(Path::new(name)) {
        Ok(content) => match std::str::from_utf8(&content).map(str::trim_end) {
            Ok(commit) if is_commit(commit) => Ok(Some(commit.to_owned())),
            _ => Err(Failure::damaged(format!("{name} does not hold the name of a commit"))),
        },
        // An empty directory, which git leaves, is as good as nothing.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound) => packed_reference(directory, name),
        Err(error) => Err(misplaced(error)),
    }
}

fn packed_reference(directory: &ConfinedDirectory, name: &str) -> Result<Option<String>, Failure> {
    let packed = match directory.read(Path::new("packed-refs")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        packed => packed.map_err(misplaced)?,
    };
    let packed = String::from_utf8_lossy(&packed);
    let found = packed.lines().filter_map(|line| line.split_once(' ')).find(|(_, it)| *it == name);
    Ok(found.map(|(commit, _)| commit.to_owned()).filter(|commit| is_commit(commit)))
}

/// Whether this is the name of an object.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|it| it.is_ascii_hexdigit())
}

/// Something that is not where the server put it is damage; everything else is a failure.
fn misplaced(error: io::Error) -> Failure {
    if is_misplaced(&error) { Failure::damaged(error.to_string()) } else { error.into() }
}

fn lock_failure(name: &str, error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::AlreadyExists => {
            Failure::Said(format!("{name} cannot be changed: another process holds .git/{name}.lock."))
        }
        _ => misplaced(error),
    }
}
