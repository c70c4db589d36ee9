//! The options that give the token and the address of the database, and what `jobstream check` says
//! of each.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::support::unprivileged::secret_file;

const TOKEN: &str = "jobstream-token-of-a-test";
const URL: &str = "postgres://app:correct-horse@127.0.0.1:1/jobstream";

fn directory() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

/// `jobstream check` with these options, and this on its standard input.
fn check(directory: &Path, options: &[&str], variables: &[(&str, &str)], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jobstream"));
    command.args(["check", "--listen", "127.0.0.1:0", "--data-dir"]).arg(directory.join("data")).args(options);
    command.env("JOBSTREAM_MELTANO", "none").env_remove("JOBSTREAM_TOKEN").envs(variables.iter().copied());
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    // It may end without reading.
    let _ = child.stdin.take().expect("its input").write_all(input.as_bytes());
    child.wait_with_output().expect("it ends")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn check_says_how_each_secret_came_and_what_follows() {
    let directory = directory();
    let file = directory.path().join("token");
    secret_file(&file, &format!("{TOKEN}\n"));
    let file = file.to_str().expect("UTF-8");
    for (options, variables, input, expected) in [
        (&["--token-fd", "0"][..], &[][..], TOKEN, "ok      the token came from descriptor 0"),
        (&["--token-file", file], &[], "", "remark  the token came from the file "),
        (&[], &[("JOBSTREAM_TOKEN", TOKEN)], "", "remark  the token came from an environment variable"),
        (&[], &[], "", "remark  there is no token"),
        (&["--database-url-fd=0"], &[], URL, "ok      the password of the database came from descriptor 0"),
        (&["--database-url", URL], &[], "", "remark  the password of the database came from an argument"),
        (
            &[],
            &[("JOBSTREAM_DATABASE_URL", URL)],
            "",
            "remark  the password of the database came from an environment variable",
        ),
    ] {
        let said = said(&check(directory.path(), options, variables, input));
        assert!(said.contains(expected), "{options:?}: {said}");
        assert!(!said.contains(TOKEN) && !said.contains("correct-horse"), "{said}");
    }
    // A file that the user can open behind the descriptor is no better than the file.
    let mut command = Command::new(env!("CARGO_BIN_EXE_jobstream"));
    command
        .args(["check", "--token-fd", "0", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(directory.path().join("data"));
    let ended = command.env("JOBSTREAM_MELTANO", "none").stdin(fs::File::open(file).expect("the file")).output();
    assert!(
        said(&ended.expect("it runs")).contains("remark  the token came from descriptor 0, but this user can open")
    );
}

#[test]
fn one_descriptor_gives_both_secrets() {
    let directory = directory();
    let both = ["--token-fd", "0", "--database-url-fd", "0"];
    for input in [format!("{TOKEN}\n{URL}\n"), format!("{TOKEN}\r\n{URL}")] {
        let said = said(&check(directory.path(), &both, &[], &input));
        assert!(said.contains("the token came from descriptor 0"), "{said}");
        assert!(said.contains("the database jobstream at 127.0.0.1:1 cannot be reached"), "{said}");
    }
}

#[test]
fn secrets_that_cannot_be_read_or_are_given_twice_are_refused() {
    let directory = directory();
    let [open, good] = ["open", "good"].map(|name| directory.path().join(name));
    secret_file(&good, TOKEN);
    fs::write(&open, TOKEN).expect("a file");
    fs::set_permissions(&open, PermissionsExt::from_mode(0o644)).expect("its mode");
    let [open, good] = [&open, &good].map(|it| it.to_str().expect("UTF-8"));
    let long = format!("{TOKEN}{}", "x".repeat(70_000));
    let token = &[("JOBSTREAM_TOKEN", TOKEN)][..];
    let url = &[("JOBSTREAM_DATABASE_URL", URL)][..];
    for (options, variables, input, expected) in [
        (&["--token-fd", "0"][..], &[][..], "", "--token-fd 0: there is nothing to read"),
        (&["--token-fd", "0"], &[], "\n", "--token-fd 0: there is nothing to read"),
        (&["--token-fd", "0"], &[], "jobstream-token\nof-two-lines", "there are 2 lines where one is expected"),
        (&["--token-fd", "0"], &[], &long, "there are more than 64 KiB"),
        (&["--token-fd", "77"], &[], "", "--token-fd 77: the descriptor is not open"),
        (&["--token-fd", "1"], &[], "", "standard output"),
        (&["--token-fd=-1"], &[], "", "number of an open file descriptor"),
        (&["--token-file", "/nowhere"], &[], "", "--token-file /nowhere: No such file"),
        (&["--token-file", open], &[], "", "every user of this machine can open the file (mode 644): chmod 600"),
        (&["--token-file", good, "--token-fd", "0"], &[], TOKEN, "--token-file and --token-fd both give the token"),
        (&["--token-fd", "0"], token, TOKEN, "JOBSTREAM_TOKEN and --token-fd both give the token"),
        (&["--database-url-fd", "0"], url, URL, "gives the address of the database too"),
        (&["--database-url-fd", "0", "--database-url", URL], &[], URL, "gives the address of the database too"),
        (&["--database-url-fd", "0"], &[], "mysql://app:correct-horse@db/x", "it is a PostgreSQL URL"),
        (&["--token-fd", "0", "--database-url-fd", "0"], &[], TOKEN, "two are expected"),
        (&["--token-fd", "0"], &[], "short", "at least 16 characters"),
    ] {
        let output = check(directory.path(), options, variables, input);
        let said = said(&output);
        assert!(!output.status.success() && said.contains(expected), "{options:?}: {said}");
        assert!(!said.contains("jobstream-token") && !said.contains("correct-horse"), "{said}");
    }
}
