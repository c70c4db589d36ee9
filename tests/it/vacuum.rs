//! The embedded database gives the space of what is deleted back.

use std::path::Path;

use diesel::connection::SimpleConnection;
use diesel::{Connection, RunQueryDsl, SqliteConnection};

use crate::support::{TestServer, eventually, on_postgres};

#[derive(diesel::QueryableByName)]
struct Number {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    number: i64,
}

fn open(path: &Path) -> SqliteConnection {
    SqliteConnection::establish(path.to_str().expect("UTF-8")).expect("the database")
}

fn pragma(path: &Path, name: &str) -> i64 {
    let query = diesel::sql_query(format!("SELECT {name} AS number FROM pragma_{name}"));
    query.get_result::<Number>(&mut open(path)).expect("a number").number
}

fn size(path: &Path) -> u64 {
    path.metadata().expect("the database").len()
}

/// A job that fills some MiB of the database with what cannot be compressed.
async fn fill(server: &TestServer) -> String {
    let job = server.run_script("head -c 12000000 /dev/urandom | base64 -w 200").await;
    assert_eq!(server.final_job(&job).await["status"], "COMPLETE");
    job
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_shrinks_after_deletions() {
    if on_postgres() {
        return;
    }
    let server = TestServer::start();
    let path = server.data_directory().join("jobstream.db");
    assert_eq!(pragma(&path, "auto_vacuum"), 2);
    let job = fill(&server).await;
    let full = eventually("the log is in the database", async || Some(size(&path)).filter(|it| *it > 8_000_000)).await;
    server.delete("Job", &job).await;
    eventually("the file shrinks", async || (size(&path) < full / 3).then_some(())).await;
    eventually("it is done, and logged", async || server.log().contains("returned free database pages").then_some(()))
        .await;
    assert!(pragma(&path, "freelist_count") <= 256);
    // All is as it was for whoever goes on.
    server.workspace("Another").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_could_not_shrink_is_converted_once() {
    if on_postgres() {
        return;
    }
    let mut server = TestServer::start();
    let path = server.data_directory().join("jobstream.db");
    let job = fill(&server).await;
    let lines = server.log_lines(&job).await;
    server.terminate();
    server.ended().await;
    open(&path)
        .batch_execute("PRAGMA journal_mode = DELETE; PRAGMA auto_vacuum = NONE; VACUUM;")
        .expect("it is as it was");
    assert_eq!(pragma(&path, "auto_vacuum"), 0);
    server = server.restart();
    assert_eq!(pragma(&path, "auto_vacuum"), 2);
    assert!(server.log().contains("converted the database to incremental vacuum"));
    assert_eq!(server.log_lines(&job).await, lines);
    let full = size(&path);
    server = server.kill_and_restart();
    assert!(!server.log().contains("incremental vacuum"), "once");
    server.delete("Job", &job).await;
    eventually("the file shrinks", async || (size(&path) < full / 3).then_some(())).await;
}
