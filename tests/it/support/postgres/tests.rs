//! The cluster and the proxy do what tests rely on.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_postgres::{Client, NoTls};

use super::super::{eventually, is_alive, lines_of, within};
use super::{Cluster, Proxy};

/// The variable that makes this program one that starts a cluster, notes in a file what that is, and waits.
const NOTE: &str = "JOBSTREAM_TEST_CLUSTER_NOTE";

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_accepts_connections_and_each_database_is_empty_and_its_own() {
    let Some(cluster) = Cluster::shared() else { return };
    let (one, other) = (cluster.database(), cluster.database());
    let relations = "pg_class WHERE relnamespace = 'public'::regnamespace";
    assert_eq!((one.count(relations), other.count(relations)), (0, 0));
    one.execute("CREATE TABLE things (id INT); INSERT INTO things VALUES (1), (2)");
    assert_eq!((one.count("things"), other.count(relations)), (2, 0));
    assert_eq!(connect(&one.url()).await.query("SELECT id FROM things", &[]).await.expect("an answer").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_goes_when_it_is_dropped_even_if_somebody_is_connected() {
    let Some(cluster) = Cluster::shared() else { return };
    let (one, other) = (cluster.database(), cluster.database());
    let client = connect(&one.url()).await;
    let found = format!("pg_database WHERE datname = '{}'", one.name);
    assert_eq!(other.count(&found), 1);
    drop(one);
    assert_eq!(other.count(&found), 0);
    assert!(within(client.simple_query("SELECT 1")).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_restarted_keeps_what_was_committed() {
    let Some(cluster) = Cluster::start() else { return };
    let database = cluster.database();
    database.execute("CREATE TABLE things (id INT)");
    database.execute("INSERT INTO things VALUES (1)");
    let client = connect(&database.url()).await;
    client.batch_execute("BEGIN; INSERT INTO things VALUES (2)").await.expect("a transaction");
    cluster.restart_immediately();
    assert_eq!(database.count("things"), 1);
    assert!(within(client.simple_query("COMMIT")).await.is_err());

    cluster.stop_immediately();
    assert!(within(TcpStream::connect(cluster.address())).await.is_err());
    cluster.start_again();
    assert_eq!(cluster.port(), cluster.address().port());
    assert_eq!(database.count("things"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_ends_when_the_process_that_started_it_is_killed() {
    if let Some(note) = std::env::var_os(NOTE) {
        let cluster = Cluster::start().expect("a cluster");
        let (pid, directory) = whereabouts(&cluster);
        std::fs::write(note, format!("{pid}\n{}\n", directory.display())).expect("a note");
        // Until it is killed. It ends with the other process too.
        let _ = std::io::stdin().read(&mut [0]);
        return;
    }
    // So that it is not tried where there is no PostgreSQL.
    let Some(_cluster) = Cluster::start() else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let note = directory.path().join("note");
    let name = std::thread::current().name().expect("the test's name").to_owned();
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", &name]).env(NOTE, &note).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut owner = command.spawn().expect("it starts");
    let lines = lines_of(&note, 2).await;
    let (pid, cluster) = (lines[0].parse().expect("a pid"), Path::new(&lines[1]));
    assert!(is_alive(pid) && cluster.exists());
    owner.kill().expect("it is killed");
    owner.wait().expect("it is gone");
    eventually("the cluster is gone", async || (!is_alive(pid) && !cluster.exists()).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_ends_when_it_is_dropped() {
    let Some(cluster) = Cluster::start() else { return };
    let (pid, directory) = whereabouts(&cluster);
    assert!(is_alive(pid) && directory.exists());
    drop(cluster);
    assert!(!is_alive(pid) && !directory.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_proxy_answers_nothing_and_a_healed_one_does() {
    let Some(cluster) = Cluster::shared() else { return };
    let database = cluster.database();
    let proxy = Proxy::to(cluster.address());
    let client = connect(&database.url_through(&proxy)).await;
    client.simple_query("SELECT 1").await.expect("an answer");

    proxy.cut();
    let moment = Duration::from_millis(200);
    let mut answer = std::pin::pin!(client.simple_query("SELECT 1"));
    assert!(tokio::time::timeout(moment, &mut answer).await.is_err());
    let url = database.url_through(&proxy);
    let mut new = std::pin::pin!(tokio_postgres::connect(&url, NoTls));
    assert!(tokio::time::timeout(moment, &mut new).await.is_err());

    proxy.heal();
    assert!(within(answer).await.is_err());
    assert!(within(new).await.is_err());
    connect(&url).await.simple_query("SELECT 1").await.expect("an answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_through_a_cut_proxy_never_arrives() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let proxy = Proxy::to(listener.local_addr().expect("an address"));
    let mut client = TcpStream::connect(proxy.address()).await.expect("a connection");
    let (mut server, _) = within(listener.accept()).await.expect("a connection");
    let mut received = [0];
    client.write_all(b"1").await.expect("a connection");
    within(server.read_exact(&mut received)).await.expect("what was sent");

    proxy.cut();
    client.write_all(b"2").await.expect("a connection");
    server.write_all(b"3").await.expect("a connection");
    let _unanswered = TcpStream::connect(proxy.address()).await.expect("a connection");
    proxy.heal();
    // An end or an error, but no data.
    assert_eq!(within(server.read(&mut received)).await.unwrap_or(0), 0);
    assert_eq!(within(client.read(&mut received)).await.unwrap_or(0), 0);

    let mut client = TcpStream::connect(proxy.address()).await.expect("a connection");
    client.write_all(b"4").await.expect("a connection");
    // The first that the server is shown since.
    let (mut server, _) = within(listener.accept()).await.expect("a connection");
    within(server.read_exact(&mut received)).await.expect("what was sent");
    assert_eq!(&received, b"4");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_severed_proxy_closes_its_connections_and_accepts_new_ones() {
    let Some(cluster) = Cluster::shared() else { return };
    let database = cluster.database();
    let proxy = Proxy::to(cluster.address());
    let client = connect(&database.url_through(&proxy)).await;
    client.simple_query("SELECT 1").await.expect("an answer");
    proxy.sever();
    assert!(within(client.simple_query("SELECT 1")).await.is_err());
    connect(&database.url_through(&proxy)).await.simple_query("SELECT 1").await.expect("an answer");
}

/// The process id of a cluster, and its directory.
fn whereabouts(cluster: &Cluster) -> (i32, PathBuf) {
    let process = cluster.process();
    (process.pid(), process.directory().to_owned())
}

/// A client of a database. Its connection is looked after elsewhere.
async fn connect(url: &str) -> Client {
    let (client, connection) = within(tokio_postgres::connect(url, NoTls)).await.expect("a connection");
    tokio::spawn(connection);
    client
}
