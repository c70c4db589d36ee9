//! Values of arguments: names, URLs, properties and sensitive values.

use serde_json::{Value, json};

use crate::support::{PATIENCE, TestServer, text, within};

/// Characters that are invisible, that change the direction of text, or that look like a space.
const INVISIBLE: [char; 34] = [
    '\u{0}',
    '\t',
    '\n',
    '\r',
    '\u{1b}',
    '\u{7f}',
    '\u{85}',
    '\u{a0}',
    '\u{ad}',
    '\u{34f}',
    '\u{61c}',
    '\u{115f}',
    '\u{180e}',
    '\u{2007}',
    '\u{200b}',
    '\u{200c}',
    '\u{200d}',
    '\u{200e}',
    '\u{200f}',
    '\u{2028}',
    '\u{2029}',
    '\u{202a}',
    '\u{202e}',
    '\u{2060}',
    '\u{2066}',
    '\u{2069}',
    '\u{2800}',
    '\u{3000}',
    '\u{3164}',
    '\u{e000}',
    '\u{feff}',
    '\u{fffe}',
    '\u{e0041}',
    '\u{e0100}',
];

#[tokio::test(flavor = "multi_thread")]
async fn names_that_only_look_like_others_are_refused() {
    let server = TestServer::with(&["--slots", "0"]);
    let workspace = server.begin_workspace("Load").await["workspace"]["id"].clone();
    server.begin_pipeline(json!({ "workspaceId": workspace, "name": "Load", "script": "true" })).await;
    for c in INVISIBLE {
        for name in [format!("Lo{c}ad"), format!("{c}Load"), format!("Load{c}")] {
            let refused = server.refused("createWorkspace", json!({ "name": name })).await;
            assert_eq!(refused.paths(), ["input.name"], "{name:?}");
            let input = json!({ "workspaceId": workspace, "name": name, "script": "true" });
            assert_eq!(server.refused("createPipeline", input).await.paths(), ["input.name"], "{name:?}");
        }
        let email = json!({ "workspaceId": workspace, "email": format!("a{c}b@example.com") });
        assert_eq!(server.refused("createInvitation", email).await.paths(), ["input.email"], "{c:?}");
    }
    let component = json!({ "workspaceId": workspace, "name": "Lo\u{200b}ad", "plugin": "target-jsonl" });
    assert_eq!(server.refused("createDataComponent", component).await.paths(), ["input.name"]);
    for name in ["🚀 Deploy", "👩\u{200d}🚀", "☁\u{fe0f}", "日本語", "हिन्दी", "עברית", "a b"]
    {
        server.change("createWorkspace", json!({ "name": name }), "workspace { id }").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_name_of_a_pipeline_leads_to_no_other_file() {
    let server = TestServer::with(&["--slots", "0"]);
    let workspace = server.begin_workspace("W").await["workspace"]["id"].clone();
    for name in [
        "../x",
        "..",
        ".",
        "/etc/passwd",
        "a/b",
        "a\\b",
        ".git",
        ".hidden",
        "",
        " ",
        "x\0",
        &"x".repeat(101),
        &"日".repeat(67),
    ] {
        let input = json!({ "workspaceId": workspace, "name": name, "script": "true" });
        let refused = server.refused("createPipeline", input).await;
        assert!(refused.paths().iter().all(|path| *path == "input.name"), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_url_of_a_webhook_is_refused_or_stored_as_it_is_used() {
    let server = TestServer::with(&["--slots", "0"]);
    let workspace = server.begin_workspace("W").await["workspace"]["id"].clone();
    let refused = [
        // Other schemes and no URLs.
        "",
        "x",
        "//example.com/",
        "http://",
        "https:///",
        "ftp://example.com/",
        "file:///etc/passwd",
        "gopher://example.com:70/_x",
        "javascript:alert(1)",
        "data:text/html,x",
        "dict://example.com/",
        "unix:/run/docker.sock",
        // Names and passwords, and hosts that only seem to be the host.
        "http://user:password@example.com/",
        "http://user@example.com/",
        "http://example.com@127.0.0.1/",
        "http://127.0.0.1#@example.com/",
        "http://127.0.0.1\\@example.com/",
        "http://127.0.0.1?@example.com/",
        // Private addresses in all their forms.
        "http://127.0.0.1/",
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0177.0.0.1/",
        "http://127.0.0.1.:80/",
        "http://%31%32%37.0.0.1/",
        "http://①②⑦.⓪.⓪.①/",
        "http://127。0。0。1/",
        "http://0/",
        "http://0.0.0.0:8080/",
        "http://10.0.0.1/",
        "http://172.16.0.1/",
        "http://192.168.1.1/",
        "http://169.254.169.254/latest/meta-data/",
        "http://2852039166/",
        "http://0xa9fea9fe/",
        "http://100.64.0.1/",
        "http://224.0.0.1/",
        "http://255.255.255.255/",
        "http://[::]/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:a9fe:a9fe]/",
        "http://[fe80::1]/",
        "http://[fd00:ec2::254]/",
        "http://[64:ff9b::7f00:1]/",
        "http://[2002:7f00:1::]/",
        "http://[::127.0.0.1]/",
        "http://[ff02::1]/",
        // What the URL standard would take out, or what ends a line of a header.
        "http://example.com/\r\nX-Injected: 1",
        "http://example.com/\n",
        "http://exam\tple.com/",
        " http://example.com/",
        "http://example.com/ ",
        "http://127.0.\n0.1/",
        "ht\ntp://example.com/",
        "http://example.com/\0",
        "http://example.com/\u{200b}",
        "http://exa\u{ad}mple.com/",
        "http://example.com/\u{202e}",
        "http://example.com:99999/",
        "http://[::1",
        "http://256.1.1.1/",
    ];
    for url in refused {
        let refused = server.refused("createWebhook", json!({ "workspaceId": workspace, "url": url })).await;
        assert_eq!(refused.paths(), ["input.url"], "{url:?}");
    }
    for (given, stored) in [
        ("https://EXAMPLE.com:443/a/../hook?key=1", "https://example.com/hook?key=1"),
        ("https://bücher.example", "https://xn--bcher-kva.example/"),
        ("http://example.com:8080/a b".trim_end_matches(" b"), "http://example.com:8080/a"),
    ] {
        let input = json!({ "workspaceId": workspace, "url": given });
        let created = server.change("createWebhook", input, "webhook { id url }").await;
        assert_eq!(created["webhook"]["url"], stored);
        let update = json!({ "id": created["webhook"]["id"], "url": "https://example.com/\r\n" });
        assert_eq!(server.refused("updateWebhook", update).await.paths(), ["input.url"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_url_of_a_repository_runs_nothing_and_shows_no_secret() {
    let server = TestServer::with(&["--slots", "0"]);
    let refused = [
        "",
        "/srv/a.git",
        "../a.git",
        "~/a.git",
        "a.git",
        "file:///srv/a.git",
        "FILE:///srv/a.git",
        "file:/srv/a.git",
        "file://localhost/srv/a.git",
        "ext::sh -c true",
        "ext::sh%20-c%20true",
        "ext::sh://example.com",
        "fd::17",
        "transport::x",
        "-oProxyCommand=true",
        "--upload-pack=true",
        "--receive-pack=true",
        "-c",
        "-git@example.com:a",
        "git@-oProxyCommand=true:a",
        "git@example.com:-oProxyCommand=true",
        "git@example.com::a",
        "@example.com:a",
        "git@:a",
        "git@example.com:",
        "ssh://-oProxyCommand=true/a",
        "ssh://%2DoProxyCommand=true/a",
        "ssh://git@-x/a",
        "ssh://-x@example.com/a",
        "ssh://git:password@example.com/a",
        "git://user@example.com/a",
        "ftp://example.com/a",
        "rsync://example.com/a",
        "https://",
        "https:///a",
        "https:/example.com/a",
        "http:example.com/a",
        "https://example.com\\@other/a",
        "https://user:a%0ab@example.com/a",
        "https://%ff@example.com/a",
        "https://example.com/a b",
        "https://example.com/a\r\n",
        "https://example.com/\u{202e}a",
        "https://example.com/a.git?access_token=s3cr3t",
        "https://example.com/a.git#s3cr3t",
        "git@example.com:a.git?token=s3cr3t",
        "ssh://git@example.com/a?s3cr3t",
    ];
    for url in refused {
        let response =
            server.mutate("createWorkspace", json!({ "name": "W", "repositoryUrl": url }), "__typename").await;
        let problems = &response["errors"][0]["extensions"]["problems"];
        assert_eq!(problems[0]["path"], "input.repositoryUrl", "{url:?}: {response}");
        assert!(!response.to_string().contains("s3cr3t"), "{response}");
    }
    // What stands before the host is used, and not shown.
    let input = json!({ "name": "W", "repositoryUrl": "https://user:s3cr3t@example.com/a.git" });
    let created = server.change("createWorkspace", input, "workspace { id repositoryUrl }").await;
    assert_eq!(created["workspace"]["repositoryUrl"], "https://example.com/a.git");
    // An earlier version took queries: none is shown.
    let id = text(&created["workspace"]["id"]).to_owned();
    let sql = "UPDATE workspaces SET origin = 'https://user:s3cr3t@example.com/a.git?token=s3cr3t#s3cr3t'";
    match server.database() {
        Some(database) => database.execute(sql),
        None => {
            use diesel::connection::SimpleConnection;
            let path = server.data_directory().join("jobstream.db");
            let url = path.to_str().expect("UTF-8");
            let mut sqlite = <diesel::SqliteConnection as diesel::Connection>::establish(url).expect("the database");
            sqlite.batch_execute(sql).expect(sql);
        }
    }
    let query = "query($id: ID!) { workspace(id: $id) { name repositoryUrl created } }";
    let shown = server.data(query, json!({ "id": id })).await;
    assert_eq!(shown["workspace"]["repositoryUrl"], "https://example.com/a.git");
    let all = server.data("{ workspaces(first: 5) { nodes { repositoryUrl } } }", Value::Null).await;
    assert!(!format!("{shown}{all}{}", server.log()).contains("s3cr3t"));
}

/// Sensitive values that automata and searches take long for, and random ones; together as large as a pipeline takes them.
fn hard_values() -> Vec<(&'static str, Vec<String>)> {
    let alphabet: String = ('a'..='z').chain('A'..='Z').chain('0'..='9').collect();
    let staircase = || (4..900).map(|length| "a".repeat(length)).collect::<Vec<_>>().join("\n");
    let mut random = 1_u64;
    let mut letter = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(alphabet.as_bytes()[(random >> 33) as usize % alphabet.len()])
    };
    let random = |_| (0..64_000).map(|_| letter()).collect();
    vec![
        ("one byte again and again", vec!["B".repeat(12_000) + "END", alphabet.clone()]),
        ("the largest of one byte", vec!["a".repeat(64_000), "a".repeat(63_999) + "b", "a".repeat(32_000)]),
        (
            "lines that begin each other",
            vec![staircase()[..64_000].to_owned(), staircase()[64_000..128_000].to_owned(), "a".repeat(64_000)],
        ),
        (
            "thousands of lines",
            (0..4).map(|n| (0..9000).map(|i| format!("{n}{i:05}")).collect::<Vec<_>>().join("\n")).collect(),
        ),
        ("random", (0..8).map(random).collect()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn sensitive_values_that_are_hard_to_find_do_not_hold_up_the_server() {
    let server = TestServer::with(&["--slots", "2", "--stop-grace", "0.3"]);
    let workspace = server.workspace("Workspace").await;
    let before = server.peak_memory();
    for (what, values) in hard_values() {
        let properties: Vec<Value> = values
            .iter()
            .enumerate()
            .map(|(index, value)| json!({ "name": format!("demo.s{index}"), "value": value, "sensitive": true }))
            .collect();
        // It prints values, their beginnings, and much that is like them.
        let script = r#"printf '%s\n%s' "$DEMO_S0" "${DEMO_S0:0:9999}"; echo; head -c 200000 /dev/zero | tr '\0' a; echo; echo done; sleep 600"#;
        let input = json!({
            "workspaceId": workspace, "name": what, "script": script, "properties": properties, "timeout": 3,
        });
        let pipeline = server.pipeline_with(input).await;
        let timed_out = server.run(&pipeline).await;
        server.job_is(&timed_out, "RUNNING").await;
        let health = server.http().get(server.url("/healthz")).timeout(PATIENCE).send().await.expect("an answer");
        assert!(health.status().is_success());
        let done = within(server.final_job(&timed_out)).await;
        assert_eq!((&done["status"], &done["stopReason"]), (&json!("STOPPED"), &json!("TIMEOUT")), "{what}");

        server.change("updatePipeline", json!({ "id": pipeline, "timeout": 600 }), "__typename").await;
        let stopped = server.run(&pipeline).await;
        within(server.line_appears(&stopped, "done")).await;
        server.stop(&stopped).await;
        assert_eq!(within(server.final_job(&stopped)).await["status"], "STOPPED", "{what}");
        let log = server.log_text(&stopped).await;
        assert!(log.starts_with("***") && values.iter().all(|it| !log.contains(it)), "{what}: {log:.300}");
    }
    // The values have at most 512 KiB, and twice that with their lines.
    let more = server.peak_memory().saturating_sub(before) / 1024;
    assert!(more < 128, "{more} MiB more");
}
