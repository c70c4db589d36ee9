//! Subscriptions that are the same are executed once; everybody is told everything once all the same.

use std::time::Duration;

use futures_util::future::join_all;
use jobstream::client::ClientError;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::support::{Client, TestServer, Wire, eventually, text, wait_for, within};

const LOGS: &str = "subscription Logs($id: ID!, $from: Int! = 0) { jobLogs(jobId: $id, sequence: $from) { \
                    lines { sequence text } nextSequence complete } }";
const CHANGES: &str = "subscription($workspace: ID, $pipeline: ID, $after: String) { \
                       jobStatusChanged(workspaceId: $workspace, pipelineId: $pipeline, after: $after) { \
                       cursor jobId status deleted } }";

/// What a subscriber was told.
struct Followed {
    lines: Vec<String>,
    complete: bool,
}

/// One who follows a log to its end, with a pause after some events, and checks that each line comes once and in order.
struct Follower {
    client: Client,
    operation: String,
    next: i64,
    pauses: Pauses,
}

impl Follower {
    async fn begin(server: &TestServer, job: &str, from: i64, pauses: Pauses) -> Self {
        let mut client = server.client().await;
        let operation = client.begin(LOGS, json!({ "id": job, "from": from })).await.expect("a connection");
        Self { client, operation, next: from, pauses }
    }

    async fn read(mut self) -> Result<Followed, ClientError> {
        let mut followed = Followed { lines: Vec::new(), complete: false };
        while let Some(event) = within(self.client.next_data(&self.operation)).await? {
            assert!(!followed.complete, "something came after the last event: {event}");
            for line in event["jobLogs"]["lines"].as_array().expect("lines") {
                assert_eq!(line["sequence"], self.next, "a gap, or a repetition");
                self.next += 1;
                followed.lines.push(text(&line["text"]).to_owned());
            }
            assert_eq!(event["jobLogs"]["nextSequence"], self.next);
            followed.complete = event["jobLogs"]["complete"] == true;
            self.pauses.pause().await;
        }
        Ok(followed)
    }

    /// Reads on beside the test.
    fn go_on(self) -> JoinHandle<Result<Followed, ClientError>> {
        tokio::spawn(self.read())
    }
}

/// Pauses that look random, and are the same in every run.
#[derive(Clone, Copy)]
struct Pauses {
    state: u64,
    longest: u64,
}

impl Pauses {
    const NONE: Self = Self { state: 1, longest: 0 };

    fn up_to(longest: u64, seed: u64) -> Self {
        Self { state: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1, longest }
    }

    async fn pause(&mut self) {
        if self.longest > 0 {
            self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            tokio::time::sleep(Duration::from_millis((self.state >> 33) % self.longest)).await;
        }
    }
}

async fn metric(server: &TestServer, name: &str) -> f64 {
    server.metrics().await.value(&format!("jobstream_{name}"), &[])
}

async fn shared(server: &TestServer, subscriptions: usize, executions: usize) {
    eventually(&format!("{subscriptions} subscriptions share {executions} executions"), async || {
        let metrics = server.metrics().await;
        let is = |name: &str, count: usize| metrics.value(name, &[]) == count as f64;
        (is("jobstream_subscriptions_open", subscriptions) && is("jobstream_subscription_executions", executions))
            .then_some(())
    })
    .await;
}

/// A job that prints a line for every file that the test makes, as soon as it is there, until there is one called `end`.
async fn prompted(server: &TestServer) -> String {
    let files = server.scratch();
    let script = format!(
        "cd '{}'; n=0; until [ -e end ]; do if [ -e $n ]; then echo $n; n=$((n+1)); else sleep 0.01; fi; done",
        files.display()
    );
    server.run_script(&script).await
}

fn prompt(server: &TestServer, name: impl std::fmt::Display) {
    std::fs::write(server.scratch().join(name.to_string()), "").expect("a file");
}

/// How many SQL statements it takes to print 100 lines, each for itself, to so many subscribers.
async fn statements_for(subscribers: usize) -> u64 {
    let server = TestServer::start();
    let job = prompted(&server).await;
    let mut wire = server.ready_wire().await;
    for id in 0..subscribers {
        subscribe(&mut wire, &id.to_string(), &job).await;
    }
    shared(&server, subscribers, 1).await;
    let before = server.sql_statements().await;
    for line in 0..100 {
        prompt(&server, line);
        for _ in 0..subscribers {
            let message = wire.hear().await;
            assert_eq!(message["payload"]["data"]["jobLogs"]["lines"][0]["text"], line.to_string(), "{message}");
        }
    }
    server.sql_statements().await - before
}

