//! Jobs that run `true`, claimed, run and ended by one node and by three on one PostgreSQL, against pgbench that makes as many of the smallest
//! commits there. And the same for jobs that no process is started for, which is what the database takes of it.

use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::filling::Filling;
use crate::jobs::{begin_jobs, prepare, with_server};
use crate::postgres::{Transactions, durable};
use crate::server::{SLOTS, Server};
use crate::support::{Cluster, Database};
use crate::{median, report_share};

const WORKSPACES: usize = 10;
const PIPELINES: usize = 10;
const JOBS: usize = WORKSPACES * PIPELINES;
const ROUNDS: usize = 5;
/// How many jobs that no process is started for end in a round,
const WITHOUT_PROCESS: usize = 300;
/// and how many are queued: more than all rounds need.
const QUEUE: Filling = Filling { workspaces: 100, jobs: 100 };

pub async fn run() {
    let Some(cluster) = durable().await else { return };
    let transactions = Transactions::new(&cluster);
    runs(&cluster, &transactions).await;
    without_processes(&cluster, &transactions).await;
}

async fn runs(cluster: &Cluster, transactions: &Transactions) {
    let mut alone = Nodes::start(cluster, 1, None).await;
    let of_alone = prepare(&mut alone.front, WORKSPACES, PIPELINES).await;
    let mut three = Nodes::start(cluster, 3, None).await;
    let of_three = prepare(&mut three.front, WORKSPACES, PIPELINES).await;
    let mut embedded = Server::start(SLOTS).await;
    let of_embedded = prepare(&mut embedded, WORKSPACES, PIPELINES).await;
    // Each node makes its clones first.
    for _ in 0..2 {
        three.run(&of_three).await;
    }
    alone.run(&of_alone).await;
    let mut took = Took::default();
    let before = (alone.statements().await, three.statements().await);
    for _ in 0..ROUNDS {
        took.commits_for_one.push(transactions.run(SLOTS, JOBS));
        took.one.push(alone.run(&of_alone).await);
        took.commits_for_three.push(transactions.run(3 * SLOTS, JOBS));
        took.three.push(three.run(&of_three).await);
        took.embedded.push(with_server(&mut embedded, &of_embedded).await);
    }
    took.report(JOBS, "jobs that run `true`");
    let each = |before: u64, after: u64| (after - before) as f64 / (ROUNDS * JOBS) as f64;
    println!(
        "    {:.1} statements for each job by the one node that does it, {:.1} by the three",
        each(before.0, alone.statements().await),
        each(before.1, three.statements().await)
    );
}

async fn without_processes(cluster: &Cluster, transactions: &Transactions) {
    let mut alone = Nodes::start(cluster, 1, Some(&QUEUE)).await;
    let mut three = Nodes::start(cluster, 3, Some(&QUEUE)).await;
    let mut embedded = Server::start(0).await.again(|data| QUEUE.fill_sqlite(data), SLOTS, &[]).await;
    let changes = [alone.front.changes().await, three.front.changes().await, embedded.changes().await];
    embedded.pause();
    embedded.hear_out(&changes[2]).await;
    let mut took = Took::default();
    for _ in 0..ROUNDS {
        took.commits_for_one.push(transactions.run(SLOTS, WITHOUT_PROCESS));
        took.one.push(alone.work(&changes[0]).await);
        took.commits_for_three.push(transactions.run(3 * SLOTS, WITHOUT_PROCESS));
        took.three.push(three.work(&changes[1]).await);
        embedded.resume();
        let started = Instant::now();
        embedded.ended(&changes[2], WITHOUT_PROCESS, "ERROR").await;
        took.embedded.push(started.elapsed());
        embedded.pause();
        embedded.hear_out(&changes[2]).await;
    }
    took.report(WITHOUT_PROCESS, "jobs that no process is started for");
}

/// How long each takes for as many jobs, or commits.
#[derive(Default)]
struct Took {
    one: Vec<Duration>,
    commits_for_one: Vec<Duration>,
    three: Vec<Duration>,
    commits_for_three: Vec<Duration>,
    embedded: Vec<Duration>,
}

impl Took {
    fn report(self, number: usize, what: &str) {
        let (one, three) = (median(self.one), median(self.three));
        let (slots, three_slots) = (SLOTS, 3 * SLOTS);
        report_share(
            &format!("{number} {what}, 1 node, against pgbench with {slots} clients"),
            one,
            median(self.commits_for_one),
        );
        report_share(
            &format!("{number} {what}, 3 nodes, against pgbench with {three_slots} clients"),
            three,
            median(self.commits_for_three),
        );
        report_share(&format!("{number} {what}, 3 nodes against 1"), three, one);
        report_share(&format!("{number} {what}, 1 node on PostgreSQL against SQLite"), one, median(self.embedded));
    }
}

/// Nodes on a database of their own: those that run jobs, and one that is only asked.
struct Nodes {
    // They go first.
    front: Server,
    runners: Vec<Server>,
    _database: Database,
    _shared: TempDir,
}

impl Nodes {
    /// Starts so many nodes that run jobs. On a database that is filled they stand still at first.
    async fn start(cluster: &Cluster, number: usize, filling: Option<&Filling>) -> Self {
        let (database, shared) = (cluster.database(), tempfile::tempdir().expect("a directory"));
        let (url, directory) = (database.url(), shared.path().join("shared"));
        // A node that stands still does not renew its lease, and is not to be taken for one that is gone.
        let options =
            ["--database-url", &url, "--shared-dir", directory.to_str().expect("UTF-8"), "--lease-margin", "3600"];
        let front = Server::with(0, &options).await;
        if let Some(filling) = filling {
            filling.fill_postgres(&database);
        }
        let mut runners = Vec::new();
        for _ in 0..number {
            let runner = Server::with(SLOTS, &options).await;
            if filling.is_some() {
                runner.pause();
            }
            runners.push(runner);
        }
        Self { front, runners, _database: database, _shared: shared }
    }

    /// How long a run of each pipeline takes once all are queued.
    async fn run(&mut self, pipelines: &[String]) -> Duration {
        let changes = self.front.changes().await;
        // What is idle holds no lock that would be in the way.
        self.front.hear_out(&changes).await;
        self.runners.iter().for_each(Server::pause);
        for queued in begin_jobs(&mut self.front, pipelines).await {
            self.front.client.next_data(&queued).await.expect("an answer").expect("an answer");
        }
        let started = Instant::now();
        self.runners.iter().for_each(Server::resume);
        self.front.ended(&changes, pipelines.len(), "COMPLETE").await;
        let took = started.elapsed();
        self.front.client.end(&changes).await.expect("a connection");
        took
    }

    /// How long it takes until as many of the jobs that are queued have ended.
    async fn work(&mut self, changes: &str) -> Duration {
        self.front.hear_out(changes).await;
        let started = Instant::now();
        self.runners.iter().for_each(Server::resume);
        self.front.ended(changes, WITHOUT_PROCESS, "ERROR").await;
        let took = started.elapsed();
        self.runners.iter().for_each(Server::pause);
        took
    }

    async fn statements(&self) -> u64 {
        let mut total = 0;
        for runner in &self.runners {
            total += runner.statements().await;
        }
        total
    }
}
