//! Files that change under a running node: tokens and rules count at once, and a bad file changes nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::harness::{Cluster, Running, SEEN_MAX, program, run_to_end};
use crate::http;

const COMMAND_MAX: Duration = Duration::from_secs(10);

const PREFLIGHT: &str = "/api/runtime-cloud/actions/preflight";

fn token(node: &Running, arguments: &[&str]) -> Json {
    let mut command = program();
    command.arg("token").args(arguments).arg("--json").arg("--project").arg(node.project());
    let (output, _) = run_to_end(&mut command, COMMAND_MAX);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn status_with(node: &Running, token: &str) -> u16 {
    let sent = http::send(node.web(), "/api/runtime-cloud/state", Some(token), None).expect("sent");
    sent.answer().expect("answered").status
}

#[test]
fn a_token_opens_a_running_node_until_it_is_revoked() {
    let cluster = Cluster::new();
    let [a] = cluster.site(["a"]);
    let made = token(&a, &["create", "--role", "viewer", "--actor", "alice", "--expires-days", "1"]);
    let text = made["token"].as_str().expect("shown once");
    let opens = |wanted: u16| {
        a.wait_until(&format!("the token gives {wanted}"), SEEN_MAX, |a| {
            let got = status_with(a, text);
            (got == wanted).then_some(()).ok_or_else(|| got.to_string())
        });
    };
    opens(200);
    let listed = token(&a, &["list"]);
    assert_eq!(listed[0]["actor"], "default-site/alice", "{listed}");
    assert!(listed[0].get("token").is_none(), "{listed}");
    token(&a, &["revoke", made["id"].as_str().expect("an id")]);
    opens(401);
}

#[test]
fn a_revoked_token_does_not_wait_for_a_file_that_is_not_valid() {
    let cluster = Cluster::new();
    let [a] = cluster.site(["a"]);
    let made = token(&a, &["create", "--role", "viewer", "--actor", "alice", "--expires-days", "1"]);
    let text = made["token"].as_str().expect("shown once");
    assert_eq!(reload(&a).0, Some(0));
    assert_eq!(status_with(&a, text), 200);

    let path = a.project().join("runtime.toml");
    let before = fs::read_to_string(&path).expect("text");
    fs::write(&path, before.replace("[bundle]", "[bundel]")).expect("written");
    fs::write(a.project().join("state/tokens.toml"), "").expect("emptied");
    a.wait_until("the token is refused", SEEN_MAX, |a| {
        let got = status_with(a, text);
        (got == 401).then_some(()).ok_or_else(|| got.to_string())
    });
    let (code, answer) = reload(&a);
    let rejected = answer["rejected"].as_array().expect("a list");
    assert_eq!((code, rejected.len()), (Some(3), 1), "{answer}");
    assert_eq!(rejected[0]["what"], "runtime.toml", "{answer}");
}

/// What the node says about a ping of itself.
fn ping(node: &Running) -> Json {
    let body = json!({
        "api_version": "1.0",
        "request_id": "reload",
        "connected_via": node.name(),
        "target_runtimes": [node.name()],
        "actor": "spiffe://trust/default-site/alice",
        "action_type": "cmd_invoke",
        "payload": { "command": "ping" },
    });
    node.post(PREFLIGHT, &body).body["denial_code"].clone()
}

fn reload(node: &Running) -> (Option<i32>, Json) {
    let output = node.command(&["ctl", "reload", "--json"]);
    (output.status.code(), serde_json::from_slice(&output.stdout).expect("JSON"))
}

#[test]
fn a_rule_counts_without_a_restart_and_a_bad_file_changes_nothing() {
    let cluster = Cluster::new();
    let [a] = cluster.site(["a"]);
    let path = a.project().join("runtime.toml");
    let before = fs::read_to_string(&path).expect("text");
    assert_eq!(reload(&a).0, Some(0));
    assert_eq!(ping(&a), Json::Null);

    let rule = "[[runtime.cloud.wan.allow_write]]\neffect = \"deny\"\naction = \"cmd_invoke\"\ntarget = \"a\"\n";
    fs::write(&path, format!("{before}\n{rule}")).expect("written");
    a.wait_until("the rule counts", SEEN_MAX, |a| {
        let got = ping(a);
        if got == "permission_denied" { Ok(()) } else { Err(got.to_string()) }
    });
    let audit = a.get("/api/runtime-cloud/audit?action=reload").text;
    assert!(audit.contains("\"reload\""), "{audit}");

    fs::write(&path, before.replace("[bundle]", "[bundel]")).expect("written");
    let (code, answer) = reload(&a);
    assert_eq!((code, &answer["ok"]), (Some(3), &json!(false)), "{answer}");
    assert!(answer["rejected"][0]["reason"].as_str().is_some_and(|it| it.contains("bundel")), "{answer}");
    assert_eq!(ping(&a), "permission_denied", "what was in force stays");

    fs::write(&path, format!("{before}\n[runtime.admin]\nlisten = \"127.0.0.1:0\"\n")).expect("written");
    a.signal("HUP");
    a.wait_until("the rule is gone", SEEN_MAX, |a| {
        let got = ping(a);
        if got.is_null() { Ok(()) } else { Err(got.to_string()) }
    });
    let (code, answer) = reload(&a);
    let waits = answer["needs_restart"].as_array().is_some_and(|it| it.contains(&json!("runtime.admin")));
    assert!(code == Some(0) && waits, "{answer}");
    assert_eq!(a.get("/readyz").status, 200, "SIGHUP does not end it");
}

/// Writes a file for its owner alone, as a whole.
fn put(file: &Path, text: &str) {
    let draft = file.with_extension("draft");
    fs::write(&draft, text).expect("written");
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o600)).expect("ours");
    fs::rename(draft, file).expect("ours");
}

