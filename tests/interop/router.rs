//! A router of another maker between our nodes: Zenoh's own, as the official client runs it. It carries everything that the
//! nodes say to each other, and can forge nothing of it.

use serde_json::{Value as Json, json};

use crate::harness::{Authority, Client, Node, wait_until};
use crate::{Stage, dispatched, is_online, look_around, read, set_level};

/// Two nodes that have no way to each other but through the router, and know each other.
pub(crate) async fn behind(router: &str, authority: Option<&Authority>) -> (Node, Node) {
    let a = Node::behind(router, "node-a", authority).await;
    let b = Node::behind(router, "node-b", authority).await;
    for (one, other) in [(&a, &b), (&b, &a)] {
        wait_until(&format!("{} sees {} online", one.name, other.name), async || {
            let belief = one.belief().await;
            // Each has the other's identity as well: what is attacked from here on is whole.
            let is_whole = !belief.to_string().contains("\"version\":null");
            if is_online(&belief, other.name) && is_whole { Ok(()) } else { Err(belief.to_string()) }
        })
        .await;
    }
    (a, b)
}

async fn check_work(client: &mut Client, a: &Node, b: &Node) {
    for (origin, target) in [(a, b), (b, a)] {
        assert_eq!(dispatched(origin, read(origin, target, "through-the-router")).await, json!("ok"));
    }
    look_around(client, a, b).await;
    check_way(a, b).await;
}

/// Waits until the first node has measured the way to the other.
pub(crate) async fn check_way(a: &Node, b: &Node) {
    wait_until("the way through the router is measured", async || {
        let state = a.get("/api/runtime-cloud/state").await;
        let edges = state.pointer("/topology/edges").and_then(Json::as_array).cloned().unwrap_or_default();
        let is_it = |edge: &&Json| edge["source"] == a.name && edge["target"] == b.name && edge["state"] == "healthy";
        edges.iter().find(is_it).map(|_| ()).ok_or_else(|| json!(edges).to_string())
    })
    .await;
}

async fn over_tcp(version: &str) {
    let mut client = Client::start(version);
    let found = client.order(json!({ "do": "route", "protocol": "tcp", "tls": {} })).await;
    let (a, b) = behind(found["at"].as_str().expect("an address"), None).await;
    check_work(&mut client, &a, &b).await;
    let mut stage = Stage { belief: (a.belief().await, b.belief().await), a, b, client };
    stage.forged_envelopes().await;
    stage.real_envelopes_in_wrong_places().await;
    stage.documents().await;
    stage.tokens().await;
    stage.a_replayed_envelope_has_one_effect().await;
    let written = dispatched(&stage.b, set_level(&stage.b, &stage.a, "through-the-router-too")).await;
    assert_eq!(written, json!("ok"), "and goes on carrying");
}

/// Zenoh's own TLS at the router, ours at the nodes.
async fn inside_tls(version: &str) {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().expect("a folder"));
    authority.issue("router", folder.path());
    let tls = json!({
        "root_ca_certificate": authority.anchors(),
        "listen_certificate": folder.path().join("node-router.pem"),
        "listen_private_key": folder.path().join("node-router.key"),
        "enable_mtls": true,
    });
    let mut client = Client::start(version);
    let found = client.order(json!({ "do": "route", "protocol": "tls", "tls": tls })).await;
    let (a, b) = behind(found["at"].as_str().expect("an address"), Some(&authority)).await;
    check_work(&mut client, &a, &b).await;
    let mut stage = Stage { belief: (a.belief().await, b.belief().await), a, b, client };
    stage.documents().await;
    stage.tokens().await;
    let written = dispatched(&stage.b, set_level(&stage.b, &stage.a, "inside-tls")).await;
    assert_eq!(written, json!("ok"), "and goes on carrying");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_of_zenoh_1_7_2_carries_what_nodes_say_and_forges_nothing() {
    over_tcp("1.7.2").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_of_zenoh_1_10_2_carries_what_nodes_say_and_forges_nothing() {
    over_tcp("1.10.2").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_link_inside_tls_with_a_router_that_has_zenohs_own() {
    inside_tls("1.10.2").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_link_inside_tls_with_an_older_router_that_has_zenohs_own() {
    inside_tls("1.7.2").await;
}
