//! A runtime takes another certificate with another key while it runs: what is under way by the one before is not lost, and
//! counts no longer than it can be under way.

use std::sync::Arc;

use trust_runtime::domain::audit::{AuditId, Hash};
use trust_runtime::domain::envelope::{KEY_ROLLOVER, Receipt, Ruling};
use trust_runtime::domain::id::RuntimeId;
use trust_runtime::domain::identity::{Ban, IdentityKey};
use trust_runtime::domain::policy::Denial;
use trust_runtime::domain::time::{Millis, Wall};
use trust_runtime::engine::Engine;
use trust_runtime::engine::effect::Effects;
use trust_runtime::engine::input::Input;
use trust_runtime::engine::judge::{identify, judge};
use trust_runtime::engine::record::Record;
use trust_runtime::engine::view::View;
use trust_runtime::wire::mesh::{self, CertificateKey, Keys, Refusal, open_envelope, open_receipt};

use crate::sealed::{ME, ORIGIN, Recipe};
use crate::vouched::{Issued, RUNTIME, Zeros, issue, name, receiver, site};
use crate::world::{BOOT, now, parsed};

/// What the origin signs with from this moment on.
fn keys_from(issued: &Issued, from: Wall) -> Keys {
    let sign = |message: &[u8]| rcgen::SigningKey::sign(&issued.key, message).ok();
    let certificate = CertificateKey { key: name(&issued.chain[0]), chain: &issued.chain, sign: &sign };
    let envelope = IdentityKey::from_seed([7; 32]);
    let until = from.plus(Millis::from_hours(1));
    mesh::delegate_by_certificate(&certificate, envelope, &parsed(ORIGIN), from, until).expect("signs")
}

/// Before and after: an engine that has met the origin by the first certificate and then by the second.
fn met_by_both(view: &View, keys: [&Keys; 2]) -> [View; 2] {
    let before = [Record::Boot { counter: BOOT - 1 }];
    let (mut engine, _) =
        Engine::start(Arc::clone(&view.settings), view.identity, before, now(), &mut Zeros).expect("starts");
    keys.map(|keys| {
        let bytes = Recipe::default().bytes_by(keys);
        let received = open_envelope(&engine.view(), &parsed(ORIGIN), &bytes, now().wall).expect("good");
        let input = Input::Met { signer: received.signer, boot: 5 };
        engine.handle(now(), &mut Zeros, input, &mut Effects::default());
        engine.view()
    })
}

fn rule(ruled: Result<(), Denial>) -> Result<(), String> {
    ruled.map_err(|denial| denial.rule.into_owned())
}

#[test]
fn an_envelope_by_the_key_before_counts_for_as_long_as_it_may_be_under_way_and_not_once_the_key_is_banned() {
    let ours = site();
    let (first, second) = (issue(&ours, RUNTIME, |_| {}), issue(&ours, RUNTIME, |_| {}));
    let (early, late) = (keys_from(&first, now().wall.minus(Millis(1_000))), keys_from(&second, now().wall));
    let empty = receiver(&[("site-a", &ours)], &[]);
    let [_, view] = met_by_both(&empty, [&early, &late]);
    assert_eq!(view.peers[&parsed::<RuntimeId>(ORIGIN)].pinned, name(&second.chain[0]));

    let under_way = Recipe::default().bytes_by(&early);
    let received = open_envelope(&view, &parsed(ORIGIN), &under_way, now().wall).expect("good");
    assert_eq!(rule(judge(&view, &received, now().wall).map(drop)), Ok(()));
    let end = now().wall.plus(KEY_ROLLOVER);
    assert_eq!(rule(identify(&view, &received, end)), Ok(()), "an answer from memory");
    assert_eq!(rule(identify(&view, &received, end.plus(Millis(1)))), Err("pin".to_owned()));

    let mut banned = view.clone();
    let trust = receiver(&[("site-a", &ours)], &[Ban::Key(name(&first.chain[0]))]);
    Arc::make_mut(&mut banned.settings).authority.clone_from(&trust.settings.authority);
    let refused = open_envelope(&banned, &parsed(ORIGIN), &under_way, now().wall).map(drop);
    assert_eq!(refused, Err(Refusal::BadCertificate));
    // Whoever vouched for itself alone before is nobody's key before.
    let mut unproven = received;
    unproven.signer.vouched = None;
    assert_eq!(rule(identify(&view, &unproven, now().wall)), Err("pin".to_owned()));
}

/// The target has another certificate when it answers than when it was asked, or the origin hears of it before the answer.
#[test]
fn a_receipt_is_the_targets_by_whichever_of_its_certificates() {
    let ours = site();
    let (first, second) = (issue(&ours, RUNTIME, |_| {}), issue(&ours, RUNTIME, |_| {}));
    let (early, late) = (keys_from(&first, now().wall.minus(Millis(1_000))), keys_from(&second, now().wall));
    let asked = Hash::of(b"an envelope");
    let receipt = Receipt {
        envelope: asked,
        target: parsed(ORIGIN),
        origin: parsed(ME),
        request_id: parsed("request-1"),
        ruling: Ruling::Refused(Denial::at_target(trust_runtime::domain::code::Code::Conflict, "a rule", "a reason")),
        audit_id: AuditId::new(now().wall, [0; 10]),
        position: None,
        repeated: false,
        at: now().wall,
    };
    let views = met_by_both(&receiver(&[("site-a", &ours)], &[]), [&early, &late]);
    for (view, when) in views.iter().zip(["before", "after"]) {
        for (keys, by) in [(&early, "the first"), (&late, "the second")] {
            let bytes = mesh::seal_receipt(keys, &receipt);
            let opened = open_receipt(view, &parsed(ORIGIN), asked, &bytes, now().wall);
            assert!(opened.is_ok(), "{when} it was heard of, by {by}: {opened:?}");
        }
        let elsewhere = issue(&site(), RUNTIME, |_| {});
        let forged = mesh::seal_receipt(&keys_from(&elsewhere, now().wall), &receipt);
        let opened = open_receipt(view, &parsed(ORIGIN), asked, &forged, now().wall).map(drop);
        assert_eq!(opened, Err(Refusal::BadCertificate));
    }
}
