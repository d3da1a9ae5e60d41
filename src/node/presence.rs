//! The node's regular voice: observations every period, an identity document on change, probes of the peers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::domain::envelope::Health;
use crate::domain::id::RuntimeId;
use crate::domain::projection::{Edge, Lifecycle};
use crate::domain::time::Now;
use crate::engine::Entropy;
use crate::engine::config_etag;
use crate::engine::input::Input;
use crate::engine::view::View;
use crate::engine::word::{self, Identity, Observation, Word};
use crate::mesh::{Document, Mesh, Verb};
use crate::node::clock::{Clock, SystemEntropy};
use crate::node::driver::Mail;
use crate::node::ingress::Ingress;
use crate::node::keyring::Keyring;
use crate::node::reach::RunsHead;
use crate::wire;
use crate::workload::supervisor::Handle as WorkloadHandle;

/// The version of the contract that this node speaks.
pub const API_VERSION: &str = "1.0";

/// Edges are repeated every so many observations for those who came later.
const EDGES_EVERY: u64 = 10;

/// Most peers probed in one round: a full mesh has about 50 (DESIGN, *Scale*).
const PROBED_MAX: usize = 64;

/// Most peers asked for their identity in one round: each may take the whole of it.
const ASKED_MAX: usize = 4;

/// What this node says about itself beside the view.
#[derive(Debug, Clone)]
pub(super) struct SelfDescription {
    pub(super) version: String,
    pub(super) capabilities: Vec<String>,
    pub(super) web: Option<String>,
}

/// Speaks for this node until it stops.
#[derive(Debug)]
pub(super) struct Presence {
    pub(super) clock: Clock,
    pub(super) views: Arc<ArcSwap<View>>,
    pub(super) mailbox: mpsc::Sender<Mail>,
    pub(super) keyring: Arc<Keyring>,
    pub(super) mesh: Arc<dyn Mesh>,
    pub(super) ingress: Arc<Ingress>,
    pub(super) about: SelfDescription,
    pub(super) probe_ms: Arc<AtomicU64>,
    pub(super) workload: Option<WorkloadHandle>,
    pub(super) links: Arc<AtomicU64>,
    pub(super) sequence: AtomicU64,
    pub(super) runs_head: RunsHead,
}

/// What was last said, so that only changes are said again.
#[derive(Default)]
struct Said {
    identity: Option<Identity>,
    edges: Vec<Edge>,
    rounds: u64,
}

impl Presence {
    pub(super) async fn speak(self: Arc<Self>, stop: CancellationToken) {
        let mut said = Said::default();
        while !stop.is_cancelled() {
            let view = self.views.load_full();
            let now = self.clock.now();
            self.say_identity(&view, now, &mut said).await;
            self.say_observation(&view, now, &mut said).await;
            self.links.store(u64::try_from(self.mesh.links().await).unwrap_or(u64::MAX), Ordering::Relaxed);
            let period = Duration::from_millis(view.limits.period.0);
            tokio::select! { () = tokio::time::sleep(period) => {}, () = stop.cancelled() => {} }
        }
    }

    async fn say_identity(&self, view: &View, now: Now, said: &mut Said) {
        let is_renewed = self.keyring.renew(now.wall);
        let mut identity = self.identity(view, now);
        if let Some(before) = &said.identity {
            // Only the moment differs: nothing new to say.
            identity.at = before.at;
            if *before == identity && !is_renewed {
                return;
            }
            identity.at = now.wall;
        }
        let sealed = wire::mesh::seal_identity(&self.keyring.keys(), &identity);
        match self.mesh.publish(Document::Identity, sealed).await {
            Ok(()) => said.identity = Some(identity),
            Err(error) => tracing::warn!(%error, "the identity document was not published"),
        }
    }

    fn identity(&self, view: &View, now: Now) -> Identity {
        Identity {
            runtime: view.me().clone(),
            boot: view.boot,
            at: now.wall,
            api_version: API_VERSION.to_owned(),
            version: self.about.version.clone(),
            capabilities: self.about.capabilities.clone(),
            host: view.settings.host.clone(),
            web: self.about.web.clone(),
            is_secure: view.settings.is_secure,
            policy_hash: view.settings.policy_hash,
            config_revision: view.overlay.revision,
            config_etag: config_etag(&view.overlay),
        }
    }

