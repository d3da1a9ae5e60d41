//! Whoever dies first, the node, the program or its guard: nothing of the program is left, and its run has an end.

// waits: only the programs of these tests sleep, until they are ended.

use std::fs;

use rusqlite::{Connection, OpenFlags};
use serde_json::json;

use super::{
    all_events, assert_whole, await_events, await_gone, await_numbers, await_status, error, invoke, is_alive, written,
};
use crate::harness::{Cluster, Running, Setup};

/// Starts a child in its own group and a daemon that left group and session and hears no request to end, writes the numbers
/// of all three into the file that the payload names, and ticks for ever.
const FAMILY: &str = r#"#!/usr/bin/env python3
import json, os, signal, sys, time
payload = json.load(sys.stdin)
read, write = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        os.write(write, str(os.getpid()).encode())
        os.close(write)
        while True:
            time.sleep(60)
    os._exit(0)
os.close(write)
daemon = os.read(read, 32).decode()
child = os.fork()
if child == 0:
    while True:
        time.sleep(60)
if payload.get("stubborn"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
with open(payload["file"] + ".new", "w") as file:
    file.write(f"{os.getpid()} {child} {daemon}")
os.rename(payload["file"] + ".new", payload["file"])
for number in range(int(payload.get("n", 1000000))):
    print(f"tick {number}", flush=True)
    time.sleep(0.005)
"#;

fn play(cluster: &Cluster) -> Running {
    cluster.play("a", Setup::new().with(written(cluster, "family", FAMILY, 60_000)))
}

fn kill(pid: u32) {
    let killed = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
    assert!(killed.expect("kill is there").success(), "{pid}");
}

/// The guard of a program is its parent.
fn guard_of(pid: u32) -> u32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
    let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
    parent.expect("a parent")
}

#[test]
fn a_killed_node_leaves_nothing_of_its_runs_and_a_restart_gives_them_an_end() {
    let cluster = Cluster::new();
    let mut node = play(&cluster);
    let runs = ["one", "two"].map(|name| invoke(&node, name, "family", &json!({ "file": name })));
    let mut left: Vec<u32> = ["one", "two"].iter().flat_map(|file| await_numbers(&node, file, 3)).collect();
    left.extend([left[0], left[3]].map(guard_of));
    runs.iter().for_each(|run| await_events(&node, run, 20));
    assert!(left.iter().all(|pid| is_alive(*pid)), "{left:?}");
    let before = runs.each_ref().map(|run| all_events(&node, run));
    node.kill();
    await_gone(&node, &left);
    node.restart();
    for (run, before) in runs.iter().zip(before) {
        let record = await_status(&node, run, "errored");
        assert_eq!(error(&record).0, "Interrupted", "{record}");
        let after = all_events(&node, run);
        assert_whole(&after);
        assert_eq!(after.get(..before.len()), Some(before.as_slice()), "what was shown is still so");
    }
    // The request is used up: asked again it gives the same run, and starts nothing.
    assert_eq!(invoke(&node, "one", "family", &json!({ "file": "one" })), runs[0]);
    node.verify_audit();
}

#[test]
fn a_stop_ends_active_runs_within_its_bound_also_those_that_do_not_want_to() {
    let cluster = Cluster::new();
    let mut node = play(&cluster);
    let named = [("meek", false), ("stubborn", true)];
    let runs = named.map(|(file, stubborn)| {
        let params = json!({ "file": file, "stubborn": stubborn });
        (invoke(&node, file, "family", &params), await_numbers(&node, file, 3))
    });
    runs.iter().for_each(|(run, _)| await_events(&node, run, 5));
    // Asserts the bound of the stop, and that it ends well.
    node.shutdown();
    for pid in runs.iter().flat_map(|(_, pids)| pids) {
        assert!(!is_alive(*pid), "{pid} outlived its node");
    }
    // Seen in the file, because the next start would end what has no end.
    let file = node.state_folder().join("runs.db");
    let database = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("opens");
    let open = "SELECT count(*) FROM run WHERE ended_ns IS NULL";
    let open: i64 = database.query_row(open, [], |row| row.get(0)).expect("counts");
    let ends = "SELECT count(*) FROM event WHERE kind = 'run_end'";
    let ends: i64 = database.query_row(ends, [], |row| row.get(0)).expect("counts");
    assert_eq!((open, ends), (0, 2), "{}", node.log());
    drop(database);
    node.restart();
    for (run, _) in &runs {
        assert_eq!(error(&await_status(&node, run, "errored")).0, "Interrupted");
        assert_whole(&all_events(&node, run));
    }
}

#[test]
fn what_a_program_leaves_behind_goes_with_its_run() {
    let cluster = Cluster::new();
    let node = play(&cluster);
    let run = invoke(&node, "short", "family", &json!({ "file": "short", "n": 3 }));
    let record = await_status(&node, &run, "completed");
    // A run ends when its whole family has.
    let left = await_numbers(&node, "short", 3);
    assert!(!left.iter().any(|pid| is_alive(*pid)), "{left:?} outlived {record}");
    assert_whole(&all_events(&node, &run));
}

#[test]
fn a_killed_guard_or_program_ends_the_run_and_says_so() {
    let cluster = Cluster::new();
    let node = play(&cluster);
    for (file, is_guard, said) in [("guard", true, "together with its guard"), ("program", false, "by signal 9")] {
        let run = invoke(&node, file, "family", &json!({ "file": file }));
        let pids = await_numbers(&node, file, 3);
        let victim = if is_guard { guard_of(pids[0]) } else { pids[0] };
        kill(victim);
        let record = await_status(&node, &run, "errored");
        let (name, message) = error(&record);
        assert_eq!(name, "ExitError", "{record}");
        assert!(message.contains(said), "{record}");
        // Without its guard, the daemon that left the group is out of reach (see the guide of the workload).
        let (own, daemon) = pids.split_at(if is_guard { 2 } else { 3 });
        await_gone(&node, own);
        daemon.iter().filter(|pid| is_alive(**pid)).for_each(|pid| kill(*pid));
        assert_whole(&all_events(&node, &run));
    }
    assert_eq!(node.get("/livez").status, 200);
}

/// A node that does nothing cannot end a group: the kernel alone sees to it that a program is not left without its guard.
#[test]
fn a_program_goes_with_its_guard_also_while_the_node_is_suspended() {
    let cluster = Cluster::new();
    let node = play(&cluster);
    let run = invoke(&node, "guard", "family", &json!({ "file": "guard" }));
    let pids = await_numbers(&node, "guard", 3);
    node.stop();
    kill(guard_of(pids[0]));
    await_gone(&node, &pids[..1]);
    node.resume();
    let record = await_status(&node, &run, "errored");
    assert!(error(&record).1.contains("together with its guard"), "{record}");
    await_gone(&node, &pids[..2]);
    pids.iter().filter(|pid| is_alive(**pid)).for_each(|pid| kill(*pid));
}
