//! A node without its database, or without itself: what runs there goes on for a while, and is never lost, nor run twice.

use serde_json::json;

use crate::nodes::{Nodes, held_by, nobody_complains};
use crate::support::proxy::Proxy;
use crate::support::{Cluster, eventually, is_alive, on_postgres, pids_of, system_lines, text, wait_for, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_cut_off_has_ended_its_jobs_when_others_take_them() {
    let Some(nodes) = Nodes::new() else { return };
    let Some(cluster) = Cluster::shared() else { return };
    let scratch = nodes.scratch();
    let proxy = Proxy::to(cluster.address());
    let one = nodes.node_at(&nodes.database().url_through(&proxy), "one", &[]);
    let workspace = one.workspace("Workspace").await;
    let script = format!("(while echo alive; do sleep 0.05; done) & {}", held_by(&scratch));
    let input = json!({ "workspaceId": workspace, "name": "P", "script": script, "maxRetries": 1 });
    let pipeline = one.pipeline_with(input).await;
    let job = one.run(&pipeline).await;
    let first = pids_of(&scratch.join("pids"), 1).await[0];
    // It is not to be seen that its process lives, as on another machine.
    nodes.database().execute("UPDATE nodes SET machine = 'another'");
    let other = nodes.node("other", &[]);
    proxy.cut();
    let second = pids_of(&scratch.join("pids"), 2).await[1];
    assert!(!is_alive(first) && is_alive(second));
    nobody_complains(&scratch);
    std::fs::write(scratch.join("gate"), "").expect("the gate");
    let done = other.final_job(&job).await;
    assert_eq!((&done["status"], &done["attempt"]), (&json!("COMPLETE"), &json!(2)));
    let said = system_lines(&other.log_lines(&job).await);
    let kept = one.data_directory().join("unstored").join(format!("{job}.1.log"));
    assert!(
        said[0].contains("The server one was not heard of") && said[0].contains(kept.to_str().expect("UTF-8")),
        "{said:?}"
    );

    // Back again it serves, and has kept what it could not store where the log says.
    proxy.heal();
    let lines =
        eventually("it is kept", async || std::fs::read_to_string(&kept).ok().filter(|kept| kept.contains("alive")));
    lines.await;
    eventually("it serves", async || {
        let answer = one.post("{ __typename workspaces { totalCount } }", json!({})).await;
        answer["errors"].is_null().then_some(())
    })
    .await;
    assert_eq!(one.log_lines(&job).await, other.log_lines(&job).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_a_node_that_is_killed_while_it_is_cut_off_are_kept() {
    let Some(nodes) = Nodes::new() else { return };
    let Some(cluster) = Cluster::shared() else { return };
    let scratch = nodes.scratch();
    let proxy = Proxy::to(cluster.address());
    let mut one = nodes.node_at(&nodes.database().url_through(&proxy), "one", &["--lease-margin", "60"]);
    let workspace = one.workspace("Workspace").await;
    let many = format!("{}; for ((i = 0; i < 20000; i++)); do echo alive; done", wait_for(&scratch.join("start")));
    let pids = scratch.join("pids");
    let script = format!("echo $$ >> '{}'; ({many}) & {}", pids.display(), wait_for(&scratch.join("gate")));
    let input = json!({ "workspaceId": workspace, "name": "P", "script": script, "maxRetries": 1 });
    let pipeline = one.pipeline_with(input).await;
    let job = one.run(&pipeline).await;
    pids_of(&pids, 1).await;
    let other = nodes.node("other", &[]);
    proxy.cut();
    proxy.sever();
    std::fs::write(scratch.join("start"), "").expect("the gate");
    let spool = one.data_directory().join("spool").join(format!("{job}.1"));
    eventually("lines wait on disk", async || spool.exists().then_some(())).await;
    // As if it were another machine's, and the lease over.
    nodes.database().execute("UPDATE nodes SET machine = 'another', lease_until = 'epoch' WHERE name = 'one'");
    pids_of(&pids, 2).await;
    let forgotten = async || (other.count_rows("nodes WHERE name = 'one'") == 0).then_some(());
    eventually("it is forgotten", forgotten).await;

    // Nobody who is registered has the directory any more.
    one.kill();
    proxy.heal();
    let one = one.restart();
    let kept = one.data_directory().join("unstored").join(format!("{job}.1.log"));
    eventually("what waited is kept", async || (!spool.exists()).then_some(())).await;
    let lines = std::fs::read_to_string(&kept).expect("what was kept");
    assert!(lines.lines().count() > 100 && lines.lines().all(|line| line == "alive"), "{lines}");
    std::fs::write(scratch.join("gate"), "").expect("the gate");
    assert_eq!(other.final_job(&job).await["status"], "COMPLETE");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_has_its_jobs_ended_by_their_supervisors() {
    let Some(nodes) = Nodes::new() else { return };
    let scratch = nodes.scratch();
    let one = nodes.node("one", &[]);
    let (job, first) = nodes.held_job(&one).await;
    let other = nodes.node("other", &[]);
    crate::support::signal(one.pid(), "STOP");
    let second = pids_of(&scratch.join("pids"), 2).await[1];
    assert!(!is_alive(first) && is_alive(second));
    std::fs::write(scratch.join("gate"), "").expect("the gate");
    assert_eq!(other.final_job(&job).await["status"], "COMPLETE");
    // What it still believes to hold it cannot write any more.
    let lines = other.log_lines(&job).await;
    crate::support::signal(one.pid(), "CONT");
    eventually("it serves", async || {
        let answer = one.post("{ workspaces { totalCount } }", json!({})).await;
        answer["errors"].is_null().then_some(())
    })
    .await;
    assert_eq!(other.log_lines(&job).await, lines);
    assert_eq!(other.job(&job).await["status"], "COMPLETE");
    nobody_complains(&scratch);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_given_up_ends_what_it_holds_when_it_finds_out() {
    let Some(nodes) = Nodes::new() else { return };
    let scratch = nodes.scratch();
    let one = nodes.node("one", &["--lease-margin", "600"]);
    let workspace = one.workspace("Workspace").await;
    let script = format!("echo $$ >> '{0}/pids'; {1}", scratch.display(), wait_for(&scratch.join("gate")));
    let input = json!({ "workspaceId": workspace, "name": "P", "script": script, "maxRetries": 1 });
    let pipeline = one.pipeline_with(input).await;
    let job = one.run(&pipeline).await;
    let first = pids_of(&scratch.join("pids"), 1).await[0];
    let other = nodes.node("other", &[]);
    // As if its machine had been paused, and its clock with it.
    nodes.database().execute("UPDATE nodes SET machine = 'another', lease_until = 'epoch' WHERE name = 'one'");
    let second = pids_of(&scratch.join("pids"), 2).await[1];
    eventually("the first try ends", async || (!is_alive(first)).then_some(())).await;
    assert!(is_alive(second));
    std::fs::write(scratch.join("gate"), "").expect("the gate");
    let done = other.final_job(&job).await;
    assert_eq!((&done["status"], &done["attempt"]), (&json!("COMPLETE"), &json!(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_database_is_away_jobs_go_on_and_their_lines_wait_on_disk() {
    if !on_postgres() {
        return;
    }
    let Some(cluster) = Cluster::start() else { return };
    let nodes = Nodes::in_cluster(&cluster);
    let scratch = nodes.scratch();
    let server = nodes.node("one", &["--lease-margin", "60"]);
    let workspace = server.workspace("Workspace").await;
    let script = format!(
        "for ((i = 0; i < 20000; i++)); do echo \"line $i\"; done; touch '{0}/printed'; {1}; echo last",
        scratch.display(),
        wait_for(&scratch.join("gate"))
    );
    let script = format!("echo began; {}; {script}", wait_for(&scratch.join("start")));
    let pipeline = server.pipeline(&workspace, "P", &script).await;
    let job = server.run(&pipeline).await;
    server.job_is(&job, "RUNNING").await;
    let mut client = server.client().await;
    let query = "subscription($id: ID!) { jobLogs(jobId: $id) { lines { sequence text } complete } }";
    let logs = client.begin(query, json!({ "id": job })).await.expect("a subscription");
    let began = within(client.next_data(&logs)).await.expect("an event").expect("no end");
    assert_eq!(began["jobLogs"]["lines"][0]["text"], "began");
    let mut changes = server.changes(json!({ "jobId": job })).await;
    assert_eq!(changes.next().await.expect("the present")["status"], "RUNNING");

    cluster.stop_immediately();
    std::fs::write(scratch.join("start"), "").expect("the gate");
    // All of it is printed although none of it can be stored: the pipe holds far less.
    eventually("it is printed", async || scratch.join("printed").exists().then_some(())).await;
    let refused = server.refused("createWorkspace", json!({ "name": "Another" })).await;
    assert_eq!(refused.code, "UNAVAILABLE");
    let spool = server.data_directory().join("spool").join(format!("{job}.1"));
    eventually("lines wait on disk", async || spool.exists().then_some(())).await;

    cluster.start_again();
    std::fs::write(scratch.join("gate"), "").expect("the gate");
    let mut seen = Vec::new();
    while let Some(event) = within(client.next_data(&logs)).await.expect("the subscription goes on") {
        let lines = event["jobLogs"]["lines"].as_array().expect("lines").clone();
        seen.extend(
            lines
                .into_iter()
                .map(|line| (line["sequence"].as_u64().expect("a number"), text(&line["text"]).to_owned())),
        );
    }
    let (sequences, texts): (Vec<u64>, Vec<String>) = seen.into_iter().unzip();
    assert!(sequences.iter().zip(1..).all(|(sequence, number)| *sequence == number), "each once, in order");
    let expected: Vec<String> = (0..20_000).map(|i| format!("line {i}")).chain(["last".to_owned()]).collect();
    assert_eq!((texts.len(), texts), (expected.len(), expected));
    let seen = changes.until(|change| change["status"] == "COMPLETE").await;
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert!(!spool.exists());
    server.workspace("Another").await;
}
