//! The guide in `docs/operating.md`: its unit gives no secret to jobs, and its commands work.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::support::unprivileged::{self, Installed, secret_file};

const GUIDE: &str = include_str!("../../docs/operating.md");
const ENVIRONMENT: &str = "/etc/jobstream/jobstream.env";
const SECRETS: &str = "/etc/jobstream/secrets";
const PROGRAM: &str = "/usr/local/bin/jobstream";

/// The blocks of code of a language in the step-by-step part, without their indentation.
fn blocks(language: &str) -> Vec<String> {
    let part = GUIDE.split("\n## Two nodes, step by step\n").nth(1).and_then(|it| it.split("\n## ").next());
    let fence = format!("```{language}\n");
    let blocks = part.expect("the part of the guide").split(&fence).skip(1);
    blocks
        .map(|block| block.split("```").next().expect("its end").lines().map(str::trim).collect::<Vec<_>>().join("\n"))
        .collect()
}

/// The one block of a language that has this in it.
fn block(language: &str, with: &str) -> String {
    let mut found = blocks(language).into_iter().filter(|it| it.contains(with));
    match (found.next(), found.next()) {
        (Some(block), None) => block,
        other => panic!("not one block with {with:?}: {other:?}"),
    }
}

/// The settings of a unit, as `Section.Key` and value.
fn settings(unit: &str) -> Vec<(String, String)> {
    let (mut section, mut settings) = (String::new(), Vec::new());
    for line in unit.lines().filter(|line| !line.is_empty() && !line.starts_with(['#', ';'])) {
        match line.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
            Some(name) => section = name.to_owned(),
            None => {
                let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("not a setting: {line}"));
                settings.push((format!("{section}.{key}"), value.to_owned()));
            }
        }
    }
    settings
}

#[test]
fn the_unit_gives_the_secrets_on_a_descriptor_that_root_opened() {
    let settings = settings(&block("ini", "ExecStart="));
    let all = |key: &str| -> Vec<&str> {
        settings.iter().filter(|(it, _)| it == key).map(|(_, value)| value.as_str()).collect()
    };
    assert_eq!(all("Service.User"), ["jobstream"]);
    assert_eq!(all("Service.StandardInput"), [format!("file:{SECRETS}")]);
    assert_eq!(all("Service.EnvironmentFile"), [ENVIRONMENT]);
    assert_eq!(all("Service.ExecStart"), [format!("{PROGRAM} serve --token-fd 0 --database-url-fd 0")]);
    // With capabilities of its own the process would not be protected from its start; the others
    // give jobs what they hold.
    for key in [
        "Environment",
        "PassEnvironment",
        "LoadCredential",
        "SetCredential",
        "AmbientCapabilities",
        "PermissionsStartOnly",
    ] {
        assert!(all(&format!("Service.{key}")).is_empty(), "{key}");
    }
    for (key, value) in &settings {
        assert!(!["TOKEN", "PASSWORD", "postgres:"].iter().any(|it| value.contains(it)), "{key}={value}");
    }
    assert!(!block("sh", "JOBSTREAM_SHARED_DIR").contains("TOKEN"));
    assert!(GUIDE.contains(&format!("install -o root -g root -m 711 jobstream {PROGRAM}")));
    assert!(GUIDE.contains(&format!("install -o root -g root -m 600 /dev/null {SECRETS}")));
    // No command in the guide has a password in an argument or in the environment of another
    // command.
    for line in GUIDE.lines().filter(|line| line.contains("PASSWORD") && !line.contains("CREATE ROLE")) {
        let is_file = line.trim_start().starts_with("postgres://") || line.contains("> ~/.pgpass");
        assert!(is_file, "{line}");
    }
    assert!(!GUIDE.contains("JOBSTREAM_TOKEN=") && !GUIDE.contains("$JOBSTREAM_DATABASE_URL"));
}

/// The guide's files and its program, below a directory.
struct Machine {
    directory: tempfile::TempDir,
    installed: Installed,
}

impl Machine {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).expect("its mode");
        let data = directory.path().join("data");
        fs::create_dir(&data).expect("a directory");
        unprivileged::give(&data);
        let secrets = block("text", "postgres://");
        let secrets = secrets.replace("db.example.com", "127.0.0.1:1").replace("PASSWORD", "pass%40word");
        let secrets = secrets.replace("&sslrootcert=/etc/jobstream/database-ca.crt", "");
        secret_file(&directory.path().join("secrets"), &format!("{secrets}\n"));
        let machine = Self { directory, installed: Installed::new() };
        let environment = block("sh", "JOBSTREAM_SHARED_DIR");
        fs::write(machine.path().join("jobstream.env"), machine.here(&environment)).expect("a file");
        machine
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A text of the guide, with the paths and the port of this test.
    fn here(&self, text: &str) -> String {
        let data = self.path().join("data");
        let text = text.replace("/etc/jobstream", &self.path().display().to_string());
        let text =
            text.replace("0.0.0.0:8080", "0.0.0.0:0").replace(PROGRAM, &self.installed.program().display().to_string());
        text.replace("/var/lib/jobstream", &data.display().to_string())
            .replace("/srv/jobstream", &data.display().to_string())
    }
}

#[test]
fn the_guide_s_check_finds_the_secrets_safe() {
    let machine = Machine::new();
    let script = machine.here(&block("sh", " check "));
    let (start, command) = script.split_once("runuser -u jobstream -- ").expect("the command");
    // The tests have no user of this name.
    let script = format!("{start}'{}' {command}", unprivileged::prefix().join("' '")).replace("'' ", "");
    let mut shell = Command::new("sh");
    let ended = shell.args(["-c", &script]).env("JOBSTREAM_MELTANO", "none").env_remove("JOBSTREAM_TOKEN").output();
    let ended = ended.expect("the shell");
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    let complained = String::from_utf8_lossy(&ended.stderr);
    let wrong: Vec<&str> = said.lines().filter(|line| line.starts_with("wrong ")).collect();
    // There is no database here, and nothing else is wrong.
    assert!(wrong.len() == 1 && wrong[0].contains("at 127.0.0.1:1 cannot be reached"), "{said}{complained}");
    if unprivileged::is_root() {
        for expected in [
            "ok      the options can be used together",
            "ok      the token came from descriptor 0, which jobs cannot open",
            "ok      the password of the database came from descriptor 0, which jobs cannot open",
            "ok      the memory of the program is protected from processes of this user from its start",
        ] {
            assert!(said.contains(expected), "{expected}: {said}");
        }
    }
    for secret in ["LONG-RANDOM", "pass%40word", "pass@word"] {
        assert!(!said.contains(secret), "{said}");
    }
}
