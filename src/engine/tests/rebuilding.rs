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
pub(super) fn having_heard(boot: u64) -> Engine {
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

/// Alice's ping, as often as she sends it.
struct Pings {
    engine: Engine,
    write: Write,
}

impl Pings {
    fn new() -> Self {
        let actor = "spiffe://trust/s/alice".parse().expect("legal");
        let asker = Asker { actor, role: Role::Engineer, is_verified: true };
        let request_id = "r".parse().expect("legal");
        let write = Write { asker, request_id, action: Action::ping(), targets: vec![runtime()] };
        Self { engine: having_heard(1), write }
    }

    fn ask(&mut self, request: Request) -> Vec<Record> {
        let mut effects = Effects::default();
        self.engine.handle(at(1), &mut Zeros, Input::Request { reply: ReplyId(1), request }, &mut effects);
        effects.batch.records
    }

    fn begin(&mut self) {
        let records = self.ask(Request::Begin { write: self.write.clone(), planned: None });
        assert!(matches!(*records, [Record::Intent(_)]), "{records:?}");
    }

    /// Gives how many intents it closes.
    fn conclude(&mut self) -> usize {
        let concluded = Conclusion { target: runtime(), ruling: None, audit_id: None };
        let records = self.ask(Request::Conclude { write: self.write.clone(), conclusions: vec![concluded] });
        closed(&records)
    }

    /// What was put off is written. Gives how many intents that closes.
    fn resume(&mut self) -> usize {
        let mut effects = Effects::default();
        self.engine.resume_writing(at(2), &mut Zeros, &mut effects);
        closed(&effects.batch.records)
    }

    /// The commit of what was decided last fails. What the facts are does not matter here.
    fn fail(&mut self) {
        self.engine = self.engine.rebuilt(records(&["s/b"]), at(2)).expect("facts");
    }
}

fn closed(records: &[Record]) -> usize {
    records.iter().filter(|it| matches!(it, Record::IntentClosed(_))).count()
}

/// The same request may be sent again before the first is over: its intent stays until the last of them is.
#[test]
fn after_a_failed_commit_an_intent_is_open_for_as_long_as_anything_of_it_is_under_way() {
    let mut pings = Pings::new();
    pings.begin();
    pings.begin();
    pings.engine.settle();
    pings.fail();
    assert_eq!([pings.conclude(), pings.conclude()], [0, 1]);
}

/// Nothing of it was sent, so that nobody will ever tell its outcome. Simulation seed 33290.
#[test]
fn what_was_begun_in_a_batch_that_failed_keeps_no_intent_open() {
    let mut pings = Pings::new();
    pings.begin();
    pings.engine.settle();
    pings.begin();
    pings.fail();
    assert_eq!(pings.conclude(), 1);
}

/// The same where the durable facts cannot be read back.
#[test]
fn what_was_begun_in_a_batch_that_failed_keeps_no_intent_open_while_the_facts_are_not_known() {
    let mut pings = Pings::new();
    pings.begin();
    pings.engine.settle();
    let shown = pings.engine.view();
    pings.begin();
    pings.engine.go_back_to(&shown);
    assert_eq!(pings.conclude(), 1);
}

/// Its outcome is told again, and must not count for the other one, which is still under way.
#[test]
fn an_outcome_in_a_batch_that_failed_counts_once_when_it_is_told_again() {
    let mut pings = Pings::new();
    pings.begin();
    pings.begin();
    pings.engine.settle();
    assert_eq!(pings.conclude(), 0);
    pings.fail();
    pings.engine.stop_writing();
    assert_eq!(pings.conclude(), 0, "put off");
    assert_eq!(pings.resume(), 0, "the other is under way");
    // The store fails once more, and what was put off stays so.
    pings.fail();
    pings.engine.stop_writing();
    assert_eq!(pings.resume(), 0, "still");
    assert_eq!(pings.conclude(), 1, "the last of them");
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
        engine.resume_writing(at(2), &mut Zeros, &mut effects);
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
    engine.resume_writing(at(2), &mut Zeros, &mut Effects::default());
    let copy = act(&mut engine, at(3), numbered(0, at(1)));
    let is_as_before = |it: &Ruling| matches!(it, Ruling::Refused(denial) if denial.code == Code::StorageUnavailable);
    assert!(ruling(&copy).is_some_and(is_as_before), "{copy:?}");
}
