//! The official Zenoh client against two real nodes: it sees what it may see, and its attacks change and break nothing.
//!
//! Every attack names the counter that must show it. A node that refuses without counting fails here as well as one that obeys.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test may stop at the first surprise"
)]

mod forgery;
mod harness;
mod router;
mod zenohd;

use std::time::Duration;

use serde_json::{Value as Json, json};
use trust_runtime::domain::time::{Millis, Wall};

use crate::forgery::{keys_of, made_up_keys, said, sealed, write};
use crate::harness::{Client, Node, wait_until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_of_zenoh_1_7_2_sees_the_mesh_and_cannot_harm_it() {
    check("1.7.2").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_of_zenoh_1_10_2_sees_the_mesh_and_cannot_harm_it() {
    check("1.10.2").await;
}

/// Nobody speaks by itself for a while, so that only the question after a lost token can tell.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_peer_whose_token_a_stranger_takes_back_stays_online() {
    let mut client = Client::start("1.10.2");
    let rarely = Duration::from_secs(8);
    let a = Node::start_speaking("node-a", &[], rarely).await;
    let b = Node::start_speaking("node-b", &[&a.mesh], rarely).await;
    wait_until("node-b sees node-a online", async || {
        let belief = b.belief().await;
        if is_online(&belief, a.name) { Ok(()) } else { Err(belief.to_string()) }
    })
    .await;
    client.order(json!({ "do": "connect", "mode": "peer", "endpoints": [&a.mesh, &b.mesh] })).await;
    let before = b.belief().await;
    for times in [1, 1, 200] {
        client.order(json!({ "do": "flap_token", "key": token(&a), "times": times })).await;
        // waits: for longer than a lost token's grace and the answer within it; nothing must happen, so there is no condition.
        tokio::time::sleep(Duration::from_millis(900)).await;
        assert_eq!(b.belief().await, before, "after {times} times");
    }
}

/// A stranger answers for node b, sooner than node b can.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_in_anothers_name_is_no_answer() {
    let mut client = Client::start("1.10.2");
    let b = Node::start("node-b", &[]).await;
    let a = Node::start("node-a", &[&b.mesh]).await;
    wait_until("node-a sees node-b online", async || {
        let belief = a.belief().await;
        if is_online(&belief, b.name) { Ok(()) } else { Err(belief.to_string()) }
    })
    .await;
    client.order(json!({ "do": "connect", "mode": "peer", "endpoints": [&a.mesh, &b.mesh] })).await;
    let key = format!("truST/{}/svc/rpc/**", b.runtime());
    for (turn, payload) in ["", "7b7d", "7bff"].into_iter().enumerate() {
        client.order(json!({ "do": "impersonate", "key": key, "payload": payload })).await;
        let beside = dispatched(&a, read(&a, &b, &format!("beside-{turn}"))).await;
        assert_eq!(beside, json!("ok"), "node b answers too");
        b.signal("STOP");
        let before = a.refused("malformed").await;
        let read = dispatched(&a, read(&a, &b, &format!("read-{turn}"))).await;
        assert_eq!(read, json!("untrusted_identity"), "payload {payload:?}");
        assert!(before < a.refused("malformed").await, "counted, payload {payload:?}");
        let write = dispatched(&a, set_level(&a, &b, &format!("write-{turn}"))).await;
        assert_eq!(write, json!("timeout"), "payload {payload:?}");
        b.signal("CONT");
        client.order(json!({ "do": "impersonate_no_more", "key": key })).await;
    }
}

/// The code of the only target's result, or `ok`.
async fn dispatched(origin: &Node, body: Json) -> Json {
    let answer = origin.post("/api/runtime-cloud/actions/dispatch", &body).await;
    let result = answer.pointer("/results/0").unwrap_or_else(|| panic!("no result in {answer}"));
    if result.get("ok") == Some(&json!(true)) {
        return json!("ok");
    }
    result.get("denial_code").unwrap_or_else(|| panic!("no code in {result}")).clone()
}

fn set_level(origin: &Node, target: &Node, request_id: &str) -> Json {
    let mut body = read(origin, target, request_id);
    body["action_type"] = json!("cfg_apply");
    body["payload"] = json!({ "params": { "log.level": "warn" } });
    body["query_budget_ms"] = json!(300);
    body
}

fn read(origin: &Node, target: &Node, request_id: &str) -> Json {
    json!({
        "api_version": "1.0",
        "request_id": request_id,
        "connected_via": origin.name,
        "target_runtimes": [target.name],
        "actor": "spiffe://trust/default-site/observer",
        "action_type": "status_read",
    })
}

