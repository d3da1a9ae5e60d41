//! Every record comes back as it was written, and what this version did not write is refused.

#![expect(clippy::arithmetic_side_effects, reason = "the numbers of test records are small")]

use std::sync::Arc;

use proptest::prelude::*;

use super::audit::{Anchor, canonical, place, verify_chain};
use super::{Change, audit, decode, encode};
use crate::domain::audit::{AuditId, Draft, Hash, Outcome};
use crate::domain::code::Code;
use crate::domain::config::{Overlay, Value};
use crate::domain::envelope::Response;
use crate::domain::id::{RequestId, RuntimeId};
use crate::domain::identity::{Actor, Fingerprint, TrustState};
use crate::domain::run::RunId;
use crate::domain::time::Wall;
use crate::engine::record::{Countersigned, Deed, Intent, IntentKey, OpenRun, Peer, Receipt, Record, RequestKey};

fn segment() -> impl Strategy<Value = String> {
    "[A-Za-z0-9_-][A-Za-z0-9._-]{0,15}"
}

fn runtime() -> impl Strategy<Value = RuntimeId> {
    (segment(), segment()).prop_map(|(site, name)| format!("{site}/{name}").parse().expect("legal"))
}

fn actor() -> impl Strategy<Value = Actor> {
    ("[a-z0-9._-]{1,12}", segment(), segment())
        .prop_map(|(domain, site, name)| format!("spiffe://{domain}/{site}/{name}").parse().expect("legal"))
}

fn request_id() -> impl Strategy<Value = RequestId> {
    "[!-~]{1,128}".prop_map(|text| text.parse().expect("legal"))
}

fn request() -> impl Strategy<Value = RequestKey> {
    (actor(), request_id()).prop_map(|(actor, request_id)| RequestKey { actor, request_id })
}

fn intent_key() -> impl Strategy<Value = IntentKey> {
    (request(), runtime()).prop_map(|(request, target)| IntentKey { request, target })
}

fn audit_id() -> impl Strategy<Value = AuditId> {
    (any::<u64>(), any::<[u8; 10]>()).prop_map(|(at, random)| AuditId::new(Wall(at), random))
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        any::<String>().prop_map(Value::Text),
        any::<String>().prop_map(Value::Other),
    ]
}

fn overlay() -> impl Strategy<Value = Overlay> {
    let values = || prop::collection::btree_map(any::<String>(), value(), 0..4);
    (any::<u64>(), values(), values()).prop_map(|(revision, values, over)| Overlay { revision, values, over })
}

fn peer() -> impl Strategy<Value = Peer> {
    let trust = prop_oneof![Just(TrustState::Trusted), Just(TrustState::Untrusted)];
    (runtime(), any::<[u8; 32]>(), trust, any::<u64>()).prop_map(|(runtime, pinned, trust, boot)| Peer {
        runtime,
        pinned: Fingerprint(pinned),
        trust,
        boot,
    })
}

fn receipt() -> impl Strategy<Value = Receipt> {
    let applied = (any::<u64>(), prop::collection::vec(any::<String>(), 0..4));
    let response = prop_oneof![
        Just(Response::Pong),
        applied.prop_map(|(revision, keys)| Response::Applied { revision, keys }),
        run_id().prop_map(|run| Response::Cancelling { run }),
        segment().prop_map(|command| Response::Commanded { command: command.parse().expect("legal") }),
        run_id().prop_map(|run| Response::Started { run }),
    ];
    (request(), runtime(), any::<[u8; 32]>(), any::<u64>(), audit_id(), response).prop_map(
        |(key, origin, digest, at, audit_id, response)| Receipt {
            key,
            origin,
            digest: Hash(digest),
            at: Wall(at),
            audit_id,
            response,
        },
    )
}

fn run_id() -> impl Strategy<Value = RunId> {
    (any::<u64>(), any::<[u8; 10]>()).prop_map(|(at, random)| RunId::new(Wall(at), random))
}

fn deed() -> impl Strategy<Value = Deed> {
    (request(), runtime(), any::<bool>(), segment(), any::<u64>()).prop_map(
        |(key, origin, is_verified, command, at)| {
            let command = command.parse().expect("legal");
            Deed { key, origin, is_verified, command, at: Wall(at) }
        },
    )
}

fn run() -> impl Strategy<Value = OpenRun> {
    let agent = prop_oneof![segment(), segment().prop_map(|name| format!("cmd.{name}"))];
    (run_id(), agent, "[^\\p{C}]{0,30}[a-z]", any::<String>(), actor(), any::<u64>(), any::<bool>()).prop_map(
        |(run, agent, instance, payload, actor, at, is_streamed)| OpenRun {
            run,
            agent: agent.parse().expect("legal"),
            instance: instance.parse().expect("legal"),
            payload,
            is_streamed,
            actor,
            at: Wall(at),
        },
    )
}

