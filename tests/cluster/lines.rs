//! The contract on runs, asked of real nodes: their agents are the sample programs, and their run store is on disk.

#[path = "../api/runs/contract.rs"]
mod contract;
#[path = "../api/runs/http.rs"]
mod http;
#[path = "../api/runs/walks.rs"]
mod walks;

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value as Json;

use self::contract::{AGENTS, Target, cases};
use crate::harness::{Cluster, Running, Setup};

/// Where the admin routes are.
const MOUNT: &str = "/fleet/admin";

/// The sample programs as agents, and the admin listener.
fn settings() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/agents");
    let agent = |(name, program, webhook): &(&str, &str, bool)| {
        let program = folder.join(program);
        format!(
            "[[runtime.agent]]\nname = {name:?}\nprogram = {program:?}\ntimeout_ms = 60000\nwebhook = {webhook}\n\n"
        )
    };
    let agents: String = AGENTS.iter().map(agent).collect();
    format!("{agents}[runtime.admin]\nenabled = true\nlisten = \"127.0.0.1:0\"\nmount = {MOUNT:?}\n")
}

/// A node that has seen nothing yet, and where it is.
fn fresh(cluster: &Cluster, name: &str) -> (Running, Target) {
    let node = cluster.play(name, Setup::new().with(settings()));
    let ready = fs::read_to_string(node.state_folder().join("ready.json")).expect("it serves");
    let ready: Json = serde_json::from_str(&ready).expect("JSON");
    let url = ready["admin"].as_str().expect("the admin listener is open");
    let admin = url.trim_start_matches("http://").strip_suffix(MOUNT).expect("with its mount").to_owned();
    let base = node.web().to_string();
    let [token, public] = ["admin", "public"].map(|audience| token(&node, audience)["token"].clone());
    let text = |token: Json| token.as_str().expect("shown once").to_owned();
    let target = Target { base, admin, mount: MOUNT.to_owned(), token: text(token), public: text(public) };
    (node, target)
}

/// Makes an operator's token for one of the listeners.
fn token(node: &Running, audience: &str) -> Json {
    let made =
        node.command(&["token", "create", "--role", "operator", "--actor", "alice", "--audience", audience, "--json"]);
    assert!(made.status.success(), "{made:?}");
    // A running node takes the file up within a second.
    let made: Json = serde_json::from_slice(&made.stdout).expect("JSON");
    assert!(node.command(&["ctl", "reload"]).status.success());
    made
}

/// Every case of a file that no double is needed for, each on a node of its own.
async fn hold(file: &str) {
    let cluster = Cluster::new();
    let mut failed = Vec::new();
    for (number, case) in cases(Some(file)).into_iter().enumerate().filter(|(_, case)| case.double.is_none()) {
        let (_node, target) = fresh(&cluster, &format!("n{number}"));
        if let Err(fault) = case.run(&target).await {
            failed.push(format!("{} {:?}: {fault}", case.says, case.lines));
        }
    }
    assert!(failed.is_empty(), "{}:\n{}", failed.len(), failed.join("\n"));
}

#[tokio::test]
async fn invocations_hold_on_a_real_node() {
    hold("invoke.toml").await;
}

#[tokio::test]
async fn reads_hold_on_a_real_node() {
    hold("read.toml").await;
}

#[tokio::test]
async fn the_admin_listener_holds_on_a_real_node() {
    hold("admin.toml").await;
}

#[tokio::test]
async fn what_wants_many_requests_holds_on_a_real_node() {
    let cluster = Cluster::new();
    let (_node, target) = fresh(&cluster, "a");
    walks::every_run_has_a_name_of_its_own(&target).await;
    walks::a_caller_who_goes_away_stops_nothing(&target).await;
    walks::whenever_one_comes_each_event_comes_once(&target).await;
}

/// What came of a stream until the node ended it, and how soon after the token was revoked.
#[tokio::test]
async fn a_revoked_token_ends_its_streams_on_a_real_node() {
    let cluster = Cluster::new();
    let (node, target) = fresh(&cluster, "a");
    let made = token(&node, "public");
    let headers = [("authorization".to_owned(), format!("Bearer {}", made["token"].as_str().expect("a text")))];
    let run = walks::begin(&target, "/agents/slow/i1", "{\"n\":100000,\"ms\":50}").await;
    let mut streams = tokio::task::JoinSet::new();
    for path in ["/api/runtime-cloud/state/stream".to_owned(), format!("/runs/{run}/stream")] {
        let (base, headers) = (target.base.clone(), headers.clone());
        streams.spawn(async move { http::ask(&base, "GET", &path, &headers, None).await });
    }
    let known = http::ask(&target.base, "GET", &format!("/runs/{run}"), &headers, None).await;
    assert_eq!(known.status, 200, "{known:?}");
    assert!(node.command(&["token", "revoke", made["id"].as_str().expect("an id")]).status.success());
    // A heartbeat comes every fifteen seconds; a revocation is not waited for so long.
    let ended = tokio::time::timeout(Duration::from_secs(10), streams.join_all()).await.expect("ended");
    for heard in ended {
        let frames = http::frames(&heard.body);
        let last = frames.last().unwrap_or_else(|| panic!("{heard:?}"));
        assert_eq!(last.event, "error", "{last:?}");
        assert!(last.data.contains("\"unauthorized\""), "{last:?}");
    }
    assert_eq!(walks::get(&target, &format!("/runs/{run}")).await.json()["status"], "active", "the run goes on");
}

/// The command line finds the admin listener where it is mounted, with the token in the state folder.
#[test]
fn the_owner_of_a_node_lists_its_runs_through_the_mount() {
    let cluster = Cluster::new();
    let (node, _target) = fresh(&cluster, "a");
    let started = node.post("/agents/hello/i1", &serde_json::json!({}));
    let run = started.text_at("/_meta/runId").to_owned();
    let listed = node.command(&["runs", "list", "--json"]);
    assert!(listed.status.success() && String::from_utf8_lossy(&listed.stdout).contains(&run), "{listed:?}");
    let refused = node.command(&["token", "create", "--role", "viewer", "--actor", "eve", "--audience", "admin"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
}