async fn subscribe(wire: &mut Wire, id: &str, job: &str) {
    let payload = json!({ "query": LOGS, "variables": { "id": job, "from": 0 } });
    wire.say(json!({ "id": id, "type": "subscribe", "payload": payload })).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_subscribers_cost_the_database_what_one_does() {
    let (one, fifty) = (statements_for(1).await, statements_for(50).await);
    assert!(one >= 100, "the lines were read: {one}");
    assert!(fifty <= one + one / 4, "{fifty} statements for fifty, {one} for one");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_may_not_differ_is_shared() {
    let server = TestServer::start();
    let job = prompted(&server).await;
    let document = "subscription A($id: ID!, $x: Boolean! = true) { jobLogs(jobId: $id) { complete @include(if: $x) nextSequence } } \
                    subscription B($id: ID!) { jobLogs(jobId: $id) { nextSequence } }";
    let spaced = format!("{document} ");
    let operations = [
        json!({ "query": document, "operationName": "A", "variables": { "id": job } }),
        json!({ "query": document, "operationName": "A", "variables": { "id": job, "x": false } }),
        json!({ "query": document, "operationName": "B", "variables": { "id": job } }),
        json!({ "query": spaced, "operationName": "A", "variables": { "id": job } }),
    ];
    let mut wire = server.ready_wire().await;
    for (number, payload) in operations.iter().chain(&operations).enumerate() {
        wire.say(json!({ "id": number.to_string(), "type": "subscribe", "payload": payload })).await;
    }
    shared(&server, 8, 4).await;
    prompt(&server, 0);
    let mut told = Vec::new();
    for _ in 0..8 {
        let message = wire.hear().await;
        told.push((text(&message["id"]).to_owned(), message["payload"]["data"]["jobLogs"].clone()));
    }
    told.sort_by(|(one, _), (other, _)| one.cmp(other));
    let (all, number) = (json!({ "complete": false, "nextSequence": 1 }), json!({ "nextSequence": 1 }));
    let expected = [&all, &number, &number, &all, &all, &number, &number, &all];
    assert_eq!(told.iter().map(|(_, logs)| logs).collect::<Vec<_>>(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_goes_on_when_the_one_that_began_it_leaves() {
    let server = TestServer::start();
    let job = prompted(&server).await;
    let mut first = server.ready_wire().await;
    subscribe(&mut first, "1", &job).await;
    shared(&server, 1, 1).await;
    let mut others = server.ready_wire().await;
    for id in ["1", "2", "3"] {
        subscribe(&mut others, id, &job).await;
    }
    shared(&server, 4, 1).await;
    drop(first);
    shared(&server, 3, 1).await;
    others.say(json!({ "id": "1", "type": "complete" })).await;
    shared(&server, 2, 1).await;
    prompt(&server, 0);
    for _ in 0..2 {
        let message = others.hear().await;
        assert_ne!(message["id"], "1");
        assert_eq!(message["payload"]["data"]["jobLogs"]["lines"][0]["text"], "0");
    }
    prompt(&server, "end");
    let mut over = 0;
    while over < 2 {
        over += usize::from(others.hear().await["type"] == "complete");
    }
    shared(&server, 0, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deletion_of_a_job_is_told_to_all_who_follow_it() {
    let server = TestServer::start();
    let job = prompted(&server).await;
    let mut followers = Vec::new();
    for _ in 0..10 {
        followers.push(Follower::begin(&server, &job, 0, Pauses::NONE).await.go_on());
    }
    shared(&server, 10, 1).await;
    server.delete("Job", &job).await;
    for follower in followers {
        match within(follower).await.expect("no panic") {
            Err(ClientError::Failed(errors)) => assert_eq!(errors[0]["extensions"]["code"], "NOT_FOUND"),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("it ended as if it was whole"),
        }
    }
    shared(&server, 0, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_does_not_read_holds_nobody_back_and_loses_nothing() {
    let server = TestServer::with(&["--client-timeout=600"]);
    let go = server.scratch().join("go");
    // More than the buffers on the way hold, in more pieces than are kept for it.
    let script =
        format!("{}; for n in $(seq 200); do yes $(printf 'x%.0s' {{1..1000}}) | head -n 100; done", wait_for(&go));
    let job = server.run_script(&script).await;
    let mut slow = server.narrow_wire().await;
    subscribe(&mut slow, "1", &job).await;
    let quick = Follower::begin(&server, &job, 0, Pauses::NONE).await;
    shared(&server, 2, 1).await;
    std::fs::write(&go, "").expect("a file");
    let read = quick.read().await.expect("all of it");
    assert_eq!((read.lines.len(), read.complete), (20_000, true), "it did not wait");
    shared(&server, 1, 1).await; // the other has hardly read any of it
    let (mut next, mut complete) = (0, false);
    loop {
        let message = slow.hear().await;
        if message["type"] == "complete" {
            break;
        }
        let logs = &message["payload"]["data"]["jobLogs"];
        for line in logs["lines"].as_array().expect("lines") {
            assert_eq!(line["sequence"], next, "a gap, or a repetition");
            next += 1;
        }
        complete = logs["complete"] == true;
    }
    assert_eq!((next, complete), (20_000, true));
    assert!(metric(&server, "subscription_lags_total").await >= 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_subscriber_sees_every_line_once_whenever_it_comes_and_however_fast_it_reads() {
    // In small bursts, so that many come between two of them. Its end comes with the last lines, or after.
    const SCRIPT: &str = "for burst in $(seq 100); do sleep 0.00$((RANDOM % 10)); seq $((burst % 7)); done; \
                          [ $((RANDOM % 2)) = 0 ] || sleep 0.02";
    let lines: i64 = (1..=100).map(|burst| burst % 7).sum();
    let server = TestServer::with(&["--slots=6"]);
    let workspace = server.workspace("W").await;
    let mut pipelines = Vec::new();
    for number in 0..6 {
        pipelines.push(server.pipeline(&workspace, &format!("P {number}"), SCRIPT).await);
    }
    for round in 0..4 {
        let jobs = join_all(pipelines.iter().map(|pipeline| server.run(pipeline))).await;
        let mut followers = Vec::new();
        for wave in 0..8_u64 {
            for (job, seed) in jobs.iter().zip(wave * 100..) {
                let (from, longest) = ([0, 0, 0, 111][(seed % 4) as usize], [0, 2, 20, 0][(wave % 4) as usize]);
                let follower = Follower::begin(&server, job, from, Pauses::up_to(longest, seed + 1)).await;
                followers.push((from, follower.go_on()));
            }
            Pauses::up_to(40, wave + round + 1).pause().await;
        }
        for (from, follower) in followers {
            let followed = within(follower).await.expect("no panic").expect("every event");
            assert!(followed.complete, "the last event says that it is whole");
            assert_eq!(followed.lines.len() as i64, lines - from);
        }
    }
    shared(&server, 0, 0).await;
}

/// Reads the changes of a scope until so many jobs were deleted: each change's cursor, and its job.
async fn read_changes(mut client: Client, scope: Value, deletions: usize, mut pauses: Pauses) -> Vec<(String, String)> {
    let operation = client.begin(CHANGES, scope).await.expect("a connection");
    let (mut changes, mut deleted) = (Vec::new(), 0);
    while deleted < deletions {
        let told = within(client.next_data(&operation)).await.expect("a change").expect("no end");
        let change = &told["jobStatusChanged"];
        deleted += usize::from(change["deleted"] == true);
        changes.push((text(&change["cursor"]).to_owned(), text(&change["jobId"]).to_owned()));
        pauses.pause().await;
    }
    changes
}

#[tokio::test(flavor = "multi_thread")]
async fn every_subscriber_sees_every_change_of_its_scope_once_whenever_it_comes() {
    const RUNS: usize = 8;
    let server = TestServer::with(&["--slots=6"]);
    let after = server.cursor().await;
    let (of_pipeline, of_workspace) = (RUNS + 1, 3 + 3 * (RUNS + 1));
    let mut scopes = vec![(json!({ "after": after }), 2 * of_workspace)];
    let (mut workspaces, mut pipelines) = (Vec::new(), Vec::new());
    for name in ["A", "B"] {
        let workspace = server.workspace(name).await;
        scopes.push((json!({ "workspace": workspace, "after": after }), of_workspace));
        for name in ["1", "2", "3"] {
            let pipeline = server.pipeline(&workspace, name, "true").await;
            scopes.push((json!({ "pipeline": pipeline, "after": after }), of_pipeline));
            pipelines.push(pipeline);
        }
        workspaces.push(workspace);
    }
    let runs = async {
        for _ in 0..RUNS {
            let jobs = join_all(pipelines.iter().map(|pipeline| server.run(pipeline))).await;
            join_all(jobs.iter().map(|job| server.final_job(job))).await;
        }
    };
    let subscribers = async {
        let mut subscribers = Vec::new();
        for wave in 0..6_u64 {
            for (scope, deletions) in &scopes {
                let pauses = Pauses::up_to([0, 3, 30][(wave % 3) as usize], wave + 1);
                let reading = read_changes(server.client().await, scope.clone(), *deletions, pauses);
                subscribers.push((scope.clone(), tokio::spawn(reading)));
            }
            Pauses::up_to(200, wave + 7).pause().await;
        }
        subscribers
    };
    let (subscribers, ()) = tokio::join!(subscribers, runs);
    let jobs = "{ jobs(first: 500) { nodes { id workspace { id } pipeline { id } } } }";
    let jobs = server.data(jobs, json!({})).await["jobs"]["nodes"].take();
    for workspace in workspaces {
        server.delete("Workspace", &workspace).await;
    }
    let all = read_changes(server.client().await, scopes[0].0.clone(), 2 * of_workspace, Pauses::NONE).await;
    for (scope, subscriber) in subscribers {
        let is_in = |id: &str| {
            let job = jobs.as_array().expect("jobs").iter().find(|job| job["id"] == id).expect("the job");
            [("workspace", &job["workspace"]["id"]), ("pipeline", &job["pipeline"]["id"])]
                .iter()
                .all(|(filter, id)| scope.get(filter).is_none_or(|wanted| wanted == *id))
        };
        let expected: Vec<_> = all.iter().filter(|(_, job)| is_in(job)).cloned().collect();
        assert_eq!(within(subscriber).await.expect("no panic"), expected, "{scope}");
    }
}
