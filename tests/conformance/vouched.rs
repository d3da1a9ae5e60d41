//! Delegations by a certificate's key: which count, and that none counts a moment longer than its certificate.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType, SigningKey,
};
use rustls_pki_types::CertificateDer;
use time::{Duration, OffsetDateTime};
use trust_runtime::domain::id::RuntimeId;
use trust_runtime::domain::identity::anchors::Trust;
use trust_runtime::domain::identity::authority::Authority;
use trust_runtime::domain::identity::{Ban, Fingerprint, IdentityKey, Mapping, Naming, TrustState, svid};
use trust_runtime::domain::policy::Policy;
use trust_runtime::domain::preflight::Profile;
use trust_runtime::domain::time::{Millis, Wall};
use trust_runtime::engine::effect::Effects;
use trust_runtime::engine::input::Input;
use trust_runtime::engine::judge::judge;
use trust_runtime::engine::view::{Peer, View};
use trust_runtime::engine::{Engine, Entropy};
use trust_runtime::wire::mesh::{self, CertificateKey, Keys, Refusal, open_envelope};

use crate::sealed::{ME, ORIGIN, Recipe, fingerprint};
use crate::world::{now, parsed, settings, view};

pub(crate) type Der = CertificateDer<'static>;
pub(crate) type Site = CertifiedIssuer<'static, KeyPair>;

pub(crate) const RUNTIME: &str = "spiffe://trust/site-a/runtime/origin";

pub(crate) fn naming() -> Naming {
    Naming { trust_domain: parsed("trust"), mapping: Mapping::PathSite }
}

pub(crate) fn moment() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(now().wall.0)).expect("a moment")
}

fn params(id: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "case");
    params.subject_alt_names = vec![SanType::URI(id.try_into().expect("ASCII"))];
    params.not_before = moment() - Duration::days(1);
    params.not_after = moment() + Duration::days(1);
    params
}

pub(crate) fn site() -> Site {
    let mut params = params("spiffe://trust");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority")
}

/// A certificate with its key.
pub(crate) struct Issued {
    pub(crate) key: KeyPair,
    pub(crate) chain: Vec<Der>,
}

pub(crate) fn issue(site: &Site, id: &str, change: impl FnOnce(&mut CertificateParams)) -> Issued {
    let mut params = params(id);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    change(&mut params);
    let key = KeyPair::generate().expect("a key");
    let leaf = params.signed_by(&key, site).expect("a certificate").der().clone();
    Issued { key, chain: vec![leaf] }
}

pub(crate) fn name(leaf: &Der) -> Fingerprint {
    svid::read_leaf(leaf, &naming()).expect("it keeps the profile").key
}

/// What the origin signs with, by this certificate.
fn keys(issued: &Issued, key: Fingerprint) -> Keys {
    let sign = |message: &[u8]| issued.key.sign(message).ok();
    let certificate = CertificateKey { key, chain: &issued.chain, sign: &sign };
    let (from, until) = (now().wall.minus(Millis(1)), now().wall.plus(Millis::from_hours(48)));
    let envelope = IdentityKey::from_seed([7; 32]);
    mesh::delegate_by_certificate(&certificate, envelope, &parsed(ORIGIN), from, until).expect("the key signs")
}

pub(crate) fn honest_keys(issued: &Issued) -> Keys {
    keys(issued, name(&issued.chain[0]))
}

/// A receiver to whom these authorities speak for these sites.
pub(crate) fn receiver(anchors: &[(&str, &Site)], bans: &[Ban]) -> View {
    let mut trust = Trust::new(naming());
    for (site, issuer) in anchors {
        trust.set_anchors(parsed(site), &[issuer.der().clone()]).expect("an anchor");
    }
    for ban in bans {
        trust.bans.add(ban.clone());
    }
    let mut settings = settings(ME, Profile::Plant, Policy::default());
    settings.authority = Some(Authority::new(trust));
    view(settings, fingerprint("target"))
}

pub(crate) fn opened(view: &View, bytes: &[u8]) -> Result<bool, Refusal> {
    let received = open_envelope(view, &parsed(ORIGIN), bytes, now().wall)?;
    Ok(received.signer.vouched.is_some())
}

