//! DSSE 1.0.2: signatures over bytes, never over parsed structures (`PAE = "DSSEv1" SP len SP type SP len SP body`).
//!
//! The payload type says what the bytes are, so that a receipt can never be taken for an envelope. Verification is
//! `verify_strict` only, which refuses small-order keys and malleable signatures.

use ed25519_dalek::{Signature, VerifyingKey};

use crate::domain::identity::IdentityKey;

/// What signed bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PayloadType {
    /// One action for one target.
    Action,
    /// A site's trust bundle, signed by its authority.
    Bundle,
    /// What a witness says to the head of a log.
    Countersignature,
    /// An identity key's word for an envelope key.
    Delegation,
    /// The answer to a probe.
    Echo,
    /// The head of a runtime's log of writes, shown to a witness.
    Head,
    /// A runtime's identity document.
    Identity,
    /// A runtime's observation of itself and its links.
    Observation,
    /// A page of a runtime's pointers to its runs.
    Pointers,
    /// A runtime asks another for its pointers.
    PointersAsked,
    /// A target's answer.
    Receipt,
    /// A certificate's key asks for the next certificate.
    Renewal,
    /// The answer to that.
    Renewed,
    /// What a run's owner says of it.
    RunAnswer,
    /// An actor's question about a run.
    RunAsked,
}

impl PayloadType {
    /// Every type.
    pub const ALL: [Self; 15] = [
        Self::Action,
        Self::Bundle,
        Self::Countersignature,
        Self::Delegation,
        Self::Echo,
        Self::Head,
        Self::Identity,
        Self::Observation,
        Self::Pointers,
        Self::PointersAsked,
        Self::Receipt,
        Self::Renewal,
        Self::Renewed,
        Self::RunAnswer,
        Self::RunAsked,
    ];

    /// The media type that is signed with the bytes.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Action => "application/vnd.trust-runtime.action.v1+json",
            Self::Bundle => "application/vnd.trust-runtime.bundle.v1+json",
            Self::Countersignature => "application/vnd.trust-runtime.countersignature.v1+json",
            Self::Delegation => "application/vnd.trust-runtime.delegation.v1+json",
            Self::Echo => "application/vnd.trust-runtime.echo.v1+json",
            Self::Head => "application/vnd.trust-runtime.head.v1+json",
            Self::Identity => "application/vnd.trust-runtime.identity.v1+json",
            Self::Observation => "application/vnd.trust-runtime.observation.v1+json",
            Self::Pointers => "application/vnd.trust-runtime.pointers.v1+json",
            Self::PointersAsked => "application/vnd.trust-runtime.pointers-asked.v1+json",
            Self::Receipt => "application/vnd.trust-runtime.receipt.v1+json",
            Self::Renewal => "application/vnd.trust-runtime.renewal.v1+json",
            Self::Renewed => "application/vnd.trust-runtime.renewed.v1+json",
            Self::RunAnswer => "application/vnd.trust-runtime.run-answer.v1+json",
            Self::RunAsked => "application/vnd.trust-runtime.run-asked.v1+json",
        }
    }
}

/// A signature that does not hold, without a hint why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not verify")]
pub struct BadSignature;

/// The bytes that are signed.
pub fn pre_authentication_encoding(payload_type: PayloadType, payload: &[u8]) -> Vec<u8> {
    let name = payload_type.as_str();
    let head = format!("DSSEv1 {} {name} {} ", name.len(), payload.len());
    let mut bytes = Vec::with_capacity(head.len().saturating_add(payload.len()));
    bytes.extend_from_slice(head.as_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Signs a payload.
pub fn sign(key: &IdentityKey, payload_type: PayloadType, payload: &[u8]) -> [u8; 64] {
    #[cfg(test)]
    tally::count();
    key.sign(&pre_authentication_encoding(payload_type, payload))
}

/// A public key that checks many signatures: finding its point, a sixth of the cost of a check, is done once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey {
    bytes: [u8; 32],
    /// Absent where the bytes are no point: nothing verifies then.
    point: Option<VerifyingKey>,
}

impl PublicKey {
    /// The key with these bytes, whatever they are.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self { bytes, point: VerifyingKey::from_bytes(&bytes).ok() }
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// Checks a signature over exactly these bytes.
    pub fn verify(&self, payload_type: PayloadType, payload: &[u8], signature: &[u8; 64]) -> Result<(), BadSignature> {
        let signature = Signature::from_bytes(signature);
        let bytes = pre_authentication_encoding(payload_type, payload);
        let point = self.point.ok_or(BadSignature)?;
        #[cfg(test)]
        tally::count();
        point.verify_strict(&bytes, &signature).map_err(|_mismatch| BadSignature)
    }
}

/// How many signatures a test has made and checked on its thread, and for how many delegations a chain of certificates.
#[cfg(test)]
pub(crate) mod tally {
    use std::cell::Cell;

    thread_local!(static DONE: Cell<usize> = const { Cell::new(0) });
    thread_local!(static CHAINS: Cell<usize> = const { Cell::new(0) });

    pub(super) fn count() {
        DONE.set(DONE.get().saturating_add(1));
    }

    /// All of them so far.
    pub(crate) fn done() -> usize {
        DONE.get()
    }

    pub(crate) fn count_chain() {
        CHAINS.set(CHAINS.get().saturating_add(1));
    }

    /// All chains so far.
    pub(crate) fn chains() -> usize {
        CHAINS.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encoding_is_that_of_the_specification() {
        let bytes = pre_authentication_encoding(PayloadType::Echo, b"hello world");
        assert_eq!(bytes, b"DSSEv1 42 application/vnd.trust-runtime.echo.v1+json 11 hello world");
    }

    #[test]
    fn a_signature_holds_for_its_bytes_type_and_key_only() {
        let key = IdentityKey::from_seed([7; 32]);
        let public = key.public().to_bytes();
        let signature = sign(&key, PayloadType::Action, b"payload");
        assert_eq!(PublicKey::new(public).verify(PayloadType::Action, b"payload", &signature), Ok(()));
        assert_eq!(PublicKey::new(public).verify(PayloadType::Receipt, b"payload", &signature), Err(BadSignature));
        assert_eq!(PublicKey::new(public).verify(PayloadType::Action, b"payloae", &signature), Err(BadSignature));
        let other = IdentityKey::from_seed([8; 32]).public().to_bytes();
        assert_eq!(PublicKey::new(other).verify(PayloadType::Action, b"payload", &signature), Err(BadSignature));
        for index in 0..64 {
            let mut bent = signature;
            bent[index] ^= 1;
            assert_eq!(
                PublicKey::new(public).verify(PayloadType::Action, b"payload", &bent),
                Err(BadSignature),
                "byte {index}"
            );
        }
    }
}
