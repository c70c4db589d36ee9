//! Pages of other sites: the Host, Origin and Sec-Fetch-Site headers.

use serde_json::json;

use crate::support::{PROTOCOL, TestServer, within};

const QUERY: &str = "/graphql?query={__typename}";

/// The status of a query with these headers, lines that each end with CR LF, beside a Host.
async fn status(server: &TestServer, path: &str, headers: &str) -> u16 {
    let head = format!("GET {path} HTTP/1.1\r\n{headers}");
    server.raw(head.trim_end_matches("\r\n"), "").await.status
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_only_looks_like_one_that_is_known_is_refused() {
    let options = ["--slots=0", "--allow-host=jobs.example.com", "--allow-origin=https://app.example.com,tauri://app"];
    let server = TestServer::with(&options);
    let origins = [
        "http://127.0.0.1:1.evil.example",
        "http://[::1].evil.example",
        "http://localhost:1@evil.example",
        "http://localhost@evil.example",
        "http://evil.example#localhost",
        "http://evil.example?localhost",
        "http://evil.example/localhost",
        "http://evil.example\\localhost",
        "http://localhost.evil.example",
        "http://evil-localhost",
        "http://evillocalhost",
        "http://localhost.",
        "http://LOCALHOST",
        "HTTP://localhost",
        "http://localhost:80",
        "http://localhost:080",
        "http://localhost:",
        "http://localhost/",
        "http://localhost/page",
        "http://localhost:99999",
        "http://user@localhost",
        "http://user:password@localhost",
        "http://127.1",
        "http://0x7f000001",
        "http://2130706433",
        "http://0177.0.0.1",
        "http://127.0.0.1.",
        "http://[0:0:0:0:0:0:0:1]",
        "http://[::1",
        "http://[::ffff:127.0.0.1]",
        "http://0.0.0.0",
        "http://l\u{f6}calhost",
        "http://xn--lcalhost-n4a",
        "tauri://localhost",
        "chrome-extension://localhost",
        "ws://localhost",
        "ftp://localhost",
        "file://localhost",
        "file://",
        "http://",
        "//localhost",
        "localhost",
        "localhost:8080",
        "null",
        "",
        "*",
        "http://localhost http://evil.example",
        "http://evil.example http://localhost",
        "http://localhost,http://evil.example",
        "blob:http://localhost/3f2b8c1e",
        "javascript:alert(1)",
        "http://app.example.com",
        "https://app.example.com:444",
        "https://app.example.com.",
        "https://app.example.com.evil.example",
        "https://App.example.com",
        "https://app.example.com/",
        "tauri://app2",
        "tauri://app/",
        "https://tauri",
    ];
    assert!(origins.len() > 34);
    for host in ["localhost:8080", "127.0.0.1:8080"] {
        for origin in origins {
            let headers = format!("Host: {host}\r\nOrigin: {origin}\r\n");
            let refused = status(&server, QUERY, &headers).await;
            assert!([400, 403].contains(&refused), "{origin} at {host}: {refused}");
            let handshake = server.handshake(&[("host", host), ("origin", origin), PROTOCOL]).await;
            assert_eq!(handshake.map(|_| ()).map_err(|it| [400, 403].contains(&it)), Err(true), "{origin} at {host}");
        }
        let headers = format!("Host: {host}\r\nOrigin: http://localhost\r\nOrigin: http://localhost\r\n");
        assert_eq!(status(&server, QUERY, &headers).await, 400, "two of them");
    }
    for (host, origin) in [
        ("localhost:8080", "http://localhost:8080"),
        ("localhost:8080", "https://app.localhost:3000"),
        ("127.0.0.1:8080", "http://[::1]:5173"),
        ("localhost:8080", "https://app.example.com"),
        ("localhost:8080", "tauri://app"),
        ("jobs.example.com", "https://jobs.example.com"),
        ("jobs.example.com:443", "https://jobs.example.com"),
        ("jobs.example.com:8080", "http://jobs.example.com:8080"),
        ("192.0.2.7:8080", "http://192.0.2.7:8080"),
        ("[2001:db8::1]:8080", "http://[2001:db8::1]:8080"),
    ] {
        assert_eq!(status(&server, QUERY, &format!("Host: {host}\r\nOrigin: {origin}\r\n")).await, 200, "{origin}");
        assert!(server.handshake(&[("host", host), ("origin", origin), PROTOCOL]).await.is_ok(), "{origin}");
    }
    for (host, origin) in [
        ("jobs.example.com", "https://jobs.example.com:8443"),
        ("jobs.example.com:8080", "http://jobs.example.com"),
        ("jobs.example.com", "tauri://jobs.example.com"),
        ("192.0.2.7:8080", "http://192.0.2.7:9090"),
        ("192.0.2.7:8080", "http://localhost:8080"),
    ] {
        assert_eq!(status(&server, QUERY, &format!("Host: {host}\r\nOrigin: {origin}\r\n")).await, 403, "{origin}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_only_looks_like_the_servers_is_refused() {
    let server = TestServer::with(&["--slots=0", "--allow-host=jobs.example.com"]);
    for host in [
        "127.0.0.1:1.evil.example",
        "[::1].evil.example",
        "localhost:1@evil.example",
        "user@localhost",
        "localhost.",
        "localhost:",
        "localhost:x",
        "localhost:99999",
        "localhost:80:80",
        "localhost/",
        "localhost#.evil.example",
        "localhost, evil.example",
        "localhost evil.example",
        "::1",
        "[::1",
        "127.1",
        "0x7f.1",
        "l%6fcalhost",
        "jobs.example.com.",
        "jobs.example.com.evil.example",
        "evil.example",
        "",
    ] {
        for path in [QUERY, "/", "/healthz", "/metrics", "/jobs/x/logs", "/nothing"] {
            let refused = status(&server, path, &format!("Host: {host}\r\n")).await;
            assert!([400, 403].contains(&refused), "{host} {path}: {refused}");
        }
    }
    for (headers, expected) in [
        ("Host: localhost\r\nHost: localhost\r\n", 400),
        ("Host: evil.example\r\nHost: localhost\r\n", 400),
        ("Host: localhost\r\nHost: evil.example\r\n", 400),
        ("Host: evil.example\r\nX-Forwarded-Host: localhost\r\n", 403),
        ("Host: evil.example\r\nForwarded: host=localhost\r\n", 403),
        ("Host: JOBS.example.com:8080\r\n", 200),
        ("Host: [::1]:8080\r\n", 200),
    ] {
        assert_eq!(status(&server, QUERY, headers).await, expected, "{headers}");
    }
    let target = "http://evil.example/graphql?query={__typename}";
    assert_eq!(status(&server, target, "Host: localhost\r\n").await, 400, "the target names another host");
    assert_eq!(status(&server, &target.replace("evil.example", "localhost"), "Host: localhost\r\n").await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_site_cannot_send_a_get_without_an_origin() {
    let server = TestServer::with(&["--slots=0", "--allow-origin=https://app.example.com"]);
    let paths = [
        QUERY,
        "/metrics",
        "/healthz",
        "/readyz",
        "/jobs/3f2b8c1e-6f0a-4c5e-9d3b-2a7f1e4c5d6b/logs",
        "/assets/x.js",
        "/",
    ];
    for path in paths {
        for fetch in [
            "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: image\r\n",
            "Sec-Fetch-Site: same-site\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: script\r\n",
            "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: iframe\r\n",
            "Sec-Fetch-Site: cross-site\r\n",
            "Sec-Fetch-Site: Same-Origin\r\n",
            "Sec-Fetch-Site: x\r\n",
            "Sec-Fetch-Site: same-origin\r\nSec-Fetch-Site: cross-site\r\n",
        ] {
            assert_eq!(status(&server, path, &format!("Host: localhost\r\n{fetch}")).await, 403, "{path} {fetch}");
        }
        for fetch in ["", "Sec-Fetch-Site: same-origin\r\n", "Sec-Fetch-Site: none\r\nSec-Fetch-Mode: navigate\r\n"] {
            assert_ne!(status(&server, path, &format!("Host: localhost\r\n{fetch}")).await, 403, "{path} {fetch}");
        }
        let link =
            "Host: localhost\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n";
        assert_eq!(status(&server, path, link).await == 403, path != "/", "{path}: a link leads to GraphiQL only");
    }
    // With an Origin, that decides.
    for (origin, site, expected) in [
        ("http://localhost:3000", "same-site", 200),
        ("https://app.example.com", "cross-site", 200),
        ("https://evil.example", "cross-site", 403),
        ("https://evil.example", "same-origin", 403),
        ("http://192.0.2.7:8080", "same-origin", 200),
        // The page came without TLS and calls a proxy with TLS.
        ("http://192.0.2.7:8080", "cross-site", 403),
    ] {
        let headers = format!("Host: 192.0.2.7:8080\r\nOrigin: {origin}\r\nSec-Fetch-Site: {site}\r\n");
        let headers = if origin.contains("localhost") { headers.replace("192.0.2.7", "localhost") } else { headers };
        assert_eq!(status(&server, QUERY, &headers).await, expected, "{headers}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_changed_by_what_a_page_can_send_without_being_asked() {
    let server = TestServer::with(&["--slots=0"]);
    let mutation = "mutation { createWorkspace(input: { name: \"W\" }) { workspace { id } } }";
    let body = json!({ "query": mutation }).to_string();
    for content_type in [
        "",
        "text/plain",
        "text/plain;application/json",
        "text/plain; charset=application/json",
        "text/plain, application/json",
        "application/x-www-form-urlencoded",
        "application/x-www-form-urlencoded; application/json",
        "multipart/form-data; boundary=x",
        "multipart/form-data; boundary=application/json",
        "multipart/mixed",
        "application/graphql",
        "application/graphql+json",
        "application/json-patch+json",
        "application/jsonp",
        "application/jso",
        "text/json",
        "json",
        "*/*",
        "application/*",
        "application/json text/plain",
    ] {
        let head = format!("POST /graphql HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}");
        assert_eq!(server.raw(&head, &body).await.status, 415, "{content_type:?}");
    }
    assert_eq!(server.raw("POST /graphql HTTP/1.1\r\nHost: localhost", &body).await.status, 415);
    let encoded: String = mutation.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let subscription: String =
        "subscription { jobStatusChanged { status } }".bytes().map(|byte| format!("%{byte:02x}")).collect();
    for (query, extra) in [
        (format!("query={encoded}"), ""),
        (format!("query={encoded}&operationName="), ""),
        (format!("query=%7B__typename%7D&query={encoded}"), ""),
        (format!("query={encoded}&query=%7B__typename%7D"), ""),
        (format!("Query={encoded}"), ""),
        (format!("query={encoded}"), "X-HTTP-Method-Override: POST\r\n"),
        (format!("query={encoded}&_method=POST"), "X-HTTP-Method: POST\r\nX-Method-Override: POST\r\n"),
        (format!("query={encoded}"), "Content-Type: application/json\r\n"),
        (format!("query={encoded}"), "Accept: text/event-stream\r\n"),
        (format!("query={subscription}%20{encoded}"), "Accept: text/event-stream\r\n"),
        (format!("query=query%20Q%7B__typename%7D%20{encoded}"), ""),
        ("".to_owned(), "Content-Type: application/json\r\n"),
    ] {
        for method in ["GET", "HEAD"] {
            let head = format!("{method} /graphql?{query} HTTP/1.1\r\nHost: localhost\r\n{extra}");
            server.raw(head.trim_end_matches("\r\n"), &body).await;
        }
    }
    let count = server.data("{ workspaces { totalCount } }", json!({})).await;
    assert_eq!(count["workspaces"]["totalCount"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_origins_and_proxies_that_cannot_be_meant_are_refused_at_the_start() {
    let directory = tempfile::tempdir().expect("a directory");
    for option in [
        "--allow-origin=null",
        "--allow-origin=app.example.com",
        "--allow-origin=https://app.example.com/path",
        "--allow-origin=https://user@app.example.com",
        "--allow-origin=https://*.example.com",
        "--allow-origin=https://a.example.com,b",
        "--allow-host=jobs.example.com:8080",
        "--allow-host=https://jobs.example.com",
        "--allow-host=*",
        "--trusted-proxy=proxy.example.com",
        "--trusted-proxy=10.0.0.0/40",
        "--trusted-proxy=0.0.0.0/0",
    ] {
        let mut command = tokio::process::Command::from(TestServer::command(directory.path()));
        let output = command.args(["--listen", "127.0.0.1:0", option]).kill_on_drop(true).output();
        let output = within(output).await.expect("the program runs");
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{option}: {told}");
        let name = option.split('=').next().unwrap_or_default();
        assert!(told.contains(name), "{option}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_response_says_how_it_is_to_be_kept_and_read() {
    let server = TestServer::start();
    let job = server.run_script("echo '<script>'").await;
    server.final_job(&job).await;
    let kept = "cache-control: private, no-cache";
    let not_kept = "cache-control: no-store";
    for (method, path, extra, expected) in [
        ("GET", QUERY, "", kept),
        ("GET", "/graphql?query={nothing}", "", kept),
        ("GET", "/graphql", "", not_kept),
        ("GET", QUERY, "Accept: text/event-stream\r\n", not_kept),
        ("POST", "/graphql", "Content-Type: application/json\r\n", not_kept),
        ("POST", "/graphql", "", not_kept),
        ("GET", &format!("/jobs/{job}/logs"), "", not_kept),
        ("GET", &format!("/jobs/{job}/logs?follow=true"), "Accept: application/x-ndjson\r\n", not_kept),
        ("GET", "/jobs/x/logs", "", not_kept),
        ("GET", "/metrics", "", not_kept),
        ("GET", "/healthz", "", not_kept),
        ("GET", "/readyz", "", not_kept),
        ("GET", "/nothing", "", not_kept),
        ("PUT", "/metrics", "", not_kept),
        ("GET", "/", "", "cache-control: no-cache"),
        ("GET", "/healthz", "Origin: https://evil.example\r\n", not_kept),
    ] {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{extra}");
        let answer = server.raw(head.trim_end_matches("\r\n"), r#"{"query":"{__typename}"}"#).await;
        let lines: Vec<&str> = answer.head.lines().filter(|it| it.starts_with("cache-control:")).collect();
        assert_eq!(lines, [expected], "{method} {path}");
        let lines = answer.head.lines().filter(|it| *it == "x-content-type-options: nosniff").count();
        assert_eq!(lines, 1, "{method} {path}");
    }
}
