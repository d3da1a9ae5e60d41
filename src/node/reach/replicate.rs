//! Copies the pointers of the own site's runtimes, page by page, whenever one of them is ahead of the copy.
//!
//! How far a runtime is, its signed observations say. Nothing is pushed: who was away pulls what it missed, and a runtime
//! that says it is ahead for ever costs one question a second.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::StreamExt as _;
use tokio_util::sync::CancellationToken;

use super::asking::CLAIMED_TWICE;
use super::{RunsHead, is_trusted};
use crate::domain::id::RuntimeId;
use crate::domain::projection::Lifecycle;
use crate::domain::time::{Millis, Monotonic};
use crate::engine::view::{Peer, View};
use crate::mesh::{Mesh, Verb};
use crate::node::clock::Clock;
use crate::node::ingress::Counters;
use crate::node::keyring::Keyring;
use crate::store::runs::{PointerChange, Registry, Replica, Upto};
use crate::wire::mesh::{self as message, PointerNews, PointersAsked, PointersPage};

/// How long a peer may take for a page.
const BUDGET: Duration = Duration::from_secs(2);

/// Peers that are asked at once.
const AT_ONCE: usize = 16;

/// The longest pause after failures, as a power of two of seconds: a minute.
const PAUSE_EXPONENT_MAX: u32 = 6;

/// Copies pointers until the node stops.
#[derive(Debug)]
pub(in crate::node) struct Replicator {
    pub(in crate::node) clock: Clock,
    pub(in crate::node) views: Arc<ArcSwap<View>>,
    pub(in crate::node) keyring: Arc<Keyring>,
    pub(in crate::node) mesh: Arc<dyn Mesh>,
    pub(in crate::node) registry: Arc<dyn Registry>,
    pub(in crate::node) refused: Counters,
    pub(in crate::node) head: RunsHead,
    pub(in crate::node) every: Duration,
    pub(in crate::node) sequence: AtomicU64,
}

/// How it went with one peer.
#[derive(Debug, Clone, Copy, Default)]
struct Attempt {
    /// How far the copy is.
    upto: Upto,
    failures: u32,
    not_before: Monotonic,
}

/// A page that did not come or could not be kept: the pause says when it is tried again.
struct Failed;

impl Replicator {
    pub(in crate::node) async fn run(self, stop: CancellationToken) {
        let mut attempts = BTreeMap::new();
        while stop.run_until_cancelled(self.round(&mut attempts)).await.is_some() {
            if stop.run_until_cancelled(tokio::time::sleep(self.every)).await.is_none() {
                return;
            }
        }
    }

    async fn round(&self, attempts: &mut BTreeMap<RuntimeId, Attempt>) {
        // A disk that does not answer leaves the last number standing.
        if let Ok(number) = self.registry.number().await {
            self.head.set(number);
        }
        let view = self.views.load_full();
        attempts.retain(|runtime, _| view.peers.contains_key(runtime));
        let mut due = Vec::new();
        for (runtime, head) in ahead(&view, self.clock.now().monotonic) {
            if let Some(upto) = self.is_due(runtime, head, attempts).await {
                due.push((runtime.clone(), upto));
            }
        }
        let pulls = due.into_iter().map(|(runtime, upto)| async move {
            let pulled = self.pull(&runtime, upto).await;
            (runtime, pulled)
        });
        let mut pulled = futures_util::stream::iter(pulls).buffer_unordered(AT_ONCE);
        while let Some((runtime, pulled)) = pulled.next().await {
            let attempt = attempts.entry(runtime).or_default();
            match pulled {
                Ok(upto) => *attempt = Attempt { upto, ..Attempt::default() },
                Err(Failed) => attempt.fail(self.clock.now().monotonic),
            }
        }
    }

    /// Where to go on with a peer, if there is more and it may be asked again.
    async fn is_due(
        &self,
        runtime: &RuntimeId,
        head: u64,
        attempts: &mut BTreeMap<RuntimeId, Attempt>,
    ) -> Option<Upto> {
        if !attempts.contains_key(runtime) {
            let upto = self.registry.replicated_upto(runtime.clone()).await.ok()?;
            attempts.insert(runtime.clone(), Attempt { upto, ..Attempt::default() });
        }
        let attempt = attempts.get(runtime)?;
        let is_due = attempt.upto.number != head && attempt.not_before <= self.clock.now().monotonic;
        is_due.then_some(attempt.upto)
    }

