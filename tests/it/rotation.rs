//! `jobstream rotate-key`: another key, the same values.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Instant;

use serde_json::{Value, json};

use crate::nodes::Nodes;
use crate::support::{TestServer, on_postgres};

/// What is sealed on a server: a value of a pipeline, in two versions of its definition, a webhook's secret, and a value of a data component.
struct Sealed {
    server: TestServer,
    pipeline: String,
    expected: &'static str,
}

impl Sealed {
    async fn new() -> Self {
        let server = TestServer::with(&["--allow-private-webhooks"]);
        let script = "printf %s \"$A_SECRET\" | rev";
        Self::on(server, json!({ "script": script }), "pipeline's ünïcode").await
    }

    /// Also a pipeline that uses the data component, which needs Meltano.
    async fn with_component() -> Option<Self> {
        let server = TestServer::with_meltano(&["--allow-private-webhooks"])?;
        let script = "printf '%s|%s' \"$A_SECRET\" \"$STORE_PASSWORD\" | rev";
        let more = json!({ "script": script, "dataComponents": ["store"] });
        Some(Self::on(server, more, "pipeline's ünïcode|component's").await)
    }

    async fn on(server: TestServer, mut input: Value, expected: &'static str) -> Self {
        let workspace = server.workspace("W").await;
        // A plugin that every server knows has no sensitive setting; the user says that this one is.
        let plugin = if input["dataComponents"].is_null() { "target-jsonl" } else { "tap-x" };
        let setting = if input["dataComponents"].is_null() { "destination_path" } else { "password" };
        let component = json!({ "workspaceId": workspace, "name": "store", "plugin": plugin,
            "properties": [{ "name": setting, "value": "component's", "sensitive": true }] });
        server.change("createDataComponent", component, "dataComponent { id }").await;
        input["workspaceId"] = json!(workspace);
        input["name"] = json!("P");
        input["properties"] = json!([{ "name": "a.secret", "value": "pipeline's ünïcode", "sensitive": true }]);
        let pipeline = server.pipeline_with(input).await;
        // A version of the definition that only a job refers to.
        let old = server.run(&pipeline).await;
        server.final_job(&old).await;
        let update = json!({ "id": pipeline, "timeout": 77 });
        server.change("updatePipeline", update, "pipeline { id }").await;
        let hook =
            json!({ "workspaceId": workspace, "url": "http://127.0.0.1:9/", "secret": "a secret of some length" });
        server.change("createWebhook", hook, "webhook { id }").await;
        Self { server, pipeline, expected }
    }

    /// The values are what they were. That of the webhook can be opened: the server has tried to send with it.
    async fn is_whole(&self) {
        let run = self.server.run(&self.pipeline).await;
        let ended = self.server.final_job(&run).await;
        let log = self.server.log_text(&run).await;
        assert_eq!(ended["status"], "COMPLETE", "{log}");
        assert_eq!(log.trim().chars().rev().collect::<String>(), self.expected);
        assert!(!self.server.log().contains("cannot be opened"));
    }

    async fn is_whole_but_for_the_webhook(&self) {
        let run = self.server.run(&self.pipeline).await;
        self.server.final_job(&run).await;
        let log = self.server.log_text(&run).await;
        assert_eq!(log.trim().chars().rev().collect::<String>(), self.expected);
    }

    fn restarted(self) -> Self {
        Self { server: self.server.restart(), ..self }
    }
}

fn rotate(server: &TestServer) -> Output {
    server.subcommand("rotate-key").output().expect("it ends")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn keys(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).expect("the key").lines().map(str::to_owned).collect()
}