async fn check(version: &str) {
    let mut client = Client::start(version);
    let a = Node::start("node-a", &[]).await;
    let b = Node::start("node-b", &[&a.mesh]).await;
    for (one, other) in [(&a, &b), (&b, &a)] {
        wait_until(&format!("{} sees {} online", one.name, other.name), async || {
            let belief = one.belief().await;
            if is_online(&belief, other.name) { Ok(()) } else { Err(belief.to_string()) }
        })
        .await;
    }
    look_as_a_client(&mut client, &b).await;
    let endpoints = [&a.mesh, &b.mesh];
    client.order(json!({ "do": "connect", "mode": "peer", "endpoints": endpoints })).await;
    look_around(&mut client, &a, &b).await;
    let mut stage = Stage { belief: (a.belief().await, b.belief().await), a, b, client };
    stage.queries_that_are_none().await;
    stage.forged_envelopes().await;
    stage.real_envelopes_in_wrong_places().await;
    stage.documents().await;
    stage.tokens().await;
    stage.a_replayed_envelope_has_one_effect().await;
}

fn is_online(belief: &Json, name: &str) -> bool {
    let nodes = belief.get("nodes").and_then(Json::as_array).expect("nodes");
    nodes.iter().any(|node| {
        node.get("runtime_id") == Some(&json!(name)) && node.get("lifecycle_state") == Some(&json!("online"))
    })
}

/// A client in Zenoh's sense has one link and hears through it.
async fn look_as_a_client(client: &mut Client, node: &Node) {
    client.order(json!({ "do": "connect", "mode": "client", "endpoints": [node.mesh] })).await;
    let seen = client.order(json!({ "do": "liveliness" })).await;
    let tokens = seen.get("tokens").and_then(Json::as_array).expect("tokens");
    assert!(tokens.contains(&json!(token(node))), "{seen}");
    client.order(json!({ "do": "identity", "runtime": node.runtime() })).await;
    client.order(json!({ "do": "observation", "runtime": node.runtime() })).await;
    client.order(json!({ "do": "disconnect" })).await;
}

async fn look_around(client: &mut Client, a: &Node, b: &Node) {
    // A link that has just come up may not have brought the declarations yet.
    wait_until("both tokens are seen", async || {
        let seen = client.order(json!({ "do": "liveliness" })).await;
        let wanted = json!({ "tokens": [token(a), token(b)] });
        if seen == wanted { Ok(()) } else { Err(seen.to_string()) }
    })
    .await;
    for node in [a, b] {
        let found = client.order(json!({ "do": "identity", "runtime": node.runtime() })).await;
        assert_eq!(found.pointer("/identity/boot"), Some(&json!(node.boot)), "{found}");
        let heard = client.order(json!({ "do": "observation", "runtime": node.runtime() })).await;
        assert_eq!(heard.pointer("/observation/health"), Some(&json!("healthy")), "{heard}");
    }
}

fn token(node: &Node) -> String {
    format!("truST/{}/svc/liveliness/{}", node.runtime(), node.boot)
}

/// Where a query from `origin` reaches `target`.
fn act_key(target: &str, origin: &str) -> String {
    format!("truST/{target}/svc/rpc/act/{origin}")
}

fn refused(code: &str) -> Json {
    json!({ "refused": code })
}

fn denied(code: &str) -> Json {
    json!({ "denied": code })
}

/// Two nodes, what they believed before the first attack, and the attacker.
struct Stage {
    a: Node,
    b: Node,
    client: Client,
    belief: (Json, Json),
}

impl Stage {
    fn to_b(&self) -> String {
        act_key(&self.b.runtime(), &self.a.runtime())
    }

    /// Attacks node b, and checks that both nodes live on as before and that b counted it under `reason`.
    async fn attack(&mut self, what: &str, order: Json, reason: &str) -> Json {
        let before = self.b.refused(reason).await;
        let answer = self.client.order(order).await;
        self.is_counted(what, reason, before).await;
        self.nothing_changed(what).await;
        answer
    }

    async fn is_counted(&self, what: &str, reason: &str, before: u64) {
        wait_until(&format!("{what}: counted as {reason}"), async || {
            let now = self.b.refused(reason).await;
            if before < now { Ok(()) } else { Err(format!("{:?}", self.b.get("/healthz?verbose").await)) }
        })
        .await;
    }

    async fn nothing_changed(&mut self, what: &str) {
        self.a.check_alive();
        self.b.check_alive();
        let now = (self.a.belief().await, self.b.belief().await);
        assert_eq!(now, self.belief, "{what} changed what the nodes believe");
    }

