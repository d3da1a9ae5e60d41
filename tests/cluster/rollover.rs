//! Another key and certificate for running nodes, while they act on each other.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::harness::SEEN_MAX;
use crate::plant::{Desk, Plant, outcome, ping};
use crate::watch::{let_pass, wait_until};

/// A certificate with a new key for a running node, put in the place of the one in use.
fn replace(desk: &Desk, node: &Plant) {
    let name = node.name();
    let fresh = desk.path(&format!("next-{name}"));
    let (ca, id, out) = (desk.text("ca-north"), format!("north/{name}"), fresh.display().to_string());
    desk.identity(&["issue", "--ca", &ca, "--node", &id, "--ip", "127.0.0.1", "--dns", "localhost", "--out", &out]);
    for kind in ["key", "pem"] {
        let file = format!("node-{name}.{kind}");
        fs::rename(fresh.join(&file), node.project.join("tls").join(&file)).expect("replaced");
    }
}

/// What came of one dispatch after the other, from `origin` to `target`, until told to stop.
fn act_all_the_time(desk: &Desk, (origin, target): (&Plant, &str), stop: &AtomicBool) -> Vec<String> {
    let person = ["pem", "key"].map(|kind| desk.text(&format!("alice-of-ca-north/actor-alice.{kind}"))).into();
    let mut outcomes = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let asked = ping(origin, "spiffe://trust/north/alice", target, &format!("{target}-{}", outcomes.len()));
        outcomes.push(outcome(&origin.dispatch(desk, "north", &person, &asked)));
    }
    outcomes
}

/// Ends what goes on beside a test, also when the test stops at a surprise.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn ready(project: &Path, key: &str) -> String {
    let text = fs::read_to_string(project.join("state/ready.json")).expect("a file");
    let ready: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    ready[key].as_str().map_or_else(|| ready[key].to_string(), str::to_owned)
}

#[test]
fn another_key_is_taken_while_both_ends_act_on_each_other_and_nothing_fails() {
    let desk = Desk::new(&["north"]);
    let a = desk.play_with(("plant", "north", "a"), &["north"], &[], &[], "");
    let b = desk.play_with(("plant", "north", "b"), &["north"], &[&a], &[], "");
    a.sees("b", "lifecycle_state", "online");
    b.sees("a", "lifecycle_state", "online");
    desk.person("ca-north", "alice");
    let stop = AtomicBool::new(false);
    let outcomes = std::thread::scope(|scope| {
        let there = scope.spawn(|| act_all_the_time(&desk, (&a, "b"), &stop));
        let back = scope.spawn(|| act_all_the_time(&desk, (&b, "a"), &stop));
        let ends = Ends(&stop);
        for (changed, other) in [(&b, &a), (&a, &b)] {
            let known = other.peer(changed.name())["fingerprint"].clone();
            let boot = ready(&changed.project, "boot_id");
            replace(&desk, changed);
            wait_until("the other node knows the new key", SEEN_MAX, || {
                let peer = other.peer(changed.name());
                if peer["fingerprint"] == known || peer.is_null() { Err(peer.to_string()) } else { Ok(()) }
            });
            // The project's own command line knows the listener by the new key.
            assert_eq!(other.peer(changed.name())["fingerprint"], ready(&changed.project, "web_key"));
            assert!(!changed.command(&["peers", "list"]).is_null());
            assert_eq!(ready(&changed.project, "boot_id"), boot, "the same run");
            // The links by the certificate before are ended and dialled again.
            let_pass(Duration::from_secs(6));
        }
        drop(ends);
        [there, back].map(|acting| acting.join().expect("no panic"))
    });
    for outcomes in outcomes {
        let failed: Vec<_> = outcomes.iter().filter(|it| *it != "ok").collect();
        assert!(failed.is_empty(), "of {}: {failed:?}", outcomes.len());
        assert!(20 < outcomes.len(), "only {} dispatches", outcomes.len());
    }
    for node in [&a, &b] {
        let log = fs::read_to_string(node.project.join("log")).expect("a log");
        assert!(log.contains("the own certificate was renewed"), "the links were replaced");
    }
}
