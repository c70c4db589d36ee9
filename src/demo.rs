//! The example: a workspace, two pipelines on real data, and what they do, seen through the server's own WebSocket.

use std::collections::{HashMap, HashSet};
use std::io::{self, Write};
use std::path::Path;

use serde_json::{Value, json};

use crate::client::{Client, ClientError, Said};
use crate::config::Options;
use crate::http::Access;
use crate::server::{Failure, Server};

const WORKSPACE: &str = "Seattle weather";
const PIPELINES: [(&str, &str); 2] = [
    ("Monthly report", include_str!("../examples/monthly-report.sh")),
    ("Records", include_str!("../examples/records.sh")),
];
const WEATHER: &str = include_str!("../examples/seattle-weather.csv");

/// Serves with the example. With `once` it ends after the runs, with an error if a job is not COMPLETE.
pub async fn run(options: Options, access: Access, token: Option<String>, once: bool) -> Result<(), Failure> {
    if options.slots == 0 {
        return Err("the demo runs jobs, so --slots has to be at least 1".into());
    }
    let mut server = Server::start(options.clone(), access).await?;
    let client = Client::connect(server.address(), token.as_deref()).await?;
    let shown = tokio::select! {
        shown = show(client, &options.data_dir) => shown,
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
async fn show(mut client: Client, data_dir: &Path) -> Result<(), Failure> {
    let weather = data_dir.join("examples").join("seattle-weather.csv");
    std::fs::create_dir_all(data_dir.join("examples"))?;
    std::fs::write(&weather, WEATHER)?;
    let weather = weather.canonicalize()?;
    let workspace = workspace(&mut client).await?;
    let changes = client
        .begin(
            "subscription($workspace: ID!) { jobStatusChanged(workspaceId: $workspace) { jobId status initial \
             job { type pipeline { name } } } }",
            json!({ "workspace": workspace }),
        )
        .await?;
    let mut screen =
        Screen { names: HashMap::new(), logs: HashMap::new(), changes, unfinished: HashSet::new(), failed: 0 };
    for (name, script) in PIPELINES {
        let configuration = configure(&mut client, &workspace, name, script, &weather).await?;
        if let Some(job) = configuration.job {
            screen.follow(&mut client, &job, name).await?;
        }
        let job = run_pipeline(&mut client, &configuration.pipeline).await?;
        screen.follow(&mut client, &job, name).await?;
    }
    while !(screen.logs.is_empty() && screen.unfinished.is_empty()) {
        let (operation, said) = client.next().await?;
        screen.show(&operation, said)?;
    }
    match screen.failed {
        0 => Ok(()),
        1 => Err("One job did not end COMPLETE.".into()),
        failed => Err(format!("{failed} jobs did not end COMPLETE.").into()),
    }
}

/// The example's workspace: an earlier run's, or a new one.
async fn workspace(client: &mut Client) -> Result<String, Failure> {
    let found = client.request("{ workspaces(first: 500) { nodes { id name } } }", json!({})).await?;
    let nodes = found["workspaces"]["nodes"].as_array().cloned().unwrap_or_default();
    if let Some(workspace) = nodes.iter().find(|it| it["name"] == WORKSPACE) {
        return Ok(text(&workspace["id"])?.to_owned());
    }
    let created = client
        .request(
            "mutation($input: CreateWorkspaceInput!) { createWorkspace(input: $input) { workspace { id } } }",
            json!({ "input": { "name": WORKSPACE } }),
        )
        .await?;
    Ok(text(&created["createWorkspace"]["workspace"]["id"])?.to_owned())
}

/// A pipeline of the example, and the job that configures it, if one was queued.
struct Configuration {
    pipeline: String,
    job: Option<String>,
}

async fn configure(
    client: &mut Client,
    workspace: &str,
    name: &str,
    script: &str,
    weather: &Path,
) -> Result<Configuration, Failure> {
    let found = client
        .request(
            "query($workspace: ID!) { pipelines(workspaceId: $workspace, first: 500) { nodes { id name } } }",
            json!({ "workspace": workspace }),
        )
        .await?;
    let nodes = found["pipelines"]["nodes"].as_array().cloned().unwrap_or_default();
    let properties = json!([{ "name": "weather.file", "value": weather }]);
    let (mutation, input) = match nodes.iter().find(|it| it["name"] == name) {
        Some(pipeline) => (
            "mutation($input: UpdatePipelineInput!) { done: updatePipeline(input: $input) { pipeline { id } job { id } } }",
            json!({ "id": pipeline["id"], "script": script, "properties": properties }),
        ),
        None => (
            "mutation($input: CreatePipelineInput!) { done: createPipeline(input: $input) { pipeline { id } job { id } } }",
            json!({ "workspaceId": workspace, "name": name, "script": script, "properties": properties }),
        ),
    };
    let done = client.request(mutation, json!({ "input": input })).await?;
    let done = &done["done"];
    Ok(Configuration {
        pipeline: text(&done["pipeline"]["id"])?.to_owned(),
        job: done["job"]["id"].as_str().map(str::to_owned),
    })
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
struct Screen {
    /// How each job is called.
    names: HashMap<String, String>,
    /// The operations that follow logs, and their jobs.
    logs: HashMap<String, String>,
    changes: String,
    /// The jobs that are followed and not final.
    unfinished: HashSet<String>,
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

    fn show(&mut self, operation: &str, said: Said) -> Result<(), Failure> {
        match said {
            Said::Next(payload) if operation == self.changes => {
                self.show_change(&payload["data"]["jobStatusChanged"]);
                Ok(())
            }
            Said::Next(payload) => {
                let name = self.logs.get(operation).and_then(|job| self.names.get(job)).map_or("", String::as_str);
                for line in payload["data"]["jobLogs"]["lines"].as_array().into_iter().flatten() {
                    let mark = if line["stream"] == "STDOUT" { '│' } else { '┆' };
                    say(format_args!("{name:>16} {mark} {}", line["text"].as_str().unwrap_or_default()));
                }
                Ok(())
            }
            Said::Complete => {
                self.logs.remove(operation);
                Ok(())
            }
            Said::Error(errors) => Err(format!("the server says: {errors}").into()),
        }
    }

    fn show_change(&mut self, change: &Value) {
        let status = change["status"].as_str().unwrap_or_default();
        let ended = matches!(status, "COMPLETE" | "ERROR" | "STOPPED");
        let followed = ended && change["jobId"].as_str().is_some_and(|job| self.unfinished.remove(job));
        if followed && status != "COMPLETE" {
            self.failed += 1;
        }
        let type_ = change["job"]["type"].as_str().unwrap_or("job");
        let name = change["job"]["pipeline"]["name"].as_str().unwrap_or(WORKSPACE);
        say(format_args!("{name:>16} ● {type_} is {status}"));
    }
}

fn text(value: &Value) -> Result<&str, Failure> {
    value.as_str().ok_or_else(|| format!("the server answered {value} where a text was expected").into())
}

/// Prints a line. A terminal that is gone is no reason to fail.
fn say(line: impl std::fmt::Display) {
    let _ = writeln!(io::stdout(), "{line}");
}
