//! Commits that stall in the database while the node that waits for them is cut off, or loses its connection: they are stored after all.

use serde_json::json;

use crate::nodes::{Nodes, held_by, nobody_complains};
use crate::support::proxy::Proxy;
use crate::support::{Cluster, Database, TestServer, eventually, pids_of, system_lines};

/// Has commits that change a job like this stall until the gate is there.
const STALL: &str = "
    CREATE TABLE gate ();
    CREATE FUNCTION stall() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      WHILE NOT EXISTS (SELECT FROM gate) LOOP PERFORM pg_sleep(0.01); END LOOP;
      RETURN NULL;
    END $$;
    CREATE CONSTRAINT TRIGGER stall AFTER UPDATE ON jobs DEFERRABLE INITIALLY DEFERRED
      FOR EACH ROW WHEN (OLD.type = 'PIPELINE_RUN' AND CHANGE) EXECUTE FUNCTION stall()";
const CLAIM: &str = "OLD.status = 'QUEUED' AND NEW.status = 'RUNNING'";
const END: &str = "OLD.status = 'RUNNING' AND NEW.status <> 'RUNNING'";

/// Nodes whose commits stall, one of them behind a proxy.
struct Stalling {
    nodes: Nodes,
    proxy: Proxy,
    one: TestServer,
    pipeline: String,
}

impl Stalling {
    async fn start(change: &str, options: &[&str], script: impl Fn(&Nodes) -> String) -> Option<Self> {
        let nodes = Nodes::new()?;
        let proxy = Proxy::to(Cluster::shared()?.address());
        let one = nodes.node_at(&nodes.database().url_through(&proxy), "one", options);
        let workspace = one.workspace("Workspace").await;
        let input = json!({ "workspaceId": workspace, "name": "P", "script": script(&nodes), "maxRetries": 1 });
        let pipeline = one.pipeline_with(input).await;
        nodes.database().execute(&STALL.replace("CHANGE", change));
        Some(Self { nodes, proxy, one, pipeline })
    }

    fn database(&self) -> &Database {
        self.nodes.database()
    }

    async fn commit_stalls(&self) {
        let stalled = "pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
        eventually("a commit stalls", async || (self.database().count(stalled) > 0).then_some(())).await;
    }

    fn let_go(&self) {
        self.database().execute("INSERT INTO gate DEFAULT VALUES");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_is_stored_without_being_acknowledged_is_not_taken_for_one_that_is_lost() {
    let script = |_: &Nodes| "echo first; printf last".to_owned();
    let Some(stalling) = Stalling::start(END, &["--lease-margin", "60"], script).await else { return };
    let one = &stalling.one;
    let job = one.run(&stalling.pipeline).await;
    stalling.commit_stalls().await;
    stalling.proxy.sever();
    eventually("the node knows", async || one.log().contains("a job's end cannot be stored yet").then_some(())).await;
    stalling.let_go();
    let stored = async || one.log().contains("a job's end could be stored after all").then_some(());
    eventually("the node knows better", stored).await;
    assert_eq!(one.final_job(&job).await["status"], "COMPLETE");
    let lines = one.log_lines(&job).await;
    let texts: Vec<&str> = lines.iter().filter_map(|line| line["text"].as_str()).collect();
    assert_eq!(texts, ["first", "last"]);
    let unstored = one.data_directory().join("unstored");
    assert_eq!(std::fs::read_dir(&unstored).map_or(0, Iterator::count), 0, "nothing is kept that is stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_is_stored_without_being_acknowledged_is_given_up_even_in_a_shutdown() {
    let script = |nodes: &Nodes| format!("echo $$ >> '{}/pids'", nodes.scratch().display());
    let Some(mut stalling) = Stalling::start(CLAIM, &["--lease-margin", "60"], script).await else { return };
    let job = stalling.one.run(&stalling.pipeline).await;
    stalling.commit_stalls().await;
    let one = &stalling.one;
    one.terminate();
    eventually("it shuts down", async || one.log().contains("shutting down").then_some(())).await;
    stalling.proxy.sever();
    eventually("the node knows", async || one.log().contains("the queue cannot be read").then_some(())).await;
    stalling.let_go();
    assert!(stalling.one.ended().await.success());
    let other = stalling.nodes.node("other", &[]);
    let done = other.final_job(&job).await;
    assert_eq!((&done["status"], &done["attempt"]), (&json!("COMPLETE"), &json!(1)));
    pids_of(&stalling.nodes.scratch().join("pids"), 1).await;
    let said = system_lines(&other.log_lines(&job).await);
    assert!(said[0].contains("nothing was started in attempt 1 of 2"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_stalls_for_longer_than_its_lease_lasts_is_taken_over() {
    let Some(stalling) = Stalling::start(CLAIM, &[], |nodes| held_by(&nodes.scratch())).await else { return };
    let job = stalling.one.run(&stalling.pipeline).await;
    stalling.commit_stalls().await;
    // It is not to be seen that its process lives, as on another machine.
    stalling.database().execute("UPDATE nodes SET machine = 'another'");
    let other = stalling.nodes.node("other", &[]);
    stalling.proxy.cut();
    let late = "nodes WHERE name = 'one' AND lease_until < clock_timestamp()";
    eventually("the lease is over", async || (stalling.database().count(late) > 0).then_some(())).await;
    let waits =
        "pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query ILIKE '%nodes%'";
    eventually("the other waits for the claim", async || (stalling.database().count(waits) > 0).then_some(())).await;
    stalling.let_go();
    let gate = stalling.nodes.scratch().join("gate");
    std::fs::write(&gate, "").expect("the gate");
    let done = other.final_job(&job).await;
    assert_eq!((&done["status"], &done["attempt"]), (&json!("COMPLETE"), &json!(2)));
    nobody_complains(&stalling.nodes.scratch());
}
