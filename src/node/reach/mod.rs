//! Runs of other runtimes, seen from here, and own runs, shown to them.
//!
//! Pointers travel ahead of any question: [`replicate`] pulls those of the own site's peers, so that a run is known whose
//! owner cannot be reached. Records and events stay with the owner: [`asking`] carries an actor's question to it and
//! [`desk`] answers there. [`locate`] says where a run is, [`resolve`] makes one set of runs of both, [`fetch`] brings what is
//! long, and [`follower`] reads one run to its end.

mod asking;
mod desk;
mod fetch;
mod follower;
mod known;
mod locate;
mod places;
mod replicate;
mod resolve;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::domain::identity::TrustState;
use crate::domain::preflight::Profile;
use crate::domain::time::Millis;
use crate::engine::view::{Peer, View};
use crate::engine::word::Signer;
use crate::handle::runs::Runs;
use crate::mesh::Mesh;
use crate::node::clock::Clock;
use crate::node::ingress::Counters;
use crate::node::keyring::Keyring;
use crate::node::runs::{Held, LocalRuns};
use crate::store::Store;
use crate::store::runs::feed::Feeds;
use crate::store::runs::{Registry, RunStore};

use self::asking::Asking;
use self::known::Known;
use self::replicate::Replicator;

pub(super) use desk::Desk;
pub(super) use resolve::MeshRuns;

/// Where this node keeps its own runs and the pointers to others.
#[derive(Debug, Clone)]
pub(super) struct Shelf {
    /// Own records and events.
    pub(super) store: Arc<dyn RunStore>,
    /// Pointers, own and copied.
    pub(super) registry: Arc<dyn Registry>,
    /// Those who follow own runs.
    pub(super) feeds: Arc<Feeds>,
    /// Moves whenever an accepted run is in the store, or will never be.
    pub(super) begun: watch::Receiver<u64>,
    /// Own runs of which nothing can be written.
    pub(super) held: Arc<Held>,
}

/// How long this node waits for the owners of runs.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For one answer.
    pub answer: Duration,
    /// For all pages or pieces of what is too long for one.
    pub whole: Duration,
    /// For anybody who knows where a run is.
    pub locate: Duration,
    /// For the next event of a run, at its owner.
    pub event: Duration,
    /// For an owner that has gone away, while a run of its is followed.
    pub gone: Duration,
    /// Between two pages of pointers from one peer.
    pub pull: Duration,
    /// Most runtimes that are asked where a run is. A full mesh has about 50 (DESIGN, *Scale*); where there are more, a run that
    /// nobody has whom this node asked is not called unknown.
    pub asked: usize,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(3),
            whole: Duration::from_secs(60),
            locate: Duration::from_millis(500),
            event: Duration::from_secs(10),
            gone: Duration::from_secs(30),
            pull: Duration::from_secs(1),
            asked: 256,
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

/// What runs of the whole mesh need of the node.
#[derive(Debug, Clone)]
pub(super) struct ReachParts {
    pub(super) clock: Clock,
    pub(super) views: Arc<ArcSwap<View>>,
    pub(super) keyring: Arc<Keyring>,
    pub(super) mesh: Arc<dyn Mesh>,
    /// For the chain of reads.
    pub(super) audit: Arc<dyn Store>,
    pub(super) refused: Counters,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
}

/// What makes runs visible across the mesh.
#[derive(Debug)]
pub(super) struct Reach {
    parts: ReachParts,
    local: Arc<LocalRuns>,
    patience: Patience,
    head: RunsHead,
    desk: Arc<Desk>,
}

impl Reach {
    pub(super) fn new(parts: ReachParts, local: Arc<LocalRuns>, patience: Patience) -> Self {
        let desk = Arc::new(Desk::new(parts.clone(), local.shelf()));
        Self { parts, local, patience, head: RunsHead::default(), desk }
    }

    /// Where others ask for own runs.
    pub(super) fn desk(&self) -> Arc<Desk> {
        Arc::clone(&self.desk)
    }

    pub(super) fn head(&self) -> RunsHead {
        self.head.clone()
    }

    pub(super) fn refused(&self) -> Counters {
        self.parts.refused.clone()
    }

    /// Starts to copy pointers, and gives the runs of the whole mesh.
    pub(super) fn begin(&self) -> Arc<MeshRuns> {
        let (parts, shelf) = (&self.parts, self.local.shelf());
        let replicator = Replicator {
            clock: parts.clock,
            views: Arc::clone(&parts.views),
            keyring: Arc::clone(&parts.keyring),
            mesh: Arc::clone(&parts.mesh),
            registry: Arc::clone(&shelf.registry),
            refused: parts.refused.clone(),
            head: self.head.clone(),
            every: self.patience.pull,
            sequence: AtomicU64::new(0),
        };
        parts.tasks.spawn(replicator.run(parts.stop.clone()));
        let asking = Asking {
            clock: parts.clock,
            views: Arc::clone(&parts.views),
            keyring: Arc::clone(&parts.keyring),
            mesh: Arc::clone(&parts.mesh),
            audit: Arc::clone(&parts.audit),
            refused: parts.refused.clone(),
            sequence: AtomicU64::new(0),
        };
        let local: Arc<dyn Runs> = Arc::<LocalRuns>::clone(&self.local);
        Arc::new(MeshRuns::new(local, Arc::new(asking), Arc::new(Known::new(shelf)), self.patience))
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

fn millis(duration: Duration) -> Millis {
    Millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
