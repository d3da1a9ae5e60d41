//! The site's certificates in `plant`: every key is Ed25519 from a fixed seed, because its signatures are the same in every
//! run, and a seed must replay.

use std::sync::LazyLock;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, SanType, SerialNumber, SigningKey,
};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use trust_runtime::domain::identity::anchors::Trust;
use trust_runtime::domain::identity::authority::Authority;
use trust_runtime::domain::identity::{Fingerprint, IdentityKey, Mapping, Naming, svid};
use trust_runtime::domain::preflight::Profile;
use trust_runtime::domain::time::Wall;
use trust_runtime::wire::mesh::{self as wire, CertificateKey};

use crate::node::{Node, runtime};

/// More nodes than any world has.
const NODES_MAX: usize = 16;

/// What stands before an Ed25519 seed in PKCS#8.
const PKCS8_HEAD: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

struct Issued {
    key: KeyPair,
    name: Fingerprint,
    chain: Vec<CertificateDer<'static>>,
}

struct Site {
    authority: Authority,
    issued: Vec<Issued>,
}

static SITE: LazyLock<Site> = LazyLock::new(|| {
    let mut params = params("spiffe://trust", 1);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let issuer = CertifiedIssuer::self_signed(params, key(255)).expect("an authority");
    let naming = naming();
    let mut trust = Trust::new(naming.clone());
    trust.set_anchors(runtime(0).site, &[issuer.der().clone()]).expect("an anchor");
    let issued = (0..NODES_MAX).map(|index| issue(&issuer, &naming, index)).collect();
    Site { authority: Authority::new(trust), issued }
});

fn naming() -> Naming {
    Naming { trust_domain: "trust".parse().expect("legal"), mapping: Mapping::PathSite }
}

fn issue(issuer: &CertifiedIssuer<'_, KeyPair>, naming: &Naming, index: usize) -> Issued {
    let id = runtime(index);
    let number = u8::try_from(index).expect("few") + 2;
    let mut params = params(&format!("spiffe://trust/{}/runtime/{}", id.site, id.name), number);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = key(number);
    let leaf = params.signed_by(&key, issuer).expect("a certificate").der().clone();
    let name = svid::read_leaf(&leaf, naming).expect("it keeps the profile").key;
    Issued { key, name, chain: vec![leaf] }
}

fn params(id: &str, serial: u8) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, id);
    params.subject_alt_names = vec![SanType::URI(id.try_into().expect("ASCII"))];
    params.serial_number = Some(SerialNumber::from(u64::from(serial)));
    params.not_before = rcgen::date_time_ymd(1980, 1, 1);
    params.not_after = rcgen::date_time_ymd(2100, 1, 1);
    params
}

fn key(number: u8) -> KeyPair {
    let bytes = [PKCS8_HEAD.as_slice(), &[number; 32]].concat();
    let der = PrivatePkcs8KeyDer::from(bytes);
    KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ED25519).expect("a key")
}

/// Whose certificates count in this profile.
pub(crate) fn authority(profile: Profile) -> Option<Authority> {
    (profile != Profile::Dev).then(|| SITE.authority.clone())
}

/// The name of the key that stands for a node in this profile.
pub(crate) fn fingerprint(profile: Profile, index: usize, own: &IdentityKey) -> Fingerprint {
    if profile == Profile::Dev { own.fingerprint() } else { SITE.issued[index].name }
}

/// An envelope key, and the word for it of whatever stands for the node in this profile.
pub(crate) fn delegate(
    profile: Profile,
    node: &Node,
    index: usize,
    envelope: IdentityKey,
    from: Wall,
    until: Wall,
) -> wire::Keys {
    if profile == Profile::Dev {
        return wire::delegate(&node.identity, envelope, &node.id, from, until);
    }
    let issued = &SITE.issued[index];
    let sign = |message: &[u8]| issued.key.sign(message).ok();
    let certificate = CertificateKey { key: issued.name, chain: &issued.chain, sign: &sign };
    wire::delegate_by_certificate(&certificate, envelope, &node.id, from, until).expect("the key signs")
}
