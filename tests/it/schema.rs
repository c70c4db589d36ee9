//! The schema: what the program prints, what it serves, and what it says of itself.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::{TestServer, text};

const TYPE: &str = "fragment T on __Type { kind name ofType { kind name ofType { kind name ofType { kind name ofType { kind name \
                    ofType { kind name ofType { kind name ofType { kind name ofType { kind name ofType { kind name } } } } } } } } } }";

/// The introspection query of graphql-js, which GraphiQL and code generators send.
fn introspection() -> String {
    format!(
        "query IntrospectionQuery {{ __schema {{ description queryType {{ name kind }} mutationType {{ name kind }} \
         subscriptionType {{ name kind }} types {{ kind name description specifiedByURL isOneOf \
         fields(includeDeprecated: true) {{ name description args(includeDeprecated: true) {{ ...I }} type {{ ...T }} isDeprecated deprecationReason }} \
         inputFields(includeDeprecated: true) {{ ...I }} interfaces {{ ...T }} \
         enumValues(includeDeprecated: true) {{ name description isDeprecated deprecationReason }} possibleTypes {{ ...T }} }} \
         directives {{ name description isRepeatable locations args(includeDeprecated: true) {{ ...I }} }} }} }} \
         fragment I on __InputValue {{ name description type {{ ...T }} defaultValue isDeprecated deprecationReason }} {TYPE}"
    )
}

