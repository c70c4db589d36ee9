//! Virtual environments of Python: whether one works, which is more than that its files exist.
//!
//! An environment stops working when its interpreter is removed or replaced by another version, and when it is moved or
//! restored elsewhere: its programs name the interpreter with its whole path.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::installation::is_program;
use crate::confined::{ConfinedDirectory, Flush};

/// Where it is noted which interpreter an environment was checked with.
const CHECKED: &str = "jobstream-checked";
/// The beginning of a program names its interpreter.
const HEAD: u64 = 4 << 10;
/// Exits with 0 if the interpreter sees the packages of its environment.
const SEES_PACKAGES: &str = "import os, sys, sysconfig; sys.exit(not os.path.isdir(sysconfig.get_paths()['purelib']))";

/// Checks that a program of an environment can be started, and that its interpreter works. `check` is a program that is run
/// to tell; with none, the interpreter is. It is run only if the interpreter has changed since the last check.
pub(super) fn check(environment: &Path, program: &str, check: Option<&str>) -> Result<(), String> {
    let stamp = look(environment, program)?;
    if fs::read_to_string(environment.join(CHECKED)).is_ok_and(|checked| checked == stamp) {
        return Ok(());
    }
    let python = environment.join("bin/python");
    works(Command::new(&python).args(["-I", "-c", SEES_PACKAGES]), &python)?;
    if let Some(argument) = check {
        let path = environment.join("bin").join(program);
        works(Command::new(&path).arg(argument), &path)?;
    }
    // What cannot be noted is checked again.
    let noted = ConfinedDirectory::open(environment);
    let _ = noted.and_then(|it| it.write(Path::new(CHECKED), stamp.as_bytes(), None, Flush::Now));
    Ok(())
}

/// Checks that the files of an environment belong together, and answers what its interpreter is. Nothing is run.
pub(super) fn look(environment: &Path, program: &str) -> Result<String, String> {
    let python = environment.join("bin/python");
    let path = environment.join("bin").join(program);
    let broken = |error: io::Error| format!("{}: {error}", path.display());
    let mut head = Vec::new();
    File::open(&path).and_then(|file| file.take(HEAD).read_to_end(&mut head)).map_err(broken)?;
    if head.is_empty() || !is_program(&path) {
        return Err(format!("{} is not a program", path.display()));
    }
    let is_script = head.starts_with(b"#!");
    if is_script && !names(&head, &python) {
        return Err(format!("{} was made for another place, or has no interpreter", path.display()));
    }
    stamp(&python).map_err(|error| format!("{}: {error}", python.display()))
}

/// Has the next check run the program again.
pub(super) fn forget(environment: &Path) {
    let _ = fs::remove_file(environment.join(CHECKED));
}

/// Whether a script's first lines name an interpreter of this environment, or one outside of all environments.
fn names(head: &[u8], python: &Path) -> bool {
    let head = String::from_utf8_lossy(head);
    let bin = python.parent().unwrap_or(python);
    let places = [bin.to_path_buf(), bin.canonicalize().unwrap_or_default()];
    let of_environment = places.iter().any(|bin| head.contains(&format!("{}/python", bin.display())));
    // A plugin may be a script for another interpreter.
    let first = head.lines().next().unwrap_or_default().trim_start_matches("#!").trim();
    let interpreter = first.split(' ').next().unwrap_or_default();
    of_environment || !head.contains("python") && Path::new(interpreter).exists()
}

/// What an interpreter is: another one has another stamp.
fn stamp(python: &Path) -> io::Result<String> {
    let (real, found) = (python.canonicalize()?, fs::metadata(python)?);
    let place = python.parent().unwrap_or(python).canonicalize()?;
    let (place, real) = (place.display(), real.display());
    Ok(format!("{place}\n{real}\n{} {} {}\n", found.ino(), found.mtime(), found.size()))
}

fn works(command: &mut Command, path: &Path) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{}: {error}", path.display()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    Err(format!("{} does not work ({}) {last}", path.display(), output.status))
}
