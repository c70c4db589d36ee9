//! Requests that begin right, and are changed at random: the same on every machine.

use serde_json::json;

use super::{Attack, post, right};

/// Numbers that follow from a seed, the same on every machine (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end.max(1)).expect("a number");
        usize::try_from(self.next() % end).expect("a number")
    }

    fn choose<'a, T>(&mut self, among: &'a [T]) -> &'a T {
        &among[self.below(among.len())]
    }

    /// Changes some bytes: flipped, removed, repeated, cut off, or others put between them.
    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        const ODD: &[&[u8]] = &[
            b"\0",
            b"\r",
            b"\n",
            b"\r\n",
            b"\r\n\r\n",
            b" ",
            b"\t",
            b":",
            b",",
            b"\"",
            b"\\",
            b"{",
            b"}",
            b"[",
            b"]",
            b"%",
            b"%00",
            b"%ff",
            b"\x80",
            b"\xff\xfe",
            b"\xed\xa0\x80",
            b"\xf4\x90\x80\x80",
            b"\\ud800",
            b"-1",
            b"99999999999999999999",
            b"1e999",
            b"null",
            b"$",
            b"@",
            b"...",
        ];
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len() + 1);
            let length = self.below((bytes.len() - at).min(16) + 1);
            match self.below(5) {
                0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                1 => drop(bytes.drain(at..at + length)),
                2 => {
                    let part = bytes[at..at + length].to_vec();
                    bytes.splice(at..at, part);
                }
                3 if self.below(4) == 0 => bytes.truncate(at),
                _ => drop(bytes.splice(at..at, self.choose(ODD).iter().copied())),
            }
        }
    }
}

/// The request with this number. Some have odd bytes anywhere, others only in the body, the
/// document or the query, so that these are reached.
pub(super) fn request(number: usize) -> Attack {
    let mut random = Random(u64::try_from(number).expect("a number"));
    let documents = [
        "{ jobs(first: 5, status: [RUNNING]) { totalCount nodes { id logs(first: 3) { lines { text } } } } }",
        "query Q($a: ID!, $b: [JobStatus!] = [ERROR]) { job(id: $a) { ...F } jobs(status: $b) { cursor } } fragment F on Job { id type @skip(if: true) }",
        "mutation { createPipeline(input: { workspaceId: \"3f2b8c1e-6f0a-4c5e-9d3b-2a7f1e4c5d6b\", name: \"P\", script: \"\"\"echo\"\"\", schedule: \"0 0 * * * *\" }) { job { id } } }",
        "subscription { jobStatusChanged(after: \"x\") { status } }",
    ];
    match random.below(3) {
        0 => {
            let mut bytes = random.choose(&right()).clone();
            random.mutate(&mut bytes);
            Attack::broken(bytes)
        }
        1 => {
            let mut document = random.choose(&documents).as_bytes().to_vec();
            random.mutate(&mut document);
            let variables = json!({ "a": random.next(), "b": [null, "x", -1.5], "": {} });
            let query = String::from_utf8_lossy(&document);
            Attack::whole(post(json!({ "query": query, "variables": variables }).to_string()))
        }
        _ => {
            let query = json!({ "query": random.choose(&documents), "variables": { "a": "x" }, "operationName": null, "extensions": {} });
            let mut body = query.to_string().into_bytes();
            random.mutate(&mut body);
            body.push(b' '); // a request without a body is another test
            Attack::whole(post(body))
        }
    }
}
