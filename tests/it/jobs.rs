//! Jobs, from their creation to their end.

use serde_json::json;

use crate::support::TestServer;

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_exits_with_0_is_complete() {
    let server = TestServer::start();
    let job = server.run_script("echo hello; echo trouble >&2").await;
    let done = server.final_job(&job).await;
    assert_eq!((&done["status"], &done["exitCode"]), (&json!("COMPLETE"), &json!(0)));
    let mut lines = server.log_text(&job).await.lines().map(str::to_owned).collect::<Vec<_>>();
    lines.sort();
    assert_eq!(lines, ["hello", "trouble"]);
}
