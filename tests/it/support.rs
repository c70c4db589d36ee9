//! A server to test: the real program, on a directory of its own, and ways to talk to it.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use diesel::{Connection, RunQueryDsl};
use jobstream::client::Client;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// Longer than anything here takes; a test that waits for what never comes ends.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A server process on a directory of its own. Killed, with all it started, when dropped.
pub struct TestServer {
    process: Child,
    address: SocketAddr,
    wrapper: Vec<String>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    directory: Arc<TempDir>,
    log: Arc<Mutex<String>>,
    http: reqwest::Client,
}

/// A WebSocket as it is, for what [`Client`] would never say.
pub type WebSocket = WebSocketStream<MaybeTlsStream<TcpStream>>;

impl TestServer {
    /// A server with the default options.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// A server with these options.
    pub fn with(arguments: &[&str]) -> Self {
        Self::with_environment(arguments, &[])
    }

    /// A server with these options and variables.
    pub fn with_environment(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::listening("127.0.0.1:0", arguments, environment)
    }

    /// A server that listens at this address, whose port is 0.
    pub fn listening(address: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let directory = Arc::new(tempfile::tempdir().expect("a directory"));
        let arguments = ["--listen", address].iter().chain(arguments).map(ToString::to_string).collect();
        let environment = environment.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        Self::on(directory, Vec::new(), arguments, environment)
    }

    /// A server with these options that a wrapper starts: a command whose last arguments are the server's command line. The
    /// wrapper is told the data directory, and has to end in an `exec`.
    pub fn wrapped(wrapper: impl FnOnce(&Path) -> Vec<String>, arguments: &[&str]) -> Self {
        let directory = Arc::new(tempfile::tempdir().expect("a directory"));
        let wrapper = wrapper(&directory.path().join("data"));
        let arguments = ["--listen", "127.0.0.1:0"].iter().chain(arguments).map(ToString::to_string).collect();
        Self::on(directory, wrapper, arguments, Vec::new())
    }

