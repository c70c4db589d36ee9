//! `jobstream check`: it says what is wrong, and changes nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use diesel::connection::SimpleConnection;
use diesel::{Connection, SqliteConnection};
use serde_json::json;
use tempfile::TempDir;

use crate::nodes::Nodes;
use crate::support::pooler::Pooler;
use crate::support::{Cluster, TestServer, on_postgres};

/// What was found.
struct Findings {
    exit_code: Option<i32>,
    lines: Vec<String>,
}

impl Findings {
    fn of(command: &mut Command) -> Self {
        let ended = command.output().expect("it ends");
        let said = String::from_utf8(ended.stdout).expect("UTF-8");
        let errors = String::from_utf8_lossy(&ended.stderr);
        assert!(errors.is_empty() || ended.status.code() == Some(2), "{errors}");
        Self { exit_code: ended.status.code(), lines: said.lines().map(str::to_owned).collect() }
    }

    /// With these options, on this directory.
    fn with(directory: &Path, options: &[&str]) -> Self {
        Self::of(command(directory).args(["--listen", "127.0.0.1:0"]).args(options))
    }

    /// Nothing is wrong, and these are among the findings.
    fn is_well(&self, expected: &[&str]) {
        assert_eq!((self.exit_code, self.wrong()), (Some(0), Vec::new()), "{:#?}", self.lines);
        self.has(expected);
    }

    /// What is wrong is this, and nothing else.
    fn is_wrong(&self, expected: &[&str]) {
        let wrong = self.wrong();
        assert_eq!((self.exit_code, wrong.len()), (Some(1), expected.len()), "{:#?}", self.lines);
        assert!(wrong.iter().zip(expected).all(|(line, expected)| line.contains(expected)), "{wrong:#?}");
    }

    fn wrong(&self) -> Vec<&String> {
        self.lines.iter().filter(|line| line.starts_with("wrong ")).collect()
    }

    fn has(&self, expected: &[&str]) {
        let is_there = |expected: &str| self.lines.iter().any(|line| line.contains(expected));
        let missing: Vec<_> = expected.iter().filter(|it| !is_there(it)).collect();
        assert!(missing.is_empty(), "{missing:?} in {:#?}", self.lines);
    }
}

fn command(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jobstream"));
    command.arg("check").arg("--data-dir").arg(directory);
    command.env("JOBSTREAM_MELTANO", "none").env_remove("JOBSTREAM_TOKEN");
    command
}

fn directory() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

/// The options with which a server of the tests was started, for somebody else.
fn like(server: &TestServer) -> Vec<String> {
    server.database().map(|it| vec!["--database-url".to_owned(), it.url()]).unwrap_or_default()
}

fn names(directory: &Path) -> Vec<std::ffi::OsString> {
    let mut names: Vec<_> =
        fs::read_dir(directory).expect("a directory").map(|it| it.expect("an entry").file_name()).collect();
    names.sort();
    names
}

