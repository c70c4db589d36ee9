//! A storm: something happens to servers at random moments while clients ask for things, watch and follow; then everything that they were told
//! is compared with what is left.
//!
//! `JOBSTREAM_CRASH_ROUNDS` says how often it happens, `JOBSTREAM_CRASH_SEED` repeats the choices of an earlier run (but not the
//! timing of the machine).

mod clients;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::history::{FinalJob, FinalState, Line, Violation, check};
use crate::support::{PATIENCE, TestServer, eventually, is_alive, lines_of, text};
use clients::{Clients, Random, change, line};

/// What servers in a storm are told.
pub const OPTIONS: &[&str] = &["--slots", "3", "--stop-grace", "0.3", "--retry-backoff", "0.05"];
const MUTATORS: u64 = 3;
const FOLLOWERS: usize = 4;

/// What a script does before its own part: it notes that it began, and looks for what must not be. `$9` locks say that no other
/// run of the pipeline goes on, with all its processes; the notes of processes, that none of the pipeline's under an earlier server is alive.
const PREAMBLE: &str = r#"
note() { echo "$1 $JOBSTREAM_JOB_ID $JOBSTREAM_ATTEMPT" >> "$D/notes"; }
exec 9> "$D/locks/$JOBSTREAM_PIPELINE_ID"
flock -n 9 || note two-at-once
read -r -a stat < "/proc/$PPID/stat"; server=${stat[3]}
processes="$D/processes/$JOBSTREAM_PIPELINE_ID"; mkdir -p "$processes"
enrol() { read -r -a stat < "/proc/$BASHPID/stat"; echo "${stat[21]}" > "$processes/$server-$BASHPID"; }
read -r -a stat 2> /dev/null < "/proc/$server/stat"
# Where the server is dead already, its parent has another name: then this very process is one of those that are about to be ended.
if [ "${stat[1]}" = "(jobstream)" ]; then
  enrol
  # Where there are several servers, what is left of one ends while others go on.
  [ -z "$SEVERAL" ] && for other in "$processes"/*; do
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
        let tasks = self.clients_of(addresses);
        // The random moment.
        tokio::time::sleep(Duration::from_millis(self.random.below(700))).await;
        happens(&mut self.random);
        self.leave(tasks).await;
    }

    /// Has clients ask for things until some jobs have begun: there is something to hit.
    pub async fn rises(&mut self, addresses: &[SocketAddr]) {
        let tasks = self.clients_of(addresses);
        lines_of(&self.scratch.join("notes"), 5).await;
        self.leave(tasks).await;
    }

    fn clients_of(&mut self, addresses: &[SocketAddr]) -> JoinSet<()> {
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
        tasks
    }

    async fn leave(&self, mut tasks: JoinSet<()>) {
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
        assert_eq!(notes_of_processes(&processes), Vec::<PathBuf>::new(), "processes are left");
    }
}

/// Removes the notes of processes that have ended, so that scripts have few to look at.
fn forget_dead_processes(notes: &Path) {
    for path in notes_of_processes(notes) {
        let name = path.file_name().and_then(|it| it.to_str()).expect("a name");
        let pid = name.split_once('-').and_then(|(_, pid)| pid.parse().ok()).expect("a pid");
        if !is_alive(pid) {
            std::fs::remove_file(path).expect("it goes");
        }
    }
}

/// The notes of processes, which are in a directory for each pipeline.
fn notes_of_processes(notes: &Path) -> Vec<PathBuf> {
    let entries = |directory: &Path| {
        let entries = std::fs::read_dir(directory).expect("a directory");
        entries.map(|entry| entry.expect("an entry").path()).collect::<Vec<_>>()
    };
    entries(notes).iter().flat_map(|pipeline| entries(pipeline)).collect()
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
