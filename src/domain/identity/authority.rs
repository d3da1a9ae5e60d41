//! Whose certificates count here, as one value with a name of its own: what was checked under one name holds only under it.

use std::fmt;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use webpki::EndEntityCert;

use crate::domain::audit::Hash;
use crate::domain::id::RuntimeId;
use crate::domain::identity::anchors::{Refusal, Trust, Usage};
use crate::domain::identity::{Fingerprint, Mapping};
use crate::domain::time::Wall;

/// One algorithm for each kind of key, so that there is nothing to negotiate.
static ALGORITHMS: [&dyn rustls_pki_types::SignatureVerificationAlgorithm; 4] = [
    webpki::ring::ECDSA_P256_SHA256,
    webpki::ring::ECDSA_P384_SHA384,
    webpki::ring::ED25519,
    webpki::ring::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
];

/// The trust in others that this node has at present.
#[derive(Clone)]
pub struct Authority {
    trust: Arc<Trust>,
    name: Hash,
    /// Why the own chain does not hold under it, where one was held against it and does not.
    against_own: Option<Arc<Refusal>>,
}

/// What a chain proved when it was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vouched {
    /// The first end of all certificates on the path.
    pub until: Wall,
    /// The authority under which it was checked.
    pub authority: Hash,
}

/// A runtime that a chain proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvenRuntime {
    /// Which.
    pub runtime: RuntimeId,
    /// SHA-256 of its public key.
    pub key: Fingerprint,
    /// What was proved.
    pub vouched: Vouched,
}

/// Why a signature by a certificate's key does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unproven {
    /// The chain does not hold here.
    #[error("{0}")]
    Chain(#[from] Refusal),
    /// The chain names an actor.
    #[error("the certificate is not a runtime's")]
    NotARuntime,
    /// The signature is not by the certificate's key.
    #[error("the signature is not by the certificate's key")]
    Signature,
}

impl Authority {
    /// Names the trust by its content.
    pub fn new(trust: Trust) -> Self {
        let name = Hash::of(&canonical(&trust));
        Self { trust: Arc::new(trust), name, against_own: None }
    }

