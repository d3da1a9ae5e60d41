//! Actions across nodes: what is read, what is changed exactly once, and what every refusal is called.

use std::time::Duration;

use serde_json::Value as Json;

use crate::harness::{Cluster, Running, SEEN_MAX, Setup};
use crate::http;
use crate::question::{DISPATCH, PREFLIGHT, outcomes, ping, read, with, write};
use crate::watch::{Stopwatch, wait_until};

#[test]
fn a_read_and_a_write_reach_the_other_node_and_both_audit_logs_say_so() {
    let cluster = Cluster::new();
    let [a, b] = cluster.site(["a", "b"]);
    for body in [read("a", "across-1", &["b"]), write("a", "across-2", &["b"], 30), ping("a", "across-3", &["b"])] {
        let id = body["request_id"].as_str().expect("text");
        let outcome = a.dispatch_one(&body);
        assert!(outcome.ok, "{}", outcome.text);
        let there = wait_for_record(&b, id, |record| record["outcome"] == "applied");
        assert_eq!(there["audit_id"], outcome.audit_id.as_str());
        assert_eq!((&there["origin"], &there["target"]), (&Json::from("a"), &Json::from("b")));
        let here = wait_for_record(&a, id, |record| record["outcome"] == "applied");
        assert!(here["detail"].as_str().is_some_and(|it| it.contains(&outcome.audit_id)), "{here}");
    }
    assert_eq!(b.revision(), 1);
    let intended: Vec<_> = a.records("across-2").iter().map(|record| record["outcome"].to_string()).collect();
    assert_eq!(intended, ["\"intended\"", "\"applied\""]);
    [&a, &b].iter().for_each(|node| node.verify_audit());
}

#[test]
fn a_repeated_request_acts_once_also_over_restarts_of_both_ends() {
    let cluster = Cluster::new();
    let [mut a, mut b] = cluster.site(["a", "b"]);
    let body = write("a", "once", &["b"], 30);
    let first = a.dispatch_one(&body);
    assert_eq!((first.ok, first.revision), (true, Some(1)), "{}", first.text);
    let assert_repeated = |a: &Running, b: &Running| {
        let again = a.dispatch_one(&body);
        assert_eq!((again.ok, again.revision), (true, Some(1)), "{}", again.text);
        assert_eq!(again.audit_id, first.audit_id);
        assert_eq!((b.revision(), b.applied("once")), (1, 1));
    };
    assert_repeated(&a, &b);
    b.kill();
    a.await_lifecycle("b", "partitioned");
    b.restart();
    await_both(&a, &b);
    assert_repeated(&a, &b);
    a.kill();
    a.restart();
    await_both(&a, &b);
    assert_repeated(&a, &b);
    a.shutdown();
    b.shutdown();
    a.restart();
    b.restart();
    await_both(&a, &b);
    assert_repeated(&a, &b);
}

#[test]
fn the_same_request_id_with_another_content_is_a_conflict() {
    let cluster = Cluster::new();
    let [a, b] = cluster.site(["a", "b"]);
    assert!(a.dispatch_one(&write("a", "taken", &["b"], 30)).ok);
    for other in [write("a", "taken", &["b"], 31), ping("a", "taken", &["b"])] {
        let refused = a.dispatch_one(&other);
        assert_eq!((refused.ok, refused.code.as_str()), (false, "conflict"), "{}", refused.text);
    }
    assert_eq!((b.revision(), b.applied("taken")), (1, 1));
    // The same name asked of the node itself is another request, of another target.
    assert!(a.dispatch_one(&write("a", "taken", &["a"], 30)).ok);
}

#[test]
fn a_dry_run_acts_nowhere() {
    let cluster = Cluster::new();
    let [a, b] = cluster.site(["a", "b"]);
    let answer = a.post(DISPATCH, &with(write("a", "dry", &["b", "a"], 30), "dry_run", true));
    assert_eq!((answer.status, &answer.body["ok"], &answer.body["dry_run"]), (200, &true.into(), &true.into()));
    assert_eq!(answer.body["results"], Json::Array(Vec::new()), "{}", answer.text);
    assert_eq!((a.revision(), b.revision()), (0, 0));
    assert_eq!((a.records("dry").len(), b.records("dry").len()), (0, 0));
    // The name was not used up.
    assert!(a.dispatch_one(&write("a", "dry", &["b"], 31)).ok);
}

