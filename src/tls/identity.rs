//! Who this process is and whom it trusts, as one snapshot that is changed as a whole.
//!
//! Key, certificate, anchors and bans change together, so that no handshake ever sees a new certificate with old anchors.
//! Connections that are open stay as they are: whoever owns one asks again with `Identity::recheck` after a change and before
//! `Verified::until`.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::SignatureScheme;
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::domain::identity::anchors::{Refusal, Trust, Usage, Verified};
use crate::domain::identity::{Bans, Subject};
use crate::domain::time::Wall;

/// Tells the wall time to handshakes.
pub trait WallClock: fmt::Debug + Send + Sync {
    /// The present moment.
    fn now(&self) -> Wall;
}

/// Why files do not make an identity together.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The key is not one that TLS can use.
    #[error("the private key cannot be used: {0}: make an ECDSA P-256 key")]
    Key(#[source] rustls::Error),
    /// The certificate is another key's.
    #[error("the certificate is not that of the private key: have one issued for this key, or install both anew")]
    Mismatch,
    /// The own anchors would refuse it, and so will every peer.
    #[error("{0}")]
    Refused(#[source] Refusal),
    /// It is somebody else's.
    #[error("the certificate is that of {got}, wanted {wanted}: install the right one, or change the settings' names")]
    Subject {
        /// Who this process is by its settings.
        wanted: Subject,
        /// Who the certificate says.
        got: Subject,
    },
}

/// One for each kind of key; `domain::identity::authority` checks by the same.
const SCHEMES: [SignatureScheme; 4] = [
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PSS_SHA256,
];

/// An identity and the trust in others that belongs to it.
#[derive(Debug, Clone)]
pub struct Snapshot {
    key: Arc<CertifiedKey>,
    own: Verified,
    trust: Trust,
}

impl Snapshot {
    /// Holds key, certificate, anchors and the own name against each other.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        trust: Trust,
        own: &Subject,
        now: Wall,
    ) -> Result<Self, IdentityError> {
        let verified = trust.verify_chain(&chain, now, Usage::Server).map_err(IdentityError::Refused)?;
        if verified.svid.subject != *own {
            return Err(IdentityError::Subject { wanted: own.clone(), got: verified.svid.subject });
        }
        let key = provider().key_provider.load_private_key(key).map_err(IdentityError::Key)?;
        let key = CertifiedKey::new(chain, key);
        // `CertifiedKey::from_der` lets pass what it cannot compare.
        key.keys_match().map_err(|_differ| IdentityError::Mismatch)?;
        Ok(Self { key: Arc::new(key), own: verified, trust })
    }

    /// The same identity with other trust in others. Refused if the own certificate is not vouched for by it, were it not over or
    /// shut out: such anchors are a mistake.
    pub fn trusting(&self, trust: Trust) -> Result<Self, Refusal> {
        let unbanned = Trust { bans: Bans::default(), ..trust.clone() };
        let in_its_time = Wall(self.own.until.0.saturating_sub(1));
        let own = unbanned.verify_chain(&self.key.cert, in_its_time, Usage::Server)?;
        Ok(Self { key: Arc::clone(&self.key), own, trust })
    }

    /// The own identity.
    pub fn own(&self) -> &Verified {
        &self.own
    }

    /// Whom it trusts.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// The own certificate and those that signed it.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.key.cert
    }

    /// Signs bytes by the own key, with the one algorithm that goes with its kind. `None` where the key does not sign.
    pub fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        self.key.key.choose_scheme(&SCHEMES)?.sign(message).ok()
    }

    pub(super) fn key(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.key)
    }
}

/// The identity in use. Cheap to read, changed by `swap`.
#[derive(Debug)]
pub struct Identity {
    snapshot: ArcSwap<Snapshot>,
    clock: Arc<dyn WallClock>,
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Who it is, and until when.
    pub verified: Verified,
    chain: Vec<CertificateDer<'static>>,
}

impl Peer {
    /// Whether it would be taken for who it is by this trust.
    pub fn recheck(&self, trust: &Trust, now: Wall) -> Result<(), Refusal> {
        trust.verify_chain(&self.chain, now, Usage::Client).map(|_still| ())
    }
}

impl Identity {
    /// Begins with a snapshot.
    pub fn new(snapshot: Snapshot, clock: Arc<dyn WallClock>) -> Arc<Self> {
        Arc::new(Self { snapshot: ArcSwap::from_pointee(snapshot), clock })
    }

    /// What is in use now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Uses another one from the next handshake on.
    pub fn swap(&self, snapshot: Snapshot) {
        self.snapshot.store(Arc::new(snapshot));
    }

    /// Who presents this chain by the rules in use, now.
    pub fn verify(&self, chain: &[CertificateDer<'_>], usage: Usage) -> Result<Verified, Refusal> {
        self.snapshot.load().trust.verify_chain(chain, self.clock.now(), usage)
    }

    /// Who called, from the certificates of a finished handshake; nobody if it presented none.
    pub fn caller(&self, certificates: Option<&[CertificateDer<'_>]>) -> Result<Option<Peer>, Refusal> {
        let Some(certificates) = certificates.filter(|it| !it.is_empty()) else { return Ok(None) };
        let verified = self.verify(certificates, Usage::Client)?;
        let chain = certificates.iter().map(|it| it.clone().into_owned()).collect();
        Ok(Some(Peer { verified, chain }))
    }

    /// The present moment, as handshakes see it.
    pub fn now(&self) -> Wall {
        self.clock.now()
    }
}

/// Makes our provider that of the process, for libraries that ask for none by name: the HTTP client does so even for plain
/// HTTP. The first to be installed stays.
pub fn install_provider() {
    if provider().install_default().is_err() {
        tracing::debug!("the process has a provider of cryptography already");
    }
}

/// The one provider of cryptography, named wherever one is needed: the default of the process is anybody's to set.
pub(super) fn provider() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}
