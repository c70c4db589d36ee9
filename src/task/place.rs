//! Files of a commit, put where jobs find them.
//!
//! Jobs work among them, so each is there whole or not at all, no link of theirs is followed, and what they have made stays: a file is
//! theirs if it is in no commit.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use rustix::fs::Mode;

use super::git::{Entry, Repository};
use super::meltano::is_of_project;
use super::pipeline_config::is_of_pipeline;
use super::plumbing::Complaint;
use super::{Failure, say};
use crate::confined::{ConfinedDirectory, Flush, Kind};

/// What stands for a link, and for a repository in the repository, in an entry's place for the mode.
const LINK: &str = "120000";
const REPOSITORY: &str = "160000";
const PROGRAM: &str = "100755";
/// How many files are flushed one by one. Of more, all are flushed together.
const FLUSHED_ONE_BY_ONE: usize = 50;

/// Puts the files of a commit in place, where those of another were put before. `own` are such as are in place already.
pub(super) fn place(
    repository: &Repository,
    before: Option<&str>,
    commit: &str,
    own: &BTreeMap<PathBuf, String>,
) -> Result<(), Failure> {
    // What a job has damaged is as good as nothing.
    let before = before.and_then(|commit| repository.entries(commit).ok()).unwrap_or_default();
    let after = repository.entries(commit)?;
    let mut contents = Contents::of(repository)?;
    let worktree = repository.worktree();
    for (path, entry) in before.iter().filter(|(path, _)| !after.contains_key(*path)) {
        if is_the_servers(path) || contents.are_in(worktree, path, entry)? {
            // It may be a directory by now, or be behind a link of a job.
            if let Err(error) = worktree.remove(path) {
                say(format_args!("{} is not removed: {error}.", path.display()));
            }
        }
    }
    let is_first = worktree.metadata(Path::new(".git/index")).is_ok_and(|it| it.is_none());
    let changed = after.iter().filter(|(path, entry)| is_first || before.get(*path) != Some(entry));
    let flush = if changed.clone().count() > FLUSHED_ONE_BY_ONE { Flush::Later } else { Flush::Now };
    // What says that there is a project comes last.
    let (project, others): (Vec<_>, Vec<_>) = after.iter().partition(|(path, _)| *path == Path::new("meltano.yml"));
    for (path, entry) in others.into_iter().chain(project) {
        if own.contains_key(path) || entry.0 == REPOSITORY {
            continue;
        }
        if let Err(Obstacle(why)) = put(&mut contents, worktree, before.get(path), path, entry, flush)? {
            say(format_args!("{} is not as in commit {commit}: {why}", path.display()));
        }
    }
    if flush == Flush::Later {
        worktree.flush_all()?;
    }
    let gone = before.keys().filter(|path| !after.contains_key(*path));
    repository.show(commit, changed.map(|(path, entry)| (path, Some(entry))).chain(gone.map(|path| (path, None))));
    Ok(())
}

/// Why a file is not put in its place.
struct Obstacle(String);

fn put(
    contents: &mut Contents,
    worktree: &ConfinedDirectory,
    before: Option<&Entry>,
    path: &Path,
    entry: &Entry,
    flush: Flush,
) -> Result<Result<(), Obstacle>, Failure> {
    match worktree.metadata(path) {
        Ok(None) => {}
        Err(error) => return Ok(Err(Obstacle(format!("{error}.")))),
        Ok(Some(_)) if before == Some(entry) => return Ok(Ok(())),
        Ok(Some(found)) if found.kind == Kind::Directory && !is_the_servers(path) => {
            return Ok(Err(Obstacle("a directory is in its place.".to_owned())));
        }
        Ok(Some(_)) if before.is_some() || is_the_servers(path) => {}
        Ok(Some(_)) if contents.are_in(worktree, path, entry)? => return Ok(Ok(())),
        Ok(Some(_)) => return Ok(Err(Obstacle("a job has made a file of this name.".to_owned()))),
    }
    let content = contents.read(&entry.1)?;
    Ok(write(worktree, path, &entry.0, &content, flush).map_err(|error| Obstacle(format!("{error}."))))
}

fn write(worktree: &ConfinedDirectory, path: &Path, mode: &str, content: &[u8], flush: Flush) -> io::Result<()> {
    match mode {
        LINK => worktree.write_link(path, content),
        _ => worktree.write(path, content, (mode == PROGRAM).then_some(Mode::RWXU), flush),
    }
}

/// Whether the server writes such a file itself.
fn is_the_servers(path: &Path) -> bool {
    is_of_pipeline(path) || is_of_project(path)
}

/// A git that reads contents, one after the other, and byte for byte.
struct Contents {
    process: Child,
    asked: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Contents {
    fn of(repository: &Repository) -> io::Result<Self> {
        let mut command = repository.command();
        command.args(["cat-file", "--batch"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().map_err(|error| io::Error::new(error.kind(), format!("git: {error}")))?;
        let pipes = process.stdin.take().zip(process.stdout.take());
        let (asked, answers) = pipes.ok_or_else(|| io::Error::other("git has no pipes"))?;
        Ok(Self { process, asked, answers: BufReader::new(answers) })
    }

    fn read(&mut self, name: &str) -> Result<Vec<u8>, Failure> {
        writeln!(self.asked, "{name}")?;
        let mut head = String::new();
        self.answers.read_line(&mut head)?;
        let length = head.trim_end().rsplit_once(' ').and_then(|(_, length)| length.parse().ok());
        let length: usize = length.ok_or_else(|| match head.trim_end() {
            "" => ended(name),
            said => Failure::damaged(format!("object {said}")),
        })?;
        let mut content = vec![0; length + 1]; // and the end of the line
        self.answers.read_exact(&mut content).map_err(|_| ended(name))?;
        content.pop();
        Ok(content)
    }

    /// Whether a file is as an entry says. What jobs may have put there is nothing to wait for.
    fn are_in(&mut self, worktree: &ConfinedDirectory, path: &Path, entry: &Entry) -> Result<bool, Failure> {
        let Ok(Some(found)) = worktree.metadata(path) else { return Ok(false) };
        match found.kind {
            Kind::Link if entry.0 == LINK => {
                let target = worktree.link_target(path).unwrap_or_default();
                Ok(self.read(&entry.1)? == target.as_bytes())
            }
            Kind::File if entry.0 != LINK && entry.0 != REPOSITORY => {
                let content = self.read(&entry.1)?;
                let as_long = u64::try_from(content.len()).is_ok_and(|length| length == found.length);
                Ok(as_long && worktree.read(path).is_ok_and(|found| found == content))
            }
            _ => Ok(false),
        }
    }
}

/// git has ended: the object is damaged, or git was killed.
fn ended(name: &str) -> Failure {
    let said = Complaint { said: format!("it ended at object {name}, which may be missing"), is_passing: false };
    Failure::Git { command: "cat-file".to_owned(), said }
}

impl Drop for Contents {
    fn drop(&mut self) {
        let _ = (self.process.kill(), self.process.wait());
    }
}
