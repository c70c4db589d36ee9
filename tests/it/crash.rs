//! kill -9 of a real server at random moments, under load; then everything that clients were told is compared with what is left.
//!
//! `JOBSTREAM_CRASH_ROUNDS` says how often it is killed, `JOBSTREAM_CRASH_SEED` repeats the choices of an earlier run (but not the
//! timing of the machine).

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jobstream::client::{Client, ClientError, Said};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::history::{Change, Event, FinalJob, FinalState, Line, Violation, Wish, check};
use crate::support::{PATIENCE, TestServer, eventually, is_alive, text};

pub const OPTIONS: &[&str] = &["--slots", "3", "--stop-grace", "0.3", "--retry-backoff", "0.05"];
const MUTATORS: u64 = 3;
const FOLLOWERS: usize = 4;
const PIPELINES: usize = 8;

/// What a script does before its own part: it notes that it began, and looks for what must not be. `$9` locks say that no other
/// run of the pipeline goes on, with all its processes; the notes of processes, that none of an earlier server's is alive.
const PREAMBLE: &str = r#"
note() { echo "$1 $JOBSTREAM_JOB_ID $JOBSTREAM_ATTEMPT" >> "$D/notes"; }
exec 9> "$D/locks/$JOBSTREAM_PIPELINE_ID"
flock -n 9 || note two-at-once
read -r -a stat < "/proc/$PPID/stat"; server=${stat[3]}
enrol() { read -r -a stat < "/proc/$BASHPID/stat"; echo "${stat[21]}" > "$D/processes/$server-$BASHPID"; }
read -r -a stat 2> /dev/null < "/proc/$server/stat"
# Where the server is dead already, its parent has another name: then this very process is one of those that are about to be ended.
if [ "${stat[1]}" = "(jobstream)" ]; then
  enrol
  # Where there are several servers, what is left of one ends while others go on.
  [ -z "$SEVERAL" ] && for other in "$D"/processes/*; do
    name=${other##*/}
    [ "${name%%-*}" = "$server" ] && continue
    read -r -a stat 2> /dev/null < "/proc/${name#*-}/stat" || continue
    read -r start < "$other"
    [ "${stat[21]}" = "$start" ] && [ "${stat[2]}" != Z ] && note "survivor"
  done
