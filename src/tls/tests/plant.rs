//! Two sites with an authority each, and what strangers make of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use time::{Duration, OffsetDateTime};

use crate::domain::identity::anchors::Trust;
use crate::domain::identity::{Mapping, Naming, Subject};
use crate::domain::time::{Millis, Wall};
use crate::tls::{Identity, Snapshot, WallClock};

pub(super) type Chain = Vec<CertificateDer<'static>>;

/// The moment at which a test begins.
pub(super) const NOW: Wall = Wall::from_millis(1_800_000_000_000);

/// A clock that a test moves.
#[derive(Debug)]
pub(super) struct Clock(AtomicU64);

impl Clock {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(NOW.0)))
    }

    pub(super) fn pass(&self, length: Millis) {
        self.0.fetch_add(length.as_nanos(), Ordering::Relaxed);
    }
}

impl WallClock for Clock {
    fn now(&self) -> Wall {
        Wall(self.0.load(Ordering::Relaxed))
    }
}

/// A site's authority.
pub(super) struct Site {
    name: &'static str,
    pub(super) authority: CertifiedIssuer<'static, KeyPair>,
}

impl Site {
    pub(super) fn new(name: &'static str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = named(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.subject_alt_names = vec![uri("spiffe://trust")];
        params.not_before = moment(Duration::days(-1));
        params.not_after = moment(Duration::days(9));
        let authority = CertifiedIssuer::self_signed(params, key()).expect("an authority");
        Self { name, authority }
    }

    pub(super) fn anchor(&self) -> CertificateDer<'static> {
        self.authority.der().clone()
    }

    /// A certificate that holds for an hour, changed in one respect.
    pub(super) fn issue(
        &self,
        path: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> (Chain, PrivateKeyDer<'static>) {
        let mut params = CertificateParams::default();
        params.distinguished_name = named(path);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = vec![uri(&format!("spiffe://trust/{path}"))];
        params.not_before = moment(Duration::hours(-1));
        params.not_after = moment(Duration::hours(1));
        change(&mut params);
        let key = key();
        let certificate = params.signed_by(&key, &self.authority).expect("a certificate");
        (vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
    }

    /// A node of this site that trusts these sites.
    pub(super) fn snapshot(&self, name: &str, trusted: &[&Self]) -> Snapshot {
        let (chain, key) = self.issue(&format!("{}/runtime/{name}", self.name), |_| {});
        Snapshot::new(chain, key, trust(trusted), &self.subject(name), NOW).expect("a snapshot")
    }

    pub(super) fn node(&self, name: &str, trusted: &[&Self], clock: &Arc<Clock>) -> Arc<Identity> {
        Identity::new(self.snapshot(name, trusted), Arc::clone(clock) as Arc<dyn WallClock>)
    }

    pub(super) fn subject(&self, name: &str) -> Subject {
        Subject::of_runtime(&format!("{}/{name}", self.name).parse().expect("a runtime"))
    }
}

pub(super) fn naming() -> Naming {
    Naming { trust_domain: "trust".parse().expect("legal"), mapping: Mapping::PathSite }
}

pub(super) fn trust(sites: &[&Site]) -> Trust {
    let mut trust = Trust::new(naming());
    for site in sites {
        trust.set_anchors(site.name.parse().expect("a site"), &[site.anchor()]).expect("an anchor");
    }
    trust
}

pub(super) fn uri(text: &str) -> SanType {
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

fn moment(offset: Duration) -> OffsetDateTime {
    let seconds = i64::try_from(NOW.as_millis() / 1_000).expect("small");
    OffsetDateTime::from_unix_timestamp(seconds).expect("a moment").saturating_add(offset)
}
