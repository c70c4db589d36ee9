//! Webhooks: what happens is told outside of the server, signed, and until it arrives.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::support::{TestServer, eventually, text, within};

const OPTIONS: &[&str] = &["--allow-private-webhooks", "--webhook-backoff", "0.1"];

/// Somebody who is told: answers as it is told to, else with 204.
struct Receiver {
    address: SocketAddr,
    told: mpsc::UnboundedReceiver<(HeaderMap, String)>,
    answers: Arc<Mutex<VecDeque<u16>>>,
    /// Whether somebody has gone where a redirection leads.
    followed: Arc<AtomicBool>,
}

#[derive(Clone)]
struct Desk {
    told: mpsc::UnboundedSender<(HeaderMap, String)>,
    answers: Arc<Mutex<VecDeque<u16>>>,
}

impl Receiver {
    async fn start(answers: &[u16]) -> Self {
        Self::start_at("127.0.0.1:0".parse().expect("an address"), answers).await
    }

    async fn start_at(address: SocketAddr, answers: &[u16]) -> Self {
        let (sender, told) = mpsc::unbounded_channel();
        let answers = Arc::new(Mutex::new(answers.iter().copied().collect()));
        let desk = Desk { told: sender, answers: Arc::clone(&answers) };
        let answer = async |State(desk): State<Desk>, headers: HeaderMap, body: Bytes| {
            let _ = desk.told.send((headers, String::from_utf8(body.to_vec()).expect("UTF-8")));
            let status = desk.answers.lock().expect("answers").pop_front().unwrap_or(204);
            // Only a 3xx means it: the way to what nobody has asked for.
            (StatusCode::from_u16(status).expect("a status"), [("location", "/elsewhere")])
        };
        let app = axum::Router::new().route("/hook", axum::routing::post(answer)).with_state(desk);
        let followed = Arc::new(AtomicBool::new(false));
        let elsewhere = Arc::clone(&followed);
        let app = app.fallback(async move || elsewhere.store(true, Ordering::Relaxed));
        let listener = tokio::net::TcpListener::bind(address).await.expect("a port");
        let address = listener.local_addr().expect("its address");
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, told, answers, followed }
    }

    fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// The next delivery: its headers and its body.
    async fn next(&mut self) -> (HeaderMap, Value) {
        let (headers, body) = within(self.told.recv()).await.expect("a delivery");
        (headers, serde_json::from_str(&body).expect("JSON"))
    }

    /// The next delivery that is of this type.
    async fn next_of(&mut self, type_: &str) -> Value {
        loop {
            let (_, body) = self.next().await;
            if body["type"] == type_ {
                return body;
            }
        }
    }
}

async fn create(server: &TestServer, workspace: &str, url: &str, more: Value) -> Value {
    let mut input = json!({ "workspaceId": workspace, "url": url });
    input.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    server.change("createWebhook", input, "webhook { id url level pipeline { id } } secret").await
}

