//! One engine and one peer: what the target of a write remembers, tells and puts on record.

mod doubting;
mod observing;
mod rebuilding;
mod reload;
mod sending;
mod transitions;
mod work;

use std::sync::Arc;

use crate::domain::action::{self, Action};
use crate::domain::audit::Hash;
use crate::domain::code::Code;
use crate::domain::config::Value;
use crate::domain::envelope::dsse::PublicKey;
use crate::domain::envelope::{Delegation, Envelope, Health, Ruling, Voucher};
use crate::domain::id::RuntimeId;
use crate::domain::identity::anchors::Trust;
use crate::domain::identity::authority::Authority;
use crate::domain::identity::{Fingerprint, Mapping, Naming, Role, TrustState};
use crate::domain::policy::Denial;
use crate::domain::time::{Millis, Monotonic, Now, Wall};
use crate::engine::effect::{Effect, Effects};
use crate::engine::input::{Input, QueryId, Received};
use crate::engine::record::{Peer, Record};
use crate::engine::refusals::REFUSALS_OF_ORIGIN_MAX;
use crate::engine::view::Settings;
use crate::engine::word::{Echo, Identity, Observation, Signer, Word};
use crate::engine::{Engine, Entropy, judge};

/// No chance at all.
pub(super) struct Zeros;

impl Entropy for Zeros {
    fn fill(&mut self, buffer: &mut [u8]) {
        buffer.fill(0);
    }
}

/// A trust in which nobody is known by an anchor: what is vouched for under its name counts.
pub(super) fn authority() -> Authority {
    let trust_domain = "trust".parse().expect("legal");
    Authority::new(Trust::new(Naming { trust_domain, mapping: Mapping::PathSite }))
}

/// Those of runtime `s/a` in `dev`.
pub(super) fn settings() -> Settings {
    Settings {
        authority: Some(authority()),
        receipts_kept: Millis(0),
        ..Settings::unset("s/a".parse().expect("legal"), "trust".parse().expect("legal"))
    }
}

pub(super) const ME: Fingerprint = Fingerprint([1; 32]);
pub(super) const THERE: Fingerprint = Fingerprint([2; 32]);

pub(super) fn at(seconds: u64) -> Now {
    Now {
        wall: Wall::from_millis(1_800_000_000_000).plus(Millis::from_secs(seconds)),
        monotonic: Monotonic::default().plus(Millis::from_secs(seconds)),
    }
}

/// An engine that knows these peers by one key.
pub(super) fn engine(peers: &[&str]) -> Engine {
    Engine::start(Arc::new(settings()), ME, records(peers), at(0), &mut Zeros).expect("facts").0
}

fn records(peers: &[&str]) -> Vec<Record> {
    let peer = |name: &&str| {
        let runtime: RuntimeId = name.parse().expect("legal");
        Record::Peer(Peer { runtime, pinned: THERE, trust: TrustState::Trusted, boot: 1 })
    };
    peers.iter().map(peer).collect()
}

pub(super) fn letter(origin: &str, id: &str, level: &str, now: Now) -> Envelope {
    let origin: RuntimeId = origin.parse().expect("legal");
    let values = [("log.level".to_owned(), Value::Text(level.to_owned()))];
    let action = Action::cfg_apply(values.into()).expect("one setting");
    Envelope {
        target: "s/a".parse().expect("legal"),
        target_key: ME,
        target_boot: Some(1),
        actor: format!("spiffe://trust/{}/alice", origin.site).parse().expect("legal"),
        origin,
        role: Role::Engineer,
        actor_verified: true,
        request_id: id.parse().expect("legal"),
        expires: now.wall.plus(action.kind().window()),
        action,
        issued: now.wall,
        boot: 1,
        sequence: 1,
        policy_hash: Hash([0; 32]),
    }
}

pub(super) fn signed_by(runtime: &str, envelope: Envelope) -> Received {
    let delegation = Delegation {
        runtime: runtime.parse().expect("legal"),
        voucher: Voucher::Certificate(THERE),
        envelope_key: PublicKey::new([0; 32]),
        not_before: Wall(0),
        not_after: Wall(u64::MAX),
    };
    let delegation_hash = Hash([3; 32]);
    let signer = Signer { delegation: Arc::new(delegation), delegation_hash, identity: THERE, vouched: None };
    // Letters that differ in anything differ in their bytes.
    let digest = Hash::of(format!("{envelope:?}").as_bytes());
    Received { signer, envelope, digest }
}

pub(super) fn act(engine: &mut Engine, now: Now, envelope: Envelope) -> Effects {
    let mut effects = Effects::default();
    let received = signed_by(&envelope.origin.to_string(), envelope);
    engine.handle(now, &mut Zeros, Input::Act { query: QueryId(1), received }, &mut effects);
    effects
}

