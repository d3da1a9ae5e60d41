//! What runtimes say about themselves over the mesh, once the signature has been checked.

use std::sync::Arc;

use crate::domain::audit::Hash;
use crate::domain::envelope::{Delegation, Health};
use crate::domain::id::RuntimeId;
use crate::domain::identity::Fingerprint;
use crate::domain::identity::authority::Vouched;
use crate::domain::projection::Edge;
use crate::domain::time::Wall;

/// Who really signed a word: the outcome of a verified signature and delegation, not a claim.
///
/// Only `wire::mesh::open` and the simulation make one, both after the checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer {
    /// The delegation under which the word was signed.
    pub delegation: Arc<Delegation>,
    /// The delegation's name: the hash of its bytes.
    pub delegation_hash: Hash,
    /// The identity key behind it.
    pub identity: Fingerprint,
    /// What its certificate proved, where it has one.
    pub vouched: Option<Vouched>,
}

impl Signer {
    /// Whose word it is.
    pub fn runtime(&self) -> &RuntimeId {
        &self.delegation.runtime
    }
}

/// One verified word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// The answer to a probe of ours.
    Echo(Echo),
    /// Who it is and what it offers.
    Identity(Identity),
    /// How it does.
    Observation(Observation),
}

/// The answer to a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Echo {
    /// The answering runtime's boot counter.
    pub boot: u64,
    /// The round trip as measured here.
    pub round_trip_us: u64,
}

/// A runtime's identity document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Whose.
    pub runtime: RuntimeId,
    /// The boot counter.
    pub boot: u64,
    /// When it was signed.
    pub at: Wall,
    /// The version of the HTTP and mesh contract.
    pub api_version: String,
    /// The program's version.
    pub version: String,
    /// What it can do, such as `status_read`.
    pub capabilities: Vec<String>,
    /// The machine it runs on, as far as it says so.
    pub host: Option<String>,
    /// Where its HTTP listener is.
    pub web: Option<String>,
    /// Whether its listeners are protected by TLS.
    pub is_secure: bool,
    /// The hash of its policy.
    pub policy_hash: Hash,
    /// The revision of its configuration.
    pub config_revision: u64,
    /// The hash of its configuration.
    pub config_etag: Hash,
}

/// A runtime's regular word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// Whose.
    pub runtime: RuntimeId,
    /// The boot counter.
    pub boot: u64,
    /// Counts the observations of this boot; an older one than the last is ignored.
    pub sequence: u64,
    /// When it was signed.
    pub at: Wall,
    /// Its own judgement.
    pub health: Health,
    /// The revision of its configuration.
    pub config_revision: u64,
    /// The number of the last change of its pointers to runs, where it has any.
    pub runs_head: Option<u64>,
    /// Its measured links, when they changed or are repeated for newcomers.
    pub edges: Option<Vec<Edge>>,
    /// Whether this is its goodbye.
    pub is_leaving: bool,
}
