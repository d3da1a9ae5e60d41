//! Gathers the evidence of nodes in the calm: their logs, what their programs have left outside, their runs, their weight.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use serde_json::Value as Json;

use super::evidence::{Attempt, Kept, Record, Run, Told, Weight};
use super::schedule::Node;
use super::world::World;
use crate::chance::Chance;
use crate::harness::{Running, SEEN_MAX};
use crate::watch::try_until;

/// How long the last run and its program may go on in the calm.
const RUN_MAX: Duration = Duration::from_secs(20);

pub(super) fn kept(world: &World) -> BTreeMap<Node, Kept> {
    world.nodes().into_iter().map(|node| (node, kept_by(world.running(node)))).collect()
}

fn kept_by(running: &Running) -> Kept {
    let verified = running.command(&["audit", "verify"]);
    let said = || format!("{}{}", String::from_utf8_lossy(&verified.stdout), String::from_utf8_lossy(&verified.stderr));
    let exported = running.command(&["audit", "export"]);
    assert!(exported.status.success(), "{exported:?}");
    let lines = String::from_utf8(exported.stdout).expect("text");
    let marks = fs::read_to_string(running.project().join("marks")).unwrap_or_default();
    Kept {
        unverified: (!verified.status.success()).then(said),
        records: lines.lines().map(record).collect(),
        marks: marks.lines().map(mark).collect(),
        revision: running.revision(),
    }
}

fn record(line: &str) -> Record {
    let record: Json = serde_json::from_str(line).expect("JSON lines");
    let text = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
    let name = |field: &str| text(field).trim_start_matches("default-site/").to_owned();
    Record {
        audit_id: text("audit_id"),
        request_id: text("request_id"),
        origin: name("origin"),
        target: name("target"),
        action: text("action"),
        outcome: text("outcome"),
        detail: text("detail"),
    }
}

/// The request's id in what a program was given; a line that is none shows as it is.
fn mark(line: &str) -> String {
    let given: Json = serde_json::from_str(line).unwrap_or_default();
    given["id"].as_str().unwrap_or(line).to_owned()
}

/// Every run that somebody was told of, asked of any node.
pub(super) fn runs<'a>(
    world: &World,
    attempts: impl Iterator<Item = &'a Attempt>,
    chance: &mut Chance,
) -> BTreeMap<String, Run> {
    let mut found = BTreeMap::new();
    for attempt in attempts {
        let Told::Done { run: Some(id), .. } = &attempt.told else { continue };
        if !found.contains_key(id) {
            let node = world.nodes()[chance.index(world.nodes().len())];
            found.insert(id.clone(), run(world.running(node), id));
        }
    }
    found
}

fn run(node: &Running, id: &str) -> Run {
    let ended = try_until(RUN_MAX, || {
        let answer = node.try_get(&format!("/runs/{id}"))?;
        let status = answer.text_at("/status").to_owned();
        if ["completed", "errored"].contains(&status.as_str()) { Ok(status) } else { Err(answer.text) }
    });
    let status = ended.map_or_else(|seen| seen, |(status, _)| status);
    let answer = node.try_get(&format!("/runs/{id}/events?limit=1000"));
    let events = answer.map(|answer| answer.body["events"].as_array().cloned().unwrap_or_default());
    let event = |event: Json| {
        let kind = event["type"].as_str().unwrap_or_default().to_owned();
        (event["eventIndex"].as_u64().unwrap_or(u64::MAX), kind)
    };
    Run { status, events: events.unwrap_or_default().into_iter().map(event).collect() }
}

/// What each process takes now.
pub(super) fn weights(world: &World) -> BTreeMap<Node, Weight> {
    world.nodes().into_iter().map(|node| (node, weight(world.running(node).pid()))).collect()
}

fn weight(pid: u32) -> Weight {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let number = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line of every process");
        line.split_whitespace().next().and_then(|word| word.parse().ok()).expect("a number")
    };
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).expect("it lives").count();
    let descriptors = u64::try_from(descriptors).expect("small");
    Weight { memory_kib: number("VmRSS:"), threads: number("Threads:"), descriptors }
}

/// Processes that work in a folder of the world although every run is over. The nodes themselves work elsewhere.
pub(super) fn left(world: &World) -> Vec<String> {
    let look = || {
        let entries = fs::read_dir("/proc").expect("a list").filter_map(Result::ok).map(|entry| entry.path());
        let works = entries.filter(|it| fs::read_link(it.join("cwd")).is_ok_and(|cwd| cwd.starts_with(world.folder())));
        let shown: Vec<String> = works
            .map(|it| format!("{}: {}", it.display(), fs::read_to_string(it.join("cmdline")).unwrap_or_default()))
            .collect();
        if shown.is_empty() { Ok(()) } else { Err(shown.join("; ")) }
    };
    try_until(SEEN_MAX, look).err().into_iter().collect()
}
