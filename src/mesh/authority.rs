//! An authority that issues certificates to nodes of tests, and a clock that tests move.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use time::{Duration, OffsetDateTime};

use crate::domain::id::{RuntimeId, SiteId};
use crate::domain::identity::anchors::Trust;
use crate::domain::identity::{Bans, Mapping, Naming, Subject};
use crate::domain::time::{Millis, Wall};
use crate::tls::{Identity, Snapshot, WallClock};

/// A certificate with its key.
pub(super) type Proof = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// The moment at which a test begins.
const NOW: Wall = Wall::from_millis(1_800_000_000_000);

/// A clock that a test moves.
#[derive(Debug)]
pub(super) struct Clock(AtomicU64);

impl Default for Clock {
    fn default() -> Self {
        Self(AtomicU64::new(NOW.0))
    }
}

impl Clock {
    pub(super) fn pass(&self, length: Millis) {
        self.0.fetch_add(length.as_nanos(), Ordering::Relaxed);
    }
}

impl WallClock for Clock {
    fn now(&self) -> Wall {
        Wall(self.0.load(Ordering::Relaxed))
    }
}

/// The authority of a test site.
pub(super) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    site: SiteId,
}

impl Authority {
    /// That of the site `s`.
    pub(super) fn new() -> Self {
        Self::of("s")
    }

    pub(super) fn of(site: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = named("authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.subject_alt_names = vec![uri("spiffe://trust")];
        let issuer = CertifiedIssuer::self_signed(params, key()).expect("an authority");
        Self { issuer, site: site.parse().expect("legal") }
    }

    /// What proves a node that is reached on loopback.
    pub(super) fn proof(&self, name: &str) -> Proof {
        self.changed(name, |_| {})
    }

    /// The same, changed in one respect.
    pub(super) fn changed(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Proof {
        let mut params = CertificateParams::default();
        params.distinguished_name = named(name);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = vec![id(&format!("{}/runtime/{name}", self.site)), address([127, 0, 0, 1])];
        params.not_before = after(Duration::hours(-2));
        params.not_after = after(Duration::hours(1));
        change(&mut params);
        let key = key();
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        (vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
    }

    /// Whom a node trusts that has this authority's anchor and those of others.
    fn trust(&self, others: &[&Self], bans: &str) -> Trust {
        let mut trust =
            Trust::new(Naming { trust_domain: "trust".parse().expect("legal"), mapping: Mapping::PathSite });
        for known in others.iter().chain([&self]) {
            trust.set_anchors(known.site.clone(), &[known.issuer.der().clone()]).expect("an anchor");
        }
        trust.bans = bans.parse::<Bans>().expect("legal");
        trust
    }

    /// What a node of this name holds.
    pub(super) fn snapshot(&self, name: &str, proof: Proof, bans: &str) -> Snapshot {
        self.snapshot_knowing(&[], name, proof, bans)
    }

    /// The same, where other sites are known.
    pub(super) fn snapshot_knowing(&self, others: &[&Self], name: &str, (chain, key): Proof, bans: &str) -> Snapshot {
        let own = Subject::of_runtime(&self.runtime(name));
        Snapshot::new(chain, key, self.trust(others, bans), &own, NOW).expect("a snapshot")
    }

    /// A runtime of this site.
    pub(super) fn runtime(&self, name: &str) -> RuntimeId {
        format!("{}/{name}", self.site).parse().expect("legal")
    }

    pub(super) fn site(&self) -> &SiteId {
        &self.site
    }

    /// A node that is reached on loopback.
    pub(super) fn node(&self, name: &str) -> Arc<Identity> {
        self.node_at(name, &Arc::default())
    }

    /// The same, by this clock.
    pub(super) fn node_at(&self, name: &str, clock: &Arc<Clock>) -> Arc<Identity> {
        let snapshot = self.snapshot(name, self.proof(name), "");
        Identity::new(snapshot, Arc::clone(clock) as Arc<dyn WallClock>)
    }
}

/// So long after the beginning of a test.
pub(super) fn after(offset: Duration) -> OffsetDateTime {
    let seconds = i64::try_from(NOW.as_millis() / 1_000).expect("small");
    OffsetDateTime::from_unix_timestamp(seconds).expect("a moment").saturating_add(offset)
}

/// The id of whoever has this path in the trust domain of the tests.
pub(super) fn id(path: &str) -> SanType {
    uri(&format!("spiffe://trust/{path}"))
}

pub(super) fn address(octets: [u8; 4]) -> SanType {
    SanType::IpAddress(octets.into())
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().expect("ASCII"))
}

fn named(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}
