//! GraphiQL: its files as they are served, and the page in a real browser, which `web/test/graphiql.mjs` drives.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use reqwest::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, X_CONTENT_TYPE_OPTIONS,
};

use crate::support::{TestServer, skip};

const TOKEN: &str = "jobstream-test-5d0c2a9be417";
const BROWSERS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// What a scenario needs of the machine.
struct Browser {
    chromium: PathBuf,
    /// Where the script is installed, with what it needs.
    directory: PathBuf,
}

/// The browser and the script, made ready once for all tests; or why there is none, which is told as a test that is skipped.
fn browser() -> Option<&'static Browser> {
    static BROWSER: OnceLock<Result<Browser, String>> = OnceLock::new();
    match BROWSER.get_or_init(prepare) {
        Ok(browser) => Some(browser),
        Err(why) => {
            skip(&format!("GraphiQL in a browser. {why}"));
            None
        }
    }
}

fn prepare() -> Result<Browser, String> {
    let chromium = match std::env::var_os("CHROMIUM") {
        Some(chromium) => PathBuf::from(chromium),
        None => BROWSERS.iter().find_map(|it| on_path(it)).ok_or("There is no Chromium here.")?,
    };
    on_path("node").ok_or("There is no node here.")?;
    on_path("npm").ok_or("There is no npm here.")?;
    let web = Path::new(env!("CARGO_MANIFEST_DIR")).join("web");
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("web");
    std::fs::create_dir_all(&directory).expect("a directory");
    let lock = std::fs::read(web.join("package-lock.json")).expect("the lock file");
    // What is installed stays until other versions are wanted; npm writes this file only when all is there.
    let is_installed = directory.join("node_modules/.package-lock.json").exists()
        && std::fs::read(directory.join("package-lock.json")).is_ok_and(|installed| installed == lock);
    for source in [".npmrc", "package.json", "package-lock.json", "tsconfig.json", "src", "test"] {
        let copied = Command::new("cp").arg("-R").arg(web.join(source)).arg(&directory).status();
        assert!(copied.is_ok_and(|status| status.success()), "{source} cannot be copied");
    }
    if !is_installed {
        let npm =
            Command::new("npm").args(["ci", "--include=dev"]).current_dir(&directory).stdin(Stdio::null()).output();
        let npm = npm.expect("npm");
        if !npm.status.success() {
            return Err(format!("`npm ci` has failed: {}", String::from_utf8_lossy(&npm.stderr)));
        }
    }
    Ok(Browser { chromium, directory })
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(program)).find(|it| it.is_file())
}

/// Where a picture of the page is kept for whoever wants to see it.
fn screenshot() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target directory");
    std::fs::create_dir_all(target.join("artifacts")).expect("a directory");
    target.join("artifacts/graphiql.png")
}

/// Whether the page is in the program. If it was built without npm there is nothing to be tried in a browser.
async fn is_built_in(server: &TestServer) -> bool {
    let built_in = !page(server).await.contains("GraphiQL is not part of this build");
    if !built_in {
        skip("GraphiQL in a browser. The program was built without npm.");
    }
    built_in
}

/// Lets a person that the script plays do something with the page.
async fn play(server: &TestServer, scenario: &str) {
    let Some(browser) = tokio::task::spawn_blocking(browser).await.expect("a browser") else { return };
    if !is_built_in(server).await {
        return;
    }
    let mut command = tokio::process::Command::new("node");
    command.args(["test/graphiql.mjs", scenario, &server.url("")]).current_dir(&browser.directory);
    command.env("CHROMIUM", &browser.chromium).env("SCREENSHOT", screenshot()).env("TOKEN", TOKEN);
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await.expect("node");
    assert!(output.status.success(), "{scenario}: {}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_type_checked() {
    let Some(browser) = tokio::task::spawn_blocking(browser).await.expect("a browser") else { return };
    let mut npm = tokio::process::Command::new("npm");
    let checked = npm.args(["run", "--silent", "check"]).current_dir(&browser.directory).stdin(Stdio::null()).output();
    let checked = checked.await.expect("npm");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}

async fn page(server: &TestServer) -> String {
    let answer = server.http().get(server.url("/")).send().await.expect("an answer");
    answer.text().await.expect("text")
}

#[tokio::test(flavor = "multi_thread")]
async fn graphiql_runs_a_query_without_the_network() {
    let server = TestServer::with(&["--slots", "0"]);
    play(&server, "runs a query").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ready_made_tabs_follow_a_job_to_its_last_line() {
    let server = TestServer::start();
    play(&server, "follows a job through the ready-made tabs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_is_not_known_yet_is_asked_for() {
    let server = TestServer::with(&["--slots", "0"]);
    play(&server, "says what is missing").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tabs_that_another_page_has_stored_do_not_hide_the_ready_made_ones() {
    let server = TestServer::with(&["--slots", "0"]);
    play(&server, "shows tabs of another GraphiQL to nobody").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_field_is_for_requests_and_subscriptions() {
    let server = TestServer::with_environment(&["--slots", "0"], &[("JOBSTREAM_TOKEN", TOKEN)]);
    play(&server, "asks for the token").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn graphiql_is_dark_where_the_system_is() {
    let server = TestServer::with(&["--slots", "0"]);
    play(&server, "is dark where the system is").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_asked_for_again_and_its_files_are_kept() {
    let server = TestServer::with_environment(&["--slots", "0"], &[("JOBSTREAM_TOKEN", TOKEN)]);
    let anybody = reqwest::Client::new();
    let get = async |path: &str| anybody.get(server.url(path)).send().await.expect("an answer");
    let page = get("/").await;
    let header = |answer: &reqwest::Response, name| answer.headers()[name].to_str().expect("text").to_owned();
    assert_eq!((page.status().as_u16(), header(&page, CACHE_CONTROL).as_str()), (200, "no-cache"));
    assert_eq!(header(&page, X_CONTENT_TYPE_OPTIONS), "nosniff");
    assert!(header(&page, CONTENT_SECURITY_POLICY).contains("frame-ancestors 'none'"));
    if !is_built_in(&server).await {
        return;
    }
    assert!(header(&page, CONTENT_SECURITY_POLICY).starts_with("default-src 'self';"));
    let again =
        anybody.get(server.url("/")).header(IF_NONE_MATCH, header(&page, ETAG)).send().await.expect("an answer");
    assert_eq!(again.status(), 304);

    let page = page.text().await.expect("text");
    let files: Vec<&str> = page.split('"').filter(|it| it.starts_with("/assets/")).collect();
    for (extension, content_type) in
        [(".js", "text/javascript; charset=utf-8"), (".css", "text/css; charset=utf-8"), (".svg", "image/svg+xml")]
    {
        let file = files.iter().find(|it| it.ends_with(extension)).expect("a file");
        let answer = get(file).await;
        assert_eq!((answer.status().as_u16(), header(&answer, CONTENT_TYPE).as_str()), (200, content_type), "{file}");
        assert_eq!(header(&answer, CACHE_CONTROL), "public, max-age=31536000, immutable");
        assert_eq!(header(&answer, X_CONTENT_TYPE_OPTIONS), "nosniff");
    }
    for path in ["/assets/nothing.js", "/assets/index.html", "/assets/", "/assets", "/assets/..%2findex.html"] {
        let answer = get(path).await;
        assert_eq!(answer.status(), 404, "{path}");
        assert!(answer.text().await.expect("text").contains("NOT_FOUND"), "{path}");
    }
}
