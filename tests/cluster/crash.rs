//! kill -9 in the middle of writes, again and again: at most once always, exactly once after asking again, and never `denied`
//! on record for something that was done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value as Json;

use crate::chance::Chance;
use crate::harness::{Address, Cluster, Running, SEEN_MAX, Setup};
use crate::question::{DISPATCH, with, write};
use crate::watch::{let_pass, wait_until};

/// Crashes per test. Each costs a restart and the time until both see each other.
const ROUNDS: u64 = 15;

/// Callers that write at the same time, so that batches share commits.
const CALLERS: u64 = 3;

/// Writes that a round may begin; a crash comes long before.
const WRITES_MAX: u64 = 200;

/// How long a caller waits for a node that died: short, so that a round is.
const BUDGET_MS: u64 = 300;

#[test]
fn a_target_that_crashes_amid_writes_carries_out_each_at_most_once_and_keeps_what_it_acknowledged() {
    crash_again_and_again(Victim::Target);
}

#[test]
fn an_origin_that_crashes_amid_writes_leaves_a_record_of_each_that_agrees_with_the_target() {
    crash_again_and_again(Victim::Origin);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Origin,
    Target,
}

fn crash_again_and_again(victim: Victim) {
    let cluster = Cluster::new();
    let [mut a, mut b] = cluster.site_of(["a", "b"], &Setup::new().acts_per_s(100_000));
    let seed = u64::from(std::process::id());
    eprintln!("seed {seed}");
    let mut chance = Chance::new(seed);
    let (mut begun, mut acknowledged, mut undone) = (0, 0, 0);
    for round in 0..ROUNDS {
        let after = Duration::from_micros(chance.below(30_000));
        let crashed = if victim == Victim::Target { "b" } else { "a" };
        let writes = crash_amid_writes(&mut a, &mut b, victim, round, after);
        begun += writes.len();
        acknowledged += writes.values().filter(|is_acknowledged| **is_acknowledged).count();
        let context = format!("round {round}, {crashed} killed after {after:?}");
        let before = outcomes_by_request(&b, "b");
        check_effects(&before, &writes, &context);
        check_origin(&a, &before, &writes, &context);
        for id in writes.keys() {
            let again = a.dispatch_one(&body(id));
            assert!(again.ok, "{context}, {id} repeated: {}", again.text);
        }
        let after_all = outcomes_by_request(&b, "b");
        for id in writes.keys() {
            assert_eq!(applied(&after_all, id), 1, "{context}: {id} after its repetition");
            undone += usize::from(applied(&before, id) == 0);
        }
    }
    a.verify_audit();
    b.verify_audit();
    eprintln!(
        "{ROUNDS} crashes: {begun} writes begun, {acknowledged} acknowledged, {undone} not done before their repetition"
    );
    assert!(u64::try_from(acknowledged).expect("small") >= ROUNDS, "the crashes came before the writes");
    assert!(acknowledged < begun, "no crash ever came amid a write");
}

/// Lets callers write until one of the nodes is killed, brings it back, and gives each request with whether it was acknowledged.
fn crash_amid_writes(
    a: &mut Running,
    b: &mut Running,
    victim: Victim,
    round: u64,
    after: Duration,
) -> BTreeMap<String, bool> {
    let flow = Flow::default();
    let origin = a.address();
    let writes = std::thread::scope(|scope| {
        let flow = &flow;
        let call = |caller| scope.spawn(move || flow.write(origin, &format!("crash-{round}-{caller}")));
        let callers: Vec<_> = (0..CALLERS).map(call).collect();
        wait_until("writes are flowing", Duration::from_secs(10), || {
            if flow.is_flowing.load(Ordering::SeqCst) { Ok(()) } else { Err("none was acknowledged".to_owned()) }
        });
        let_pass(after);
        let node = if victim == Victim::Target { &mut *b } else { &mut *a };
        node.kill();
        flow.is_over.store(true, Ordering::SeqCst);
        callers.into_iter().flat_map(|caller| caller.join().expect("no panic")).collect()
    });
    let (node, other) = if victim == Victim::Target { (b, a) } else { (a, b) };
    node.restart();
    other.wait_until("the new boot is online", SEEN_MAX, |other| {
        let peer = other.peer(node.name())?;
        let is_back = peer["lifecycle_state"] == "online" && peer["boot_id"] == node.boot();
        if is_back { Ok(()) } else { Err(peer.to_string()) }
    });
    node.await_lifecycle(other.name(), "online");
    writes
}

