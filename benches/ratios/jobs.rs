//! 500 jobs that run `true`, queued at once over 500 pipelines, against `xargs -P` running `bash -c true`.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::server::{SLOTS, Server};
use crate::{median, report_share};

const JOBS: usize = 500;
const WORKSPACES: usize = 10;
const ROUNDS: usize = 5;
/// How many mutations one request carries.
const AT_ONCE: usize = 100;

pub async fn run() {
    let mut server = Server::start(SLOTS).await;
    let pipelines = prepare(&mut server, WORKSPACES, JOBS / WORKSPACES).await;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        theirs.push(with_xargs());
        ours.push(with_server(&mut server, &pipelines).await);
    }
    report_share(&format!("{JOBS} jobs that run `true`, {SLOTS} at a time"), median(ours), median(theirs));
}

/// Makes so many workspaces with so many pipelines each, which run `true`.
pub async fn prepare(server: &mut Server, workspaces: usize, each: usize) -> Vec<String> {
    let mut pipelines = Vec::new();
    let mut configurations = Vec::new();
    for workspace in 0..workspaces {
        let workspace = server.workspace(&format!("Workspace {workspace}")).await;
        for pipeline in 0..each {
            let (pipeline, job) = server.begin_pipeline(&workspace, &format!("Pipeline {pipeline}"), "true").await;
            pipelines.push(pipeline);
            configurations.push(job);
        }
    }
    for job in &configurations {
        server.completed(job).await;
    }
    pipelines
}

/// From the first mutation to the last COMPLETE at a subscriber.
pub async fn with_server(server: &mut Server, pipelines: &[String]) -> Duration {
    let changes = server.changes().await;
    let started = Instant::now();
    begin_jobs(server, pipelines).await;
    server.ended(&changes, pipelines.len(), "COMPLETE").await;
    let took = started.elapsed();
    server.client.end(&changes).await.expect("a connection");
    took
}

/// Asks for a run of each pipeline, without waiting for the answers.
pub async fn begin_jobs(server: &mut Server, pipelines: &[String]) -> Vec<String> {
    let mut mutations = Vec::new();
    for some in pipelines.chunks(AT_ONCE) {
        mutations.push(server.client.begin(&create_jobs(some), json!({})).await.expect("a mutation"));
    }
    mutations
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
