//! What it costs that a commit waits for the disk: mutations, one after the other, with `--sqlite-synchronous full` and `normal`.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::server::Server;
use crate::{median, report_times};

const MUTATIONS: usize = 200;

pub async fn run() {
    let mut normal = Server::with(0, &["--sqlite-synchronous", "normal"]).await;
    let mut full = Server::with(0, &["--sqlite-synchronous", "full"]).await;
    let (mut quick, mut safe) = (Vec::new(), Vec::new());
    for number in 0..MUTATIONS {
        quick.push(create_workspace(&mut normal, number).await);
        safe.push(create_workspace(&mut full, number).await);
    }
    report_times("a mutation with --sqlite-synchronous full, against normal", median(safe), median(quick));
}

async fn create_workspace(server: &mut Server, number: usize) -> Duration {
    let query = "mutation($input: CreateWorkspaceInput!) { createWorkspace(input: $input) { workspace { id } } }";
    let started = Instant::now();
    server.request(query, json!({ "input": { "name": format!("Workspace {number}") } })).await;
    started.elapsed()
}
