//! Audit records as canonical bytes, and the check that a chain of them is whole.
//!
//! The bytes are JSON with a fixed order of fields and no white space; a record's hash covers exactly these bytes, so that
//! a chain can be checked with nothing but SHA-256 and the exported lines.

use std::borrow::Cow;
use std::fmt::{self, Display};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Error;
use crate::domain::audit::{Draft, Entry, GENESIS, Hash, Outcome, Position};
use crate::domain::time::Wall;

/// The name of this form in error messages.
const KIND: &str = "audit";

/// The end of a chain, or of the part of it that is no longer kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// The last record's number, 0 before the first.
    pub seq: u64,
    /// The last record's hash, [`GENESIS`] before the first.
    pub hash: Hash,
}

impl Anchor {
    /// Before the first record of all.
    pub const START: Self = Self { seq: 0, hash: GENESIS };
}

impl Display for Anchor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.seq, self.hash)
    }
}

impl From<Position> for Anchor {
    fn from(position: Position) -> Self {
        Self { seq: position.seq, hash: position.hash }
    }
}

/// The first record that does not continue its chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("record {seq}: {reason}")]
pub struct Broken {
    /// Which record, counted from the anchor: the number it should have.
    pub seq: u64,
    /// What was wanted and got.
    pub reason: String,
}

/// The order of the fields is the order of the canonical bytes.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body<'a> {
    seq: u64,
    #[serde(borrow)]
    audit_id: Cow<'a, str>,
    timestamp_ns: u64,
    #[serde(borrow)]
    actor: Cow<'a, str>,
    actor_verified: bool,
    #[serde(borrow)]
    origin: Cow<'a, str>,
    #[serde(borrow)]
    action: Cow<'a, str>,
    #[serde(borrow)]
    target: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    request_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    outcome: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    code: Option<Cow<'a, str>>,
    #[serde(borrow)]
    detail: Cow<'a, str>,
    #[serde(borrow)]
    policy_hash: Cow<'a, str>,
    #[serde(borrow)]
    prev_hash: Cow<'a, str>,
}

/// The bytes that a record's hash covers.
pub fn canonical(draft: &Draft, seq: u64, previous: Hash) -> Result<Vec<u8>, Error> {
    let body = Body {
        seq,
        audit_id: draft.audit_id.to_string().into(),
        timestamp_ns: draft.at.0,
        actor: draft.actor.as_str().into(),
        actor_verified: draft.actor_verified,
        origin: draft.origin.to_string().into(),
        action: draft.action.as_str().into(),
        target: draft.target.to_string().into(),
        request_id: draft.request_id.as_ref().map(|id| id.as_str().into()),
        outcome: draft.outcome.as_str().into(),
        code: draft.code.map(|code| code.as_str().into()),
        detail: draft.detail.as_str().into(),
        policy_hash: draft.policy_hash.to_string().into(),
        prev_hash: previous.to_string().into(),
    };
    serde_json::to_vec(&body).map_err(|error| Error::new(KIND, &seq.to_string(), error))
}

/// Gives a draft its place after the end of a chain: the place, and the canonical bytes.
pub fn place(draft: &Draft, end: Anchor) -> Result<(Position, Vec<u8>), Error> {
    let seq = end.seq.saturating_add(1);
    let bytes = canonical(draft, seq, end.hash)?;
    Ok((Position { seq, previous: end.hash, hash: Hash::chain(end.hash, &bytes) }, bytes))
}

/// Reads a record back. Bytes that are not canonical are refused, so that what is shown is what was hashed; whether the
/// hash fits is the business of [`Verifier`].
pub fn decode(bytes: &[u8], hash: Hash) -> Result<Entry, Error> {
    let body: Body<'_> = serde_json::from_slice(bytes).map_err(|error| Error::new(KIND, "", error))?;
    let key = body.seq.to_string();
    let draft = Draft {
        audit_id: field(&key, "audit_id", &body.audit_id)?,
        at: Wall(body.timestamp_ns),
        actor: body.actor.into_owned(),
        actor_verified: body.actor_verified,
        origin: field(&key, "origin", &body.origin)?,
        action: body.action.into_owned(),
        target: field(&key, "target", &body.target)?,
        request_id: body.request_id.map(|text| field(&key, "request_id", &text)).transpose()?,
        outcome: outcome(&key, &body.outcome)?,
        code: body.code.map(|text| field(&key, "code", &text)).transpose()?,
        detail: body.detail.into_owned(),
        policy_hash: field(&key, "policy_hash", &body.policy_hash)?,
    };
    let position = Position { seq: body.seq, previous: field(&key, "prev_hash", &body.prev_hash)?, hash };
    if canonical(&draft, position.seq, position.previous)? != bytes {
        return Err(Error::new(KIND, &key, "wanted the canonical order and spelling of fields"));
    }
    Ok(Entry { draft, position })
}

fn field<T: FromStr<Err: Display>>(key: &str, name: &str, text: &str) -> Result<T, Error> {
    text.parse().map_err(|error| Error::new(KIND, key, format!("{name}: {error}")))
}

fn outcome(key: &str, text: &str) -> Result<Outcome, Error> {
    text.parse().map_err(|()| Error::new(KIND, key, "outcome: wanted a known outcome"))
}

/// Follows a chain record by record.
#[derive(Debug, Clone, Copy)]
pub struct Verifier {
    end: Anchor,
}

impl Verifier {
    /// Begins after what is no longer kept, or at [`Anchor::START`].
    pub const fn after(anchor: Anchor) -> Self {
        Self { end: anchor }
    }

    /// The last record that held.
    pub const fn end(&self) -> Anchor {
        self.end
    }

    /// Checks that a record continues the chain, and reads it.
    pub fn follow(&mut self, bytes: &[u8], stored: Hash) -> Result<Entry, Broken> {
        let seq = self.end.seq.saturating_add(1);
        let broken = |reason: String| Broken { seq, reason };
        let entry = decode(bytes, stored).map_err(|error| broken(error.reason))?;
        if entry.position.seq != seq {
            return Err(broken(format!("wanted seq {seq}, got {}", entry.position.seq)));
        }
        if entry.position.previous != self.end.hash {
            return Err(broken(format!("wanted prev_hash {}, got {}", self.end.hash, entry.position.previous)));
        }
        let hash = Hash::chain(self.end.hash, bytes);
        if hash != stored {
            return Err(broken(format!("wanted hash {hash}, got {stored}")));
        }
        self.end = Anchor { seq, hash };
        Ok(entry)
    }
}

/// Checks a whole chain of canonical bytes with their stored hashes: where it ends, or the first broken record.
pub fn verify_chain<B: AsRef<[u8]>>(
    anchor: Anchor,
    records: impl IntoIterator<Item = (B, Hash)>,
) -> Result<Anchor, Broken> {
    let mut verifier = Verifier::after(anchor);
    for (bytes, hash) in records {
        verifier.follow(bytes.as_ref(), hash)?;
    }
    Ok(verifier.end())
}