fi
note begin
print() { for ((k = 0; k < $1; k++)); do echo "$JOBSTREAM_ATTEMPT $k $1"; [ -z "$2" ] || sleep $2; done; }
"#;

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
pub struct Random(u64);

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
    history: Mutex<Vec<Event>>,
    pipelines: Mutex<Vec<String>>,
    jobs: Mutex<Vec<String>>,
    cursor: Mutex<String>,
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
    async fn mutate(
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
    async fn watch(self: Arc<Self>, address: SocketAddr) -> Result<(), ClientError> {
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
    async fn follow(self: Arc<Self>, address: SocketAddr) -> Result<(), ClientError> {
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

fn change(it: &Value) -> Change {
    Change {
        cursor: text(&it["cursor"]).to_owned(),
        job: text(&it["jobId"]).to_owned(),
        status: text(&it["status"]).to_owned(),
        previous: it["previousStatus"].as_str().map(str::to_owned),
        attempt: it["attempt"].as_i64().expect("a number"),
        deleted: it["deleted"] == true,
    }
}

fn line(it: &Value) -> Line {
    Line {
        sequence: it["sequence"].as_i64().expect("a number"),
        stream: text(&it["stream"]).to_owned(),
        text: text(&it["text"]).to_owned(),
    }
}

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|it| it.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

/// Something that happens at random moments while clients ask for things, watch and follow; and what they were told.
pub struct Storm {
    pub clients: Arc<Clients>,
    pub random: Random,
    seed: u64,
    pub rounds: u64,
    start: String,
    scratch: PathBuf,
    workspaces: Vec<String>,
    prelude: String,
}

impl Storm {
    /// A storm over the database of this server, of so many rounds if nothing else is said. Jobs meet in this directory; `settings` is Bash that
    /// their scripts begin with.
    pub async fn over(server: &TestServer, rounds: u64, scratch: PathBuf, settings: &str) -> Self {
        let rounds = number_from("JOBSTREAM_CRASH_ROUNDS").unwrap_or(rounds);
        let clock = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("a clock").subsec_nanos();
        let seed = number_from("JOBSTREAM_CRASH_SEED").unwrap_or(clock.into());
        eprintln!("JOBSTREAM_CRASH_SEED={seed} repeats the choices of this run");
        for directory in ["locks", "processes"] {
            std::fs::create_dir(scratch.join(directory)).expect("a directory");
        }
        let prelude = format!("D='{}'; {settings}\n{PREAMBLE}", scratch.display());
        let clients = Arc::new(Clients::default());
        let start = server.cursor().await;
        clients.cursor.lock().expect("the cursor").clone_from(&start);
        let workspaces = vec![server.workspace("First").await, server.workspace("Second").await];
        Self { clients, random: Random(seed), seed, rounds, start, scratch, workspaces, prelude }
    }

    /// A pipeline of the first workspace whose script ends like this, and whether that is acknowledged is noted.
    pub async fn pipeline(&mut self, server: &TestServer, script: &str, retries: u32) -> String {
        let script = format!("{}{script}", self.prelude);
        let input = json!({ "workspaceId": self.workspaces[0], "name": "P", "script": script, "maxRetries": retries });
        server.pipeline_with(input).await
    }

    /// Has clients of these servers ask for things until something has happened, at a random moment.
    pub async fn round(&mut self, addresses: &[SocketAddr], happens: impl FnOnce(&mut Random)) {
        let mut tasks = JoinSet::new();
        let somewhere = |random: &mut Random| random.pick(addresses).expect("a server");
        for _ in 0..MUTATORS {
            let (address, random) = (somewhere(&mut self.random), Random(self.random.below(u64::MAX)));
            let clients = Arc::clone(&self.clients);
            tasks.spawn(clients.mutate(address, random, self.workspaces.clone(), self.prelude.clone()));
        }
        let (watch, address) = (Arc::clone(&self.clients), somewhere(&mut self.random));
        tasks.spawn(async move { drop(watch.watch(address).await) });
        for _ in 0..FOLLOWERS {
            let (follow, address) = (Arc::clone(&self.clients), somewhere(&mut self.random));
            tasks.spawn(async move { drop(follow.follow(address).await) });
        }
        // The random moment.
        tokio::time::sleep(Duration::from_millis(self.random.below(700))).await;
        happens(&mut self.random);
        // Clients of a server that is gone find that out by themselves, but for one that waits for something to follow.
        let ended =
            tokio::time::timeout(Duration::from_millis(100), async { while tasks.join_next().await.is_some() {} });
        drop(ended.await);
        tasks.shutdown().await;
        forget_dead_processes(&self.scratch.join("processes"));
    }

    /// Waits until all is quiet, and names every promise that was broken. Also answers how many attempts servers say that they cut off.
    pub async fn is_over(&self, server: &TestServer) -> (Vec<Violation>, usize) {
        let active =
            "{ jobs(status: [QUEUED, RUNNING], type: [WORKSPACE_INIT, PIPELINE_CONFIG, PIPELINE_RUN]) { totalCount } }";
        let idle = async || (server.data(active, json!({})).await["jobs"]["totalCount"] == 0).then_some(());
        // The checker names those that do not end.
        let _ = tokio::time::timeout(PATIENCE / 2, eventually("every job is final", idle)).await;
        let state = final_state(server, self.start.clone(), &self.scratch).await;
        let history = self.clients.history.lock().expect("the history").clone();
        let cut_off =
            state.jobs.values().flat_map(|job| &job.lines).filter(|line| line.text.contains("server ended")).count();
        eprintln!(
            "{} rounds with seed {}, {} events, {} jobs left, {} changes, {cut_off} attempts cut off",
            self.rounds,
            self.seed,
            history.len(),
            state.jobs.len(),
            state.changes.len()
        );
        (check(&history, &state), cut_off)
    }

    /// Checks that no process of any job is left.
    pub fn nothing_is_left(&self) {
        let processes = self.scratch.join("processes");
        forget_dead_processes(&processes);
        assert_eq!(std::fs::read_dir(processes).expect("it").count(), 0, "processes are left");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_promise_is_kept_when_servers_are_killed_at_random_moments() {
    let mut server = TestServer::with(OPTIONS);
    let mut storm = Storm::over(&server, 30, server.scratch(), "").await;
    for _ in 0..storm.rounds {
        storm.round(&[server.address()], |_| server.kill()).await;
        server = server.restart();
    }
    let (found, cut_off) = storm.is_over(&server).await;
    assert_eq!(found, Vec::<Violation>::new(), "the server's log:\n{}", server.log());
    assert!(cut_off > 0 || storm.rounds < 10, "no kill has hit a job: there was nothing to test");
    storm.nothing_is_left();
}

/// Removes the notes of processes that have ended, so that scripts have few to look at.
fn forget_dead_processes(notes: &Path) {
    for note in std::fs::read_dir(notes).expect("notes") {
        let path: PathBuf = note.expect("a note").path();
        let name = path.file_name().and_then(|it| it.to_str()).expect("a name");
        let pid = name.split_once('-').and_then(|(_, pid)| pid.parse().ok()).expect("a pid");
        if !is_alive(pid) {
            std::fs::remove_file(path).expect("it goes");
        }
    }
}

async fn final_state(server: &TestServer, start: String, scratch: &Path) -> FinalState {
    let mut state = FinalState::default();
    let query = "query($after: String) { jobs(first: 500, after: $after) { cursor pageInfo { hasNextPage endCursor } nodes { id \
                 type status attempt maxAttempts exitCode stopRequested pipeline { id } } } }";
    let (mut after, mut end) = (Value::Null, Value::Null);
    loop {
        let mut page = server.data(query, json!({ "after": after })).await["jobs"].take();
        end = if end.is_null() { page["cursor"].take() } else { end };
        for node in page["nodes"].as_array().expect("jobs") {
            let id = text(&node["id"]).to_owned();
            let job = final_job(node, stored_lines(server, &id).await);
            state.jobs.insert(id, job);
        }
        if page["pageInfo"]["hasNextPage"] == false {
            break;
        }
        after = page["pageInfo"]["endCursor"].take();
    }
    let query = "{ workspaces { nodes { pipelines(first: 500) { nodes { id } } } } }";
    let found = server.data(query, json!({})).await;
    for workspace in found["workspaces"]["nodes"].as_array().expect("workspaces") {
        let pipelines = workspace["pipelines"]["nodes"].as_array().expect("pipelines");
        state.pipelines.extend(pipelines.iter().map(|it| text(&it["id"]).to_owned()));
    }
    let mut changes = server.changes(json!({ "after": start })).await;
    state.changes = changes.until(|change| change["cursor"] == end).await.iter().map(change).collect();
    let notes = std::fs::read_to_string(scratch.join("notes")).expect("notes");
    for note in notes.lines() {
        let [what, job, attempt] = note.split(' ').collect::<Vec<_>>()[..] else { panic!("{note}") };
        let attempt = (job.to_owned(), attempt.parse().expect("a number"));
        match what {
            "begin" => drop(state.begun.insert(attempt)),
            "end" => drop(state.ended.insert(attempt)),
            _ => state.complaints.push(note.to_owned()),
        }
    }
    state
}

fn final_job(node: &Value, lines: Vec<Line>) -> FinalJob {
    FinalJob {
        type_: text(&node["type"]).to_owned(),
        pipeline: node["pipeline"]["id"].as_str().map(str::to_owned),
        status: text(&node["status"]).to_owned(),
        attempt: node["attempt"].as_i64().expect("a number"),
        max_attempts: node["maxAttempts"].as_i64().expect("a number"),
        exit_code: node["exitCode"].as_i64(),
        stop_requested: node["stopRequested"].is_string(),
        lines,
    }
}

async fn stored_lines(server: &TestServer, job: &str) -> Vec<Line> {
    let request = server.http().get(server.url(&format!("/jobs/{job}/logs"))).header("accept", "application/x-ndjson");
    // Where a body breaks off, the checker names what is missing.
    let body = request.send().await.expect("an answer").text().await.unwrap_or_default();
    body.lines().map(|it| line(&serde_json::from_str(it).expect("JSON"))).collect()
}
