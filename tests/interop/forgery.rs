//! Envelopes as the origin would seal them, and as somebody would who has no right to.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value as Json, json};

use trust_runtime::domain::action::Action;
use trust_runtime::domain::audit::Hash;
use trust_runtime::domain::config::Value;
use trust_runtime::domain::envelope::Envelope;
use trust_runtime::domain::identity::{IdentityKey, Role};
use trust_runtime::domain::time::{Millis, Wall};
use trust_runtime::node::clock::Clock;
use trust_runtime::wire::mesh::{self, Keys};

use crate::harness::Node;

/// The present moment by the clock that the nodes use.
pub(crate) fn now() -> Wall {
    Clock::start().now().wall
}

/// What node a signs with, from the key in its project folder.
pub(crate) fn keys_of(node: &Node) -> Keys {
    keys(node, node.identity_seed())
}

/// The same name under a key that somebody made up.
pub(crate) fn made_up_keys(node: &Node) -> Keys {
    keys(node, [9; 32])
}

fn keys(node: &Node, seed: [u8; 32]) -> Keys {
    let runtime = node.runtime().parse().expect("a runtime");
    let from = now();
    let (identity, envelope) = (IdentityKey::from_seed(seed), IdentityKey::from_seed([7; 32]));
    mesh::delegate(&identity, envelope, &runtime, from, from.plus(Millis::from_hours(1)))
}

/// A write of `log.level` from `origin` for `target`, as it should be.
pub(crate) fn write(origin: &Node, target: &Node, request_id: &str, level: &str) -> Envelope {
    let values = [("log.level".to_owned(), Value::Text(level.to_owned()))].into();
    let issued = now();
    Envelope {
        target: target.runtime().parse().expect("a runtime"),
        target_key: target.fingerprint.parse().expect("a fingerprint"),
        target_boot: Some(target.boot),
        origin: origin.runtime().parse().expect("a runtime"),
        actor: "spiffe://trust/default-site/engineer-1".parse().expect("an actor"),
        role: Role::Engineer,
        actor_verified: false,
        request_id: request_id.parse().expect("a request id"),
        action: Action::cfg_apply(values).expect("one setting"),
        issued,
        expires: issued.plus(Millis::from_secs(120)),
        boot: origin.boot,
        sequence: 1,
        policy_hash: Hash::of(b"a policy"),
    }
}

/// The sealed envelope as an order's argument.
pub(crate) fn sealed(keys: &Keys, envelope: &Envelope) -> String {
    hex(&mesh::seal_envelope(keys, envelope).0)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let pair = |at| u8::from_str_radix(text.get(at..at + 2).expect("pairs"), 16).expect("hexadecimal");
    (0..text.len()).step_by(2).map(pair).collect()
}

/// What the target says in the only reply of an answer: its refusal at the boundary, the denial or the response of its receipt.
pub(crate) fn said(answer: &Json) -> Json {
    let replies = answer.get("replies").and_then(Json::as_array).expect("a query");
    let [reply] = replies.as_slice() else { panic!("wanted one reply, got {answer}") };
    let Some(bytes) = reply.get("ok").and_then(Json::as_str) else {
        return json!({ "refused": reply.get("err") });
    };
    let outer: Json = serde_json::from_slice(&unhex(bytes)).expect("a DSSE document");
    let payload = outer.get("payload").and_then(Json::as_str).expect("a payload");
    let receipt: Json = serde_json::from_slice(&STANDARD.decode(payload).expect("base64")).expect("a receipt");
    match receipt.pointer("/denial/code") {
        Some(code) => json!({ "denied": code }),
        None => json!({ "done": receipt.get("response"), "repeated": receipt.get("repeated") }),
    }
}
