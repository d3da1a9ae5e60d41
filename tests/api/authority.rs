//! A site's authority, its node's listener and its people, around the hand-made fleet's moment.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::ClientConfig;
use rustls::crypto::ring::default_provider;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use time::{Duration, OffsetDateTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use trust_runtime::domain::identity::anchors::Trust;
use trust_runtime::domain::identity::authority::Authority;
use trust_runtime::domain::identity::{Ban, Mapping, Naming, Subject};
use trust_runtime::domain::time::{Millis, Wall};
use trust_runtime::tls::{self, ClientCertificates, Identity, Snapshot, WallClock};
use trust_runtime::web::Secure;

use crate::fleet::{Bench, NOW_NS};

/// How long a certificate of a person holds.
pub(crate) const HOLDS: Millis = Millis(1_000);

#[derive(Debug)]
struct Clock(AtomicU64);

impl WallClock for Clock {
    fn now(&self) -> Wall {
        Wall(self.0.load(Ordering::Relaxed))
    }
}

/// Callers live at the fleet's moment too, and never later.
#[derive(Debug)]
struct Then;

impl TimeProvider for Then {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_nanos(NOW_NS)))
    }
}

/// An authority with the identity of `site-1/a` by it.
pub(crate) struct Site {
    authority: CertifiedIssuer<'static, KeyPair>,
    own: (CertificateDer<'static>, PrivateKeyDer<'static>),
    trust: Mutex<Trust>,
    identity: Arc<Identity>,
    clock: Arc<Clock>,
}

impl Site {
    pub(crate) fn new() -> Self {
        let mut params = certificate("spiffe://trust", Duration::hours(1));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.extended_key_usages.clear();
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let mut params = certificate("spiffe://trust/site-1/runtime/a", Duration::minutes(30));
        params.subject_alt_names.push(SanType::IpAddress(IpAddr::from([127, 0, 0, 1])));
        let own = sign(&params, &authority);
        let mut trust = Trust::new(Naming { trust_domain: "trust".parse().unwrap(), mapping: Mapping::PathSite });
        trust.set_anchors("site-1".parse().unwrap(), &[authority.der().clone()]).unwrap();
        let clock = Arc::new(Clock(AtomicU64::new(NOW_NS)));
        let identity = Identity::new(snapshot(&own, &trust), Arc::clone(&clock) as Arc<dyn WallClock>);
        Self { authority, own, trust: Mutex::new(trust), identity, clock }
    }

    /// How the listener speaks TLS.
    pub(crate) fn secure(&self) -> Secure {
        let config = tls::server(&self.identity, ClientCertificates::Optional).unwrap();
        Secure { config, identity: Some(Arc::clone(&self.identity)), provisioned: None }
    }

    /// Gives the node the trust that its handshakes have.
    pub(crate) fn install(&self, bench: &Bench) {
        let authority = Some(Authority::new(self.trust.lock().unwrap().clone()));
        bench.node.change(|view| {
            let mut settings = view.settings.as_ref().clone();
            settings.authority = authority;
            view.settings = Arc::new(settings);
        });
    }

    /// Shuts somebody out, as a reload does: first whoever asks, then whoever shakes hands.
    pub(crate) fn ban(&self, bench: &Bench, id: &str) {
        self.begin_ban(bench, id);
        self.identity.swap(snapshot(&self.own, &self.trust.lock().unwrap()));
    }

    /// As far as a reload is when requests are judged by the new rules and handshakes by the old ones.
    pub(crate) fn begin_ban(&self, bench: &Bench, id: &str) {
        self.trust.lock().unwrap().bans.add(Ban::of_id(&id.parse().unwrap()));
        self.install(bench);
    }

    /// Moves both clocks of the node.
    pub(crate) fn pass(&self, bench: &Bench, length: Millis) {
        self.clock.0.fetch_add(length.as_nanos(), Ordering::Relaxed);
        bench.node.pass(length.0);
    }

    /// A caller with this person's certificate, or with none.
    pub(crate) fn caller(&self, person: Option<&str>) -> TlsConnector {
        let mut config: ClientConfig = tls::plain_client(vec![self.authority.der().clone()]).unwrap();
        config.time_provider = Arc::new(Then);
        if let Some(person) = person {
            let ends = Duration::milliseconds(i64::try_from(HOLDS.0).unwrap());
            let (chain, key) = sign(&certificate(&format!("spiffe://trust/site-1/{person}"), ends), &self.authority);
            config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(certified(&chain, &key)));
        }
        TlsConnector::from(Arc::new(config))
    }
}

/// Shakes hands on a connection to the node.
pub(crate) async fn shake(caller: &TlsConnector, stream: TcpStream) -> TlsStream<TcpStream> {
    let name = ServerName::IpAddress(IpAddr::from([127, 0, 0, 1]).into());
    caller.connect(name, stream).await.expect("a handshake")
}

fn certificate(id: &str, ends: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, id);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
    let now = OffsetDateTime::from_unix_timestamp_nanos(i128::from(NOW_NS)).unwrap();
    params.not_before = now - Duration::seconds(50);
    params.not_after = now + ends;
    params
}

fn sign(
    params: &CertificateParams,
    authority: &CertifiedIssuer<'static, KeyPair>,
) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    (certificate.der().clone(), PrivateKeyDer::Pkcs8(key.serialize_der().into()))
}

fn snapshot(own: &(CertificateDer<'static>, PrivateKeyDer<'static>), trust: &Trust) -> Snapshot {
    let subject = Subject::of_runtime(&"site-1/a".parse().unwrap());
    Snapshot::new(vec![own.0.clone()], own.1.clone_key(), trust.clone(), &subject, Wall(NOW_NS)).unwrap()
}

fn certified(chain: &CertificateDer<'static>, key: &PrivateKeyDer<'static>) -> CertifiedKey {
    let key = default_provider().key_provider.load_private_key(key.clone_key()).unwrap();
    CertifiedKey::new(vec![chain.clone()], key)
}