    async fn say_observation(&self, view: &View, now: Now, said: &mut Said) {
        let edges = view.own_edges();
        let is_due = said.rounds.is_multiple_of(EDGES_EVERY) || differ(&said.edges, &edges);
        said.rounds = said.rounds.saturating_add(1);
        if is_due {
            said.edges.clone_from(&edges);
        }
        self.publish_observation(view, now, is_due.then_some(edges), false).await;
    }

    async fn publish_observation(&self, view: &View, now: Now, edges: Option<Vec<Edge>>, is_leaving: bool) {
        let observation = Observation {
            runtime: view.me().clone(),
            boot: view.boot,
            sequence: self.sequence.fetch_add(1, Ordering::Relaxed).saturating_add(1),
            at: now.wall,
            health: self.health(view),
            config_revision: view.overlay.revision,
            runs_head: self.runs_head.get(),
            edges,
            is_leaving,
        };
        let sealed = wire::mesh::seal_observation(&self.keyring.keys(), &observation);
        if let Err(error) = self.mesh.publish(Document::Observation, sealed).await {
            tracing::warn!(%error, "an observation was not published");
        }
    }

    /// The node's own judgement, the workload included: a node that does not do its work is not healthy.
    fn health(&self, view: &View) -> Health {
        match &self.workload {
            Some(workload) => workload.status().condition().worsen(view.health()),
            None => view.health(),
        }
    }

    /// The signed goodbye: a deleted token alone cannot tell it from a death.
    pub(super) async fn say_goodbye(&self) {
        let view = self.views.load_full();
        self.publish_observation(&view, self.clock.now(), None, true).await;
    }

    pub(super) async fn probe(self: Arc<Self>, stop: CancellationToken) {
        let mut asked_last = None;
        while !stop.is_cancelled() {
            let pause = Duration::from_millis(self.probe_ms.load(Ordering::Relaxed));
            tokio::select! { () = tokio::time::sleep(pause) => {}, () = stop.cancelled() => return }
            let (unknown, heard) = self.peers_to_ask();
            let silent = in_turn(unknown, asked_last.as_ref());
            asked_last = silent.last().cloned();
            let probes = join_all(heard.iter().map(|runtime| self.probe_one(runtime, pause)));
            let asked = silent.iter().map(|runtime| tokio::time::timeout(pause, self.ingress.ask_identity(runtime)));
            // Together, and within the period: one silent peer must not delay the measure of all others.
            futures_util::future::join(probes, join_all(asked)).await;
        }
    }

    /// Peers that spoke but whose identity document is missing, and peers to probe: everybody who spoke in this life and has not
    /// said goodbye. A peer whose clock differs is known as alive by its echoes alone.
    fn peers_to_ask(&self) -> (Vec<RuntimeId>, Vec<RuntimeId>) {
        let view = self.views.load();
        let now = self.clock.now().monotonic;
        let mut unknown = Vec::new();
        let (mut heard, mut lost) = (Vec::new(), Vec::new());
        for (runtime, peer) in view.peers.iter().filter(|(_, peer)| peer.signer.is_some()) {
            let lifecycle = peer.presence.lifecycle(&view.limits, now);
            match lifecycle {
                Lifecycle::Online | Lifecycle::Stale => heard.push(runtime.clone()),
                Lifecycle::Offline | Lifecycle::Partitioned if !peer.presence.left => lost.push(runtime.clone()),
                Lifecycle::Offline | Lifecycle::Partitioned => {}
            }
            if lifecycle == Lifecycle::Online && peer.wants_identity() {
                unknown.push(runtime.clone());
            }
        }
        (unknown, probed(view.me(), heard, lost))
    }

