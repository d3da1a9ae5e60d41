//! What must hold after every step, each with the sentence it defends, judged against a ledger of what really happened.
//!
//! The ledger is written by the world, never read from an engine; what is allowed is written down here a second time.

use std::collections::{BTreeMap, BTreeSet};

use trust_runtime::domain::action::{Action, ActionKind};
use trust_runtime::domain::audit::{AuditId, Checkpoint, GENESIS, Hash, Outcome};
use trust_runtime::domain::code::Code;
use trust_runtime::domain::envelope::{self, Ruling};
use trust_runtime::domain::identity::{Fingerprint, Role, TrustState};
use trust_runtime::domain::preflight::Profile;
use trust_runtime::domain::projection::Lifecycle;
use trust_runtime::domain::time::{Millis, Now};
use trust_runtime::engine::effect::Started;
use trust_runtime::engine::exchange::Finding;
use trust_runtime::engine::input::{QueryId, Received, Write};
use trust_runtime::engine::record::{IntentKey, Receipt, Record, RequestKey};
use trust_runtime::engine::view::{ClockState, View};

use crate::disk::Facts;
use crate::dispatch::Told;
use crate::fault::log_level;
use crate::network::DELAY_MAX;
use crate::node::{refuses, role_of, runtime};
use crate::turn::{Turn, recovered, short};
use crate::work::Works;
use crate::world::World;

/// How far clocks may differ; a captured word counts for so long.
const SKEW: u64 = 30_000;

/// What is true of the world whatever the engines believe.
#[derive(Debug, Clone)]
pub(crate) struct Truth {
    pub(crate) identities: Vec<Fingerprint>,
    pub(crate) is_loopback: bool,
    pub(crate) profile: Profile,
}

impl Truth {
    /// The genuine key of this runtime.
    pub(crate) fn identity_of(&self, id: &trust_runtime::domain::id::RuntimeId) -> Option<Fingerprint> {
        self.identities.iter().enumerate().find(|(index, _)| runtime(*index) == *id).map(|(_, identity)| *identity)
    }
}

/// The oracle's word on one write at one target at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Allowance {
    pub(crate) refusal: Option<&'static str>,
    digest: Hash,
    /// Which envelope; none for the own part of an own caller.
    envelope: Option<Hash>,
}

/// One write that a target really carried out.
#[derive(Debug, Clone)]
pub(crate) struct Execution {
    digest: Hash,
    envelopes: BTreeSet<Hash>,
    audit_id: AuditId,
    /// When it was written.
    at: u64,
    is_forgotten: bool,
}

impl Execution {
    fn of(receipt: &Receipt, envelopes: BTreeSet<Hash>, at: u64) -> Self {
        Self { digest: receipt.digest, envelopes, audit_id: receipt.audit_id, at, is_forgotten: false }
    }

    /// Whether it may be the work of another envelope than this one.
    fn is_of_another(&self, envelope: Hash) -> bool {
        self.envelopes.is_empty() || self.envelopes.iter().any(|it| *it != envelope)
    }

    /// It is on no disk any more, and nobody can know of it.
    pub(crate) fn lose(&mut self) {
        self.is_forgotten = true;
        self.envelopes.clear();
    }

    fn is(&self, digest: Hash, audit_id: AuditId) -> bool {
        self.digest == digest && self.audit_id == audit_id
    }
}

/// What really happened.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) executions: BTreeMap<(usize, RequestKey), Execution>,
    pub(crate) acknowledged: Vec<(usize, RequestKey, AuditId)>,
    pub(crate) told: BTreeMap<u64, Told>,
    pub(crate) dispatches: u64,
    pub(crate) refusals: u64,
    /// Envelopes that a target has refused under its signature, with the time of the first refusal.
    told_refused: BTreeMap<(usize, Hash), u64>,
    pub(crate) unknowns: u64,
    pub(crate) reads: u64,
    /// Whose wall clock was ever off.
    pub(crate) was_off: Vec<bool>,
    /// When each node last crashed or froze.
    pub(crate) stopped_at: Vec<u64>,
    /// Whose disk was set back by somebody.
    pub(crate) was_set_back: Vec<bool>,
    /// Every head that was countersigned, with the number of its log's node.
    pub(crate) countersigned: Vec<(usize, Checkpoint)>,
    /// How many logs were found countersigned in the calm.
    pub(crate) witnessed: u64,
    pub(crate) boots: Vec<u64>,
    /// Runs, and commands to the workload.
    pub(crate) works: Works,
    pub(crate) chains: Vec<(usize, Hash)>,
    /// Since when the first could not hear the second.
    unreachable: Vec<Vec<Option<u64>>>,
}

