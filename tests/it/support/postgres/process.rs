//! The PostgreSQL process of a cluster, and the watchdog that ends it.
//!
//! The watchdog is a shell whose standard input is a pipe from the test process. The pipe closes when that ends, in whatever
//! way, also when it is killed; then the watchdog ends PostgreSQL and removes the directory.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs};

use super::super::{PATIENCE, is_alive};

/// What the watchdog does: it is told an order a line, and answers each with a line.
const WATCHDOG: &str = r#"
directory=$1 binaries=$2 postgres=
exec 2>>"$directory/log"
# An answer to a test process that is gone must not end this before it has cleared away.
trap '' PIPE

stop() {
    # Again and again: a process that has only just been started may not hear it yet.
    while [ -n "$postgres" ] && kill -QUIT "$postgres"; do sleep 0.05; done
    postgres=
}

"$binaries/initdb" --pgdata="$directory/data" --username=postgres --auth=trust --no-sync --encoding=UTF8 \
    --locale=C.UTF-8 >&2 && printf '%s\n' 'fsync = off' 'full_page_writes = off' >>"$directory/data/postgresql.conf" \
    && echo ready || echo failed

while read -r order port; do
    case $order in
    start)
        "$binaries/postgres" -D "$directory/data" -p "$port" -c listen_addresses=127.0.0.1 \
            -c unix_socket_directories= -c max_connections=300 -c log_destination=stderr \
            </dev/null >&2 &
        postgres=$!
        echo "$postgres"
        ;;
    stop)
        stop
        echo stopped
        ;;
    esac
done

stop
rm -rf "$directory"
"#;

/// PostgreSQL on a directory of its own, which goes with it. Ended when dropped.
pub struct Process {
    watchdog: Child,
    answers: BufReader<ChildStdout>,
    directory: PathBuf,
    port: u16,
    pid: i32,
}

impl Process {
    /// A new PostgreSQL with these environment variables that accepts connections, or why there can be none.
    pub fn start(environment: &[(&str, String)]) -> Result<Self, String> {
        let binaries = binaries().ok_or("PostgreSQL is not installed: there is no initdb.")?;
        let user = unprivileged_user()?;
        let directory = tempfile::Builder::new().prefix("jobstream-postgres-").tempdir_in(temporary()).map_err(text)?;
        let mut command = Command::new("sh");
        command.args(["-c", WATCHDOG, "postgres-watchdog"]).arg(directory.path()).arg(&binaries);
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        // A group of its own: Ctrl-C is for the tests, whose end is heard of anyway. No directory may be closed to the user.
        command.process_group(0).current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        if let Some((user, group)) = user {
            chown(directory.path(), Some(user), Some(group)).map_err(text)?;
            command.uid(user).gid(group);
        }
        let mut watchdog = command.spawn().map_err(text)?;
        let answers = BufReader::new(watchdog.stdout.take().ok_or("There is no pipe.")?);
        // From here on it is the watchdog's.
        let mut process = Self { watchdog, answers, directory: directory.keep(), port: free_port()?, pid: 0 };
        if process.answer()? != "ready" {
            return Err(format!("initdb failed:\n{}", process.log()));
        }
        process.start_again()?;
        Ok(process)
    }

    /// Starts PostgreSQL, which has been stopped, at the same port, and waits until it accepts connections.
    pub fn start_again(&mut self) -> Result<(), String> {
        self.tell(&format!("start {}", self.port))?;
        self.pid = self.answer()?.parse().map_err(text)?;
        let deadline = Instant::now() + PATIENCE;
        while !self.is_ready() {
            if !is_alive(self.pid) || Instant::now() > deadline {
                return Err(format!("PostgreSQL does not start:\n{}", self.log()));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Stops PostgreSQL at once, as if it had crashed, and waits until it is gone.
    pub fn stop(&mut self) -> Result<(), String> {
        self.tell("stop")?;
        self.answer().map(drop)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn pid(&self) -> i32 {
        self.pid
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Puts a file among PostgreSQL's, which it alone can read.
    pub fn put(&self, name: &str, content: &str) -> Result<(), String> {
        let data = self.directory.join("data");
        let file = data.join(name);
        fs::write(&file, content).map_err(text)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).map_err(text)?;
        let owner = fs::metadata(&data).map_err(text)?;
        chown(&file, Some(owner.uid()), Some(owner.gid())).map_err(text)
    }

    /// What PostgreSQL has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_else(|error| format!("there is no log: {error}"))
    }

    /// Whether it accepts connections, as `pg_ctl` finds out. An attempt to connect might be answered by another process.
    fn is_ready(&self) -> bool {
        let status = fs::read_to_string(self.directory.join("data/postmaster.pid")).unwrap_or_default();
        let lines: Vec<&str> = status.lines().map(str::trim).collect();
        lines.first() == Some(&self.pid.to_string().as_str()) && lines.get(7) == Some(&"ready")
    }

    fn tell(&mut self, order: &str) -> Result<(), String> {
        writeln!(self.watchdog.stdin.as_mut().ok_or("There is no pipe.")?, "{order}").map_err(text)
    }

    fn answer(&mut self) -> Result<String, String> {
        let mut line = String::new();
        self.answers.read_line(&mut line).map_err(text)?;
        Ok(line.trim().to_owned())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // This closes the pipe first.
        let _ = self.watchdog.wait();
    }
}

/// Where PostgreSQL's programs are: on the `PATH`, or else where Debian has those of every version.
pub fn binaries() -> Option<PathBuf> {
    let complete = |directory: &PathBuf| ["initdb", "postgres"].iter().all(|it| directory.join(it).is_file());
    if let Some(directory) = env::split_paths(&env::var_os("PATH")?).find(complete) {
        return Some(directory);
    }
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    let directories = versions.map(|it| it.path().join("bin")).filter(complete);
    directories.max_by_key(|it| it.parent()?.file_name()?.to_str()?.parse::<u32>().ok())
}

/// The user and the group to run as if this is root, which PostgreSQL refuses to run as.
pub(in super::super) fn unprivileged_user() -> Result<Option<(u32, u32)>, String> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd").map_err(text)?;
    let find = |name| {
        let fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields[0] == name)?;
        Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
    };
    let found = find("postgres").or_else(|| find("nobody"));
    found.map(Some).ok_or_else(|| "PostgreSQL refuses to run as root, and there is no other user.".to_owned())
}

/// A directory for temporary ones that every user reaches.
pub(in super::super) fn temporary() -> PathBuf {
    let usual = env::temp_dir();
    let open = |it: &Path| fs::metadata(it).is_ok_and(|it| it.mode() & 0o001 != 0);
    if usual.ancestors().all(open) { usual } else { PathBuf::from("/tmp") }
}

/// A port that nobody listens at. It is below those that Linux gives to clients: while PostgreSQL is stopped, none may take it.
pub(in super::super) fn free_port() -> Result<u16, String> {
    for _ in 0..100 {
        let port = 20_000 + uuid::Uuid::new_v4().as_fields().1 % 12_000;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Err("There is no free port.".to_owned())
}

fn text(error: impl ToString) -> String {
    error.to_string()
}
