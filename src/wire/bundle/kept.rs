//! What a node keeps of a partner's bundle, version 1: the bundle itself and what confirms it, in one file of the state folder.

use serde_json::{Map, Value as Json, json};

use crate::domain::id::SiteId;
use crate::domain::identity::TrustDomain;
use crate::domain::identity::bundle::Taken;
use crate::domain::time::Wall;
use crate::wire::bundle::jwks::{Malformed, from_object, malformed, read_object, to_json};
use crate::wire::bundle::signed::{SIGNED_BYTES_MAX, parsed};

const VERSION: u64 = 1;

/// The bytes of what is kept for a site.
pub fn write(site: &SiteId, trust_domain: &TrustDomain, taken: &Taken) -> Result<Vec<u8>, Malformed> {
    let millis = |at: Option<Wall>| at.map(Wall::as_millis);
    let value = json!({
        "version": VERSION,
        "site": site.as_str(),
        "trust_domain": trust_domain.as_str(),
        "bundle": to_json(&taken.bundle)?,
        "confirmed_ms": taken.confirmed.as_millis(),
        "endpoint_at_ms": millis(taken.endpoint_at),
        "file_expires_ms": millis(taken.file_expires),
    });
    let mut text = format!("{value:#}").into_bytes();
    text.push(b'\n');
    Ok(text)
}

/// Reads what is kept for this site; what is another's is refused, as after a file was copied by hand.
pub fn read(bytes: &[u8], site: &SiteId, trust_domain: &TrustDomain) -> Result<Taken, Malformed> {
    let object = read_object(bytes, SIGNED_BYTES_MAX)?;
    if object.get("version").and_then(Json::as_u64) != Some(VERSION) {
        return Err(malformed(format!("wanted version {VERSION}")));
    }
    let (named, domain): (SiteId, TrustDomain) = (parsed(&object, "site")?, parsed(&object, "trust_domain")?);
    if named != *site || domain != *trust_domain {
        return Err(malformed(format!("it is that of {named} in {domain}, wanted {site} in {trust_domain}")));
    }
    let bundle = object.get("bundle").and_then(Json::as_object).ok_or_else(|| malformed("wanted \"bundle\""))?;
    Ok(Taken {
        bundle: from_object(bundle)?,
        confirmed: moment(&object, "confirmed_ms")?.ok_or_else(|| malformed("wanted \"confirmed_ms\""))?,
        endpoint_at: moment(&object, "endpoint_at_ms")?,
        file_expires: moment(&object, "file_expires_ms")?,
    })
}

fn moment(object: &Map<String, Json>, name: &str) -> Result<Option<Wall>, Malformed> {
    match object.get(name) {
        None | Some(Json::Null) => Ok(None),
        Some(value) => {
            let millis = value.as_u64().ok_or_else(|| malformed(format!("wanted Unix milliseconds in {name:?}")))?;
            Ok(Some(Wall::from_millis(millis)))
        }
    }
}
