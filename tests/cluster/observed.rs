//! What can be seen of a node from outside while it works: its metrics, and one request in the logs of two nodes.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::time::SystemTime;

use serde_json::{Value as Json, json};
use trust_runtime::metrics::table;

use crate::clock::{self, WallClock};
use crate::disk::Mount;
use crate::harness::{Cluster, Running, SEEN_MAX, Setup};
use crate::plant::{Desk, Plant, TOKEN, write_settings};
use crate::question::{DISPATCH, PREFLIGHT, command, outcomes, ping, read, with, write};
use crate::runs::declared;
use crate::watch::wait_until;

const LOGGED: &str = "[runtime.log]\nformat = \"json\"\nlevel = \"debug\"\n";

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
    let [a, mut b] = pair(&cluster, "");
    let length = b.metric("trust_runtime_audit_records");
    assert!(a.dispatch_one(&read("a", "metric-1", &["b"])).ok);
    assert!(a.dispatch_one(&ping("a", "metric-2", &["b"])).ok);
    let denied = a.dispatch_one(&with(ping("a", "metric-3", &["b"]), "actor", "spiffe://trust/elsewhere/engineer-1"));
    assert!(!denied.ok, "{}", denied.text);
    let to_nobody = a.dispatch_one(&ping("a", "metric-4", &["nobody"]));
    assert_eq!(to_nobody.code, "peer_not_available", "{}", to_nobody.text);
    for (node, series, wanted) in [
        (&a, r#"trust_runtime_dispatch_targets_total{action="status_read",result="ok"}"#, 1.0),
        (&a, r#"trust_runtime_dispatch_targets_total{action="cmd_invoke",result="ok"}"#, 1.0),
        (&a, r#"trust_runtime_dispatch_targets_total{action="cmd_invoke",result="peer_not_available"}"#, 1.0),
        (&a, r#"trust_runtime_dispatch_duration_seconds_count{action="cmd_invoke"}"#, 2.0),
        (&a, r#"trust_runtime_denials_total{code="permission_denied",stage="origin",side="dispatch"}"#, 1.0),
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
    // Two signatures and a disk take a while.
    for series in [r#"dispatch_duration_seconds_sum{action="cmd_invoke"}"#, "store_commit_duration_seconds_sum"] {
        at_least(&a, &format!("trust_runtime_{series}"), 0.000_01);
    }
    at_least(&a, "trust_runtime_mesh_links", 1.0);
    b.stop();
    at_least(&a, r#"trust_runtime_peers{state="partitioned"}"#, 1.0);
    b.resume();
    b.kill();
    follows(&a, "trust_runtime_mesh_links", 0.0);
}

/// Waits until a series has this value.
#[track_caller]
fn follows(node: &Running, series: &str, wanted: f64) {
    wait_until(&format!("{series} is {wanted}"), SEEN_MAX, || match node.metric(series) {
        now if now == wanted => Ok(()),
        now => Err(now.to_string()),
    });
}

#[test]
fn runs_are_counted_when_they_begin_while_they_go_on_and_as_they_end() {
    let cluster = Cluster::new();
    let a = cluster.play("a", Setup::new().with(declared()));
    let long = a.dispatch_one(&command("a", "long", "a", "tick", &json!({ "n": 500, "ms": 100 })));
    follows(&a, "trust_runtime_runs_active", 1.0);
    for name in ["hello", "boom", "boom"] {
        a.post(&format!("/agents/{name}/one"), &json!({}));
    }
    let completed = r#"trust_runtime_runs_ended_total{result="completed"}"#;
    let errored = r#"trust_runtime_runs_ended_total{result="errored"}"#;
    for (series, wanted) in [
        ("trust_runtime_runs_started_total", 4.0),
        (completed, 1.0),
        (errored, 2.0),
        ("trust_runtime_runs_active", 1.0),
    ] {
        follows(&a, series, wanted);
    }
    let long: Json = serde_json::from_str(&long.text).expect("a result");
    assert!(a.dispatch_one(&command("a", "enough", "a", "cancel", &json!({ "run_id": long["run_id"] }))).ok);
    follows(&a, errored, 3.0);
    follows(&a, "trust_runtime_runs_active", 0.0);
}

#[test]
fn readers_and_their_connections_are_seen_while_they_are_there() {
    let cluster = Cluster::new();
    let a = cluster.play("a", Setup::new());
    // What a start still has to do comes and goes.
    let before = (0..20).map(|_| a.metric("trust_runtime_tasks")).fold(f64::INFINITY, f64::min);
    let reader = || {
        let mut stream = TcpStream::connect(a.web()).expect("it listens");
        let head = format!("GET /api/runtime-cloud/state/stream HTTP/1.1\r\nhost: {}\r\n\r\n", a.web());
        stream.write_all(head.as_bytes()).expect("written");
        stream
    };
    let readers = [reader(), reader(), reader()];
    follows(&a, "trust_runtime_http_streams_open", 3.0);
    let tasks = a.metric("trust_runtime_tasks");
    assert!(before + 3.0 <= tasks, "{before} and then {tasks}");
    drop(readers);
    follows(&a, "trust_runtime_http_streams_open", 0.0);
    wait_until("their tasks are over", SEEN_MAX, || match a.metric("trust_runtime_tasks") {
        now if now <= before => Ok(()),
        now => Err(format!("{now}, and {before} before")),
    });
}

#[test]
fn a_full_disk_is_seen_in_the_counts_of_what_could_not_be_written() {
    let cluster = Cluster::new();
    let disk = Mount::new(&cluster.project("a", &Setup::new()).join("state"), "size=3m");
    let a = cluster.play("a", Setup::new());
    assert_eq!(a.metric("trust_runtime_store_writable"), 1.0);
    let filler = disk.fill();
    let mut count = 0;
    let (answer, _) = wait_until("a write is refused", SEEN_MAX, || {
        count += 1;
        let answer = a.post(DISPATCH, &write("a", &format!("full-{count}"), &["a"], 100 + count));
        if answer.status == 200 { Err(format!("{count} went through")) } else { Ok(answer) }
    });
    assert_eq!(answer.text_at("/code"), "storage_unavailable", "{}", answer.text);
    for series in [
        r#"trust_runtime_store_commits_total{result="failed"}"#,
        r#"trust_runtime_dispatch_targets_total{action="cfg_apply",result="storage_unavailable"}"#,
    ] {
        assert!(1.0 <= a.metric(series), "{series}");
    }
    assert_eq!(a.metric("trust_runtime_store_writable"), 0.0);
    fs::remove_file(filler).expect("removed");
    follows(&a, "trust_runtime_store_writable", 1.0);
}

#[test]
fn another_life_of_a_node_counts_anew_but_for_its_log_and_says_when_it_began() {
    let cluster = Cluster::new();
    let mut a = cluster.play("a", Setup::new());
    assert!(a.dispatch_one(&ping("a", "before", &["a"])).ok);
    let pings = r#"trust_runtime_dispatch_targets_total{action="cmd_invoke",result="ok"}"#;
    let [started, again] = [(); 2].map(|()| a.metric("process_start_time_seconds"));
    assert_eq!((a.metric(pings), started), (1.0, again), "one life, one beginning");
    let records = a.metric("trust_runtime_audit_records");
    a.shutdown();
    a.restart();
    assert!(1.0 <= records && records <= a.metric("trust_runtime_audit_records"), "the log goes on: {records}");
    assert_eq!(a.metric(pings), 0.0, "of an earlier life");
    assert!(started < a.metric("process_start_time_seconds"), "another life");
}

#[test]
fn one_request_is_found_in_the_logs_of_both_nodes_in_the_order_in_which_it_went() {
    let cluster = Cluster::new();
    let [a, b] = pair(&cluster, LOGGED);
    for (body, arrived) in [
        (read("a", "trace-read", &["b"]), "a read has arrived"),
        (write("a", "trace-write", &["b"], 31), "a write has arrived"),
        (ping("a", "trace-command", &["b"]), "a write has arrived"),
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

/// What a node says of a request once it has said this much: message and code of each line, in their order.
#[track_caller]
fn told_of(node: &Running, request_id: &str, wanted: &[(&str, &str)]) -> Vec<Json> {
    let said = |(message, line): &(String, Json)| (message.clone(), line["fields"]["code"].as_str().map(str::to_owned));
    let wanted: Vec<_> = wanted
        .iter()
        .map(|(message, code)| ((*message).to_owned(), (!code.is_empty()).then(|| (*code).to_owned())))
        .collect();
    wait_until("the lines", SEEN_MAX, || {
        let found: Vec<_> = lines_of(node, request_id).iter().map(said).collect();
        if found == wanted { Ok(()) } else { Err(format!("{}: {found:?}", node.name())) }
    });
    lines_of(node, request_id).into_iter().map(|(_, line)| line).collect()
}

/// Whoever asks why it was refused finds it in the log by the name that he gave it, wherever it was refused.
#[test]
fn a_denied_request_is_found_in_the_log_of_whoever_denied_it() {
    let cluster = Cluster::new();
    let [a, b] = pair(&cluster, LOGGED);
    let stranger = |id| with(ping("a", id, &["b"]), "actor", "spiffe://trust/elsewhere/engineer-1");
    let asked = "a dispatch was asked for over HTTP";
    let answered = "a dispatch is answered over HTTP";
    for (body, code) in [
        (stranger("denied-actor"), "permission_denied"),
        (with(ping("a", "denied-plan", &["b"]), "plan_hash", "nobodys"), "conflict"),
        (with(ping("a", "denied-body", &["b"]), "query_budget_ms", 0), "contract_violation"),
        (with(ping("a", "denied-version", &["b"]), "api_version", "9.0"), "contract_violation"),
        (with(stranger("denied-dry"), "dry_run", true), "permission_denied"),
        (with(ping("a", "only-dry", &["b"]), "dry_run", true), "ok"),
    ] {
        let id = body["request_id"].as_str().expect("text");
        a.post(DISPATCH, &body);
        let lines = told_of(&a, id, &[(asked, ""), (answered, code)]);
        assert!(lines.iter().all(|line| line["span"]["name"] == "dispatch"), "{lines:?}");
        assert_eq!(lines_of(&b, id), [], "it went nowhere");
    }
    a.post(PREFLIGHT, &stranger("denied-question"));
    let (asked, answered) = ("a preflight was asked for over HTTP", "a preflight is answered over HTTP");
    told_of(&a, "denied-question", &[(asked, ""), (answered, "permission_denied")]);
}

#[test]
fn a_request_that_its_target_denies_is_found_and_counted_at_both() {
    let cluster = Cluster::new();
    let rule = "[[runtime.cloud.wan.accept_write]]\naction = \"cmd_invoke/ping\"\nactor = \"default-site/*\"\neffect = \"deny\"\n";
    let b = cluster.play("b", Setup::new().with(format!("{LOGGED}{rule}")));
    let a = cluster.play("a", Setup::new().dialling(&b).with(LOGGED));
    a.await_lifecycle("b", "online");
    b.await_lifecycle("a", "online");
    let denied = a.dispatch_one(&ping("a", "denied-there", &["b"]));
    let code = denied.code.as_str();
    assert!(!denied.ok && denied.text.contains(r#""stage":"target""#), "{}", denied.text);
    told_of(&b, "denied-there", &[("a write has arrived", ""), ("an action is answered", code)]);
    let here = [
        ("a dispatch was asked for over HTTP", ""),
        ("an envelope goes out", ""),
        ("a target has answered or was given up", code),
        ("a dispatch is answered over HTTP", code),
    ];
    told_of(&a, "denied-there", &here);
    for (node, side) in [(&a, "dispatch"), (&b, "target")] {
        let series = format!(r#"trust_runtime_denials_total{{code="{code}",stage="target",side="{side}"}}"#);
        assert_eq!(node.metric(&series), 1.0, "{series}");
    }
}

#[test]
fn one_request_to_two_targets_is_found_at_all_three() {
    let cluster = Cluster::new();
    let [a, b] = pair(&cluster, LOGGED);
    let c = cluster.play("c", Setup::new().dialling(&b).with(LOGGED));
    for (seen, name) in [(&a, "c"), (&c, "a"), (&c, "b")] {
        seen.await_lifecycle(name, "online");
    }
    for (body, arrived) in [
        (read("a", "both-read", &["b", "c"]), "a read has arrived"),
        (ping("a", "both-command", &["b", "c"]), "a write has arrived"),
    ] {
        let id = body["request_id"].as_str().expect("text").to_owned();
        let done = outcomes(&a.post(DISPATCH, &body));
        assert!(done.len() == 2 && done.iter().all(|it| it.ok), "{done:?}");
        for node in [&b, &c] {
            let lines = told_of(node, &id, &[(arrived, ""), ("an action is answered", "ok")]);
            assert!(lines.iter().all(|line| line["span"]["runtime_id"] == format!("default-site/{}", node.name())));
        }
        wait_until("the answer", SEEN_MAX, || {
            let is_there = lines_of(&a, &id).iter().any(|(message, _)| message == "a dispatch is answered over HTTP");
            if is_there { Ok(()) } else { Err(a.log()) }
        });
        for message in ["an envelope goes out", "a target has answered or was given up"] {
            let lines = lines_of(&a, &id);
            let of_each = lines.iter().filter(|line| line.0 == message);
            let targets: Vec<_> = of_each.map(|(_, line)| line["fields"]["target"].clone()).collect();
            let both: BTreeSet<_> = targets.iter().map(Json::to_string).collect();
            assert_eq!((targets.len(), both.len()), (2, 2), "{message}: {targets:?}");
        }
    }
}

/// Only libfaketime has a clock of its own for one process.
#[test]
fn a_clock_beside_the_clocks_of_the_others_shows_at_all_of_them() {
    let cluster = Cluster::new();
    let clock = WallClock::at(cluster.folder().join("b.clock"));
    clock.set("+20");
    let moved = clock.environment().into_iter().fold(Setup::new(), |it, (name, value)| it.variable(name, value));
    let mut b = cluster.play("b", moved);
    let skew = "trust_runtime_clock_skew_seconds";
    assert!(!b.get("/metrics").text.contains(skew), "it has heard nobody");
    let a = cluster.play("a", Setup::new().dialling(&b));
    for (node, wanted) in [(&a, 20.0), (&b, -20.0)] {
        wait_until("the skew", SEEN_MAX, || {
            let found = node.metric(skew);
            // The way of a word is in it, on a machine that may be busy.
            if (found - wanted).abs() < 3.0 { Ok(()) } else { Err(format!("{}: {found}", node.name())) }
        });
        assert!(node.metric("trust_runtime_clock_offset_seconds").abs() < 3.0, "it was so from the start");
    }
    let pid = b.pid();
    b.kill();
    clock::forget(pid);
}

/// The words of a label as the page of metrics has them.
fn words(row: &table::Row, label: &str) -> BTreeSet<String> {
    let (_, text) = row.labels.iter().find(|(name, _)| *name == label).expect("a label");
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn every_bounded_queue_is_measured_and_stands_on_the_page() {
    let cluster = Cluster::new();
    let with_workload = "[runtime.workload]\nprogram = \"/bin/sleep\"\nargs = [\"600\"]\n";
    let node = cluster.play("a", Setup::new().with(with_workload));
    let text = node.get("/metrics").text;
    let row = table::ALL.iter().find(|row| row.name == "trust_runtime_queue_capacity").expect("a row");
    let shown = |prefix: &str| -> BTreeSet<String> {
        let names = text.lines().filter_map(|line| line.strip_prefix(prefix)?.split('"').next());
        names.map(str::to_owned).collect()
    };
    for name in ["trust_runtime_queue_length", "trust_runtime_queue_capacity"] {
        assert_eq!(shown(&format!("{name}{{queue=\"")), words(row, "queue"), "{name}");
    }
    for queue in words(row, "queue") {
        let of = |name: &str| node.metric(&format!("trust_runtime_queue_{name}{{queue=\"{queue}\"}}"));
        assert!(0.0 < of("capacity") && of("length") < of("capacity"), "{queue}: nothing fills it here");
    }
}

/// Days until the end of each certificate, by the machine's clock; 0 where there is no such series.
fn days_left(node: &Plant, desk: &Desk) -> [f64; 3] {
    let bearer = format!("authorization: Bearer {TOKEN}");
    let output = node.curl(&desk.anchors("north"), "/metrics", &["--header", &bearer], None);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let now = SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_secs_f64();
    ["anchor", "node", "web"].map(|certificate| {
        let name = "trust_runtime_certificate_expiry_timestamp_seconds";
        let series = format!("{name}{{certificate=\"{certificate}\"}} ");
        let end = text.lines().find_map(|line| line.strip_prefix(&series)?.parse::<f64>().ok());
        end.map_or(0.0, |end| (end - now) / 86_400.0)
    })
}

#[test]
fn the_end_of_every_certificate_that_a_node_rests_on_is_measured() {
    let desk = Desk::new(&["north"]);
    let node = desk.play_with(("plant", "north", "a"), &["north"], &[], &["--days", "20"], "");
    let project = node.project.clone();
    let is_about = |days: f64, wanted: f64| (days - wanted).abs() < 0.1;
    let [anchor, own, web] = days_left(&node, &desk);
    assert!(is_about(own, 20.0) && is_about(web, 20.0) && 21.0 < anchor, "{anchor} {own} {web}");
    drop(node);

    // The listener gets one of its own, which ends sooner than the identity.
    let other = desk.project("ca-north", "north", "web", &["--days", "3"]);
    let text = fs::read_to_string(project.join("runtime.toml")).expect("settings");
    let provisioned = format!(
        "mode = \"provisioned\"\ncert_path = {:?}\nkey_path = {:?}\nca_path = {:?}",
        other.join("tls/node-web.pem"),
        other.join("tls/node-web.key"),
        desk.anchors("north"),
    );
    write_settings(&project, &text.replace("mode = \"self-managed\"", &provisioned));
    let [anchor_then, own, web] = days_left(&Plant::start(project), &desk);
    assert!(is_about(own, 20.0) && is_about(web, 3.0) && is_about(anchor_then, anchor), "{anchor_then} {own} {web}");
}