pub(super) fn ruling(effects: &Effects) -> Option<&Ruling> {
    effects.after.iter().find_map(|effect| match effect {
        Effect::Answer { receipt, .. } => Some(&receipt.ruling),
        Effect::Apply { .. }
        | Effect::AuditLightly { .. }
        | Effect::CancelRun(_)
        | Effect::Perform(_)
        | Effect::Refuse { .. }
        | Effect::Reply { .. }
        | Effect::StartRun(_) => None,
    })
}

fn count(effects: &Effects, is_it: fn(&Record) -> bool) -> usize {
    effects.batch.records.iter().filter(|record| is_it(record)).count()
}

#[test]
fn nobody_but_its_origin_learns_what_became_of_a_write() {
    let mut engine = engine(&["s/b", "s/c"]);
    let envelope = letter("s/b", "r", "debug", at(1));
    assert!(matches!(ruling(&act(&mut engine, at(1), envelope.clone())), Some(Ruling::Done(_))));
    for (asker, is_told) in [("s/b", true), ("s/c", false)] {
        let mut effects = Effects::default();
        let received = signed_by(asker, envelope.clone());
        engine.handle(at(2), &mut Zeros, Input::AskOutcome { query: QueryId(2), received }, &mut effects);
        assert_eq!(ruling(&effects).is_some(), is_told, "{asker}");
    }
}

/// A signed refusal would say that it was not carried out.
#[test]
fn who_does_not_know_what_was_carried_out_signs_no_refusal() {
    let mut engine = engine(&["s/b"]);
    let shown = engine.view();
    let envelope = letter("s/b", "r", "debug", at(1));
    let done = act(&mut engine, at(1), envelope.clone());
    assert!(matches!(ruling(&done), Some(Ruling::Done(_))));
    engine.go_back_to(&shown);
    engine.stop_writing();
    // In its window, and beyond it.
    for (seconds, wanted) in [(2, Code::StorageUnavailable), (200, Code::EnvelopeExpired)] {
        let refused = act(&mut engine.clone(), at(seconds), envelope.clone());
        let is_unsigned = |effect: &Effect| matches!(effect, Effect::Refuse { code, .. } if *code == wanted);
        assert!(ruling(&refused).is_none() && refused.after.iter().any(is_unsigned), "{refused:?}");
    }
    let durable = records(&["s/b"]).into_iter().chain(done.batch.records);
    let mut engine = engine.rebuilt(durable, at(3)).expect("facts");
    assert!(matches!(ruling(&act(&mut engine, at(3), envelope)), Some(Ruling::Done(_))), "the stored receipt");
}

/// A restart may find it carried out, or what comes next is written in its place.
#[test]
fn while_a_failed_batch_may_be_on_the_disk_no_refusal_is_signed() {
    let is_signed = |effects: &Effects| matches!(ruling(effects), Some(Ruling::Refused(_)));
    let envelope = |id| letter("s/b", id, "debug", at(1));
    for is_readable in [true, false] {
        let mut engine = engine(&["s/b"]);
        let shown = engine.view();
        let batch = act(&mut engine, at(1), envelope("r")).batch;
        engine.doubt(&batch.audits.iter().map(|draft| draft.audit_id).collect::<Vec<_>>());
        if !is_readable {
            engine.go_back_to(&shown);
        }
        let mut engine = engine.rebuilt(records(&["s/b"]), at(1)).expect("facts");
        engine.stop_writing();
        let refused = act(&mut engine, at(1), envelope("r"));
        assert!(refused.after.iter().any(|it| matches!(it, Effect::Refuse { code: Code::StorageUnavailable, .. })));
        assert!(!is_signed(&refused), "{refused:?}");
        assert!(is_signed(&act(&mut engine, at(1), envelope("another"))), "it was in no batch");
        // A second failure changes nothing.
        let mut engine = engine.rebuilt(records(&["s/b"]), at(1)).expect("facts");
        engine.stop_writing();
        assert!(!is_signed(&act(&mut engine, at(1), envelope("r"))));
        engine.settle();
        assert!(is_signed(&act(&mut engine, at(1), envelope("r"))));
    }
}

/// Its window is about when it came; whom it comes from is asked again.
#[test]
fn a_read_that_has_waited_is_judged_again_by_all_but_its_window() {
    let engine = engine(&["s/b"]);
    let letter = Envelope { action: Action::StatusRead, target_boot: None, ..letter("s/b", "r", "debug", at(0)) };
    let received = signed_by("s/b", Envelope { expires: at(10).wall, ..letter });
    let code =
        |judged: Result<_, Denial>| judged.map_or_else(|denial| denial.code.to_string(), |_rule| "ok".to_owned());
    let (view, in_time, late) = (engine.view(), at(40).wall, at(41).wall);
    let judged = [judge::judge(&view, &received, in_time), judge::judge(&view, &received, late)].map(code);
    assert_eq!(judged, ["ok", "envelope_expired"]);
    let unknown = Received { signer: Signer { identity: ME, ..received.signer.clone() }, ..received.clone() };
    let again = [judge::judge_again(&view, &received, late), judge::judge_again(&view, &unknown, late)].map(code);
    assert_eq!(again, ["ok", "untrusted_identity"]);
}

