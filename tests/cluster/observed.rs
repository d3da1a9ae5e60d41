//! What can be seen of a node from outside while it works: its metrics, and one request in the logs of two nodes.

use serde_json::Value as Json;

use crate::harness::{Cluster, Running, SEEN_MAX, Setup};
use crate::question::{ping, read, with, write};
use crate::watch::wait_until;

/// Lines of the log of a node that writes JSON, those of one request, in their order: its message, then its fields.
fn lines_of(node: &Running, request_id: &str) -> Vec<(String, Json)> {
    let log = node.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Json>(line).ok());
    let is_wanted = |line: &Json| {
        let spans = line["spans"].as_array().cloned().unwrap_or_default();
        spans.iter().any(|span| span["request_id"] == request_id)
    };
    lines
        .filter(is_wanted)
        .map(|line| (line["fields"]["message"].as_str().unwrap_or_default().to_owned(), line))
        .collect()
}

fn pair(cluster: &Cluster, more: &str) -> [Running; 2] {
    let b = cluster.play("b", Setup::new().with(more));
    let a = cluster.play("a", Setup::new().dialling(&b).with(more));
    a.await_lifecycle("b", "online");
    b.await_lifecycle("a", "online");
    [a, b]
}

#[test]
fn metrics_of_real_nodes_move_when_something_happens() {
    let cluster = Cluster::new();
    let [a, b] = pair(&cluster, "");
    let length = b.metric("trust_runtime_audit_records");
    assert!(a.dispatch_one(&read("a", "metric-1", &["b"])).ok);
    assert!(a.dispatch_one(&ping("a", "metric-2", &["b"])).ok);
    let denied = a.dispatch_one(&with(ping("a", "metric-3", &["b"]), "actor", "spiffe://trust/elsewhere/engineer-1"));
    assert!(!denied.ok, "{}", denied.text);
    for (node, series, wanted) in [
        (&a, r#"trust_runtime_dispatch_targets_total{action="status_read",result="ok"}"#, 1.0),
        (&a, r#"trust_runtime_dispatch_targets_total{action="cmd_invoke",result="ok"}"#, 1.0),
        (&a, r#"trust_runtime_dispatch_duration_seconds_count{action="cmd_invoke"}"#, 1.0),
        (&a, r#"trust_runtime_denials_total{code="permission_denied",stage="origin"}"#, 1.0),
        (&b, r#"trust_runtime_mesh_actions_total{action="status_read",result="ok"}"#, 1.0),
        (&b, r#"trust_runtime_mesh_actions_total{action="cmd_invoke",result="ok"}"#, 1.0),
        (&a, r#"trust_runtime_peers{state="online"}"#, 1.0),
        (&a, r#"trust_runtime_queue_capacity{queue="mailbox"}"#, 1_024.0),
        (&a, "trust_runtime_ready", 1.0),
    ] {
        assert_eq!(node.metric(series), wanted, "{} {series}", node.name());
    }
    let at_least = |node: &Running, series: &str, least: f64| {
        wait_until("the number", SEEN_MAX, || {
            let now = node.metric(series);
            if least <= now { Ok(()) } else { Err(format!("{}: {series} is {now}, not {least}", node.name())) }
        });
    };
    at_least(&b, "trust_runtime_audit_records", length + 1.0);
    at_least(&b, r#"trust_runtime_store_commits_total{result="ok"}"#, 1.0);
    at_least(&b, "trust_runtime_store_commit_duration_seconds_count", 1.0);
    at_least(&a, "trust_runtime_mesh_links", 1.0);
    b.stop();
    at_least(&a, r#"trust_runtime_peers{state="partitioned"}"#, 1.0);
    b.resume();
}

#[test]
fn one_request_is_found_in_the_logs_of_both_nodes_in_the_order_in_which_it_went() {
    let cluster = Cluster::new();
    let [a, b] = pair(&cluster, "[runtime.log]\nformat = \"json\"\nlevel = \"debug\"\n");
    for (body, arrived) in [
        (read("a", "trace-read", &["b"]), "a read has arrived"),
        (write("a", "trace-write", &["b"], 31), "a write has arrived"),
    ] {
        let id = body["request_id"].as_str().expect("text").to_owned();
        assert!(a.dispatch_one(&body).ok);
        let wanted_here = [
            "a dispatch was asked for over HTTP",
            "an envelope goes out",
            "a target has answered or was given up",
            "a dispatch is answered over HTTP",
        ];
        let wanted_there = [arrived, "an action is answered"];
        let mut seen = Vec::new();
        for (node, wanted) in [(&a, &wanted_here[..]), (&b, &wanted_there[..])] {
            wait_until("the lines", SEEN_MAX, || {
                let found: Vec<String> = lines_of(node, &id).into_iter().map(|(message, _)| message).collect();
                if found == wanted { Ok(()) } else { Err(format!("{}: {found:?}", node.name())) }
            });
            seen.extend(lines_of(node, &id));
        }
        let [asked, out, back, answered, arrived, done] = &seen[..] else { panic!("{seen:?}") };
        let moments: Vec<&str> = [asked, out, arrived, done, back, answered]
            .iter()
            .map(|(_, line)| line["timestamp"].as_str().expect("a moment"))
            .collect();
        assert!(moments.is_sorted(), "one machine, one clock: {moments:?}");
        let span = |(_, line): &(String, Json)| line["span"].clone();
        assert_eq!(
            (&span(out)["runtime_id"], &out.1["fields"]["target"]),
            (&"default-site/a".into(), &"default-site/b".into())
        );
        assert_eq!(
            (&span(arrived)["runtime_id"], &span(arrived)["origin"]),
            (&"default-site/b".into(), &"default-site/a".into())
        );
        assert_eq!(span(arrived)["action"], span(asked)["action"]);
        assert!([back, answered, done].iter().all(|(_, line)| line["fields"]["code"] == "ok"), "{seen:?}");
    }
}