async fn webhook(server: &TestServer, id: &Value) -> Value {
    let query =
        "query($id: ID!) { node(id: $id) { ... on Webhook { pendingDeliveries lastSuccess lastFailure lastError } } }";
    server.data(query, json!({ "id": id })).await["node"].take()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_is_posted_with_a_signature() {
    let server = TestServer::with(OPTIONS);
    let workspace = server.workspace("W").await;
    let mut receiver = Receiver::start(&[]).await;
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let created = create(&server, &workspace, &receiver.url(), json!({ "secret": secret })).await;
    assert_eq!(created["secret"], Value::Null, "it is the user's own");
    let pipeline = server.pipeline(&workspace, "P", "echo 'error: no' >&2; exit 4").await;
    let run = server.run(&pipeline).await;
    let (headers, body) = within(receiver.told.recv()).await.expect("a delivery");
    let header = |name: &str| headers[name].to_str().expect("text").to_owned();
    // By another program than ours.
    let check = "import base64, hashlib, hmac, sys; key = base64.b64decode(sys.argv[1][6:]); \
                 print('v1,' + base64.b64encode(hmac.new(key, '.'.join(sys.argv[2:]).encode(), hashlib.sha256).digest()).decode())";
    let (id, timestamp) = (header("webhook-id"), header("webhook-timestamp"));
    let output = Command::new("python3").args(["-c", check, secret, &id, &timestamp, &body]).output().expect("python3");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), header("webhook-signature"));
    assert_eq!(header("content-type"), "application/json");

    let failed = receiver.next_of("job.failed").await;
    let told = &failed["data"];
    assert_eq!(
        (&told["jobId"], &told["pipelineId"], &told["workspaceId"]),
        (&json!(run), &json!(pipeline), &json!(workspace))
    );
    assert_eq!((&told["pipelineName"], &told["status"], &told["exitCode"]), (&json!("P"), &json!("ERROR"), &json!(4)));
    assert_eq!(told["failure"]["summary"], "error: no");
    let mut activity = server.activity(json!({ "pipelineId": pipeline, "after": told["cursor"] })).await;
    let next = server.run(&pipeline).await;
    assert_eq!(activity.next().await.expect("activity")["jobId"], json!(next), "its cursor is one of the activity");
    let id = &created["webhook"]["id"];
    let done = eventually("all has arrived", async || {
        Some(webhook(&server, id).await).filter(|it| it["pendingDeliveries"] == 0)
    })
    .await;
    assert!(!done["lastSuccess"].is_null() && done["lastError"].is_null(), "{done}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_arrive_is_tried_again_as_the_same_message() {
    let server = TestServer::with(OPTIONS);
    let workspace = server.workspace("W").await;
    let mut receiver = Receiver::start(&[500, 302, 503]).await;
    let created = create(&server, &workspace, &receiver.url(), json!({ "level": "ERRORS" })).await;
    assert!(text(&created["secret"]).starts_with("whsec_"), "{created}");
    let pipeline = server.pipeline(&workspace, "P", "exit 1").await;
    server.run(&pipeline).await;
    let (first, body) = receiver.next().await;
    for _ in 0..3 {
        let (again, same) = receiver.next().await;
        assert_eq!((&again["webhook-id"], &same), (&first["webhook-id"], &body));
    }
    let id = &created["webhook"]["id"];
    let done = eventually("it has arrived", async || {
        Some(webhook(&server, id).await).filter(|it| it["pendingDeliveries"] == 0)
    })
    .await;
    assert_eq!(done["lastError"], "Answered 503 Service Unavailable.");
    assert!(receiver.answers.lock().expect("answers").is_empty());
    assert!(!receiver.followed.load(Ordering::Relaxed), "a redirection is not followed");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_while_nobody_listens_and_servers_are_killed() {
    let mut server = TestServer::with(OPTIONS);
    let workspace = server.workspace("W").await;
    let receiver = Receiver::start(&[]).await;
    let address = receiver.address;
    create(&server, &workspace, &format!("http://127.0.0.1:1{}", "/hook"), json!({ "level": "ERRORS" })).await;
    let webhook = server
        .data("query($id: ID!) { workspace(id: $id) { webhooks { nodes { id } } } }", json!({ "id": workspace }))
        .await["workspace"]["webhooks"]["nodes"][0]["id"]
        .take();
    let pipeline = server.pipeline(&workspace, "P", "exit 1").await;
    let mut failed = Vec::new();
    for _ in 0..4 {
        let run = server.run(&pipeline).await;
        server.final_job(&run).await;
        failed.push(run);
        server = server.kill_and_restart();
    }
    let mut receiver = receiver;
    let update = json!({ "id": webhook, "url": format!("http://{address}/hook") });
    server.change("updateWebhook", update, "__typename").await;
    let mut heard = Vec::new();
    while heard.len() < failed.len() {
        let job = text(&receiver.next_of("job.failed").await["data"]["jobId"]).to_owned();
        if !heard.contains(&job) {
            heard.push(job);
        }
    }
    heard.sort_unstable();
    failed.sort_unstable();
    assert_eq!(heard, failed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_hears_of_what_it_is_for() {
    let server = TestServer::with(OPTIONS);
    let workspace = server.workspace("W").await;
    let one = server.pipeline(&workspace, "One", "true").await;
    let other = server.pipeline(&workspace, "Other", "exit 1").await;
    let (mut of_one, mut errors) = (Receiver::start(&[]).await, Receiver::start(&[]).await);
    create(&server, &workspace, &of_one.url(), json!({ "pipelineId": one })).await;
    create(&server, &workspace, &errors.url(), json!({ "level": "ERRORS" })).await;
    for pipeline in [&other, &one] {
        let run = server.run(pipeline).await;
        server.final_job(&run).await;
    }
    // The one may overtake the other.
    let mut told = Vec::new();
    for _ in 0..2 {
        let (_, body) = of_one.next().await;
        assert_eq!(body["data"]["pipelineId"], json!(one));
        told.push(text(&body["type"]).to_owned());
    }
    told.sort_unstable();
    assert_eq!(told, ["job.ended", "job.started"]);
    let (_, error) = errors.next().await;
    assert_eq!((&error["type"], &error["data"]["pipelineId"]), (&json!("job.failed"), &json!(other)));
}

#[tokio::test(flavor = "multi_thread")]
async fn private_addresses_are_refused_unless_they_are_allowed() {
    let server = TestServer::start();
    let workspace = server.workspace("W").await;
    for url in [
        "http://127.0.0.1/hook",
        "http://[::1]/",
        "http://10.0.0.1/",
        "http://169.254.169.254/latest",
        "ftp://example.com",
        "x",
    ] {
        let refused = server.refused("createWebhook", json!({ "workspaceId": workspace, "url": url })).await;
        assert_eq!(refused.paths(), ["input.url"], "{url}");
    }
    let short = json!({ "workspaceId": workspace, "url": "https://example.com/", "secret": "short" });
    assert_eq!(server.refused("createWebhook", short).await.paths(), ["input.secret"]);
    // What a name leads to is known only when it is looked up.
    let mut receiver = Receiver::start(&[]).await;
    let url = format!("http://localhost:{}/hook", receiver.address.port());
    let created = create(&server, &workspace, &url, json!({})).await;
    server.pipeline(&workspace, "P", "true").await;
    let id = &created["webhook"]["id"];
    let tried =
        eventually("a try", async || Some(webhook(&server, id).await).filter(|it| !it["lastError"].is_null())).await;
    assert!(text(&tried["lastError"]).contains("private address"), "{tried}");
    assert!(receiver.told.try_recv().is_err(), "nothing was sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_changed_listed_and_deleted_and_its_secret_is_never_shown() {
    let server = TestServer::with(&["--slots", "0"]);
    let workspace =
        server.change("createWorkspace", json!({ "name": "W" }), "workspace { id }").await["workspace"]["id"].take();
    let workspace = text(&workspace).to_owned();
    let created = create(&server, &workspace, "https://example.com/hook", json!({})).await;
    let id = &created["webhook"]["id"];
    let update =
        json!({ "id": id, "url": "https://example.org/", "level": "ERRORS", "secret": "a secret of some length" });
    let updated = server.change("updateWebhook", update, "webhook { url level }").await;
    assert_eq!(updated["webhook"], json!({ "url": "https://example.org/", "level": "ERRORS" }));
    // Null is the default: a new secret, all activity. An address has none.
    let update = json!({ "id": id, "level": null, "secret": null });
    let reset = server.change("updateWebhook", update, "webhook { level } secret").await;
    assert!(reset["webhook"]["level"] == "ALL" && text(&reset["secret"]).starts_with("whsec_"), "{reset}");
    let unchanged = server.change("updateWebhook", json!({ "id": id }), "webhook { level url } secret").await;
    let expected = json!({ "webhook": { "level": "ALL", "url": "https://example.org/" }, "secret": null });
    assert_eq!(unchanged, expected);
    assert_eq!(server.refused("updateWebhook", json!({ "id": id, "url": null })).await.paths(), ["input.url"]);
    let query = "query($id: ID!) { workspace(id: $id) { webhooks { totalCount nodes { id url } } } }";
    let listed = server.data(query, json!({ "id": workspace })).await["workspace"]["webhooks"].take();
    assert_eq!(listed, json!({ "totalCount": 1, "nodes": [{ "id": id, "url": "https://example.org/" }] }));
    let deleted = server.change("deleteWebhook", json!({ "id": id }), "deletedWebhookId").await;
    assert_eq!(&deleted["deletedWebhookId"], id);
    for mutation in ["updateWebhook", "deleteWebhook"] {
        assert_eq!(server.refused(mutation, json!({ "id": id })).await.code, "NOT_FOUND");
    }
    for _ in 0..20 {
        create(&server, &workspace, "https://example.com/hook", json!({})).await;
    }
    let one_more = json!({ "workspaceId": workspace, "url": "https://example.com/hook" });
    assert_eq!(server.refused("createWebhook", one_more).await.code, "LIMIT_EXCEEDED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_was_printed_in_pieces_is_masked_in_a_delivery() {
    let server = TestServer::with(OPTIONS);
    let workspace = server.workspace("W").await;
    let mut receiver = Receiver::start(&[]).await;
    create(&server, &workspace, &receiver.url(), json!({})).await;
    let script = r"printf 'Error: a tops\e[1mecret99\n' >&2; exit 4";
    let properties = json!([{ "name": "a.b", "value": "topsecret99", "sensitive": true }]);
    let input = json!({ "workspaceId": workspace, "name": "P", "script": script, "properties": properties });
    server.run(&server.pipeline_with(input).await).await;
    let failed = receiver.next_of("job.failed").await;
    assert_eq!(failed["data"]["failure"]["summary"], "Error: a ***");
}
