//! A disk that fills up under a run: it is held up, nothing of it is lost, and it ends by its name.

// waits: only the programs of these tests sleep, until they are ended.

use std::fs;

use serde_json::{Value as Json, json};

use super::{
    all_events, assert_whole, await_events, await_gone, await_numbers, await_status, error, events, invoke, kind,
    written,
};
use crate::disk::Mount;
use crate::harness::{Cluster, Running, SEEN_MAX, Setup};
use crate::question::{DISPATCH, command, write};
use crate::streams::Following;
use crate::watch::holds_for;

/// Room for the stores and all that a run says here.
const DISK: &str = "size=16m";

/// Counts in long lines, until it has said as many as it was told.
const COUNTS: &str = r#"#!/usr/bin/env python3
import json, os, sys, time
payload = json.load(sys.stdin)
with open("counts.new", "w") as file:
    file.write(str(os.getpid()))
os.rename("counts.new", "counts")
for number in range(int(payload["n"])):
    print(f"{number} " + "x" * 2000, flush=True)
    time.sleep(0.002)
print(json.dumps({"type": "result", "value": "counted"}))
"#;

struct Stage {
    node: Running,
    disk: Mount,
    cluster: Cluster,
}

/// A node on a small disk.
fn small(timeout_ms: u64) -> Stage {
    let cluster = Cluster::new();
    let setup = Setup::new().with(written(&cluster, "counts", COUNTS, timeout_ms));
    let disk = Mount::new(&cluster.project("a", &setup).join("state"), DISK);
    let node = cluster.play("a", setup);
    Stage { node, disk, cluster }
}

/// A node on a small disk whose run has filled what was left of it: no event of it becomes durable any more.
#[track_caller]
fn full(timeout_ms: u64, count: u64) -> (Stage, String, Vec<Json>) {
    let stage = small(timeout_ms);
    let run = invoke(&stage.node, "fill", "counts", &json!({ "n": count }));
    let before = stage.fill(&run);
    (stage, run, before)
}

impl Stage {
    /// Fills what is left under this run, and gives what is durable of it.
    #[track_caller]
    fn fill(&self, run: &str) -> Vec<Json> {
        await_events(&self.node, run, 5);
        let filler = self.disk.fill();
        self.node.wait_until("it is held up", SEEN_MAX, |node| {
            let log = node.log();
            if log.contains("its program is held up") { Ok(()) } else { Err("not yet".to_owned()) }
        });
        let before = all_events(&self.node, run);
        assert!(filler.exists() && before.len() > 5);
        before
    }

    fn free(&self) {
        fs::remove_file(self.disk.filler()).expect("removed");
    }
}

/// Every line is there once, in its order.
#[track_caller]
fn assert_counted(events: &[Json]) -> usize {
    let lines = events.iter().filter(|event| event["type"] == "log");
    let mut count = 0;
    for line in lines {
        let message = line["message"].as_str().expect("a text");
        assert!(message.starts_with(&format!("{count} ")), "wanted {count}, got {:.20}", message);
        count += 1;
    }
    count
}

#[test]
fn a_run_goes_on_where_a_full_disk_has_held_it_up() {
    let (stage, run, before) = full(60_000, 1_500);
    let node = &stage.node;
    holds_for("what is durable is all there is", std::time::Duration::from_millis(300), || {
        let now = node.try_get(&format!("/runs/{run}"))?;
        if now.body["status"] == "active" { Ok(()) } else { Err(now.text) }
    });
    // A start that cannot be kept is refused, and is no run.
    let refused = node.post("/agents/counts/i1", &json!({ "n": 1 }));
    assert_eq!(refused.status, 503, "{}", refused.text);
    stage.free();
    let record = await_status(node, &run, "completed");
    assert_eq!(record["result"], "counted");
    let after = all_events(node, &run);
    assert_whole(&after);
    assert_eq!(after.get(..before.len()), Some(before.as_slice()));
    assert_eq!(assert_counted(&after), 1_500);
    node.wait_until("writes are taken again", SEEN_MAX, |node| {
        let answer = node.post(DISPATCH, &write(node.name(), "after", &[node.name()], 30));
        if answer.status == 200 { Ok(()) } else { Err(answer.text) }
    });
    node.verify_audit();
}

