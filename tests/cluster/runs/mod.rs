//! Runs on real nodes: real programs, found by their bare id from any node, whole after any end.

mod beside;
mod brought;
mod death;
mod disk;
mod ends;
mod listed;
mod many;
mod oldest;
mod output;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value as Json, json};

use crate::harness::{Cluster, Running, SEEN_MAX, STOP_MAX, Setup};
use crate::http::Answer;
use crate::question::{DISPATCH, command};

/// The sample programs, declared as agents and, one of them, as a command.
pub(crate) fn declared() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/agents");
    let agent = |name: &str, program: &str, more: &str| {
        let program = folder.join(program);
        format!("[[runtime.agent]]\nname = {name:?}\nprogram = {program:?}\ntimeout_ms = 60000\n{more}\n")
    };
    let webhook = "webhook = true\n";
    [
        agent("hello", "hello.sh", webhook),
        agent("boom", "boom.py", webhook),
        agent("slow", "slow.py", webhook),
        agent("many", "many.py", webhook),
        agent("big", "big.py", webhook),
        agent("offline", "hello.sh", ""),
        format!("[[runtime.command]]\nname = \"tick\"\nprogram = {:?}\ntimeout_ms = 60000\n", folder.join("slow.py")),
    ]
    .concat()
}

/// A program that is written for one test, declared as an agent and as a command of the same name.
fn written(cluster: &Cluster, name: &str, text: &str, timeout_ms: u64) -> String {
    let program = cluster.folder().join(format!("program-{name}"));
    fs::write(&program, text).expect("a script");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("ours");
    let common = format!("name = {name:?}\nprogram = {program:?}\ntimeout_ms = {timeout_ms}\n");
    format!("[[runtime.agent]]\n{common}webhook = true\n\n[[runtime.command]]\n{common}\n")
}

/// Starts a command of a node through itself, and gives the run's id.
#[track_caller]
fn invoke(node: &Running, id: &str, name: &str, params: &Json) -> String {
    let answer = node.post(DISPATCH, &command(node.name(), id, node.name(), name, params));
    let run = answer.body.pointer("/results/0/run_id").and_then(Json::as_str);
    run.unwrap_or_else(|| panic!("no run: {}", answer.text)).to_owned()
}

/// Asks a node to cancel one of its runs.
#[track_caller]
fn cancel(node: &Running, id: &str, run: &str) {
    let cancelled = node.dispatch_one(&command(node.name(), id, node.name(), "cancel", &json!({ "run_id": run })));
    assert!(cancelled.ok, "{}", cancelled.text);
}

/// The name and the message of the error of a run's record.
fn error(record: &Json) -> (&str, &str) {
    let text = |place: &str| record.pointer(place).and_then(Json::as_str).unwrap_or_default();
    (text("/error/name"), text("/error/message"))
}

/// Every event of a run, page by page.
#[track_caller]
fn all_events(node: &Running, run: &str) -> Vec<Json> {
    let mut all = events(node, run);
    while let Some(last) = all.last().map(|event| event["eventIndex"].as_u64().expect("a number")) {
        let answer = node.get(&format!("/runs/{run}/events?limit=1000&after={last}"));
        let page = answer.body["events"].as_array().cloned().unwrap_or_else(|| panic!("{}", answer.text));
        if page.is_empty() {
            break;
        }
        all.extend(page);
    }
    all
}

/// A log with a start, no gap, one end and nothing after it.
#[track_caller]
fn assert_whole(events: &[Json]) {
    assert_gapless(events);
    assert_eq!(events.first().map(|event| &event["type"]), Some(&json!("run_start")));
    let ends: Vec<_> = events.iter().filter(|event| event["type"] == "run_end").collect();
    assert_eq!(ends, [events.last().expect("an event")], "one end, and it is the last");
}

/// Waits until the run has more events than this.
#[track_caller]
fn await_events(node: &Running, run: &str, more_than: usize) {
    node.wait_until(&format!("{run} says more than {more_than}"), SEEN_MAX, |node| {
        let path = format!("/runs/{run}/events?limit=1&after={more_than}");
        let answer = node.try_get(&path)?;
        let is_there = answer.body["events"].as_array().is_some_and(|events| !events.is_empty());
        if is_there { Ok(()) } else { Err(answer.text) }
    });
}

