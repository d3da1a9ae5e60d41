//! Whose certificates count here, as one value with a name of its own: what was checked under one name holds only under it.

use std::fmt;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use webpki::EndEntityCert;

use crate::domain::audit::Hash;
use crate::domain::id::RuntimeId;
use crate::domain::identity::Fingerprint;
use crate::domain::identity::anchors::{Refusal, Trust, Usage};
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
        let name = Hash::of(format!("{trust:?}").as_bytes());
        Self { trust: Arc::new(trust), name }
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