impl Ledger {
    pub(crate) fn new(nodes: usize) -> Self {
        Self {
            executions: BTreeMap::new(),
            acknowledged: Vec::new(),
            told: BTreeMap::new(),
            dispatches: 0,
            refusals: 0,
            told_refused: BTreeMap::new(),
            unknowns: 0,
            reads: 0,
            was_off: vec![false; nodes],
            stopped_at: vec![0; nodes],
            was_set_back: vec![false; nodes],
            countersigned: Vec::new(),
            witnessed: 0,
            boots: vec![0; nodes],
            works: Works::default(),
            chains: vec![(0, GENESIS); nodes],
            unreachable: vec![vec![Some(0); nodes]; nodes],
        }
    }

    /// The origin may tell its caller from now on that this envelope was not carried out.
    pub(crate) fn note_refusal(&mut self, node: usize, envelope: Hash, decided: u64) {
        self.refusals += 1;
        self.told_refused.entry((node, envelope)).or_insert(decided);
    }

    pub(crate) fn resumed(&mut self, observer: usize, now: u64) {
        self.unreachable[observer].iter_mut().flatten().for_each(|since| *since = now);
    }
}

/// Whether the target may carry out this write now, by the rules as a person would read them.
pub(crate) fn allowance(truth: &Truth, view: &View, policy: usize, received: &Received, now: Now) -> Allowance {
    let envelope = &received.envelope;
    let genuine = truth.identity_of(&envelope.origin);
    let peer = view.peers.get(&envelope.origin);
    let kind = envelope.action.kind();
    let principal = envelope.actor.principal.as_str();
    let skew = Millis(SKEW);
    let checks = [
        (genuine == Some(received.signer.identity), "signed by somebody else"),
        (received.signer.runtime() == &envelope.origin, "signed for somebody else"),
        (
            envelope.target == *view.me() && truth.identity_of(view.me()) == Some(envelope.target_key),
            "for another target",
        ),
        (kind.is_read() || envelope.target_boot == Some(view.boot), "for another life of the target"),
        (envelope.actor.site.as_str() == "plant-1", "an actor of another site"),
        (envelope.issued <= now.wall.plus(skew), "from the future"),
        (now.wall <= envelope.expires.plus(skew), "expired"),
        (now.wall <= envelope.issued.plus(Millis(kind.window().0 + SKEW)), "a window that is too long"),
        (peer.is_some_and(|peer| Some(peer.pinned) == genuine), "not the pinned key"),
        (
            truth.is_loopback || peer.is_some_and(|peer| peer.trust == TrustState::Trusted) || kind.is_read(),
            "not approved",
        ),
        (truth.profile == Profile::Dev || view.clock == ClockState::Certain || kind.is_read(), "an uncertain clock"),
        (may_ask(principal, kind) && envelope.role <= role_of(principal), "a role too low"),
        (!refuses(policy, principal, kind), "denied by policy"),
        (!is_illegal(&envelope.action), "an illegal value"),
    ];
    let refusal = checks.into_iter().find(|(holds, _)| !holds).map(|(_, why)| why);
    Allowance { refusal, digest: envelope.digest(), envelope: Some(received.digest) }
}

/// Whether this node may carry out its own part of a write of an own caller.
pub(crate) fn own_allowance(view: &View, write: &Write) -> Allowance {
    let is_sound = may_ask(write.asker.actor.principal.as_str(), write.action.kind())
        && !is_illegal(&write.action)
        && write.targets.contains(view.me());
    let digest = envelope::request_digest(&write.asker.actor, &write.action, view.me());
    Allowance { refusal: (!is_sound).then_some("an own write that may not be"), digest, envelope: None }
}

/// The one illegal value that callers of the simulation try.
fn is_illegal(action: &Action) -> bool {
    *action == log_level("loud")
}

