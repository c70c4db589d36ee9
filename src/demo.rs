//! The example: a workspace, pipelines on real data, and what they do, seen through the server's own WebSocket.

use std::collections::{HashMap, HashSet};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::client::{Client, ClientError, Said};
use crate::config::Options;
use crate::http::Access;
use crate::server::{Failure, Server};

const WORKSPACE: &str = "Seattle weather";
/// The name of the data component that reads the data.
const SOURCE: &str = "weather-file";
/// The pipeline that loads it, and the one that a trigger starts after that.
const LOAD: &str = "Load";
const AFTER_LOAD: &str = "Wettest days";

const MONTHLY_REPORT: &str = include_str!("../examples/monthly-report.sh");
const RECORDS: &str = include_str!("../examples/records.sh");
const WETTEST_DAYS: &str = include_str!("../examples/wettest-days.sh");
const WEATHER: &str = include_str!("../examples/seattle-weather.csv");

/// Serves with the example. With `once` it ends after the runs, with an error if a job is not COMPLETE.
pub async fn run(options: Options, access: Access, token: Option<String>, once: bool) -> Result<(), Failure> {
    if options.slots == 0 {
        return Err("the demo runs jobs, so --slots has to be at least 1".into());
    }
    let mut server = Server::start(options.clone(), access).await?;
    let client = Client::connect(server.address(), token.as_deref()).await?;
    let shown = tokio::select! {
        shown = show(client, &options) => shown,
        () = server.told_to_end() => {
            server.shut_down().await?;
            return if once { Err("the demo was ended before its jobs were.".into()) } else { Ok(()) };
        }
    };
    let where_ = format!("GraphiQL is at http://{}/", server.address());
    match (shown, once) {
        (Ok(()), false) => {
            say(format_args!("\nEvery job is COMPLETE. {where_} — Ctrl-C ends the server."));
            server.serve_until_told().await
        }
        (Err(error), false) => {
            say(format_args!("\n{error} {where_} — Ctrl-C ends the server."));
            server.serve_until_told().await
        }
        (shown, true) => {
            server.stop().await?;
            shown
        }
    }
}

/// Sets the example up, runs it, and prints it.
async fn show(mut client: Client, options: &Options) -> Result<(), Failure> {
    let weather = weather(&options.data_dir)?;
    let (workspace, init) = workspace(&mut client).await?;
    let changes = client
        .begin(
            "subscription($workspace: ID!) { jobStatusChanged(workspaceId: $workspace) { jobId status initial \
             job { type pipeline { name } } } }",
            json!({ "workspace": workspace }),
        )
        .await?;
    let mut screen = Screen { changes, ..Screen::default() };
    if let Some(init) = init {
        screen.follow(&mut client, &init, WORKSPACE).await?;
    }
    let file = json!([{ "name": "weather.file", "value": weather }]);
    let mut to_run = Vec::new();
    for (name, script) in [("Monthly report", MONTHLY_REPORT), ("Records", RECORDS)] {
        let definition = json!({ "script": script, "properties": file });
        to_run.push((name, configure(&mut client, &mut screen, &workspace, name, definition).await?));
    }
    if let Some(why) = options.meltano.found_in(options.data_dir.join("meltano"), PathBuf::new()).missing() {
        say(format_args!("{why} Only the pipelines run that are scripts."));
    } else {
        configure_source(&mut client, &workspace, &weather).await?;
        let definition = json!({ "dataComponents": [SOURCE, "target-jsonl"] });
        to_run.push((LOAD, configure(&mut client, &mut screen, &workspace, LOAD, definition).await?));
        let loaded = json!([{ "name": "weather.jsonl", "value": "output/weather.jsonl" }]);
        let definition = json!({ "script": WETTEST_DAYS, "properties": loaded, "triggeredBy": [LOAD] });
        configure(&mut client, &mut screen, &workspace, AFTER_LOAD, definition).await?;
    }
    for (name, pipeline) in to_run {
        let job = run_pipeline(&mut client, &pipeline).await?;
        screen.follow(&mut client, &job, name).await?;
        screen.loading |= name == LOAD;
    }
    while !screen.is_done() {
        let (operation, said) = client.next().await?;
        if let Some(triggered) = screen.show(&operation, said)? {
            screen.follow(&mut client, &triggered, AFTER_LOAD).await?;
        }
    }
    match screen.failed {
        0 => Ok(()),
        1 => Err("One job did not end COMPLETE.".into()),
        failed => Err(format!("{failed} jobs did not end COMPLETE.").into()),
    }
}

