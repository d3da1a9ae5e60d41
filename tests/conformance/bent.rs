//! Delegations that are bent around a good signature, and messages at the edge of what is read at all.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use trust_runtime::domain::audit::{AuditId, Hash};
use trust_runtime::domain::envelope::{Receipt, Response, Ruling};
use trust_runtime::domain::identity::anchors::CHAIN_MAX;
use trust_runtime::domain::policy::Policy;
use trust_runtime::domain::preflight::Profile;
use trust_runtime::domain::projection::Presence;
use trust_runtime::wire::mesh::{MESSAGE_BYTES_MAX, Refusal, open_envelope, open_receipt, seal_receipt};

use crate::sealed::{ME, ORIGIN, Recipe, fingerprint, origin_keys};
use crate::vouched::{RUNTIME, honest_keys, issue, opened, receiver, site};
use crate::world::{now, parsed, peer, settings, view};

/// The same message under a delegation that is changed outside of what is signed, and named by its new hash.
fn with_delegation(bytes: &[u8], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut outer: Value = serde_json::from_slice(bytes).expect("JSON");
    let text = outer["delegation"].as_str().expect("a delegation");
    let mut delegation = serde_json::from_slice(&STANDARD.decode(text).expect("base64")).expect("JSON");
    change(&mut delegation);
    let document = delegation.to_string();
    outer["signatures"][0]["keyid"] = json!(Hash::of(document.as_bytes()).to_string());
    outer["delegation"] = json!(STANDARD.encode(document));
    outer.to_string().into_bytes()
}

#[test]
fn a_delegation_by_a_key_has_its_type_no_certificates_and_nothing_below_it() {
    let receiver = view(settings(ME, Profile::Dev, Policy::default()), fingerprint("target"));
    let open = |bytes: &[u8]| open_envelope(&receiver, &parsed(ORIGIN), bytes, now().wall).map(|_received| ());
    let bytes = Recipe::default().bytes();
    assert_eq!(open(&with_delegation(&bytes, |_| {})), Ok(()), "the way of bending bends nothing");
    let refuses = |what: &str, change: fn(&mut Value)| {
        assert_eq!(open(&with_delegation(&bytes, change)), Err(Refusal::BadDelegation), "{what}");
    };
    refuses("another type", |it| it["payloadType"] = json!("application/vnd.trust-runtime.action.v1+json"));
    refuses("a delegation below it", |it| it["delegation"] = json!("e30="));
    refuses("a certificate", |it| it["chain"] = json!(["MAA="]));
}

#[test]
fn a_chain_counts_up_to_its_greatest_length() {
    let site = site();
    let receiver = receiver(&[("site-a", &site)], &[]);
    for (length, wanted) in [(CHAIN_MAX, Ok(true)), (CHAIN_MAX + 1, Err(Refusal::BadCertificate))] {
        let mut issued = issue(&site, RUNTIME, |_| {});
        issued.chain.resize(length, site.der().clone());
        let bytes = Recipe::default().bytes_by(&honest_keys(&issued));
        assert_eq!(opened(&receiver, &bytes), wanted, "{length}");
    }
}

#[test]
fn a_message_is_read_up_to_its_greatest_length() {
    let receiver = view(settings(ME, Profile::Dev, Policy::default()), fingerprint("target"));
    for (length, wanted) in [
        (MESSAGE_BYTES_MAX, Refusal::Malformed),
        (MESSAGE_BYTES_MAX + 1, Refusal::TooLarge),
        (MESSAGE_BYTES_MAX + 2, Refusal::TooLarge),
    ] {
        let refused = open_envelope(&receiver, &parsed(ORIGIN), &vec![b' '; length], now().wall);
        assert_eq!(refused.map(|_received| ()), Err(wanted), "{length}");
    }
}

/// The one of whom it was asked answers, to the one who asked, about what was asked: each of it alone is not enough.
#[test]
fn a_receipt_counts_only_from_the_target_to_the_origin_of_its_envelope() {
    let envelope = Hash::of(b"an envelope");
    let honest = Receipt {
        envelope,
        target: parsed(ORIGIN),
        origin: parsed(ME),
        request_id: parsed("request-1"),
        ruling: Ruling::Done(Response::Pong),
        audit_id: AuditId::new(now().wall, [7; 10]),
        position: None,
        repeated: false,
        at: now().wall,
    };
    let open = |receipt: &Receipt, pinned: &str| {
        let mut receiver = view(settings(ME, Profile::Dev, Policy::default()), fingerprint("target"));
        receiver.peers =
            [(parsed(ORIGIN), Arc::new(peer(fingerprint(pinned), Presence::default())))].into_iter().collect();
        open_receipt(&receiver, &parsed(ORIGIN), envelope, &seal_receipt(&origin_keys(), receipt), now().wall)
    };
    assert_eq!(open(&honest, "origin").as_ref(), Ok(&honest));
    let bent = [
        Receipt { envelope: Hash::of(b"another"), ..honest.clone() },
        Receipt { target: parsed("site-a/other"), ..honest.clone() },
        Receipt { origin: parsed("site-a/other"), ..honest.clone() },
    ];
    for receipt in &bent {
        assert_eq!(open(receipt, "origin"), Err(Refusal::NotItsOwnWord), "{receipt:?}");
    }
    assert_eq!(open(&honest, "stranger"), Err(Refusal::NotItsOwnWord));
}