fn check(server: &TestServer) -> String {
    said(
        &server
            .subcommand("check")
            .args(["--listen", "127.0.0.1:0"])
            .env("JOBSTREAM_MELTANO", "none")
            .output()
            .expect("it ends"),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn values_are_the_same_with_another_key_and_the_old_one_is_refused() {
    let Some(mut sealed) = Sealed::with_component().await else { return };
    let refused = rotate(&sealed.server);
    assert!(
        !refused.status.success() && said(&refused).contains("in use by another jobstream server"),
        "{}",
        said(&refused)
    );
    sealed.server.kill();
    let key = sealed.server.key();
    let old = std::fs::read_to_string(&key).expect("the key");
    let fingerprint = |server: &TestServer| server.count_rows("encryption_keys");
    let rotated = rotate(&sealed.server);
    assert!(rotated.status.success() && said(&rotated).contains("with the new key"), "{}", said(&rotated));
    assert_eq!((keys(&key).len(), fingerprint(&sealed.server)), (1, 1));
    let new = std::fs::read_to_string(&key).expect("the key");
    assert_ne!(old, new);
    for secret in [old.trim(), new.trim(), "pipeline's", "component's"] {
        assert!(!said(&rotated).contains(secret), "a secret is printed");
    }
    sealed = sealed.restarted();
    sealed.is_whole().await;

    sealed.server.kill();
    std::fs::write(&key, &old).expect("the old key");
    let refused = sealed.server.same_command().args(["--listen", "127.0.0.1:0"]).output().expect("it ends");
    assert!(
        !refused.status.success() && said(&refused).contains("is not that of the sensitive values"),
        "{}",
        said(&refused)
    );
    let refused = rotate(&sealed.server);
    assert!(
        !refused.status.success() && said(&refused).contains("is not that of the sensitive values"),
        "{}",
        said(&refused)
    );
    assert_eq!(std::fs::read_to_string(&key).expect("the key"), old);
    assert!(check(&sealed.server).contains("is not that of the sensitive values"));
    // Twice is as good.
    std::fs::write(&key, &new).expect("the new key");
    assert!(rotate(&sealed.server).status.success());
    sealed.restarted().is_whole().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_is_killed_at_any_point_loses_nothing() {
    let mut sealed = Sealed::new().await;
    sealed.server.kill();
    let key = sealed.server.key();
    // More versions of the definition, so that there is time to be killed in.
    let more = if on_postgres() {
        "SELECT gen_random_uuid(), d.pipeline, d.body FROM definitions d, generate_series(1, 200)"
    } else {
        "SELECT randomblob(16), d.pipeline, d.body FROM definitions d, \
         (WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200) SELECT i FROM n)"
    };
    execute(&sealed.server, &format!("INSERT INTO definitions (id, pipeline, body) {more}"));
    let started = Instant::now();
    assert!(rotate(&sealed.server).status.success());
    let whole = started.elapsed();
    let mut interrupted = 0;
    for round in 0..8 {
        let mut child = sealed.server.subcommand("rotate-key").spawn().expect("it starts");
        let share = whole.mul_f64(f64::from(round / 2) / 3.0);
        if round % 2 == 0 {
            // Over the whole of it.
            std::thread::sleep(share);
        } else {
            // Soon, or some time, after both keys are there.
            while keys(&key).len() == 1 && child.try_wait().expect("its status").is_none() {
                std::thread::yield_now();
            }
            std::thread::sleep(share / 2);
        }
        let _ = child.kill();
        child.wait().expect("its end");
        let has_both = keys(&key).len() == 2;
        if has_both {
            interrupted += 1;
            assert!(check(&sealed.server).contains("holds two keys"));
        }
        if has_both || round % 4 == 3 {
            sealed = sealed.restarted();
            sealed.is_whole().await;
            sealed.server.kill();
        }
    }
    assert!(interrupted > 0, "no rotation was interrupted while both keys were in the file");
    let completed = rotate(&sealed.server);
    assert!(completed.status.success(), "{}", said(&completed));
    // What was left to be completed needs no further key.
    if said(&completed).contains("Completed") {
        assert!(rotate(&sealed.server).status.success());
    }
    assert_eq!(keys(&key).len(), 1);
    sealed.restarted().is_whole().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_states_between_which_a_rotation_can_end_are_completed() {
    let mut sealed = Sealed::new().await;
    sealed.server.kill();
    let key = sealed.server.key();
    let first = keys(&key).remove(0);
    assert!(rotate(&sealed.server).status.success());
    let second = keys(&key).remove(0);
    // After the values were sealed with the new key: the old one is only removed.
    std::fs::write(&key, format!("{second}\n{first}\n")).expect("both keys");
    sealed = sealed.restarted();
    sealed.is_whole().await;
    sealed.server.kill();
    let completed = rotate(&sealed.server);
    assert!(said(&completed).contains("Completed the rotation"), "{}", said(&completed));
    assert_eq!(keys(&key), std::slice::from_ref(&second));
    // Before that: they are sealed now. What is written meanwhile is sealed with the key that the database names.
    std::fs::write(&key, format!("{first}\n{second}\n")).expect("both keys");
    sealed = sealed.restarted();
    let property = json!({ "name": "a.secret", "value": "pipeline's ünïcode", "sensitive": true });
    let update = json!({ "id": sealed.pipeline, "properties": [property] });
    sealed.server.change("updatePipeline", update, "pipeline { id }").await;
    sealed.is_whole().await;
    sealed.server.kill();
    let resumed = rotate(&sealed.server);
    assert!(resumed.status.success() && said(&resumed).contains("Resuming"), "{}", said(&resumed));
    assert_eq!(keys(&key), [first]);
    sealed.restarted().is_whole().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_elsewhere_keeps_the_key_from_being_replaced() {
    let Some(nodes) = Nodes::new() else { return };
    // Its lease holds, however slow the machine is.
    let margin = ["--lease-margin", "60"];
    let one = nodes.node("one", &margin);
    let mut other = nodes.node("other", &margin);
    let workspace = one.workspace("W").await;
    let property = json!({ "name": "a.secret", "value": "the value", "sensitive": true });
    let input = json!({ "workspaceId": workspace, "name": "P", "script": "printf %s \"$A_SECRET\" | rev", "properties": [property] });
    let pipeline = one.pipeline_with(input).await;
    other.kill();
    let shared = nodes.shared_directory();
    let mut command = other.subcommand("rotate-key");
    command.arg("--shared-dir").arg(&shared);
    let before = keys(&shared.join("key"));
    let refused = command.output().expect("it ends");
    assert!(!refused.status.success() && said(&refused).contains("the server one is registered"), "{}", said(&refused));
    assert_eq!(keys(&shared.join("key")), before);
    let mut one = one;
    one.terminate();
    one.ended().await;
    let rotated = command.output().expect("it ends");
    assert!(rotated.status.success(), "{}", said(&rotated));
    let again = one.restart();
    let run = again.run(&pipeline).await;
    again.final_job(&run).await;
    assert_eq!(again.log_text(&run).await.trim(), "eulav eht");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_rotated_is_said() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut command = Command::new(env!("CARGO_BIN_EXE_jobstream"));
    command.args(["rotate-key", "--data-dir"]).arg(directory.path().join("none"));
    let refused = command.output().expect("it ends");
    assert!(!refused.status.success() && said(&refused).contains("does not exist"), "{}", said(&refused));
    assert!(!directory.path().join("none").exists());

    // A value that is damaged: nothing is changed.
    let mut sealed = Sealed::new().await;
    sealed.server.kill();
    let before = keys(&sealed.server.key());
    execute(&sealed.server, "UPDATE webhooks SET secret = 'AAAA'");
    let refused = rotate(&sealed.server);
    assert!(!refused.status.success() && said(&refused).contains("cannot be opened"), "{}", said(&refused));
    assert_eq!(keys(&sealed.server.key()), before);
    sealed.restarted().is_whole_but_for_the_webhook().await;
}

fn execute(server: &TestServer, sql: &str) {
    use diesel::Connection;
    use diesel::connection::SimpleConnection;
    match server.database() {
        Some(database) => database.execute(sql),
        None => {
            let path = server.data_directory().join("jobstream.db");
            let mut sqlite = diesel::SqliteConnection::establish(path.to_str().expect("UTF-8")).expect("the database");
            sqlite.batch_execute(sql).expect(sql);
        }
    }
}
