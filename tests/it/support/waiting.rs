//! Waiting for what is to come, and what a test holds a job with.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

/// Longer than anything here takes; a test that waits for what never comes ends.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The value, which is a text.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not a text: {value}"))
}

/// Waits for something that is expected soon.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes far too long")
}

/// Waits until `look` finds something: for what gives no event that could be waited for, as the end of a process.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Whether a process is there, and not only a zombie.
pub fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// Sends a signal to a process.
pub fn signal(pid: i32, name: &str) {
    let sent = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status().expect("kill");
    assert!(sent.success(), "SIG{name} to {pid}");
}

/// Bash that waits until a file is there: what a test holds a job with.
pub fn wait_for(file: &Path) -> String {
    format!("until [ -e '{}' ]; do sleep 0.01; done", file.display())
}

/// Waits until a file has this many whole lines, and answers them.
pub async fn lines_of(file: &Path, count: usize) -> Vec<String> {
    let what = format!("{count} lines in {}", file.display());
    eventually(&what, async || {
        let content = std::fs::read_to_string(file).ok()?;
        let lines: Vec<String> = content.lines().map(str::to_owned).collect();
        (content.ends_with('\n') && lines.len() >= count).then_some(lines)
    })
    .await
}

/// Waits until a file holds this many process ids, and answers them.
pub async fn pids_of(file: &Path, count: usize) -> Vec<i32> {
    lines_of(file, count).await.iter().map(|line| line.parse().expect("a pid")).collect()
}

/// What the server itself says in a log.
pub fn system_lines(lines: &[Value]) -> Vec<String> {
    lines.iter().filter(|line| line["stream"] == "SYSTEM").map(|line| text(&line["text"]).to_owned()).collect()
}

/// Says that something is not tested here, and why; past the harness, which would keep it to itself. In CI there has to be what is
/// needed.
pub fn skip(what: &str) {
    let why = format!("SKIPPED: {what}");
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{why}");
    let _ = writeln!(std::io::stderr(), "{why}");
}
