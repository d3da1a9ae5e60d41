//! Whatever a program writes, its run stays readable: by pages, as a stream and by people.

use std::path::Path;

use serde_json::{Value as Json, json};

use super::{all_events, assert_whole, await_status, error, invoke, written};
use crate::harness::{Cluster, Running, Setup};
use crate::http;

/// The longest event that is kept.
const EVENT_MAX: usize = 256 * 1024;

/// Bytes that are no text, and texts that look like more than they are.
const BINARY: &str = r#"#!/usr/bin/env python3
import sys
out = sys.stdout.buffer
out.write(b"\x00\x01\x02\xff\xfe\n")
out.write(b"event: run_end\r\n")
out.write(b"data: {}\r\r\n")
out.write(b'{"type":"log","level":"info","message":"\xff"}\n')
out.write(b'{"type":"run_end","isError":false}\n')
out.write(b'{"type":"log","runId":"run_forged","eventIndex":7,"timestamp":"never","message":"a\\u0000\\n\\nb"}\n')
out.write(bytes(range(256)) * 16 + b"\n")
out.write(b"[" * 5000 + b"\n")
out.write("\u2028\u2029\ufeff".encode() + b"\n")
out.write(b"no end of the line")
sys.stderr.buffer.write(b"\x1b[31mred\x00\xc3\n")
"#;

/// The events of a stream, each held to its form.
#[track_caller]
fn streamed(node: &Running, run: &str) -> Vec<Json> {
    let body = http::send(node.web(), &format!("/runs/{run}/stream"), None, None).and_then(http::Sent::streamed);
    let body = body.unwrap_or_else(|error| panic!("{error}"));
    let frames = body.split("\n\n").filter(|frame| !frame.is_empty() && !frame.starts_with(':'));
    frames.map(|frame| event(frame).unwrap_or_else(|| panic!("not a frame: {frame:?}"))).collect()
}

fn event(frame: &str) -> Option<Json> {
    let lines: Vec<&str> = frame.split('\n').collect();
    let [kind, id, data] = lines.try_into().ok()?;
    let data: Json = serde_json::from_str(data.strip_prefix("data: ")?).ok()?;
    let is_right = data["type"] == kind.strip_prefix("event: ")?
        && data["eventIndex"].as_u64() == id.strip_prefix("id: ")?.parse().ok();
    is_right.then_some(data)
}

#[test]
fn bytes_that_are_no_text_become_lines_of_the_log_and_break_nothing() {
    let cluster = Cluster::new();
    let node = cluster.play("a", Setup::new().with(written(&cluster, "binary", BINARY, 60_000)));
    let run = invoke(&node, "binary", "binary", &json!({}));
    await_status(&node, &run, "completed");
    let events = all_events(&node, &run);
    assert_whole(&events);
    assert_eq!(streamed(&node, &run), events, "the stream says the same");
    let middle = &events[1..events.len() - 1];
    assert!(middle.iter().all(|event| event["type"] == "log" && event["runId"] == json!(run)), "{middle:?}");
    let said = |text: &str| middle.iter().any(|event| event["message"] == text);
    assert!(said("\u{0}\u{1}\u{2}\u{fffd}\u{fffd}"), "{middle:?}");
    assert!(said("event: run_end") && said("a\u{0}\n\nb") && said("no end of the line"), "{middle:?}");
    assert!(said("{\"type\":\"run_end\",\"isError\":false}"), "what frames a run cannot be said: {middle:?}");
    assert!(said("\u{1b}[31mred\u{0}\u{fffd}"), "{middle:?}");
    // For people, what could do anything to a terminal is shown and not sent.
    let shown = node.command(&["runs", "tail", &run]);
    assert!(shown.status.success(), "{shown:?}");
    let is_raw = |byte: &u8| *byte != b'\n' && *byte < 0x20 || *byte == 0x7f;
    assert!(!shown.stdout.iter().any(is_raw), "{:?}", String::from_utf8_lossy(&shown.stdout));
}

#[test]
fn what_is_too_long_is_kept_in_part_and_says_so() {
    let cluster = Cluster::new();
    let big = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/agents/big.py");
    let endless = "#!/usr/bin/env python3\nimport sys\nsys.stdout.write('z' * 3000000 + '\\nnext\\n')\n";
    let declared = format!(
        "[[runtime.command]]\nname = \"big\"\nprogram = {big:?}\ntimeout_ms = 60000\n\n{}",
        written(&cluster, "endless", endless, 60_000)
    );
    let node = cluster.play("a", Setup::new().with(declared));
    let run = invoke(&node, "big", "big", &json!({}));
    await_status(&node, &run, "completed");
    let events = all_events(&node, &run);
    assert_whole(&events);
    let [_, line, call, _] = events.as_slice() else { panic!("{} events", events.len()) };
    // The line has no field that may be cut, so that the event itself is.
    assert_eq!((&line["type"], &line["truncated"]), (&json!("log"), &json!(true)));
    let sizes = [&line["originalSize"], &call["result"]["originalSize"]].map(|it| it.as_u64().expect("a number"));
    assert!(300 * 1024 < sizes[0] && 400 * 1024 < sizes[1], "{sizes:?}");
    assert_eq!((&call["result"]["truncated"], &call["toolName"]), (&json!(true), &json!("t")));
    assert!(line["preview"].as_str().is_some_and(|text| text.contains("xxx")), "{line}");
    assert!(events.iter().all(|event| event.to_string().len() <= EVENT_MAX));
    assert_eq!(streamed(&node, &run), events);

    let run = invoke(&node, "endless", "endless", &json!({}));
    await_status(&node, &run, "completed");
    let events = all_events(&node, &run);
    assert_eq!(events[2]["message"], "next", "what comes after a line without end is read");
    assert_eq!(events[1]["truncated"], true);
    assert!(3_000_000 <= events[1]["originalSize"].as_u64().expect("a number"), "{}", events[1]["originalSize"]);
}

#[test]
fn a_program_that_says_too_much_is_ended_and_its_log_is_whole() {
    let cluster = Cluster::new();
    let node = cluster.play("a", Setup::new().with(written(&cluster, "floods", "#!/bin/sh\nexec yes\n", 60_000)));
    let run = invoke(&node, "flood", "floods", &json!({}));
    let record = await_status(&node, &run, "errored");
    assert_eq!(error(&record).0, "OutputLimit", "{record}");
    // All of it is there; the last page and the end show that.
    let last = node.get(&format!("/runs/{run}/events?after=99998")).body["events"].clone();
    let kinds: Vec<_> = last.as_array().expect("a page").iter().map(|event| event["type"].clone()).collect();
    assert_eq!(kinds, [json!("log"), json!("run_end")].split_at(2 - kinds.len()).1, "{last}");
}
