//! Requests that are odd by design.

use super::{Attack, post, request, right};

/// What is odd by design.
pub(super) fn requests() -> Vec<Attack> {
    let mut odd = Vec::new();
    let long = "x".repeat(100_000);
    let deep = |open: &str, close: &str| format!("{}{}", open.repeat(50_000), close.repeat(50_000));
    // Request lines.
    for method in
        ["PUT", "DELETE", "PATCH", "HEAD", "TRACE", "CONNECT", "PROPFIND", "get", "Q", "GET\u{e9}", long.as_str()]
    {
        for path in ["/graphql", "/", "/jobs/x/logs"] {
            odd.push(Attack::broken(request(&format!("{method} {path}"), "", b"")));
        }
    }
    for target in [
        "*",
        "",
        "//",
        "/..",
        "/../../etc/passwd",
        "/assets/../../etc/passwd",
        "/assets/%2e%2e/%2e%2e/etc/passwd",
        "/%",
        "/%00",
        "/%ff",
        "/graphql?",
        "/graphql?query",
        "/graphql?query=",
        "/graphql?query=%",
        "/graphql?query=%ff",
        "/graphql?query={__typename}&query={__typename}",
        "/graphql?variables=%7B",
        "/graphql?query={__typename}&variables=[]",
        "/graphql?query={__typename}&variables=%7B%22a%22:1e999%7D",
        "/graphql?query={__typename}&extensions=1",
        "/graphql?query={__typename}&operationName=%00",
        "/jobs//logs",
        "/jobs/x/logs",
        "/jobs/%00/logs",
        "/jobs/3f2b8c1e-6f0a-4c5e-9d3b-2a7f1e4c5d6b/logs?sequence=-1",
        "/jobs/3f2b8c1e-6f0a-4c5e-9d3b-2a7f1e4c5d6b/logs?sequence=99999999999999999999",
        "/jobs/3f2b8c1e-6f0a-4c5e-9d3b-2a7f1e4c5d6b/logs?sequence=a&follow=perhaps",
        "http://localhost/graphql?query={__typename}",
        "http://evil.example/graphql",
        "/graphql#x",
        "/\u{e9}",
        "graphql",
    ] {
        odd.push(Attack::broken(request(&format!("GET {target}"), "", b"")));
    }
    odd.push(Attack::whole(request(&format!("GET /{long}"), "", b"")));
    odd.push(Attack::broken(request(&format!("GET /graphql?query={long}"), "", b"")));
    // Versions, and what is no request.
    for line in [
        "GET /",
        "GET / HTTP/0.9",
        "GET / HTTP/1.0",
        "GET / HTTP/2.0",
        "GET / HTTP/9.9",
        "GET / FTP/1.1",
        "GET  /  HTTP/1.1",
        "",
        "\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM",
    ] {
        odd.push(Attack::broken(format!("{line}\r\nHost: localhost\r\n\r\n")));
    }
    odd.push(Attack::broken(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec()));
    odd.push(Attack::broken(vec![0; 4096]));
    odd.push(Attack::broken(vec![0xff; 4096]));
    // Headers.
    for header in [
        "Host: localhost\r\n",
        "Host\r\n",
        ": x\r\n",
        " x: y\r\n",
        "x : y\r\n",
        "x: a\r\n b\r\n",
        "x: \0\r\n",
        "x: \u{7f}\r\n",
        "x: \u{e9}\r\n",
        "x: a\rb\r\n",
        "x: a\n",
        "Expect: 100-continue\r\n",
        "Expect: x\r\n",
        "Upgrade: h2c\r\n",
        "Upgrade: websocket\r\n",
        "Connection: Host\r\n",
        "Accept: */*;q=x\r\n",
        "Accept: ,,,\r\n",
        "Accept: text/event-stream;q=9\r\n",
        "Accept-Encoding: gzip;q=-1\r\n",
        "Accept-Encoding: \r\n",
        "Range: bytes=0-0,-1,5-\r\n",
        "If-None-Match: \r\n",
        "If-None-Match: W/\r\n",
        "Origin: \r\n",
        "Cookie: a=b\r\n",
        "Forwarded: for=\"_x\"\r\n",
        "X-Forwarded-For: ,,::,999.1.1.1\r\n",
        "Last-Event-ID: x\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 0x10\r\n",
        "Content-Length: 1, 1\r\n",
        "Content-Length: 1\r\nContent-Length: 2\r\n",
        "Content-Length: 18446744073709551616\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
    ] {
        odd.push(Attack::broken(request("GET /graphql?query={__typename}", header, b"")));
        odd.push(Attack::broken(request("POST /graphql", &format!("Content-Type: application/json\r\n{header}"), b"")));
    }
    odd.push(Attack::broken(request("GET /", &format!("x: {long}\r\n").repeat(10), b"")));
    odd.push(Attack::broken(request("GET /", &"a: b\r\n".repeat(200), b"")));
    // Chunks.
    for chunks in [
        "0\r\n\r\n",
        "zz\r\n\r\n",
        "-1\r\n\r\n",
        "ffffffffffffffff\r\nx",
        "fffffffffffffffff\r\nx",
        "5;x=\"\r\nabcde\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "2\r\n{}\r\n0\r\nTrailer: x\r\n\r\n",
        "2\n{}\n0\n\n",
    ] {
        odd.push(Attack::broken(
            request("POST /graphql", "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n", b"")
                .into_iter()
                .chain(chunks.bytes())
                .collect::<Vec<u8>>(),
        ));
    }
    // Media types and codings of bodies.
    for kind in [
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/graphql",
        "application/json; charset=utf-16",
        "application/json;charset=\"",
        "application/json, text/plain",
        "APPLICATION/JSON",
        "application/",
        "/",
        "application/graphql-response+json",
    ] {
        odd.push(Attack::whole(request(
            "POST /graphql",
            &format!("Content-Type: {kind}\r\n"),
            br#"{"query":"{__typename}"}"#,
        )));
    }
    for coding in ["gzip", "zstd", "br", "deflate", "identity", "x"] {
        odd.push(Attack::whole(request(
            "POST /graphql",
            &format!("Content-Type: application/json\r\nContent-Encoding: {coding}\r\n"),
            b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03",
        )));
    }
    // Bodies.
    for body in [
        "{",
        "[",
        "[]",
        "[{\"query\":\"{__typename}\"}]",
        "null",
        "1",
        "\"x\"",
        "{}",
        "{\"query\":null}",
        "{\"query\":1}",
        "{\"query\":[]}",
        "{\"query\":\"\"}",
        "{\"query\":\"{\"}",
        "{\"query\":\"{__typename}\",\"variables\":1}",
        "{\"query\":\"{__typename}\",\"variables\":\"{}\"}",
        "{\"query\":\"{__typename}\",\"variables\":[]}",
        "{\"query\":\"{__typename}\",\"operationName\":1}",
        "{\"query\":\"{__typename}\",\"operationName\":\"\\u0000\"}",
        "{\"query\":\"{__typename}\",\"extensions\":[]}",
        "{\"query\":\"{__typename}\",\"query\":\"{a}\"}",
        "{\"query\":\"{__typename}\",\"variables\":{\"a\":1,\"a\":2}}",
        "{\"query\":\"{__typename}\"}{}",
        "{\"query\":\"{__typename}\"}\0",
        "\u{feff}{\"query\":\"{__typename}\"}",
        "{\"query\":\"\\ud800\"}",
        "{\"query\":\"{ job(id: \\\"\\u0000\\\") { id } }\"}",
        "{\"query\":\"query($a:Int){__typename}\",\"variables\":{\"a\":1e400}}",
        "{\"query\":\"query($a:Int){jobs(first:$a){totalCount}}\",\"variables\":{\"a\":9999999999}}",
        "{\"query\":\"{jobs(first:-9223372036854775808){totalCount}}\"}",
        "{'query':'x'}",
        "{\"query\":\"{__typename}\",}",
        "NaN",
        "{\"query\":\"query($a:[Nothing]=[X]){__typename}\"}",
        "{\"query\":\"query($a:[[jobs!]!]=[[1]]){__typename}\"}",
        "{\"extensions\":{\"persistedQuery\":{}}}",
        "{\"extensions\":{\"persistedQuery\":{\"version\":\"1\",\"sha256Hash\":7}}}",
    ] {
        odd.push(Attack::whole(post(body)));
    }
    for body in [
        deep("[", "]"),
        deep("{\"a\":", "}"),
        format!("{{\"query\":\"{{__typename}}\",\"variables\":{}}}", deep("[", "]")),
        format!("{{\"query\":\"{}\"}}", deep("{a", "}")),
        format!("{{\"query\":\"query({})\"}}", "$a:[".repeat(9_000)),
    ] {
        odd.push(Attack::whole(post(body)));
    }
    odd.push(Attack::whole(post(b"{\"query\":\"\xff\xfe\"}")));
    odd.push(Attack::whole(post(b"\xff\xfe{\0\"\0")));
    odd.push(Attack::broken(post("x".repeat(3 << 20))));
    // Several at once, the second of which is smuggled, or begins too early.
    let right = right();
    for (first, second) in [(0, 4), (4, 4), (4, 0), (8, 9), (6, 4)] {
        odd.push(Attack::broken([right[first].clone(), right[second].clone()].concat()));
    }
    odd
}