#[test]
fn a_delegation_counts_by_its_own_sites_certificate_alone() {
    let (ours, theirs) = (site(), site());
    let both = [("site-a", &ours), ("site-b", &theirs)];
    let good = issue(&ours, RUNTIME, |_| {});
    let bytes = |keys: &Keys| Recipe::default().bytes_by(keys);
    assert_eq!(opened(&receiver(&both, &[]), &bytes(&honest_keys(&good))), Ok(true));

    let elsewhere = issue(&theirs, RUNTIME, |_| {});
    let actor = issue(&ours, "spiffe://trust/site-a/origin", |_| {});
    let other = issue(&ours, "spiffe://trust/site-a/runtime/other", |_| {});
    let over = issue(&ours, RUNTIME, |it| it.not_after = moment() - Duration::seconds(1));
    let early = issue(&ours, RUNTIME, |it| it.not_before = moment() + Duration::seconds(1));
    let stolen = Issued { key: KeyPair::generate().expect("a key"), chain: good.chain.clone() };
    let long = Issued { key: KeyPair::generate().expect("a key"), chain: vec![good.chain[0].clone(); 5] };
    let none = Issued { key: KeyPair::generate().expect("a key"), chain: Vec::new() };
    let malformed = Issued { key: KeyPair::generate().expect("a key"), chain: vec![Der::from(vec![0x30, 0x80])] };
    let key = name(&good.chain[0]);
    for (what, keys) in [
        ("of another site's authority", honest_keys(&elsewhere)),
        ("of an actor", honest_keys(&actor)),
        ("of another runtime", honest_keys(&other)),
        ("expired", honest_keys(&over)),
        ("not valid yet", honest_keys(&early)),
        ("with another key than it says", keys(&good, name(&other.chain[0]))),
        ("signed by another key", keys(&stolen, key)),
        ("with a chain of five", keys(&long, key)),
        ("without a chain", keys(&none, key)),
        ("that is none", keys(&malformed, key)),
    ] {
        assert_eq!(opened(&receiver(&both, &[]), &bytes(&keys)), Err(Refusal::BadCertificate), "a certificate {what}");
    }
    let good_bytes = bytes(&honest_keys(&good));
    let certificate = svid::read_leaf(&good.chain[0], &naming()).expect("good").certificate;
    for ban in [Ban::Key(key), Ban::Certificate(certificate), Ban::of_id(&parsed(RUNTIME))] {
        assert_eq!(
            opened(&receiver(&both, std::slice::from_ref(&ban)), &good_bytes),
            Err(Refusal::BadCertificate),
            "{ban}"
        );
    }
    assert_eq!(opened(&receiver(&[("site-b", &ours)], &[]), &good_bytes), Err(Refusal::BadCertificate), "no anchor");
    let mut without = receiver(&both, &[]);
    Arc::make_mut(&mut without.settings).authority = None;
    assert_eq!(opened(&without, &good_bytes), Err(Refusal::BadCertificate), "no authority at all");
    // A chain belongs to a delegation; on a message itself it is a shape that nobody writes.
    let text = String::from_utf8(good_bytes).expect("JSON");
    let bent = format!("{},\"chain\":[\"AA==\"]}}", text.trim_end_matches('}'));
    assert_eq!(opened(&receiver(&both, &[]), bent.as_bytes()), Err(Refusal::Malformed));
}

/// Lets the receiver know the sender of these bytes.
fn know(view: &mut View, bytes: &[u8]) {
    let received = open_envelope(view, &parsed(ORIGIN), bytes, now().wall).expect("good");
    let mut peer = Peer::unheard(received.signer.identity);
    peer.trust = TrustState::Trusted;
    peer.signer = Some(received.signer);
    view.peers = [(parsed(ORIGIN), Arc::new(peer))].into_iter().collect();
}

/// A node of the own site may run in `dev` and let anybody at its machine say who they are. Here that is not enough.
#[test]
fn in_plant_nobody_acts_whom_no_credential_vouched_for_nor_who_is_banned() {
    let ours = site();
    let keys = honest_keys(&issue(&ours, RUNTIME, |_| {}));
    let claimed = Recipe::with_payload("\"actor_verified\":true", "\"actor_verified\":false");
    let ruled = |recipe: &Recipe, bans: &[Ban]| {
        let bytes = recipe.bytes_by(&keys);
        let mut view = receiver(&[("site-a", &ours)], bans);
        know(&mut view, &bytes);
        let received = open_envelope(&view, &parsed(ORIGIN), &bytes, now().wall).expect("good");
        judge(&view, &received, now().wall).map(|_rule| ()).map_err(|denial| denial.rule.into_owned())
    };
    assert_eq!(ruled(&Recipe::default(), &[]), Ok(()));
    assert_eq!(ruled(&claimed, &[]), Err("actor_verified".to_owned()));
    let alice = Ban::of_id(&parsed("spiffe://trust/site-a/alice"));
    assert_eq!(ruled(&Recipe::default(), &[alice]), Err("ban".to_owned()), "whoever vouches for her");
    let bob = Ban::of_id(&parsed("spiffe://trust/site-a/bob"));
    assert_eq!(ruled(&Recipe::default(), &[bob]), Ok(()));
}

