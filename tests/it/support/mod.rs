//! A server to test: the real program, on a directory of its own.
//!
//! Requests through the API are in `requests`, requests as bytes in `raw`, the check of every
//! response against the schema in `conformance`, metrics in `exposition`, WebSockets in `wire`,
//! waiting in `waiting`, a clock that a test sets in `fake_clock`. A PostgreSQL for a server is in
//! `postgres`, a pooler before it in `pooler`, and connections that break in `proxy`.

mod client;
pub mod conformance;
mod exposition;
pub mod fake_clock;
pub mod installation;
pub mod pooler;
pub mod postgres;
pub mod proxy;
pub mod raw;
mod requests;
pub mod unprivileged;
mod waiting;
mod wire;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::{Connection, RunQueryDsl};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use tempfile::TempDir;

pub use client::Client;
pub use postgres::{Cluster, Database};
pub use requests::Refusal;
pub use waiting::{
    PATIENCE, eventually, is_alive, lines_of, pids_of, signal, skip, system_lines, text, wait_for, within,
};
pub use wire::{PROTOCOL, Wire};

/// A server process on a directory of its own. Killed, with all it started, when dropped.
pub struct TestServer {
    process: Child,
    address: SocketAddr,
    wrapper: Vec<String>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    directory: Arc<TempDir>,
    /// Where it stores, if that is not its directory.
    database: Option<Arc<Database>>,
    log: Arc<Mutex<String>>,
    /// The token that its clients show.
    token: Option<String>,
    http: reqwest::Client,
}

impl TestServer {
    /// A server with the default options.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// A server with these options.
    pub fn with(arguments: &[&str]) -> Self {
        Self::with_environment(arguments, &[])
    }

    /// A server with these options and variables.
    pub fn with_environment(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::listening("127.0.0.1:0", arguments, environment)
    }

    /// A server with the data plugins of the tests, and these options. It has no Meltano.
    pub fn with_plugins(arguments: &[&str]) -> Self {
        Self::knowing_plugins(arguments, &[])
    }

    /// A server with the data plugins of the tests, and Meltano. Nothing, and a word on why, if that cannot be had.
    pub fn with_meltano(arguments: &[&str]) -> Option<Self> {
        let meltano = installation::meltano()?;
        // What runs the plugins is beside their definitions.
        let path = format!("{}:{}", plugins().display(), std::env::var("PATH").expect("a PATH"));
        let meltano = meltano.to_str().expect("UTF-8");
        Some(Self::knowing_plugins(arguments, &[("JOBSTREAM_MELTANO", meltano), ("PATH", &path)]))
    }

