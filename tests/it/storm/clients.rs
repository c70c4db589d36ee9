//! Clients that ask for things, watch and follow, and record what they were told.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jobstream::client::{ClientError, Said};
use serde_json::{Value, json};

use crate::history::{Change, Event, Line, Wish};
use crate::support::{Client, text};

const PIPELINES: usize = 8;

/// What scripts do, and how often what fails is tried again.
const SCRIPTS: [(&str, u32); 6] = [
    ("print 5; note end", 0),
    ("print 3000; note end", 3),
    ("print 20 0.02; note end", 10),
    ("print 10; note end; [ $JOBSTREAM_ATTEMPT -ge 3 ] || exit 3", 8),
    ("print 2; note end; exit 4", 1),
    ("trap '' TERM; ( enrol; exec setsid sleep 5 ) & ( enrol; exec env -i /bin/sleep 5 ) & print 10 0.05; note end", 6),
];

/// The choices of a run: splitmix64, so that they can be repeated.
pub struct Random(pub(super) u64);

impl Random {
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % end
    }

    pub fn pick<T: Clone>(&mut self, items: &[T]) -> Option<T> {
        let index = self.below(items.len().max(1) as u64);
        items.get(usize::try_from(index).expect("an index")).cloned()
    }
}

/// A subscription to a log, which goes on with every server.
struct Following {
    subscriber: usize,
    job: String,
    next: i64,
}

/// What all clients know, over all servers.
#[derive(Default)]
pub struct Clients {
    pub(super) history: Mutex<Vec<Event>>,
    pipelines: Mutex<Vec<String>>,
    jobs: Mutex<Vec<String>>,
    pub(super) cursor: Mutex<String>,
    followings: Mutex<Vec<Following>>,
    followed: Mutex<usize>,
    named: Mutex<u64>,
}

impl Clients {
    fn record(&self, event: Event) {
        self.history.lock().expect("the history").push(event);
    }

    /// Carries out a mutation, and answers its payload, or the code it is refused with. `Err` if the server is gone.
    async fn ask(
        &self,
        address: SocketAddr,
        http: &reqwest::Client,
        name: &str,
        input: Value,
    ) -> Result<Result<Value, String>, ()> {
        let (payload, input_type) = match name {
            "createPipeline" => ("pipeline { id } job { id }", "CreatePipelineInput"),
            "createJob" => ("job { id }", "CreateJobInput"),
            "stopJob" => ("job { id }", "StopJobInput"),
            "deleteJob" => ("deletedJobId", "DeleteJobInput"),
            _ => ("deletedPipelineId", "DeletePipelineInput"),
        };
        let query = format!("mutation($input: {input_type}!) {{ {name}(input: $input) {{ {payload} }} }}");
        let body = json!({ "query": query, "variables": { "input": input } });
        let request = http.post(format!("http://{address}/graphql")).json(&body).send();
        let mut answer: Value = request.await.map_err(drop)?.json().await.map_err(drop)?;
        if let Some(code) = answer["errors"][0]["extensions"]["code"].as_str().map(str::to_owned) {
            self.record(Event::Refused(code.clone()));
            return Ok(Err(code));
        }
        Ok(Ok(answer["data"][name].take()))
    }

