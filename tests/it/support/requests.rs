//! What tests ask of a server through its API.

use serde_json::{Value, json};

use super::{Client, TestServer, conformance, text, within};

impl TestServer {
    /// Posts an operation, and answers the whole response: `data` and `errors`.
    pub async fn post(&self, query: &str, variables: Value) -> Value {
        self.graphql(&json!({ "query": query, "variables": variables })).await
    }

    /// Posts a request, and answers the whole response, which has to conform to the schema.
    pub async fn graphql(&self, request: &Value) -> Value {
        let response = self.http.post(self.url("/graphql")).json(request).send().await.expect("an answer");
        let response = response.json().await.expect("JSON");
        conformance::check(request, &response);
        response
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
    pub async fn job_until(&self, job: &str, wanted: impl Fn(&Value) -> bool) -> Value {
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

    /// Follows what happens to pipelines; the variables are the subscription's arguments.
    pub async fn activity(&self, arguments: Value) -> Activity {
        let query = "subscription($workspaceId: ID, $pipelineId: ID, $level: ActivityLevel! = ALL, $after: String) { \
                     pipelineActivity(workspaceId: $workspaceId, pipelineId: $pipelineId, level: $level, after: $after) { \
                     cursor kind at reason attempt jobId job { type failure { summary } } pipelineId pipeline { name } } }";
        let mut client = self.client().await;
        let operation = client.begin(query, arguments).await.expect("a subscription");
        // It has begun when what is asked after it is answered: what happens from now on is told.
        client.request("{ __typename }", json!({})).await.expect("an answer");
        Activity { client, operation }
    }

    /// How many SQL statements the server has run so far.
    pub async fn sql_statements(&self) -> u64 {
        let response = self.http.get(self.url("/metrics")).send().await.expect("an answer");
        let metrics = response.text().await.expect("a text");
        let count = metrics.lines().find_map(|line| line.strip_prefix("jobstream_database_statements_total "));
        count.expect("the metric").parse().expect("a number")
    }

    /// The cursor of the status stream as it is now.
    pub async fn cursor(&self) -> String {
        let jobs = self.data("{ jobs(first: 1) { cursor } }", json!({})).await;
        text(&jobs["jobs"]["cursor"]).to_owned()
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

/// What happens to pipelines, as it comes.
pub struct Activity {
    client: Client,
    operation: String,
}

impl Activity {
    /// What happens next, or nothing once the stream is over.
    pub async fn next(&mut self) -> Option<Value> {
        let activity = within(self.client.next_data(&self.operation)).await.expect("activity");
        activity.map(|mut activity| activity["pipelineActivity"].take())
    }
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
