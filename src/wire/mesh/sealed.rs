//! Sealing and opening: who signs, under which delegation, and what a receiver checks before it parses a payload.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::domain::audit::Hash;
use crate::domain::envelope::dsse::{self, PayloadType, PublicKey};
use crate::domain::envelope::{Envelope, Receipt};
use crate::domain::id::RuntimeId;
use crate::domain::identity::IdentityKey;
use crate::domain::time::Wall;
use crate::engine::input::Received;
use crate::engine::view::View;
use crate::engine::word::{Identity, Observation, Signer, Word};
use crate::wire::mesh::delegation::open_delegation;
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
    /// The certificate behind the delegation does not count here.
    #[error("bad_certificate")]
    BadCertificate,
    /// The bytes do not have the documented shape.
    #[error("malformed")]
    Malformed,
    /// The content names another runtime than its signer.
    #[error("not_its_own_word")]
    NotItsOwnWord,
    /// Longer than such a message may be.
    #[error("too_large")]
    TooLarge,
}

impl Refusal {
    /// The label of the counter.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BadSignature => "bad_signature",
            Self::BadDelegation => "bad_delegation",
            Self::BadCertificate => "bad_certificate",
            Self::Malformed => "malformed",
            Self::NotItsOwnWord => "not_its_own_word",
            Self::TooLarge => "too_large",
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Outer<'a> {
    #[serde(rename = "payloadType", borrow)]
    pub(super) payload_type: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) payload: Cow<'a, str>,
    #[serde(borrow, deserialize_with = "only")]
    pub(super) signatures: [OuterSignature<'a>; 1],
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) delegation: Option<Cow<'a, str>>,
    /// In a delegation by a certificate's key: the certificate and those above it, each as base64 of its DER.
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    pub(super) chain: Vec<Cow<'a, str>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OuterSignature<'a> {
    #[serde(borrow)]
    pub(super) keyid: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) sig: Cow<'a, str>,
}

/// What a runtime signs with: its envelope key and the delegation that vouches for it.
#[derive(Debug, Clone)]
pub struct Keys {
    pub(super) envelope: IdentityKey,
    pub(super) delegation_text: String,
    pub(super) keyid: String,
    pub(super) signer: Signer,
}

impl Keys {
    /// This runtime as a signer.
    pub fn signer(&self) -> &Signer {
        &self.signer
    }
}

/// Signs a payload as this runtime.
pub fn seal(keys: &Keys, payload_type: PayloadType, payload: &[u8]) -> Vec<u8> {
    let signature = dsse::sign(&keys.envelope, payload_type, payload);
    let attached = Attached { delegation: Some(&keys.delegation_text), chain: &[] };
    write_outer(payload_type, payload, &keys.keyid, &signature, attached)
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

/// About what surrounds a signed payload takes, beside the attachments.
const OUTER_BYTES: usize = 512;

/// Writes what surrounds a signed payload.
pub(super) fn write_outer(
    payload_type: PayloadType,
    payload: &[u8],
    keyid: &str,
    signature: &[u8],
    attached: Attached<'_>,
) -> Vec<u8> {
    let payload = STANDARD.encode(payload);
    let attachments = attached.chain.iter().map(String::len).chain(attached.delegation.map(str::len));
    let bytes = attachments.fold(payload.len().saturating_add(OUTER_BYTES), usize::saturating_add);
    let outer = Outer {
        payload_type: payload_type.as_str().into(),
        payload: payload.into(),
        signatures: [OuterSignature { keyid: keyid.into(), sig: STANDARD.encode(signature).into() }],
        delegation: attached.delegation.map(Into::into),
        chain: attached.chain.iter().map(|it| it.as_str().into()).collect(),
    };
    body::write_within(bytes, &outer)
}

/// What proves the signing key, beside a signed payload.
#[derive(Clone, Copy, Default)]
pub(super) struct Attached<'a> {
    /// The delegation of an envelope key.
    pub(super) delegation: Option<&'a str>,
    /// The certificates of a certificate's key.
    pub(super) chain: &'a [String],
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
    open_within(MESSAGE_BYTES_MAX, view, (claimed, expected), bytes, now)
}

/// The same for a message of at most this many bytes.
pub(super) fn open_within(
    bytes_max: usize,
    view: &View,
    (claimed, expected): (&RuntimeId, PayloadType),
    bytes: &[u8],
    now: Wall,
) -> Result<Opened, Refusal> {
    if bytes.len() > bytes_max {
        return Err(Refusal::TooLarge);
    }
    let outer: Outer<'_> = body::read(bytes)?;
    if outer.payload_type != expected.as_str() || !outer.chain.is_empty() {
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
    if let Some(signer) = known.filter(|signer| signer.delegation_hash == named && still_holds(view, signer, now)) {
        return Ok(signer.clone());
    }
    let document = decode(outer.delegation.as_deref().ok_or(Refusal::BadDelegation)?)?;
    let signer = open_delegation(&document, view.settings.authority.as_ref(), now)?;
    if signer.runtime() != claimed || signer.delegation_hash != named {
        return Err(Refusal::BadDelegation);
    }
    Ok(signer)
}

/// Whether what was checked once still counts: no chain is checked again while nothing has changed.
fn still_holds(view: &View, signer: &Signer, now: Wall) -> bool {
    view.settings.vouches_still(signer, now) && signer.delegation.holds_at(now)
}

pub(super) fn check_signature(
    key: &PublicKey,
    payload_type: PayloadType,
    payload: &[u8],
    outer: &Outer<'_>,
) -> Result<(), Refusal> {
    let [signature] = &outer.signatures;
    let signature: [u8; 64] = decode(&signature.sig)?.try_into().map_err(|_length| Refusal::Malformed)?;
    key.verify(payload_type, payload, &signature).map_err(|_bad| Refusal::BadSignature)
}

pub(super) fn decode(text: &str) -> Result<Vec<u8>, Refusal> {
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
    let is_target = view.is_by(target, &signer);
    let content: body::Receipt = body::read(&payload)?;
    let receipt = Receipt::try_from(content)?;
    if !is_target || receipt.target != *target || receipt.origin != *view.me() || receipt.envelope != envelope {
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
        PayloadType::Action
        | PayloadType::Bundle
        | PayloadType::Countersignature
        | PayloadType::Delegation
        | PayloadType::Echo
        | PayloadType::Head
        | PayloadType::Pointers
        | PayloadType::PointersAsked
        | PayloadType::Receipt
        | PayloadType::Renewal
        | PayloadType::Renewed
        | PayloadType::RunAnswer
        | PayloadType::RunAsked => return Err(Refusal::Malformed),
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
