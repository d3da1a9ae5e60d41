//! Certificates made for the table of identities: an honest authority, changed in one respect by each case.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose as Purpose, IsCa, KeyPair, KeyUsagePurpose as Use, SanType,
};
use rustls_pki_types::CertificateDer;
use time::{Duration, OffsetDateTime};
use trust_runtime::domain::identity::svid::{read_leaf, read_signer};
use trust_runtime::domain::identity::{Ban, Fingerprint, Mapping, Naming};

use crate::world::{NOW_MS, parsed};

type Der = CertificateDer<'static>;
type Authority = CertifiedIssuer<'static, KeyPair>;

const ALICE: &str = "spiffe://trust/site-a/alice";
/// Names of extensions, as numbers.
const KEY_USAGE: [u64; 4] = [2, 5, 29, 15];
const SUBJECT_ALT_NAME: [u64; 4] = [2, 5, 29, 17];

/// What is presented, and what it is held against.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) chain: Vec<Der>,
    /// Trust domain, site, certificates.
    pub(crate) anchors: Vec<(&'static str, &'static str, Vec<Der>)>,
    pub(crate) bans: Vec<Ban>,
}

impl Case {
    /// A chain against the anchor of site-a.
    fn new(chain: impl Into<Vec<Der>>, root: &Authority) -> Self {
        Self { chain: chain.into(), anchors: vec![("trust", "site-a", vec![root.der().clone()])], bans: Vec::new() }
    }

    fn with(mut self, domain: &'static str, site: &'static str, root: &Authority) -> Self {
        self.anchors.push((domain, site, vec![root.der().clone()]));
        self
    }

    fn banning(mut self, ban: Ban) -> Self {
        self.bans.push(ban);
        self
    }
}

/// The case with this code.
pub(crate) fn case(code: &str) -> Case {
    if code == "domain-site" {
        return domain_site();
    }
    let number: u32 = code.trim_start_matches(['A', 'R']).parse().unwrap_or_default();
    match (code.chars().next(), number) {
        (Some('A'), 6) => leaf_case(code),
        (Some('A'), 7 | 8 | 14 | 15) | (Some('R'), 26..=30 | 40 | 46 | 57 | 61 | 62) => chain_case(code),
        (Some('R'), 24 | 25 | 32..=39 | 47 | 50..=58 | 63) | (Some('A'), 5 | 12 | 13) => anchor_case(code),
        _ => leaf_case(code),
    }
}

/// Cases in which only the leaf differs.
fn leaf_case(code: &str) -> Case {
    let root = authority("site-a", |_| {});
    let mut bend = None;
    let leaf = leaf(&root, |leaf| match code {
        "A01" => {}
        "A02" => leaf.distinguished_name = DistinguishedName::new(),
        "A03" => leaf.extended_key_usages.clear(),
        "A04" => leaf.subject_alt_names.extend([
            SanType::DnsName("panel.site-a.example".try_into().expect("a name")),
            SanType::IpAddress([10, 0, 0, 7].into()),
        ]),
        "A06" => leaf.is_ca = IsCa::NoCa,
        "A09" => {}
        "A11" => leaf.subject_alt_names = vec![uri("spiffe://trust/site-a/runtime/r1")],
        "R01" => leaf.subject_alt_names.clear(),
        "R02" => leaf.subject_alt_names = vec![SanType::DnsName("alice.example".try_into().expect("a name"))],
        "R03" => leaf.subject_alt_names.push(uri("spiffe://trust/site-a/bob")),
        "R04" => leaf.subject_alt_names.push(uri("https://site-a.example/alice")),
        "R05" => leaf.subject_alt_names = vec![uri("https://site-a.example/alice")],
        "R06" => leaf.subject_alt_names = vec![uri("spiffe://trust")],
        "R07" => leaf.subject_alt_names = vec![uri("spiffe://trust/site-a/alice/")],
        "R08" => leaf.subject_alt_names = vec![uri("spiffe://trust/site-a/alice?admin")],
        "R09" => leaf.subject_alt_names = vec![uri("spiffe://Trust/site-a/alice")],
        "R10" => leaf.subject_alt_names = vec![uri("spiffe://trust/site-a/alice\0.evil")],
        "R11" => leaf.subject_alt_names = vec![uri(&format!("{ALICE}{}", "a".repeat(2_049 - ALICE.len())))],
        "R60" => leaf.subject_alt_names = vec![uri("spiffe://trust/site-a/worker/alice")],
        "R12" => leaf.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
        "R13" => leaf.key_usages.push(Use::KeyCertSign),
        "R14" => leaf.key_usages.push(Use::CrlSign),
        "R15" => leaf.key_usages.clear(),
        "R16" => leaf.key_usages = vec![Use::KeyEncipherment],
        "R17" => {
            leaf.key_usages.clear();
            leaf.custom_extensions.push(digital_signature());
        }
        "R18" => leaf.not_after = moment() - Duration::seconds(1),
        "R19" => leaf.not_before = moment() + Duration::seconds(1),
        "R20" => leaf.extended_key_usages = vec![Purpose::ServerAuth],
        "R21" => leaf.extended_key_usages = vec![Purpose::CodeSigning],
        "R22" => leaf.extended_key_usages = vec![Purpose::ClientAuth],
        "R23" => {
            leaf.distinguished_name = DistinguishedName::new();
            leaf.subject_alt_names.clear();
            leaf.custom_extensions.push(names_not_critical());
        }
        "R48" => leaf.custom_extensions.push(digital_signature()),
        "R49" => {
            leaf.extended_key_usages.clear();
            leaf.custom_extensions.push(code_signing_under([2, 5, 29, 128]));
            // 2.5.29.37 with an empty group of bits before the 37.
            bend = Some((vec![0x55, 0x1d, 0x81, 0x00], vec![0x55, 0x1d, 0x80, 0x25]));
        }
        "R59" => {
            let mut unknown = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999, 1], vec![5, 0]);
            unknown.set_criticality(true);
            leaf.custom_extensions.push(unknown);
        }
        other => panic!("no case {other}"),
    });
    match bend {
        Some((from, to)) => Case::new([replaced(&leaf, &from, &to)], &root),
        None if code == "A09" => Case::new([ed25519_leaf(&root)], &root),
        None => Case::new([leaf], &root),
    }
}