    async fn probe_one(&self, runtime: &RuntimeId, budget: Duration) {
        let mut random = [0; 16];
        SystemEntropy.fill(&mut random);
        let nonce: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let probe = wire::mesh::Probe { nonce: nonce.clone() };
        let before = self.clock.now().monotonic;
        let opened = OnceLock::new();
        let accept = |bytes: &[u8]| {
            let now = self.clock.now();
            match wire::mesh::open_echo(&self.views.load(), runtime, &nonce, bytes, now.wall) {
                Ok((signer, echo)) => opened.set((signer, echo, now.monotonic)).is_ok(),
                Err(refusal) => {
                    self.ingress.refused.count(refusal.as_str());
                    false
                }
            }
        };
        // Why there was no echo makes no difference.
        drop(self.mesh.query(runtime, Verb::Probe, probe.to_bytes(), budget, &accept).await);
        let input = match opened.into_inner() {
            Some((signer, echo, after)) => {
                let round_trip_us = after.0.saturating_sub(before.0).wrapping_div(1_000);
                let word = Word::Echo(word::Echo { boot: echo.boot, round_trip_us });
                Input::Word { signer, word }
            }
            None => Input::ProbeLost { runtime: runtime.clone() },
        };
        // A closed mailbox means that the node is stopping.
        drop(self.mailbox.send(Mail::Input(Box::new(input))).await);
    }
}

/// The peers to probe, each list in the order of names. In a fleet that is larger than a round everybody measures those that come
/// after its own name: up to twice the round, every link is measured from one end at least, and nobody is measured by all.
fn probed(me: &RuntimeId, mut heard: Vec<RuntimeId>, mut lost: Vec<RuntimeId>) -> Vec<RuntimeId> {
    let next = heard.partition_point(|runtime| runtime < me);
    heard.rotate_left(next);
    // The present come first, so that the long lost never use up the round.
    heard.append(&mut lost);
    heard.truncate(PROBED_MAX);
    heard
}

/// Those who are asked for their identity this time: the next ones after whoever was asked last, so that some who never
/// answer do not keep all others waiting.
fn in_turn(mut unknown: Vec<RuntimeId>, asked_last: Option<&RuntimeId>) -> Vec<RuntimeId> {
    let next = unknown.partition_point(|runtime| Some(runtime) <= asked_last);
    unknown.rotate_left(next);
    unknown.truncate(ASKED_MAX);
    unknown
}

/// Whether edges changed enough to be worth telling: another state, other links, or latency by more than a quarter.
fn differ(before: &[Edge], now: &[Edge]) -> bool {
    let is_close = |one: &Edge, other: &Edge| {
        let (low, high) = match (one.latency_p95_us, other.latency_p95_us) {
            (Some(one), Some(other)) => (one.min(other), one.max(other)),
            (None, None) => (0, 0),
            (Some(_), None) | (None, Some(_)) => return false,
        };
        one.target == other.target && one.state == other.state && high.saturating_sub(low) <= high.wrapping_div(4)
    };
    before.len() != now.len() || !before.iter().zip(now).all(|(one, other)| is_close(one, other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_whose_identity_is_missing_has_a_turn() {
        let unknown: Vec<RuntimeId> = (0..10).map(|it| format!("s/r{it}").parse().expect("legal")).collect();
        let mut asked = std::collections::BTreeSet::new();
        let mut last = None;
        for _ in 0..3 {
            let round = in_turn(unknown.clone(), last.as_ref());
            assert_eq!(round.len(), ASKED_MAX);
            last = round.last().cloned();
            asked.extend(round);
        }
        assert_eq!(asked.len(), unknown.len());
        assert_eq!(in_turn(unknown.clone(), unknown.last()).first(), unknown.first());
        assert!(in_turn(Vec::new(), unknown.first()).is_empty());
    }

    #[test]
    fn each_of_many_measures_those_after_itself_and_every_link_is_measured() {
        let count = 2 * PROBED_MAX;
        let all: Vec<RuntimeId> = (0..=count).map(|it| format!("s/r{it:03}").parse().expect("legal")).collect();
        let others = |me: &RuntimeId| all.iter().filter(|it| *it != me).cloned().collect::<Vec<_>>();
        let measured: Vec<_> = all.iter().map(|me| probed(me, others(me), vec![me.clone()])).collect();
        for (one, of_one) in measured.iter().enumerate() {
            assert_eq!(of_one.len(), PROBED_MAX);
            for (other, of_other) in measured.iter().enumerate().filter(|(other, _)| *other != one) {
                assert!(of_one.contains(&all[other]) || of_other.contains(&all[one]), "{one} and {other}");
            }
        }
        let few = probed(&all[1], vec![all[0].clone(), all[2].clone()], vec![all[9].clone()]);
        assert_eq!(few, [&all[2], &all[0], &all[9]].map(Clone::clone), "the lost come last");
    }
}
