//! git as a process: in a directory of the task's own, with an environment of its own, and what its failures mean.

use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::Failure;
use crate::confined::fresh_directory;

/// A bare repository of the task's own that reads the objects of others, and keeps what is new to itself.
pub(super) fn private(private: PathBuf, others: &[&Path]) -> Result<PathBuf, Failure> {
    fresh_directory(&private)?;
    for directory in ["objects", "objects/info", "refs"] {
        fs::create_dir(private.join(directory))?;
    }
    let alternates: Vec<u8> = others.iter().flat_map(|it| [it.as_os_str().as_bytes(), b"\n"].concat()).collect();
    fs::write(private.join("objects/info/alternates"), alternates)?;
    fs::write(private.join("config"), "[core]\n\trepositoryformatversion = 0\n\tbare = true\n")?;
    fs::write(private.join("HEAD"), "ref: refs/heads/main\n")?;
    Ok(private)
}

/// git in a bare repository.
pub(super) fn git_in(private: &Path) -> Command {
    let mut command = plumbing();
    command.env("GIT_DIR", private).env("GIT_INDEX_FILE", private.join("index")).current_dir(private);
    command
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
        // What git says is recognised.
        ("LC_ALL", "C"),
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

/// Why git failed.
#[derive(Debug, thiserror::Error)]
#[error("{said}")]
pub(super) struct Complaint {
    /// What it said.
    pub(super) said: String,
    /// Whether the machine was short of something, or git was killed: this says nothing about the repository.
    pub(super) is_passing: bool,
}

/// Errors of the system that say nothing about a repository.
const PASSING: [&str; 11] = [
    "No space left on device",
    "Disk quota exceeded",
    "Cannot allocate memory",
    "out of memory",
    "Out of memory",
    "Too many open files",
    "Resource temporarily unavailable",
    "Permission denied",
    "Read-only file system",
    "Input/output error",
    "Stale file handle",
];
/// Words of git's that a damaged repository may be behind.
const OF_DAMAGE: [&str; 10] = [
    "corrupt",
    "empty",
    "missing",
    "bad ",
    "broken",
    "unable to",
    "not a git repository",
    "does not appear",
    "not our ref",
    "objects",
];
/// Words of failures of a network, some of which have words of damage in them.
const OF_NETWORK: [&str; 14] = [
    "unable to access 'http",
    "unable to access 'ftp",
    "unable to connect to",
    "unable to look up",
    "Could not resolve",
    "Failed to connect",
    "Connection refused",
    "Connection reset",
    "Connection timed out",
    "Operation timed out",
    "Network is unreachable",
    "No route to host",
    "name resolution",
    "ssh: ",
];

impl Complaint {
    pub(super) fn of(output: &Output) -> Self {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = match said.trim() {
            "" => output.status.to_string(),
            said => said.to_owned(),
        };
        let is_passing = output.status.code().is_none() || PASSING.iter().any(|it| said.contains(it));
        Self { said, is_passing }
    }

    /// Whether it is worth to read the whole repository.
    pub(super) fn may_be_damage(&self) -> bool {
        let has = |words: &[&str]| words.iter().any(|it| self.said.contains(it));
        !self.is_passing && has(&OF_DAMAGE) && !has(&OF_NETWORK)
    }

    fn passing(error: impl std::fmt::Display) -> Self {
        Self { said: error.to_string(), is_passing: true }
    }
}

/// A text of several lines in one.
pub(super) fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).take(5).collect::<Vec<_>>().join("; ")
}

/// Runs git with this on its standard input, and answers what it prints; or what it says if it fails.
pub(super) fn run(command: &mut Command, input: &[u8]) -> Result<Vec<u8>, Complaint> {
    run_into(command, input, Stdio::piped())
}

/// The same, where what it prints is not needed.
pub(super) fn run_quietly(command: &mut Command, input: &[u8]) -> Result<(), Complaint> {
    run_into(command, input, Stdio::null()).map(drop)
}

fn run_into(command: &mut Command, input: &[u8], stdout: Stdio) -> Result<Vec<u8>, Complaint> {
    command.stdin(Stdio::piped()).stdout(stdout).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| Complaint::passing(not_started(error)))?;
    let stdin = child.stdin.take();
    let output = std::thread::scope(|scope| {
        // git may print before it has read everything.
        scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(input))); // if it has ended, its exit code says why
        child.wait_with_output()
    });
    let output = output.map_err(Complaint::passing)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(Complaint::of(&output))
}

/// Why git could not be started.
pub(super) fn not_started(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::NotFound => {
            Failure::Said("git was not found on the PATH. Install git (Debian: apt-get install git).".to_owned())
        }
        _ => Failure::program("git", error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_of_a_network_are_no_damage() {
        let may_be_damage = |said: &str| Complaint { said: said.to_owned(), is_passing: false }.may_be_damage();
        for said in [
            "fatal: unable to access 'https://example.com/r.git/': Could not resolve host: example.com",
            "fatal: unable to access 'https://example.com/r.git/': The requested URL returned error: 503",
            "fatal: unable to connect to example.com:\nexample.com[0: 192.0.2.1]: errno=Connection refused",
            "fatal: unable to look up example.com (port 9418) (Name or service not known)",
            "ssh: connect to host example.com port 22: No route to host\nfatal: Could not read from remote repository.",
        ] {
            assert!(!may_be_damage(said), "{said}");
        }
        for said in [
            "error: object file objects/ab/cd is empty\nfatal: loose object abcd is corrupt",
            "fatal: unable to read tree abcd",
            "fatal: git upload-pack: not our ref abcd",
            "fatal: '/data/r.git' does not appear to be a git repository\nfatal: Could not read from remote repository.",
        ] {
            assert!(may_be_damage(said), "{said}");
        }
    }
}
