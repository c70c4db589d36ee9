//! kill -9 of a real server at random moments, under load.

use crate::history::Violation;
use crate::storm::{OPTIONS, Storm};
use crate::support::TestServer;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_promise_is_kept_when_servers_are_killed_at_random_moments() {
    let mut server = TestServer::with(OPTIONS);
    let mut storm = Storm::over(&server, 30, server.scratch(), "").await;
    for _ in 0..storm.rounds {
        storm.round(&[server.address()], |_| server.kill()).await;
        server = server.restart();
    }
    let (found, cut_off) = storm.is_over(&server).await;
    assert_eq!(found, Vec::<Violation>::new(), "the server's log:\n{}", server.log());
    assert!(cut_off > 0 || storm.rounds < 10, "no kill has hit a job: there was nothing to test");
    storm.nothing_is_left();
}
