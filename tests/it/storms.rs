//! Storms over several nodes: some are killed, PostgreSQL is restarted, while clients ask, watch and follow on all of them. Then everything that
//! they were told is compared with what is left; and a server without its fence shows that the checker would see it.

use crate::history::Violation;
use crate::nodes::Nodes;
use crate::storm::{OPTIONS, Storm};
use crate::support::{Cluster, TestServer, eventually, lines_of, on_postgres, signal, wait_for};
use serde_json::json;

const NAMES: [&str; 3] = ["one", "two", "three"];

fn addresses(servers: &[TestServer]) -> Vec<std::net::SocketAddr> {
    servers.iter().map(TestServer::address).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_promise_is_kept_when_nodes_are_killed_at_random_moments() {
    let Some(nodes) = Nodes::new() else { return };
    // OPTIONS has the waits of its own.
    let mut servers: Vec<TestServer> = NAMES.iter().map(|name| nodes.plain_node(name, OPTIONS)).collect();
    let mut storm = Storm::over(&servers[0], 20, nodes.scratch(), "SEVERAL=1").await;
    storm.rises(&addresses(&servers)).await;
    for _ in 0..storm.rounds {
        let mut killed = None;
        storm
            .round(&addresses(&servers), |random| {
                let index = random.below(servers.len() as u64) as usize;
                let mut server = servers.remove(index);
                server.kill();
                killed = Some(server);
            })
            .await;
        servers.push(killed.expect("one").restart());
    }
    let (found, cut_off) = storm.is_over(&servers[0]).await;
    let logs: Vec<String> = servers.iter().map(TestServer::log).collect();
    assert_eq!(found, Vec::<Violation>::new(), "the servers' logs:\n{}", logs.join("\n\n"));
    assert!(cut_off > 0 || storm.rounds < 10, "no kill has hit a job: there was nothing to test");
    storm.nothing_is_left();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_promise_is_kept_when_postgresql_is_restarted_at_random_moments() {
    if !on_postgres() {
        return;
    }
    let Some(cluster) = Cluster::start() else { return };
    let nodes = Nodes::in_cluster(&cluster);
    let servers: Vec<TestServer> = NAMES[..2].iter().map(|name| nodes.plain_node(name, OPTIONS)).collect();
    let mut storm = Storm::over(&servers[0], 8, nodes.scratch(), "SEVERAL=1").await;
    storm.rises(&addresses(&servers)).await;
    for _ in 0..storm.rounds {
        storm.round(&addresses(&servers), |_| cluster.restart_immediately()).await;
    }
    eventually("the database is back for all", async || {
        for server in &servers {
            if !server.post("{ workspaces { totalCount } }", json!({})).await["errors"].is_null() {
                return None;
            }
        }
        Some(())
    })
    .await;
    let (mut found, cut_off) = storm.is_over(&servers[1]).await;
    // While it is away, that is what is answered.
    found.retain(|it| *it != Violation::UnexpectedError("UNAVAILABLE".to_owned()));
    let logs: Vec<String> = servers.iter().map(TestServer::log).collect();
    assert_eq!(found, Vec::<Violation>::new(), "the servers' logs:\n{}", logs.join("\n\n"));
    assert_eq!(cut_off, 0, "no server ended");
    storm.nothing_is_left();
}

/// A server hangs until its job is taken over, and comes back while that runs elsewhere: what broke then, if anything.
async fn broken_by_a_server_that_comes_back(options: &[&str]) -> Option<Vec<Violation>> {
    let nodes = Nodes::new()?;
    let one = nodes.node("one", options);
    let other = nodes.node("other", &["--slots", "0"]);
    let scratch = nodes.scratch();
    let mut storm = Storm::over(&one, 1, scratch.clone(), "SEVERAL=1").await;
    let gate = scratch.join("gate");
    // It takes its time to end, so that what is started too early finds it.
    let script = format!("trap '' TERM; {}; print 3; note end", wait_for(&gate));
    let pipeline = storm.pipeline(&one, &script, 5).await;
    let job = one.run(&pipeline).await;
    let begun = |count: usize| {
        let notes = scratch.join("notes");
        async move { lines_of(&notes, count).await }
    };
    begun(1).await;
    signal(one.pid(), "STOP");
    drop(other);
    let other = nodes.node("another", &["--slots", "3"]);
    begun(2).await;
    signal(one.pid(), "CONT");
    // One of them has noticed by now that the attempt is not its own, unless both go on.
    eventually("it is back", async || {
        let noticed = [&one, &other].iter().any(|server| {
            let log = server.log();
            log.contains("held by another server") || log.contains("could not be stored")
        });
        (noticed || scratch_has(&scratch, "two-at-once")).then_some(())
    })
    .await;
    std::fs::write(&gate, "").expect("the gate");
    other.final_job(&job).await;
    Some(storm.is_over(&other).await.0)
}

fn scratch_has(scratch: &std::path::Path, word: &str) -> bool {
    std::fs::read_to_string(scratch.join("notes")).unwrap_or_default().contains(word)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_comes_back_breaks_nothing() {
    let Some(found) = broken_by_a_server_that_comes_back(&[]).await else { return };
    assert_eq!(found, Vec::<Violation>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_checker_catches_a_server_that_does_not_heed_the_fence() {
    // Which of its promises it breaks depends on who is faster.
    let mut found = Vec::new();
    for _ in 0..20 {
        let Some(broken) = broken_by_a_server_that_comes_back(&["--unfenced"]).await else { return };
        let caught =
            broken.iter().any(|it| matches!(it, Violation::Complaint(what) if what.starts_with("two-at-once")));
        if caught {
            return;
        }
        found.push(broken);
    }
    panic!("two never ran at once: {found:?}");
}