/// Cases with something between leaf and anchor.
fn chain_case(code: &str) -> Case {
    let root = authority("site-a", |root| match code {
        "R30" => root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)),
        "A15" => root.is_ca = IsCa::Ca(BasicConstraints::Constrained(1)),
        _ => {}
    });
    let between = intermediate(&root, |it| match code {
        "A07" | "R30" | "R40" | "R57" | "R61" => it.subject_alt_names.clear(),
        "A08" | "A14" | "A15" => {}
        "R26" => it.is_ca = IsCa::ExplicitNoCa,
        "R27" => it.key_usages = vec![Use::CrlSign],
        "R28" => it.subject_alt_names = vec![uri("spiffe://trust/site-a")],
        "R29" => it.subject_alt_names = vec![uri("spiffe://other")],
        "R46" => it.subject_alt_names.push(uri("spiffe://other")),
        "R62" => it.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)),
        other => panic!("no case {other}"),
    });
    if code == "R62" {
        let lower = intermediate(&between, |it| it.distinguished_name = named("lower"));
        let chain = [leaf(&lower, |_| {}), lower.der().clone(), between.der().clone()];
        return Case::new(chain, &root);
    }
    let leaf = leaf(&between, |_| {});
    let more = match code {
        "R40" => 16,
        "A14" => 3,
        "R61" => 4,
        _ => 1,
    };
    let chain: Vec<Der> = [leaf].into_iter().chain(vec![between.der().clone(); more]).collect();
    let signer = read_signer(between.der(), &parsed("trust"));
    match (code, signer) {
        ("R57", Ok(signer)) => Case::new(chain, &root).banning(Ban::Certificate(signer.certificate)),
        _ => Case::new(chain, &root),
    }
}

/// Cases about who vouches.
fn anchor_case(code: &str) -> Case {
    let root = authority("site-a", |root| match code {
        "R47" => root.not_after = moment() - Duration::seconds(1),
        "R63" => root.not_before = moment() + Duration::seconds(1),
        "R51" => root.key_usages = vec![Use::CrlSign],
        "R52" => root.subject_alt_names = vec![uri("spiffe://other")],
        _ => {}
    });
    let other = authority("site-b", |_| {});
    let alice = leaf(&root, |_| {});
    let naming = Naming { trust_domain: parsed("trust"), mapping: Mapping::PathSite };
    let read = read_leaf(&alice, &naming).expect("an honest leaf");
    match code {
        "A05" => Case::new([alice, root.der().clone()], &root),
        "A12" | "A13" | "R53" => rotation(code, &root),
        "R24" => Case::new([leaf(&other, |_| {})], &root),
        "R25" => Case::new([leaf(&other, |_| {})], &root).with("trust", "site-b", &other),
        "R32" => Case::new([root.der().clone()], &root),
        "R33" => Case::new([self_signed_leaf()], &root),
        "R34" => {
            let anchors = vec![("trust", "site-a", vec![alice.clone()])];
            Case { chain: vec![alice], anchors, bans: Vec::new() }
        }
        "R35" => Case::new([longer(&alice)], &root),
        "R36" => Case::new([flipped(&alice)], &root),
        "R39" => {
            let bob = leaf(&root, |leaf| leaf.subject_alt_names = vec![uri("spiffe://trust/site-b/bob")]);
            Case::new([bob], &root).with("trust", "site-b", &other)
        }
        "R47" | "R51" | "R52" | "R63" => Case::new([alice], &root),
        "R50" => {
            let anchors = vec![("trust", "site-b", vec![root.der().clone()])];
            Case { chain: vec![alice], anchors, bans: Vec::new() }
        }
        "R54" => Case::new([alice], &root).banning(Ban::Certificate(read.certificate)),
        "R55" => Case::new([alice], &root).banning(Ban::Key(read.key)),
        "R56" => Case::new([alice], &root).banning(Ban::of_id(&read.id)),
        "R58" => Case::new([alice], &root).banning(Ban::Certificate(Fingerprint::of_der(root.der()))),
        other => panic!("no case {other}"),
    }
}