fn may_ask(principal: &str, kind: ActionKind) -> bool {
    let least = match kind {
        ActionKind::StatusRead => Role::Viewer,
        ActionKind::CmdInvoke => Role::Operator,
        ActionKind::CfgApply => Role::Engineer,
    };
    least <= role_of(principal)
}

impl World {
    pub(crate) fn check_decided(&mut self, node: usize, turn: &Turn) {
        let is_read_only = self.nodes[node].live.as_ref().is_some_and(|live| live.engine.view().is_read_only);
        if is_read_only && !turn.effects.batch.is_empty() {
            let detail = format!("n{node}: {:?}", turn.effects.batch);
            self.breach("a read-only engine decides nothing that would have to be durable", detail);
        }
    }

    pub(crate) fn check_committed(&mut self, node: usize, before: &Facts, turn: &Turn) {
        let mut overlay = before.overlay.clone().unwrap_or_default().revision;
        let mut forgotten = BTreeSet::new();
        for record in &turn.effects.batch.records {
            match record {
                Record::Receipt(receipt) => self.check_execution(node, receipt, turn),
                Record::ReceiptDropped(key) => {
                    if let Some(execution) = self.ledger.executions.get_mut(&(node, key.clone())) {
                        execution.is_forgotten = true;
                    }
                    self.ledger.works.forget(node, key);
                }
                Record::Overlay(next) => {
                    if next.revision != overlay + 1 {
                        let detail = format!("n{node}: from {overlay} to {}", next.revision);
                        self.breach(
                            "a configuration's revision rises by one with each change and never goes back",
                            detail,
                        );
                    }
                    overlay = next.revision;
                }
                Record::PeerForgotten { runtime } => drop(forgotten.insert(runtime.clone())),
                Record::Peer(peer) => {
                    let known = before.peers.get(&peer.runtime).filter(|_| !forgotten.contains(&peer.runtime));
                    let is_changed = known.is_some_and(|known| known.pinned != peer.pinned);
                    if is_changed || self.truth.identity_of(&peer.runtime) != Some(peer.pinned) {
                        let detail = format!("n{node} pins {peer:?}");
                        self.breach("no attacker's and no replayed message changes a pin", detail);
                    }
                }
                Record::Boot { .. }
                | Record::ClockMark { .. }
                | Record::Countersigned(_)
                | Record::CountersignedForgotten { .. }
                | Record::Head { .. }
                | Record::HeadForgotten { .. }
                | Record::DroppedUntil { .. }
                | Record::Intent(_)
                | Record::IntentClosed(_)
                | Record::Deed(_)
                | Record::DeedClosed(_)
                | Record::Run(_)
                | Record::RunClosed(_) => {}
            }
        }
        self.check_work(node, before, turn);
        self.check_heads_kept(node, before, turn);
        self.check_chain(node);
        self.check_recovery(node);
    }

    fn check_execution(&mut self, node: usize, receipt: &Receipt, turn: &Turn) {
        let allowances = turn.allowances.get(&receipt.key).cloned().unwrap_or_default();
        let fitting: Vec<_> = allowances.iter().filter(|it| it.digest == receipt.digest).collect();
        if !fitting.iter().any(|it| it.refusal.is_none()) {
            let detail = format!("n{node} executed {} although: {fitting:?}", receipt.key.request_id);
            self.breach("nothing is executed without an allow of the target's own policy at that moment", detail);
        }
        let envelopes: BTreeSet<Hash> = fitting.iter().filter_map(|it| it.envelope).collect();
        // Where several envelopes of one request came together, and where its own caller asked too, it may be another's work.
        let is_own = fitting.iter().any(|it| it.envelope.is_none());
        if !is_own && envelopes.iter().all(|envelope| self.ledger.told_refused.contains_key(&(node, *envelope))) {
            let detail = format!("n{node} executed {} of {}", receipt.key.request_id, receipt.key.actor);
            self.breach("a write whose refusal was signed is never carried out, across restarts", detail);
        }
        let place = (node, receipt.key.clone());
        self.log(format!("n{node} executed {} {}", receipt.key.request_id, short(receipt.digest)));
        let known = self.ledger.executions.get(&place);
        if known.is_some_and(|known| !known.is_forgotten || !known.envelopes.is_disjoint(&envelopes)) {
            let detail = format!("n{node} executed {} of {} again", receipt.key.request_id, receipt.key.actor);
            self.breach("at most one execution per actor and request id at a target, across restarts", detail);
        }
        let is_audited = turn
            .effects
            .batch
            .audits
            .iter()
            .any(|it| it.audit_id == receipt.audit_id && it.outcome == Outcome::Applied);
        if !is_audited {
            let detail = format!("n{node}: {}", receipt.key.request_id);
            self.breach("an execution and its audit record are one transaction", detail);
        }
        self.ledger.executions.insert(place, Execution::of(receipt, envelopes, turn.written.unwrap_or(self.now)));
    }