#[test]
fn a_write_that_changes_something_is_a_row_of_the_timeline() {
    let mut engine = engine(&["s/b"]);
    act(&mut engine, at(1), letter("s/b", "r", "debug", at(1)));
    let view = engine.view();
    let row = view.timeline.back().expect("a row");
    assert_eq!(row.summary, "spiffe://trust/s/alice set log.level");
    assert_eq!(row.request_id, Some("r".parse().expect("legal")));
}

#[test]
fn the_reason_of_a_denial_stays_in_the_site() {
    for (origin, is_told) in [("s/b", true), ("t/b", false)] {
        let mut engine = engine(&[origin]);
        let effects = act(&mut engine, at(200), letter(origin, "r", "debug", at(1)));
        let Some(Ruling::Refused(denial)) = ruling(&effects) else { panic!("wanted a refusal: {effects:?}") };
        assert_eq!(denial.reason.to_string().contains("by this runtime's clock"), is_told, "{}", denial.reason);
    }
}

#[test]
fn old_receipts_go_with_a_write_and_never_alone() {
    let is_drop = |record: &Record| matches!(record, Record::ReceiptDropped(_));
    let is_mark = |record: &Record| matches!(record, Record::DroppedUntil { .. });
    let mut engine = engine(&["s/b"]);
    let first = act(&mut engine, at(1), letter("s/b", "one", "debug", at(1)));
    assert_eq!((count(&first, is_drop), count(&first, is_mark)), (0, 0), "nothing is old");
    // The mark of time is written now, so that the next tick has nothing to write.
    engine.handle(at(180), &mut Zeros, Input::Timer, &mut Effects::default());
    let mut tick = Effects::default();
    engine.handle(at(182), &mut Zeros, Input::Timer, &mut tick);
    assert!(tick.batch.is_empty(), "{:?}", tick.batch);
    let second = act(&mut engine, at(182), letter("s/b", "two", "info", at(182)));
    assert_eq!((count(&second, is_drop), count(&second, is_mark)), (1, 1));
    let third = act(&mut engine, at(183), letter("s/b", "three", "warn", at(183)));
    assert_eq!((count(&third, is_drop), count(&third, is_mark)), (0, 0), "nothing is old again");
}

#[test]
fn nothing_is_dropped_while_the_store_takes_no_writes() {
    let mut engine = engine(&["s/b"]);
    act(&mut engine, at(1), letter("s/b", "one", "debug", at(1)));
    engine.stop_writing();
    let mut effects = Effects::default();
    engine.resume_writing(at(2), &mut Zeros, &mut effects);
    engine.stop_writing();
    engine.handle(at(182), &mut Zeros, Input::Timer, &mut effects);
    assert_eq!(count(&effects, |record| matches!(record, Record::ReceiptDropped(_))), 0);
}

/// Until it says so again, nothing is known of a runtime that was started anew, whatever it said before.
#[test]
fn what_a_peer_said_in_an_earlier_life_does_not_count_in_this_one() {
    let mut engine = engine(&["s/b"]);
    let signer = signed_by("s/b", letter("s/b", "r", "debug", at(1))).signer;
    let runtime: RuntimeId = "s/b".parse().expect("legal");
    let identity = |boot, now: Now| Identity {
        runtime: runtime.clone(),
        boot,
        at: now.wall,
        api_version: "1.0".to_owned(),
        version: "0".to_owned(),
        capabilities: vec!["status_read".to_owned()],
        host: None,
        web: None,
        is_secure: true,
        policy_hash: Hash([0; 32]),
        config_revision: 1,
        config_etag: Hash([0; 32]),
    };
    let observation = |boot, revision, now: Now| Observation {
        runtime: runtime.clone(),
        boot,
        sequence: now.wall.0,
        at: now.wall,
        health: Health::Healthy,
        config_revision: revision,
        runs_head: None,
        edges: None,
        is_leaving: false,
    };
    let mut hear = |seconds, word| {
        let input = Input::Word { signer: signer.clone(), word };
        engine.handle(at(seconds), &mut Zeros, input, &mut Effects::default());
        let view = engine.view();
        let peer = view.peers.get(&runtime).expect("known");
        (view.standing(&runtime, at(seconds).monotonic).expect("known").is_secure, peer.health, peer.wants_identity())
    };
    let healthy = Some(Health::Healthy);
    assert_eq!(hear(1, Word::Observation(observation(1, 1, at(1)))), (false, healthy, true));
    assert_eq!(hear(2, Word::Identity(identity(1, at(2)))), (true, healthy, false));
    assert_eq!(hear(3, Word::Observation(observation(1, 2, at(3)))), (true, healthy, true), "a newer one was missed");
    let echo = Word::Echo(Echo { boot: 2, round_trip_us: 1 });
    assert_eq!(hear(4, echo), (false, None, true));
    assert_eq!(hear(5, Word::Identity(identity(2, at(5)))), (true, None, false));
}

