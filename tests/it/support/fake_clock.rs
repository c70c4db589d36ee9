//! A clock that a test sets, for the programs that it starts: with libfaketime. The time since the
//! boot, by which everything waits, stays as it is.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;

use super::{Cluster, Database, TestServer, on_postgres, skip};

/// A clock that shows something else than the machine's.
pub struct FakeClock {
    directory: TempDir,
    library: PathBuf,
}

/// A server whose database has a clock that a test sets. With PostgreSQL it is in a cluster of its
/// own.
pub struct ClockedServer {
    pub server: TestServer,
    pub clock: FakeClock,
    pub cluster: Option<Cluster>,
}

impl FakeClock {
    /// A clock that is right at first. Nothing, and a word on why, if it cannot be had.
    pub fn new() -> Option<Self> {
        let Some(library) = library() else {
            skip("There is no libfaketime: the package faketime is not installed.");
            return None;
        };
        let directory = tempfile::Builder::new().prefix("jobstream-clock-").tempdir_in("/tmp").expect("a directory");
        // PostgreSQL is another user.
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).expect("its mode");
        let clock = Self { directory, library };
        clock.set("+0");
        Some(clock)
    }

    /// From now on the clock is ahead by this, such as `+400d`, or behind, such as `-3600`.
    pub fn set(&self, ahead: &str) {
        let new = self.directory.path().join("new");
        fs::write(&new, format!("{ahead}\n")).expect("a file");
        fs::set_permissions(&new, Permissions::from_mode(0o644)).expect("its mode");
        fs::rename(new, self.file()).expect("its place");
    }

    /// The variables of a program that is to go by this clock.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let path = |path: PathBuf| path.to_str().expect("UTF-8").to_owned();
        vec![
            ("LD_PRELOAD", path(self.library.clone())),
            ("FAKETIME_TIMESTAMP_FILE", path(self.file())),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("NO_FAKE_STAT", "1".to_owned()),
        ]
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("clock")
    }
}

impl ClockedServer {
    /// A server with these options. Nothing, and a word on why, if there can be none.
    pub fn start(options: &[&str]) -> Option<Self> {
        let clock = FakeClock::new()?;
        let environment = clock.environment();
        if !on_postgres() {
            let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, &**value)).collect();
            let server = TestServer::with_environment(options, &environment);
            return Some(Self { server, clock, cluster: None });
        }
        let cluster = Cluster::start_with(&environment)?;
        let database: Arc<Database> = Arc::new(cluster.database());
        Some(Self { server: TestServer::on_database(database, options), clock, cluster: Some(cluster) })
    }

    /// Does something with the server, such as to restart it.
    pub fn map(self, change: impl FnOnce(TestServer) -> TestServer) -> Self {
        Self { server: change(self.server), ..self }
    }
}

/// The library, wherever the distribution has it. Programs with several threads need the second.
fn library() -> Option<PathBuf> {
    let directories = ["/usr/lib", "/usr/lib64", "/usr/local/lib"].map(PathBuf::from).into_iter();
    let nested = directories.clone().filter_map(|it| fs::read_dir(it).ok()).flatten().flatten().map(|it| it.path());
    let found = directories.chain(nested).map(|it| it.join("faketime/libfaketimeMT.so.1"));
    found.into_iter().find(|it| it.is_file())
}