    fn check_chain(&mut self, node: usize) {
        let (seen, mut previous) = self.ledger.chains[node];
        let entries = &self.nodes[node].disk.entries;
        let mut broken = entries.len() < seen;
        for (index, entry) in entries.iter().enumerate().skip(seen) {
            let hash = Hash::chain(previous, format!("{:?}", entry.draft).as_bytes());
            let position = entry.position;
            broken |= position.previous != previous
                || position.hash != hash
                || position.seq != u64::try_from(index).unwrap_or(0) + 1;
            previous = hash;
        }
        self.ledger.chains[node] = (entries.len(), previous);
        if broken {
            self.breach("the audit chain verifies and has no gap", format!("n{node}"));
        }
    }

    /// Between a commit and the next decision the engine is what its records say.
    fn check_recovery(&mut self, node: usize) {
        let it = &self.nodes[node];
        let Some(live) = it.live.as_ref().map(|live| live.engine.view()).filter(|view| !view.is_read_only) else {
            return;
        };
        let from_disk = recovered(it, self.now).view();
        let peers = |view: &View| -> Vec<_> {
            view.peers.iter().map(|(id, peer)| (id.clone(), peer.pinned, peer.trust, peer.boot)).collect()
        };
        let is_same = live.overlay == from_disk.overlay
            && live.boot == from_disk.boot
            && live.limits == from_disk.limits
            && live.witnessing == from_disk.witnessing
            && live.runs == from_disk.runs
            && peers(&live) == peers(&from_disk);
        if !is_same {
            let detail = format!("n{node}: {:?} against {:?}", peers(&live), peers(&from_disk));
            self.breach("an engine recovered from the records equals the live one", detail);
        }
    }

    pub(crate) fn check_started(&mut self, node: usize, before: &Facts, turn: &Turn) {
        let boot = self.nodes[node].live.as_ref().map_or(0, |live| live.view.boot);
        if boot <= self.ledger.boots[node] || Some(boot) != self.nodes[node].disk.facts.boot {
            let detail = format!("n{node}: {boot} after {}", self.ledger.boots[node]);
            self.breach("boot counters rise, and are durable before anything is said under them", detail);
        }
        self.ledger.boots[node] = boot;
        if !self.nodes[node].disk.facts.intents.is_empty() {
            self.breach("a start concludes what an earlier life left open", format!("n{node}"));
        }
        self.check_committed(node, before, turn);
        self.check_acknowledged(node);
        self.check_heads_held(node);
    }

    fn check_acknowledged(&mut self, node: usize) {
        let receipts = &self.nodes[node].disk.facts.receipts;
        let is_forgotten =
            |key: &RequestKey| self.ledger.executions.get(&(node, key.clone())).is_some_and(|it| it.is_forgotten);
        let lost = self.ledger.acknowledged.iter().find(|(target, key, audit_id)| {
            *target == node && !is_forgotten(key) && receipts.get(key).is_none_or(|kept| kept.audit_id != *audit_id)
        });
        if let Some((_, key, _)) = lost {
            let detail = format!("n{node} lost {}", key.request_id);
            self.breach("what was acknowledged is durable at its target, whatever crashes", detail);
        }
    }

