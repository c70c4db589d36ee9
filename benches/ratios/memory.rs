//! What the server holds in memory: idle, and for each subscriber.

use jobstream::client::Client;
use serde_json::json;

use crate::server::Server;

const SUBSCRIBERS: usize = 500;

pub async fn run() {
    let mut server = Server::start(1).await;
    let workspace = server.workspace("Workspace").await;
    let pipeline = server.pipeline(&workspace, "Pipeline", "echo; sleep 600").await;
    let job = server.run(&pipeline).await;
    let idle = server.memory("VmRSS");
    let mut clients = Vec::new();
    for _ in 0..SUBSCRIBERS {
        let mut client = Client::connect(server.address, None).await.expect("a connection");
        let query = "subscription($job: ID!) { jobLogs(jobId: $job) { lines { text } } }";
        let logs = client.begin(query, json!({ "job": job })).await.expect("a subscription");
        client.next_data(&logs).await.expect("an event");
        clients.push(client);
    }
    let each = (server.memory("VmRSS") - idle) as f64 / SUBSCRIBERS as f64;
    println!("memory: idle {:.1} MiB, {each:.1} KiB a subscriber", idle as f64 / 1024.0);
}