    fn on(
        directory: Arc<TempDir>,
        wrapper: Vec<String>,
        arguments: Vec<String>,
        environment: Vec<(String, String)>,
    ) -> Self {
        let plain = Self::command(directory.path());
        let mut command = match wrapper.split_first() {
            None => plain,
            Some((program, rest)) => {
                let mut command = Command::new(program);
                command.args(rest).arg(plain.get_program()).args(plain.get_args());
                command.env_remove("JOBSTREAM_TOKEN").stdin(Stdio::null());
                command
            }
        };
        command.args(&arguments).envs(environment.iter().map(|(name, value)| (name, value)));
        let mut process = command.stderr(Stdio::piped()).spawn().expect("the server starts");
        let mut stderr = BufReader::new(process.stderr.take().expect("its standard error"));
        let log = Arc::new(Mutex::new(String::new()));
        let mut line = String::new();
        let address = loop {
            line.clear();
            let read = stderr.read_line(&mut line).expect("its log can be read");
            log.lock().expect("the log").push_str(&line);
            assert!(read > 0, "the server ended at its start: {}", log.lock().expect("the log"));
            if let Some((_, rest)) = line.split_once("GraphiQL is at http://") {
                break rest.split('/').next().and_then(|it| it.parse().ok()).expect("an address");
            }
        };
        let keep = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let mut log = keep.lock().expect("the log");
                log.push_str(&line);
                log.push('\n');
            }
        });
        let http = http_client(token_of(&environment));
        Self { process, address, wrapper, arguments, environment, directory, log, http }
    }

    /// The command that starts a server on this directory.
    pub fn command(directory: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jobstream"));
        command.args(["serve", "--data-dir"]).arg(directory.join("data"));
        command.env_remove("JOBSTREAM_TOKEN").stdin(Stdio::null());
        command
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.process.id()).expect("a pid")
    }

    pub fn data_directory(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// A workspace's repository.
    pub fn repository(&self, workspace: &str) -> PathBuf {
        self.data_directory().join("repositories").join(workspace)
    }

    /// A directory that jobs and the test can share, and that goes with the server.
    pub fn scratch(&self) -> PathBuf {
        let scratch = self.directory.path().join("scratch");
        std::fs::create_dir_all(&scratch).expect("a directory");
        scratch
    }

    /// What the server has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("the log").clone()
    }

    /// Kills the server with SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Kills the server with SIGKILL, and starts another one on the same directory with the same options.
    pub fn kill_and_restart(self) -> Self {
        let mut killed = self;
        killed.kill();
        killed.restart()
    }

    /// Starts another server on the directory of this one, which has ended.
    pub fn restart(self) -> Self {
        Self::on(Arc::clone(&self.directory), self.wrapper.clone(), self.arguments.clone(), self.environment.clone())
    }

    /// Sends the server SIGTERM.
    pub fn terminate(&self) {
        signal(self.pid(), "TERM");
    }

    /// Waits until the server has ended.
    pub async fn ended(&mut self) -> ExitStatus {
        eventually("the server ends", async || self.process.try_wait().expect("its status")).await
    }

    /// A connected WebSocket client.
    pub async fn client(&self) -> Client {
        Client::connect(self.address, token_of(&self.environment)).await.expect("a connection")
    }

    /// Opens a WebSocket with these headers beside those that it needs. The error is the status of the refusal.
    pub async fn handshake(&self, headers: &[(&'static str, &str)]) -> Result<WebSocket, u16> {
        let mut request = format!("ws://{}/graphql", self.address).into_client_request().expect("a request");
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().expect("a header's value"));
        }
        match within(connect_async(request)).await {
            Ok((socket, _)) => Ok(socket),
            Err(tungstenite::Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("the handshake was not answered: {error}"),
        }
    }

    /// A client of the HTTP endpoints, which shows the token if the server wants one.
    pub fn http(&self) -> &reqwest::Client {
        &self.http
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Posts an operation, and answers the whole response: `data` and `errors`.
    pub async fn post(&self, query: &str, variables: Value) -> Value {
        let body = json!({ "query": query, "variables": variables });
        let response = self.http.post(self.url("/graphql")).json(&body).send().await.expect("an answer");
        response.json().await.expect("JSON")
    }

    /// Posts an operation that is expected to succeed, and answers its `data`.
    pub async fn data(&self, query: &str, variables: Value) -> Value {
        let mut response = self.post(query, variables).await;
        assert!(response["errors"].is_null(), "{query}: {}", response["errors"]);
        response["data"].take()
    }

    /// Posts an operation that is expected to be refused, and answers its first error's code.
    pub async fn code(&self, query: &str, variables: Value) -> String {
        let response = self.post(query, variables).await;
        response["errors"][0]["extensions"]["code"]
            .as_str()
            .unwrap_or_else(|| panic!("{query:.300}: {response:.300}"))
            .to_owned()
    }

    /// Posts a mutation with this input, and answers the whole response.
    pub async fn mutate(&self, mutation: &str, input: Value, selection: &str) -> Value {
        let (first, rest) = mutation.split_at(1);
        let input_type = format!("{}{rest}Input!", first.to_uppercase());
        let query = format!("mutation($input: {input_type}) {{ {mutation}(input: $input) {{ {selection} }} }}");
        self.post(&query, json!({ "input": input })).await
    }

    /// Posts a mutation that is expected to succeed, and answers its payload.
    pub async fn change(&self, mutation: &str, input: Value, selection: &str) -> Value {
        let mut response = self.mutate(mutation, input, selection).await;
        assert!(response["errors"].is_null(), "{mutation}: {}", response["errors"]);
        response["data"][mutation].take()
    }

    /// Posts a mutation that is expected to be refused, and answers its error.
    pub async fn refused(&self, mutation: &str, input: Value) -> Refusal {
        Refusal::of(self.mutate(mutation, input, "__typename").await)
    }

    /// Posts an operation that is expected to be refused, and answers its error.
    pub async fn refusal(&self, query: &str, variables: Value) -> Refusal {
        Refusal::of(self.post(query, variables).await)
    }

    /// Creates a workspace, and waits until it is READY.
    pub async fn workspace(&self, name: &str) -> String {
        let query = "mutation($input: CreateWorkspaceInput!) { createWorkspace(input: $input) { workspace { id } jobs { id type } } }";
        let created = self.data(query, json!({ "input": { "name": name } })).await;
        let created = &created["createWorkspace"];
        let init = created["jobs"].as_array().expect("jobs").iter().find(|it| it["type"] == "WORKSPACE_INIT");
        let done = self.final_job(text(&init.expect("the job")["id"])).await;
        assert_eq!(done["status"], "COMPLETE", "{}", self.log_text(text(&done["id"])).await);
        text(&created["workspace"]["id"]).to_owned()
    }

    /// Creates a pipeline that runs a script, and waits until it is READY.
    pub async fn pipeline(&self, workspace: &str, name: &str, script: &str) -> String {
        self.pipeline_with(json!({ "workspaceId": workspace, "name": name, "script": script })).await
    }

    /// Creates a pipeline with this input, and waits until it is READY.
    pub async fn pipeline_with(&self, input: Value) -> String {
        let query =
            "mutation($input: CreatePipelineInput!) { createPipeline(input: $input) { pipeline { id } job { id } } }";
        let created = self.data(query, json!({ "input": input })).await;
        let created = &created["createPipeline"];
        let done = self.final_job(text(&created["job"]["id"])).await;
        assert_eq!(done["status"], "COMPLETE", "{}", self.log_text(text(&done["id"])).await);
        text(&created["pipeline"]["id"]).to_owned()
    }

    /// Queues a run of a pipeline, and answers the job's id.
    pub async fn run(&self, pipeline: &str) -> String {
        let query = "mutation($input: CreateJobInput!) { createJob(input: $input) { job { id } } }";
        let created = self.data(query, json!({ "input": { "pipelineId": pipeline } })).await;
        text(&created["createJob"]["job"]["id"]).to_owned()
    }

    /// A workspace with one pipeline that runs this script, and a run of it that is queued: the job's id.
    pub async fn run_script(&self, script: &str) -> String {
        let workspace = self.workspace("Workspace").await;
        let pipeline = self.pipeline(&workspace, "Pipeline", script).await;
        self.run(&pipeline).await
    }

    pub async fn stop(&self, job: &str) -> Value {
        let query =
            "mutation($input: StopJobInput!) { stopJob(input: $input) { job { id status stopRequested stopReason } } }";
        self.data(query, json!({ "input": { "id": job } })).await["stopJob"]["job"].take()
    }

    /// The job as it is now: every scalar field.
    pub async fn job(&self, job: &str) -> Value {
        let query = "query($id: ID!) { job(id: $id) { id type status exitCode stopReason commitId created startTime endTime \
                     stopRequested attempt maxAttempts } }";
        self.data(query, json!({ "id": job })).await["job"].take()
    }

    /// Waits until the job has this status, following its changes.
    pub async fn job_is(&self, job: &str, status: &str) -> Value {
        self.job_until(job, |change| change["status"] == status).await
    }

    /// Waits until the job is final.
    pub async fn final_job(&self, job: &str) -> Value {
        self.job_until(job, |change| matches!(text(&change["status"]), "COMPLETE" | "ERROR" | "STOPPED")).await
    }

    /// Waits for a change of the job, and answers the job as it is then.
    async fn job_until(&self, job: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut client = self.client().await;
        let query = "subscription($id: ID!) { jobStatusChanged(jobId: $id) { status attempt } }";
        let changes = client.begin(query, json!({ "id": job })).await.expect("a subscription");
        loop {
            let change = within(client.next_data(&changes)).await.expect("a change").expect("no end");
            if wanted(&change["jobStatusChanged"]) {
                return self.job(job).await;
            }
        }
    }

    /// Follows the job's log to its end, and answers all lines.
    pub async fn log_lines(&self, job: &str) -> Vec<Value> {
        let mut client = self.client().await;
        let query = "subscription($id: ID!) { jobLogs(jobId: $id) { lines { sequence timestamp stream text continued } \
                     nextSequence complete } }";
        let logs = client.begin(query, json!({ "id": job })).await.expect("a subscription");
        let mut lines = Vec::new();
        while let Some(event) = within(client.next_data(&logs)).await.expect("an event") {
            lines.extend(event["jobLogs"]["lines"].as_array().expect("lines").iter().cloned());
        }
        lines
    }

    /// Follows the job's log until a line of it has this text.
    pub async fn line_appears(&self, job: &str, wanted: &str) {
        let mut client = self.client().await;
        let query = "subscription($id: ID!) { jobLogs(jobId: $id) { lines { text } } }";
        let logs = client.begin(query, json!({ "id": job })).await.expect("a subscription");
        while let Some(event) = within(client.next_data(&logs)).await.expect("an event") {
            if event["jobLogs"]["lines"].as_array().expect("lines").iter().any(|line| line["text"] == wanted) {
                return;
            }
        }
        panic!("the log ended without {wanted:?}: {}", self.log_text(job).await);
    }

    /// The job's log as it was printed, as far as it is stored.
    pub async fn log_text(&self, job: &str) -> String {
        let response = self.http.get(self.url(&format!("/jobs/{job}/logs"))).send().await.expect("an answer");
        response.text().await.expect("a text")
    }
}

/// Asking without waiting, deleting, following, and looking behind the API.
impl TestServer {
    /// The directory that this server, and every other that is started on it, has.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Kills the server with SIGKILL, and starts another one on the same directory with these options.
    pub fn kill_and_restart_with(mut self, arguments: &[&str]) -> Self {
        self.kill();
        self.arguments = arguments.iter().map(ToString::to_string).collect();
        self.restart()
    }

    /// Creates a workspace, and answers the payload at once.
    pub async fn begin_workspace(&self, name: &str) -> Value {
        let query = "mutation($input: CreateWorkspaceInput!) { createWorkspace(input: $input) { workspace { id status } \
                     jobs { id type status } } }";
        self.data(query, json!({ "input": { "name": name } })).await["createWorkspace"].take()
    }

    /// Creates a pipeline, and answers the payload at once.
    pub async fn begin_pipeline(&self, input: Value) -> Value {
        let query = "mutation($input: CreatePipelineInput!) { createPipeline(input: $input) { pipeline { id status } \
                     job { id type status } } }";
        self.data(query, json!({ "input": input })).await["createPipeline"].take()
    }

    /// Queues a verification of a pipeline, and answers the job's id.
    pub async fn verify(&self, pipeline: &str) -> String {
        let query = "mutation($input: VerifyPipelineInput!) { verifyPipeline(input: $input) { job { id } } }";
        let queued = self.data(query, json!({ "input": { "id": pipeline } })).await;
        text(&queued["verifyPipeline"]["job"]["id"]).to_owned()
    }

    /// Deletes a "Job", "Pipeline" or "Workspace".
    pub async fn delete(&self, what: &str, id: &str) {
        let query =
            format!("mutation($input: Delete{what}Input!) {{ delete{what}(input: $input) {{ deleted{what}Id }} }}");
        let deleted = self.data(&query, json!({ "input": { "id": id } })).await;
        assert_eq!(deleted[format!("delete{what}")][format!("deleted{what}Id")], id);
    }

    /// Follows the changes of jobs' statuses; the variables are the subscription's arguments.
    pub async fn changes(&self, arguments: Value) -> Changes {
        let query = "subscription($workspaceId: ID, $pipelineId: ID, $jobId: ID, $after: String) { \
                     jobStatusChanged(workspaceId: $workspaceId, pipelineId: $pipelineId, jobId: $jobId, after: $after) { \
                     cursor initial jobId status previousStatus attempt at deleted job { id type exitCode endTime } } }";
        let mut client = self.client().await;
        let operation = client.begin(query, arguments).await.expect("a subscription");
        Changes { client, operation }
    }

    /// The cursor of the status stream as it is now.
    pub async fn cursor(&self) -> String {
        let jobs = self.data("{ jobs(first: 1) { cursor } }", json!({})).await;
        text(&jobs["jobs"]["cursor"]).to_owned()
    }

    /// How many rows a query of the server's own database counts.
    pub fn count_rows(&self, what: &str) -> i64 {
        #[derive(diesel::QueryableByName)]
        struct Count {
            #[diesel(sql_type = diesel::sql_types::BigInt)]
            count: i64,
        }
        let path = self.data_directory().join("jobstream.db");
        let mut database = diesel::SqliteConnection::establish(path.to_str().expect("UTF-8")).expect("the database");
        let query = diesel::sql_query(format!("SELECT count(*) AS count FROM {what}"));
        query.get_result::<Count>(&mut database).expect("a count").count
    }

    /// The most memory that the server has had so far, in KiB.
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("its status");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
        peak.trim().trim_end_matches(" kB").parse().expect("a number")
    }
}

