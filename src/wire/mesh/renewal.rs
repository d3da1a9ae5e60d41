//! A node asks for its next certificate, and the node that holds the site's authority answers.
//!
//! The question is signed by the key of the certificate in force, which comes with it: that is the proof. The answer is sealed
//! like every other message, and the certificate in it proves itself.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use super::body;
use super::delegation::CertificateKey;
use super::sealed::{Attached, Keys, Opened, Outer, Refusal, decode, open, seal, write_outer};
use crate::domain::audit::Hash;
use crate::domain::envelope::SKEW;
use crate::domain::envelope::dsse::{self, PayloadType};
use crate::domain::id::RuntimeId;
use crate::domain::identity::anchors::CHAIN_MAX;
use crate::domain::time::Wall;
use crate::engine::view::View;
use crate::wire::mesh::MESSAGE_BYTES_MAX;

/// A question whose maker has the key of a certificate in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewal {
    /// Who asks: the runtime that the certificate names.
    pub runtime: RuntimeId,
    /// The certificate in force.
    pub certificate: CertificateDer<'static>,
    /// Names the question.
    pub digest: Hash,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Renewed {
    /// The next certificate.
    Issued(CertificateDer<'static>),
    /// None, for this reason.
    Refused(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RenewalBody {
    issuer: String,
    at_ns: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RenewedBody {
    /// SHA-256 of the question as it was signed.
    renewal: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    certificate: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
}

/// Asks by a certificate's key. Gives the hash of the signed bytes too. `None` where the key does not sign.
pub fn seal_renewal(certificate: &CertificateKey<'_>, issuer: &RuntimeId, now: Wall) -> Option<(Vec<u8>, Hash)> {
    let payload = body::write(&RenewalBody { issuer: issuer.to_string(), at_ns: now.0 });
    let signature = (certificate.sign)(&dsse::pre_authentication_encoding(PayloadType::Renewal, &payload))?;
    let chain: Vec<_> = certificate.chain.iter().map(|it| STANDARD.encode(it)).collect();
    let attached = Attached { delegation: None, chain: &chain };
    let sealed = write_outer(PayloadType::Renewal, &payload, &certificate.key.to_string(), &signature, attached);
    Some((sealed, Hash::of(&payload)))
}

/// Opens a question to this runtime: of this moment, by the key of a certificate that holds here, of a runtime of this site.
pub fn open_renewal(view: &View, claimed: &RuntimeId, bytes: &[u8], now: Wall) -> Result<Renewal, Refusal> {
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(Refusal::TooLarge);
    }
    let outer: Outer<'_> = body::read(bytes)?;
    let has_chain = (1..=CHAIN_MAX).contains(&outer.chain.len());
    if outer.payload_type != PayloadType::Renewal.as_str() || outer.delegation.is_some() || !has_chain {
        return Err(Refusal::Malformed);
    }
    let payload = decode(&outer.payload)?;
    let chain: Vec<_> = outer.chain.iter().map(|it| decode(it).map(CertificateDer::from)).collect::<Result<_, _>>()?;
    let [signature] = &outer.signatures;
    let message = dsse::pre_authentication_encoding(PayloadType::Renewal, &payload);
    let authority = view.settings.authority.as_ref().ok_or(Refusal::BadCertificate)?;
    let proven = authority.prove(&chain, &message, &decode(&signature.sig)?, now);
    let runtime = proven.map_err(|_unproven| Refusal::BadCertificate)?.runtime;
    let question: RenewalBody = body::read(&payload)?;
    let at = Wall(question.at_ns);
    let is_of_now = now <= at.plus(SKEW) && at <= now.plus(SKEW);
    let is_ours = question.issuer == view.me().to_string() && runtime.site == view.me().site;
    let certificate = chain.into_iter().next().ok_or(Refusal::Malformed)?;
    if runtime == *claimed && is_ours && is_of_now {
        Ok(Renewal { runtime, certificate, digest: Hash::of(&payload) })
    } else {
        Err(Refusal::NotItsOwnWord)
    }
}

/// Seals the answer to a question.
pub fn seal_renewed(keys: &Keys, renewal: Hash, renewed: &Renewed) -> Vec<u8> {
    let (certificate, refused) = match renewed {
        Renewed::Issued(certificate) => (Some(STANDARD.encode(certificate)), None),
        Renewed::Refused(reason) => (None, Some(reason.clone())),
    };
    let body = RenewedBody { renewal: renewal.to_string(), certificate, refused };
    seal(keys, PayloadType::Renewed, &body::write(&body))
}

/// Opens the answer to the question with this hash.
pub fn open_renewed(
    view: &View,
    issuer: &RuntimeId,
    renewal: Hash,
    bytes: &[u8],
    now: Wall,
) -> Result<Renewed, Refusal> {
    let Opened { signer, payload } = open(view, issuer, PayloadType::Renewed, bytes, now)?;
    let is_issuer = view.is_by(issuer, &signer);
    let answer: RenewedBody = body::read(&payload)?;
    if !is_issuer || answer.renewal != renewal.to_string() {
        return Err(Refusal::NotItsOwnWord);
    }
    match (answer.certificate, answer.refused) {
        (Some(certificate), None) => Ok(Renewed::Issued(decode(&certificate)?.into())),
        (None, Some(reason)) => Ok(Renewed::Refused(reason)),
        (None, None) | (Some(_), Some(_)) => Err(Refusal::Malformed),
    }
}