/// Callers that write one request after another.
#[derive(Debug, Default)]
struct Flow {
    is_flowing: AtomicBool,
    is_over: AtomicBool,
}

impl Flow {
    fn write(&self, origin: Address, name: &str) -> BTreeMap<String, bool> {
        let mut writes = BTreeMap::new();
        for number in 0..WRITES_MAX {
            if self.is_over.load(Ordering::SeqCst) {
                break;
            }
            let id = format!("{name}-{number}");
            let answer = origin.try_post(DISPATCH, &body(&id));
            let is_lost = answer.is_err();
            let is_done = answer.is_ok_and(|answer| answer.body["ok"] == true);
            self.is_flowing.fetch_or(is_done, Ordering::SeqCst);
            writes.insert(id, is_done);
            if is_lost {
                break;
            }
        }
        writes
    }
}

fn body(id: &str) -> Json {
    // The value follows from the name, so that a repetition is the same request.
    let hours = 1 + id.bytes().fold(0_u64, |sum, byte| (sum * 31 + u64::from(byte)) % 8_000);
    with(write("a", id, &["b"], hours), "query_budget_ms", BUDGET_MS)
}

/// What one node's audit log says about its part at `target`, by request id, in order.
fn outcomes_by_request(node: &Running, target: &str) -> BTreeMap<String, Vec<String>> {
    let output = node.command(&["audit", "export"]);
    assert!(output.status.success(), "{output:?}");
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in String::from_utf8(output.stdout).expect("text").lines() {
        let record: Json = serde_json::from_str(line).expect("JSON lines");
        let text = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
        if text("target") == format!("default-site/{target}") {
            found.entry(text("request_id")).or_default().push(text("outcome"));
        }
    }
    found
}

fn applied(outcomes: &BTreeMap<String, Vec<String>>, id: &str) -> usize {
    outcomes.get(id).into_iter().flatten().filter(|outcome| *outcome == "applied").count()
}

/// The target did each at most once, and whatever was acknowledged.
fn check_effects(target: &BTreeMap<String, Vec<String>>, writes: &BTreeMap<String, bool>, context: &str) {
    for (id, is_acknowledged) in writes {
        let times = applied(target, id);
        assert!(times <= 1, "{context}: {id} was carried out {times} times");
        assert!(!is_acknowledged || times == 1, "{context}: {id} was acknowledged and is not on record at the target");
    }
}

/// The origin's record agrees: what it calls applied was done, what it calls denied was not, and nothing stays only intended.
fn check_origin(a: &Running, target: &BTreeMap<String, Vec<String>>, writes: &BTreeMap<String, bool>, context: &str) {
    let origin = outcomes_by_request(a, "b");
    for (id, is_acknowledged) in writes {
        let times = applied(target, id);
        let said: BTreeSet<&str> = origin.get(id).into_iter().flatten().map(String::as_str).collect();
        let has = |outcome: &str| said.contains(outcome);
        let context = format!("{context}: {id}, done {times} times, the origin says {said:?}");
        assert!(!has("applied") || times == 1, "{context}");
        assert!(!has("denied") || times == 0, "{context}");
        assert!(times == 0 || has("intended"), "sent before it was on record: {context}");
        assert!(!has("intended") || has("applied") || has("unknown") || has("denied"), "never concluded: {context}");
        assert!(!is_acknowledged || has("intended"), "{context}");
    }
}
