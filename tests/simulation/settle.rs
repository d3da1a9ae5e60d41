//! The calm after the storm: once every fault is healed, the fleet must agree within a bound.

use std::collections::BTreeSet;

use trust_runtime::domain::audit::Outcome;
use trust_runtime::domain::envelope::Ruling;
use trust_runtime::domain::projection::Lifecycle;
use trust_runtime::engine::exchange::Finding;

use crate::dispatch::Told;
use crate::node::runtime;
use crate::world::World;

/// Half of the time until everybody agrees: edges are repeated every ten periods for those who missed them.
const CALM: u64 = 6_000;

/// Acknowledged writes that are asked for again.
const REPEATED: usize = 6;

impl World {
    /// Heals everything and checks that the fleet converges.
    pub(crate) fn settle(&mut self) {
        self.heal();
        let sizes: Vec<u64> = self.nodes.iter().map(|node| node.disk.entries.len().try_into().expect("few")).collect();
        self.run(CALM);
        self.run(CALM);
        if self.breach.is_some() {
            return;
        }
        // What was said a moment ago may still be under way.
        for _ in 0..10 {
            if self.disagreement().is_some() {
                self.run(100);
            }
        }
        if let Some(detail) = self.disagreement() {
            self.breach("once healed, everybody sees everybody online with the same boot, revision and edges", detail);
        }
        self.check_conclusions();
        self.check_works_settled();
        self.check_witnessed(&sizes);
        (0..self.nodes.len()).for_each(|node| self.check_heads_held(node));
        self.check_repetition();
    }

    /// The first thing about presence that two nodes see differently.
    fn disagreement(&self) -> Option<String> {
        let mut wrong = Vec::new();
        for (index, node) in self.nodes.iter().enumerate() {
            let now = node.monotonic_of(self.now);
            let Some(live) = node.live.as_ref() else {
                wrong.push(format!("n{index} is down"));
                continue;
            };
            for (other, peer_node) in self.nodes.iter().enumerate().filter(|(other, _)| *other != index) {
                let lifecycle = live.view.standing(&runtime(other), now).map(|it| it.lifecycle);
                let peer = live.view.peers.get(&runtime(other));
                let theirs = peer_node.live.as_ref();
                let is_same = peer.zip(theirs).is_some_and(|(peer, theirs)| {
                    let edges = |edges: &[trust_runtime::domain::projection::Edge]| -> BTreeSet<_> {
                        edges.iter().map(|edge| (edge.target.clone(), edge.state)).collect()
                    };
                    peer.boot == theirs.view.boot
                        && peer.config_revision == Some(theirs.view.overlay.revision)
                        && edges(&peer.edges) == edges(&theirs.said_edges)
                });
                if lifecycle != Some(Lifecycle::Online) || !is_same {
                    let seen = peer.map(|peer| (peer.boot, peer.config_revision, &peer.edges));
                    let said = theirs.map(|live| (live.view.boot, live.view.overlay.revision, &live.said_edges));
                    wrong.push(format!("n{index} sees n{other} {lifecycle:?} {seen:?}, which says {said:?}"));
                }
            }
        }
        wrong.into_iter().next()
    }

    fn check_conclusions(&mut self) {
        let mut open = Vec::new();
        for (index, node) in self.nodes.iter().enumerate() {
            let mut intended = BTreeSet::new();
            for entry in &node.disk.entries {
                let draft = &entry.draft;
                let what = (draft.actor.clone(), draft.request_id.clone(), draft.target.clone());
                match draft.outcome {
                    Outcome::Intended => intended.insert(what),
                    Outcome::Applied | Outcome::Denied | Outcome::Failed | Outcome::Unknown => intended.remove(&what),
                };
            }
            open.extend(intended.into_iter().map(|what| format!("n{index}: {what:?}")));
            open.extend(node.disk.facts.intents.keys().map(|key| format!("n{index} still intends {key:?}")));
        }
        if let Some(detail) = open.into_iter().next() {
            self.breach("every intent is concluded on record in the end", detail);
        }
    }

    /// Asks once more for what was acknowledged: the stored receipt must come back.
    fn check_repetition(&mut self) {
        let asked = self.plan.asked.clone();
        let mut repeated = Vec::new();
        for (origin, write) in asked {
            if repeated.len() >= REPEATED {
                break;
            }
            let digest_of = |target: &trust_runtime::domain::id::RuntimeId| {
                trust_runtime::domain::envelope::request_digest(&write.asker.actor, &write.action, target)
            };
            let known = self.ledger.acknowledged.iter().find(|(target, key, _)| {
                let kept = self.nodes[*target].disk.facts.receipts.get(key);
                key.actor == write.asker.actor
                    && key.request_id == write.request_id
                    && *target != origin
                    && kept.is_some_and(|kept| kept.digest == digest_of(&runtime(*target)))
            });
            let Some((target, _, audit_id)) = known.cloned() else { continue };
            let mut again = write.clone();
            again.targets = vec![runtime(target)];
            let number = self.ask(origin, again, 1_000);
            repeated.push((number, target, audit_id, write.request_id));
        }
        self.run(2_000);
        for (number, target, audit_id, request_id) in repeated {
            let is_stored = match self.ledger.told.get(&number) {
                Some(Told::Findings(findings)) => findings.iter().all(|(_, finding)| match finding {
                    Finding::Receipt(receipt) => {
                        receipt.repeated && receipt.audit_id == audit_id && matches!(receipt.ruling, Ruling::Done(_))
                    }
                    Finding::Denied(_) => false,
                }),
                Some(Told::Nothing) | None => false,
            };
            if !is_stored {
                let detail = format!("{request_id} at n{target}: {:?}", self.ledger.told.get(&number));
                self.breach("a repeated request gets its stored receipt", detail);
            }
        }
    }
}
