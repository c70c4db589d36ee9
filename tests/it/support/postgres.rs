//! PostgreSQL for tests: a cluster that goes with the test process, and databases in it that go with their test.

pub mod process;
mod tests;

use std::net::{SocketAddr, ToSocketAddrs};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock};

use tokio_postgres::{NoTls, SimpleQueryMessage};
use url::Url;

use self::process::Process;
use super::proxy::Proxy;
use super::{PATIENCE, skip};

/// The variable that names a server to use instead of one that is made for the tests: the URL of a database of somebody who
/// may create others.
const SERVER: &str = "JOBSTREAM_TEST_DATABASE_URL";

/// A PostgreSQL server.
pub struct Cluster {
    /// A database that is always there.
    url: Url,
    address: SocketAddr,
    /// Nothing, if it is somebody else's.
    process: Option<Mutex<Process>>,
}

/// A database of a test, empty at first. Dropped, whoever is connected to it, when dropped.
pub struct Database {
    server: Url,
    name: String,
}

impl Cluster {
    /// The cluster that tests share. Nothing, and a word on why, if it cannot be had.
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Result<Cluster, String>> = OnceLock::new();
        let shared =
            SHARED.get_or_init(|| std::env::var(SERVER).map_or_else(|_| Self::try_start(&[]), |it| Self::at(&it)));
        shared.as_ref().inspect_err(|why| skip(why)).ok()
    }

    /// A cluster for one test, which may stop it. Nothing, and a word on why, if it cannot be had.
    pub fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// The same, with these environment variables.
    pub fn start_with(environment: &[(&str, String)]) -> Option<Self> {
        Self::try_start(environment).inspect_err(|why| skip(why)).ok()
    }

    fn try_start(environment: &[(&str, String)]) -> Result<Self, String> {
        let process = Process::start(environment)?;
        let mut cluster = Self::at(&format!("postgres://postgres@127.0.0.1:{}/postgres", process.port()))?;
        cluster.process = Some(Mutex::new(process));
        Ok(cluster)
    }

    /// The server of this URL, which is somebody else's.
    fn at(url: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("The URL of the tests' PostgreSQL is wrong: {what}.");
        let url: Url = url.parse().map_err(|error| wrong(&format!("{error}")))?;
        let host = url.host_str().ok_or_else(|| wrong("there is no host"))?.trim_matches(['[', ']']);
        let addresses = (host, url.port().unwrap_or(5432)).to_socket_addrs();
        let address = addresses.ok().and_then(|mut it| it.next()).ok_or_else(|| wrong("there is no such host"))?;
        Ok(Self { url, address, process: None })
    }

    /// A new, empty database.
    pub fn database(&self) -> Database {
        let name = format!("jobstream_test_{}", uuid::Uuid::new_v4().simple());
        // Nobody ever connects to this template, which would be in the way.
        query(&self.url, &format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")).expect("a database");
        Database { server: self.url.clone(), name }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Stops the server at once, as if it had crashed, and starts it again in its place: at the same address, on the same
    /// directory.
    pub fn restart_immediately(&self) {
        self.stop_immediately();
        self.start_again();
    }

    /// Stops the server at once, as if it had crashed, and waits until it is gone.
    pub fn stop_immediately(&self) {
        self.process().stop().expect("it stops");
    }

    /// Starts the server, which has been stopped, in its place, and waits until it accepts connections.
    pub fn start_again(&self) {
        self.process().start_again().expect("it starts");
    }

    /// Puts files among its own, carries out each statement, and starts it again so that it heeds both.
    pub fn configure(&self, files: &[(&str, &str)], statements: &[&str]) {
        for statement in statements {
            query(&self.url, statement).expect(statement);
        }
        for (name, content) in files {
            self.process().put(name, content).expect(name);
        }
        self.restart_immediately();
    }

    fn process(&self) -> MutexGuard<'_, Process> {
        let process = self.process.as_ref().expect("a cluster that was started for the tests");
        process.lock().expect("the process")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(Ok(process)) = self.process.as_ref().map(Mutex::lock)
        {
            eprintln!("PostgreSQL's log:\n{}", process.log());
        }
    }
}

impl Database {
    /// What a client connects to.
    pub fn url(&self) -> String {
        self.location().into()
    }

    /// What a client connects to that is to go through a proxy.
    pub fn url_through(&self, proxy: &Proxy) -> String {
        self.url_at(proxy.address())
    }

    /// What a client connects to for whom the database is at this address.
    pub fn url_at(&self, address: SocketAddr) -> String {
        let mut url = self.location();
        url.set_ip_host(address.ip()).expect("a URL with a host");
        url.set_port(Some(address.port())).expect("a URL with a port");
        url.into()
    }

    /// How many rows a query counts.
    pub fn count(&self, what: &str) -> i64 {
        let answer = query(&self.location(), &format!("SELECT count(*) FROM {what}")).expect("a count");
        let row = answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        row.expect("a row").parse().expect("a number")
    }

    /// Carries out SQL: one statement, or several in one transaction.
    pub fn execute(&self, sql: &str) {
        query(&self.location(), sql).expect(sql);
    }

    /// Restores a dump that is compressed with gzip.
    pub fn restore(&self, dump: &std::path::Path) {
        // Where the server's programs are is not always where the client's are.
        let beside = process::binaries().map(|it| it.join("psql")).filter(|it| it.is_file());
        let psql = beside.unwrap_or_else(|| "psql".into());
        // Older versions of psql do not know the command that newer dumps begin and end with.
        let script = r#"gzip -dc "$1" | sed '/^\\\(un\)\{0,1\}restrict /d' | "$2" --quiet --no-psqlrc --set ON_ERROR_STOP=1 --output /dev/null "$3""#;
        let mut restore = Command::new("sh");
        restore.args(["-c", script, "restore"]).arg(dump).arg(psql).arg(self.url());
        assert!(restore.status().expect("sh").success(), "the dump is restored");
    }

    fn location(&self) -> Url {
        let mut url = self.server.clone();
        url.set_path(&self.name);
        url
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // The server may be stopped, or gone.
        let _ = query(&self.server, &format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name));
    }
}

/// Carries out SQL on a connection of its own, which is closed afterwards. That is done on a thread of its own too: within a
/// runtime, as in a test, no other can be waited for.
fn query(url: &Url, sql: &str) -> Result<Vec<SimpleQueryMessage>, String> {
    let work = async {
        let (client, connection) = tokio_postgres::connect(url.as_str(), NoTls).await?;
        let answer = async move { client.simple_query(sql).await };
        // The connection ends once the client is gone, which goes with the answer.
        tokio::join!(connection, answer).1
    };
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let limited = runtime.block_on(async { tokio::time::timeout(PATIENCE, work).await });
        limited.map_err(|_| "PostgreSQL takes far too long.".to_owned())?.map_err(|error| format!("{error:?}"))
    };
    std::thread::scope(|scope| scope.spawn(run).join().expect("no panic"))
}
