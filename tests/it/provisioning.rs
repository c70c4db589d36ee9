//! Where Meltano comes from: it is installed, once, with real plugins from the Python package index; and what is said where it cannot be.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::meltano::{property, run};
use crate::support::{TestServer, skip, text};

/// A PATH with what scripts need, and without Python and Meltano.
fn path_without_python(directory: &Path) -> String {
    let programs = directory.join("programs");
    fs::create_dir_all(&programs).expect("a directory");
    for name in ["bash", "git", "cat", "env", "sh"] {
        let found = std::env::split_paths(&std::env::var_os("PATH").expect("a PATH"))
            .map(|it| it.join(name))
            .find(|it| it.exists());
        std::os::unix::fs::symlink(found.expect("the program"), programs.join(name)).expect("a link");
    }
    programs.to_str().expect("UTF-8").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_python_scripts_run_and_what_needs_meltano_says_what_to_install() {
    let programs = tempfile::tempdir().expect("a directory");
    let path = path_without_python(programs.path());
    let server = TestServer::with_environment(&[], &[("PATH", &path), ("JOBSTREAM_MELTANO", "")]);
    let workspace = server.begin_workspace("W").await;
    let init =
        workspace["jobs"].as_array().expect("jobs").iter().find(|it| it["type"] == "WORKSPACE_INIT").expect("it");
    assert_eq!(server.final_job(text(&init["id"])).await["status"], "COMPLETE");
    let log = server.log_text(text(&init["id"])).await;
    assert!(log.contains("Python 3 was not found") && log.contains("apt-get install"), "{log}");
    let workspace = text(&workspace["workspace"]["id"]);
    let script = server.pipeline(workspace, "Script", "echo fine").await;
    let (done, log) = run(&server, &script).await;
    assert_eq!((&done["status"], log.as_str()), (&json!("COMPLETE"), "fine\n"));
    let files = json!([property("tap-spreadsheets.files", "[]")]);
    let input = json!({ "workspaceId": workspace, "name": "Load", "dataComponents": ["tap-spreadsheets", "target-jsonl"], "properties": files });
    let created = server.begin_pipeline(input).await;
    let job = text(&created["job"]["id"]);
    assert_eq!(server.final_job(job).await["status"], "ERROR");
    let log = server.log_text(job).await;
    assert!(log.contains("Python 3 was not found") && log.contains("apt-get install"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_meltano_that_was_named_and_does_not_work_is_an_error() {
    let server = TestServer::with(&["--meltano", "/nowhere/meltano"]);
    let workspace = server.begin_workspace("W").await;
    let init =
        workspace["jobs"].as_array().expect("jobs").iter().find(|it| it["type"] == "WORKSPACE_INIT").expect("it");
    let done = server.final_job(text(&init["id"])).await;
    assert_eq!((&done["status"], &done["attempt"]), (&json!("ERROR"), &json!(1)), "what it says stays true");
    assert!(server.log_text(text(&init["id"])).await.contains("--meltano /nowhere/meltano cannot be run"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_meltano_on_the_path_is_used_and_none_installed() {
    let Some(meltano) = crate::support::installation::meltano() else { return };
    let beside = meltano.parent().expect("a directory").display();
    let path = format!("{beside}:{}", std::env::var("PATH").expect("a PATH"));
    // A variable that is set to nothing says nothing.
    let environment = [("PATH", path.as_str()), ("JOBSTREAM_MELTANO", ""), ("JOBSTREAM_MELTANO_STATE", "")];
    let server = TestServer::with_environment(&[], &environment);
    let workspace = server.workspace("W").await;
    assert!(server.repository(&workspace).join("meltano.yml").exists());
    assert!(!server.data_directory().join("meltano/current").exists());
}

/// A PATH without Meltano, if there is a Python on it and the package index can be reached.
pub fn path_without_meltano() -> Option<String> {
    let path = std::env::var_os("PATH").expect("a PATH");
    let directories = std::env::split_paths(&path).filter(|it| !it.join("meltano").exists());
    let path = std::env::join_paths(directories).expect("a PATH").into_string().expect("UTF-8");
    // What the tests share comes from the same places.
    crate::support::installation::meltano()?;
    let has_python =
        std::process::Command::new("python3").args(["-c", "import ensurepip, venv"]).env("PATH", &path).output();
    if has_python.is_ok_and(|it| it.status.success()) {
        return Some(path);
    }
    skip("Python 3 with venv is needed");
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn from_nothing_a_real_file_is_loaded_by_real_plugins() {
    let Some(path) = path_without_meltano() else { return };
    let server = TestServer::with_environment(&[], &[("PATH", &path), ("JOBSTREAM_MELTANO", "")]);
    // Two that need it at once: one installs it, and the other waits.
    let (one, other) = (server.begin_workspace("W").await, server.begin_workspace("Other").await);
    for workspace in [&one, &other] {
        let jobs = workspace["jobs"].as_array().expect("jobs");
        let init = text(&jobs.iter().find(|it| it["type"] == "WORKSPACE_INIT").expect("it")["id"]);
        assert_eq!(server.final_job(init).await["status"], "COMPLETE", "{}", server.log_text(init).await);
        assert!(server.repository(text(&workspace["workspace"]["id"])).join("meltano.yml").exists());
    }
    let environments = fs::read_dir(server.data_directory().join("meltano")).expect("a directory");
    let environments =
        environments.filter(|it| it.as_ref().expect("it").file_name().to_string_lossy().starts_with("env-"));
    assert_eq!(environments.count(), 1, "it is installed once");

    let workspace = text(&one["workspace"]["id"]);
    let weather = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/seattle-weather.csv");
    let files =
        json!([{ "path": weather, "format": "csv", "table_name": "weather", "primary_keys": ["date"] }]).to_string();
    let component = json!({
        "workspaceId": workspace, "name": "weather", "plugin": "tap-spreadsheets", "properties": [property("files", &files)]
    });
    server.change("createDataComponent", component, "__typename").await;
    let output = server.repository(workspace).join("output");
    for (name, loader, header) in [("Lines", "target-jsonl", 0), ("Table", "target-csv", 1)] {
        let input = json!({ "workspaceId": workspace, "name": name, "dataComponents": ["weather", loader] });
        let pipeline = server.pipeline_with(input).await;
        let (done, log) = run(&server, &pipeline).await;
        assert_eq!(done["status"], "COMPLETE", "{log}");
        let files = || fs::read_dir(&output).expect("what was loaded").map(|it| it.expect("an entry").path());
        let of_this = |path: &std::path::PathBuf| path.extension().is_some_and(|it| (it == "csv") == (header == 1));
        let loaded = files().find(|path| !path.ends_with(".gitignore") && of_this(path)).expect("a file");
        let content = fs::read_to_string(&loaded).expect("what was loaded");
        let rows = content.lines().filter(|line| line.contains("2012/01/01") || line.contains("2015/12/31")).count();
        assert_eq!((content.lines().count() - header, rows), (1_461, 2), "{}: {log}", loaded.display());
        let (done, log) = run(&server, &pipeline).await;
        assert_eq!(done["status"], "COMPLETE", "{log}");
        assert_eq!(fs::read_to_string(&loaded).expect("it"), content, "nothing is new, and nothing is lost: {log}");
        let verify = server.verify(&pipeline).await;
        assert_eq!(server.final_job(&verify).await["status"], "COMPLETE", "{}", server.log_text(&verify).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_that_was_killed_leaves_nothing_half_made() {
    let Some(path) = path_without_meltano() else { return };
    let mut server =
        TestServer::with_environment(&["--stop-grace", "0.1"], &[("PATH", &path), ("JOBSTREAM_MELTANO", "")]);
    let workspace = server.begin_workspace("W").await;
    let jobs = workspace["jobs"].as_array().expect("jobs");
    let init = text(&jobs.iter().find(|it| it["type"] == "WORKSPACE_INIT").expect("it")["id"]).to_owned();
    for step in ["Making a virtual environment.", "Installing Meltano into it."] {
        server.line_appears(&init, step).await;
        server = server.kill_and_restart();
    }
    let done = server.final_job(&init).await;
    assert_eq!(
        (&done["status"], &done["attempt"]),
        (&json!("COMPLETE"), &json!(3)),
        "{}",
        server.log_text(&init).await
    );
    let environments = fs::read_dir(server.data_directory().join("meltano")).expect("a directory");
    let environments =
        environments.filter(|it| it.as_ref().expect("it").file_name().to_string_lossy().starts_with("env-"));
    assert_eq!(environments.count(), 1, "what the killed ones have left is gone");
}
