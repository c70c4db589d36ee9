//! Processes of the same user that look for the token and for the database's password: jobs, and
//! processes that jobs leave behind.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::support::unprivileged::{self, Installed, secret_file};
use crate::support::{TestServer, eventually, pids_of, signal, skip};

const NOTHING: Vec<String> = Vec::new();
const SEARCH: &str = include_str!("../../attacks/secrets.py");

/// A text that is nowhere else on this machine.
fn unique(name: &str) -> String {
    format!("{name}-{}", uuid::Uuid::new_v4().simple())
}

/// How the search is told a secret, so that only the search has it in clear.
fn hexadecimal(secret: &str) -> String {
    secret.bytes().map(|byte| format!("{byte:02x}")).collect()
}

/// The script that searches, in a directory where it can write what it finds.
fn search_script(directory: &Path) -> PathBuf {
    let script = directory.join("secrets.py");
    fs::write(&script, SEARCH).expect("a script");
    fs::set_permissions(&script, PermissionsExt::from_mode(0o644)).expect("its mode");
    unprivileged::give(directory);
    script
}

/// A directory of the unprivileged user.
fn directory() -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    unprivileged::give(directory.path());
    directory
}

fn found_in(directory: &Path) -> Vec<String> {
    fs::read_to_string(directory.join("found")).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// A process that is killed when this is dropped.
struct Running(Child);

impl Running {
    fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).expect("a pid")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server of the unprivileged user, on a program that its user cannot read, with the token on
/// descriptor 0 from a file that only the user of the tests can open.
fn guarded(installed: &Installed, secrets: &Path, token: &str) -> TestServer {
    let file = secrets.join("token");
    secret_file(&file, &format!("{token}\n"));
    let wrapper = |data: &Path| {
        unprivileged::give(data.parent().expect("its directory"));
        let with_token = format!("exec \"$@\" < '{}'", file.display());
        // The first word after it is the program that the tests start elsewhere.
        let installed = format!("shift; exec '{}' \"$@\"", installed.program().display());
        let mut words = vec!["sh".to_owned(), "-c".to_owned(), with_token, "sh".to_owned()];
        words.extend(unprivileged::prefix());
        words.extend(["sh".to_owned(), "-c".to_owned(), installed, "sh".to_owned()]);
        words
    };
    TestServer::wrapped_with_token(wrapper, &["--token-fd", "0", "--stop-grace", "0.3"], token)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_finds_the_token_nowhere() {
    let (installed, secrets, token) = (Installed::new(), tempfile::tempdir().expect("a directory"), unique("token"));
    let server = guarded(&installed, secrets.path(), &token);
    let scratch = server.scratch();
    let script = format!(
        "echo $PPID > {scratch}/supervisor; python3 {program} search {scratch} token={token} --directory {data} --skip {tests}",
        scratch = scratch.display(),
        program = search_script(&scratch).display(),
        token = hexadecimal(&token),
        data = server.data_directory().display(),
        tests = std::process::id(),
    );
    let workspace = server.workspace("Workspace").await;
    let other = scratch.join("other");
    let other_job = server.pipeline(&workspace, "Other", &format!("echo $PPID > {}; sleep 600", other.display())).await;
    let search = server.pipeline(&workspace, "Search", &script).await;
    server.run(&other_job).await;
    let other = pids_of(&other, 1).await[0];
    let job = server.run(&search).await;
    assert_eq!(server.final_job(&job).await["status"], "COMPLETE", "{}", server.log_text(&job).await);
    let found = found_in(&scratch);
    let own = pids_of(&scratch.join("supervisor"), 1).await[0];
    for (pid, name) in [(server.pid(), "serve"), (own, "supervise"), (other, "supervise")] {
        let pid = pid.to_string();
        assert!(found.contains(&format!("visited {pid} jobstream-{name}")), "{found:#?}");
        assert_eq!(opened(&found, &pid), NOTHING);
    }
    assert!(found.contains(&"searched".to_owned()), "{found:#?}");
    assert!(!found.iter().any(|line| line.starts_with("found")), "{found:#?}");
    assert!(!server.log().contains(&token));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_a_job_left_behind_never_finds_a_secret_that_a_descriptor_gave() {
    if !unprivileged::is_root() {
        return skip("the program's file has to belong to another user than the one it runs as");
    }
    let (installed, secrets, found) = (Installed::new(), tempfile::tempdir().expect("a directory"), directory());
    let (token, password, control) = (unique("token"), unique("password"), unique("control"));
    let url = format!("postgres://app:{password}@127.0.0.1:1/jobstream");
    let [only_token, both] = ["token", "both"].map(|name| secrets.path().join(name));
    secret_file(&only_token, &token);
    secret_file(&both, &format!("{token}\n{url}\n"));

    let mut watch = unprivileged::command("python3");
    watch.arg(search_script(found.path())).arg("watch").arg(found.path());
    for (name, secret) in [("token", &token), ("password", &password), ("control", &control)] {
        watch.arg(format!("{name}={}", hexadecimal(secret)));
    }
    let _watch = Running(watch.spawn().expect("the watcher"));
    eventually("the watcher watches", async || found.path().join("ready").exists().then_some(())).await;

    for round in 0..8 {
        let data = found.path().join(format!("data-{round}"));
        let program = |subcommand: &str, secrets: &Path| {
            let mut command = unprivileged::command(installed.program());
            command.args([subcommand, "--listen", "127.0.0.1:0", "--token-fd", "0", "--data-dir"]).arg(&data);
            command.env("JOBSTREAM_MELTANO", "none").env_remove("JOBSTREAM_TOKEN");
            command.stdin(File::open(secrets).expect("the secrets"));
            command
        };
        let checked = program("check", &both).args(["--database-url-fd", "0"]).output().expect("it runs");
        let said = String::from_utf8_lossy(&checked.stdout).into_owned();
        for expected in [
            "the token came from descriptor 0, which jobs cannot open",
            "is protected from processes of this user from its start",
        ] {
            assert!(said.contains(expected), "{said}{}", String::from_utf8_lossy(&checked.stderr));
        }
        let _server = serving(&mut program("serve", &only_token));
    }
    // What any other process shows, the watcher finds: in its environment, and in its memory.
    let _control = Running(unprivileged::command("sleep").arg("600").env("CONTROL", &control).spawn().expect("sleep"));
    for kind in ["environ", "mem"] {
        let wanted = format!("found control {kind} ");
        eventually(&wanted, async || found_in(found.path()).iter().any(|it| it.starts_with(&wanted)).then_some(()))
            .await;
    }
    File::create(found.path().join("stop")).expect("a file");
    eventually("the watcher ends", async || found_in(found.path()).contains(&"watched".to_owned()).then_some(())).await;
    let found = found_in(found.path());
    assert!(found.iter().all(|line| line.starts_with("found control") || line == "watched"), "{found:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_subcommand_is_protected() {
    let (installed, found) = (Installed::with_mode(0o755), directory());
    let (token, password) = (unique("token"), unique("password"));
    let script = search_script(found.path());
    let program = |subcommand: &str| {
        let mut command = unprivileged::command(installed.program());
        command.arg(subcommand).env("JOBSTREAM_MELTANO", "none").env("JOBSTREAM_TOKEN", &token).stdin(Stdio::null());
        command
    };
    // Each is searched once something shows that it has begun its work.
    let attack = |process: &Running, name: &str| {
        let mut search = unprivileged::command("python3");
        search.arg(&script).arg("search").arg(found.path()).args(["--only", &process.pid().to_string()]);
        for (name, secret) in [("token", &token), ("password", &password)] {
            search.arg(format!("{name}={}", hexadecimal(secret)));
        }
        assert!(search.status().expect("the search").success());
        let (lines, pid) = (found_in(found.path()), process.pid().to_string());
        assert!(lines.contains(&format!("visited {pid} jobstream-{name}")), "{lines:#?}");
        assert_eq!(opened(&lines, &pid), NOTHING, "{name}");
        assert!(!lines.iter().any(|line| line.starts_with("found")), "{lines:#?}");
    };

    for subcommand in ["serve", "demo"] {
        let mut command = program(subcommand);
        command.args(["--listen", "127.0.0.1:0", "--data-dir"]).arg(found.path().join(subcommand));
        let server = serving(command.stdout(Stdio::null()));
        attack(&server, subcommand);
        has_no_secret_in_its_environment(&server, &[&token]);
    }

    // A database that accepts a connection and says nothing.
    let database = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let url = format!("postgres://app:{password}@{}/jobstream", database.local_addr().expect("its address"));
    let mut command = program("check");
    command.args(["--listen", "127.0.0.1:0", "--data-dir"]).arg(found.path().join("check"));
    command.env("JOBSTREAM_DATABASE_URL", url).stdout(Stdio::null());
    let check = Running(command.spawn().expect("it starts"));
    let _connection = database.accept().expect("a connection");
    signal(check.pid(), "STOP");
    attack(&check, "check");
    has_no_secret_in_its_environment(&check, &[&token, &password]);

    let (server, of_supervisor) = UnixStream::pair().expect("sockets");
    let mut command = program("supervise");
    let supervisor = Running(command.stdin(OwnedFd::from(of_supervisor)).spawn().expect("it starts"));
    eventually("a session of its own", async || (session_of(supervisor.pid()) == supervisor.pid()).then_some(())).await;
    attack(&supervisor, "supervise");
    drop(server);

    // A task reads settings from its standard input, which here never ends.
    let mut command = program("task");
    let mut task = Running(command.arg(found.path()).stdin(Stdio::piped()).spawn().expect("it starts"));
    let mut settings = task.0.stdin.take().expect("its input");
    settings.write_all(b"settings").expect("settings");
    let unread = || rustix::io::ioctl_fionread(&settings).expect("a number");
    eventually("the task reads its settings", async || (unread() == 0).then_some(())).await;
    attack(&task, "task");
}

/// What was opened of a process.
fn opened(found: &[String], pid: &str) -> Vec<String> {
    let of_process = format!(" {pid} ");
    found.iter().filter(|line| line.starts_with("opened") && line.contains(&of_process)).cloned().collect()
}

/// Starts a server, and waits until it serves.
fn serving(command: &mut Command) -> Running {
    let mut server = Running(command.stderr(Stdio::piped()).spawn().expect("it starts"));
    let mut log = BufReader::new(server.0.stderr.take().expect("its log"));
    let (mut line, mut all) = (String::new(), String::new());
    while !line.contains("GraphiQL is at") {
        line.clear();
        assert!(log.read_line(&mut line).expect("its log") > 0, "it ended: {all}");
        all.push_str(&line);
    }
    std::thread::spawn(move || log.read_to_end(&mut Vec::new()));
    server
}

/// Root finds no secret in `/proc/PID/environ` either. Other users of the tests cannot read the
/// file.
fn has_no_secret_in_its_environment(process: &Running, secrets: &[&str]) {
    match fs::read(format!("/proc/{}/environ", process.pid())) {
        Ok(environment) => {
            let environment = String::from_utf8_lossy(&environment);
            assert!(environment.contains("JOBSTREAM_MELTANO=none"), "{environment}");
            assert!(!secrets.iter().any(|it| environment.contains(it)), "{environment}");
        }
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied),
    }
}

/// The session of a process.
fn session_of(pid: i32) -> i32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("its figures");
    let fields = stat.rsplit_once(") ").expect("a name").1;
    fields.split(' ').nth(3).expect("a session").parse().expect("a number")
}
