//! Who may talk to the server: the token, Host and Origin, and where it listens.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::{PROTOCOL, TestServer, text, within};

const TOKEN: &str = "jobstream-test-3f2b8c1e6f0a";

fn guarded() -> TestServer {
    TestServer::with_environment(&[], &[("JOBSTREAM_TOKEN", TOKEN)])
}

/// The status of a query over GET with these headers, and of a handshake with them: 101 where it is accepted.
async fn statuses(server: &TestServer, headers: &[(&'static str, &str)]) -> (u16, u16) {
    let mut request = server.http().get(server.url("/graphql?query={__typename}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.send().await.expect("an answer");
    let status = answer.status().as_u16();
    if status != 200 {
        let body: Value = answer.json().await.expect("JSON");
        assert_eq!(body["errors"][0]["extensions"]["code"], "FORBIDDEN", "{body}");
    }
    let handshake = server.handshake(&[headers, &[PROTOCOL]].concat()).await;
    (status, handshake.map_or_else(|status| status, |_| 101))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_is_called_by_an_address_or_localhost() {
    let server = TestServer::with(&["--slots", "0"]);
    for host in ["localhost", "LocalHost:8080", "api.localhost", "127.0.0.1:8080", "192.168.0.7", "[::1]:8080", "[::1]"]
    {
        assert_eq!(statuses(&server, &[("host", host)]).await, (200, 101), "{host}");
    }
    for host in
        ["example.com", "example.com:8080", "localhost.example.com", "127.0.0.1.example.com", "notlocalhost", ""]
    {
        assert_eq!(statuses(&server, &[("host", host)]).await, (403, 403), "{host}");
    }
    for path in ["/", "/healthz", "/readyz", "/jobs/x/logs"] {
        let request = server.http().get(server.url(path)).header("host", "example.com");
        assert_eq!(request.send().await.expect("an answer").status(), 403, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_pages_of_this_machine_or_the_server_itself_may_talk_to_it() {
    let server = TestServer::with(&["--slots", "0"]);
    let local = ("host", "localhost:8080");
    for origin in [
        "http://localhost:8080",
        "http://localhost:3000",
        "http://127.0.0.1:9000",
        "http://[::1]",
        "https://app.localhost",
    ] {
        assert_eq!(statuses(&server, &[local, ("origin", origin)]).await, (200, 101), "{origin}");
    }
    for origin in [
        "http://example.com",
        "https://localhost.example.com",
        "null",
        "",
        "file://",
        "http://192.168.0.7",
        "localhost",
    ] {
        assert_eq!(statuses(&server, &[local, ("origin", origin)]).await, (403, 403), "{origin}");
    }
    // Seen from another machine, a page of that machine is a page from elsewhere.
    let outside = ("host", "192.168.0.7:8080");
    assert_eq!(statuses(&server, &[outside, ("origin", "http://192.168.0.7:8080")]).await, (200, 101));
    for origin in ["http://192.168.0.7:9000", "http://localhost:8080", "http://192.168.0.70:8080"] {
        assert_eq!(statuses(&server, &[outside, ("origin", origin)]).await, (403, 403), "{origin}");
    }
    let refused = server.http().post(server.url("/graphql")).header("origin", "http://example.com");
    let mutation = json!({ "query": "mutation { createWorkspace(input: { name: \"W\" }) { __typename } }" });
    assert_eq!(refused.json(&mutation).send().await.expect("an answer").status(), 403);
    let count = server.data("{ workspaces { totalCount } }", json!({})).await;
    assert_eq!(count["workspaces"]["totalCount"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_origins_can_be_allowed() {
    let options =
        ["--slots", "0", "--allow-host", "jobs.example.com,jobs.local", "--allow-origin", "https://app.example.com"];
    let server = TestServer::with(&options);
    for (host, origin, expected) in [
        ("jobs.example.com", "", (200, 101)),
        ("Jobs.Local:8080", "", (200, 101)),
        ("example.com", "", (403, 403)),
        ("jobs.example.com", "https://jobs.example.com", (200, 101)),
        ("jobs.example.com", "https://app.example.com", (200, 101)),
        ("localhost", "https://app.example.com", (200, 101)),
        ("localhost", "http://app.example.com", (403, 403)),
        ("localhost", "https://app.example.com:444", (403, 403)),
        ("localhost", "https://other.example.com", (403, 403)),
        ("jobs.example.com", "http://localhost", (403, 403)),
    ] {
        let headers = [("host", host), ("origin", origin)];
        let headers = if origin.is_empty() { &headers[..1] } else { &headers[..] };
        assert_eq!(statuses(&server, headers).await, expected, "{host} {origin}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_tells_of_jobs_wants_the_token() {
    let server = guarded();
    let job = server.run_script("echo hello").await;
    server.final_job(&job).await;
    let logs = format!("/jobs/{job}/logs");
    let anybody = reqwest::Client::new();
    let bearer = format!("Bearer {TOKEN}");
    for path in ["/graphql?query={__typename}", "/graphql", logs.as_str()] {
        for wrong in [
            None,
            Some("Bearer wrong"),
            Some(TOKEN),
            Some("Basic x"),
            Some("Bearer "),
            Some("Bearer jobstream-test-3f2b8c1e6f0"),
        ] {
            let request = anybody.get(server.url(path));
            let request = wrong.map_or(request.try_clone().expect("a copy"), |it| request.header("authorization", it));
            let answer = request.send().await.expect("an answer");
            assert_eq!(
                (answer.status().as_u16(), &answer.headers()["www-authenticate"]),
                (401, &"Bearer".parse().expect("a value")),
                "{path} {wrong:?}"
            );
            let body: Value = answer.json().await.expect("JSON");
            assert_eq!(body["errors"][0]["extensions"]["code"], "UNAUTHENTICATED");
        }
    }
    let answer = anybody.get(server.url(&logs)).header("authorization", bearer).send().await.expect("an answer");
    assert_eq!(answer.text().await.expect("text"), "hello\n");
    let lower = format!("bearer {TOKEN}");
    let answer = anybody.get(server.url("/graphql?query={__typename}")).header("authorization", lower).send().await;
    assert_eq!(answer.expect("an answer").status(), 200);
    for path in ["/", "/healthz", "/readyz"] {
        assert_eq!(anybody.get(server.url(path)).send().await.expect("an answer").status(), 200, "{path}");
    }
}

#[test]
fn listening_to_other_machines_needs_a_good_token() {
    let directory = tempfile::tempdir().expect("a directory");
    let serve = |listen: &str, token: Option<&str>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jobstream"));
        command.args(["serve", "--listen", listen, "--data-dir"]).arg(directory.path().join("data"));
        command.env_remove("JOBSTREAM_TOKEN").envs(token.map(|it| ("JOBSTREAM_TOKEN", it)));
        let output = command.output().expect("the program runs");
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        assert!(serve(address, None).contains("Set JOBSTREAM_TOKEN"), "{address}");
    }
    for weak in ["", "fifteen-letters", "sixteen letters and more"] {
        assert!(serve("0.0.0.0:0", Some(weak)).contains("at least 16 characters"), "{weak:?}");
        assert!(serve("127.0.0.1:0", Some(weak)).contains("at least 16 characters"), "{weak:?}");
    }
    assert!(!directory.path().join("data").exists(), "nothing was touched");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_token_the_server_may_listen_to_other_machines() {
    let server = TestServer::listening("0.0.0.0:0", &["--slots", "0"], &[("JOBSTREAM_TOKEN", TOKEN)]);
    let data = server.data("{ __typename }", json!({})).await;
    assert_eq!(text(&data["__typename"]), "Query");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_is_in_no_environment() {
    // Of this test only: a server that starts beside it has its own in its environment for a moment.
    const TOKEN: &str = "jobstream-in-no-environment";
    let server = TestServer::with_environment(&[], &[("JOBSTREAM_TOKEN", TOKEN)]);
    // As root a test can look at every process; as any other user, not even at that of its own server.
    for file in ["environ", "cmdline"] {
        match std::fs::read(format!("/proc/{}/{file}", server.pid())) {
            Ok(bytes) => assert!(!String::from_utf8_lossy(&bytes).contains(TOKEN), "{file}"),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied),
        }
    }
    let (start, end) = TOKEN.split_at(8);
    let script = format!(
        "env | grep JOBSTREAM_; secret=$(printf %s%s '{start}' '{end}'); pid=$$; while [ \"$pid\" -gt 1 ]; do \
         tr '\\0' '\\n' < /proc/$pid/environ | grep -F \"$secret\" && echo found in $pid; \
         pid=$(cut -d' ' -f4 /proc/$pid/stat); done; cat /proc/*/environ 2>/dev/null | grep -aqF \"$secret\" && echo found; true"
    );
    let job = server.run_script(&script).await;
    assert_eq!(server.final_job(&job).await["status"], "COMPLETE");
    let log = server.log_text(&job).await;
    let mut variables: Vec<&str> = log.lines().filter_map(|it| it.split_once('=')).map(|(name, _)| name).collect();
    variables.sort_unstable();
    assert_eq!(variables, ["JOBSTREAM_ATTEMPT", "JOBSTREAM_JOB_ID", "JOBSTREAM_PIPELINE_ID", "JOBSTREAM_WORKSPACE_ID"]);
    assert!(!log.contains("found"), "{log}");
    assert!(!server.log().contains(TOKEN));
}

#[tokio::test(flavor = "multi_thread")]
async fn to_ask_for_a_websocket_is_no_way_around_the_token() {
    let server = guarded();
    let job = server.run_script("echo secret").await;
    server.final_job(&job).await;
    let stranger = reqwest::Client::new();
    for path in [&format!("/jobs/{job}/logs"), "/graphql?query={__typename}"] {
        for header in ["upgrade", "x-nothing"] {
            let answer = stranger.get(server.url(path)).header(header, "websocket").send().await.expect("an answer");
            let (status, body) = (answer.status().as_u16(), answer.text().await.expect("a text"));
            // A handshake that is none is refused as such.
            assert!(matches!(status, 400 | 401 | 426), "{path} with {header}: {status} {body}");
        }
    }
}

/// What a browser asks before it lets a page of an origin post JSON with a token.
async fn preflight(server: &TestServer, origin: &str) -> reqwest::Response {
    let request = reqwest::Client::new().request(reqwest::Method::OPTIONS, server.url("/graphql"));
    let asked = request
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization,content-type");
    asked.send().await.expect("an answer")
}

fn header<'a>(response: &'a reqwest::Response, name: &str) -> Option<&'a str> {
    response.headers().get(name).map(|value| value.to_str().expect("text"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_an_origin_that_is_known_may_read_answers_and_another_may_not() {
    let options = ["--slots=0", "--allow-origin=https://app.example.com"];
    let server = TestServer::with_environment(&options, &[("JOBSTREAM_TOKEN", TOKEN)]);
    for origin in ["https://app.example.com", "http://localhost:3000"] {
        // The browser does not show the token yet.
        let before = preflight(&server, origin).await;
        assert_eq!((before.status().as_u16(), header(&before, "access-control-allow-origin")), (200, Some(origin)));
        assert_eq!(header(&before, "access-control-allow-methods"), Some("GET,POST"));
        assert_eq!(header(&before, "access-control-allow-headers"), Some("authorization,content-type"));
        assert_eq!(header(&before, "access-control-allow-credentials"), None);
        for path in ["/graphql?query={__typename}", "/jobs/x/logs", "/nothing"] {
            let answer = server.http().get(server.url(path)).header("origin", origin).send().await.expect("an answer");
            assert_eq!(
                header(&answer, "access-control-allow-origin"),
                Some(origin),
                "{path}: a page can read errors too"
            );
            assert!(header(&answer, "access-control-expose-headers").is_some_and(|it| it.contains("etag")));
            let vary: Vec<&str> =
                answer.headers().get_all("vary").iter().map(|it| it.to_str().expect("text")).collect();
            assert!(vary.join(",").contains("origin"), "{path}: {vary:?}");
            assert_eq!(vary.join(",").contains("authorization"), path.starts_with("/graphql"), "{path}: {vary:?}");
        }
    }
    for origin in ["https://other.example.com", "null"] {
        let answer = server.http().get(server.url("/graphql?query={__typename}")).header("origin", origin).send().await;
        for answer in [preflight(&server, origin).await, answer.expect("an answer")] {
            assert_eq!(
                (answer.status().as_u16(), header(&answer, "access-control-allow-origin")),
                (403, None),
                "{origin}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_any_origin_may_be_allowed_but_only_with_a_token() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut command = TestServer::command(directory.path());
    command.args(["--listen", "127.0.0.1:0", "--allow-origin", "*"]);
    let mut command = tokio::process::Command::from(command);
    let refused = within(command.kill_on_drop(true).output()).await.expect("it runs");
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("needs JOBSTREAM_TOKEN"));

    let server = TestServer::with_environment(&["--slots=0", "--allow-origin=*"], &[("JOBSTREAM_TOKEN", TOKEN)]);
    for origin in ["https://anything.example.com", "null"] {
        let before = preflight(&server, origin).await;
        assert_eq!((before.status().as_u16(), header(&before, "access-control-allow-origin")), (200, Some(origin)));
        assert_eq!(
            statuses(&server, &[("origin", origin), ("authorization", &format!("Bearer {TOKEN}"))]).await,
            (200, 101)
        );
    }
    let without = reqwest::Client::new().get(server.url("/graphql?query={__typename}"));
    assert_eq!(without.header("origin", "https://anything.example.com").send().await.expect("an answer").status(), 401);
}
