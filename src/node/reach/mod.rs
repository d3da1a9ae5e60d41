//! Runs of other runtimes, seen from here, and own runs, shown to them.
//!
//! Pointers travel ahead of any question: [`replicate`] pulls those of the own site's peers, so that a run is known whose
//! owner cannot be reached. Records and events stay with the owner: [`asking`] carries an actor's question to it and
//! [`desk`] answers there. [`resolve`] makes one set of runs of both, and [`follower`] reads one run to its end.

mod asking;
mod desk;
mod follower;
mod replicate;
mod resolve;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::domain::identity::TrustState;
use crate::domain::preflight::Profile;
use crate::engine::view::{Peer, View};
use crate::engine::word::Signer;
use crate::handle::runs::Runs;
use crate::store::runs::feed::Feeds;
use crate::store::runs::{Registry, RunStore};

pub(super) use asking::Asking;
pub(super) use desk::{Desk, DeskParts};
pub(super) use replicate::Replicator;
pub(super) use resolve::{Known, MeshRuns};

/// Where this node keeps its own runs and the pointers to others.
#[derive(Debug, Clone)]
pub struct Shelf {
    /// Own records and events.
    pub store: Arc<dyn RunStore>,
    /// Pointers, own and copied.
    pub registry: Arc<dyn Registry>,
    /// Those who follow own runs.
    pub feeds: Arc<Feeds>,
}

/// What makes runs visible across the mesh.
#[derive(Debug, Clone)]
pub struct Reach {
    /// Where own runs are.
    pub shelf: Shelf,
    /// Own runs, as callers of this node see them.
    pub local: Arc<dyn Runs>,
    /// How long to wait for others.
    pub patience: Patience,
}

/// How long this node waits for the owners of runs.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For one answer.
    pub answer: Duration,
    /// For anybody who knows where a run is.
    pub locate: Duration,
    /// For the next event of a run, at its owner.
    pub event: Duration,
    /// For an owner that has gone away, while a run of its is followed.
    pub gone: Duration,
    /// Between two pages of pointers from one peer.
    pub pull: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(3),
            locate: Duration::from_millis(500),
            event: Duration::from_secs(10),
            gone: Duration::from_secs(30),
            pull: Duration::from_secs(1),
        }
    }
}

/// How far the own pointers are, as far as it is known: what every observation says.
#[derive(Debug, Clone)]
pub(super) struct RunsHead(Arc<AtomicU64>);

/// Stands for what is not known. No log of pointers gets that long.
const UNKNOWN: u64 = u64::MAX;

impl Default for RunsHead {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(UNKNOWN)))
    }
}

impl RunsHead {
    pub(super) fn get(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|number| *number != UNKNOWN)
    }

    fn set(&self, number: u64) {
        self.0.store(number, Ordering::Relaxed);
    }
}

/// Whether a peer of the own site may know of the own runs, and is believed about its own: one that is trusted, and in `dev` on
/// loopback every one whose key is pinned, as for reads and writes.
fn is_trusted(view: &View, peer: &Peer, signer: &Signer) -> bool {
    let is_dev = view.settings.profile == Profile::Dev;
    let is_accepted = match peer.trust {
        TrustState::Trusted => is_dev || signer.vouched.is_some(),
        TrustState::Untrusted => is_dev && view.settings.is_mesh_on_loopback,
    };
    is_accepted && signer.runtime().site == view.me().site && peer.pinned == signer.identity
}

#[cfg(test)]
mod tests;
