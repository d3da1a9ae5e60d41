//! A bundle on a stick: a DSSE envelope whose payload says whose bundle it is and until when it may be relied on.
//!
//! It is signed by the authority's own keys, all that it has at that moment: nobody below an authority may say who comes after
//! it, and whoever knows any of them can follow. The envelope is read first and the payload only after a signature, or a
//! person's word for its fingerprint, holds.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value as Json, json};

use crate::domain::envelope::dsse::{PayloadType, pre_authentication_encoding};
use crate::domain::id::SiteId;
use crate::domain::identity::anchors::ANCHORS_PER_SITE_MAX;
use crate::domain::identity::bundle::Bundle;
use crate::domain::identity::{Fingerprint, TrustDomain};
use crate::domain::time::Wall;
use crate::wire::bundle::jwks::{BUNDLE_BYTES_MAX, Malformed, from_object, malformed, read_object, to_json};

/// Longest accepted file: a bundle of the greatest size in base64, and its signatures.
pub const SIGNED_BYTES_MAX: usize = 384 * 1_024;

/// What an authority says of its own bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Whose it is.
    pub site: SiteId,
    /// The trust domain of that site's ids.
    pub trust_domain: TrustDomain,
    /// When it was signed.
    pub issued: Wall,
    /// Until when it may be relied on.
    pub expires: Wall,
    /// The bundle.
    pub bundle: Bundle,
}

/// A file whose signatures nobody has checked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    payload: Vec<u8>,
    signatures: Vec<Vec<u8>>,
}

impl Sealed {
    /// Reads the envelope and nothing of what is in it.
    pub fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let object = read_object(bytes, SIGNED_BYTES_MAX)?;
        let kind = PayloadType::Bundle.as_str();
        if object.get("payloadType").and_then(Json::as_str) != Some(kind) {
            return Err(malformed(format!("wanted a file of type {kind}")));
        }
        let decode = |value: Option<&Json>, name: &str| {
            let text = value.and_then(Json::as_str).ok_or_else(|| malformed(format!("wanted {name:?} in base64")))?;
            STANDARD.decode(text).map_err(|_other| malformed(format!("wanted {name:?} in base64")))
        };
        let signatures = object.get("signatures").and_then(Json::as_array);
        let signatures = signatures.filter(|all| (1..=ANCHORS_PER_SITE_MAX).contains(&all.len()));
        let signatures = signatures.ok_or_else(|| malformed("wanted 1 to 8 signatures"))?;
        let signatures: Result<_, _> = signatures.iter().map(|it| decode(it.get("sig"), "sig")).collect();
        Ok(Self { payload: decode(object.get("payload"), "payload")?, signatures: signatures? })
    }

    /// What people compare on the telephone: the whole content, not the keys alone.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of_der(&self.payload)
    }

    /// The bytes that were signed.
    pub fn message(&self) -> Vec<u8> {
        pre_authentication_encoding(PayloadType::Bundle, &self.payload)
    }

    /// The signatures, of whomever.
    pub fn signatures(&self) -> &[Vec<u8>] {
        &self.signatures
    }

    /// What it says. To be asked once a signature or the fingerprint holds.
    pub fn open(&self) -> Result<Statement, Malformed> {
        let object = read_object(&self.payload, BUNDLE_BYTES_MAX)?;
        let known = ["bundle", "expires", "issued", "site", "trust_domain"];
        if let Some(other) = object.keys().find(|key| !known.contains(&key.as_str())) {
            let other: String = other.chars().take(64).collect();
            return Err(malformed(format!("{other:?} is not known to this version")));
        }
        let bundle = object.get("bundle").and_then(Json::as_object).ok_or_else(|| malformed("wanted \"bundle\""))?;
        Ok(Statement {
            site: parsed(&object, "site")?,
            trust_domain: parsed(&object, "trust_domain")?,
            issued: moment(&object, "issued")?,
            expires: moment(&object, "expires")?,
            bundle: from_object(bundle)?,
        })
    }
}

pub(super) fn parsed<T: std::str::FromStr>(object: &Map<String, Json>, name: &str) -> Result<T, Malformed> {
    let text = object.get(name).and_then(Json::as_str).ok_or_else(|| malformed(format!("wanted a text {name:?}")))?;
    text.parse().map_err(|_other| malformed(format!("{name:?} is no such name")))
}

/// Unix seconds.
fn moment(object: &Map<String, Json>, name: &str) -> Result<Wall, Malformed> {
    let seconds = object.get(name).and_then(Json::as_u64);
    let seconds = seconds.ok_or_else(|| malformed(format!("wanted Unix seconds in {name:?}")))?;
    Ok(Wall::from_millis(seconds.saturating_mul(1_000)))
}

/// The bytes of a statement, and those of them that are signed.
pub fn payload(statement: &Statement) -> Result<(Vec<u8>, Vec<u8>), Malformed> {
    let seconds = |at: Wall| at.as_millis().wrapping_div(1_000);
    let value = json!({
        "site": statement.site.as_str(),
        "trust_domain": statement.trust_domain.as_str(),
        "issued": seconds(statement.issued),
        "expires": seconds(statement.expires),
        "bundle": to_json(&statement.bundle)?,
    });
    let payload = serde_json::to_vec(&value).map_err(|error| malformed(error.to_string()))?;
    let message = pre_authentication_encoding(PayloadType::Bundle, &payload);
    Ok((payload, message))
}

/// Puts payload and signatures into one file. A signature comes with the fingerprint of its key, for people.
pub fn seal(payload: &[u8], signatures: &[(Fingerprint, Vec<u8>)]) -> Vec<u8> {
    let signature =
        |(key, bytes): &(Fingerprint, Vec<u8>)| json!({ "keyid": key.to_string(), "sig": STANDARD.encode(bytes) });
    let signatures: Vec<Json> = signatures.iter().map(signature).collect();
    let kind = PayloadType::Bundle.as_str();
    let value = json!({ "payloadType": kind, "payload": STANDARD.encode(payload), "signatures": signatures });
    let mut text = format!("{value:#}").into_bytes();
    text.push(b'\n');
    text
}