#[test]
fn a_directory_that_is_not_there_yet_is_well_and_stays_so() {
    if on_postgres() {
        return;
    }
    let directory = directory();
    let new = directory.path().join("new");
    let found = Findings::with(&new, &[]);
    found.is_well(&["is not there yet; a server makes it", "there is no database", "there is no key file", "git is /"]);
    assert!(!new.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn it_works_beside_a_server_and_after_it() {
    let mut server = TestServer::start();
    let workspace = server.workspace("Workspace").await;
    let secret = json!([{ "name": "a.b", "value": "hunter2", "sensitive": true }]);
    server
        .pipeline_with(json!({ "workspaceId": workspace, "name": "P", "script": "true", "properties": secret }))
        .await;
    let options = like(&server);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let found = Findings::with(&server.data_directory(), &options);
    found.is_well(&["a server is running on", "its schema is that of this version", "is that of the database"]);
    if on_postgres() {
        found.has(&[
            "its notifications arrive",
            "s apart",
            "its lease holds for",
            "may do what a server does",
            "there is no --shared-dir",
        ]);
    }
    server.workspace("Another").await;

    server.terminate();
    assert!(server.ended().await.success());
    let before = names(&server.data_directory());
    let found = Findings::with(&server.data_directory(), &options);
    found.is_well(&["its schema is that of this version"]);
    assert!(!found.lines.iter().any(|line| line.contains("a server is running")));
    assert_eq!(names(&server.data_directory()), before, "it leaves nothing behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_another_or_open_to_all_is_wrong() {
    let mut server = TestServer::start();
    let workspace = server.workspace("Workspace").await;
    let secret = json!([{ "name": "a.b", "value": "hunter2", "sensitive": true }]);
    server
        .pipeline_with(json!({ "workspaceId": workspace, "name": "P", "script": "true", "properties": secret }))
        .await;
    server.terminate();
    assert!(server.ended().await.success());
    let options = like(&server);
    let mut options: Vec<&str> = options.iter().map(String::as_str).collect();
    let data = server.data_directory();
    let key = data.join(if on_postgres() { "shared/key" } else { "key" });

    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("permissions");
    Findings::with(&data, &options).is_wrong(&["everybody on this machine can reach the key"]);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).expect("permissions");
    Findings::with(&data, &options).is_well(&["can reach the key in"]);

    let directory = directory();
    let another = directory.path().join("key");
    fs::write(&another, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n").expect("a key");
    fs::set_permissions(&another, fs::Permissions::from_mode(0o600)).expect("permissions");
    options.extend(["--key-file", another.to_str().expect("UTF-8")]);
    Findings::with(&data, &options).is_wrong(&["is not that of the sensitive values in the database"]);
    fs::remove_file(&another).expect("a file");
    Findings::with(&data, &options).is_wrong(&["there is no key file"]);
    assert!(!another.exists(), "it makes none");
}

#[test]
fn options_that_cannot_be_used_together_are_wrong() {
    let directory = directory();
    let open = Findings::of(command(directory.path()).args(["--listen", "0.0.0.0:0", "--log", "a=b=c"]));
    open.is_wrong(&["JOBSTREAM_TOKEN", "--log a=b=c"]);
    let token = "a-token-of-enough-characters";
    let closed = Findings::of(command(directory.path()).args(["--listen", "0.0.0.0:0"]).env("JOBSTREAM_TOKEN", token));
    closed.is_well(&["the options can be used together"]);
    assert_eq!(Findings::with(directory.path(), &["--slots", "many"]).exit_code, Some(2));
    let file = directory.path().join("file");
    fs::write(&file, "").expect("a file");
    Findings::with(&file, &[]).is_wrong(&["is not a directory", "plugins", "the key file"]);
}

#[test]
fn a_database_that_cannot_be_read_is_wrong() {
    let directory = directory();
    fs::write(directory.path().join("jobstream.db"), "This is no database, however long it is.".repeat(100))
        .expect("a file");
    Findings::with(directory.path(), &[]).is_wrong(&["cannot be read"]);
}

/// Carries out SQL on the database of a server that has ended.
fn execute(server: &TestServer, sql: &str) {
    match server.database() {
        Some(database) => database.execute(sql),
        None => {
            let path = server.data_directory().join("jobstream.db");
            let mut database = SqliteConnection::establish(path.to_str().expect("UTF-8")).expect("the database");
            database.batch_execute(sql).expect(sql);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_schema_is_wrong_and_an_older_one_is_remarked_on() {
    let mut server = TestServer::start();
    server.terminate();
    assert!(server.ended().await.success());
    let options = like(&server);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    execute(&server, "INSERT INTO __diesel_schema_migrations (version) VALUES ('9999')");
    let found = Findings::with(&server.data_directory(), &options);
    found.is_wrong(&["schema 9999, which this version does not know: it is newer"]);
    execute(&server, "DELETE FROM __diesel_schema_migrations WHERE version = '9999'");
    Findings::with(&server.data_directory(), &options).is_well(&["its schema is that of this version"]);
    // The schema of PostgreSQL has had one version only.
    if !on_postgres() {
        let last = "(SELECT max(version) FROM __diesel_schema_migrations)";
        execute(&server, &format!("DELETE FROM __diesel_schema_migrations WHERE version = {last}"));
        let found = Findings::with(&server.data_directory(), &options);
        found.is_well(&["its schema is 1 step older than this version: a server brings it up to date"]);
    }
}

#[test]
fn a_database_that_is_not_reached_is_wrong_and_its_password_is_not_told() {
    let directory = directory();
    let url = "postgres://app:correct-horse@127.0.0.1:1/jobstream";
    let found = Findings::with(directory.path(), &["--database-url", url]);
    found.is_wrong(&["cannot be reached"]);
    assert!(!found.lines.concat().contains("correct-horse"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_new_database_lacks_is_said() {
    let Some(cluster) = Cluster::shared().filter(|_| on_postgres()) else { return };
    let (database, directory) = (cluster.database(), directory());
    let check = |url: &str, options: &[&str]| {
        Findings::with(directory.path(), &[&["--database-url", url][..], options].concat())
    };
    check(&database.url(), &[]).is_well(&["it has no schema yet", "no server is registered", "there is no key file"]);
    assert_eq!(database.count("pg_tables WHERE schemaname = 'public'"), 0);
    check(&database.url(), &["--database-connections", "1000"]).is_wrong(&["raise max_connections"]);

    let role = format!("reader_{}", uuid::Uuid::new_v4().simple());
    database.execute(&format!("CREATE ROLE {role} LOGIN; REVOKE CREATE ON SCHEMA public FROM public"));
    let as_reader = database.url().replacen("postgres@", &format!("{role}@"), 1);
    if as_reader != database.url() {
        check(&as_reader, &[]).is_wrong(&["the user lacks: CREATE on the schema"]);
    }
    database.execute(&format!("DROP ROLE {role}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_another_shared_directory_is_named() {
    let Some(nodes) = Nodes::new() else { return };
    let _server = nodes.node("one", &["--lease-margin", "60"]);
    let (directory, url) = (directory(), nodes.database().url());
    let shared = directory.path().join("shared");
    let options = ["--database-url", &url, "--shared-dir", shared.to_str().expect("UTF-8")];
    let found = Findings::with(directory.path(), &options);
    found.is_wrong(&["the server one has another shared directory", "there is no key file"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_keeps_no_sessions_is_wrong() {
    if !on_postgres() {
        return;
    }
    let Some(cluster) = Cluster::start() else { return };
    let Some(pooler) = Pooler::start(cluster.address(), "transaction") else { return };
    let (database, directory) = (cluster.database(), directory());
    let found = Findings::with(directory.path(), &["--database-url", &database.url_at(pooler.address())]);
    found.is_wrong(&["no sessions of their own. If a pooler such as PgBouncer"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_address_of_the_database_can_come_from_a_descriptor() {
    let Some(cluster) = Cluster::shared().filter(|_| on_postgres()) else { return };
    let (database, directory) = (cluster.database(), directory());
    let file = directory.path().join("secrets");
    let token = "jobstream-test-3f2b8c1e6f0a";
    fs::write(&file, format!("{token}\n{}\n", database.url())).expect("a file");
    let options = ["--listen", "127.0.0.1:0", "--token-fd", "0", "--database-url-fd", "0"];
    let mut checked = command(directory.path());
    checked.args(options).stdin(fs::File::open(&file).expect("the file"));
    Findings::of(&mut checked).is_well(&["the token came from descriptor 0", "it has no schema yet"]);

    let script = format!("exec \"$@\" < '{}'", file.display());
    let wrapper = |_: &Path| ["sh", "-c", &script, "sh"].map(str::to_owned).to_vec();
    let server = TestServer::wrapped_with_token(wrapper, &options[2..], token);
    server.data("{ __typename }", json!({})).await;
    assert_eq!(database.count("pg_tables WHERE tablename = 'jobs'"), 1);
}
