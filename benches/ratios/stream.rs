//! What it takes that a change is in the stream when `createJob` is answered, against one `INSERT` and its commit; and how soon a subscriber on
//! another node hears of it, against one on the node that was asked.

use std::time::{Duration, Instant};

use jobstream::client::Client;
use serde_json::{Value, json};
use tokio_postgres::NoTls;

use crate::postgres::durable;
use crate::server::{Server, text};
use crate::support::Database;
use crate::{percentile, report_times};

const ROUNDS: usize = 200;

pub async fn run() {
    let Some(cluster) = durable().await else { return };
    let (database, shared) = (cluster.database(), tempfile::tempdir().expect("a directory"));
    let (url, directory) = (database.url(), shared.path().join("shared"));
    let options = ["--database-url", &url, "--shared-dir", directory.to_str().expect("UTF-8")];
    let mut one = Server::with(1, &options).await;
    let workspace = one.workspace("Workspace").await;
    let pipeline = one.pipeline(&workspace, "Pipeline", "true").await;
    // Jobs are only queued from here on.
    let mut one = one.again(|_| {}, 0, &options).await;
    let mut other = Server::with(0, &options).await;

    let plain = cluster.database();
    plain.execute("CREATE TABLE rows (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, value INT)");
    let insert = Statement::new(&plain, "INSERT INTO rows (value) VALUES (1)").await;
    // What a node does for a change once that is committed, and before it answers.
    let change = "INSERT INTO changes (workspace, job, status, attempt, at, deleted) \
                  VALUES (gen_random_uuid(), gen_random_uuid(), 'QUEUED', 1, now(), FALSE)";
    let change = Statement::new(&database, change).await;
    let number = Statement::new(&database, "SELECT number_changes()").await;
    let (mut created, mut inserted, mut numbered) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        inserted.push(insert.run().await);
        change.run().await;
        numbered.push(number.run().await);
        let started = Instant::now();
        let job = one.run(&pipeline).await;
        created.push(started.elapsed());
        stop(&mut one.client, &job).await;
    }
    report("a change given its position, against an INSERT and its commit", &numbered, &inserted);
    report("createJob until it is answered, against an INSERT and its commit", &created, &inserted);
    let before = one.statements().await;
    let job = one.run(&pipeline).await;
    println!("    {} statements for createJob", one.statements().await - before);
    stop(&mut one.client, &job).await;

    let changes = other.changes().await;
    let mut ask_one = Client::connect(one.address, None).await.expect("a connection");
    let mut ask_other = Client::connect(other.address, None).await.expect("a connection");
    let (mut far, mut near) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        far.push(heard(&mut ask_one, &pipeline, &mut other, &changes).await);
        near.push(heard(&mut ask_other, &pipeline, &mut other, &changes).await);
    }
    report("createJob until a subscriber on another node hears of it, against one on the same", &far, &near);
}

fn report(what: &str, ours: &[Duration], theirs: &[Duration]) {
    for (name, share) in [("p50", 0.5), ("p95", 0.95)] {
        report_times(&format!("{what}, {name}"), percentile(ours, share), percentile(theirs, share));
    }
}

/// How long it is from a question until a subscriber hears that there is a job, which is stopped then.
async fn heard(asked: &mut Client, pipeline: &str, subscriber: &mut Server, changes: &str) -> Duration {
    let query = "mutation($input: CreateJobInput!) { createJob(input: $input) { job { id } } }";
    let started = Instant::now();
    let answer = asked.begin(query, json!({ "input": { "pipelineId": pipeline } })).await.expect("a connection");
    let change = next(subscriber, changes, "QUEUED").await;
    let took = started.elapsed();
    while asked.next_data(&answer).await.expect("an answer").is_some() {}
    stop(asked, text(&change["jobId"])).await;
    next(subscriber, changes, "STOPPED").await;
    took
}

async fn next(subscriber: &mut Server, changes: &str, status: &str) -> Value {
    let mut change = subscriber.client.next_data(changes).await.expect("a change").expect("no end");
    assert_eq!(change["jobStatusChanged"]["status"], status);
    change["jobStatusChanged"].take()
}

async fn stop(asked: &mut Client, job: &str) {
    let query = "mutation($input: StopJobInput!) { stopJob(input: $input) { job { status } } }";
    let stopped = asked.request(query, json!({ "input": { "id": job } })).await.expect("an answer");
    assert_eq!(stopped["stopJob"]["job"]["status"], "STOPPED");
}

/// A statement that a client of PostgreSQL carries out, and commits.
struct Statement {
    client: tokio_postgres::Client,
    statement: tokio_postgres::Statement,
}

impl Statement {
    async fn new(database: &Database, sql: &str) -> Self {
        let (client, connection) = tokio_postgres::connect(&database.url(), NoTls).await.expect("a connection");
        tokio::spawn(connection);
        let statement = client.prepare(sql).await.expect("a statement");
        Self { client, statement }
    }

    async fn run(&self) -> Duration {
        let started = Instant::now();
        self.client.execute(&self.statement, &[]).await.expect("a result");
        started.elapsed()
    }
}
