//! Results and errors that are longer than one message between nodes, read at another node than their owner's.

use serde_json::{Value as Json, json};

use super::{await_status, invoke, written};
use crate::harness::{Cluster, Running, Setup};
use crate::proxy::Proxy;

/// Brings, or fails with, one line as long as it is kept, whose bytes are no text: each of them becomes three.
const LONG: &str = r#"#!/usr/bin/env python3
import json
import sys
payload = json.load(sys.stdin)
head, tail = (b'{"type":"error","message":"', b'"}') if payload["fails"] else (b'{"type":"result","value":"', b'"}')
fill = b"\xff" * payload["bytes"] if payload["binary"] else b"x" * payload["bytes"]
sys.stdout.buffer.write(head + fill + tail + b"\n")
"#;

/// The body of an answer, as it came.
#[track_caller]
fn text(node: &Running, path: &str) -> String {
    let answer = node.get(path);
    assert_eq!(answer.status, 200, "{}", answer.text.chars().take(500).collect::<String>());
    answer.text
}

#[test]
fn a_long_result_or_error_is_the_same_at_every_node() {
    let cluster = Cluster::new();
    let a = cluster.play("a", Setup::new());
    let b = cluster.play("b", Setup::new().dialling(&a).with(written(&cluster, "long", LONG, 60_000)));
    a.await_lifecycle("b", "online");
    b.await_lifecycle("a", "online");
    // As long as one answer holds, a little longer, and as long as a line is read.
    for (number, (bytes, is_binary)) in
        [(130_000, false), (132_000, false), (300 * 1024, true), (523_000, true)].into_iter().enumerate()
    {
        for (fails, status) in [(false, "completed"), (true, "errored")] {
            let payload = json!({ "bytes": bytes, "fails": fails, "binary": is_binary });
            let run = invoke(&b, &format!("long-{number}-{fails}"), "long", &payload);
            await_status(&b, &run, status);
            let own = text(&b, &format!("/runs/{run}"));
            let factor = if is_binary { 3 } else { 1 };
            assert!(bytes * factor < own.len(), "{bytes}: the owner has only {}", own.len());
            assert!(own == text(&a, &format!("/runs/{run}")), "{bytes}, {fails}: another record than the owner's");
            let [shown, there] = [&b, &a].map(|node| node.command(&["runs", "show", &run, "--json"]));
            let exits = [&shown, &there].map(|output| output.status.code());
            assert_eq!(exits, [Some(i32::from(fails)); 2], "a run that failed is this command's failure");
            assert!(bytes * factor < shown.stdout.len() && shown.stdout == there.stdout, "{bytes}, {fails}");
            let events = |node: &Running| -> Json { node.get(&format!("/runs/{run}/events")).body };
            assert_eq!(events(&a), events(&b), "{bytes}, {fails}");
        }
    }
}

/// All of it in one piece takes more than six seconds here, and an answer has three.
#[test]
fn a_long_result_comes_over_a_slow_link() {
    const BYTES_PER_SECOND: u64 = 40 * 1024;
    let cluster = Cluster::new();
    let b = cluster.play("b", Setup::new().with(written(&cluster, "long", LONG, 60_000)));
    let proxy = Proxy::to(b.mesh().parse().expect("an address"));
    let a = cluster.play("a", Setup::new().dialling_address(proxy.address()));
    a.await_lifecycle("b", "online");
    b.await_lifecycle("a", "online");
    let payload = json!({ "bytes": 150 * 1024, "fails": false, "binary": false });
    let run = invoke(&b, "long", "long", &payload);
    await_status(&b, &run, "completed");
    proxy.slow(BYTES_PER_SECOND);
    let there = text(&a, &format!("/runs/{run}"));
    assert!(there == text(&b, &format!("/runs/{run}")), "another record than the owner's");
}
