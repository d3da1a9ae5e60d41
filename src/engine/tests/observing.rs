//! What words, tokens and probes change of what is known of a peer, and what those change that are refused.

use super::*;
use crate::domain::identity::authority::Vouched;
use crate::domain::projection::{Edge, EdgeState, Lifecycle};
use crate::engine::view;

/// Most impostors that are told one by one.
const IMPOSTORS_TOLD_MAX: usize = 100;

fn signer(runtime: &str, identity: Fingerprint, is_proven: bool) -> Signer {
    let vouched = is_proven.then(|| Vouched { until: Wall(u64::MAX), authority: authority().name() });
    Signer { identity, vouched, ..signed_by(runtime, letter(runtime, "r", "debug", at(0))).signer }
}

fn handle(engine: &mut Engine, now: Now, input: Input) -> Effects {
    let mut effects = Effects::default();
    engine.handle(now, &mut Zeros, input, &mut effects);
    effects
}

/// A peer that is known by its key says something.
fn says(word: Word) -> Input {
    Input::Word { signer: signer("s/b", THERE, false), word }
}

fn observation(boot: u64, sequence: u64, signed: Wall) -> Word {
    Word::Observation(Observation {
        runtime: "s/b".parse().expect("legal"),
        boot,
        sequence,
        at: signed,
        health: Health::Healthy,
        config_revision: 0,
        runs_head: None,
        edges: None,
        is_leaving: false,
    })
}

fn document(boot: u64, version: &str, signed: Wall) -> Word {
    Word::Identity(Identity {
        runtime: "s/b".parse().expect("legal"),
        boot,
        at: signed,
        api_version: "1.0".to_owned(),
        version: version.to_owned(),
        capabilities: Vec::new(),
        host: None,
        web: None,
        is_secure: true,
        policy_hash: Hash([0; 32]),
        config_revision: 0,
        config_etag: Hash([0; 32]),
    })
}

fn known(engine: &Engine, runtime: &str) -> Option<view::Peer> {
    engine.view().peers.get(&runtime.parse::<RuntimeId>().expect("legal")).map(|peer| (**peer).clone())
}

fn lifecycle(engine: &Engine, now: Now) -> Lifecycle {
    known(engine, "s/b").expect("known").presence.lifecycle(&engine.view().limits, now.monotonic)
}

fn version(engine: &Engine) -> String {
    known(engine, "s/b").and_then(|peer| peer.identity).expect("a document").version.clone()
}

fn refused(engine: &Engine, reason: &str) -> u64 {
    engine.view().refused.get(reason).copied().unwrap_or(0)
}

/// A token is no proof: one of an earlier run comes late and says nothing, and one that no signed word has announced is counted.
#[test]
fn a_token_brings_back_only_the_run_that_it_names() {
    for (runtime, boot, wanted, counted) in [
        ("s/b", 2, Lifecycle::Online, 0),
        ("s/b", 1, Lifecycle::Partitioned, 0),
        ("s/b", 3, Lifecycle::Partitioned, 1),
        ("s/z", 2, Lifecycle::Partitioned, 1),
    ] {
        let mut engine = engine(&["s/b"]);
        handle(&mut engine, at(1), says(observation(2, 1, at(1).wall)));
        handle(&mut engine, at(1), Input::TokenGone { runtime: "s/b".parse().expect("legal"), boot: 2 });
        assert_eq!(lifecycle(&engine, at(2)), Lifecycle::Partitioned);
        handle(&mut engine, at(2), Input::TokenAppeared { runtime: runtime.parse().expect("legal"), boot });
        let found = (lifecycle(&engine, at(2)), refused(&engine, "token_without_identity"));
        assert_eq!(found, (wanted, counted), "{runtime} {boot}");
    }
}

/// Whoever has heard a word can send it again, long before its signature is too old.
#[test]
fn a_repeated_word_keeps_nobody_online() {
    for word in [observation(1, 1, at(1).wall), document(1, "1", at(1).wall)] {
        let mut engine = engine(&["s/b"]);
        handle(&mut engine, at(1), says(word.clone()));
        assert_eq!((lifecycle(&engine, at(1)), refused(&engine, "repeated_word")), (Lifecycle::Online, 0));
        handle(&mut engine, at(4), says(word));
        assert_eq!((lifecycle(&engine, at(4)), refused(&engine, "repeated_word")), (Lifecycle::Stale, 1));
        assert_eq!(known(&engine, "s/b").expect("known").heard_at, Some(at(1).wall), "when it was last heard");
    }
}

