//! What the server counts, as Prometheus reads it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{TestServer, eventually, on_postgres, text};

const TOKEN: &str = "jobstream-test-3f2b8c1e6f0a";
const RUN: (&str, &str) = ("type", "PIPELINE_RUN");

#[tokio::test(flavor = "multi_thread")]
async fn every_family_says_what_it_is_and_histograms_add_up() {
    let server = TestServer::start();
    let job = server.run_script("true").await;
    server.final_job(&job).await;
    let metrics = server.metrics().await;
    for (name, kind) in metrics.families() {
        assert!(name.starts_with("jobstream_") || name.starts_with("process_"), "{name}");
        if kind != "histogram" {
            continue;
        }
        let mut series: BTreeMap<_, Vec<(f64, f64)>> = BTreeMap::new();
        for bucket in metrics.samples(&format!("{name}_bucket"), &[]) {
            let mut labels = bucket.labels.clone();
            let bound = labels.remove("le").expect("a bound").parse().expect("a number");
            series.entry(labels).or_default().push((bound, bucket.value));
        }
        assert!(!series.is_empty(), "{name} has seen nothing");
        for (labels, buckets) in series {
            assert!(buckets.is_sorted_by(|one, next| one.0 < next.0 && one.1 <= next.1), "{name} {labels:?}");
            let labels: Vec<(&str, &str)> = labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            let count = metrics.value(&format!("{name}_count"), &labels);
            assert_eq!(buckets.last(), Some(&(f64::INFINITY, count)), "{name} {labels:?}");
            assert!(metrics.value(&format!("{name}_sum"), &labels) > 0.0, "{name} {labels:?}");
        }
    }
    assert_eq!(metrics.value("jobstream_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_of_jobs_is_counted() {
    let server = TestServer::with(&["--retry-backoff", "0.01"]);
    let workspace = server.workspace("Workspace").await;
    let good = server.pipeline(&workspace, "Good", "echo one; echo two; echo three >&2").await;
    let input = json!({ "workspaceId": workspace, "name": "Bad", "script": "echo four; exit 7", "maxRetries": 2 });
    let bad = server.pipeline_with(input).await;
    let before = server.metrics().await;
    for status in ["COMPLETE", "ERROR", "STOPPED"] {
        assert_eq!(before.value("jobstream_jobs_ended_total", &[RUN, ("status", status)]), 0.0);
    }
    assert_eq!(server.final_job(&server.run(&good).await).await["status"], "COMPLETE");
    assert_eq!(server.final_job(&server.run(&bad).await).await["status"], "ERROR");

    let after = server.metrics().await;
    let moved = |name: &str, labels: &[(&str, &str)]| after.value(name, labels) - before.value(name, labels);
    for (status, ended) in [("COMPLETE", 1.0), ("ERROR", 1.0), ("STOPPED", 0.0)] {
        let labels = [RUN, ("status", status)];
        assert_eq!(moved("jobstream_jobs_ended_total", &labels), ended, "{status}");
        let run_times = after.find("jobstream_job_run_time_seconds_count", &labels);
        assert_eq!(run_times.unwrap_or(0.0), ended, "{status}");
    }
    assert_eq!(moved("jobstream_job_retries_total", &[RUN]), 2.0);
    // Two lines and one; then three attempts with a line each, the first two of which the server remarks on.
    assert_eq!(moved("jobstream_log_lines_total", &[("stream", "STDOUT")]), 2.0 + 3.0);
    assert_eq!(moved("jobstream_log_lines_total", &[("stream", "STDERR")]), 1.0);
    assert_eq!(moved("jobstream_log_lines_total", &[("stream", "SYSTEM")]), 2.0);
    assert!(moved("jobstream_log_bytes_total", &[]) >= "onetwothree".len() as f64 + 3.0 * "four".len() as f64);
    assert_eq!(after.value("jobstream_jobs", &[RUN]), 0.0, "nothing is active any more");

    let writes = moved("jobstream_database_duration_seconds_count", &[("operation", "write")]);
    assert!(writes >= 8.0, "four attempts were claimed and ended: {writes}");
    assert!(moved("jobstream_database_statements_total", &[]) > writes);
    assert_eq!(after.value("jobstream_database_errors_total", &[]), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_queue_is_as_it_is_when_somebody_asks() {
    let server = TestServer::with(&["--slots", "0"]);
    let empty = server.metrics().await;
    assert_eq!(empty.value("jobstream_jobs", &[]), 0.0);
    assert_eq!(empty.value("jobstream_queue_length", &[]), 0.0);
    assert_eq!(empty.value("jobstream_queue_oldest_age_seconds", &[]), 0.0);
    assert_eq!(empty.value("jobstream_slots", &[]), 0.0);

    let workspace = server.begin_workspace("Workspace").await;
    let queued = server.metrics().await;
    for type_ in ["WORKSPACE_INIT", "PROFILE_COLLABORATE", "PROFILE_IMPORT"] {
        assert_eq!(queued.value("jobstream_jobs", &[("type", type_), ("status", "QUEUED")]), 1.0, "{type_}");
    }
    assert_eq!(queued.value("jobstream_jobs", &[("status", "RUNNING")]), 0.0);
    assert_eq!(queued.value("jobstream_queue_length", &[]), 1.0, "a person's task waits for no runner");
    let age = queued.value("jobstream_queue_oldest_age_seconds", &[]);
    let later = server.metrics().await.value("jobstream_queue_oldest_age_seconds", &[]);
    assert!(0.0 < age && age < later, "{age}, {later}");

    let jobs = workspace["jobs"].as_array().expect("jobs");
    let init = jobs.iter().find(|job| job["type"] == "WORKSPACE_INIT").expect("the job");
    server.stop(text(&init["id"])).await;
    let stopped = server.metrics().await;
    let labels = [("type", "WORKSPACE_INIT"), ("status", "STOPPED")];
    assert_eq!(stopped.value("jobstream_jobs_ended_total", &labels), 1.0);
    assert_eq!(stopped.find("jobstream_job_run_time_seconds_count", &labels), None, "it never ran");
    assert_eq!(stopped.value("jobstream_queue_length", &[]), 0.0);
    assert_eq!(stopped.value("jobstream_queue_oldest_age_seconds", &[]), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_is_counted_when_it_is_cleared_away() {
    let server = TestServer::start();
    let job = server.run_script("echo gone").await;
    server.final_job(&job).await;
    server.delete("Job", &job).await;
    let removed = async || server.metrics().await.find("jobstream_jobs_removed_total", &[]).filter(|it| *it == 1.0);
    eventually("the job is cleared away", removed).await;
    assert_eq!(server.metrics().await.value("jobstream_sweeps_failed_total", &[]), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_process_is_described_as_every_exporter_does() {
    let server = TestServer::with(&["--slots", "0"]);
    let metrics = server.metrics().await;
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("a time").as_secs_f64();
    let started = now - metrics.value("process_start_time_seconds", &[]);
    assert!((-2.0..60.0).contains(&started), "it started {started} s ago");
    let resident = metrics.value("process_resident_memory_bytes", &[]) / 1024.0;
    assert!((1024.0..=server.peak_memory() as f64 + 1024.0).contains(&resident), "{resident} KiB");
    assert!(metrics.value("process_virtual_memory_bytes", &[]) >= resident);
    let descriptors = metrics.value("process_open_fds", &[]);
    assert!((5.0..metrics.value("process_max_fds", &[])).contains(&descriptors), "{descriptors} descriptors");
    assert!(metrics.value("process_threads", &[]) >= 2.0);
    assert!((0.0..60.0).contains(&metrics.value("process_cpu_seconds_total", &[])));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metrics_are_for_those_with_the_token() {
    let server = TestServer::with_environment(&["--slots", "0"], &[("JOBSTREAM_TOKEN", TOKEN)]);
    for header in [None, Some("Bearer wrong-wrong-wrong-wrong")] {
        let mut request = reqwest::Client::new().get(server.url("/metrics"));
        if let Some(header) = header {
            request = request.header("authorization", header);
        }
        let refused = request.send().await.expect("an answer");
        assert_eq!(refused.status(), 401);
        let body: Value = refused.json().await.expect("JSON");
        assert_eq!(body["errors"][0]["extensions"]["code"], "UNAUTHENTICATED");
    }
    let refusals = [("route", "/metrics"), ("status", "401")];
    assert_eq!(server.metrics().await.value("jobstream_http_requests_total", &refusals), 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_counted_by_route_and_clients_make_no_new_series() {
    let server = TestServer::with(&["--slots", "0"]);
    let ask = async |method: &str, path: &str| {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        server.http().request(method, server.url(path)).send().await.expect("an answer").status().as_u16()
    };
    for number in 0..20 {
        assert_eq!(ask("GET", &format!("/nothing/{number}")).await, 404);
        assert_eq!(ask("GET", &format!("/jobs/{number}/logs?sequence={number}")).await, 400);
        assert_eq!(ask(&format!("M{number}"), "/healthz").await, 405);
    }
    let metrics = server.metrics().await;
    let requests = "jobstream_http_requests_total";
    let expected = [
        [("route", "unmatched"), ("method", "GET"), ("status", "404")],
        [("route", "/jobs/{id}/logs"), ("method", "GET"), ("status", "400")],
        [("route", "/healthz"), ("method", "other"), ("status", "405")],
    ];
    for labels in &expected {
        assert_eq!(metrics.samples(requests, labels).map(|it| it.value).collect::<Vec<_>>(), [20.0], "{labels:?}");
        let durations = metrics.value("jobstream_http_request_duration_seconds_count", &labels[..2]);
        assert_eq!(durations, 20.0, "{labels:?}");
    }
    assert_eq!(metrics.samples(requests, &[]).count(), expected.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rest_is_shown_while_the_database_cannot_be_read() {
    if on_postgres() {
        return; // The embedded database alone has a disk that the server sees.
    }
    let server = TestServer::with(&["--slots", "0"]);
    server.begin_workspace("Workspace").await;
    assert_eq!(server.metrics().await.value("jobstream_database_up", &[]), 1.0);
    // What was written since the start is in the write-ahead log, and nowhere else yet. A second workspace, so that it is read anew.
    server.begin_workspace("Another").await;
    let log = server.data_directory().join("jobstream.db-wal");
    let length = std::fs::metadata(&log).expect("the write-ahead log").len();
    std::fs::write(&log, vec![0xff; usize::try_from(length).expect("a size")]).expect("a disk that has gone bad");

    let metrics = server.metrics().await;
    assert_eq!(metrics.value("jobstream_database_up", &[]), 0.0);
    assert_eq!(metrics.find("jobstream_jobs", &[]), None);
    assert_eq!(metrics.find("jobstream_queue_length", &[]), None);
    assert_eq!(metrics.value("jobstream_database_errors_total", &[("operation", "read")]), 1.0);
    assert_eq!(metrics.value("jobstream_database_wal_size_bytes", &[]), length as f64);
    assert!(metrics.value("jobstream_database_disk_free_bytes", &[]) > 0.0);
    assert!(metrics.value("process_open_fds", &[]) > 0.0);
    assert!(metrics.value("jobstream_http_requests_total", &[("route", "/graphql")]) >= 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_asks_only_for_what_is_there() {
    if on_postgres() {
        return; // The embedded database alone has a disk that the server sees.
    }
    let server = TestServer::start();
    let job = server.run_script("true").await;
    server.final_job(&job).await;
    let metrics = server.metrics().await;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/grafana/jobstream.json");
    let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(file).expect("it")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().expect("an id")).collect();
    assert_eq!(ids.len(), panels.len(), "a panel's id is its own");

    let mut asked = BTreeSet::new();
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let targets = panel["targets"].as_array().expect("targets");
        assert!(!targets.is_empty(), "{}", panel["title"]);
        for target in targets {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
            asked.extend(names_in(text(&target["expr"])));
        }
    }
    for variable in dashboard["templating"]["list"].as_array().expect("variables") {
        asked.extend(variable["query"]["query"].as_str().into_iter().flat_map(names_in));
    }
    assert!(asked.len() > 30, "{asked:?}");
    let missing: Vec<&String> = asked.iter().filter(|name| metrics.samples(name, &[]).next().is_none()).collect();
    assert!(missing.is_empty(), "the server has no {missing:?}");
}

/// The names of metrics in an expression.
fn names_in(expression: &str) -> impl Iterator<Item = String> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("jobstream_") || word.starts_with("process_")).map(str::to_owned)
}