#[test]
fn a_plan_that_was_overtaken_by_a_change_is_a_conflict() {
    let cluster = Cluster::new();
    let [a, b] = cluster.site(["a", "b"]);
    let planned = write("a", "planned", &["b"], 30);
    let plan_hash = a.post(PREFLIGHT, &planned).text_at("/plan_hash").to_owned();
    assert!(!plan_hash.is_empty());
    let planned = with(planned, "plan_hash", plan_hash);
    let dry = a.post(DISPATCH, &with(planned.clone(), "dry_run", true));
    assert_eq!(dry.body["ok"], true, "the plan is good as long as nothing changes: {}", dry.text);
    let mut others = planned.clone();
    others["target_runtimes"] = Json::from(vec!["a"]);
    assert_eq!(a.dispatch_one(&others).code, "conflict", "another target set");

    assert!(b.dispatch_one(&write("b", "meanwhile", &["b"], 40)).ok);
    a.wait_until("the plan is overtaken", SEEN_MAX, |a| {
        let dry = a.post(DISPATCH, &with(planned.clone(), "dry_run", true));
        if dry.text.contains("conflict") { Ok(()) } else { Err(dry.text) }
    });
    let refused = a.dispatch_one(&planned);
    assert_eq!((refused.ok, refused.code.as_str()), (false, "conflict"), "{}", refused.text);
    assert_eq!((b.revision(), b.applied("planned")), (1, 0));
}

#[test]
fn targets_that_cannot_be_meant_are_named() {
    let cluster = Cluster::new();
    let [a] = cluster.site(["a"]);
    for targets in [&["b", "b"][..], &["default-site/a", "a"], &[]] {
        let answer = a.post(DISPATCH, &read("a", "no-target", targets));
        assert_eq!((answer.status, answer.text_at("/code")), (400, "contract_violation"), "{}", answer.text);
        assert!(answer.text_at("/errors/0/pointer").starts_with("/target_runtimes"), "{}", answer.text);
    }
    for body in [read("a", "unknown", &["a", "nobody"]), write("a", "unknown", &["a", "nobody"], 30)] {
        let answer = a.post(DISPATCH, &body);
        assert_eq!(answer.text_at("/preflight/denial_code"), "peer_not_available", "{}", answer.text);
        assert_eq!(answer.body["results"].as_array().map(Vec::len), Some(0), "nothing is sent if one is denied");
    }
    assert_eq!(a.revision(), 0);
    let elsewhere = a.post(DISPATCH, &read("b", "elsewhere", &["a"]));
    assert_eq!(elsewhere.text_at("/preflight/denial_code"), "contract_violation", "{}", elsewhere.text);
}

#[test]
fn a_stale_target_is_refused_to_writes_only_and_a_partitioned_one_to_all() {
    // The lease is long, so that the node is stale for long enough to ask.
    let timing = |setup: Setup| setup.timing("lease_ms", 30_000).timing("partition_ms", 12_000);
    let cluster = Cluster::new();
    let a = cluster.play("a", timing(Setup::new()));
    let b = cluster.play("b", timing(Setup::new()).dialling(&a));
    await_both(&a, &b);
    b.stop();
    a.await_lifecycle("b", "stale");
    let refused = a.dispatch_one(&write("a", "stale-write", &["b"], 30));
    assert_eq!((refused.ok, refused.code.as_str()), (false, "stale_data"), "{}", refused.text);
    let unanswered = a.dispatch_one(&with(read("a", "stale-read", &["b"]), "query_budget_ms", 300));
    assert_eq!((unanswered.ok, unanswered.code.as_str()), (false, "timeout"), "{}", unanswered.text);
    a.await_lifecycle("b", "partitioned");
    for body in [read("a", "partitioned", &["b"]), write("a", "partitioned", &["b"], 30)] {
        let refused = a.dispatch_one(&body);
        assert_eq!((refused.ok, refused.code.as_str()), (false, "target_unreachable"), "{}", refused.text);
    }
    b.resume();
    a.await_lifecycle("b", "online");
    assert!(a.dispatch_one(&write("a", "after", &["b"], 31)).ok);
    assert_eq!((b.applied("stale-write"), b.applied("partitioned"), b.revision()), (0, 0, 1));
}

