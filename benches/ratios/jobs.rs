//! 500 jobs that run `true`, queued at once over 500 pipelines, against `xargs -P` running `bash -c true`.

use std::collections::HashSet;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::server::{SLOTS, Server, text};
use crate::{median, report_share};

const JOBS: usize = 500;
const WORKSPACES: usize = 10;
const ROUNDS: usize = 5;
/// How many mutations one request carries.
const AT_ONCE: usize = 100;

pub async fn run() {
    let mut server = Server::start(SLOTS).await;
    let mut pipelines = Vec::new();
    let mut configurations = Vec::new();
    for workspace in 0..WORKSPACES {
        let workspace = server.workspace(&format!("Workspace {workspace}")).await;
        for pipeline in 0..JOBS / WORKSPACES {
            let (pipeline, job) = server.begin_pipeline(&workspace, &format!("Pipeline {pipeline}"), "true").await;
            pipelines.push(pipeline);
            configurations.push(job);
        }
    }
    for job in &configurations {
        server.completed(job).await;
    }
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        theirs.push(with_xargs());
        ours.push(with_server(&mut server, &pipelines).await);
    }
    report_share(&format!("{JOBS} jobs that run `true`, {SLOTS} at a time"), median(ours), median(theirs));
}

/// From the first mutation to the last COMPLETE at a subscriber.
async fn with_server(server: &mut Server, pipelines: &[String]) -> Duration {
    let newest = server.request("{ jobs(first: 1) { cursor } }", json!({})).await;
    let query = "subscription($after: String) { jobStatusChanged(after: $after) { jobId status } }";
    let changes =
        server.client.begin(query, json!({ "after": newest["jobs"]["cursor"] })).await.expect("a subscription");
    let mutations: Vec<String> = pipelines.chunks(AT_ONCE).map(create_jobs).collect();
    let started = Instant::now();
    for mutation in &mutations {
        server.client.begin(mutation, json!({})).await.expect("a mutation");
    }
    let mut done = HashSet::new();
    while done.len() < pipelines.len() {
        let change = server.client.next_data(&changes).await.expect("a change").expect("no end");
        let change = &change["jobStatusChanged"];
        match text(&change["status"]) {
            "COMPLETE" => drop(done.insert(text(&change["jobId"]).to_owned())),
            "ERROR" | "STOPPED" => panic!("a job is {change}"),
            _ => {}
        }
    }
    let took = started.elapsed();
    server.client.end(&changes).await.expect("a connection");
    took
}

fn create_jobs(pipelines: &[String]) -> String {
    let fields = pipelines.iter().enumerate().map(|(index, pipeline)| {
        let input = Value::from(pipeline.as_str());
        format!("j{index}: createJob(input: {{ pipelineId: {input} }}) {{ job {{ id }} }}")
    });
    format!("mutation {{ {} }}", fields.collect::<Vec<_>>().join(" "))
}

fn with_xargs() -> Duration {
    let started = Instant::now();
    let status = Command::new("sh")
        .args(["-c", &format!("seq {JOBS} | xargs -P {SLOTS} -I _ bash -c true")])
        .stdin(Stdio::null())
        .status();
    assert!(status.expect("xargs runs").success());
    started.elapsed()
}
