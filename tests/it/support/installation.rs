//! What tests need of npm and the Python package index. `target/clients` is a copy of the parts of the source tree that say what that is,
//! with the packages beside them; those are installed once, and again when the manifests have changed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::skip;

pub const TYPESCRIPT_EXAMPLE: &str = "examples/typescript";
const CLIENTS: &str = "tests/clients";

/// The command that runs a script of `tests/clients` with Node.
pub fn node(script: &str) -> Option<Command> {
    let directory = installed(CLIENTS, &NPM)?;
    let mut command = Command::new("node");
    command.arg(directory.join(script));
    Some(command)
}

/// The command that runs a script of `tests/clients` with Python.
pub fn python(script: &str) -> Option<Command> {
    let directory = installed(CLIENTS, &PIP)?;
    let mut command = Command::new(directory.join("venv/bin/python"));
    command.arg(directory.join(script));
    Some(command)
}

/// The copy of the example.
pub fn typescript_example() -> Option<PathBuf> {
    installed(TYPESCRIPT_EXAMPLE, &NPM)
}

/// The Meltano that tests share: the one that a server would install for itself.
pub fn meltano() -> Option<PathBuf> {
    Some(installed("src/task/meltano", &UV)?.join("venv/bin/meltano"))
}

/// How packages are installed: what says which, the commands, and where it is noted what was installed.
struct Installer {
    manifests: &'static [&'static str],
    commands: &'static [&'static str],
    note: &'static str,
}

const NPM: Installer = Installer {
    manifests: &["package.json", "package-lock.json", ".npmrc"],
    commands: &[
        "node --eval \"if (parseInt(process.version.slice(1)) < 20) throw Error('Node 20 or later is needed.')\"",
        "npm ci --ignore-scripts",
    ],
    note: "installed-by-npm",
};

const PIP: Installer = Installer {
    manifests: &["requirements.txt"],
    commands: &["python3 -m venv --clear venv", "venv/bin/python -m pip install --requirement requirements.txt"],
    note: "installed-by-pip",
};

const UV: Installer = Installer {
    manifests: &["requirements.txt"],
    commands: &[
        "python3 -m venv --clear venv",
        "venv/bin/python -m pip install uv",
        "venv/bin/uv pip install --python venv/bin/python --requirements requirements.txt",
    ],
    note: "installed-by-uv",
};

/// The copy of a directory of the source tree, with its packages. Nothing, and a word on why, if they cannot be had.
fn installed(directory: &str, installer: &Installer) -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("clients");
    let copy = root.join(directory);
    fs::create_dir_all(&copy).expect("a directory");
    // One test after the other, also those of another process.
    let lock = File::create(root.join("lock")).expect("a file");
    lock.lock().expect("the lock");

    copy_file(&source.join("schema.graphql"), &root.join("schema.graphql"));
    copy_directory(&source.join(directory), &copy);
    let read = |name: &&str| fs::read_to_string(copy.join(name)).expect("a manifest");
    let wanted: String = installer.manifests.iter().map(read).collect();
    let note = copy.join(installer.note);
    if fs::read_to_string(&note).is_ok_and(|found| found == wanted) {
        return Some(copy);
    }
    for command in installer.commands {
        let output = Command::new("sh").args(["-c", command]).current_dir(&copy).output().expect("sh");
        if !output.status.success() {
            let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            skip(&format!("what {directory} needs cannot be installed: `{command}` failed.\n{said}{complained}"));
            return None;
        }
    }
    fs::write(note, wanted).expect("a note");
    Some(copy)
}

/// Copies what is in a directory, but not what was installed or built there.
fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_file() {
            copy_file(&from, &to);
        } else if !from.ends_with("node_modules") && !from.ends_with("dist") {
            copy_directory(&from, &to);
        }
    }
}

/// Copies a file if it has changed: scripts of other tests may be reading it.
fn copy_file(from: &Path, to: &Path) {
    let content = fs::read(from).expect("a file");
    if !fs::read(to).is_ok_and(|old| old == content) {
        fs::write(to, content).expect("a copy");
    }
}