/// What a runtime says of itself is not undone by an older document of its own, unless the one that is known was signed by a
/// clock that is ahead of now by more than any may be.
#[test]
fn a_document_gives_way_to_a_newer_one_and_to_one_of_now_if_its_clock_ran_ahead() {
    let now = at(100);
    let a_moment_after = |wall: Wall| Wall(wall.0.saturating_add(1));
    for (first, second, is_taken) in [
        (now.wall, now.wall, false),
        (now.wall, a_moment_after(now.wall), true),
        (at(105).wall, now.wall, false),
        (at(130).wall, now.wall, false),
        (a_moment_after(at(130).wall), now.wall, true),
        (at(190).wall, at(160).wall, false),
    ] {
        let mut engine = engine(&["s/b"]);
        handle(&mut engine, now, says(document(1, "first", first)));
        handle(&mut engine, now, says(document(1, "second", second)));
        assert_eq!(version(&engine), if is_taken { "second" } else { "first" }, "{first} {second}");
    }
}

#[test]
fn a_document_of_a_new_run_counts_though_its_clock_went_back() {
    let mut engine = engine(&["s/b"]);
    handle(&mut engine, at(100), says(document(1, "first", at(100).wall)));
    handle(&mut engine, at(100), says(document(2, "second", at(90).wall)));
    assert_eq!((version(&engine).as_str(), refused(&engine, "repeated_word")), ("second", 0));
}

#[test]
fn each_impostor_is_told_once_and_a_flood_of_them_is_only_counted() {
    let mut engine = engine(&["s/b"]);
    let mut meet = |number: usize| {
        let identity = Fingerprint(Hash::of(&number.to_be_bytes()).0);
        handle(&mut engine, at(1), Input::Met { signer: signer("s/b", identity, false), boot: 1 });
        let view = engine.view();
        let rows = view.timeline.iter().filter(|row| row.category == view::Category::Security).count();
        (rows, refused(&engine, "changed_key"))
    };
    assert_eq!([meet(1), meet(1), meet(2)], [(1, 1), (1, 2), (2, 3)]);
    for number in 3..=IMPOSTORS_TOLD_MAX {
        assert_eq!(meet(number), (number, u64::try_from(number).expect("small").saturating_add(1)), "every one");
    }
    assert_eq!(meet(IMPOSTORS_TOLD_MAX.saturating_add(1)), (IMPOSTORS_TOLD_MAX, 102), "no more");
    assert_eq!(known(&engine, "s/b").expect("known").pinned, THERE);
}

/// In `dev`: without a certificate a newcomer of the own site waits for a person, and one of another site is not met at all.
#[test]
fn a_newcomer_is_trusted_by_its_certificate_alone() {
    for (runtime, is_proven, wanted) in [
        ("s/n", false, Some(TrustState::Untrusted)),
        ("t/n", false, None),
        ("s/n", true, Some(TrustState::Trusted)),
        ("t/n", true, Some(TrustState::Trusted)),
    ] {
        let mut engine = engine(&[]);
        let met = handle(&mut engine, at(1), Input::Met { signer: signer(runtime, THERE, is_proven), boot: 1 });
        assert_eq!(known(&engine, runtime).map(|peer| peer.trust), wanted, "{runtime} {is_proven}");
        let remembered = met.batch.records.iter().find_map(|record| {
            let Record::Peer(peer) = record else { return None };
            Some(peer.trust)
        });
        assert_eq!(remembered, wanted, "over a restart: {runtime} {is_proven}");
        assert_eq!(refused(&engine, "untrusted_identity"), u64::from(wanted.is_none()), "{runtime} {is_proven}");
    }
}

/// Only a word from before the last change is an old one: two certificates may be taken into use in the same moment.
#[test]
fn a_key_that_a_certificate_of_the_same_moment_proves_is_taken() {
    let mut engine = engine(&["s/b"]);
    let next = Fingerprint([9; 32]);
    for identity in [THERE, next] {
        handle(&mut engine, at(1), Input::Met { signer: signer("s/b", identity, true), boot: 1 });
        assert_eq!(known(&engine, "s/b").expect("known").pinned, identity);
    }
    assert_eq!(refused(&engine, "old_key"), 0);
}

#[test]
fn answered_and_lost_probes_are_the_measure_of_a_link() {
    let mut engine = engine(&["s/b"]);
    assert_eq!(engine.view().own_edges(), [], "nothing was measured");
    handle(&mut engine, at(1), says(Word::Echo(Echo { boot: 1, round_trip_us: 700 })));
    let target: RuntimeId = "s/b".parse().expect("legal");
    let answered = Edge {
        target: target.clone(),
        state: EdgeState::Healthy,
        latency_p95_us: Some(700),
        loss_pct: 0,
        last_ok: Some(at(1).wall),
    };
    assert_eq!(engine.view().own_edges(), std::slice::from_ref(&answered));
    handle(&mut engine, at(2), Input::ProbeLost { runtime: target });
    assert_eq!(engine.view().own_edges(), [Edge { state: EdgeState::Degraded, loss_pct: 50, ..answered }]);
}