    async fn queries_that_are_none(&mut self) {
        let query = |key: &str, payload: &[u8]| json!({ "do": "query", "key": key, "payload": forgery::hex(payload) });
        let key = self.to_b();
        let nested = [b'['; 4_000];
        for (what, payload) in [
            ("garbage", b"\xff\x00{\"payloadType".as_slice()),
            ("an empty query", b"".as_slice()),
            ("deep nesting", nested.as_slice()),
            ("another document", br#"{"payloadType":"text/plain","payload":"","signatures":[]}"#.as_slice()),
        ] {
            let answer = self.attack(what, query(&key, payload), "malformed").await;
            assert_eq!(said(&answer), refused("contract_violation"), "{what}");
        }
        let unknown = format!("truST/{}/svc/rpc/erase/x/y", self.b.runtime());
        let answer = self.attack("an unknown verb", query(&unknown, b""), "malformed_key").await;
        assert_eq!(said(&answer), refused("malformed_key"));
        let answer = self.attack("2 MiB", json!({ "do": "large_query", "key": key }), "too_large").await;
        assert_eq!(said(&answer), refused("too_large"));
        // A real envelope on a wildcard reaches both nodes, one of them legally, and is refused by both.
        let envelope = write(&self.a, &self.b, "wildcard", "warn");
        let payload = sealed(&keys_of(&self.a), &envelope);
        let key = act_key("*/*", &self.a.runtime());
        let order = json!({ "do": "query", "key": key, "payload": payload });
        let answer = self.attack("a wildcard query", order, "wildcard_query").await;
        let replies = answer.get("replies").and_then(Json::as_array).expect("replies");
        assert_eq!(replies.as_slice(), [json!({ "err": "wildcard_query" }), json!({ "err": "wildcard_query" })]);
    }

    async fn forged_envelopes(&mut self) {
        let key = self.to_b();
        let real = sealed(&keys_of(&self.a), &write(&self.a, &self.b, "forged", "warn"));
        for order in ["random_signature", "flipped_query"] {
            let order = json!({ "do": order, "key": key, "payload": real });
            let answer = self.attack("a forged envelope", order, "bad_signature").await;
            assert_eq!(said(&answer), refused("untrusted_identity"));
        }
        // Everything holds, under a key that is not the one pinned for this name.
        let made_up = sealed(&made_up_keys(&self.a), &write(&self.a, &self.b, "made-up", "warn"));
        let order = json!({ "do": "query", "key": key, "payload": made_up });
        let answer = self.attack("another key", order, "changed_key").await;
        assert_eq!(said(&answer), denied("untrusted_identity"));
        // The key speaks for node a and the envelope for itself.
        let key = act_key(&self.b.runtime(), &self.b.runtime());
        let order = json!({ "do": "query", "key": key, "payload": real });
        let answer = self.attack("another name", order, "bad_delegation").await;
        assert_eq!(said(&answer), refused("untrusted_identity"));
    }

    async fn real_envelopes_in_wrong_places(&mut self) {
        let keys = keys_of(&self.a);
        let good = write(&self.a, &self.b, "misplaced", "warn");
        let an_hour = Millis::from_hours(1);
        let late = |at: Wall| at.minus(an_hour);
        let cases = [
            ("for another runtime", "untrusted_identity", {
                let target = self.a.runtime().parse().expect("a runtime");
                trust_runtime::domain::envelope::Envelope { target, ..good.clone() }
            }),
            ("expired", "envelope_expired", {
                let (issued, expires) = (late(good.issued), late(good.expires));
                trust_runtime::domain::envelope::Envelope { issued, expires, ..good.clone() }
            }),
            ("with a window of an hour", "envelope_expired", {
                let expires = good.issued.plus(an_hour);
                trust_runtime::domain::envelope::Envelope { expires, ..good.clone() }
            }),
            ("of an earlier boot", "replayed", {
                trust_runtime::domain::envelope::Envelope { boot: good.boot - 1, ..good.clone() }
            }),
            ("for an actor of another site", "permission_denied", {
                let actor = "spiffe://trust/other-site/eve".parse().expect("an actor");
                trust_runtime::domain::envelope::Envelope { actor, ..good.clone() }
            }),
        ];
        for (what, code, envelope) in cases {
            let order = json!({ "do": "query", "key": self.to_b(), "payload": sealed(&keys, &envelope) });
            let answer = self.attack(what, order, code).await;
            assert_eq!(said(&answer), denied(code), "{what}");
        }
    }

    async fn documents(&mut self) {
        let runtime = self.a.runtime();
        let seen = self.client.order(json!({ "do": "observation", "runtime": runtime })).await;
        let document = seen.get("bytes").expect("bytes");
        for key in [format!("truST/{runtime}/diag/observation"), format!("truST/{runtime}/_meta/identity")] {
            let garbage = json!({ "do": "put", "key": key, "payload": "7bff" });
            self.attack("a garbage document", garbage, "malformed").await;
            self.attack("a document of 2 MiB", json!({ "do": "large_put", "key": key }), "too_large").await;
        }
        let key = format!("truST/{runtime}/diag/observation");
        let bent = json!({ "do": "flipped_put", "key": key, "payload": document });
        self.attack("a bent observation", bent, "bad_signature").await;
        let again = json!({ "do": "put", "key": key, "payload": document });
        self.attack("a repeated observation", again, "repeated_word").await;
        let elsewhere = format!("truST/{}/diag/observation", "default-site/node-c");
        let stolen = json!({ "do": "put", "key": elsewhere, "payload": document });
        self.attack("a stolen observation", stolen, "bad_delegation").await;
    }

    async fn tokens(&mut self) {
        let runtime = self.a.runtime();
        for (what, key, reason) in [
            ("a token of nobody", "truST/default-site/ghost/svc/liveliness/1".to_owned(), "token_without_identity"),
            (
                "a token of a boot to come",
                format!("truST/{runtime}/svc/liveliness/{}", u64::MAX),
                "token_without_identity",
            ),
            ("a token of no boot", format!("truST/{runtime}/svc/liveliness/{}0", u64::MAX), "malformed_key"),
        ] {
            self.attack(what, json!({ "do": "declare_token", "key": key }), reason).await;
            self.client.order(json!({ "do": "drop_token", "key": key })).await;
            self.two_periods().await;
            self.nothing_changed(&format!("{what} and its end")).await;
        }
        // The very token of node a, declared a second time and taken back: node a is still there and goes on speaking.
        let key = token(&self.a);
        self.client.order(json!({ "do": "declare_token", "key": key })).await;
        self.client.order(json!({ "do": "drop_token", "key": key })).await;
        self.two_periods().await;
        self.nothing_changed("a stolen token and its end").await;
    }

    /// Waits until node b has heard node a for longer than a token's grace, so that what a token did would show.
    async fn two_periods(&self) {
        let begin = self.heard().await;
        wait_until("node b goes on hearing node a", async || {
            let now = self.heard().await;
            if begin + 1_000_000_000 < now { Ok(()) } else { Err(format!("{begin} {now}")) }
        })
        .await;
    }

    async fn heard(&self) -> u64 {
        let state = self.b.get("/api/runtime-cloud/state").await;
        let nodes = state.pointer("/topology/nodes").and_then(Json::as_array).cloned().unwrap_or_default();
        let node = nodes.iter().find(|node| node.get("runtime_id") == Some(&json!(self.a.name)));
        node.and_then(|node| node.get("last_seen_ns")).and_then(Json::as_u64).expect("heard")
    }

    async fn a_replayed_envelope_has_one_effect(&mut self) {
        let keys = keys_of(&self.a);
        let payload = sealed(&keys, &write(&self.a, &self.b, "replayed-1", "warn"));
        let order = json!({ "do": "query", "key": self.to_b(), "payload": payload });
        let first = said(&self.client.order(order.clone()).await);
        let done = json!({ "kind": "applied", "revision": 1, "keys": ["log.level"] });
        assert_eq!(first, json!({ "done": done, "repeated": false }));
        // The one effect: from here on this is what nothing may change.
        self.belief.1["revision"] = json!(1);
        self.nothing_changed("the envelope").await;
        let again = self.attack("the replayed envelope", order, "repeated_request").await;
        assert_eq!(said(&again), json!({ "done": done, "repeated": true }));
        let other = sealed(&keys, &write(&self.a, &self.b, "replayed-1", "error"));
        let order = json!({ "do": "query", "key": self.to_b(), "payload": other });
        let answer = self.attack("the same request with another content", order, "conflict").await;
        assert_eq!(said(&answer), denied("conflict"));
        let audit = self.b.get("/api/runtime-cloud/audit?request_id=replayed-1").await;
        let records = audit.get("records").and_then(Json::as_array).unwrap_or_else(|| panic!("no records in {audit}"));
        let applied = records.iter().filter(|it| it.get("outcome") == Some(&json!("applied"))).count();
        assert_eq!(applied, 1, "{audit}");
    }
}