#[test]
fn the_record_names_the_action_and_its_command() {
    assert_eq!(action::name(&Action::ping()), "cmd_invoke/ping");
    assert_eq!(action::name(&Action::StatusRead), "status_read");
}

#[test]
fn a_clock_in_doubt_is_told_once_and_marked_only_while_the_store_takes_it() {
    let is_mark = |record: &Record| matches!(record, Record::ClockMark { .. });
    let mut engine = engine(&["s/b"]);
    let tick = |engine: &mut Engine, seconds| {
        let mut effects = Effects::default();
        engine.handle(at(seconds), &mut Zeros, Input::Timer, &mut effects);
        count(&effects, is_mark)
    };
    let rows = |engine: &Engine| engine.view().timeline.iter().filter(|row| row.summary.contains("uncertain")).count();
    assert_eq!((tick(&mut engine, 61), tick(&mut engine, 62)), (1, 0), "once a minute");
    engine.stop_writing();
    assert_eq!(tick(&mut engine, 200), 0, "the store takes none");
    engine.resume_writing(at(2), &mut Zeros, &mut Effects::default());
    assert_eq!(tick(&mut engine, 201), 1, "it is still due");
    assert_eq!(rows(&engine), 0);
    assert_eq!(tick(&mut engine, 100), 0);
    assert_eq!(tick(&mut engine, 101), 0);
    assert_eq!(rows(&engine), 1);
}

#[test]
fn a_failed_commit_does_not_make_a_mark_due_that_the_disk_has() {
    let mut engine = engine(&["s/b"]);
    let marks = |engine: &mut Engine, seconds| {
        let mut effects = Effects::default();
        engine.handle(at(seconds), &mut Zeros, Input::Timer, &mut effects);
        count(&effects, |record| matches!(record, Record::ClockMark { .. }))
    };
    assert_eq!(marks(&mut engine, 61), 1);
    // The disk took the mark; of a later batch it did not.
    let mut engine = engine.rebuilt([Record::ClockMark { wall: at(61).wall }], at(70)).expect("facts");
    assert_eq!((marks(&mut engine, 120), marks(&mut engine, 121)), (0, 1));
}

/// A network may bring a letter twice, and whoever has seen it may keep it back.
#[test]
fn a_copy_of_a_refused_write_is_refused_whatever_holds_by_then() {
    let mut engine = engine(&["s/b"]);
    engine.stop_writing();
    let envelope = letter("s/b", "r", "debug", at(1));
    let refused = |effects: &Effects| matches!(ruling(effects), Some(Ruling::Refused(denial)) if denial.code == Code::StorageUnavailable);
    assert!(refused(&act(&mut engine, at(1), envelope.clone())));
    let mut engine = engine.rebuilt(records(&["s/b"]), at(1)).expect("facts");
    engine.resume_writing(at(2), &mut Zeros, &mut Effects::default());
    assert!(refused(&act(&mut engine, at(2), envelope.clone())), "a copy of the same letter");
    let mut effects = Effects::default();
    let again = Received { digest: Hash([5; 32]), ..signed_by("s/b", envelope) };
    engine.handle(at(2), &mut Zeros, Input::Act { query: QueryId(2), received: again }, &mut effects);
    assert!(matches!(ruling(&effects), Some(Ruling::Done(_))), "a letter of its own for the same request");
}

/// What cannot be remembered is not claimed: the origin hears no signed word, and asks what became of it.
#[test]
fn a_refusal_that_finds_no_room_is_not_signed() {
    let mut engine = engine(&["s/b"]);
    engine.stop_writing();
    let mut refuse = |number: usize| {
        let mut effects = Effects::default();
        let received = Received {
            digest: Hash::of(&number.to_be_bytes()),
            ..signed_by("s/b", letter("s/b", &format!("r{number}"), "debug", at(1)))
        };
        engine.handle(at(1), &mut Zeros, Input::Act { query: QueryId(1), received }, &mut effects);
        ruling(&effects).is_some()
    };
    assert!((0..REFUSALS_OF_ORIGIN_MAX).all(&mut refuse));
    assert!(!refuse(REFUSALS_OF_ORIGIN_MAX));
    assert!(refuse(0), "this one is remembered");
}
