//! Why an envelope key may speak for a runtime: signed by the runtime's own key, or by the key of a certificate that its
//! site's authority has issued.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;

use crate::domain::audit::Hash;
use crate::domain::envelope::dsse::{self, PayloadType, PublicKey};
use crate::domain::envelope::{Delegation, Voucher};
use crate::domain::id::RuntimeId;
use crate::domain::identity::anchors::CHAIN_MAX;
use crate::domain::identity::authority::{Authority, Vouched};
use crate::domain::identity::{Fingerprint, IdentityKey};
use crate::domain::time::Wall;
use crate::engine::word::Signer;
use crate::wire::mesh::body;
use crate::wire::mesh::sealed::{Attached, Keys, Outer, Refusal, check_signature, decode, write_outer};

/// Lets the identity key vouch for an envelope key.
pub fn delegate(identity: &IdentityKey, envelope: IdentityKey, runtime: &RuntimeId, from: Wall, until: Wall) -> Keys {
    let voucher = Voucher::Key(identity.public().to_bytes());
    let delegation = delegation(voucher, &envelope, runtime, from, until);
    let payload = body::write(&body::Delegation::from(&delegation));
    let signature = dsse::sign(identity, PayloadType::Delegation, &payload);
    keys(envelope, delegation, &payload, &signature, &[])
}

/// A certificate's key as it signs: the key's name, the chain that proves it, and the signing itself.
pub struct CertificateKey<'a> {
    /// SHA-256 of the public key with its algorithm.
    pub key: Fingerprint,
    /// The certificate first.
    pub chain: &'a [CertificateDer<'static>],
    /// Signs bytes with the one algorithm that goes with the key (see `domain::identity::authority`).
    pub sign: &'a dyn Fn(&[u8]) -> Option<Vec<u8>>,
}

impl fmt::Debug for CertificateKey<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "CertificateKey({})", self.key)
    }
}

/// Lets a certificate's key vouch for an envelope key. `None` where the key does not sign.
pub fn delegate_by_certificate(
    certificate: &CertificateKey<'_>,
    envelope: IdentityKey,
    runtime: &RuntimeId,
    from: Wall,
    until: Wall,
) -> Option<Keys> {
    let delegation = delegation(Voucher::Certificate(certificate.key), &envelope, runtime, from, until);
    let payload = body::write(&body::Delegation::from(&delegation));
    let signature = (certificate.sign)(&dsse::pre_authentication_encoding(PayloadType::Delegation, &payload))?;
    let chain: Vec<_> = certificate.chain.iter().map(|it| STANDARD.encode(it)).collect();
    Some(keys(envelope, delegation, &payload, &signature, &chain))
}

fn delegation(
    voucher: Voucher,
    envelope: &IdentityKey,
    runtime: &RuntimeId,
    not_before: Wall,
    not_after: Wall,
) -> Delegation {
    let envelope_key = PublicKey::new(envelope.public().to_bytes());
    Delegation { runtime: runtime.clone(), voucher, envelope_key, not_before, not_after }
}

fn keys(envelope: IdentityKey, delegation: Delegation, payload: &[u8], signature: &[u8], chain: &[String]) -> Keys {
    let identity = delegation.voucher.fingerprint();
    let attached = Attached { delegation: None, chain };
    let document = write_outer(PayloadType::Delegation, payload, &identity.to_string(), signature, attached);
    let delegation_hash = Hash::of(&document);
    Keys {
        envelope,
        delegation_text: STANDARD.encode(&document),
        keyid: delegation_hash.to_string(),
        // Nobody checks its own chain: others do.
        signer: Signer { delegation: Arc::new(delegation), delegation_hash, identity, vouched: None },
    }
}

/// Checks a delegation that is not known yet, cheapest first.
pub(super) fn open_delegation(document: &[u8], authority: Option<&Authority>, now: Wall) -> Result<Signer, Refusal> {
    let outer: Outer<'_> = body::read(document)?;
    if outer.payload_type != PayloadType::Delegation.as_str() || outer.delegation.is_some() {
        return Err(Refusal::BadDelegation);
    }
    let payload = decode(&outer.payload)?;
    let delegation = Delegation::try_from(body::read::<body::Delegation>(&payload)?)?;
    if !delegation.holds_at(now) {
        return Err(Refusal::BadDelegation);
    }
    let vouched = match &delegation.voucher {
        Voucher::Key(key) if outer.chain.is_empty() => {
            check_signature(&PublicKey::new(*key), PayloadType::Delegation, &payload, &outer)
                .map_err(|_bad| Refusal::BadDelegation)?;
            None
        }
        Voucher::Key(_) => return Err(Refusal::BadDelegation),
        Voucher::Certificate(_) => Some(check_certificate(&delegation, &payload, &outer, authority, now)?),
    };
    let identity = delegation.voucher.fingerprint();
    Ok(Signer { delegation: Arc::new(delegation), delegation_hash: Hash::of(document), identity, vouched })
}

/// The certificate is the runtime's own, its chain holds here, and its key signed this payload.
fn check_certificate(
    delegation: &Delegation,
    payload: &[u8],
    outer: &Outer<'_>,
    authority: Option<&Authority>,
    now: Wall,
) -> Result<Vouched, Refusal> {
    let authority = authority.ok_or(Refusal::BadCertificate)?;
    if outer.chain.len() > CHAIN_MAX {
        return Err(Refusal::BadCertificate);
    }
    let chain: Vec<_> = outer.chain.iter().map(|it| decode(it).map(CertificateDer::from)).collect::<Result<_, _>>()?;
    let [signature] = &outer.signatures;
    let signature = decode(&signature.sig)?;
    let message = dsse::pre_authentication_encoding(PayloadType::Delegation, payload);
    #[cfg(test)]
    dsse::tally::count_chain();
    let proven = authority.prove(&chain, &message, &signature, now).map_err(|_unproven| Refusal::BadCertificate)?;
    let is_its_own = proven.runtime == delegation.runtime && Voucher::Certificate(proven.key) == delegation.voucher;
    if is_its_own { Ok(proven.vouched) } else { Err(Refusal::BadCertificate) }
}
