//! A server process to measure.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use jobstream::client::Client;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

/// How many jobs run at a time, where that is compared.
pub const SLOTS: usize = 4;

/// A server process on a directory of its own, and a connection to it.
pub struct Server {
    process: Child,
    pub address: SocketAddr,
    pub client: Client,
    directory: Arc<TempDir>,
}

impl Server {
    /// Starts a server that runs so many jobs at a time.
    pub async fn start(slots: usize) -> Self {
        Self::with(slots, &[]).await
    }

    /// Starts a server with further options.
    pub async fn with(slots: usize, options: &[&str]) -> Self {
        Self::on(Arc::new(tempfile::tempdir().expect("a directory")), slots, options).await
    }

    /// Kills the server, and starts another one in its place when something has been done to its data directory.
    pub async fn again(self, meanwhile: impl FnOnce(&Path), slots: usize, options: &[&str]) -> Self {
        let directory = Arc::clone(&self.directory);
        drop(self);
        meanwhile(&directory.path().join("data"));
        Self::on(directory, slots, options).await
    }

    async fn on(directory: Arc<TempDir>, slots: usize, options: &[&str]) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_jobstream"))
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--max-connections-per-address",
                "16384",
                "--slots",
                &slots.to_string(),
                "--data-dir",
            ])
            .arg(directory.path().join("data"))
            .args(options)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let mut lines = BufReader::new(process.stderr.take().expect("its standard error")).lines();
        let address = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.split_once("at http://")?.1.split('/').next()?.parse().ok())
            .expect("its address");
        std::thread::spawn(move || lines.for_each(drop));
        let client = Client::connect(address, None).await.expect("a connection");
        Self { process, address, client, directory }
    }

    /// Has it stand still until it is to go on. A job that it is starting or ending waits with it.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Has it go on.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).expect("it is there");
    }

    /// Carries out a query or mutation.
    pub async fn request(&mut self, query: &str, variables: Value) -> Value {
        self.client.request(query, variables).await.expect("an answer")
    }

    /// A workspace that is READY.
    pub async fn workspace(&mut self, name: &str) -> String {
        let query = "mutation($input: CreateWorkspaceInput!) { createWorkspace(input: $input) { workspace { id } jobs { id } } }";
        let mut created = self.request(query, json!({ "input": { "name": name } })).await;
        self.completed(text(&created["createWorkspace"]["jobs"][0]["id"])).await;
        take_text(&mut created["createWorkspace"]["workspace"]["id"])
    }

    /// A pipeline that runs a script, and the job that configures it.
    pub async fn begin_pipeline(&mut self, workspace: &str, name: &str, script: &str) -> (String, String) {
        let query =
            "mutation($input: CreatePipelineInput!) { createPipeline(input: $input) { pipeline { id } job { id } } }";
        let input = json!({ "workspaceId": workspace, "name": name, "script": script });
        let mut created = self.request(query, json!({ "input": input })).await;
        let created = &mut created["createPipeline"];
        (take_text(&mut created["pipeline"]["id"]), take_text(&mut created["job"]["id"]))
    }

    /// A pipeline that is READY.
    pub async fn pipeline(&mut self, workspace: &str, name: &str, script: &str) -> String {
        let (pipeline, job) = self.begin_pipeline(workspace, name, script).await;
        self.completed(&job).await;
        pipeline
    }

    /// Queues a run.
    pub async fn run(&mut self, pipeline: &str) -> String {
        let query = "mutation($input: CreateJobInput!) { createJob(input: $input) { job { id } } }";
        let mut created = self.request(query, json!({ "input": { "pipelineId": pipeline } })).await;
        take_text(&mut created["createJob"]["job"]["id"])
    }

    /// Waits until a job is COMPLETE.
    pub async fn completed(&mut self, job: &str) {
        let query = "subscription($id: ID!) { jobStatusChanged(jobId: $id) { status } }";
        let changes = self.client.begin(query, json!({ "id": job })).await.expect("a subscription");
        loop {
            let change = self.client.next_data(&changes).await.expect("a change").expect("no end");
            match text(&change["jobStatusChanged"]["status"]) {
                "COMPLETE" => break,
                "ERROR" | "STOPPED" => panic!("job {job} is {change}"),
                _ => {}
            }
        }
        self.client.end(&changes).await.expect("a connection");
    }

    /// Begins to follow the statuses of all jobs, from now on.
    pub async fn changes(&mut self) -> String {
        // One on which nothing was heard for long the server has closed.
        self.client = Client::connect(self.address, None).await.expect("a connection");
        let newest = self.request("{ jobs(first: 1) { cursor } }", json!({})).await;
        let query = "subscription($after: String) { jobStatusChanged(after: $after) { jobId status } }";
        self.client.begin(query, json!({ "after": newest["jobs"]["cursor"] })).await.expect("a subscription")
    }

    /// Waits until so many jobs have ended with this status, as those who follow them hear of it.
    pub async fn ended(&mut self, changes: &str, number: usize, status: &str) {
        let mut ended = 0;
        while ended < number {
            let change = self.client.next_data(changes).await.expect("a change").expect("no end");
            match text(&change["jobStatusChanged"]["status"]) {
                end if end == status => ended += 1,
                "COMPLETE" | "ERROR" | "STOPPED" => panic!("a job is {change}"),
                _ => {}
            }
        }
    }

    /// Passes over what a server that stands still had said before of changes that are followed.
    pub async fn hear_out(&mut self, changes: &str) {
        let silence = Duration::from_millis(50);
        while let Ok(said) = tokio::time::timeout(silence, self.client.next_data(changes)).await {
            said.expect("a change").expect("no end");
        }
    }

    /// How many SQL statements it has run so far, without those that begin and end transactions.
    pub async fn statements(&self) -> u64 {
        let metrics = reqwest::get(format!("http://{}/metrics", self.address)).await.expect("an answer");
        let metrics = metrics.text().await.expect("a text");
        let total = metrics.lines().find_map(|line| line.strip_prefix("jobstream_database_statements_total "));
        total.expect("the figure").parse().expect("a number")
    }

    /// A figure in KiB from /proc/PID/status: VmRSS is what it holds now, VmHWM the most it has held.
    pub fn memory(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).expect("the figure");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }
}

impl Server {
    /// How much of the processor it has used so far. What its jobs use is not in it.
    pub fn processor_time(&self) -> Duration {
        processor_time(self.process.id())
    }
}

/// How much of the processor a process has used so far.
pub fn processor_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("its figures");
    let fields = stat.rsplit_once(") ").expect("a name").1.split(' ');
    let ticks: u64 = fields.skip(11).take(2).map(|it| it.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(ticks * 10) // a hundred ticks are a second on every Linux
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not a text: {value}"))
}

fn take_text(value: &mut Value) -> String {
    text(&value.take()).to_owned()
}