#[test]
fn whoever_waits_for_a_run_on_a_full_disk_is_told_so_at_its_own_node_and_at_another() {
    let stage = small(60_000);
    let (node, count) = (&stage.node, json!({ "n": 1_000_000 }));
    let other = stage.cluster.play("b", Setup::new().dialling(node));
    other.await_lifecycle("a", "online");
    node.await_lifecycle("b", "online");
    let waits = node.send("/agents/counts/i1", &count);
    let run = invoke(node, "fill", "counts", &count);
    let [near, far] = [node, &other].map(|at| Following::new(at, &run, None));
    far.until(&other, 5);
    stage.fill(&run);
    let answer = waits.answer().expect("an answer in time");
    assert_eq!((answer.status, kind(&answer)), (503, "storage_unavailable"), "{}", answer.text);
    for (following, at) in [(near, node), (far, &other)] {
        at.wait_until("its reader is told", SEEN_MAX, |_| match following.frames().last() {
            Some(last) if last.contains("storage_unavailable") => Ok(()),
            last => Err(format!("{last:?}")),
        });
        let mut frames = following.finish();
        let last = frames.pop().expect("the word");
        assert!(last.starts_with("event: error") && frames.len() > 5, "{last}");
        // Before it stands what is durable, and nothing else.
        let durable = all_events(node, &run).len();
        assert_eq!(frames.len(), durable, "at {}", at.name());
    }
    let late = Following::new(&other, &run, Some(5));
    other.wait_until("who comes later is told too", SEEN_MAX, |_| match late.frames().last() {
        Some(last) if last.contains("storage_unavailable") => Ok(()),
        last => Err(format!("{last:?}")),
    });
    stage.free();
    // And whoever asks again once there is space is told more than was durable then.
    let durable = all_events(node, &run).len();
    await_events(&other, &run, durable + 5);
}

#[test]
fn a_run_that_is_too_slow_for_a_full_disk_ends_when_there_is_room() {
    let (stage, run, before) = full(3_000, 1_000_000);
    let [pid] = await_numbers(&stage.node, "counts", 1).try_into().expect("one");
    // Its time is over although nothing can be written.
    stage.node.wait_until("its program is gone", SEEN_MAX, |_| {
        if super::is_alive(pid) { Err(format!("{pid} lives")) } else { Ok(()) }
    });
    assert_eq!(stage.node.get(&format!("/runs/{run}")).body["status"], "active", "an end that is not durable is none");
    stage.free();
    let record = await_status(&stage.node, &run, "errored");
    assert_eq!(error(&record).0, "Timeout", "{record}");
    let after = all_events(&stage.node, &run);
    assert_whole(&after);
    assert_eq!(after.get(..before.len()), Some(before.as_slice()));
    assert_counted(&after);
}

#[test]
fn a_kill_on_a_full_disk_loses_nothing_that_was_shown() {
    let (mut stage, run, before) = full(60_000, 1_000_000);
    let pids = await_numbers(&stage.node, "counts", 1);
    stage.node.kill();
    await_gone(&stage.node, &pids);
    stage.free();
    stage.node.restart();
    let record = await_status(&stage.node, &run, "errored");
    assert_eq!(error(&record).0, "Interrupted", "{record}");
    let after = all_events(&stage.node, &run);
    assert_whole(&after);
    assert_eq!(after.get(..before.len()), Some(before.as_slice()));
    assert_counted(&after);
    // And the store takes new runs.
    let next = invoke(&stage.node, "next", "counts", &json!({ "n": 2 }));
    await_status(&stage.node, &next, "completed");
    assert_eq!(events(&stage.node, &next).len(), 4);
    stage.node.verify_audit();
}

#[test]
fn a_stop_on_a_full_disk_keeps_its_bound() {
    let (mut stage, run, before) = full(60_000, 1_000_000);
    let pids = await_numbers(&stage.node, "counts", 1);
    stage.node.shutdown();
    assert!(!pids.iter().any(|pid| super::is_alive(*pid)), "{pids:?}");
    // It gave up by itself what it could not write, and nobody had to cut it off.
    let log = stage.node.log();
    assert!(log.contains("is written at the next start") && !log.contains("runs were cut off"), "{log}");
    stage.free();
    stage.node.restart();
    assert_eq!(error(&await_status(&stage.node, &run, "errored")).0, "Interrupted");
    let after = all_events(&stage.node, &run);
    assert_whole(&after);
    assert_eq!(after.get(..before.len()), Some(before.as_slice()));
    cancel_is_refused(&stage.node, &run);
}

#[track_caller]
fn cancel_is_refused(node: &Running, run: &str) {
    let late = command(node.name(), "late", node.name(), "cancel", &json!({ "run_id": run }));
    assert_eq!(node.dispatch_one(&late).code, "contract_violation");
}