#[test]
fn the_schema_in_the_repository_is_what_the_program_prints() {
    let printed = Command::new(env!("CARGO_BIN_EXE_jobstream")).arg("schema").output().expect("the program runs");
    assert!(printed.status.success());
    let printed = String::from_utf8(printed.stdout).expect("UTF-8");
    let kept = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/schema.graphql")).expect("schema.graphql");
    assert!(printed == kept, "run `cargo run -- schema > schema.graphql`, and see what has changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_in_the_schema_has_a_description() {
    let server = TestServer::with(&["--slots", "0"]);
    let schema = server.data(&introspection(), json!({})).await["__schema"].take();
    let mut silent = Vec::new();
    let mut seen = 0;
    let mut look = |path: String, thing: &Value| {
        seen += 1;
        if thing["description"].as_str().is_none_or(|it| it.trim().is_empty()) {
            silent.push(path);
        }
    };
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    for type_ in list(&schema["types"]) {
        let name = text(&type_["name"]);
        if name.starts_with("__") || ["Boolean", "Float", "ID", "Int", "String"].contains(&name) {
            continue;
        }
        look(name.to_owned(), &type_);
        for field in list(&type_["fields"]) {
            let path = format!("{name}.{}", text(&field["name"]));
            look(path.clone(), &field);
            for argument in list(&field["args"]) {
                look(format!("{path}({})", text(&argument["name"])), &argument);
            }
        }
        for part in [list(&type_["inputFields"]), list(&type_["enumValues"])].concat() {
            look(format!("{name}.{}", text(&part["name"])), &part);
        }
    }
    assert_eq!(silent, Vec::<String>::new(), "these have no description");
    assert!(seen > 200, "only {seen} were looked at");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_is_in_the_schema() {
    let server = TestServer::with(&["--slots", "0"]);
    let schema = server.data(&introspection(), json!({})).await["__schema"].take();
    let type_of = |name: &str| {
        let types = schema["types"].as_array().expect("types");
        types.iter().find(|it| it["name"] == name).unwrap_or_else(|| panic!("there is no {name}")).clone()
    };
    let names = |things: &Value| -> Vec<String> {
        let mut names: Vec<String> =
            things.as_array().expect("a list").iter().map(|it| text(&it["name"]).to_owned()).collect();
        names.sort();
        names
    };
    for (name, values) in [
        (
            "JobType",
            vec![
                "PIPELINE_CONFIG",
                "PIPELINE_RUN",
                "PIPELINE_VERIFY",
                "PROFILE_COLLABORATE",
                "PROFILE_IMPORT",
                "WORKSPACE_INIT",
            ],
        ),
        ("JobStatus", vec!["COMPLETE", "ERROR", "QUEUED", "RUNNING", "STOPPED"]),
        ("JobStopReason", vec!["REQUESTED", "TIMEOUT"]),
        ("LogStream", vec!["STDERR", "STDOUT", "SYSTEM"]),
        ("ResourceStatus", vec!["FAILED", "PROVISIONING", "READY"]),
        ("CauseType", vec!["SCHEDULE", "TRIGGER", "USER"]),
        ("ActivityKind", vec!["ENDED", "FAILED", "SKIPPED", "STARTED"]),
        ("ActivityLevel", vec!["ALL", "ERRORS"]),
    ] {
        assert_eq!(names(&type_of(name)["enumValues"]), values, "{name}");
    }
    let job = [
        "attempt",
        "cause",
        "commitId",
        "created",
        "endTime",
        "exitCode",
        "failure",
        "id",
        "logs",
        "maxAttempts",
        "node",
        "pipeline",
        "startTime",
        "status",
        "stopReason",
        "stopRequested",
        "type",
        "workspace",
    ];
    let change = ["at", "attempt", "cursor", "deleted", "initial", "job", "jobId", "previousStatus", "status"];
    let mutation = [
        "createDataComponent",
        "createInvitation",
        "createJob",
        "createPipeline",
        "createWebhook",
        "createWorkspace",
        "deleteDataComponent",
        "deleteJob",
        "deletePipeline",
        "deleteWebhook",
        "deleteWorkspace",
        "stopJob",
        "updateDataComponent",
        "updatePipeline",
        "updateWebhook",
        "updateWorkspace",
        "verifyPipeline",
    ];
    for (name, fields) in [
        ("Job", job.to_vec()),
        ("JobStatusChange", change.to_vec()),
        ("JobConnection", vec!["cursor", "edges", "nodes", "pageInfo", "totalCount"]),
        ("JobLogs", vec!["complete", "lines", "nextSequence"]),
        ("LogLine", vec!["continued", "sequence", "stream", "text", "timestamp"]),
        ("Mutation", mutation.to_vec()),
        ("JobCause", vec!["job", "tick", "type"]),
        ("JobFailure", vec!["line", "plugin", "summary"]),
        (
            "Query",
            vec![
                "dataComponent",
                "dataPlugins",
                "job",
                "jobs",
                "node",
                "pipeline",
                "pipelines",
                "workspace",
                "workspaces",
            ],
        ),
        ("Subscription", vec!["jobLogs", "jobStatusChanged", "pipelineActivity"]),
    ] {
        assert_eq!(names(&type_of(name)["fields"]), fields, "{name}");
    }
    let nodes = names(&type_of("Node")["possibleTypes"]);
    assert_eq!(nodes, ["DataComponent", "Invitation", "Job", "Pipeline", "Webhook", "Workspace"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_nested_too_deep_or_too_complex_is_refused() {
    let server = TestServer::with(&["--slots", "0"]);
    let (open, close) = ("workspace { jobs { nodes { ".repeat(6), "} } } ".repeat(6));
    let deep = format!("{{ jobs {{ nodes {{ {open} id {close} }} }} }}");
    assert_eq!(server.code(&deep, json!({})).await, "LIMIT_EXCEEDED");
    let many: Vec<String> = (0..1001).map(|index| format!("a{index}: workspaces {{ totalCount }}")).collect();
    let complex = format!("{{ {} }}", many.join(" "));
    assert_eq!(server.code(&complex, json!({})).await, "LIMIT_EXCEEDED");
}

#[tokio::test(flavor = "multi_thread")]
async fn fragments_that_double_are_refused() {
    let server = TestServer::with(&["--slots", "0"]);
    let spreads = |levels: usize| {
        let double = |level: usize| format!("fragment f{level} on Query {{ ...f{next} ...f{next} }}", next = level + 1);
        let fragments: Vec<String> = (0..levels).map(double).collect();
        format!("{{ ...f0 }} {} fragment f{levels} on Query {{ __typename }}", fragments.join(" "))
    };
    assert_eq!(server.data(&spreads(3), json!({})).await, json!({ "__typename": "Query" }));
    assert_eq!(server.code(&spreads(22), json!({})).await, "LIMIT_EXCEEDED");
    let circle = "{ ...f } fragment f on Query { ...g ...g } fragment g on Query { ...f ...f }";
    assert_eq!(server.code(circle, json!({})).await, "LIMIT_EXCEEDED");
    // A chain that is as long as a request can be.
    let link = |level: usize| format!("fragment f{level} on Query {{ ...f{next} }}", next = level + 1);
    let chain: Vec<String> = (0..40_000).map(link).collect();
    let chain = format!("{{ ...f0 }} {} fragment f40000 on Query {{ __typename }}", chain.join(" "));
    assert_eq!(server.code(&chain, json!({})).await, "LIMIT_EXCEEDED");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_introspection_of_tools_is_answered() {
    let server = TestServer::with(&["--slots", "0"]);
    // As deep as the one that the graphql package sends, which GraphiQL and code generators use.
    let type_ref = format!("{}kind name{}", "kind name ofType { ".repeat(10), " }".repeat(10));
    let query = format!(
        "{{ __schema {{ types {{ ...FullType }} }} }} \
         fragment FullType on __Type {{ fields {{ args {{ ...InputValue }} type {{ ...TypeRef }} }} }} \
         fragment InputValue on __InputValue {{ type {{ ...TypeRef }} }} fragment TypeRef on __Type {{ {type_ref} }}"
    );
    let types = server.data(&query, json!({})).await;
    assert!(types["__schema"]["types"].as_array().is_some_and(|types| types.len() > 40), "{types}");
}