/// A key that was pinned while the node was in `dev` proves nothing once it is in `plant`, not even for a read.
#[test]
fn in_plant_a_pinned_key_without_a_certificate_reads_nothing() {
    let ours = site();
    let bytes = Recipe::default().bytes_by(&honest_keys(&issue(&ours, RUNTIME, |_| {})));
    let mut view = receiver(&[("site-a", &ours)], &[]);
    know(&mut view, &bytes);
    let mut received = open_envelope(&view, &parsed(ORIGIN), &bytes, now().wall).expect("good");
    let read = crate::world::action("status_read", &toml::Table::new());
    received.envelope.expires = now().wall.plus(read.kind().window());
    received.envelope.action = read;
    let ruled = |received: &trust_runtime::engine::input::Received| {
        judge(&view, received, now().wall).map(drop).map_err(|denial| denial.rule)
    };
    assert_eq!(ruled(&received), Ok(()));
    received.signer.vouched = None;
    // As a pin of `dev` is kept: the same key, of which no certificate speaks.
    assert_eq!(ruled(&received), Err("trust".into()));
}

pub(crate) struct Zeros;

impl Entropy for Zeros {
    fn fill(&mut self, buffer: &mut [u8]) {
        buffer.fill(0);
    }
}

/// Whoever had a node's key may have spoken in its name with the highest boot counter there is. Under a new key the node is
/// heard again, and the old key's words are not.
#[test]
fn a_new_key_is_heard_whatever_the_stolen_one_has_counted() {
    let ours = site();
    let view = receiver(&[("site-a", &ours)], &[]);
    let settings = Arc::clone(&view.settings);
    let (mut engine, _) = Engine::start(settings, view.identity, [], now(), &mut Zeros).expect("starts");
    let mut speak = |issued: &Issued, from: Wall, boot: u64| {
        let sign = |message: &[u8]| issued.key.sign(message).ok();
        let certificate = CertificateKey { key: name(&issued.chain[0]), chain: &issued.chain, sign: &sign };
        let envelope = IdentityKey::from_seed([7; 32]);
        let until = from.plus(Millis::from_hours(1));
        let keys = mesh::delegate_by_certificate(&certificate, envelope, &parsed(ORIGIN), from, until).expect("signs");
        let bytes = Recipe::default().bytes_by(&keys);
        let received = open_envelope(&engine.view(), &parsed(ORIGIN), &bytes, now().wall).expect("good");
        let mut effects = Effects::default();
        engine.handle(now(), &mut Zeros, Input::Met { signer: received.signer, boot }, &mut effects);
        let known = engine.view().peers[&parsed::<RuntimeId>(ORIGIN)].clone();
        (known.pinned, known.boot)
    };
    let (stolen, new) = (issue(&ours, RUNTIME, |_| {}), issue(&ours, RUNTIME, |_| {}));
    let early = now().wall.minus(Millis(1_000));
    assert_eq!(speak(&stolen, early, u64::MAX), (name(&stolen.chain[0]), u64::MAX));
    assert_eq!(speak(&new, now().wall, 7), (name(&new.chain[0]), 7));
    assert_eq!(speak(&stolen, early, u64::MAX), (name(&new.chain[0]), 7), "a word from before the change");
    assert_eq!(speak(&new, now().wall, 6), (name(&new.chain[0]), 7), "and under one key boots only rise");
}

/// What was checked once is not checked again, until something changes of what it was checked by.
#[test]
fn a_known_signer_counts_until_its_certificate_or_the_trust_in_it_ends() {
    let ours = site();
    let issued = issue(&ours, RUNTIME, |it| it.not_after = moment() + Duration::hours(1));
    let keys = honest_keys(&issued);
    let bytes = Recipe::default().bytes_by(&keys);
    let mut view = receiver(&[("site-a", &ours)], &[]);
    know(&mut view, &bytes);
    // Without the delegation only what is remembered can vouch.
    let outer: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
    let mut bare = outer.clone();
    bare.as_object_mut().expect("an object").remove("delegation");
    let bare = bare.to_string().into_bytes();
    assert_eq!(opened(&view, &bare), Ok(true));

    let later = now().wall.plus(Millis::from_hours(1)).plus(Millis(1));
    let at_end = open_envelope(&view, &parsed(ORIGIN), &bare, later);
    assert_eq!(at_end.map(|_| ()), Err(Refusal::BadDelegation), "the certificate has ended, the delegation has not");

    let banned = receiver(&[("site-a", &ours)], &[Ban::Key(name(&issued.chain[0]))]);
    Arc::make_mut(&mut view.settings).authority = banned.settings.authority.clone();
    assert_eq!(opened(&view, &bare), Err(Refusal::BadDelegation), "remembered under another trust");
    assert_eq!(opened(&view, &bytes), Err(Refusal::BadCertificate), "and checked again under this one");
}