/// The file with the data. One that is there is left as it is, for what has loaded it knows its age.
fn weather(data_dir: &Path) -> Result<PathBuf, Failure> {
    let weather = data_dir.join("examples").join("seattle-weather.csv");
    std::fs::create_dir_all(data_dir.join("examples"))?;
    if !std::fs::read_to_string(&weather).is_ok_and(|there| there == WEATHER) {
        std::fs::write(&weather, WEATHER)?;
    }
    Ok(weather.canonicalize()?)
}

/// The example's workspace: an earlier run's, or a new one with the job that makes its repository.
async fn workspace(client: &mut Client) -> Result<(String, Option<String>), Failure> {
    let found = client.request("{ workspaces(first: 500) { nodes { id name } } }", json!({})).await?;
    let nodes = found["workspaces"]["nodes"].as_array().cloned().unwrap_or_default();
    if let Some(workspace) = nodes.iter().find(|it| it["name"] == WORKSPACE) {
        return Ok((text(&workspace["id"])?.to_owned(), None));
    }
    let created = client
        .request(
            "mutation($input: CreateWorkspaceInput!) { createWorkspace(input: $input) { workspace { id } jobs { id type } } }",
            json!({ "input": { "name": WORKSPACE } }),
        )
        .await?;
    let created = &created["createWorkspace"];
    let init = created["jobs"].as_array().and_then(|jobs| jobs.iter().find(|it| it["type"] == "WORKSPACE_INIT"));
    let init = init.and_then(|job| job["id"].as_str()).map(str::to_owned);
    Ok((text(&created["workspace"]["id"])?.to_owned(), init))
}

/// Sees to it that the workspace has the data component that reads the data.
async fn configure_source(client: &mut Client, workspace: &str, weather: &Path) -> Result<(), Failure> {
    let files = json!([{ "path": weather, "format": "csv", "table_name": "weather", "primary_keys": ["date"] }]);
    let properties = json!([{ "name": "files", "value": files.to_string() }]);
    let query = "query($id: ID!) { workspace(id: $id) { dataComponents { nodes { id name } } } }";
    let found = client.request(query, json!({ "id": workspace })).await?;
    let nodes = found["workspace"]["dataComponents"]["nodes"].as_array().cloned().unwrap_or_default();
    let (mutation, input) = match nodes.iter().find(|it| it["name"] == SOURCE) {
        Some(component) => (
            "mutation($input: UpdateDataComponentInput!) { updateDataComponent(input: $input) { dataComponent { id } } }",
            json!({ "id": component["id"], "properties": properties }),
        ),
        None => (
            "mutation($input: CreateDataComponentInput!) { createDataComponent(input: $input) { dataComponent { id } } }",
            json!({ "workspaceId": workspace, "name": SOURCE, "plugin": "tap-spreadsheets", "properties": properties }),
        ),
    };
    client.request(mutation, json!({ "input": input })).await?;
    Ok(())
}

/// Creates a pipeline, or updates an earlier run's, and follows the job that configures it, if one was queued.
async fn configure(
    client: &mut Client,
    screen: &mut Screen,
    workspace: &str,
    name: &str,
    definition: Value,
) -> Result<String, Failure> {
    let found = client
        .request(
            "query($workspace: ID!) { pipelines(workspaceId: $workspace, first: 500) { nodes { id name } } }",
            json!({ "workspace": workspace }),
        )
        .await?;
    let nodes = found["pipelines"]["nodes"].as_array().cloned().unwrap_or_default();
    let mut input = definition;
    let mutation = match nodes.iter().find(|it| it["name"] == name) {
        Some(pipeline) => {
            input["id"] = pipeline["id"].clone();
            "mutation($input: UpdatePipelineInput!) { done: updatePipeline(input: $input) { pipeline { id } job { id } } }"
        }
        None => {
            input["workspaceId"] = workspace.into();
            input["name"] = name.into();
            "mutation($input: CreatePipelineInput!) { done: createPipeline(input: $input) { pipeline { id } job { id } } }"
        }
    };
    let done = client.request(mutation, json!({ "input": input })).await?;
    let done = &done["done"];
    if let Some(job) = done["job"]["id"].as_str() {
        screen.follow(client, job, name).await?;
    }
    Ok(text(&done["pipeline"]["id"])?.to_owned())
}

