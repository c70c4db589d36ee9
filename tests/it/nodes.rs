//! Several nodes on one PostgreSQL: what one does, the others see; what one leaves, the others take over; and never do two run one job.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::support::{
    Cluster, Database, TestServer, eventually, is_alive, lines_of, on_postgres, pids_of, system_lines, text, wait_for,
};

/// Short waits, so that a test need not wait long either.
const QUICK: [&str; 4] = ["--stop-grace", "0.5", "--retry-backoff", "0.1"];
/// How long jobs go on without the database, unless a test says otherwise.
const QUICK_MARGIN: [&str; 2] = ["--lease-margin", "1.5"];

/// Several servers on one database, with one shared directory.
pub struct Nodes {
    database: Arc<Database>,
    shared: tempfile::TempDir,
}

impl Nodes {
    /// None, in a cluster that tests share. Nothing where the suite is that of SQLite, which has one node.
    pub fn new() -> Option<Self> {
        if !on_postgres() {
            return None;
        }
        Some(Self::in_cluster(Cluster::shared()?))
    }

    /// None, in this cluster.
    pub fn in_cluster(cluster: &Cluster) -> Self {
        let shared = tempfile::tempdir().expect("a directory");
        Self { database: Arc::new(cluster.database()), shared }
    }

    /// A directory that all jobs of all nodes reach.
    pub fn scratch(&self) -> PathBuf {
        let scratch = self.shared.path().join("scratch");
        std::fs::create_dir_all(&scratch).expect("a directory");
        scratch
    }

    /// What all have as `--shared-dir`.
    pub fn shared_directory(&self) -> PathBuf {
        self.shared.path().join("shared")
    }

    pub fn database(&self) -> &Database {
        &self.database
    }

    /// A job that a node runs in the first of two tries, as [`held_by`] has it, and its process.
    pub async fn held_job(&self, node: &TestServer) -> (String, i32) {
        let (workspace, script) = (node.workspace("Workspace").await, held_by(&self.scratch()));
        let input = json!({ "workspaceId": workspace, "name": "P", "script": script, "maxRetries": 1 });
        let job = node.run(&node.pipeline_with(input).await).await;
        (job, pids_of(&self.scratch().join("pids"), 1).await[0])
    }

    /// Another node, with these options.
    pub fn node(&self, name: &str, options: &[&str]) -> TestServer {
        self.node_at(&self.database.url(), name, options)
    }

    /// Another node, with these options and no others.
    pub fn plain_node(&self, name: &str, options: &[&str]) -> TestServer {
        let shared = self.shared_directory();
        let own = ["--shared-dir", shared.to_str().expect("UTF-8"), "--node-name", name];
        TestServer::on_database(Arc::clone(&self.database), &[&own[..], options].concat())
    }

    /// Another node that reaches the database at this address.
    pub fn node_at(&self, url: &str, name: &str, options: &[&str]) -> TestServer {
        let shared = self.shared_directory();
        let own = ["--database-url", url, "--shared-dir", shared.to_str().expect("UTF-8"), "--node-name", name];
        let margin = if options.contains(&QUICK_MARGIN[0]) { &[][..] } else { &QUICK_MARGIN };
        TestServer::on_database(Arc::clone(&self.database), &[&own[..], &QUICK, margin, options].concat())
    }
}

/// Bash that says that it begins, runs for as long as the gate is shut, and is never run twice at a time: else it says so.
pub fn held_by(scratch: &Path) -> String {
    format!(
        "exec 9> '{0}/lock'; flock -n 9 || echo two >> '{0}/complaints'; echo $$ >> '{0}/pids'; echo began; {1}; echo ended",
        scratch.display(),
        wait_for(&scratch.join("gate"))
    )
}