/// Facts that leave a row.
fn fact() -> impl Strategy<Value = Record> {
    let intent = (intent_key(), any::<String>(), any::<u64>());
    prop_oneof![
        any::<u64>().prop_map(|counter| Record::Boot { counter }),
        any::<u64>().prop_map(|wall| Record::ClockMark { wall: Wall(wall) }),
        any::<u64>().prop_map(|wall| Record::DroppedUntil { wall: Wall(wall) }),
        intent.prop_map(|(key, action, at)| Record::Intent(Intent { key, action, at: Wall(at) })),
        overlay().prop_map(Record::Overlay),
        peer().prop_map(Record::Peer),
        receipt().prop_map(Record::Receipt),
        deed().prop_map(Record::Deed),
        run().prop_map(|run| Record::Run(Arc::new(run))),
    ]
}

fn draft() -> impl Strategy<Value = Draft> {
    let who = (audit_id(), any::<u64>(), any::<String>(), any::<bool>(), runtime());
    let what = (any::<String>(), runtime(), prop::option::of(request_id()));
    let end = (
        prop::sample::select(Outcome::ALL.to_vec()),
        prop::option::of(prop::sample::select(Code::ALL.to_vec())),
        any::<String>(),
        any::<[u8; 32]>(),
    );
    (who, what, end).prop_map(
        |(
            (audit_id, at, actor, actor_verified, origin),
            (action, target, request_id),
            (outcome, code, detail, policy),
        )| {
            Draft {
                audit_id,
                at: Wall(at),
                actor,
                actor_verified,
                origin,
                action,
                target,
                request_id,
                outcome,
                code,
                detail,
                policy_hash: Hash(policy),
            }
        },
    )
}

fn chain(drafts: &[Draft]) -> Vec<(Vec<u8>, Hash)> {
    let mut end = Anchor::START;
    let mut records = Vec::new();
    for draft in drafts {
        let (position, bytes) = place(draft, end).expect("encodes");
        end = position.into();
        records.push((bytes, position.hash));
    }
    records
}

proptest! {
    #[test]
    fn every_fact_comes_back_as_it_was_written(record in fact()) {
        let Change::Put { kind, key, body } = encode(&record).expect("encodes") else { panic!("a fact leaves a row") };
        prop_assert_eq!(decode(kind, &key, &body), Ok(record));
    }

    #[test]
    fn a_removal_names_the_row_that_the_fact_left(peer in peer(), receipt in receipt(), key in intent_key()) {
        let intent = Intent { key: key.clone(), action: "cfg_apply".into(), at: Wall(1) };
        let peer_runtime = peer.runtime.clone();
        for (fact, removal) in [
            (Record::Peer(peer.clone()), Record::PeerForgotten { runtime: peer.runtime }),
            (Record::Receipt(receipt.clone()), Record::ReceiptDropped(receipt.key)),
            (Record::Intent(intent), Record::IntentClosed(key)),
            (
                Record::Countersigned(Box::new(Countersigned {
                    witness: peer_runtime.clone(),
                    key: String::new(),
                    note: String::new(),
                    refused: None,
                })),
                Record::CountersignedForgotten { witness: peer_runtime },
            ),
        ] {
            let Change::Put { kind, key, .. } = encode(&fact).expect("encodes") else { panic!("a fact leaves a row") };
            prop_assert_eq!(encode(&removal), Ok(Change::Delete { kind, key }));
        }
    }

    #[test]
    fn two_writes_never_share_a_row(left in request(), right in request(), target in runtime()) {
        let row = |request: &RequestKey| {
            encode(&Record::IntentClosed(IntentKey { request: request.clone(), target: target.clone() }))
        };
        prop_assert_eq!(left == right, row(&left) == row(&right));
    }

    #[test]
    fn every_audit_record_comes_back_as_it_was_written(draft in draft(), seq in any::<u64>(), hash in any::<[u8; 32]>()) {
        let bytes = canonical(&draft, seq, Hash(hash)).expect("encodes");
        let entry = audit::decode(&bytes, Hash([7; 32])).expect("decodes");
        prop_assert_eq!(entry.draft, draft);
        prop_assert_eq!((entry.position.seq, entry.position.previous), (seq, Hash(hash)));
    }

    #[test]
    fn any_change_of_a_chain_is_found_where_it_is(
        drafts in prop::collection::vec(draft(), 2..5),
        at in any::<prop::sample::Index>(),
        offset in any::<prop::sample::Index>(),
        flip in 1_u8..,
    ) {
        let mut records = chain(&drafts);
        prop_assert!(verify_chain(Anchor::START, records.clone()).is_ok());
        let index = at.index(records.len());
        let byte = offset.index(records[index].0.len());
        records[index].0[byte] ^= flip;
        let broken = verify_chain(Anchor::START, records).expect_err("changed");
        prop_assert_eq!(broken.seq, index as u64 + 1);
    }
}