/// Whoever has copied the owner's token is shut out without a restart.
#[test]
fn the_owners_token_is_replaced_by_removing_its_file() {
    let cluster = Cluster::new();
    let [a] = cluster.site(["a"]);
    let file = a.state_folder().join("admin.token");
    let read = || fs::read_to_string(&file).unwrap_or_default();
    let stolen = read();
    assert_eq!(status_with(&a, &stolen), 200);
    fs::remove_file(&file).expect("removed");
    a.wait_until("the old one is shut out", SEEN_MAX, |a| {
        let got = status_with(a, &stolen);
        (got == 401).then_some(()).ok_or_else(|| got.to_string())
    });
    assert_ne!(read(), stolen);
    assert_eq!(status_with(&a, &read()), 200, "the new one is in its place");
    assert_eq!(reload(&a).0, Some(0), "the command line finds it");
    // One that a person has put there counts as well, and a worthless one changes nothing.
    let chosen = format!("trt_{}", "c".repeat(43));
    put(&file, &chosen);
    a.wait_until("the chosen one counts", SEEN_MAX, |a| {
        let got = status_with(a, &chosen);
        (got == 200).then_some(()).ok_or_else(|| got.to_string())
    });
    put(&file, "short");
    a.signal("HUP");
    a.wait_until("the log says why", SEEN_MAX, |a| {
        a.log().contains("is not a token").then_some(()).ok_or_else(|| a.log())
    });
    assert_eq!((status_with(&a, &chosen), status_with(&a, "short")), (200, 401));
}

/// A disk that is full at that moment, here a folder in the way: the old one is taken back, and a new one made when it can be.
#[test]
fn an_owners_token_that_cannot_be_made_at_once_is_made_later() {
    let cluster = Cluster::new();
    let [a] = cluster.site(["a"]);
    let (file, draft) = (a.state_folder().join("admin.token"), a.state_folder().join("admin.new"));
    let old = fs::read_to_string(&file).expect("there");
    fs::create_dir(&draft).expect("made");
    fs::remove_file(&file).expect("removed");
    a.wait_until("the old one is shut out", SEEN_MAX, |a| {
        let got = status_with(a, &old);
        (got == 401).then_some(()).ok_or_else(|| got.to_string())
    });
    fs::remove_dir(&draft).expect("ours");
    a.wait_until("there is a new one", SEEN_MAX, |a| {
        let got = fs::read_to_string(&file).map_or(0, |new| status_with(a, &new));
        (got == 200).then_some(()).ok_or_else(|| got.to_string())
    });
}