pub fn nobody_complains(scratch: &Path) {
    assert!(!scratch.join("complaints").exists(), "two ran one job at a time");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_on_one_node_is_followed_and_stopped_on_another() {
    let Some(nodes) = Nodes::new() else { return };
    let (one, other) = (nodes.node("one", &[]), nodes.node("other", &["--slots", "0"]));
    let workspace = other.workspace("Workspace").await;
    let gate = nodes.scratch().join("gate");
    let script = format!("echo first; {}; echo second; sleep 60", wait_for(&gate));
    let pipeline = other.pipeline(&workspace, "Pipeline", &script).await;
    let mut changes = other.changes(json!({ "after": other.cursor().await })).await;
    let job = other.run(&pipeline).await;
    other.line_appears(&job, "first").await;
    std::fs::write(&gate, "").expect("the gate");
    other.line_appears(&job, "second").await;
    other.stop(&job).await;
    let done = other.final_job(&job).await;
    assert_eq!((&done["status"], &done["exitCode"]), (&json!("STOPPED"), &json!(143)));
    let seen = changes.until(|change| change["status"] == "STOPPED").await;
    let statuses: Vec<&str> = seen.iter().map(|change| text(&change["status"])).collect();
    assert_eq!(statuses, ["QUEUED", "RUNNING", "STOPPED"]);
    assert_eq!(one.log_lines(&job).await, other.log_lines(&job).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_hears_no_notifications_sees_all_the_same() {
    let Some(nodes) = Nodes::new() else { return };
    let (one, deaf) = (nodes.node("one", &[]), nodes.node("deaf", &["--slots", "0", "--deaf"]));
    let workspace = one.workspace("Workspace").await;
    let (gate, script) = (nodes.scratch().join("gate"), "echo first; WAIT; echo second; sleep 60");
    let pipeline = one.pipeline(&workspace, "Pipeline", &script.replace("WAIT", &wait_for(&gate))).await;
    let mut changes = deaf.changes(json!({ "after": deaf.cursor().await })).await;
    let job = one.run(&pipeline).await;
    deaf.line_appears(&job, "first").await;
    std::fs::write(&gate, "").expect("the gate");
    deaf.line_appears(&job, "second").await;
    // And what it does itself others hear of.
    deaf.stop(&job).await;
    let seen = changes.until(|change| change["status"] == "STOPPED").await;
    let statuses: Vec<&str> = seen.iter().map(|change| text(&change["status"])).collect();
    assert_eq!(statuses, ["QUEUED", "RUNNING", "STOPPED"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_a_node_that_is_killed_are_taken_over_within_seconds() {
    let Some(nodes) = Nodes::new() else { return };
    let scratch = nodes.scratch();
    // A lease so long that it plays no part.
    let mut one = nodes.node("one", &["--lease-margin", "600"]);
    let (job, first) = nodes.held_job(&one).await;
    let other = nodes.node("other", &[]);
    one.kill();
    let killed = tokio::time::Instant::now();
    let second = pids_of(&scratch.join("pids"), 2).await[1];
    assert!(killed.elapsed() < Duration::from_secs(10), "it took {:?}", killed.elapsed());
    assert!(!is_alive(first) && is_alive(second));
    std::fs::write(scratch.join("gate"), "").expect("the gate");
    let done = other.final_job(&job).await;
    assert_eq!((&done["status"], &done["attempt"]), (&json!("COMPLETE"), &json!(2)));
    let said = system_lines(&other.log_lines(&job).await);
    assert!(said[0].contains("server ended") && said[0].contains("attempt 1 of 2"), "{said:?}");
    nobody_complains(&scratch);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_told_to_end_gives_its_jobs_to_others_at_once() {
    let Some(nodes) = Nodes::new() else { return };
    let scratch = nodes.scratch();
    let mut one = nodes.node("one", &["--lease-margin", "600", "--shutdown-grace", "0"]);
    let workspace = one.workspace("Workspace").await;
    let pipeline = one.pipeline(&workspace, "P", &held_by(&scratch)).await;
    let job = one.run(&pipeline).await;
    pids_of(&scratch.join("pids"), 1).await;
    let other = nodes.node("other", &[]);
    one.terminate();
    assert!(one.ended().await.success());
    pids_of(&scratch.join("pids"), 2).await;
    std::fs::write(scratch.join("gate"), "").expect("the gate");
    let done = other.final_job(&job).await;
    assert_eq!((&done["status"], &done["attempt"]), (&json!("COMPLETE"), &json!(1)), "a shutdown uses up no try");
    assert_eq!(nodes.database().count("nodes"), 1, "the lease was given back");
    nobody_complains(&scratch);
}

#[tokio::test(flavor = "multi_thread")]
async fn workspaces_take_turns_however_much_one_has_queued() {
    let server = TestServer::with(&["--slots", "1"]);
    let (gate, order) = (server.scratch().join("gate"), server.scratch().join("order"));
    let (busy, quiet) = (server.workspace("Busy").await, server.workspace("Quiet").await);
    let blocker = server.pipeline(&busy, "Blocker", &wait_for(&gate)).await;
    let mut pipelines = Vec::new();
    for (workspace, name, count) in [(&busy, "busy", 12), (&quiet, "quiet", 2)] {
        for number in 0..count {
            let script = format!("echo {name} >> '{}'", order.display());
            pipelines.push(server.pipeline(workspace, &number.to_string(), &script).await);
        }
    }
    let blocker = server.run(&blocker).await;
    server.job_is(&blocker, "RUNNING").await;
    for pipeline in &pipelines {
        server.run(pipeline).await;
    }
    std::fs::write(&gate, "").expect("the gate");
    let order = lines_of(&order, pipelines.len()).await;
    let place =
        |name: &str, nth: usize| order.iter().enumerate().filter(|(_, it)| *it == name).nth(nth).expect("it ran").0;
    assert!(place("quiet", 0) <= 1 && place("quiet", 1) <= 3, "{order:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_jobs_of_a_workspace_run_than_it_has_slots() {
    let server = TestServer::with(&["--slots", "6", "--workspace-slots", "2"]);
    let (gate, running) = (server.scratch().join("gate"), server.scratch().join("running"));
    let (first, second) = (server.workspace("First").await, server.workspace("Second").await);
    let (mut pipelines, mut jobs) = (Vec::new(), Vec::new());
    for (workspace, name) in [(&first, "first"), (&second, "second")] {
        for number in 0..4 {
            let script = format!("echo {name} >> '{}'; {}", running.display(), wait_for(&gate));
            pipelines.push(server.pipeline(workspace, &number.to_string(), &script).await);
        }
    }
    for pipeline in &pipelines {
        jobs.push(server.run(pipeline).await);
    }
    let mut begun = lines_of(&running, 4).await;
    begun.sort_unstable();
    assert_eq!(begun, ["first", "first", "second", "second"]);
    let counts = server.data("{ jobs(status: [RUNNING]) { totalCount } }", json!({})).await;
    assert_eq!(counts["jobs"]["totalCount"], 4);
    std::fs::write(&gate, "").expect("the gate");
    for job in &jobs {
        assert_eq!(server.final_job(job).await["status"], "COMPLETE");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tick_has_one_run_however_many_nodes_there_are() {
    let Some(nodes) = Nodes::new() else { return };
    let servers = [nodes.node("one", &[]), nodes.node("two", &[]), nodes.node("three", &[])];
    let workspace = servers[0].workspace("Workspace").await;
    let input = json!({ "workspaceId": workspace, "name": "P", "script": "true", "schedule": "* * * * * *" });
    let pipeline = servers[0].pipeline_with(input).await;
    let query = "query($id: ID!) { pipeline(id: $id) { jobs(type: [PIPELINE_RUN], status: [COMPLETE]) { nodes { cause { type tick } } } } }";
    let ticks = eventually("six runs have ended", async || {
        let found = servers[1].data(query, json!({ "id": pipeline })).await;
        let nodes = found["pipeline"]["jobs"]["nodes"].as_array().expect("jobs").clone();
        (nodes.len() >= 6).then(|| nodes.iter().map(|job| text(&job["cause"]["tick"]).to_owned()).collect::<Vec<_>>())
    })
    .await;
    let mut distinct = ticks.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), ticks.len(), "{ticks:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_start_at_once_bring_the_schema_up_to_date_once() {
    let Some(nodes) = Nodes::new() else { return };
    let nodes = Arc::new(nodes);
    let starts = (0..4).map(|number| {
        let nodes = Arc::clone(&nodes);
        tokio::task::spawn_blocking(move || nodes.node(&format!("n{number}"), &["--slots", "1"]))
    });
    let servers = futures_util::future::join_all(starts).await;
    let servers: Vec<TestServer> = servers.into_iter().map(|it| it.expect("it starts")).collect();
    assert_eq!(nodes.database().count("nodes"), 4);
    servers[3].workspace("Workspace").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_is_newer_than_the_server_is_refused() {
    let server = TestServer::start();
    let Some(database) = server.database() else { return };
    database.execute("INSERT INTO __diesel_schema_migrations (version) VALUES ('9999')");
    let refused = server.same_command().args(["--listen", "127.0.0.1:0"]).output();
    assert!(!refused.as_ref().expect("it ends").status.success());
    let beside = TestServer::command(tempfile::tempdir().expect("a directory").path())
        .args(["--listen", "127.0.0.1:0", "--database-url", &database.url()])
        .stderr(std::process::Stdio::piped())
        .output()
        .expect("it ends");
    let said = String::from_utf8_lossy(&beside.stderr).into_owned();
    assert!(!beside.status.success() && said.contains("9999") && said.contains("newer"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_another_shared_directory_or_key_is_refused() {
    let Some(nodes) = Nodes::new() else { return };
    let _server = nodes.plain_node("n1", &[]);
    let elsewhere = tempfile::tempdir().expect("a directory");
    let refused = |shared: &Path, more: &[&str]| {
        let mut command = TestServer::command(elsewhere.path());
        command
            .args(["--listen", "127.0.0.1:0", "--database-url", &nodes.database().url(), "--shared-dir"])
            .arg(shared);
        let output = command.args(more).output().expect("it ends");
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = refused(&elsewhere.path().join("shared"), &[]);
    assert!(said.contains("n1") && said.contains("need the same --shared-dir"), "{said}");
    let key = elsewhere.path().join("key");
    let said = refused(&nodes.shared_directory(), &["--key-file", key.to_str().expect("UTF-8")]);
    assert!(said.contains("there is no key file") || said.contains("is not that of"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_start_at_the_same_time_agree_on_a_key() {
    let Some(nodes) = &Nodes::new() else { return };
    let servers: Vec<TestServer> = std::thread::scope(|scope| {
        let start = |name| scope.spawn(move || nodes.plain_node(name, &["--slots", "0"]));
        let starting = ["n1", "n2", "n3"].map(start);
        starting.into_iter().map(|it| it.join().expect("it starts")).collect()
    });
    assert_eq!(nodes.database().count("encryption_keys"), 1);
    assert!(
        servers.iter().all(|it| !it.data_directory().join("key").exists())
            && nodes.shared_directory().join("key").exists()
    );
}
