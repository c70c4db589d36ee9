//! The demo where it cannot load data: it says why, and runs what it can.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

/// A directory for the PATH with what the example's scripts need.
fn path_with_tools(directory: &Path) -> String {
    let path = std::env::var_os("PATH").expect("a PATH");
    for tool in [
        "awk", "bash", "cat", "cut", "date", "dirname", "env", "git", "grep", "head", "mkdir", "mktemp", "mv", "paste",
        "rm", "sed", "sh", "sleep", "sort", "tail", "tr", "wc",
    ] {
        let found = std::env::split_paths(&path).map(|it| it.join(tool)).find(|it| it.exists());
        symlink(found.expect(tool), directory.join(tool)).expect("a link");
    }
    directory.to_str().expect("UTF-8").to_owned()
}

/// What the demo prints, which is to end well.
fn demo(directory: &Path, path: &str, options: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jobstream"));
    command.args(["demo", "--once", "--listen", "127.0.0.1:0", "--data-dir"]).arg(directory.join("data")).args(options);
    command.env("PATH", path).env_remove("JOBSTREAM_MELTANO").env_remove("JOBSTREAM_TOKEN").stdin(Stdio::null());
    let output = command.output().expect("the demo runs");
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{shown}{}", String::from_utf8_lossy(&output.stderr));
    assert!(shown.contains("Records ● PIPELINE_RUN is COMPLETE") && !shown.contains("Load ●"), "{shown}");
    shown
}

#[test]
fn without_a_python_that_will_do_it_says_so_and_runs_the_scripts_only() {
    let directory = tempfile::tempdir().expect("a directory");
    let tools = directory.path().join("tools");
    fs::create_dir(&tools).expect("a directory");
    let path = path_with_tools(&tools);
    let shown = demo(directory.path(), &path, &[]);
    assert!(
        shown.contains("Python 3 was not found") && shown.contains("Only the pipelines run that are scripts."),
        "{shown}"
    );

    let python = tools.join("python3");
    fs::write(&python, "#!/bin/sh\nexit 1\n").expect("a file");
    fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).expect("its mode");
    let shown = demo(directory.path(), &path, &[]);
    assert!(shown.contains("is older than 3.10 or has no venv") && shown.contains("Only the pipelines"), "{shown}");

    let shown = demo(directory.path(), &path, &["--meltano", "none"]);
    assert!(shown.contains("switched off with --meltano none. Only the pipelines"), "{shown}");
}
