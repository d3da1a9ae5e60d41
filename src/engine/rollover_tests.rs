//! Another certificate with another key, here or at a peer, while both go on running.

use std::sync::Arc;

use crate::domain::audit::Hash;
use crate::domain::envelope::{Health, Ruling};
use crate::domain::id::RuntimeId;
use crate::domain::identity::Fingerprint;
use crate::domain::identity::authority::Vouched;
use crate::domain::preflight::Asker;
use crate::domain::projection::Lifecycle;
use crate::domain::time::Wall;
use crate::engine::Engine;
use crate::engine::effect::Effects;
use crate::engine::input::{Input, QueryId, ReplyId, Request};
use crate::engine::tests::{ME, THERE, Zeros, act, at, authority, engine, letter, ruling, settings, signed_by};
use crate::engine::view::{OwnCertificate, Settings};
use crate::engine::word::{Observation, Signer, Word};

/// The key of the certificate after.
const NEXT: Fingerprint = Fingerprint([9; 32]);

fn tell(engine: &mut Engine, second: u64, input: Input) {
    engine.handle(at(second), &mut Zeros, input, &mut Effects::default());
}

fn signer(runtime: &str, identity: Fingerprint, from: u64) -> Signer {
    let mut signer = signed_by(runtime, letter(runtime, "r", "debug", at(0))).signer;
    Arc::make_mut(&mut signer.delegation).not_before = at(from).wall;
    signer.delegation_hash = Hash(identity.0);
    signer.identity = identity;
    signer.vouched = Some(Vouched { until: Wall(u64::MAX), authority: authority().name() });
    signer
}

fn observed(runtime: &str, identity: Fingerprint, second: u64, sequence: u64) -> Input {
    let word = Word::Observation(Observation {
        runtime: runtime.parse().expect("legal"),
        boot: 1,
        sequence,
        at: at(second).wall,
        health: Health::Healthy,
        config_revision: 0,
        edges: None,
        is_leaving: false,
        runs_head: None,
    });
    Input::Word { signer: signer(runtime, identity, if identity == THERE { 0 } else { 2 }), word }
}

fn lifecycle(engine: &Engine, runtime: &str, second: u64) -> Lifecycle {
    let view = engine.view();
    view.peers[&runtime.parse::<RuntimeId>().expect("legal")].presence.lifecycle(&view.limits, at(second).monotonic)
}

fn gone(runtime: &str) -> Input {
    Input::TokenGone { runtime: runtime.parse().expect("legal"), boot: 1 }
}

/// Takes another certificate into use, as a reload does.
fn take_certificate(engine: &mut Engine, second: u64, key: Fingerprint) {
    let certificate = Some(OwnCertificate { key, from: at(0).wall, until: at(second.saturating_add(3_600)).wall });
    let asker = Asker {
        actor: "spiffe://trust/s/local".parse().expect("legal"),
        role: crate::domain::identity::Role::Admin,
        is_verified: false,
    };
    let settings = Arc::new(Settings { certificate, ..settings() });
    let request = Request::Reload { asker, settings, detail: "certificates".to_owned() };
    tell(engine, second, Input::Request { reply: ReplyId(1), request });
}

/// What introduces a key has waited, and the certificate behind it counts no more: no key is taken by it.
#[test]
fn a_key_that_was_proved_under_another_trust_is_not_taken() {
    let mut engine = engine(&["s/b"]);
    let mut late = signer("s/b", NEXT, 2);
    late.vouched = Some(Vouched { until: Wall(u64::MAX), authority: Hash([7; 32]) });
    tell(&mut engine, 2, Input::Met { signer: late, boot: 1 });
    let known = engine.view().peers[&"s/b".parse::<RuntimeId>().expect("legal")].clone();
    assert_eq!((known.pinned, engine.view().refused.get("untrusted_identity")), (THERE, Some(&1)));
}