    pub(crate) fn check_answer(
        &mut self,
        node: usize,
        (query, received): (QueryId, &Received),
        receipt: &envelope::Receipt,
        turn: &Turn,
    ) {
        let envelope = &received.envelope;
        let key = RequestKey { actor: envelope.actor.clone(), request_id: envelope.request_id.clone() };
        let is_genuine = self.truth.identity_of(received.signer.runtime()) == Some(received.signer.identity);
        match &receipt.ruling {
            Ruling::Done(_) => {
                let kept = self.nodes[node].disk.facts.receipts.get(&key);
                let is_recorded = self.nodes[node].disk.entries.iter().any(|it| it.draft.audit_id == receipt.audit_id);
                if !is_recorded || kept.is_none_or(|kept| kept.audit_id != receipt.audit_id) {
                    self.breach(
                        "no answer before its record is durable",
                        format!("n{node} answers {}", key.request_id),
                    );
                } else if kept.is_some_and(|kept| kept.digest != envelope.digest()) {
                    let detail = format!("n{node} answers {}", key.request_id);
                    self.breach("the same request id with another content is a conflict", detail);
                }
                if !is_genuine {
                    let detail = format!("n{node} tells {} to an impostor", key.request_id);
                    self.breach("a receipt is given to nobody but the bearer of a pinned key", detail);
                }
            }
            Ruling::Refused(denial) => {
                // What was refused first may be carried out in the same batch, because it was sent a second time.
                let execution = self.ledger.executions.get(&(node, key.clone()));
                let is_later =
                    |it: &&Execution| turn.is_decided_before(query, it.audit_id) && it.is_of_another(received.digest);
                let later = execution.filter(is_later).map(|it| it.at.saturating_sub(1));
                let known = execution.filter(|it| !it.is_forgotten && later.is_none());
                if is_genuine && known.is_some_and(|known| known.digest == envelope.digest()) {
                    let detail = format!("n{node} refuses {} with {}", key.request_id, denial.code);
                    self.breach("a target never says that it refused what it executed", detail);
                }
                self.ledger.note_refusal(node, received.digest, later.unwrap_or(self.now));
            }
        }
    }

    pub(crate) fn check_read(&mut self, node: usize, received: &Received, receipt: &envelope::Receipt) {
        let now = self.nodes[node].now(self.now);
        let policy = self.nodes[node].policy;
        let Some(live) = self.nodes[node].live.as_ref() else { return };
        let allowance = allowance(&self.truth, &live.view, policy, received, now);
        if let (Ruling::Done(_), Some(why)) = (&receipt.ruling, allowance.refusal) {
            self.breach("a read is answered only to a verified role", format!("n{node}: {why}"));
        }
    }

    pub(crate) fn check_all_answered(&mut self, node: usize, turn: &Turn) {
        if !turn.queries.is_empty() || !turn.replies.is_empty() {
            let detail = format!("n{node}: {} queries, {} replies", turn.queries.len(), turn.replies.len());
            self.breach("every query and every caller gets an answer", detail);
        }
    }

    pub(crate) fn check_begun(&mut self, node: usize, number: u64, started: &[Started]) {
        let Some(dispatch) = self.nodes[node].live.as_ref().and_then(|live| live.dispatches.get(&number)) else {
            return;
        };
        let write = &dispatch.write;
        let request = RequestKey { actor: write.asker.actor.clone(), request_id: write.request_id.clone() };
        let facts = &self.nodes[node].disk.facts;
        // What answers a repetition may be so old that it is forgotten in the same turn.
        let executed = self.ledger.executions.get(&(node, request.clone()));
        let is_durable = started.iter().all(|part| match part {
            Started::Send(envelope) => {
                facts.intents.contains_key(&IntentKey { request: request.clone(), target: envelope.target.clone() })
            }
            Started::Here { ruling: Ruling::Done(_), audit_id } => {
                facts.receipts.get(&request).is_some_and(|kept| kept.audit_id == *audit_id)
                    || executed.is_some_and(|it| it.is_forgotten && it.audit_id == *audit_id)
            }
            Started::Here { ruling: Ruling::Refused(_), .. } => true,
        });
        if !is_durable {
            self.breach(
                "nothing is sent before its intent is durable",
                format!("n{node} sends {}", request.request_id),
            );
        }
    }

