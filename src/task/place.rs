//! Files of a commit, put where jobs find them.
//!
//! Jobs work among them, so each is there whole or not at all, no link of theirs is followed, and what they have made stays: a file is
//! theirs if it is in no commit.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use super::git::{Entry, Repository};
use super::meltano::is_of_project;
use super::pipeline_config::is_of_pipeline;
use super::{Failure, make_directories, say};

/// What stands for a link, and for a repository in the repository, in an entry's place for the mode.
const LINK: &str = "120000";
const REPOSITORY: &str = "160000";
const PROGRAM: &str = "100755";
/// What a file is called until it is whole.
const UNFINISHED: &str = ".jobstream-unfinished";

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
    for (path, entry) in before.iter().filter(|(path, _)| !after.contains_key(*path)) {
        if is_the_servers(path) || contents.are_in(path, entry)? {
            let _ = fs::remove_file(path); // it may be gone, or be a directory by now
        }
    }
    // What says that there is a project comes last.
    let (project, others): (Vec<_>, Vec<_>) = after.iter().partition(|(path, _)| *path == Path::new("meltano.yml"));
    for (path, entry) in others.into_iter().chain(project) {
        if own.contains_key(path) || entry.0 == REPOSITORY {
            continue;
        }
        if let Err(Obstacle(why)) = put(&mut contents, before.get(path), path, entry)? {
            say(format_args!("{} is not as in commit {commit}: {why}", path.display()));
        }
    }
    let is_first = !Path::new(".git/index").exists();
    let changed = after.iter().filter(|(path, entry)| is_first || before.get(*path) != Some(entry));
    let gone = before.keys().filter(|path| !after.contains_key(*path));
    repository.show(changed.map(|(path, entry)| (path, Some(entry))).chain(gone.map(|path| (path, None))));
    Ok(())
}

/// Why a file is not put in its place.
struct Obstacle(String);

fn put(
    contents: &mut Contents,
    before: Option<&Entry>,
    path: &Path,
    entry: &Entry,
) -> Result<Result<(), Obstacle>, Failure> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Ok(Err(Obstacle(format!("{error}.")))),
        Ok(_) if before == Some(entry) => return Ok(Ok(())),
        Ok(found) if found.is_dir() => return Ok(Err(Obstacle("a directory is in its place.".to_owned()))),
        Ok(_) if before.is_some() || is_the_servers(path) => {}
        Ok(_) if contents.are_in(path, entry)? => return Ok(Ok(())),
        Ok(_) => return Ok(Err(Obstacle("a job has made a file of this name.".to_owned()))),
    }
    let content = contents.read(&entry.1)?;
    Ok(write(path, &entry.0, &content).map_err(|error| Obstacle(format!("{error}."))))
}

fn write(path: &Path, mode: &str, content: &[u8]) -> io::Result<()> {
    make_directories(path)?;
    let unfinished = path.with_file_name(UNFINISHED);
    let _ = fs::remove_file(&unfinished); // a killed task's
    if mode == LINK {
        symlink(std::ffi::OsStr::from_bytes(content), &unfinished)?;
    } else {
        let mut file = File::create_new(&unfinished)?;
        file.write_all(content)?;
        if mode == PROGRAM {
            file.set_permissions(Permissions::from_mode(0o700))?;
        }
    }
    fs::rename(&unfinished, path)
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
        let mut process = command.spawn()?;
        let pipes = process.stdin.take().zip(process.stdout.take());
        let (asked, answers) = pipes.ok_or_else(|| io::Error::other("git has no pipes"))?;
        Ok(Self { process, asked, answers: BufReader::new(answers) })
    }

    fn read(&mut self, name: &str) -> Result<Vec<u8>, Failure> {
        writeln!(self.asked, "{name}")?;
        let mut head = String::new();
        self.answers.read_line(&mut head)?;
        let length = head.trim_end().rsplit_once(' ').and_then(|(_, length)| length.parse().ok());
        let length: usize =
            length.ok_or_else(|| Failure::Said(format!("The repository is damaged: {}", head.trim_end())))?;
        let mut content = vec![0; length + 1]; // and the end of the line
        self.answers.read_exact(&mut content)?;
        content.pop();
        Ok(content)
    }

    /// Whether a file is as an entry says. What jobs may have put there is nothing to wait for.
    fn are_in(&mut self, path: &Path, entry: &Entry) -> Result<bool, Failure> {
        let Ok(found) = fs::symlink_metadata(path) else { return Ok(false) };
        if found.is_symlink() {
            let target = fs::read_link(path)?;
            return Ok(entry.0 == LINK && self.read(&entry.1)? == target.as_os_str().as_bytes());
        }
        if !found.is_file() || entry.0 == LINK || entry.0 == REPOSITORY {
            return Ok(false);
        }
        let content = self.read(&entry.1)?;
        Ok(u64::try_from(content.len()).is_ok_and(|length| length == found.len()) && fs::read(path)? == content)
    }
}

impl Drop for Contents {
    fn drop(&mut self) {
        let _ = (self.process.kill(), self.process.wait());
    }
}
