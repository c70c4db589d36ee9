//! Installations that do not work any more: Meltano's own and those of plugins are made again.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::meltano::property;
use crate::provisioning::path_without_meltano;
use crate::support::{TestServer, text};

/// The `bin` directories of Meltano's environment and of those of plugins.
fn environments(server: &TestServer) -> Vec<PathBuf> {
    let meltano = server.data_directory().join("meltano");
    let found = std::process::Command::new("find")
        .args([meltano.join("current/bin"), meltano.join("pipelines")])
        .args(["-path", "*/bin/python"])
        .output()
        .expect("find");
    let found = String::from_utf8(found.stdout).expect("UTF-8");
    let found: Vec<_> = found.lines().map(|it| Path::new(it).parent().expect("a directory").to_owned()).collect();
    assert_eq!(found.len(), 3, "{found:?}");
    found
}

/// Waits until a job is over, however long installing takes, and answers it and its log.
async fn over(server: &TestServer, job: &str) -> (Value, String) {
    for _ in 0..3_000 {
        let done = server.job(job).await;
        if matches!(text(&done["status"]), "COMPLETE" | "ERROR" | "STOPPED") {
            return (done, server.log_text(job).await);
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    panic!("job {job} takes too long: {}", server.log_text(job).await);
}

async fn run(server: &TestServer, pipeline: &str) -> (Value, String) {
    let job = server.run(pipeline).await;
    over(server, &job).await
}

/// Creates a workspace, and answers its id once it is READY.
async fn workspace(server: &TestServer, name: &str) -> String {
    let created = server.begin_workspace(name).await;
    let jobs = created["jobs"].as_array().expect("jobs");
    let init = text(&jobs.iter().find(|it| it["type"] == "WORKSPACE_INIT").expect("it")["id"]);
    let (done, log) = over(server, init).await;
    assert_eq!(done["status"], "COMPLETE", "{log}");
    text(&created["workspace"]["id"]).to_owned()
}

/// The name of a damage, and how it is done to the programs of an environment.
type Damage = (&'static str, fn(&Path));

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_work_any_more_is_installed_again() {
    let Some(path) = path_without_meltano() else { return };
    let mut server = TestServer::with_environment(&[], &[("PATH", &path), ("JOBSTREAM_MELTANO", "")]);
    // The data directory is a link, so that it can be moved; the server works with where it leads.
    server.kill();
    let data = server.data_directory();
    let [first, second] = ["first", "second"].map(|name| server.directory().join(name));
    fs::rename(&data, &first).expect("it is moved");
    symlink(&first, &data).expect("a link");
    let mut server = server.restart();

    let id = workspace(&server, "W").await;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/seattle-weather.csv");
    let files = json!([{ "path": source, "format": "csv", "table_name": "weather", "primary_keys": ["date"] }]);
    let properties = json!([property("tap-spreadsheets.files", &files.to_string())]);
    let plugins = ["tap-spreadsheets", "target-jsonl"];
    let input = json!({ "workspaceId": id, "name": "P", "dataComponents": plugins, "properties": properties });
    let created = server.begin_pipeline(input).await;
    let (done, log) = over(&server, text(&created["job"]["id"])).await;
    assert_eq!(done["status"], "COMPLETE", "{log}");
    let pipeline = text(&created["pipeline"]["id"]).to_owned();
    let (done, log) = run(&server, &pipeline).await;
    assert_eq!(done["status"], "COMPLETE", "{log}");
    assert!(!log.contains("nstalled again"), "{log}");

    server.kill();
    fs::rename(&first, &second).expect("it is moved");
    fs::remove_file(&data).expect("the link");
    symlink(&second, &data).expect("a link");
    server = server.restart();
    let (done, log) = run(&server, &pipeline).await;
    assert_eq!(done["status"], "COMPLETE", "moved: {log}");
    assert_eq!(log.matches("installed again").count(), 3, "{log}");
    let (done, log) = run(&server, &pipeline).await;
    assert_eq!((&done["status"], log.contains("installed again")), (&json!("COMPLETE"), false), "{log}");

    let damages: [Damage; 4] = [
        ("the interpreter is gone", |bin| fs::remove_file(bin.join("python")).expect("it goes")),
        ("the interpreter does not work", |bin| {
            fs::remove_file(bin.join("python")).expect("it goes");
            fs::write(bin.join("python"), "not a program").expect("a file");
        }),
        ("the interpreter is another version", |bin| {
            let packages = bin.parent().expect("it").join("lib");
            let version = fs::read_dir(&packages).expect("lib").next().expect("one").expect("an entry").path();
            fs::rename(&version, packages.join("python3.1")).expect("it is moved");
            // Of a check that has to be repeated; there may have been none since the installation.
            let _ = fs::remove_file(bin.parent().expect("it").join("jobstream-checked"));
        }),
        ("the programs are empty", |bin| {
            for name in ["meltano", "tap-spreadsheets", "target-jsonl"].iter().filter(|it| bin.join(it).exists()) {
                fs::write(bin.join(name), "").expect("a file");
            }
        }),
    ];
    for (damage, inflict) in damages {
        environments(&server).iter().for_each(|it| inflict(it));
        let (done, log) = run(&server, &pipeline).await;
        assert_eq!(done["status"], "COMPLETE", "{damage}: {log}");
        assert_eq!(log.matches("installed again").count(), 3, "{damage}: {log}");
    }
    fs::remove_file(server.data_directory().join("meltano/current/bin/python")).expect("it goes");
    workspace(&server, "Other").await;
}