/// The changes of jobs' statuses, as they come.
pub struct Changes {
    client: Client,
    operation: String,
}

impl Changes {
    /// The next change, or nothing once the stream is over.
    pub async fn next(&mut self) -> Option<Value> {
        let change = within(self.client.next_data(&self.operation)).await.expect("a change");
        change.map(|mut change| change["jobStatusChanged"].take())
    }

    /// The changes up to the first that is wanted, and that one.
    pub async fn until(&mut self, mut wanted: impl FnMut(&Value) -> bool) -> Vec<Value> {
        let mut changes = Vec::new();
        loop {
            let change = self.next().await.unwrap_or_else(|| panic!("the stream is over after {changes:?}"));
            changes.push(change);
            if changes.last().is_some_and(&mut wanted) {
                return changes;
            }
        }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("the server's log:\n{}", self.log());
        }
    }
}

fn token_of(environment: &[(String, String)]) -> Option<&str> {
    environment.iter().find(|(name, _)| name == "JOBSTREAM_TOKEN").map(|(_, value)| value.as_str())
}

fn http_client(token: Option<&str>) -> reqwest::Client {
    let mut headers = HeaderMap::new();
    if let Some(token) = token {
        headers.insert(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {token}")).expect("a header's value"));
    }
    reqwest::Client::builder().default_headers(headers).build().expect("a client")
}

/// The one error of a response.
#[derive(Debug)]
pub struct Refusal {
    pub code: String,
    pub extensions: Value,
}

impl Refusal {
    pub fn of(response: Value) -> Self {
        let errors = response["errors"].as_array().unwrap_or_else(|| panic!("it was not refused: {response}"));
        assert_eq!(errors.len(), 1, "{response}");
        let extensions = errors[0]["extensions"].clone();
        Self { code: text(&extensions["code"]).to_owned(), extensions }
    }

    /// The paths of the problems of a BAD_USER_INPUT, sorted.
    pub fn paths(&self) -> Vec<&str> {
        assert_eq!(self.code, "BAD_USER_INPUT", "{self:?}");
        let problems = self.extensions["problems"].as_array().expect("problems");
        let mut paths: Vec<&str> = problems.iter().map(|it| text(&it["path"])).collect();
        paths.sort_unstable();
        paths
    }
}

/// A script that goes on once there is a file at this path.
pub fn until_there_is(path: &Path) -> String {
    format!("until [ -e '{}' ]; do sleep 0.02; done", path.display())
}

/// The value, which is a text.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not a text: {value}"))
}

/// Waits for something that is expected soon.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes far too long")
}

/// Waits until `look` finds something: for what gives no event that could be waited for, as the end of a process.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Whether a process is there, and not only a zombie.
pub fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Sends a signal to a process.
pub fn signal(pid: i32, name: &str) {
    let sent = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status().expect("kill");
    assert!(sent.success(), "SIG{name} to {pid}");
}

/// Bash that waits until a file is there: what a test holds a job with.
pub fn wait_for(file: &Path) -> String {
    format!("until [ -e '{}' ]; do sleep 0.01; done", file.display())
}

/// Waits until a file has this many whole lines, and answers them.
pub async fn lines_of(file: &Path, count: usize) -> Vec<String> {
    let what = format!("{count} lines in {}", file.display());
    eventually(&what, async || {
        let content = std::fs::read_to_string(file).ok()?;
        let lines: Vec<String> = content.lines().map(str::to_owned).collect();
        (content.ends_with('\n') && lines.len() >= count).then_some(lines)
    })
    .await
}
