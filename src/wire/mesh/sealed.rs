//! Sealing and opening: who signs, under which delegation, and what a receiver checks before it parses a payload.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::domain::audit::Hash;
use crate::domain::envelope::dsse::{self, PayloadType};
use crate::domain::envelope::{Delegation, Envelope, Receipt};
use crate::domain::id::RuntimeId;
use crate::domain::identity::{Fingerprint, IdentityKey};
use crate::domain::time::Wall;
use crate::engine::input::Received;
use crate::engine::view::View;
use crate::engine::word::{Identity, Observation, Signer, Word};
use crate::wire::mesh::{Echo, MESSAGE_BYTES_MAX, body};
use crate::wire::named::only;

/// Why a message was refused before its content counted. Each is a label of a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Refusal {
    /// The signature does not hold for these bytes and this key.
    #[error("bad_signature")]
    BadSignature,
    /// The delegation is absent, forged, for somebody else, or out of its time.
    #[error("bad_delegation")]
    BadDelegation,
    /// The bytes do not have the documented shape.
    #[error("malformed")]
    Malformed,
    /// The content names another runtime than its signer.
    #[error("not_its_own_word")]
    NotItsOwnWord,
    /// Longer than 64 KiB.
    #[error("too_large")]
    TooLarge,
}

impl Refusal {
    /// The label of the counter.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadSignature => "bad_signature",
            Self::BadDelegation => "bad_delegation",
            Self::Malformed => "malformed",
            Self::NotItsOwnWord => "not_its_own_word",
            Self::TooLarge => "too_large",
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Outer<'a> {
    #[serde(rename = "payloadType", borrow)]
    payload_type: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    payload: std::borrow::Cow<'a, str>,
    #[serde(borrow, deserialize_with = "only")]
    signatures: [OuterSignature<'a>; 1],
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    delegation: Option<std::borrow::Cow<'a, str>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OuterSignature<'a> {
    #[serde(borrow)]
    keyid: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    sig: std::borrow::Cow<'a, str>,
}

/// What a runtime signs with: its envelope key and the delegation that vouches for it.
#[derive(Debug, Clone)]
pub struct Keys {
    envelope: IdentityKey,
    delegation_text: String,
    keyid: String,
    signer: Signer,
}

impl Keys {
    /// This runtime as a signer.
    pub fn signer(&self) -> &Signer {
        &self.signer
    }
}

/// Lets the identity key vouch for an envelope key.
pub fn delegate(identity: &IdentityKey, envelope: IdentityKey, runtime: &RuntimeId, from: Wall, until: Wall) -> Keys {
    let delegation = Delegation {
        runtime: runtime.clone(),
        identity_key: identity.public().to_bytes(),
        envelope_key: envelope.public().to_bytes(),
        not_before: from,
        not_after: until,
    };
    let payload = body::write(&body::Delegation::from(&delegation));
    let document = sign_outer(identity, &identity.fingerprint().to_string(), None, PayloadType::Delegation, &payload);
    let delegation_hash = Hash::of(&document);
    Keys {
        envelope,
        delegation_text: STANDARD.encode(&document),
        keyid: delegation_hash.to_string(),
        signer: Signer { delegation: Arc::new(delegation), delegation_hash, identity: identity.fingerprint() },
    }
}

/// Signs a payload as this runtime.
pub fn seal(keys: &Keys, payload_type: PayloadType, payload: &[u8]) -> Vec<u8> {
    sign_outer(&keys.envelope, &keys.keyid, Some(&keys.delegation_text), payload_type, payload)
}

/// Seals an action. Gives the hash of the signed bytes too, which its receipt must name.
pub fn seal_envelope(keys: &Keys, envelope: &Envelope) -> (Vec<u8>, Hash) {
    let payload = body::write(&body::Action::from(envelope));
    (seal(keys, PayloadType::Action, &payload), Hash::of(&payload))
}

/// Seals a receipt.
pub fn seal_receipt(keys: &Keys, receipt: &Receipt) -> Vec<u8> {
    seal(keys, PayloadType::Receipt, &body::write(&body::Receipt::from(receipt)))
}

/// Seals an identity document.
pub fn seal_identity(keys: &Keys, identity: &Identity) -> Vec<u8> {
    seal(keys, PayloadType::Identity, &body::write(&body::Identity::from(identity)))
}

/// Seals an observation.
pub fn seal_observation(keys: &Keys, observation: &Observation) -> Vec<u8> {
    seal(keys, PayloadType::Observation, &body::write(&body::Observation::from(observation)))
}

/// Seals the answer to a probe.
pub fn seal_echo(keys: &Keys, echo: &Echo) -> Vec<u8> {
    seal(keys, PayloadType::Echo, &body::write(echo))
}

fn sign_outer(
    key: &IdentityKey,
    keyid: &str,
    delegation: Option<&str>,
    payload_type: PayloadType,
    payload: &[u8],
) -> Vec<u8> {
    let signature = dsse::sign(key, payload_type, payload);
    body::write(&Outer {
        payload_type: payload_type.as_str().into(),
        payload: STANDARD.encode(payload).into(),
        signatures: [OuterSignature { keyid: keyid.into(), sig: STANDARD.encode(signature).into() }],
        delegation: delegation.map(Into::into),
    })
}

/// A message whose signature holds: who signed, and exactly the bytes that were signed.
#[derive(Debug, Clone)]
pub struct Opened {
    /// Who.
    pub signer: Signer,
    /// What.
    pub payload: Vec<u8>,
}

/// Checks size, shape, delegation and signature, cheapest first. `claimed` is who the key or the caller says it is from.
///
/// A delegation that this runtime already knows costs one signature check, an unknown one costs two.
pub fn open(
    view: &View,
    claimed: &RuntimeId,
    expected: PayloadType,
    bytes: &[u8],
    now: Wall,
) -> Result<Opened, Refusal> {
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(Refusal::TooLarge);
    }
    let outer: Outer<'_> = body::read(bytes)?;
    if outer.payload_type != expected.as_str() {
        return Err(Refusal::Malformed);
    }
    let signer = find_signer(view, claimed, &outer, now)?;
    let payload = decode(&outer.payload)?;
    check_signature(&signer.delegation.envelope_key, expected, &payload, &outer)?;
    Ok(Opened { signer, payload })
}

fn find_signer(view: &View, claimed: &RuntimeId, outer: &Outer<'_>, now: Wall) -> Result<Signer, Refusal> {
    let [signature] = &outer.signatures;
    let known = view.peers.get(claimed).and_then(|peer| peer.signer.as_ref());
    let named: Hash = signature.keyid.parse().map_err(|_not_hex| Refusal::Malformed)?;
    if let Some(signer) = known.filter(|signer| signer.delegation_hash == named && signer.delegation.holds_at(now)) {
        return Ok(signer.clone());
    }
    let document = decode(outer.delegation.as_deref().ok_or(Refusal::BadDelegation)?)?;
    let signer = open_delegation(&document, now)?;
    if signer.runtime() != claimed || signer.delegation_hash != named {
        return Err(Refusal::BadDelegation);
    }
    Ok(signer)
}

fn open_delegation(document: &[u8], now: Wall) -> Result<Signer, Refusal> {
    let outer: Outer<'_> = body::read(document)?;
    if outer.payload_type != PayloadType::Delegation.as_str() || outer.delegation.is_some() {
        return Err(Refusal::BadDelegation);
    }
    let payload = decode(&outer.payload)?;
    let content: body::Delegation = body::read(&payload)?;
    let delegation = Delegation::try_from(content)?;
    check_signature(&delegation.identity_key, PayloadType::Delegation, &payload, &outer)
        .map_err(|_bad| Refusal::BadDelegation)?;
    if !delegation.holds_at(now) {
        return Err(Refusal::BadDelegation);
    }
    let identity = Fingerprint(Hash::of(&delegation.identity_key).0);
    Ok(Signer { delegation: Arc::new(delegation), delegation_hash: Hash::of(document), identity })
}

fn check_signature(
    key: &[u8; 32],
    payload_type: PayloadType,
    payload: &[u8],
    outer: &Outer<'_>,
) -> Result<(), Refusal> {
    let [signature] = &outer.signatures;
    let signature: [u8; 64] = decode(&signature.sig)?.try_into().map_err(|_length| Refusal::Malformed)?;
    dsse::verify(key, payload_type, payload, &signature).map_err(|_bad| Refusal::BadSignature)
}

fn decode(text: &str) -> Result<Vec<u8>, Refusal> {
    STANDARD.decode(text).map_err(|_not_base64| Refusal::Malformed)
}

/// Opens an envelope from the runtime that the key names.
pub fn open_envelope(view: &View, claimed: &RuntimeId, bytes: &[u8], now: Wall) -> Result<Received, Refusal> {
    let Opened { signer, payload } = open(view, claimed, PayloadType::Action, bytes, now)?;
    let content: body::Action = body::read(&payload)?;
    Ok(Received { signer, envelope: Envelope::try_from(content)?, digest: Hash::of(&payload) })
}

/// Opens the receipt of an envelope that was sent to `target` with these payload bytes' hash.
pub fn open_receipt(
    view: &View,
    target: &RuntimeId,
    envelope: Hash,
    bytes: &[u8],
    now: Wall,
) -> Result<Receipt, Refusal> {
    let Opened { signer, payload } = open(view, target, PayloadType::Receipt, bytes, now)?;
    let is_pinned = view.peers.get(target).is_some_and(|peer| peer.pinned == signer.identity);
    let content: body::Receipt = body::read(&payload)?;
    let receipt = Receipt::try_from(content)?;
    if !is_pinned || receipt.target != *target || receipt.origin != *view.me() || receipt.envelope != envelope {
        return Err(Refusal::NotItsOwnWord);
    }
    Ok(receipt)
}

/// Opens a published document.
pub fn open_word(
    view: &View,
    claimed: &RuntimeId,
    payload_type: PayloadType,
    bytes: &[u8],
    now: Wall,
) -> Result<(Signer, Word), Refusal> {
    let Opened { signer, payload } = open(view, claimed, payload_type, bytes, now)?;
    let (runtime, word) = match payload_type {
        PayloadType::Identity => {
            let identity = Identity::try_from(body::read::<body::Identity>(&payload)?)?;
            (identity.runtime.clone(), Word::Identity(identity))
        }
        PayloadType::Observation => {
            let observation = Observation::try_from(body::read::<body::Observation>(&payload)?)?;
            (observation.runtime.clone(), Word::Observation(observation))
        }
        PayloadType::Action | PayloadType::Delegation | PayloadType::Echo | PayloadType::Receipt => {
            return Err(Refusal::Malformed);
        }
    };
    if runtime == *signer.runtime() { Ok((signer, word)) } else { Err(Refusal::NotItsOwnWord) }
}

/// Opens the answer to the probe with this nonce.
pub fn open_echo(
    view: &View,
    claimed: &RuntimeId,
    nonce: &str,
    bytes: &[u8],
    now: Wall,
) -> Result<(Signer, Echo), Refusal> {
    let Opened { signer, payload } = open(view, claimed, PayloadType::Echo, bytes, now)?;
    let echo: Echo = body::read(&payload)?;
    if echo.nonce == nonce { Ok((signer, echo)) } else { Err(Refusal::NotItsOwnWord) }
}
