//! How fast the server is, as ratios against what the machine does without it, measured side by side in one run.
//!
//! `cargo bench` runs everything; `cargo bench --bench ratios -- jobs lines masking page fanout ten-thousand latency durability memory nodes claim stream`
//! some of it. Machines are noisy, so each figure is the median of several rounds, in which the server and what it is compared with take turns.

#![allow(clippy::expect_used, clippy::panic, reason = "a benchmark that cannot be run says why by panicking")]

mod bare;
mod claim;
mod durability;
mod fanout;
mod filling;
mod jobs;
mod latency;
mod lines;
mod masking;
mod memory;
mod nodes;
mod page;
mod postgres;
mod server;
mod stream;
#[path = "../../tests/it/support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the tests need more of it")]
mod support;

use std::time::Duration;

fn main() {
    let mut arguments: Vec<String> = std::env::args().skip(1).filter(|it| !it.starts_with("--")).collect();
    // The server's own choice. What is asked over HTTP wants one, even without TLS.
    rustls::crypto::ring::default_provider().install_default().expect("the first choice");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    if arguments.first().is_some_and(|it| it == "bare-server") {
        return runtime.block_on(bare::serve(arguments.remove(1)));
    }
    let wanted = |name: &str| arguments.is_empty() || arguments.iter().any(|it| it == name);
    runtime.block_on(async {
        if wanted("jobs") {
            jobs::run().await;
        }
        if wanted("lines") {
            lines::run().await;
        }
        if wanted("masking") {
            masking::run().await;
        }
        if wanted("page") {
            page::run().await;
        }
        if wanted("fanout") {
            fanout::run().await;
        }
        if wanted("ten-thousand") {
            fanout::ten_thousand().await;
        }
        if wanted("latency") {
            latency::run().await;
        }
        if wanted("durability") {
            durability::run().await;
        }
        if wanted("memory") {
            memory::run().await;
        }
        if wanted("nodes") {
            nodes::run().await;
        }
        if wanted("claim") {
            claim::run().await;
        }
        if wanted("stream") {
            stream::run().await;
        }
    });
}

/// The middle of some durations.
fn median(mut durations: Vec<Duration>) -> Duration {
    durations.sort();
    durations[durations.len() / 2]
}

/// The duration that this share of some durations does not exceed.
fn percentile(durations: &[Duration], share: f64) -> Duration {
    let mut durations = durations.to_vec();
    durations.sort();
    durations[((durations.len() - 1) as f64 * share).round() as usize]
}

/// Prints how much of the machine's speed the server reaches: 1.0 is all of it.
fn report_share(what: &str, ours: Duration, theirs: Duration) {
    println!(
        "{what}: ratio {:.3} (ours {ours:.1?}, the other {theirs:.1?})",
        theirs.as_secs_f64() / ours.as_secs_f64()
    );
}

/// Prints how many times as long the server takes.
fn report_times(what: &str, ours: Duration, theirs: Duration) {
    println!("{what}: {:.1} x (ours {ours:.1?}, the other {theirs:.1?})", ours.as_secs_f64() / theirs.as_secs_f64());
}