    /// What a caller is told of one target, against what really happened there.
    pub(crate) fn check_finding(&mut self, origin: usize, number: u64, part: usize, finding: &Finding) {
        let Some(dispatch) = self.nodes[origin].live.as_ref().and_then(|live| live.dispatches.get(&number)) else {
            return;
        };
        let Some(part) = dispatch.parts.get(part) else { return };
        let (target, envelope, sent) = (part.target, part.envelope.clone(), part.digest);
        let what = format!("#{number} {} at n{target}", envelope.request_id);
        if envelope.action.kind().is_read() {
            self.ledger.reads += u64::from(matches!(finding, Finding::Receipt(_)));
            return;
        }
        let key = RequestKey { actor: envelope.actor.clone(), request_id: envelope.request_id.clone() };
        let execution = self.ledger.executions.get(&(target, key.clone())).cloned();
        let is_executed = execution.as_ref().is_some_and(|it| it.digest == envelope.digest() && !it.is_forgotten);
        // Its answer may have been on the way while the same request was carried out, because it was sent a second time.
        let refused = self.ledger.told_refused.get(&(target, sent));
        let was_refused = execution.as_ref().zip(refused).is_some_and(|(it, refused)| *refused < it.at);
        match finding {
            Finding::Receipt(receipt) => match &receipt.ruling {
                // A target may have forgotten by now what it had executed when it answered.
                Ruling::Done(_) if execution.as_ref().is_some_and(|it| it.is(envelope.digest(), receipt.audit_id)) => {
                    self.ledger.acknowledged.push((target, key, receipt.audit_id));
                    self.check_told_run(target, &receipt.ruling);
                }
                Ruling::Done(_) => self.breach("an acknowledgement means that it was executed", what),
                Ruling::Refused(_) if is_executed && !was_refused => {
                    self.breach("not executed is never claimed of what was executed", what);
                }
                Ruling::Refused(_) => {}
            },
            Finding::Denied(denial) if denial.code == Code::Timeout => self.ledger.unknowns += 1,
            Finding::Denied(denial) => {
                if execution.is_some_and(|it| it.envelopes.contains(&sent)) {
                    let what = format!("{what}: {} {}", denial.code, denial.reason);
                    self.breach("not executed is never claimed of what was executed", what);
                }
            }
        }
    }

    /// Notes since when each node cannot hear each other one.
    pub(crate) fn reach_changed(&mut self) {
        let now = self.now;
        for observer in 0..self.nodes.len() {
            for other in 0..self.nodes.len() {
                let is_heard = self.nodes[other].is_running() && !self.network.is_cut(observer, other);
                let since = &mut self.ledger.unreachable[observer][other];
                *since = if is_heard { None } else { since.or(Some(now)) };
            }
        }
    }

    /// How much longer than without an attacker a word may count. One who relays a word of a living node round a cut tells
    /// the truth, and with a wrong clock at either end a word's age is not known.
    fn replayable(&self, observer: usize, other: usize) -> u64 {
        let is_unclear = self.nodes[other].is_running() || [observer, other].iter().any(|it| self.ledger.was_off[*it]);
        // A dead node's last word may have been signed at its death, which is not before the silence began.
        let died_at = self.ledger.stopped_at[other];
        let since = self.ledger.unreachable[observer][other].unwrap_or(self.now);
        if is_unclear { self.now } else { SKEW + died_at.saturating_sub(since) }
    }

    pub(crate) fn check_view(&mut self, node: usize) {
        let monotonic = self.nodes[node].monotonic_of(self.now);
        let Some(live) = self.nodes[node].live.as_ref() else { return };
        let view = &live.view;
        let mut wrong = None;
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            let Some(since) = self.ledger.unreachable[node][other] else { continue };
            let lifecycle = view.standing(&runtime(other), monotonic).map(|it| it.lifecycle);
            let bound = view.limits.partition.0 + DELAY_MAX;
            let bound = if self.attacker.replays_words { bound + self.replayable(node, other) } else { bound };
            let silent = self.now - since;
            if lifecycle == Some(Lifecycle::Online) && bound < silent {
                wrong = Some(format!("n{node} shows n{other} online after {silent} ms of silence"));
            }
        }
        if let Some(detail) = wrong {
            self.breach("nothing that is dead or cut off is shown online", detail);
        }
    }
}