    /// Asks for one thing after the other until the server is gone.
    pub(super) async fn mutate(
        self: Arc<Self>,
        address: SocketAddr,
        mut random: Random,
        workspaces: Vec<String>,
        prelude: String,
    ) {
        let http = reqwest::Client::new();
        while self.mutate_once(address, &http, &mut random, &workspaces, &prelude).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(random.below(30))).await;
        }
    }

    async fn mutate_once(
        &self,
        address: SocketAddr,
        http: &reqwest::Client,
        random: &mut Random,
        workspaces: &[String],
        prelude: &str,
    ) -> Result<(), ()> {
        let pipelines = self.pipelines.lock().expect("pipelines").clone();
        let recent: Vec<String> = self.jobs.lock().expect("jobs").iter().rev().take(12).cloned().collect();
        let what = random.below(100);
        if pipelines.len() < PIPELINES && what < 40 || pipelines.is_empty() {
            let (script, retries) = random.pick(&SCRIPTS).expect("scripts");
            let name = std::mem::replace(&mut *self.named.lock().expect("it"), random.0);
            let name = format!("p{name:x}");
            let workspace = random.pick(workspaces).expect("workspaces");
            let script = format!("{prelude}{script}");
            let input = json!({ "workspaceId": workspace, "name": name, "script": script, "maxRetries": retries });
            if let Ok(created) = self.ask(address, http, "createPipeline", input).await? {
                let (pipeline, job) =
                    (text(&created["pipeline"]["id"]).to_owned(), text(&created["job"]["id"]).to_owned());
                self.pipelines.lock().expect("pipelines").push(pipeline.clone());
                self.record(Event::Acknowledged(Wish::CreatePipeline { pipeline, job }));
            }
        } else if what < 80 {
            let Some(pipeline) = random.pick(&pipelines) else { return Ok(()) };
            match self.ask(address, http, "createJob", json!({ "pipelineId": pipeline })).await? {
                Ok(created) => {
                    let job = text(&created["job"]["id"]).to_owned();
                    self.jobs.lock().expect("jobs").push(job.clone());
                    self.record(Event::Acknowledged(Wish::CreateJob { pipeline, job }));
                }
                // A kill has cut its PIPELINE_CONFIG off: there is no more to do with it.
                Err(code) if code == "NOT_READY" => {
                    self.pipelines.lock().expect("pipelines").retain(|it| *it != pipeline);
                }
                Err(_) => {}
            }
        } else if what < 97 {
            let Some(job) = random.pick(&recent) else { return Ok(()) };
            let stop = what < 92;
            let wish = if stop { Wish::Stop { job: job.clone() } } else { Wish::DeleteJob { job: job.clone() } };
            self.record(Event::Asked(wish.clone()));
            let name = if stop { "stopJob" } else { "deleteJob" };
            if self.ask(address, http, name, json!({ "id": job })).await?.is_ok() {
                self.record(Event::Acknowledged(wish));
            }
        } else {
            let Some(pipeline) = random.pick(&pipelines) else { return Ok(()) };
            self.pipelines.lock().expect("pipelines").retain(|it| *it != pipeline);
            let wish = Wish::DeletePipeline { pipeline: pipeline.clone() };
            self.record(Event::Asked(wish.clone()));
            if self.ask(address, http, "deletePipeline", json!({ "id": pipeline })).await?.is_ok() {
                self.record(Event::Acknowledged(wish));
            }
        }
        Ok(())
    }

    /// Follows the status stream from where the last server left it.
    pub(super) async fn watch(self: Arc<Self>, address: SocketAddr) -> Result<(), ClientError> {
        let mut client = Client::connect(address, None).await?;
        let query = "subscription($after: String) { jobStatusChanged(after: $after) { cursor jobId status previousStatus \
                     attempt deleted } }";
        let after = self.cursor.lock().expect("the cursor").clone();
        let changes = client.begin(query, json!({ "after": after })).await?;
        while let Some(event) = client.next_data(&changes).await? {
            let change = change(&event["jobStatusChanged"]);
            *self.cursor.lock().expect("the cursor") = change.cursor.clone();
            self.record(Event::ChangeSeen(change));
        }
        Ok(())
    }

    /// Follows one log after the other, from where the last server left them.
    pub(super) async fn follow(self: Arc<Self>, address: SocketAddr) -> Result<(), ClientError> {
        let mut client = Client::connect(address, None).await?;
        let query = "subscription($id: ID!, $from: Int!) { jobLogs(jobId: $id, sequence: $from) { \
                     lines { sequence stream text } nextSequence } }";
        loop {
            let Some(mut following) = self.next_following() else {
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            };
            let arguments = json!({ "id": following.job, "from": following.next });
            let logs = match client.begin(query, arguments).await {
                Ok(logs) => logs,
                Err(gone) => {
                    self.followings.lock().expect("followings").push(following);
                    return Err(gone);
                }
            };
            loop {
                match client.next_of(&logs).await {
                    Ok(Said::Next(event)) if event["errors"].is_null() => {
                        let logs = &event["data"]["jobLogs"];
                        for it in logs["lines"].as_array().expect("lines") {
                            let (subscriber, job) = (following.subscriber, following.job.clone());
                            self.record(Event::LineSeen { subscriber, job, line: line(it) });
                        }
                        following.next = logs["nextSequence"].as_i64().expect("a number");
                    }
                    // Complete, or deleted.
                    Ok(_) => break,
                    Err(gone) => {
                        self.followings.lock().expect("followings").push(following);
                        return Err(gone);
                    }
                }
            }
        }
    }

    /// A log that the last server left, or else one that nobody has followed.
    fn next_following(&self) -> Option<Following> {
        if let Some(following) = self.followings.lock().expect("followings").pop() {
            return Some(following);
        }
        let jobs = self.jobs.lock().expect("jobs");
        let mut followed = self.followed.lock().expect("it");
        let job = jobs.get(*followed)?.clone();
        *followed += 1;
        Some(Following { subscriber: *followed, job, next: 0 })
    }
}

pub(super) fn change(it: &Value) -> Change {
    Change {
        cursor: text(&it["cursor"]).to_owned(),
        job: text(&it["jobId"]).to_owned(),
        status: text(&it["status"]).to_owned(),
        previous: it["previousStatus"].as_str().map(str::to_owned),
        attempt: it["attempt"].as_i64().expect("a number"),
        deleted: it["deleted"] == true,
    }
}

pub(super) fn line(it: &Value) -> Line {
    Line {
        sequence: it["sequence"].as_i64().expect("a number"),
        stream: text(&it["stream"]).to_owned(),
        text: text(&it["text"]).to_owned(),
    }
}
