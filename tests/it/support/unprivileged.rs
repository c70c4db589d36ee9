//! Programs that run as another user than root, as a server should.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// The user id of `nobody`, and the group id of its group.
pub const NOBODY: u32 = 65_534;

/// Gives up the rights of root, then executes a command. setpriv would keep root's capabilities
/// until it executes the command, and the kernel then takes the program's file as one that the user
/// can read.
const DROP_RIGHTS: &str =
    "import os, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534); os.execvp(sys.argv[1], sys.argv[1:])";

/// Whether the tests run as root.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").expect("it").uid() == 0
}

/// Words to put before a command so that it runs as `nobody`. There are none if the tests do not
/// run as root: then it runs as the user of the tests.
pub fn prefix() -> Vec<String> {
    if is_root() { ["python3", "-c", DROP_RIGHTS].map(str::to_owned).to_vec() } else { Vec::new() }
}

/// A command that runs as `nobody`, or as the user of the tests.
pub fn command(program: impl AsRef<Path>) -> Command {
    let program = program.as_ref();
    match prefix().split_first() {
        None => Command::new(program),
        Some((first, rest)) => {
            let mut command = Command::new(first);
            command.args(rest).arg(program);
            command
        }
    }
}

/// Gives a file or a directory to `nobody`, if the tests run as root.
pub fn give(path: &Path) {
    if is_root() {
        chown(path, Some(NOBODY), Some(NOBODY)).expect("its owner");
    }
}

/// A copy of the program in a directory that every user can reach.
pub struct Installed(TempDir);

impl Installed {
    /// A program that its user can execute but not read, as the guide has it installed: a file of
    /// root with mode 711.
    pub fn new() -> Self {
        Self::with_mode(0o711)
    }

    pub fn with_mode(mode: u32) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).expect("its mode");
        let program = directory.path().join("jobstream");
        fs::copy(env!("CARGO_BIN_EXE_jobstream"), &program).expect("a copy");
        fs::set_permissions(&program, PermissionsExt::from_mode(mode)).expect("its mode");
        Self(directory)
    }

    pub fn program(&self) -> PathBuf {
        self.0.path().join("jobstream")
    }
}

/// A file of the user of the tests that no other user can read.
pub fn secret_file(path: &Path, content: &str) -> File {
    fs::write(path, content).expect("a file");
    fs::set_permissions(path, PermissionsExt::from_mode(0o600)).expect("its mode");
    File::open(path).expect("the file")
}