/// Fixed bytes: a change here would break every chain already written.
#[test]
fn the_canonical_bytes_are_these() {
    let draft = sample();
    let full = r#"{"seq":1,"audit_id":"00000000010000000000000000","timestamp_ns":1000000,"actor":"a\"\n","actor_verified":true,"origin":"s/a","action":"cfg_apply","target":"s/b","request_id":"r1","outcome":"denied","code":"permission_denied","detail":"no","policy_hash":"0101010101010101010101010101010101010101010101010101010101010101","prev_hash":"0000000000000000000000000000000000000000000000000000000000000000"}"#;
    assert_eq!(String::from_utf8(canonical(&draft, 1, Anchor::START.hash).expect("encodes")).expect("text"), full);
    let bare = Draft { request_id: None, code: None, ..draft };
    let bytes = canonical(&bare, 1, Anchor::START.hash).expect("encodes");
    assert_eq!(
        String::from_utf8(bytes).expect("text"),
        full.replace(r#""request_id":"r1","#, "").replace(r#""code":"permission_denied","#, "")
    );
}

fn sample() -> Draft {
    Draft {
        audit_id: AuditId::new(Wall(1_000_000), [0; 10]),
        at: Wall(1_000_000),
        actor: "a\"\n".into(),
        actor_verified: true,
        origin: "s/a".parse().expect("legal"),
        action: "cfg_apply".into(),
        target: "s/b".parse().expect("legal"),
        request_id: Some("r1".parse().expect("legal")),
        outcome: Outcome::Denied,
        code: Some(Code::PermissionDenied),
        detail: "no".into(),
        policy_hash: Hash([1; 32]),
    }
}

#[test]
fn a_removed_or_swapped_record_breaks_the_chain() {
    let records = chain(&[sample(), sample(), sample()]);
    let broken_at = |records: Vec<(Vec<u8>, Hash)>| verify_chain(Anchor::START, records).map_err(|broken| broken.seq);
    let [first, second, third] = records.clone().try_into().expect("three");
    assert_eq!(broken_at(vec![first.clone(), third.clone()]), Err(2));
    assert_eq!(broken_at(vec![second.clone(), third.clone()]), Err(1));
    assert_eq!(broken_at(vec![first.clone(), third.clone(), second.clone()]), Err(2));
    assert_eq!(broken_at(vec![first.clone(), (second.0.clone(), first.1)]), Err(2));
    let anchor = Anchor { seq: 1, hash: first.1 };
    assert_eq!(verify_chain(anchor, vec![second, third.clone()]), Ok(Anchor { seq: 3, hash: third.1 }));
}

/// Its hash is made over the right predecessor, but the record names another.
#[test]
fn a_record_that_names_another_predecessor_breaks_the_chain() {
    let bytes = canonical(&sample(), 1, Hash([5; 32])).expect("encodes");
    let hash = Hash::chain(Anchor::START.hash, &bytes);
    let broken = verify_chain(Anchor::START, [(bytes, hash)]).expect_err("foreign");
    assert!(broken.seq == 1 && broken.reason.contains("prev_hash"), "{broken}");
}

#[test]
fn rows_of_another_hand_are_refused_by_name() {
    let request = "spiffe://trust/s/alice r1";
    for (kind, key, body) in [
        ("boots", "", r#"{"counter":1}"#),
        ("boot", "x", r#"{"counter":1}"#),
        ("boot", "", r#"{"counter":1,"more":2}"#),
        ("boot", "", r#"{"counter":-1}"#),
        ("boot", "", r#"{"counter":1} "x""#),
        ("boot", "", ""),
        ("clock_mark", "", r#"{"wall":1}"#),
        ("dropped_until", "x", r#"{"wall_ns":1}"#),
        ("dropped_until", "", r#"{"wall_ns":1,"more":2}"#),
        ("intent", request, r#"{"action":"a","at_ns":1}"#),
        ("intent", "spiffe://trust/s/alice r1 b", r#"{"action":"a","at_ns":1}"#),
        ("overlay", "", r#"{"revision":1,"values":{"log.level":"debug"}}"#),
        ("overlay", "", r#"{"revision":1,"values":{"log.level":{"float":1}}}"#),
        ("peer", "a", r#"{"pinned":"","trust":"trusted","boot":1}"#),
        ("peer", "s/a", r#"{"pinned":"ab","trust":"trusted","boot":1}"#),
        ("receipt", request, r#"{"origin":"s/a"}"#),
        ("receipt", "alice r1", r#"{"counter":1}"#),
    ] {
        let error = decode(kind, key, body).expect_err(body);
        assert_eq!((error.kind.as_str(), error.key.as_str()), (kind, key), "{error}");
    }
}

#[test]
fn audit_bytes_that_are_not_canonical_are_refused() {
    let bytes = canonical(&sample(), 1, Anchor::START.hash).expect("encodes");
    let text = String::from_utf8(bytes).expect("text");
    let decoded = |text: &str| audit::decode(text.as_bytes(), Hash([0; 32]));
    assert!(decoded(&text).is_ok());
    for (from, to) in [
        ("{\"seq\"", "{ \"seq\""),
        ("\"detail\":\"no\"", "\"detail\":\"n\\u006f\""),
        ("\"code\":\"permission_denied\"", "\"code\":null"),
        ("\"code\":\"permission_denied\"", "\"code\":\"nope\""),
        ("\"denied\"", "\"refused\""),
        ("\"seq\":1,", "\"seq\":1,\"more\":1,"),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text);
        assert!(decoded(&changed).is_err(), "{to}");
    }
}
