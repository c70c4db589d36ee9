//! A pooler between servers and their database: one that keeps sessions is as good as none, any other is refused.

use serde_json::json;
use tokio_postgres::NoTls;

use crate::nodes::Nodes;
use crate::support::pooler::Pooler;
use crate::support::{Cluster, Database, TestServer, on_postgres, text, wait_for};

/// What a server says that does not start on a database at this address.
fn refusal(database: &Database, pooler: &Pooler) -> String {
    let directory = tempfile::tempdir().expect("a directory");
    let url = database.url_at(pooler.address());
    let options = ["--listen", "127.0.0.1:0", "--database-url", &url];
    let ended = TestServer::command(directory.path()).args(options).output().expect("it ends");
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    said
}

fn names_the_pooler(said: &str) {
    assert!(said.contains("no sessions of their own") && said.contains("PgBouncer"), "{said}");
    assert!(said.contains("pool_mode = session"), "{said}");
}

/// A cluster of its own and a pooler before it: what others have connected would be in the way.
fn pooled(mode: &str) -> Option<(Cluster, Pooler)> {
    if !on_postgres() {
        return None;
    }
    let cluster = Cluster::start()?;
    let pooler = Pooler::start(cluster.address(), mode)?;
    Some((cluster, pooler))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_works_through_a_pooler_that_keeps_sessions() {
    let Some((cluster, pooler)) = pooled("session") else { return };
    let nodes = Nodes::in_cluster(&cluster);
    let through = nodes.database().url_at(pooler.address());
    let one = nodes.node_at(&through, "one", &["--database-connections", "4"]);
    let direct = nodes.node("direct", &["--slots", "0"]);
    let workspace = direct.workspace("Workspace").await;
    let gate = nodes.scratch().join("gate");
    let script = format!("echo first; {}; echo second", wait_for(&gate));
    let pipeline = one.pipeline(&workspace, "Pipeline", &script).await;
    let mut changes = direct.changes(json!({ "after": direct.cursor().await })).await;
    let job = direct.run(&pipeline).await;
    for server in [&one, &direct] {
        server.line_appears(&job, "first").await;
    }
    std::fs::write(&gate, "").expect("the gate");
    let seen = changes.until(|change| change["status"] == "COMPLETE").await;
    let statuses: Vec<&str> = seen.iter().map(|change| text(&change["status"])).collect();
    assert_eq!(statuses, ["QUEUED", "RUNNING", "COMPLETE"]);
    assert_eq!(one.log_lines(&job).await, direct.log_lines(&job).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_keeps_no_sessions_is_refused_by_name_and_left_as_it_was() {
    let Some((cluster, pooler)) = pooled("transaction") else { return };
    let database = cluster.database();
    // Again too, when the pooler has connections in its pool.
    names_the_pooler(&refusal(&database, &pooler));
    names_the_pooler(&refusal(&database, &pooler));
    // Nothing was left in the pooler's sessions that another server would wait for.
    assert_eq!(database.count("pg_locks WHERE locktype = 'advisory'"), 0);
    assert_eq!(database.count("pg_tables WHERE schemaname = 'public'"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_recognised_while_others_are_busy_in_it() {
    let Some((cluster, pooler)) = pooled("transaction") else { return };
    let database = cluster.database();
    let others = (0..4).map(|_| {
        let url = database.url_at(pooler.address());
        tokio::spawn(async move {
            let (client, connection) = tokio_postgres::connect(&url, NoTls).await.expect("a connection");
            tokio::spawn(connection);
            while client.simple_query("BEGIN; SELECT pg_sleep(0.002); COMMIT").await.is_ok() {}
        })
    });
    let others: Vec<_> = others.collect();
    names_the_pooler(&refusal(&database, &pooler));
    others.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_keeps_nothing_at_all_is_refused_too() {
    let Some((cluster, pooler)) = pooled("statement") else { return };
    let said = refusal(&cluster.database(), &pooler);
    assert!(said.contains("statement pooling"), "{said}");
}