    /// The same once it was asked about the own chain, which holds until then. Whether the time has come is not asked: that is
    /// known without it.
    #[must_use]
    pub fn asked_of_own(self, chain: &[CertificateDer<'_>], until: Wall) -> Self {
        let in_its_time = Wall(until.0.saturating_sub(1));
        let verified = self.trust.verify_chain(chain, in_its_time, Usage::Server);
        Self { against_own: verified.err().map(Arc::new), ..self }
    }

    /// Why the own chain does not hold, such as by a ban on whoever has signed it: everybody who has heard of it refuses the
    /// chain too.
    pub fn against_own(&self) -> Option<&Refusal> {
        self.against_own.as_deref()
    }

    /// The name of the content.
    pub const fn name(&self) -> Hash {
        self.name
    }

    /// The trust itself.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Whether what was proved still counts.
    pub fn still_holds(&self, vouched: &Vouched, now: Wall) -> bool {
        vouched.authority == self.name && now <= vouched.until
    }

    /// The runtime whose certificate's key signed these bytes.
    pub fn prove(
        &self,
        chain: &[CertificateDer<'_>],
        message: &[u8],
        signature: &[u8],
        now: Wall,
    ) -> Result<ProvenRuntime, Unproven> {
        let verified = self.trust.verify_chain(chain, now, Usage::Client)?;
        let runtime = verified.svid.subject.as_runtime().ok_or(Unproven::NotARuntime)?;
        let leaf = chain.first().ok_or(Unproven::Signature)?;
        let leaf = EndEntityCert::try_from(leaf).map_err(|_malformed| Unproven::Signature)?;
        if !is_signed_by(&leaf, message, signature) {
            return Err(Unproven::Signature);
        }
        let vouched = Vouched { until: verified.until, authority: self.name };
        Ok(ProvenRuntime { runtime, key: verified.svid.key, vouched })
    }
}

/// All that decides about a chain, in one order and with the length of each part before it, so that two different contents
/// never have the same bytes. An anchor stands for itself by the hash of its certificate.
fn canonical(trust: &Trust) -> Vec<u8> {
    let Trust { naming, anchors, bans } = trust;
    let mut bytes = Vec::new();
    part(&mut bytes, naming.trust_domain.as_str().as_bytes());
    part(
        &mut bytes,
        match naming.mapping {
            Mapping::PathSite => b"path-site",
            Mapping::DomainSite => b"domain-site",
        },
    );
    let sites = anchors.all();
    count(&mut bytes, sites.len());
    for (trust_domain, site, certificates) in sites {
        part(&mut bytes, trust_domain.as_str().as_bytes());
        part(&mut bytes, site.to_string().as_bytes());
        count(&mut bytes, certificates.len());
        certificates.for_each(|certificate| bytes.extend(certificate.0));
    }
    let bans = bans.iter();
    count(&mut bytes, bans.len());
    bans.for_each(|ban| part(&mut bytes, ban.to_string().as_bytes()));
    bytes
}

fn part(bytes: &mut Vec<u8>, content: &[u8]) {
    count(bytes, content.len());
    bytes.extend_from_slice(content);
}

/// In eight bytes: more than any machine can count.
fn count(bytes: &mut Vec<u8>, number: usize) {
    bytes.extend(u64::try_from(number).unwrap_or(u64::MAX).to_be_bytes());
}

/// Whether the certificate's key signed the message, by the one algorithm of its kind.
pub(super) fn is_signed_by(certificate: &EndEntityCert<'_>, message: &[u8], signature: &[u8]) -> bool {
    ALGORITHMS.iter().any(|it| certificate.verify_signature(*it, message, signature).is_ok())
}

impl PartialEq for Authority {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Authority {}

impl fmt::Debug for Authority {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Authority({})", self.name)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
    };

    use super::*;
    use crate::domain::id::SiteId;
    use crate::domain::identity::{Ban, Naming, svid};

    fn issuer() -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.subject_alt_names = vec![SanType::URI("spiffe://trust".try_into().expect("ASCII"))];
        CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an anchor")
    }

    fn anchor() -> CertificateDer<'static> {
        issuer().der().clone()
    }

    /// A runtime's, from the year 2000 to the year 2001.
    fn leaf(issuer: &CertifiedIssuer<'static, KeyPair>) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.subject_alt_names = vec![SanType::URI("spiffe://trust/a/runtime/x".try_into().expect("ASCII"))];
        (params.not_before, params.not_after) = (date_time_ymd(2_000, 1, 1), date_time_ymd(2_001, 1, 1));
        params.signed_by(&KeyPair::generate().expect("a key"), issuer).expect("a leaf").der().clone()
    }

