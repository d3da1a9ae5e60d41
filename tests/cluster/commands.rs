//! Every command that each runtime has, over dispatch to a real workload, and the example that restarts one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value as Json, json};

use crate::harness::{Cluster, Running, SEEN_MAX, Setup};
use crate::question::{DISPATCH, Outcome, command, ping};

/// Writes its number with each start, and a word with each SIGHUP.
const WORK: &str = "#!/bin/sh
trap 'echo again >> reloads' HUP
echo $$ >> starts
while :; do sleep 0.02; done
";

/// Two nodes that see each other; the second one has a workload. The names are those of the example.
fn pair(cluster: &Cluster) -> [Running; 2] {
    let program = cluster.folder().join("work.sh");
    fs::write(&program, WORK).expect("a script");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("ours");
    let a = cluster.play("runtime-a", Setup::new());
    let workload = format!("[runtime.workload]\nprogram = {program:?}\n");
    let b = cluster.play("runtime-b", Setup::new().dialling(&a).with(workload));
    a.await_lifecycle("runtime-b", "online");
    b.await_lifecycle("runtime-a", "online");
    // What a runtime offers stands in its identity document, which comes a little later.
    await_state(&b, "running");
    [a, b]
}

fn workload(node: &Running) -> Result<Json, String> {
    let own = node.peer(node.name())?;
    own.get("workload").cloned().ok_or_else(|| own.to_string())
}

#[track_caller]
fn await_state(node: &Running, wanted: &str) -> Json {
    node.wait_until(&format!("the workload is {wanted}"), SEEN_MAX, |node| {
        let seen = workload(node)?;
        if seen["state"] == wanted { Ok(()) } else { Err(seen.to_string()) }
    });
    workload(node).expect("it was there")
}

fn lines(node: &Running, file: &str) -> Vec<String> {
    let text = fs::read_to_string(node.project().join(file)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[track_caller]
fn await_lines(node: &Running, file: &str, count: usize) {
    node.wait_until(&format!("{file} has {count} lines"), SEEN_MAX, |node| match lines(node, file) {
        found if found.len() == count => Ok(()),
        found => Err(format!("{found:?}")),
    });
}

/// Tells the workload, asks the same once more, and gives what the target has on record in the end.
#[track_caller]
fn tell(a: &Running, b: &Running, id: &str, name: &str) -> Json {
    let body = command(a.name(), id, b.name(), name, &json!({}));
    let outcome = a.dispatch_one(&body);
    assert!(outcome.ok && outcome.text.contains(name), "{name}: {}", outcome.text);
    let again = a.dispatch_one(&body);
    assert_eq!((again.ok, &again.audit_id), (true, &outcome.audit_id), "{}", again.text);
    concluded(b, id, &format!("cmd_invoke/{name}"))
}

/// The record of what became of it: the second one, after that of its acceptance.
#[track_caller]
fn concluded(b: &Running, id: &str, action: &str) -> Json {
    let of = |node: &Running| -> Vec<Json> {
        node.records(id).into_iter().filter(|record| record["action"] == action).collect()
    };
    b.wait_until(&format!("{id} is concluded"), SEEN_MAX, |b| match of(b) {
        found if 2 <= found.len() => Ok(()),
        found => Err(format!("{found:?}")),
    });
    let found = of(b);
    assert_eq!(found.len(), 2, "carried out once: {found:?}");
    // Lists are in the order of the ids, and two of one millisecond are in any; the chain knows which came last.
    let place = |record: &Json| record["seq"].as_u64().expect("a place in the chain");
    found.into_iter().max_by_key(place).expect("two")
}

#[test]
fn every_command_to_the_workload_is_carried_out_once_and_concluded_on_record() {
    let cluster = Cluster::new();
    let [a, b] = pair(&cluster);
    await_lines(&b, "starts", 1);
    for (name, state, starts) in [
        ("pause", "paused", 1),
        ("resume", "running", 1),
        ("restart", "running", 2),
        ("stop", "stopped", 2),
        ("start", "running", 3),
        ("reload", "running", 3),
    ] {
        let record = tell(&a, &b, &format!("tell-{name}"), name);
        assert_eq!(record["outcome"], "applied", "{name}: {record}");
        await_state(&b, state);
        await_lines(&b, "starts", starts);
    }
    await_lines(&b, "reloads", 1);
    let seen = await_state(&b, "running");
    assert_eq!(seen["pid"].to_string(), lines(&b, "starts")[2], "{seen}");
    // What makes no sense now is accepted, and on record as failed with the reason.
    assert_eq!(tell(&a, &b, "stop-again", "stop")["outcome"], "applied");
    let record = tell(&a, &b, "pause-nothing", "pause");
    assert_eq!(record["outcome"], "failed", "{record}");
    assert!(record["detail"].as_str().is_some_and(|it| it.contains("pause needs one that runs")), "{record}");
    assert!(a.dispatch_one(&ping("runtime-a", "ping", &["runtime-b"])).ok);
    b.verify_audit();
}

#[test]
fn commands_that_a_runtime_does_not_have_are_refused_by_name() {
    let cluster = Cluster::new();
    let [a, b] = pair(&cluster);
    let refused = |node: &Running, id: &str, target: &str, name: &str| -> Outcome {
        let outcome = node.dispatch_one(&command(node.name(), id, target, name, &json!({})));
        assert!(!outcome.ok, "{}", outcome.text);
        outcome
    };
    for name in ["pause", "reload", "restart", "resume", "start", "stop"] {
        assert_eq!(refused(&a, &format!("here-{name}"), "runtime-a", name).code, "not_configured");
        assert_eq!(refused(&b, &format!("there-{name}"), "runtime-a", name).code, "not_configured");
    }
    assert_eq!(refused(&a, "other", "runtime-b", "explode").code, "contract_violation");
    assert_eq!(refused(&a, "nothing", "runtime-b", "cancel").code, "schema_mismatch");
    assert_eq!(lines(&b, "starts").len(), 1);
}

#[test]
fn the_example_restarts_the_workload_of_the_other_runtime() {
    let cluster = Cluster::new();
    let [a, b] = pair(&cluster);
    await_lines(&b, "starts", 1);
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/runtime_cloud/dispatch-cmd-invoke-restart.json");
    let body: Json = serde_json::from_str(&fs::read_to_string(example).expect("it is there")).expect("JSON");
    let answer = a.post(DISPATCH, &body);
    assert_eq!((answer.status, &answer.body["ok"]), (200, &json!(true)), "{}", answer.text);
    assert_eq!(answer.body.pointer("/results/0/response/commanded"), Some(&json!("restart")), "{}", answer.text);
    await_lines(&b, "starts", 2);
    let id = body["request_id"].as_str().expect("a text");
    assert_eq!(concluded(&b, id, "cmd_invoke/restart")["outcome"], "applied");
    // Sent again, as scripts do, it is the same request.
    let again = a.post(DISPATCH, &body);
    let audit_id = |body: &Json| body.pointer("/results/0/audit_id").and_then(Json::as_str).map(str::to_owned);
    assert!(again.body["ok"] == true && audit_id(&again.body).is_some(), "{}", again.text);
    assert_eq!(audit_id(&again.body), audit_id(&answer.body), "answered from the record");
    assert_eq!(lines(&b, "starts").len(), 2);
}
