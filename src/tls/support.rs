//! What tests of TLS share, here and in the mesh: sites with an authority each, a clock that tests move, and a stranger.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use time::{Duration, OffsetDateTime};

use crate::domain::identity::anchors::Trust;
use crate::domain::identity::{Mapping, Naming, Subject};
use crate::domain::time::{Millis, Wall};
use crate::tls::identity::provider;
use crate::tls::{Identity, Snapshot, WallClock};

pub(crate) type Chain = Vec<CertificateDer<'static>>;

/// A certificate with its key.
pub(crate) type Proof = (Chain, PrivateKeyDer<'static>);

/// The moment at which a test begins.
pub(crate) const NOW: Wall = Wall::from_millis(1_800_000_000_000);

/// A clock that a test moves.
#[derive(Debug)]
pub(crate) struct Clock(AtomicU64);

impl Default for Clock {
    fn default() -> Self {
        Self(AtomicU64::new(NOW.0))
    }
}

impl Clock {
    pub(crate) fn pass(&self, length: Millis) {
        self.0.fetch_add(length.as_nanos(), Ordering::Relaxed);
    }
}

impl WallClock for Clock {
    fn now(&self) -> Wall {
        Wall(self.0.load(Ordering::Relaxed))
    }
}

/// A site's authority.
pub(crate) struct Site {
    name: &'static str,
    pub(crate) authority: CertifiedIssuer<'static, KeyPair>,
}

impl Site {
    pub(crate) fn new(name: &'static str) -> Self {
        Self::ending(name, 9)
    }

    /// One that ends so many days after the test begins.
    pub(crate) fn ending(name: &'static str, days: i64) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = named(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.subject_alt_names = vec![uri("spiffe://trust")];
        params.not_before = after(Duration::days(-1));
        params.not_after = after(Duration::days(days));
        let authority = CertifiedIssuer::self_signed(params, key()).expect("an authority");
        Self { name, authority }
    }

    pub(crate) fn anchor(&self) -> CertificateDer<'static> {
        self.authority.der().clone()
    }

    /// A certificate that holds for an hour, changed in one respect.
    pub(crate) fn issue(&self, path: &str, change: impl FnOnce(&mut CertificateParams)) -> Proof {
        let mut params = CertificateParams::default();
        params.distinguished_name = named(path);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = vec![id(path)];
        params.not_before = after(Duration::hours(-1));
        params.not_after = after(Duration::hours(1));
        change(&mut params);
        let key = key();
        let certificate = params.signed_by(&key, &self.authority).expect("a certificate");
        (vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
    }

    /// A node of this site that trusts these sites.
    pub(crate) fn snapshot(&self, name: &str, trusted: &[&Self]) -> Snapshot {
        let (chain, key) = self.issue(&format!("{}/runtime/{name}", self.name), |_| {});
        Snapshot::new(chain, key, trust(trusted), &self.subject(name), NOW).expect("a snapshot")
    }

    pub(crate) fn node(&self, name: &str, trusted: &[&Self], clock: &Arc<Clock>) -> Arc<Identity> {
        Identity::new(self.snapshot(name, trusted), Arc::clone(clock) as Arc<dyn WallClock>)
    }

    pub(crate) fn subject(&self, name: &str) -> Subject {
        Subject::of_runtime(&format!("{}/{name}", self.name).parse().expect("a runtime"))
    }
}

pub(crate) fn naming() -> Naming {
    Naming { trust_domain: "trust".parse().expect("legal"), mapping: Mapping::PathSite }
}

pub(crate) fn trust(sites: &[&Site]) -> Trust {
    let mut trust = Trust::new(naming());
    for site in sites {
        trust.set_anchors(site.name.parse().expect("a site"), &[site.anchor()]).expect("an anchor");
    }
    trust
}

/// The id of whoever has this path in the trust domain of the tests.
pub(crate) fn id(path: &str) -> SanType {
    uri(&format!("spiffe://trust/{path}"))
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

/// So long after the moment at which a test begins.
pub(crate) fn after(offset: Duration) -> OffsetDateTime {
    let seconds = i64::try_from(NOW.as_millis() / 1_000).expect("small");
    OffsetDateTime::from_unix_timestamp(seconds).expect("a moment").saturating_add(offset)
}

/// Takes any server, presents anything, and remembers whom it met: a caller that keeps no rule.
#[derive(Debug, Default)]
pub(crate) struct Stranger {
    proof: Option<Arc<CertifiedKey>>,
    met: Mutex<Vec<u8>>,
}

impl Stranger {
    pub(crate) fn with(proof: Option<Proof>) -> Arc<Self> {
        let load = |(chain, key): Proof| {
            let key = provider().key_provider.load_private_key(key).expect("a key");
            Arc::new(CertifiedKey::new(chain, key))
        };
        Arc::new(Self { proof: proof.map(load), ..Self::default() })
    }

    pub(crate) fn config(self: &Arc<Self>) -> ClientConfig {
        let config = ClientConfig::builder_with_provider(Arc::new(provider()));
        let config = config.with_protocol_versions(&[&TLS13]).expect("a version").dangerous();
        let config = config.with_custom_certificate_verifier(Arc::clone(self) as Arc<dyn ServerCertVerifier>);
        config.with_client_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesClientCert>)
    }

    /// The certificate of whom it met last.
    pub(crate) fn met(&self) -> Vec<u8> {
        self.met.lock().expect("not poisoned").clone()
    }
}

impl ResolvesClientCert for Stranger {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.proof.clone()
    }

    fn has_certs(&self) -> bool {
        self.proof.is_some()
    }
}

impl ServerCertVerifier for Stranger {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.met.lock().expect("not poisoned") = end_entity.to_vec();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
