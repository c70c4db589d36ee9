//! PgBouncer, between servers and their PostgreSQL.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs};

use tempfile::TempDir;

use super::postgres::process::{free_port, temporary, unprivileged_user};
use super::{PATIENCE, skip};

/// Ends PgBouncer when the pipe from the test process closes, in whatever way that ends.
const WATCHDOG: &str = r#"
"$1" "$2/pgbouncer.ini" </dev/null >"$2/log" 2>&1 &
cat >/dev/null
kill -KILL $!
wait
"#;

/// A pooler. Ended when dropped.
pub struct Pooler {
    watchdog: Child,
    address: SocketAddr,
    directory: TempDir,
}

impl Pooler {
    /// A pooler before this PostgreSQL, in this mode. Nothing, and a word on why, if it cannot be had.
    pub fn start(postgres: SocketAddr, mode: &str) -> Option<Self> {
        Self::try_start(postgres, mode).inspect_err(|why| skip(why)).ok()
    }

    fn try_start(postgres: SocketAddr, mode: &str) -> Result<Self, String> {
        let program = program().ok_or("PgBouncer is not installed.")?;
        let user = unprivileged_user()?;
        let directory = tempfile::Builder::new().prefix("jobstream-pooler-").tempdir_in(temporary()).map_err(text)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let settings = format!(
            "[databases]\n* = host={} port={} user=postgres\n[pgbouncer]\nlisten_addr = {}\nlisten_port = {}\n\
             unix_socket_dir =\nauth_type = any\npool_mode = {mode}\n",
            postgres.ip(),
            postgres.port(),
            address.ip(),
            address.port()
        );
        fs::write(directory.path().join("pgbouncer.ini"), settings).map_err(text)?;
        let mut command = Command::new("sh");
        command.args(["-c", WATCHDOG, "pooler-watchdog"]).arg(&program).arg(directory.path());
        command.process_group(0).current_dir("/").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        if let Some((user, group)) = user {
            chown(directory.path(), Some(user), Some(group)).map_err(text)?;
            command.uid(user).gid(group);
        }
        let watchdog = command.spawn().map_err(text)?;
        let pooler = Self { watchdog, address, directory };
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(address).is_err() {
            if Instant::now() > deadline {
                return Err(format!("PgBouncer does not start:\n{}", pooler.log()));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(pooler)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log"))
            .unwrap_or_else(|error| format!("there is no log: {error}"))
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("PgBouncer's log:\n{}", self.log());
        }
        // This closes the pipe first.
        let _ = self.watchdog.wait();
    }
}

/// On the `PATH`, or else where Debian has it, which is not on everybody's.
fn program() -> Option<PathBuf> {
    let on_path = env::split_paths(&env::var_os("PATH")?).map(|it| it.join("pgbouncer")).find(|it| it.is_file());
    on_path.or_else(|| Some(Path::new("/usr/sbin/pgbouncer").to_owned()).filter(|it| it.is_file()))
}

fn text(error: impl ToString) -> String {
    error.to_string()
}