/// The numbers of processes that a program has written into a file of its working folder.
fn numbers(node: &Running, file: &str) -> Vec<u32> {
    let text = fs::read_to_string(node.project().join(file)).unwrap_or_default();
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

#[track_caller]
fn await_numbers(node: &Running, file: &str, count: usize) -> Vec<u32> {
    node.wait_until(&format!("{file} names {count}"), SEEN_MAX, |node| match numbers(node, file) {
        found if found.len() == count => Ok(()),
        found => Err(format!("{found:?}")),
    });
    numbers(node, file)
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

/// Two nodes that see each other; the second one has the programs.
fn pair(cluster: &Cluster) -> [Running; 2] {
    let a = cluster.play("a", Setup::new());
    let b = cluster.play("b", Setup::new().dialling(&a).with(declared()));
    a.await_lifecycle("b", "online");
    b.await_lifecycle("a", "online");
    [a, b]
}

/// Starts the ticking command on the second node through the first, and gives the run's id.
#[track_caller]
pub(crate) fn tick(a: &Running, id: &str, params: &Json) -> String {
    let answer = a.post(DISPATCH, &command("a", id, "b", "tick", params));
    let run = answer.body.pointer("/results/0/run_id").and_then(Json::as_str);
    run.unwrap_or_else(|| panic!("no run: {}", answer.text)).to_owned()
}

#[track_caller]
pub(crate) fn await_status(node: &Running, run: &str, wanted: &str) -> Json {
    let path = format!("/runs/{run}");
    node.wait_until(&format!("{run} is {wanted}"), SEEN_MAX, |node| {
        let answer = node.try_get(&path)?;
        if answer.body["status"] == wanted { Ok(()) } else { Err(answer.text) }
    });
    node.get(&path).body
}

fn events(node: &Running, run: &str) -> Vec<Json> {
    let answer = node.get(&format!("/runs/{run}/events?limit=1000"));
    answer.body["events"].as_array().cloned().unwrap_or_else(|| panic!("{}", answer.text))
}

#[track_caller]
fn assert_gapless(events: &[Json]) {
    for (event, index) in events.iter().zip(0_u64..) {
        assert_eq!(event["eventIndex"], index, "{event}");
    }
}

pub(crate) fn kind(answer: &Answer) -> &str {
    answer.body.pointer("/error/type").and_then(Json::as_str).unwrap_or_default()
}

#[test]
fn a_command_is_a_run_that_any_node_finds_by_its_id_also_when_its_owner_is_away() {
    let cluster = Cluster::new();
    let [a, mut b] = pair(&cluster);
    let run = tick(&a, "one", &json!({ "n": 3, "ms": 10 }));
    let record = await_status(&a, &run, "completed");
    assert_eq!((&record["agentName"], &record["instanceId"]), (&json!("cmd.tick"), &json!("b")), "{record}");
    assert_eq!(record["result"], "done");
    assert_eq!(record, b.get(&format!("/runs/{run}")).body, "the same from either node");
    let seen = events(&a, &run);
    assert_gapless(&seen);
    let types: Vec<_> = seen.iter().filter_map(|event| event["type"].as_str()).collect();
    assert_eq!(types, ["run_start", "log", "log", "log", "run_end"]);
    let again = a.post(DISPATCH, &command("a", "one", "b", "tick", &json!({ "n": 3, "ms": 10 })));
    assert_eq!(again.body.pointer("/results/0/run_id"), Some(&json!(run)), "the same request is the same run");

    b.kill();
    a.wait_until("the owner is missed", SEEN_MAX, |a| {
        let answer = a.try_get(&format!("/runs/{run}"))?;
        let is_missed = answer.status == 503 && kind(&answer) == "run_owner_unreachable";
        if is_missed { Ok(()) } else { Err(answer.text) }
    });
    for path in ["", "/events", "/stream"] {
        let answer = a.get(&format!("/runs/{run}{path}"));
        assert_eq!((answer.status, kind(&answer)), (503, "run_owner_unreachable"), "{path}: {}", answer.text);
        let known = ["runId", "agentName", "instanceId", "status", "startedAt"];
        for name in known {
            assert_eq!(answer.body["error"]["meta"]["run"][name], record[name], "{path}, {name}: {}", answer.text);
        }
    }
    b.restart();
    assert_eq!(await_status(&a, &run, "completed"), record, "nothing is lost");
    assert_eq!(events(&a, &run), seen);
    let unknown = a.get("/runs/run_01ARZ3NDEKTSV4RRFFQ69G5FAV");
    assert_eq!((unknown.status, kind(&unknown)), (404, "run_not_found"), "{}", unknown.text);
}

#[test]
fn a_kill_of_the_owner_in_mid_run_leaves_a_whole_log_with_an_end_and_no_process() {
    let cluster = Cluster::new();
    let [a, mut b] = pair(&cluster);
    let run = tick(&a, "long", &json!({ "n": 100_000, "ms": 5 }));
    b.wait_until("it ticks", SEEN_MAX, |b| {
        let answer = b.try_get(&format!("/runs/{run}/events?limit=1000"))?;
        let count = answer.body["events"].as_array().map_or(0, Vec::len);
        if 20 < count { Ok(()) } else { Err(answer.text) }
    });
    let before = events(&b, &run);
    b.kill();
    b.wait_until("no program is left", STOP_MAX, |_| {
        let left = running(&cluster.folder().join("b").display().to_string());
        if left.is_empty() { Ok(()) } else { Err(left.join(", ")) }
    });
    b.restart();
    let record = await_status(&b, &run, "errored");
    assert_eq!(record.pointer("/error/name"), Some(&json!("Interrupted")), "{record}");
    let after = events(&b, &run);
    assert_gapless(&after);
    assert_eq!(after.get(..before.len()), Some(before.as_slice()), "what was shown is still so");
}

/// Programs whose working folder this is, by their command lines.
fn running(folder: &str) -> Vec<String> {
    let entries = fs::read_dir("/proc").expect("a list").filter_map(Result::ok);
    let works_there = |path: &Path| fs::read_link(path.join("cwd")).is_ok_and(|cwd| cwd == Path::new(folder));
    let line = |path: &Path| fs::read_to_string(path.join("cmdline")).unwrap_or_default().replace('\0', " ");
    entries.map(|entry| entry.path()).filter(|path| works_there(path)).map(|path| line(&path)).collect()
}

#[test]
fn a_run_is_cancelled_from_another_node() {
    let cluster = Cluster::new();
    let [a, b] = pair(&cluster);
    let run = tick(&a, "endless", &json!({ "n": 100_000, "ms": 20 }));
    let cancel = command("a", "cancel-it", "b", "cancel", &json!({ "run_id": run }));
    assert!(a.dispatch_one(&cancel).ok);
    let record = await_status(&a, &run, "errored");
    assert_eq!(record.pointer("/error/name"), Some(&json!("Cancelled")), "{record}");
    let late = command("a", "cancel-again", "b", "cancel", &json!({ "run_id": run }));
    b.wait_until("nothing is left to cancel", SEEN_MAX, |_| {
        let outcome = a.dispatch_one(&late);
        if outcome.code == "contract_violation" { Ok(()) } else { Err(outcome.text) }
    });
}

#[test]
fn agents_are_started_over_http_and_bring_what_they_say() {
    let cluster = Cluster::new();
    let b = cluster.play("b", Setup::new().with(declared()));
    let answer = b.post("/agents/hello/i1", &json!({ "name": "plant" }));
    assert_eq!(
        (answer.status, &answer.body["result"]),
        (200, &json!({ "greeting": "hello plant", "payload": { "name": "plant" } })),
        "{}",
        answer.text
    );
    let run = answer.body.pointer("/_meta/runId").and_then(Json::as_str).expect("a run").to_owned();
    assert_eq!(b.get(&format!("/runs/{run}")).body["status"], "completed");
    let failed = b.post("/agents/boom/i1", &json!({}));
    assert_eq!((failed.status, kind(&failed)), (500, "internal_error"), "{}", failed.text);
    assert!(!failed.text.contains("secret"), "no detail: {}", failed.text);
    for (path, wanted) in [("/agents/offline/i1", "agent_not_webhook"), ("/agents/other/i1", "agent_not_found")] {
        let answer = b.post(path, &json!({}));
        assert_eq!((answer.status, kind(&answer)), (404, wanted), "{}", answer.text);
    }
    let many = b.post("/agents/many/i1", &json!({ "n": 990 })).body.pointer("/_meta/runId").cloned().expect("a run");
    let seen = events(&b, many.as_str().expect("a text"));
    assert_eq!(seen.len(), 992);
    assert_gapless(&seen);
    let big = b.post("/agents/big/i1", &json!({})).body.pointer("/_meta/runId").cloned().expect("a run");
    let seen = events(&b, big.as_str().expect("a text"));
    assert_gapless(&seen);
    let result = seen.iter().find_map(|event| event.get("result").filter(|it| it.is_object())).expect("cut");
    assert_eq!(
        (&result["truncated"], result["preview"].as_str().map(str::len)),
        (&json!(true), Some(1_024)),
        "{result}"
    );
    assert!(seen.iter().all(|event| event.to_string().len() <= 256 * 1024));
}
