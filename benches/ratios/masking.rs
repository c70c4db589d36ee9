//! What masking costs: a job's output with 200 sensitive values against the same output with none, and the preparation of values of one size
//! against that of twice and four times as many bytes, in time and in memory.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::server::{Server, text};
use crate::{median, report_times};

const ROUNDS: usize = 5;
/// What a job prints for the throughput: 500,000 lines of 80 bytes.
const LINES: usize = 500_000;
/// How many jobs are prepared for one figure: the processor's time is counted in hundredths of a second.
const PREPARED: usize = 20;
const VALUE_BYTES: usize = 60_000;

pub async fn run() {
    throughput().await;
    for (what, values) in [("random", random as fn(usize) -> String), ("repetitive", repetitive)] {
        preparation(what, values).await;
    }
}

/// Words, numbers and signs, as logs have them.
async fn throughput() {
    let mut server = Server::start(1).await;
    let workspace = server.workspace("Workspace").await;
    let line = "2026-11-24 04:51:48 INFO loader: 4711 rows of table orders are loaded in 12 s, ok";
    let script = format!("yes '{}' | head -n {LINES}", &line[..79]);
    let values = |count: usize, of: fn(usize) -> String, length: usize| -> Vec<String> {
        (0..count).map(|index| of(index)[VALUE_BYTES - length..].to_owned()).collect()
    };
    let cases = [
        ("none", Vec::new()),
        ("1 random value of 40 bytes", values(1, random, 40)),
        ("200 random values of 40 bytes", values(200, random, 40)),
        ("8 random values of 60,000 bytes", values(8, random, VALUE_BYTES)),
        ("200 values of 2,500 bytes, one byte again and again", values(200, repetitive, 2_500)),
    ];
    let mut pipelines = Vec::new();
    for (what, values) in &cases {
        pipelines.push(pipeline(&mut server, &workspace, what, &script, values).await);
    }
    let mut times = vec![Vec::new(); cases.len()];
    for _ in 0..ROUNDS {
        for (pipeline, times) in pipelines.iter().zip(&mut times) {
            let started = Instant::now();
            let job = server.run(pipeline).await;
            server.completed(&job).await;
            times.push(started.elapsed());
            server.request(DELETE, json!({ "input": { "id": job } })).await;
        }
    }
    let mut times = times.into_iter().map(median);
    let without = times.next().expect("the first");
    for ((what, _), with) in cases[1..].iter().zip(times) {
        report_times(&format!("{LINES} lines of 80 bytes, masked for {what}, against not masked"), with, without);
    }
}

/// Values of 120 kB, twice and four times that: the server's time for a job that prints nothing, and its memory.
async fn preparation(what: &str, value: fn(usize) -> String) {
    let mut server = Server::start(1).await;
    let workspace = server.workspace("Workspace").await;
    let mut pipelines = Vec::new();
    for count in [0, 2, 4, 8] {
        let values: Vec<String> = (0..count).map(value).collect();
        pipelines.push((count, pipeline(&mut server, &workspace, &count.to_string(), "true", &values).await));
    }
    let mut per_byte = Vec::new();
    let mut without = Duration::ZERO;
    for (count, pipeline) in pipelines {
        let before = server.memory("VmHWM");
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            let used = server.processor_time();
            for _ in 0..PREPARED {
                let job = server.run(&pipeline).await;
                server.completed(&job).await;
            }
            times.push((server.processor_time() - used) / u32::try_from(PREPARED).expect("few"));
        }
        let time = median(times);
        if count == 0 {
            without = time;
            continue;
        }
        let bytes = count * VALUE_BYTES;
        let nanoseconds = time.saturating_sub(without).as_nanos() as f64 / bytes as f64;
        let memory = (server.memory("VmHWM") - before) as f64 * 1024.0 / bytes as f64;
        println!(
            "{bytes} bytes of {what} values: {nanoseconds:.1} ns a byte, the most memory {memory:.0} bytes a byte more"
        );
        per_byte.push(nanoseconds);
    }
    if let [one, two, four] = per_byte[..] {
        println!(
            "{what} values, time a byte: {:.2} x with twice, {:.2} x with four times as many bytes",
            two / one,
            four / one
        );
    }
}

async fn pipeline(server: &mut Server, workspace: &str, name: &str, script: &str, values: &[String]) -> String {
    let properties: Vec<Value> = values
        .iter()
        .enumerate()
        .map(|(index, value)| json!({ "name": format!("demo.s{index}"), "value": value, "sensitive": true }))
        .collect();
    let query =
        "mutation($input: CreatePipelineInput!) { createPipeline(input: $input) { pipeline { id } job { id } } }";
    let input = json!({ "workspaceId": workspace, "name": name, "script": script, "properties": properties });
    let created = server.request(query, json!({ "input": input })).await;
    server.completed(text(&created["createPipeline"]["job"]["id"])).await;
    text(&created["createPipeline"]["pipeline"]["id"]).to_owned()
}

const DELETE: &str = "mutation($input: DeleteJobInput!) { deleteJob(input: $input) { deletedJobId } }";

fn random(seed: usize) -> String {
    let letters: Vec<char> = ('a'..='z').chain('A'..='Z').chain('0'..='9').collect();
    let mut state = seed as u64 + 1;
    let mut letter = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        letters[(state >> 33) as usize % letters.len()]
    };
    (0..VALUE_BYTES).map(|_| letter()).collect()
}

/// One byte again and again, and an end: such values take the automata of general libraries quadratic time or memory.
fn repetitive(seed: usize) -> String {
    let end = format!("{seed:03}");
    let letter = char::from(b'a' + (seed % 26) as u8);
    letter.to_string().repeat(VALUE_BYTES - end.len()) + &end
}
