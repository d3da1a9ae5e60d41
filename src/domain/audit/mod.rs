//! Audit: hash-chained records of decisions and their outcomes.
//!
//! The engine makes **drafts**. Sequence, previous hash and hash are assigned by the store's writer alone, in the
//! transaction that makes the record durable (DESIGN, *Durability and cost of an action*). A `tree` over the records is what
//! a signed `checkpoint` commits to; `witness` judges whether a peer's log continues what it showed before, `cosignature` is
//! the word for it, and `evidence` holds a log against all of them. A checkpoint also states the `tail` of each chain that is
//! rotated; `rotated` holds such a chain against those.

mod checkpoint;
mod cosignature;
mod evidence;
mod note;
mod rotated;
mod tail;
mod tree;
pub mod witness;

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};
use ulid::Ulid;

use crate::domain::code::Code;
use crate::domain::id::{RequestId, RuntimeId};
use crate::domain::time::Wall;

pub use checkpoint::{Checkpoint, INTERVAL, NotACheckpoint, Occasion, RECORDS_MAX, TAILS_INTERVALS, is_due, log_name};
pub use cosignature::Countersigner;
pub use evidence::{Examiner, Fault, Findings, Held, Source, Verdict};
pub use note::{NoteError, NoteKey, Verifier};
pub use rotated::{Stated, TailExaminer};
pub use tail::{Rotated, Tail, Tails};
pub use tree::{Extension, Tree};

/// What the first record of a chain names as its predecessor.
pub const GENESIS: Hash = Hash([0; 32]);

/// Separates this use of SHA-256 from every other.
const CHAIN_CONTEXT: &[u8] = b"trust-runtime audit v1\0";

/// A record's name: a ULID, so that names sort by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AuditId(Ulid);

/// How many bits of a ULID are its own choice, and how many of them the nanoseconds within a millisecond take.
const FREE_BITS: u32 = 80;
const FINE_BITS: u32 = 20;

impl AuditId {
    /// Makes a name from the wall clock, to the nanosecond, and 60 random bits: the first 20 of the bytes are not used.
    ///
    /// A ULID tells milliseconds apart, and a node makes many records in one. The nanoseconds stand where a ULID has its first
    /// random bits, so that the log lists records in the order in which they were made (the same way as RFC 9562, section 6.2,
    /// method 3).
    pub fn new(now: Wall, random: [u8; 10]) -> Self {
        let mut wide = [0; 16];
        if let Some(tail) = wide.last_chunk_mut::<10>() {
            *tail = random;
        }
        let fine = u128::from(now.within_milli()) << (FREE_BITS - FINE_BITS);
        let chance = u128::from_be_bytes(wide) & ((1 << (FREE_BITS - FINE_BITS)) - 1);
        Self(Ulid::from_parts(now.as_millis(), fine | chance))
    }
}

impl fmt::Display for AuditId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// A text that is not a ULID in its canonical form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("wanted a ULID of 26 upper-case characters")]
pub struct NotAnAuditId;

impl FromStr for AuditId {
    type Err = NotAnAuditId;

    fn from_str(text: &str) -> Result<Self, NotAnAuditId> {
        let id = Ulid::from_string(text).map_err(|_any_fault| NotAnAuditId)?;
        if id.to_string() == text { Ok(Self(id)) } else { Err(NotAnAuditId) }
    }
}

/// SHA-256 in the chain. Displays as lower-case hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// The hash of a record: over its predecessor's hash and its own canonical bytes.
    pub fn chain(previous: Self, canonical: &[u8]) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(CHAIN_CONTEXT);
        hasher.update(previous.0);
        hasher.update(canonical);
        Self(hasher.finalize().into())
    }

    /// A plain SHA-256 of bytes, for digests of documents.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        crate::domain::identity::write_hex(&self.0, formatter)
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl FromStr for Hash {
    type Err = crate::domain::identity::NotHex;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        crate::domain::identity::parse_hex32(text).map(Self)
    }
}

/// What became of the action, as this runtime knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Carried out at the target, in the transaction of this record.
    Applied,
    /// Refused.
    Denied,
    /// Tried and failed without effect.
    Failed,
    /// About to be sent: what follows is recorded by a later record with the same request id.
    Intended,
    /// Sent, and what became of it is not known.
    Unknown,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 5] = [Self::Applied, Self::Denied, Self::Failed, Self::Intended, Self::Unknown];

    /// The stable text on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Denied => "denied",
            Self::Failed => "failed",
            Self::Intended => "intended",
            Self::Unknown => "unknown",
        }
    }
}

impl FromStr for Outcome {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == text).ok_or(())
    }
}

/// A record before it has its place in the chain. All texts are bounded by the types they came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// The record's name.
    pub audit_id: AuditId,
    /// When it was decided.
    pub at: Wall,
    /// Who asked: an actor's canonical id, or the runtime's own id for what it does by itself.
    pub actor: String,
    /// Whether a credential vouched for the actor.
    pub actor_verified: bool,
    /// Which runtime was asked.
    pub origin: RuntimeId,
    /// What: an action's kind, `cmd_invoke/<command>`, or a local one such as `peers_approve`.
    pub action: String,
    /// To which runtime.
    pub target: RuntimeId,
    /// The caller's name for it, where there is one.
    pub request_id: Option<RequestId>,
    /// What became of it.
    pub outcome: Outcome,
    /// Why not, where it did not happen.
    pub code: Option<Code>,
    /// One sentence for people; may be empty.
    pub detail: String,
    /// The policy that decided.
    pub policy_hash: Hash,
}

/// A record's place in the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Counts from 1 without a gap.
    pub seq: u64,
    /// The predecessor's hash.
    pub previous: Hash,
    /// This record's hash.
    pub hash: Hash,
}

/// A record with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What was recorded.
    pub draft: Draft,
    /// Where it stands.
    pub position: Position,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_by_time_within_a_millisecond_too() {
        let millisecond = 1_700_000_000_000_000_000;
        let times = [0, 1, 999, 1_000, 524_288, 999_999, 1_000_000].map(|nanos| Wall(millisecond + nanos));
        // What is drawn runs against the order of time.
        let names: Vec<AuditId> =
            times.iter().zip(0..).map(|(at, fall)| AuditId::new(*at, [0xff - fall; 10])).collect();
        assert!(names.is_sorted() && names.first() < names.last(), "{names:?}");
    }

    #[test]
    fn names_of_one_moment_differ_by_sixty_bits_of_chance() {
        let named = |random| AuditId::new(Wall(7), random).to_string();
        let names = [[0; 10], [0, 0, 0x0f, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0, 0, 1]].map(named);
        assert_eq!(std::collections::BTreeSet::from(names.clone()).len(), 3, "{names:?}");
        assert_eq!(named([0xff, 0xff, 0xf0, 0, 0, 0, 0, 0, 0, 0]), named([0; 10]), "the place of the nanoseconds");
        assert!(named([0; 10]).starts_with("0000000000"), "the milliseconds stand first");
    }
}