    fn trust(anchors: &[(&str, &[&CertificateDer<'static>])], bans: &[&str]) -> Trust {
        let mut trust =
            Trust::new(Naming { trust_domain: "trust".parse().expect("legal"), mapping: Mapping::PathSite });
        for (site, anchors) in anchors {
            let anchors: Vec<_> = anchors.iter().map(|it| (*it).clone()).collect();
            trust.set_anchors(site.parse().expect("a site"), &anchors).expect("anchors");
        }
        for ban in bans {
            trust.bans.add(ban.parse::<Ban>().expect("a ban"));
        }
        trust
    }

    #[test]
    fn every_content_has_a_name_of_its_own() {
        let (one, two) = (anchor(), anchor());
        let named = |trust: Trust| Authority::new(trust).name();
        let of = |trust_domain: &str, mapping| {
            Trust::new(Naming { trust_domain: trust_domain.parse().expect("legal"), mapping })
        };
        let (first, second) = ("id spiffe://trust/a/b", "id spiffe://trust/a/c");
        let all = [
            of("trust", Mapping::PathSite),
            of("trust", Mapping::DomainSite),
            of("other", Mapping::PathSite),
            trust(&[("a", &[&one])], &[]),
            trust(&[("b", &[&one])], &[]),
            trust(&[("a", &[&two])], &[]),
            trust(&[("a", &[&one, &two])], &[]),
            trust(&[("a", &[&one]), ("b", &[&two])], &[]),
            trust(&[("a", &[&two]), ("b", &[&one])], &[]),
            trust(&[("a", &[&one]), ("b", &[&one, &two])], &[]),
            trust(&[("a", &[&one, &two]), ("b", &[&one])], &[]),
            trust(&[("a", &[&one])], &[first]),
            trust(&[("a", &[&one])], &[second]),
            trust(&[("a", &[&one])], &[first, second]),
            trust(&[], &[first]),
        ];
        let wanted = all.len();
        assert_eq!(all.into_iter().map(named).collect::<BTreeSet<_>>().len(), wanted);
    }

    #[test]
    fn the_order_in_which_trust_was_given_does_not_matter() {
        let (one, two) = (anchor(), anchor());
        let (first, second) = ("id spiffe://trust/a/b", "id spiffe://trust/a/c");
        let there = trust(&[("a", &[&one, &two]), ("b", &[&two])], &[first, second]);
        let back = trust(&[("b", &[&two]), ("a", &[&two, &one, &two])], &[second, first]);
        assert_eq!(Authority::new(there), Authority::new(back));
    }

    #[test]
    fn a_ban_makes_it_another_authority() {
        let before = trust(&[], &[]);
        assert_ne!(Authority::new(before), Authority::new(trust(&[], &["id spiffe://trust/a/b"])));
    }

    /// The bytes themselves, because a length that is left out shows in no single example.
    #[test]
    fn no_content_reads_like_another() {
        let bytes = canonical(&trust(&[], &["id spiffe://trust/a/b"]));
        let wanted = [
            &[0, 0, 0, 0, 0, 0, 0, 5][..],
            b"trust",
            &[0, 0, 0, 0, 0, 0, 0, 9],
            b"path-site",
            &[0; 8],
            &[0, 0, 0, 0, 0, 0, 0, 1],
            &[0, 0, 0, 0, 0, 0, 0, 21],
            b"id spiffe://trust/a/b",
        ];
        assert_eq!(bytes, wanted.concat());
    }

    /// Also where it is over: that is another question.
    #[test]
    fn the_own_chain_does_not_hold_by_a_ban_on_it_or_on_who_has_signed_it() {
        let (one, two) = (issuer(), issuer());
        let own = leaf(&one);
        let until = svid::end_of(&own).expect("an end");
        let asked = |anchors: &[&CertificateDer<'static>], bans: &[&str]| {
            let authority = Authority::new(trust(&[("a", anchors)], bans));
            let name = authority.name();
            assert_eq!(authority.against_own(), None, "nobody has asked");
            let asked = authority.asked_of_own(std::slice::from_ref(&own), until);
            assert_eq!(asked.name(), name, "the same trust in others");
            asked.against_own().cloned()
        };
        let certificate = |der: &CertificateDer<'_>| format!("certificate {}", Fingerprint::of_der(der));
        let north: SiteId = "a".parse().expect("a site");
        assert_eq!(asked(&[one.der()], &[]), None);
        assert_eq!(asked(&[one.der(), two.der()], &[&certificate(two.der())]), None);
        let banned = asked(&[one.der()], &[&certificate(one.der())]);
        assert_eq!(banned, Some(Refusal::AnchorsOver(north.clone())));
        let beside = asked(&[one.der(), two.der()], &[&certificate(one.der())]);
        assert_eq!(beside, Some(Refusal::UnknownIssuer(north)));
        for ban in [certificate(&own), "id spiffe://trust/a/runtime/x".to_owned()] {
            assert!(matches!(asked(&[one.der()], &[&ban]), Some(Refusal::Banned(_))), "{ban}");
        }
    }
}