#[test]
fn a_peer_with_another_key_in_the_same_boot_is_the_same_run_and_its_links_may_be_replaced() {
    let mut engine = engine(&["s/b"]);
    tell(&mut engine, 1, observed("s/b", THERE, 1, 9));
    let rows = engine.view().timeline.len();
    // An envelope introduces the new key before any document does.
    tell(&mut engine, 2, Input::Met { signer: signer("s/b", NEXT, 2), boot: 1 });
    let known = engine.view().peers[&"s/b".parse::<RuntimeId>().expect("legal")].clone();
    assert_eq!((known.pinned, known.boot), (NEXT, 1));
    assert_eq!(lifecycle(&engine, "s/b", 2), Lifecycle::Online, "what was heard of it still counts");
    tell(&mut engine, 3, observed("s/b", NEXT, 3, 10));
    tell(&mut engine, 3, observed("s/b", THERE, 3, 11));
    assert_eq!(engine.view().refused.get("old_key"), Some(&1));
    tell(&mut engine, 3, gone("s/b"));
    assert_eq!(lifecycle(&engine, "s/b", 4), Lifecycle::Online);
    assert_eq!(lifecycle(&engine, "s/b", 7), Lifecycle::Partitioned, "silence counts all the same");
    assert_eq!(engine.view().timeline.len(), rows, "nothing to tell");
}

#[test]
fn the_same_delegation_or_a_new_boot_is_no_reason_to_wait_for_a_token() {
    for boot in [1, 2] {
        let mut engine = engine(&["s/b"]);
        tell(&mut engine, 1, observed("s/b", THERE, 1, 9));
        let (identity, second) = if boot == 1 { (THERE, 0) } else { (NEXT, 2) };
        tell(&mut engine, 2, Input::Met { signer: signer("s/b", identity, second), boot });
        if boot == 2 {
            assert_eq!(lifecycle(&engine, "s/b", 2), Lifecycle::Offline, "another run, of which nothing was heard");
        }
        assert_eq!(engine.view().peers.values().next().expect("one").presence.relinks_until, None);
    }
}

#[test]
fn what_is_addressed_to_the_key_before_is_taken_until_its_sender_must_know_better() {
    let mut engine = engine(&["s/b"]);
    tell(&mut engine, 1, observed("s/b", THERE, 1, 1));
    let before = letter("s/b", "before", "debug", at(1));
    assert!(matches!(ruling(&act(&mut engine, at(1), before.clone())), Some(Ruling::Done(_))));
    take_certificate(&mut engine, 2, NEXT);
    assert_eq!(engine.view().identity, NEXT);
    tell(&mut engine, 2, observed("s/b", THERE, 2, 2));
    tell(&mut engine, 2, gone("s/b"));
    assert_eq!(lifecycle(&engine, "s/b", 3), Lifecycle::Online, "the own links are replaced");

    let mut effects = Effects::default();
    let asked = Input::AskOutcome { query: QueryId(2), received: signed_by("s/b", before) };
    engine.handle(at(3), &mut Zeros, asked, &mut effects);
    assert!(matches!(ruling(&effects), Some(Ruling::Done(_))), "what became of it");
    let late = |engine: &mut Engine, id: &str, second: u64, key| {
        let envelope = crate::domain::envelope::Envelope { target_key: key, ..letter("s/b", id, "info", at(second)) };
        match ruling(&act(engine, at(second), envelope)) {
            Some(Ruling::Refused(denial)) => denial.rule.clone().into_owned(),
            Some(Ruling::Done(_)) => "done".to_owned(),
            None => "nothing".to_owned(),
        }
    };
    assert_eq!(late(&mut engine, "under-way", 152, ME), "done");
    assert_eq!(late(&mut engine, "too-late", 153, ME), "audience");
    assert_eq!(late(&mut engine, "after", 153, NEXT), "done");
    assert_eq!(late(&mut engine, "never-ours", 3, THERE), "audience");
    // Nothing of it is lost with a commit.
    let rebuilt = engine.rebuilt([], at(4)).expect("no removal");
    assert_eq!((rebuilt.view().identity, rebuilt.view().retired), (NEXT, engine.view().retired));
}

#[test]
fn the_own_words_under_the_key_before_are_no_clone() {
    let mut engine = engine(&[]);
    take_certificate(&mut engine, 1, NEXT);
    for identity in [ME, NEXT] {
        tell(&mut engine, 2, observed("s/a", identity, 2, 1));
    }
    assert_eq!(*engine.view().refused, [].into());
    tell(&mut engine, 2, observed("s/a", THERE, 2, 1));
    assert_eq!(engine.view().refused.get("own_name_other_key"), Some(&1));
}