/// The old authority is `old`, the new one has its name and another key.
fn rotation(code: &str, old: &Authority) -> Case {
    let new = authority("site-a", |_| {});
    let (issuer, anchors) = match code {
        "A12" => (old, vec![old.der().clone(), new.der().clone()]),
        "A13" => (&new, vec![old.der().clone(), new.der().clone()]),
        _ => (old, vec![new.der().clone()]),
    };
    Case { chain: vec![leaf(issuer, |_| {})], anchors: vec![("trust", "site-a", anchors)], bans: Vec::new() }
}

/// A node of a site that has a trust domain of its own.
fn domain_site() -> Case {
    let root = authority("site-a", |root| root.subject_alt_names = vec![uri("spiffe://site-a.trust")]);
    let node = leaf(&root, |leaf| leaf.subject_alt_names = vec![uri("spiffe://site-a.trust/runtime/r1")]);
    Case::new([node], &root)
}

fn authority(name: &str, change: impl FnOnce(&mut CertificateParams)) -> Authority {
    let mut params = signer(name);
    change(&mut params);
    CertifiedIssuer::self_signed(params, key()).expect("an authority")
}

/// Ends an hour before the leaves do.
fn intermediate(root: &Authority, change: impl FnOnce(&mut CertificateParams)) -> Authority {
    let mut params = signer("between");
    params.not_after = moment() + Duration::hours(1);
    change(&mut params);
    CertifiedIssuer::signed_by(params, key(), root).expect("an intermediate")
}

fn signer(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![Use::KeyCertSign, Use::CrlSign];
    params.subject_alt_names = vec![uri("spiffe://trust")];
    params.not_before = moment() - Duration::days(1);
    params.not_after = moment() + Duration::days(1);
    params
}

fn leaf(issuer: &Authority, change: impl FnOnce(&mut CertificateParams)) -> Der {
    let mut params = honest();
    change(&mut params);
    params.signed_by(&key(), issuer).expect("a leaf").der().clone()
}

fn ed25519_leaf(issuer: &Authority) -> Der {
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
    honest().signed_by(&key, issuer).expect("a leaf").der().clone()
}

fn self_signed_leaf() -> Der {
    honest().self_signed(&key()).expect("a leaf").der().clone()
}

fn honest() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named("alice");
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![Use::DigitalSignature];
    params.extended_key_usages = vec![Purpose::ServerAuth, Purpose::ClientAuth];
    params.subject_alt_names = vec![uri(ALICE)];
    params.not_before = moment() - Duration::hours(1);
    params.not_after = moment() + Duration::hours(2);
    params
}

fn named(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().expect("ASCII"))
}

fn moment() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(i64::try_from(NOW_MS / 1_000).expect("small")).expect("a moment")
}

/// Key usage digitalSignature as an extension of its own, not critical.
fn digital_signature() -> CustomExtension {
    CustomExtension::from_oid_content(&KEY_USAGE, vec![0x03, 0x02, 0x07, 0x80])
}

fn names_not_critical() -> CustomExtension {
    let length = |text: &[u8]| u8::try_from(text.len()).expect("short");
    let name: Vec<u8> = [&[0x86, length(ALICE.as_bytes())], ALICE.as_bytes()].concat();
    CustomExtension::from_oid_content(&SUBJECT_ALT_NAME, [&[0x30, length(&name)], name.as_slice()].concat())
}

/// Extended key usage codeSigning under another name.
fn code_signing_under(oid: [u64; 4]) -> CustomExtension {
    let purpose = [0x30, 0x0a, 0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x03];
    CustomExtension::from_oid_content(&oid, purpose.to_vec())
}

fn longer(der: &Der) -> Der {
    [der.as_ref(), &[0]].concat().into()
}

/// Turns one bit of the signature.
fn flipped(der: &Der) -> Der {
    let mut bytes = der.to_vec();
    *bytes.last_mut().expect("a certificate") ^= 1;
    bytes.into()
}

fn replaced(der: &Der, from: &[u8], to: &[u8]) -> Der {
    let at = der.windows(from.len()).position(|window| window == from).expect("it stands there");
    let mut bytes = der.to_vec();
    bytes[at..at + from.len()].copy_from_slice(to);
    bytes.into()
}

/// An authority's key and its certificate, changed in one respect.
pub(crate) fn signing(name: &str, change: impl FnOnce(&mut CertificateParams)) -> (KeyPair, Der) {
    let mut params = signer(name);
    change(&mut params);
    let key = key();
    let der = params.self_signed(&key).expect("an authority").der().clone();
    (key, der)
}