    /// Pulls one page and keeps it.
    async fn pull(&self, owner: &RuntimeId, upto: Upto) -> Result<Upto, Failed> {
        let page = self.ask(owner, upto).await.ok_or(Failed)?;
        let upto = Upto { number: page.number, floor: page.floor };
        let changes: Vec<_> = page.changes.into_iter().filter_map(|news| self.own_word(owner, news)).collect();
        self.note_claims(&changes).await;
        let replica = Replica { owner: owner.clone(), is_restart: page.is_restart, changes, upto };
        match self.registry.replicate(replica).await {
            Ok(()) => Ok(upto),
            Err(error) => {
                tracing::warn!(runtime_id = %owner, %error, "pointers to runs were not kept");
                Err(Failed)
            }
        }
    }

    /// A runtime speaks for its own runs alone. The registry sees to that too, whoever writes to it.
    fn own_word(&self, owner: &RuntimeId, news: PointerNews) -> Option<PointerChange> {
        match news {
            PointerNews::Put(pointer) if pointer.owner != *owner => {
                self.refused.count("run_of_another");
                None
            }
            PointerNews::Put(pointer) => Some(PointerChange::Put(pointer)),
            PointerNews::Forgotten(run) => Some(PointerChange::Forgotten(run)),
        }
    }

    /// Of a run that another one has claimed before, the registry takes nothing. That is said, because either may lie.
    async fn note_claims(&self, changes: &[PointerChange]) {
        for change in changes {
            let PointerChange::Put(claim) = change else { continue };
            let kept = self.registry.lookup(claim.run).await.ok().flatten();
            if let Some(kept) = kept.filter(|kept| kept.owner != claim.owner) {
                self.refused.count(CLAIMED_TWICE);
                let (run_id, first, second) = (claim.run, &kept.owner, &claim.owner);
                tracing::warn!(%run_id, %first, %second, "a run is claimed by more than one runtime, and the first counts");
            }
        }
    }

    async fn ask(&self, owner: &RuntimeId, upto: Upto) -> Option<PointersPage> {
        let asked = PointersAsked {
            owner: owner.clone(),
            at: self.clock.now().wall,
            sequence: self.sequence.fetch_add(1, Ordering::Relaxed).saturating_add(1),
            number: upto.number,
            floor: upto.floor,
        };
        let (sealed, digest) = message::seal_pointers_asked(&self.keyring.keys(), &asked);
        let opened = OnceLock::new();
        let accept = |bytes: &[u8]| {
            let now = self.clock.now().wall;
            match message::open_pointers(&self.views.load(), owner, digest, bytes, now) {
                Ok(page) => opened.set(page).is_ok(),
                Err(refusal) => {
                    self.refused.count(refusal.as_str());
                    false
                }
            }
        };
        if let Err(error) = self.mesh.query(owner, Verb::Pointers, sealed, BUDGET, &accept).await {
            tracing::debug!(runtime_id = %owner, %error, "no pointers to runs");
        }
        opened.into_inner()
    }
}

impl Attempt {
    fn fail(&mut self, now: Monotonic) {
        let seconds = 1_u64.checked_shl(self.failures.min(PAUSE_EXPONENT_MAX)).unwrap_or(1);
        self.failures = self.failures.saturating_add(1);
        self.not_before = now.plus(Millis::from_secs(seconds));
    }
}

/// The peers whose pointers are copied, and how far they say they are.
fn ahead(view: &View, now: Monotonic) -> impl Iterator<Item = (&RuntimeId, u64)> {
    view.peers.iter().filter_map(move |(runtime, peer): (_, &Arc<Peer>)| {
        let is_there = peer.presence.lifecycle(&view.limits, now) == Lifecycle::Online;
        let is_trusted = peer.signer.as_ref().is_some_and(|signer| is_trusted(view, peer, signer));
        Some((runtime, peer.runs_head.filter(|_| is_there && is_trusted)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_after_failures_grow_up_to_a_minute() {
        let mut attempt = Attempt::default();
        let pauses: Vec<u64> = (0..9)
            .map(|_| {
                attempt.fail(Monotonic::default());
                attempt.not_before.since(Monotonic::default()).0
            })
            .collect();
        assert_eq!(pauses, [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 64_000, 64_000]);
    }
}
