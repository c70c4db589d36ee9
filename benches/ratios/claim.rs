//! What it takes to claim and to end a job with 1,000 and with 1,000,000 in the queue. No process is started for these jobs, so there is nothing
//! else that takes time.

use std::time::{Duration, Instant};

use crate::filling::Filling;
use crate::server::Server;
use crate::support::Cluster;
use crate::{median, report_times};

const FEW: Filling = Filling { workspaces: 100, jobs: 10 };
const MANY: Filling = Filling { workspaces: 100, jobs: 10_000 };
const ROUNDS: usize = 9;
const JOBS: usize = 50;
/// All changes are kept: there is nothing to be cleared away meanwhile.
const KEEP: [&str; 2] = ["--keep-status-changes", "10000000"];

pub async fn run() {
    // Last the one that would soon be through with its few.
    let mut many = on_sqlite(MANY).await;
    let mut few = on_sqlite(FEW).await;
    compare("SQLite", &mut few, &mut many).await;
    drop((few, many));

    // One that does not wait for the disk, which would only hide a difference.
    let Some(cluster) = Cluster::start() else { return };
    let (one, other) = (cluster.database(), cluster.database());
    let mut many = on_postgres(&one.url(), |_| MANY.fill_postgres(&one)).await;
    let mut few = on_postgres(&other.url(), |_| FEW.fill_postgres(&other)).await;
    compare("PostgreSQL", &mut few, &mut many).await;
}

async fn on_sqlite(filling: Filling) -> Server {
    let empty = Server::start(0).await;
    empty.again(|data| filling.fill_sqlite(data), 1, &KEEP).await
}

async fn on_postgres(url: &str, fill: impl FnOnce(&std::path::Path)) -> Server {
    let options = ["--database-url", url, KEEP[0], KEEP[1]];
    Server::with(0, &options).await.again(fill, 1, &options).await
}

async fn compare(database: &str, few: &mut Server, many: &mut Server) {
    let mut changes = Vec::new();
    for server in [&mut *few, &mut *many] {
        let followed = server.changes().await;
        server.pause();
        server.hear_out(&followed).await;
        changes.push(followed);
    }
    let (mut short, mut long) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        short.push(work(few, &changes[0]).await);
        long.push(work(many, &changes[1]).await);
    }
    report_times(
        &format!("{JOBS} jobs claimed and ended with 1,000,000 queued, against 1,000, {database}"),
        median(long),
        median(short),
    );
    // Not where there are many: `/metrics` counts them all.
    few.resume();
    let before = few.statements().await;
    few.ended(&changes[0], 2 * JOBS, "ERROR").await;
    let statements = few.statements().await - before;
    println!("    {:.1} statements a job", statements as f64 / (2 * JOBS) as f64);
}

/// How long a server that stands still takes for some jobs from when it goes on.
async fn work(server: &mut Server, changes: &str) -> Duration {
    server.resume();
    // It was in the middle of one.
    server.ended(changes, 1, "ERROR").await;
    let started = Instant::now();
    server.ended(changes, JOBS, "ERROR").await;
    let took = started.elapsed();
    server.pause();
    server.hear_out(changes).await;
    took
}
