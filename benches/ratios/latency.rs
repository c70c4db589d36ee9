//! From createJob to the first log line at a subscriber, against `bash -c echo` read to its end.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::server::Server;
use crate::{percentile, report_times};

const ROUNDS: usize = 100;

pub async fn run() {
    let mut server = Server::start(2).await;
    let workspace = server.workspace("Workspace").await;
    let pipeline = server.pipeline(&workspace, "Pipeline", "echo").await;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        theirs.push(with_bash());
        ours.push(with_server(&mut server, &pipeline).await);
    }
    for (name, share) in [("p50", 0.5), ("p95", 0.95)] {
        report_times(
            &format!("createJob to the first log line at a subscriber, {name}"),
            percentile(&ours, share),
            percentile(&theirs, share),
        );
    }
}

async fn with_server(server: &mut Server, pipeline: &str) -> Duration {
    let started = Instant::now();
    let job = server.run(pipeline).await;
    let query = "subscription($job: ID!) { jobLogs(jobId: $job) { lines { text } } }";
    let logs = server.client.begin(query, json!({ "job": job })).await.expect("a subscription");
    let first = server.client.next_data(&logs).await.expect("an event").expect("no end");
    let took = started.elapsed();
    assert_eq!(first["jobLogs"]["lines"][0]["text"], "");
    while server.client.next_data(&logs).await.expect("an event").is_some() {}
    took
}

fn with_bash() -> Duration {
    let started = Instant::now();
    let output = Command::new("bash").args(["-c", "echo"]).output().expect("bash runs");
    assert_eq!(output.stdout, b"\n");
    started.elapsed()
}
