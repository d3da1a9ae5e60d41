//! The workload of a real node: restarted when it crashes, gone when the node is, however that ends.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value as Json;

use crate::harness::{Cluster, Running, SEEN_MAX, STOP_MAX, Setup};

/// Says its number and that of a daemon that left its session, and waits for ever. Each start leaves a line in `starts`.
const STAYS: &str = "#!/bin/sh
setsid sleep 1000 &
echo \"$$ $!\" >> starts
echo ready
wait
";

/// A project with a program and its workload section; the node runs.
fn play(cluster: &Cluster, script: &str, more: &str) -> Running {
    let mut node = cluster.play("a", Setup::new());
    node.shutdown();
    let program = node.project().join("work.sh");
    fs::write(&program, script).expect("a script");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("ours");
    configure(&node, more);
    node
}

/// Adds the section to the settings, which stay as they are from then on.
fn configure(node: &Running, more: &str) {
    let path = node.project().join("runtime.toml");
    let mut file = OpenOptions::new().append(true).open(path).expect("settings");
    write!(file, "\n[runtime.workload]\nprogram = \"work.sh\"\n{more}\n").expect("settings");
}

/// What the own entry of the state says of the workload.
fn workload(node: &Running) -> Result<Json, String> {
    let own = node.peer(node.name())?;
    own.get("workload").cloned().ok_or_else(|| own.to_string())
}

#[track_caller]
fn await_workload(node: &Running, what: &str, condition: impl Fn(&Json) -> bool) -> Json {
    node.wait_until(what, SEEN_MAX, |node| {
        let seen = workload(node)?;
        if condition(&seen) { Ok(()) } else { Err(seen.to_string()) }
    });
    workload(node).expect("it was there")
}

/// The numbers of every start, oldest first.
fn starts(node: &Running) -> Vec<Vec<u32>> {
    let text = fs::read_to_string(node.project().join("starts")).unwrap_or_default();
    text.lines().map(|line| line.split(' ').filter_map(|it| it.parse().ok()).collect()).collect()
}

fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

#[track_caller]
fn await_gone(node: &Running, pids: &[u32]) {
    node.wait_until("nothing of the program is left", STOP_MAX, |_| {
        let left: Vec<_> = pids.iter().filter(|pid| is_alive(**pid)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
}

#[test]
fn a_workload_that_crashes_is_restarted_with_a_pause_and_its_state_and_health_say_so() {
    let cluster = Cluster::new();
    let mut node = play(&cluster, "#!/bin/sh\necho \"$$\" >> starts\necho oops >&2\nexit 7\n", "");
    node.restart();
    let seen = await_workload(&node, "two restarts", |seen| seen["restarts"].as_u64() >= Some(2));
    assert_eq!(seen["last_exit"], "ended with 7", "{seen}");
    await_workload(&node, "it backs off", |seen| seen["state"] == "backing_off");
    let health = node.get("/healthz").body;
    let row = &health["subsystems"]["workload"];
    assert!(row["detail"].as_str().unwrap_or_default().contains("ended with 7"), "{health}");
    node.wait_until("the node is not healthy either", SEEN_MAX, |node| match node.peer("a")? {
        own if own["health_state"] == "degraded" => Ok(()),
        own => Err(own.to_string()),
    });
    let log = fs::read_to_string(node.state_folder().join("workload.log")).expect("it says something");
    assert!(log.lines().next().is_some_and(|line| line.ends_with("Z stderr oops")), "{log}");
    node.shutdown();
}

#[test]
fn a_killed_node_leaves_nothing_of_its_workload_and_the_next_start_runs_it_once() {
    let cluster = Cluster::new();
    let mut node = play(&cluster, STAYS, "");
    node.restart();
    await_workload(&node, "it runs", |seen| seen["state"] == "running");
    node.wait_until("it has said its numbers", SEEN_MAX, |node| {
        if starts(node).first().is_some_and(|pids| pids.len() == 2) { Ok(()) } else { Err("not yet".to_owned()) }
    });
    let first = starts(&node).remove(0);
    assert!(first.iter().all(|pid| is_alive(*pid)), "{first:?}");
    node.kill();
    await_gone(&node, &first);
    node.restart();
    let seen = await_workload(&node, "it runs again", |seen| seen["state"] == "running");
    node.wait_until("it was started once more", SEEN_MAX, |node| match starts(node).len() {
        2 => Ok(()),
        count => Err(format!("{count} starts")),
    });
    let second = starts(&node).remove(1);
    assert_eq!((&seen["pid"], &seen["restarts"]), (&second[0].into(), &0.into()), "{seen}");
    node.shutdown();
    await_gone(&node, &second);
    assert_eq!(starts(&node).len(), 2);
}

#[test]
fn a_workload_that_does_not_want_to_end_does_not_hold_up_the_stop() {
    let cluster = Cluster::new();
    let script = "#!/bin/sh\ntrap '' TERM HUP INT\necho \"$$ $$\" >> starts\nwhile :; do sleep 1000; done\n";
    let mut node = play(&cluster, script, "restart = \"always\"");
    node.restart();
    await_workload(&node, "it runs", |seen| seen["state"] == "running");
    node.wait_until("it has set its trap", SEEN_MAX, |node| {
        if starts(node).is_empty() { Err("not yet".to_owned()) } else { Ok(()) }
    });
    let pids = starts(&node).remove(0);
    // Asserts the bound of the stop.
    node.shutdown();
    assert!(!pids.into_iter().any(is_alive), "it outlived its node");
    // Ended by the node in its own time, and not merely gone together with it.
    assert!(node.log().contains("the workload has ended"), "{}", node.log());
}