    fn knowing_plugins(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let directory = Arc::new(tempfile::tempdir().expect("a directory"));
        let definitions = directory.path().join("data/plugins");
        std::fs::create_dir_all(&definitions).expect("a directory");
        for entry in std::fs::read_dir(plugins()).expect("the plugins") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|it| it == "yml") {
                std::fs::copy(&path, definitions.join(path.file_name().expect("a name"))).expect("a copy");
            }
        }
        let arguments = ["--listen", "127.0.0.1:0"].iter().chain(arguments).map(ToString::to_string).collect();
        let environment = environment.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        Self::on(directory, database(), Vec::new(), arguments, environment)
    }

    /// A server that listens at this address, whose port is 0.
    pub fn listening(address: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let directory = Arc::new(tempfile::tempdir().expect("a directory"));
        let arguments = ["--listen", address].iter().chain(arguments).map(ToString::to_string).collect();
        let environment = environment.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        Self::on(directory, database(), Vec::new(), arguments, environment)
    }

    /// A server on this database, with these options.
    pub fn on_database(database: Arc<Database>, arguments: &[&str]) -> Self {
        let directory = Arc::new(tempfile::tempdir().expect("a directory"));
        let arguments = ["--listen", "127.0.0.1:0"].iter().chain(arguments).map(ToString::to_string).collect();
        Self::on(directory, Some(database), Vec::new(), arguments, Vec::new())
    }

    /// A server with these options that a wrapper starts: a command whose last arguments are the server's command line. The
    /// wrapper is told the data directory, and has to end in an `exec`.
    pub fn wrapped(wrapper: impl FnOnce(&Path) -> Vec<String>, arguments: &[&str]) -> Self {
        let directory = Arc::new(tempfile::tempdir().expect("a directory"));
        let wrapper = wrapper(&directory.path().join("data"));
        let arguments = ["--listen", "127.0.0.1:0"].iter().chain(arguments).map(ToString::to_string).collect();
        Self::on(directory, database(), wrapper, arguments, Vec::new())
    }

    /// A server with these options, on a data directory and a database that were prepared before it starts.
    pub fn prepared(prepare: impl FnOnce(&Path, Option<&Database>), arguments: &[&str]) -> Self {
        let directory = Arc::new(tempfile::tempdir().expect("a directory"));
        let database = database();
        prepare(directory.path(), database.as_deref());
        let arguments = ["--listen", "127.0.0.1:0"].iter().chain(arguments).map(ToString::to_string).collect();
        Self::on(directory, database, Vec::new(), arguments, Vec::new())
    }

    /// A command of the program other than `serve`, on the directory and the database of this server.
    pub fn subcommand(&self, name: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jobstream"));
        command.args([name, "--data-dir"]).arg(self.data_directory());
        if let Some(database) = &self.database {
            command.args(["--database-url", &database.url()]);
        }
        command.env_remove("JOBSTREAM_TOKEN").stdin(Stdio::null());
        command
    }

    /// The same, and its clients show this token, which the wrapper gives to the server.
    pub fn wrapped_with_token(wrapper: impl FnOnce(&Path) -> Vec<String>, arguments: &[&str], token: &str) -> Self {
        Self::wrapped(wrapper, arguments).showing(Some(token.to_owned()))
    }

    fn showing(mut self, token: Option<String>) -> Self {
        self.http = http_client(token.as_deref());
        self.token = token;
        self
    }

    fn on(
        directory: Arc<TempDir>,
        database: Option<Arc<Database>>,
        wrapper: Vec<String>,
        arguments: Vec<String>,
        environment: Vec<(String, String)>,
    ) -> Self {
        let plain = Self::command(directory.path());
        let mut command = match wrapper.split_first() {
            None => plain,
            Some((program, rest)) => {
                let mut command = Command::new(program);
                command.args(rest).arg(plain.get_program()).args(plain.get_args());
                command.env("JOBSTREAM_MELTANO", "none").env_remove("JOBSTREAM_TOKEN").stdin(Stdio::null());
                command
            }
        };
        if let Some(database) = &database
            && !arguments.iter().any(|it| it.starts_with("--database-url"))
        {
            command.args(["--database-url", &database.url()]);
        }
        command.args(&arguments).envs(environment.iter().map(|(name, value)| (name, value)));
        let mut process = command.stderr(Stdio::piped()).spawn().expect("the server starts");
        let mut stderr = BufReader::new(process.stderr.take().expect("its standard error"));
        let log = Arc::new(Mutex::new(String::new()));
        let mut line = String::new();
        let address = loop {
            line.clear();
            let read = stderr.read_line(&mut line).expect("its log can be read");
            log.lock().expect("the log").push_str(&line);
            assert!(read > 0, "the server ended at its start: {}", log.lock().expect("the log"));
            if let Some((_, rest)) = line.split_once("GraphiQL is at http://") {
                break rest.split('/').next().and_then(|it| it.parse().ok()).expect("an address");
            }
        };
        let keep = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let mut log = keep.lock().expect("the log");
                log.push_str(&line);
                log.push('\n');
            }
        });
        let token = environment.iter().find(|(name, _)| name == "JOBSTREAM_TOKEN").map(|(_, value)| value.clone());
        let http = http_client(token.as_deref());
        Self { process, address, wrapper, arguments, environment, directory, database, log, token, http }
    }

    /// The command that starts a server on this directory.
    pub fn command(directory: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jobstream"));
        command.args(["serve", "--data-dir"]).arg(directory.join("data"));
        // Most tests need no Meltano; those that do name one.
        command.env("JOBSTREAM_MELTANO", "none").env_remove("JOBSTREAM_TOKEN").stdin(Stdio::null());
        command
    }

    /// Its database, if that is not in its directory.
    pub fn database(&self) -> Option<&Database> {
        self.database.as_deref()
    }

    /// The command that starts a server on the directory and the database of this one.
    pub fn same_command(&self) -> Command {
        let mut command = Self::command(self.directory.path());
        if let Some(database) = &self.database {
            command.args(["--database-url", &database.url()]);
        }
        command
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.process.id()).expect("a pid")
    }

    pub fn data_directory(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// The file with the key that sensitive values are sealed with.
    pub fn key(&self) -> PathBuf {
        let data = self.data_directory();
        if on_postgres() { data.join("shared/key") } else { data.join("key") }
    }

    /// Where it is kept how far a pipeline has loaded.
    pub fn meltano_state(&self, pipeline: &str) -> PathBuf {
        let data = self.data_directory();
        let states = if on_postgres() { data.join("shared/meltano-state") } else { data.join("meltano/state") };
        states.join(pipeline)
    }

    /// A workspace's repository.
    pub fn repository(&self, workspace: &str) -> PathBuf {
        self.data_directory().join("repositories").join(workspace)
    }

    /// A directory that jobs and the test can share, and that goes with the server.
    pub fn scratch(&self) -> PathBuf {
        let scratch = self.directory.path().join("scratch");
        std::fs::create_dir_all(&scratch).expect("a directory");
        scratch
    }

    /// What the server has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("the log").clone()
    }

    /// Kills the server with SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Kills the server with SIGKILL, and starts another one on the same directory with the same options.
    pub fn kill_and_restart(self) -> Self {
        let mut killed = self;
        killed.kill();
        killed.restart()
    }

    /// Kills the server with SIGKILL, and starts another one in its place: on the same directory, at the same address.
    pub fn kill_and_restart_in_place(mut self) -> Self {
        self.kill();
        let listen = self.arguments.iter().position(|it| it == "--listen").expect("the address it was given");
        self.arguments[listen + 1] = self.address.to_string();
        self.restart()
    }

    /// Starts another server on the directory of this one, which has ended.
    pub fn restart(self) -> Self {
        let database = self.database.clone();
        let (wrapper, arguments, environment) =
            (self.wrapper.clone(), self.arguments.clone(), self.environment.clone());
        let restarted = Self::on(Arc::clone(&self.directory), database, wrapper, arguments, environment);
        restarted.showing(self.token.clone())
    }

    /// Sends the server SIGTERM.
    pub fn terminate(&self) {
        signal(self.pid(), "TERM");
    }

    /// Waits until the server has ended.
    pub async fn ended(&mut self) -> ExitStatus {
        eventually("the server ends", async || self.process.try_wait().expect("its status")).await
    }

    /// A connected WebSocket client.
    pub async fn client(&self) -> Client {
        Client::connect(self.address, self.token.as_deref()).await.expect("a connection")
    }

    /// A client of the HTTP endpoints, which shows the token if the server wants one.
    pub fn http(&self) -> &reqwest::Client {
        &self.http
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The directory that this server, and every other that is started on it, has.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Kills the server with SIGKILL, and starts another one on the same directory with these options.
    pub fn kill_and_restart_with(mut self, arguments: &[&str]) -> Self {
        self.kill();
        self.arguments = arguments.iter().map(ToString::to_string).collect();
        self.restart()
    }

    /// How many rows a query of the server's own database counts.
    pub fn count_rows(&self, what: &str) -> i64 {
        #[derive(diesel::QueryableByName)]
        struct Count {
            #[diesel(sql_type = diesel::sql_types::BigInt)]
            count: i64,
        }
        if let Some(database) = &self.database {
            return database.count(what);
        }
        let path = self.data_directory().join("jobstream.db");
        let mut database = diesel::SqliteConnection::establish(path.to_str().expect("UTF-8")).expect("the database");
        let query = diesel::sql_query(format!("SELECT count(*) AS count FROM {what}"));
        query.get_result::<Count>(&mut database).expect("a count").count
    }

    /// Executes statements in the server's own database.
    pub fn execute(&self, sql: &str) {
        if let Some(database) = &self.database {
            return database.execute(sql);
        }
        let path = self.data_directory().join("jobstream.db");
        let mut database = diesel::SqliteConnection::establish(path.to_str().expect("UTF-8")).expect("the database");
        database.batch_execute("PRAGMA busy_timeout = 10000").expect("a timeout");
        database.batch_execute(sql).expect(sql);
    }

    /// How much of the processor the server has used so far.
    pub fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("its figures");
        let fields = stat.rsplit_once(") ").expect("a name").1.split(' ');
        let ticks: u64 = fields.skip(11).take(2).map(|it| it.parse::<u64>().expect("a number")).sum();
        Duration::from_millis(ticks * 10) // a hundred ticks are a second on every Linux
    }

    /// The most memory that the server has had so far, in KiB.
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("its status");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
        peak.trim().trim_end_matches(" kB").parse().expect("a number")
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("the server's log:\n{}", self.log());
        }
    }
}

/// Whether this is the suite on PostgreSQL.
pub fn on_postgres() -> bool {
    env!("CARGO_CRATE_NAME") == "it_postgres"
}

/// A new database for a server, where it does not keep one in its directory.
fn database() -> Option<Arc<Database>> {
    if !on_postgres() {
        return None;
    }
    match Cluster::shared() {
        Some(cluster) => Some(Arc::new(cluster.database())),
        // It was said why. What was not run must not look as if it had passed.
        None => std::process::exit(0),
    }
}

/// Where the data plugins of the tests are.
fn plugins() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/plugins")
}

fn http_client(token: Option<&str>) -> reqwest::Client {
    let mut headers = HeaderMap::new();
    if let Some(token) = token {
        headers.insert(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {token}")).expect("a header's value"));
    }
    // The server's own choice; once is enough.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().default_headers(headers).build().expect("a client")
}
