//! What is only in memory, and how long it counts: what was heard of peers, beyond a commit that failed, and refusals.

use super::*;
use crate::engine::Asker;
use crate::engine::input::{Conclusion, ReplyId, Request, Write};

const OTHER_KEY: Fingerprint = Fingerprint([4; 32]);

fn durable(pinned: Fingerprint, trust: TrustState, boot: u64) -> Record {
    Record::Peer(Peer { runtime: runtime(), pinned, trust, boot })
}

fn runtime() -> RuntimeId {
    "s/b".parse().expect("legal")
}

/// An engine that knows the peer by boot 1 and has heard in that one or a later one that it is well.
fn having_heard(boot: u64) -> Engine {
    let mut engine = engine(&["s/b"]);
    let observation = Observation {
        runtime: runtime(),
        boot,
        sequence: 1,
        at: at(1).wall,
        health: Health::Healthy,
        config_revision: 1,
        runs_head: None,
        edges: None,
        is_leaving: false,
    };
    let signer = signed_by("s/b", letter("s/b", "r", "debug", at(1))).signer;
    let input = Input::Word { signer, word: Word::Observation(observation) };
    engine.handle(at(1), &mut Zeros, input, &mut Effects::default());
    engine
}

/// A disk that takes no writes for a moment does not make a node think that its peers are silent. What another key has said,
/// or an earlier life, is not taken for this peer's word.
#[test]
fn a_failed_commit_loses_nothing_that_the_same_peer_has_said() {
    let engine = having_heard(2);
    for (pinned, boot, health_and_boot) in [
        (THERE, 1, (Some(Health::Healthy), 2)),
        (THERE, 2, (Some(Health::Healthy), 2)),
        (THERE, 3, (None, 3)),
        (OTHER_KEY, 1, (None, 1)),
        (OTHER_KEY, 2, (None, 2)),
        (OTHER_KEY, 3, (None, 3)),
    ] {
        let facts = [durable(pinned, TrustState::Trusted, boot)];
        let view = engine.rebuilt(facts, at(2)).expect("facts").view();
        let peer = view.peers.get(&runtime()).expect("known");
        assert_eq!((peer.pinned, (peer.health, peer.boot)), (pinned, health_and_boot), "{pinned} in boot {boot}");
    }
}

/// The same request may be sent again before the first is over: its intent stays until the last of them is.
#[test]
fn after_a_failed_commit_an_intent_is_open_for_as_long_as_anything_of_it_is_under_way() {
    let mut engine = having_heard(1);
    let actor = "spiffe://trust/s/alice".parse().expect("legal");
    let asker = Asker { actor, role: Role::Engineer, is_verified: true };
    let write = Write {
        asker,
        request_id: "r".parse().expect("legal"),
        action: Action::ping(),
        targets: vec!["s/b".parse().expect("legal")],
    };
    let ask = |engine: &mut Engine, request: Request| {
        let mut effects = Effects::default();
        engine.handle(at(1), &mut Zeros, Input::Request { reply: ReplyId(1), request }, &mut effects);
        effects.batch.records
    };
    let mut durable = records(&["s/b"]);
    for _ in 0..2 {
        durable.extend(ask(&mut engine, Request::Begin { write: write.clone(), planned: None }));
    }
    let mut engine = engine.rebuilt(durable, at(2)).expect("facts");
    for wanted in [0, 1] {
        let concluded = Conclusion { target: "s/b".parse().expect("legal"), ruling: None, audit_id: None };
        let records = ask(&mut engine, Request::Conclude { write: write.clone(), conclusions: vec![concluded] });
        let closed = records.iter().filter(|it| matches!(it, Record::IntentClosed(_))).count();
        assert_eq!(closed, wanted);
    }
}

/// An approval that did not become durable was never answered with a yes, and one that did holds.
#[test]
fn after_a_failed_commit_a_peer_is_trusted_as_far_as_the_disk_says() {
    let mut engine = having_heard(1);
    for trust in [TrustState::Untrusted, TrustState::Trusted] {
        engine = engine.rebuilt([durable(THERE, trust, 1)], at(2)).expect("facts");
        let view = engine.view();
        let peer = view.peers.get(&runtime()).expect("known");
        assert_eq!((peer.trust, peer.health), (trust, Some(Health::Healthy)));
    }
}

/// After a restart nobody can bring back a life of a peer that was over before; and a store that has just come back is not
/// given what it has.
#[test]
fn once_the_store_takes_writes_again_it_is_told_of_the_boots_that_it_has_missed() {
    for (durable_boot, wanted) in [(1, Some(2)), (2, None)] {
        let facts = [durable(THERE, TrustState::Trusted, durable_boot)];
        let mut engine = having_heard(2).rebuilt(facts, at(2)).expect("facts");
        engine.stop_writing();
        let mut effects = Effects::default();
        engine.resume_writing(&mut effects);
        let written: Vec<_> = effects.batch.records.iter().filter(|record| matches!(record, Record::Peer(_))).collect();
        let boot = wanted.map(|boot| durable(THERE, TrustState::Trusted, boot));
        assert_eq!(written, boot.iter().collect::<Vec<_>>(), "the disk had boot {durable_boot}");
    }
}

/// An engine that has refused all that it remembers of one origin, a second after it started.
fn full_of_refusals() -> Engine {
    let mut engine = engine(&["s/b"]);
    engine.stop_writing();
    for number in 0..REFUSALS_OF_ORIGIN_MAX {
        assert!(is_signed(&act(&mut engine, at(1), numbered(number, at(1)))), "{number}");
    }
    engine
}

fn numbered(number: usize, now: Now) -> Envelope {
    letter("s/b", &format!("r{number}"), "debug", now)
}

fn is_signed(effects: &Effects) -> bool {
    matches!(ruling(effects), Some(Ruling::Refused(_)))
}

/// Nobody is left without an answer for ever because he was refused often.
#[test]
fn an_origin_is_told_again_that_it_is_refused_once_its_former_writes_are_over() {
    let mut engine = full_of_refusals();
    assert!(!is_signed(&act(&mut engine, at(2), numbered(1_000, at(2)))), "no room");
    assert!(is_signed(&act(&mut engine, at(1_000), numbered(1_001, at(1_000)))), "all of them are over");
}

/// It may go back, and with it come the copies of all that was refused.
#[test]
fn by_a_clock_that_is_not_believed_no_refusal_is_forgotten() {
    let mut engine = full_of_refusals();
    let ahead = Now { wall: at(200_000).wall, ..at(2) };
    assert!(!is_signed(&act(&mut engine, ahead, numbered(1_000, ahead))), "no room");
    engine.resume_writing(&mut Effects::default());
    let copy = act(&mut engine, at(3), numbered(0, at(1)));
    let is_as_before = |it: &Ruling| matches!(it, Ruling::Refused(denial) if denial.code == Code::StorageUnavailable);
    assert!(ruling(&copy).is_some_and(is_as_before), "{copy:?}");
}
