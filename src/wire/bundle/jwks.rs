//! The SPIFFE bundle: a JWK Set whose entries carry certificates (SPIFFE Trust Domain and Bundle, section 4).
//!
//! Total: any bytes give a bundle or one sentence. Entries for another use are not ours to judge and are passed over; an entry
//! that is meant for certificates and cannot be read refuses the whole, so that no authority is lost by a slip.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls_pki_types::CertificateDer;
use serde_json::{Map, Value as Json, json};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

use crate::domain::identity::bundle::Bundle;
use crate::domain::time::Millis;
use crate::wire::api::v1::json::Object;

/// Longest accepted bundle in bytes: the most anchors of the greatest size, and as much again for other uses.
pub const BUNDLE_BYTES_MAX: usize = 256 * 1_024;
/// Most entries, those for other uses included.
pub const KEYS_MAX: usize = 64;

const USE: &str = "x509-svid";
const KEY_TYPES: [&str; 3] = ["EC", "OKP", "RSA"];

/// Why bytes are no bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a trust bundle: {0}")]
pub struct Malformed(pub(super) String);

pub(super) fn malformed(what: impl Into<String>) -> Malformed {
    Malformed(what.into())
}

/// Reads a bundle. Whether its certificates may be anchors is for `Taken::after` to say.
pub fn parse(bytes: &[u8]) -> Result<Bundle, Malformed> {
    read_object(bytes, BUNDLE_BYTES_MAX).and_then(|object| from_object(&object))
}

/// An object in which no name stands twice, at any depth. Depth is bounded by the reader (128).
pub(super) fn read_object(bytes: &[u8], most: usize) -> Result<Map<String, Json>, Malformed> {
    if most < bytes.len() {
        return Err(malformed(format!("wanted at most {most} bytes, got {}", bytes.len())));
    }
    serde_json::from_slice::<Object>(bytes).map(|object| object.0).map_err(|error| malformed(error.to_string()))
}

pub(super) fn from_object(object: &Map<String, Json>) -> Result<Bundle, Malformed> {
    let keys = object.get("keys").and_then(Json::as_array).ok_or_else(|| malformed("wanted a list \"keys\""))?;
    if KEYS_MAX < keys.len() {
        return Err(malformed(format!("wanted at most {KEYS_MAX} keys, got {}", keys.len())));
    }
    // The specification lets it be absent; without it nobody could tell an old bundle from a new one.
    let sequence = object.get("spiffe_sequence").and_then(Json::as_u64);
    let sequence = sequence.ok_or_else(|| malformed("wanted a whole number \"spiffe_sequence\""))?;
    let refresh_hint = match object.get("spiffe_refresh_hint") {
        None => None,
        Some(hint) => {
            let seconds = hint.as_u64().ok_or_else(|| malformed("wanted whole seconds in \"spiffe_refresh_hint\""))?;
            Some(Millis::from_secs(seconds))
        }
    };
    let mut authorities = Vec::new();
    for (index, key) in keys.iter().enumerate() {
        let at = |what| malformed(format!("key {}: {what}", index.saturating_add(1)));
        authorities.extend(certificate(key).map_err(at)?);
    }
    Ok(Bundle { sequence, refresh_hint, authorities })
}

/// The certificate of one entry; none where the entry is to be passed over (section 4.2).
fn certificate(key: &Json) -> Result<Option<CertificateDer<'static>>, &'static str> {
    let key = key.as_object().ok_or("wanted an object")?;
    let text = |name| key.get(name).and_then(Json::as_str);
    let is_ours = text("use") == Some(USE) && text("kty").is_some_and(|kind| KEY_TYPES.contains(&kind));
    let Some(chain) = key.get("x5c").filter(|_| is_ours) else { return Ok(None) };
    if key.contains_key("kid") {
        return Err("wanted no \"kid\" beside a certificate");
    }
    // Only the first counts (section 4.2.2).
    let first = chain.as_array().and_then(|chain| chain.first()).and_then(Json::as_str);
    let first = first.ok_or("wanted a certificate in \"x5c\"")?;
    let der = STANDARD.decode(first).map_err(|_other| "wanted base64 in \"x5c\"")?;
    Ok(Some(CertificateDer::from(der)))
}

/// Writes a bundle as every consumer of the specification reads it.
pub fn render(bundle: &Bundle) -> Result<Vec<u8>, Malformed> {
    let value = to_json(bundle)?;
    serde_json::to_vec_pretty(&value).map_err(|error| malformed(error.to_string()))
}

pub(super) fn to_json(bundle: &Bundle) -> Result<Json, Malformed> {
    let keys: Result<Vec<Json>, Malformed> = bundle.authorities.iter().map(entry).collect();
    let mut value = json!({ "keys": keys?, "spiffe_sequence": bundle.sequence });
    if let (Some(object), Some(hint)) = (value.as_object_mut(), bundle.refresh_hint) {
        object.insert("spiffe_refresh_hint".to_owned(), Json::from(hint.0.wrapping_div(1_000)));
    }
    Ok(value)
}

/// An entry has the key's own parameters beside its certificate (RFC 7517); some readers compare the two.
fn entry(der: &CertificateDer<'static>) -> Result<Json, Malformed> {
    let unreadable = || malformed("an authority's certificate cannot be read");
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_other| unreadable())?;
    let url = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let key = certificate.public_key().parsed().map_err(|_other| unreadable())?;
    let mut entry = match &key {
        PublicKey::EC(point) => {
            let (x, y) = coordinates(point.data()).ok_or_else(unreadable)?;
            let curve = if x.len() == 32 { "P-256" } else { "P-384" };
            json!({ "kty": "EC", "crv": curve, "x": url(x), "y": url(y) })
        }
        PublicKey::RSA(key) => {
            let whole =
                |number: &[u8]| url(number.get(number.iter().take_while(|it| **it == 0).count()..).unwrap_or(&[]));
            json!({ "kty": "RSA", "n": whole(key.modulus), "e": whole(key.exponent) })
        }
        PublicKey::DSA(_) | PublicKey::GostR3410(_) | PublicKey::GostR3410_2012(_) | PublicKey::Unknown(_) => {
            return Err(malformed("an authority's key is neither on P-256 or P-384 nor of RSA"));
        }
    };
    if let Some(object) = entry.as_object_mut() {
        object.insert("use".to_owned(), Json::from(USE));
        object.insert("x5c".to_owned(), json!([STANDARD.encode(der)]));
    }
    Ok(entry)
}

/// The halves of an uncompressed point of P-256 or P-384.
fn coordinates(point: &[u8]) -> Option<(&[u8], &[u8])> {
    let (mark, both) = point.split_first()?;
    let half = both.len().wrapping_div(2);
    let is_known = *mark == 4 && matches!(both.len(), 64 | 96);
    is_known.then(|| both.split_at(half))
}