/// Queues a run, or finds the one that an earlier demo, which was killed, has left active.
async fn run_pipeline(client: &mut Client, pipeline: &str) -> Result<String, Failure> {
    let mutation = "mutation($input: CreateJobInput!) { createJob(input: $input) { job { id } } }";
    match client.request(mutation, json!({ "input": { "pipelineId": pipeline } })).await {
        Ok(created) => Ok(text(&created["createJob"]["job"]["id"])?.to_owned()),
        Err(ClientError::Failed(errors)) if errors[0]["extensions"]["code"] == "PIPELINE_BUSY" => {
            Ok(text(&errors[0]["extensions"]["jobId"])?.to_owned())
        }
        Err(error) => Err(error.into()),
    }
}

/// What is printed: the status changes, and the lines of the jobs that are followed.
#[derive(Default)]
struct Screen {
    /// How each job is called.
    names: HashMap<String, String>,
    /// The operations that follow logs, and their jobs.
    logs: HashMap<String, String>,
    changes: String,
    /// The jobs that are followed and not final.
    unfinished: HashSet<String>,
    /// Whether a run is to come that a trigger starts.
    loading: bool,
    failed: usize,
}

impl Screen {
    async fn follow(&mut self, client: &mut Client, job: &str, name: &str) -> Result<(), Failure> {
        let operation = client
            .begin(
                "subscription($job: ID!) { jobLogs(jobId: $job) { lines { stream text } complete } }",
                json!({ "job": job }),
            )
            .await?;
        self.names.insert(job.to_owned(), name.to_owned());
        self.unfinished.insert(job.to_owned());
        self.logs.insert(operation, job.to_owned());
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.logs.is_empty() && self.unfinished.is_empty() && !self.loading
    }

    /// Prints what came. Answers the run that a trigger has started, if it is that.
    fn show(&mut self, operation: &str, said: Said) -> Result<Option<String>, Failure> {
        match said {
            Said::Next(payload) if operation == self.changes => {
                Ok(self.show_change(&payload["data"]["jobStatusChanged"]))
            }
            Said::Next(payload) => {
                let name = self.logs.get(operation).and_then(|job| self.names.get(job)).map_or("", String::as_str);
                for line in payload["data"]["jobLogs"]["lines"].as_array().into_iter().flatten() {
                    let mark = if line["stream"] == "STDOUT" { '│' } else { '┆' };
                    say(format_args!("{name:>16} {mark} {}", line["text"].as_str().unwrap_or_default()));
                }
                Ok(None)
            }
            Said::Complete => {
                self.logs.remove(operation);
                Ok(None)
            }
            Said::Error(errors) => Err(format!("the server says: {errors}").into()),
        }
    }

    fn show_change(&mut self, change: &Value) -> Option<String> {
        let status = change["status"].as_str().unwrap_or_default();
        let job = change["jobId"].as_str().unwrap_or_default();
        let type_ = change["job"]["type"].as_str().unwrap_or("job");
        let name = change["job"]["pipeline"]["name"].as_str().unwrap_or(WORKSPACE);
        let ended = matches!(status, "COMPLETE" | "ERROR" | "STOPPED");
        let failed = ended && self.unfinished.remove(job) && status != "COMPLETE";
        self.failed += usize::from(failed);
        say(format_args!("{name:>16} ● {type_} is {status}"));
        let triggered = self.loading && name == AFTER_LOAD && type_ == "PIPELINE_RUN";
        // What fails triggers nothing.
        if triggered || failed && name == LOAD {
            self.loading = false;
        }
        triggered.then(|| job.to_owned())
    }
}

fn text(value: &Value) -> Result<&str, Failure> {
    value.as_str().ok_or_else(|| format!("the server answered {value} where a text was expected").into())
}

/// Prints a line. A terminal that is gone is no reason to fail.
fn say(line: impl std::fmt::Display) {
    let _ = writeln!(io::stdout(), "{line}");
}
