//! Answers that are given again while nothing that they show has changed, and never after.

use reqwest::header::{ETAG, IF_NONE_MATCH};
use serde_json::{Value, json};

use crate::support::{TestServer, conformance, on_postgres, text, wait_for};

const QUERY: &str = "{ jobs(first: 50) { nodes { id type status } } workspaces { nodes { name } } }";

/// How often an answer was given again.
async fn hits(server: &TestServer) -> f64 {
    let metrics = server.metrics().await;
    metrics.value("jobstream_graphql_answer_cache_lookups_total", &[("result", "hit")])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_whose_data_has_not_changed_is_not_carried_out_again() {
    if on_postgres() {
        return; // Answers of a database that others write to are not kept.
    }
    let server = TestServer::with(&["--slots=0"]);
    server.begin_workspace("W").await;
    let first = server.post(QUERY, json!({})).await;
    let (before, statements) = (hits(&server).await, sql_statements(&server).await);
    for _ in 0..20 {
        assert_eq!(server.post(QUERY, json!({})).await, first);
    }
    assert_eq!(hits(&server).await - before, 20.0);
    let of_metrics = 2 * 2; // reading the metrics takes some itself, at most these
    assert!(sql_statements(&server).await - statements <= of_metrics as f64);
}

async fn sql_statements(server: &TestServer) -> f64 {
    server.metrics().await.value("jobstream_database_statements_total", &[])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_after_an_acknowledged_write_sees_it() {
    if on_postgres() {
        return; // Answers of a database that others write to are not kept.
    }
    let server = TestServer::with(&["--slots=0"]);
    let count = "{ workspaces { totalCount } }";
    // Readers keep the answer in the cache all the time, so that a stale one would be found.
    let over = tokio_util::sync::CancellationToken::new();
    let url = server.url("/graphql");
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (http, url, over) = (server.http().clone(), url.clone(), over.clone());
            tokio::spawn(async move {
                let mut last = 0;
                while !over.is_cancelled() {
                    let request = json!({ "query": count });
                    let answer = http.post(&url).json(&request).send().await.expect("an answer");
                    let answer: Value = answer.json().await.expect("JSON");
                    conformance::check(&request, &answer);
                    let now = answer["data"]["workspaces"]["totalCount"].as_i64().expect("a number");
                    assert!(now >= last, "it went back from {last} to {now}");
                    last = now;
                }
            })
        })
        .collect();
    for number in 1..=100 {
        server.begin_workspace(&format!("W {number}")).await;
        let seen = server.data(count, json!({})).await;
        assert_eq!(seen["workspaces"]["totalCount"], number);
    }
    over.cancel();
    for reader in readers {
        reader.await.expect("no answer went back");
    }
    assert!(hits(&server).await > 0.0, "the cache was used");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_never_shows_less_than_one_before_it() {
    if on_postgres() {
        return; // Answers of a database that others write to are not kept.
    }
    let server = TestServer::with(&["--slots=0"]);
    let count = "workspaces { totalCount }";
    let over = tokio_util::sync::CancellationToken::new();
    let readers: Vec<_> = (0..4)
        .map(|reader| {
            let (http, url, over) = (server.http().clone(), server.url("/graphql"), over.clone());
            tokio::spawn(async move {
                let mut last = 0;
                for number in 0.. {
                    // One that was never asked, and so is carried out, then one whose answer is kept.
                    for query in [format!("query R{reader}x{number} {{ {count} }}"), format!("{{ {count} }}")] {
                        let request = json!({ "query": query });
                        let answer = http.post(&url).json(&request).send().await.expect("an answer");
                        let answer: Value = answer.json().await.expect("JSON");
                        conformance::check(&request, &answer);
                        let now = answer["data"]["workspaces"]["totalCount"].as_i64().expect("a number");
                        assert!(now >= last, "it went back from {last} to {now}");
                        last = now;
                    }
                    if over.is_cancelled() {
                        return;
                    }
                }
            })
        })
        .collect();
    for number in 1..=300 {
        server.begin_workspace(&format!("W {number}")).await;
    }
    over.cancel();
    for reader in readers {
        reader.await.expect("no answer went back");
    }
    assert!(hits(&server).await > 0.0, "the cache was used");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jobs_end_and_its_lines_are_seen_as_soon_as_they_are_told() {
    let server = TestServer::start();
    let go = server.scratch().join("go");
    let job = server.run_script(&format!("echo one; {}; echo two", wait_for(&go))).await;
    let query = "query($id: ID!) { job(id: $id) { status logs { lines { text } complete } } }";
    let texts = |answer: &Value| -> Vec<String> {
        let lines = answer["job"]["logs"]["lines"].as_array().expect("lines");
        lines.iter().filter(|line| line["text"] != "").map(|line| text(&line["text"]).to_owned()).collect()
    };
    server.line_appears(&job, "one").await;
    for _ in 0..3 {
        assert_eq!(texts(&server.data(query, json!({ "id": job })).await), ["one"]);
    }
    std::fs::write(&go, "").expect("a file");
    server.final_job(&job).await;
    let ended = server.data(query, json!({ "id": job })).await;
    assert_eq!(
        (texts(&ended), &ended["job"]["status"]),
        (vec!["one".to_owned(), "two".to_owned()], &json!("COMPLETE"))
    );
    assert_eq!(ended["job"]["logs"]["complete"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_come_do_not_make_a_list_without_logs_stale() {
    if on_postgres() {
        return; // Answers of a database that others write to are not kept.
    }
    let server = TestServer::start();
    let job = server.run_script("for i in $(seq 1000); do echo $i; sleep 0.01; done").await;
    server.line_appears(&job, "1").await;
    server.data(QUERY, json!({})).await;
    let before = hits(&server).await;
    for line in 2..12 {
        server.line_appears(&job, &line.to_string()).await;
        server.data(QUERY, json!({})).await;
    }
    assert_eq!(hits(&server).await - before, 10.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_given_again_only_to_the_same_operation_with_the_same_variables() {
    let server = TestServer::with(&["--slots=0"]);
    for name in ["A", "B", "C"] {
        server.begin_workspace(name).await;
    }
    let query = "query One($first: Int) { workspaces(first: $first) { nodes { name } } } \
                 query Two($first: Int) { workspaces(last: $first) { nodes { name } } }";
    for _ in 0..2 {
        for (operation, first, expected) in [
            ("One", 1, json!(["C"])),
            ("One", 2, json!(["C", "B"])),
            ("Two", 1, json!(["A"])),
            ("Two", 2, json!(["B", "A"])),
        ] {
            let body = json!({ "query": query, "operationName": operation, "variables": { "first": first } });
            let answer = server.graphql(&body).await;
            let nodes = answer["data"]["workspaces"]["nodes"].as_array().expect("nodes");
            let names: Vec<&Value> = nodes.iter().map(|it| &it["name"]).collect();
            assert_eq!(json!(names), expected, "{operation}({first})");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_with_errors_is_not_kept() {
    let server = TestServer::with(&["--slots=0"]);
    let query = "{ workspaces { nodes { name } } jobs(first: 0) { totalCount } }";
    for _ in 0..3 {
        assert_eq!(server.code(query, json!({})).await, "BAD_USER_INPUT");
    }
    assert_eq!(hits(&server).await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_cache_everything_is_carried_out() {
    let server = TestServer::with(&["--slots=0", "--cache-bytes=0"]);
    for _ in 0..3 {
        server.data(QUERY, json!({})).await;
    }
    assert_eq!(hits(&server).await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_has_the_answer_already_is_told_so() {
    let server = TestServer::with(&["--slots=0"]);
    server.begin_workspace("W").await;
    let url = server.url("/graphql?query={workspaces{nodes{name}}}");
    let get = async |tag: Option<&str>| {
        let mut request = server.http().get(&url);
        if let Some(tag) = tag {
            request = request.header(IF_NONE_MATCH, tag);
        }
        request.send().await.expect("an answer")
    };
    let first = get(None).await;
    assert_eq!((first.status().as_u16(), header(&first, "cache-control")), (200, "private, no-cache"));
    let tag = first.headers()[ETAG].to_str().expect("text").to_owned();
    for known in [tag.clone(), format!("\"other\", {tag}"), tag.trim_start_matches("W/").to_owned(), "*".to_owned()] {
        let again = get(Some(&known)).await;
        assert_eq!((again.status().as_u16(), header(&again, ETAG)), (304, tag.as_str()), "{known}");
        assert!(again.bytes().await.expect("a body").is_empty());
    }
    assert_eq!(get(Some("\"other\"")).await.status(), 200);
    server.begin_workspace("X").await;
    let changed = get(Some(&tag)).await;
    assert_eq!(changed.status(), 200);
    assert_ne!(header(&changed, ETAG), tag.as_str());
    assert_eq!(changed.json::<Value>().await.expect("JSON")["data"]["workspaces"]["nodes"][0]["name"], "X");
}

fn header(response: &reqwest::Response, name: impl reqwest::header::AsHeaderName) -> &str {
    response.headers().get(name).expect("the header").to_str().expect("text")
}