#[test]
fn one_silent_target_of_four_delays_nobody_else_and_the_order_is_kept() {
    let targets = ["d", "b", "e", "c"];
    let cluster = Cluster::new();
    let [a, b, c, d, e] = cluster.site(["a", "b", "c", "d", "e"]);
    e.stop();
    let budget = Duration::from_millis(800);
    let bodies = [read("a", "fan-read", &targets), write("a", "fan-write", &targets, 30)];
    let in_time = bodies.map(|body| {
        let watch = Stopwatch::start();
        let outcomes = outcomes(&a.post(DISPATCH, &with(body, "query_budget_ms", 800)));
        (outcomes, watch.elapsed())
    });
    for (outcomes, took) in in_time {
        let order: Vec<_> = outcomes.iter().map(|outcome| outcome.target.as_str()).collect();
        assert_eq!(order, targets);
        for outcome in outcomes {
            let is_silent = outcome.target == "e";
            assert_eq!(outcome.ok, !is_silent, "{}", outcome.text);
            let expected: &[&str] = if is_silent { &["timeout", "target_unreachable"] } else { &[""] };
            assert!(expected.contains(&outcome.code.as_str()), "{}", outcome.text);
        }
        eprintln!("four targets, one silent: {took:?}");
        // The budget, half a second for the outcome of a write, and the rest for a busy machine.
        assert!(took < budget + Duration::from_millis(1_500), "took {took:?}");
    }
    assert_eq!([&b, &c, &d].map(Running::revision), [1, 1, 1]);
    // What reaches it late may be carried out late, but once; the name then gives its receipt.
    e.resume();
    a.await_lifecycle("e", "online");
    let late = a.dispatch_one(&write("a", "fan-write", &["e"], 30));
    assert_eq!((late.ok, e.revision(), e.applied("fan-write")), (true, 1, 1), "{}", late.text);
    let unknown = wait_for_record(&a, "fan-write", |record| record["target"] == "e" && record["outcome"] == "unknown");
    assert_eq!(unknown["code"], "timeout");
}

#[track_caller]
fn await_both(a: &Running, b: &Running) {
    a.await_lifecycle(b.name(), "online");
    b.await_lifecycle(a.name(), "online");
}

/// How many requests a node answers, the one that asks included.
fn await_requests(node: &Running, count: f64) {
    wait_until(&format!("{count} requests are being answered"), SEEN_MAX, || {
        let seen = node.metric("trust_runtime_http_requests_in_flight");
        if seen == count { Ok(()) } else { Err(seen.to_string()) }
    });
}

#[test]
fn a_caller_who_hangs_up_does_not_stop_a_dispatch() {
    let cluster = Cluster::new();
    let [a, b] = cluster.site(["a", "b"]);
    let idle = a.metric("trust_runtime_http_requests_in_flight");
    b.stop();
    let body = with(write("a", "hung-up", &["b"], 30), "query_budget_ms", 10_000);
    let sent = http::send(a.web(), DISPATCH, None, Some(&body)).expect("sent");
    await_requests(&a, idle + 1.0);
    drop(sent);
    await_requests(&a, idle);
    b.resume();
    wait_for_record(&a, "hung-up", |record| record["outcome"] == "applied");
    assert_eq!((b.revision(), b.applied("hung-up")), (1, 1));
}

/// A record that is written soon, but not before the answer.
#[track_caller]
fn wait_for_record(node: &Running, id: &str, is_it: impl Fn(&Json) -> bool) -> Json {
    let what = format!("{} has the record of {id}", node.name());
    let look = || {
        let records = node.records(id);
        records.iter().find(|record| is_it(record)).cloned().ok_or_else(|| format!("{records:?}"))
    };
    wait_until(&what, SEEN_MAX, look).0
}
