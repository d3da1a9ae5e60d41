//! Builds the engine from what is durable, at a start and after a failed commit.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::domain::audit::{Draft, Outcome};
use crate::domain::code::Code;
use crate::domain::config::Overlay;
use crate::domain::identity::{Fingerprint, SpiffeId};
use crate::domain::projection::Limits;
use crate::domain::time::{Millis, Monotonic, Now, Wall};
use crate::engine::effect::Effects;
use crate::engine::lapse::Lapses;
use crate::engine::receipts::Receipts;
use crate::engine::record::{Deed, Intent, OpenRun, Peer, Record};
use crate::engine::refusals::Refusals;
use crate::engine::steady::SteadyClock;
use crate::engine::under_way::UnderWay;
use crate::engine::view::{self, Settings, Witnessing};
use crate::engine::{Engine, Entropy, audit_id};

/// Why the records cannot be this runtime's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A removal stands among the newest facts.
    #[error("wanted facts, got a removal: {0}")]
    Removal(&'static str),
}

/// The facts, sorted by what they are about.
#[derive(Default)]
struct Facts {
    boot: u64,
    mark: Wall,
    dropped_until: Wall,
    overlay: Overlay,
    peers: Vec<Peer>,
    witnessing: Witnessing,
    receipts: Vec<crate::engine::record::Receipt>,
    intents: Vec<Intent>,
    deeds: Vec<Deed>,
    runs: Vec<Arc<OpenRun>>,
}

impl Engine {
    /// Begins a new boot: the counter rises, and sent writes whose outcome is not on record are put there as unknown.
    /// The effects must be durable before anything else happens.
    pub fn start(
        settings: Arc<Settings>,
        identity: Fingerprint,
        records: impl IntoIterator<Item = Record>,
        now: Now,
        entropy: &mut dyn Entropy,
    ) -> Result<(Self, Effects), Error> {
        let mut facts = sort(records)?;
        let intents = std::mem::take(&mut facts.intents);
        let mut engine = Self::of_facts(settings, identity, facts, now);
        let mut effects = Effects::default();
        engine.boot = engine.boot.saturating_add(1);
        effects.persist(Record::Boot { counter: engine.boot });
        engine.close_intents(intents, now, entropy, &mut effects);
        engine.close_interrupted_work(now, entropy, &mut effects);
        engine.let_the_file_win(now, entropy, &mut effects);
        Ok((engine, effects))
    }

    /// The engine as the records say, in the boot they say.
    pub fn recover(
        settings: Arc<Settings>,
        identity: Fingerprint,
        records: impl IntoIterator<Item = Record>,
        now: Now,
    ) -> Result<Self, Error> {
        Ok(Self::of_facts(settings, identity, sort(records)?, now))
    }

    fn of_facts(settings: Arc<Settings>, identity: Fingerprint, facts: Facts, now: Now) -> Self {
        let mut engine = Self {
            settings,
            limits: Limits::default(),
            receipts_kept: Millis::default(),
            identity,
            retired: Arc::default(),
            boot: facts.boot,
            started: now,
            clock: SteadyClock::starting_at(now, facts.mark),
            lapses: Lapses::starting_at(now.monotonic),
            peers: facts.peers.into_iter().map(known_peer).collect(),
            touched: Vec::new(),
            sweep_at: Monotonic::default(),
            witnessing: Arc::new(facts.witnessing),
            unsaved_boots: BTreeSet::new(),
            overlay: Arc::new(facts.overlay),
            receipts: Receipts::default(),
            refusals: Refusals::default(),
            dropped_until: facts.dropped_until,
            under_way: UnderWay::default(),
            deeds: facts.deeds.into_iter().map(|deed| (deed.key.clone(), deed)).collect(),
            runs: Arc::new(facts.runs.into_iter().map(|run| (run.run, run)).collect()),
            late: Vec::new(),
            resuming: Vec::new(),
            impostors: BTreeSet::new(),
            timeline: Arc::new(VecDeque::new()),
            events: 0,
            refused: Arc::default(),
            generation: 0,
            is_read_only: false,
            has_forgotten: false,
            doubted: BTreeMap::new(),
            runs_fault: None,
        };
        engine.apply_overlay();
        facts.receipts.into_iter().for_each(|receipt| engine.receipts.keep(receipt));
        engine
    }

    /// A value edited in the file beats what was applied over it, and that is on record (DESIGN, *What cfg_apply may touch*).
    pub(super) fn let_the_file_win(&mut self, now: Now, entropy: &mut dyn Entropy, effects: &mut Effects) {
        let (overlay, mut edited) = self.overlay.without_edited(&self.settings.file_values);
        if edited.is_empty() {
            return;
        }
        self.overlay = Arc::new(overlay);
        self.apply_overlay();
        if !self.limits.is_ordered() {
            // What is left of the applied times contradicts the edited ones: the file's times stand together.
            let (overlay, timing) = self.overlay.without(|key| key.starts_with("mesh.timing."));
            edited.extend(timing);
            self.overlay = Arc::new(overlay);
            self.apply_overlay();
        }
        effects.persist(Record::Overlay((*self.overlay).clone()));
        effects.audit(Draft {
            audit_id: audit_id(now, entropy),
            at: now.wall,
            actor: SpiffeId::of_runtime(&self.settings.trust_domain, self.me()).to_string(),
            actor_verified: true,
            origin: self.me().clone(),
            action: "overlay_dropped".to_owned(),
            target: self.me().clone(),
            request_id: None,
            outcome: Outcome::Applied,
            code: None,
            detail: format!("edited in the file since: {}", edited.join(", ")),
            policy_hash: self.settings.policy_hash,
        });
    }

    /// This engine as it was when it was last shown, where the durable facts cannot be read. Receipts are in no view, so none
    /// is believed: a repeated request is refused rather than answered with what may never have become durable. As it may have
    /// been carried out, no refusal of a write is signed until the facts are known again.
    pub fn go_back_to(&mut self, shown: &view::View) {
        self.peers = shown.peers.clone();
        self.witnessing = Arc::clone(&shown.witnessing);
        self.overlay = Arc::clone(&shown.overlay);
        self.apply_overlay();
        self.under_way.take_back();
        self.receipts = Receipts::default();
        self.has_forgotten = true;
        self.change();
    }

    /// This engine with nothing but durable facts, after a commit failed: what was heard of peers stays, because it was
    /// never meant to be durable.
    pub fn rebuilt(&self, records: impl IntoIterator<Item = Record>, now: Now) -> Result<Self, Error> {
        let mut engine = Self::recover(Arc::clone(&self.settings), self.identity, records, now)?;
        let mark = engine.clock.durable_mark();
        engine.boot = self.boot;
        engine.started = self.started;
        engine.retired = Arc::clone(&self.retired);
        engine.clock = self.clock.with_durable_mark(mark);
        engine.resuming.clone_from(&self.resuming);
        engine.late.clone_from(&self.late);
        engine.refusals.clone_from(&self.refusals);
        engine.doubted.clone_from(&self.doubted);
        engine.runs_fault.clone_from(&self.runs_fault);
        engine.under_way.clone_from(&self.under_way);
        engine.under_way.take_back();
        engine.timeline = Arc::clone(&self.timeline);
        engine.events = self.events;
        engine.lapses.clone_from(&self.lapses);
        engine.refused = Arc::clone(&self.refused);
        engine.generation = self.generation.saturating_add(1);
        for (runtime, durable) in &engine.peers.clone() {
            let heard =
                self.peers.get(runtime).filter(|peer| peer.pinned == durable.pinned && durable.boot <= peer.boot);
            if let Some(heard) = heard {
                if durable.boot < heard.boot {
                    engine.unsaved_boots.insert(runtime.clone());
                }
                let known = view::Peer { trust: durable.trust, ..(**heard).clone() };
                engine.peers.insert_mut(runtime.clone(), Arc::new(known));
            }
        }
        Ok(engine)
    }

    /// Whatever was under way in the life before: nobody waits for its outcome any more.
    fn close_intents(&self, intents: Vec<Intent>, now: Now, entropy: &mut dyn Entropy, effects: &mut Effects) {
        for Intent { key, action, .. } in intents {
            effects.audit(Draft {
                audit_id: audit_id(now, entropy),
                at: now.wall,
                actor: key.request.actor.to_string(),
                actor_verified: false,
                origin: self.me().clone(),
                action,
                target: key.target.clone(),
                request_id: Some(key.request.request_id.clone()),
                outcome: Outcome::Unknown,
                code: Some(Code::Interrupted),
                detail: "this runtime stopped before it heard the outcome".to_owned(),
                policy_hash: self.settings.policy_hash,
            });
            effects.persist(Record::IntentClosed(key));
        }
    }
}

fn known_peer(peer: Peer) -> (crate::domain::id::RuntimeId, Arc<view::Peer>) {
    let known = view::Peer { trust: peer.trust, boot: peer.boot, ..view::Peer::unheard(peer.pinned) };
    (peer.runtime, Arc::new(known))
}

fn sort(records: impl IntoIterator<Item = Record>) -> Result<Facts, Error> {
    let mut facts = Facts::default();
    for record in records {
        match record {
            Record::Boot { counter } => facts.boot = counter,
            Record::ClockMark { wall } => facts.mark = wall,
            Record::DroppedUntil { wall } => facts.dropped_until = wall,
            Record::Countersigned(word) => {
                facts.witnessing.countersigned.insert(word.witness.clone(), *word);
            }
            Record::Head { runtime, head } => drop(facts.witnessing.heads.insert(runtime, *head)),
            Record::Deed(deed) => facts.deeds.push(deed),
            Record::Run(run) => facts.runs.push(run),
            Record::DeedClosed(_) => return Err(Error::Removal("deed")),
            Record::RunClosed(_) => return Err(Error::Removal("run")),
            Record::Intent(intent) => facts.intents.push(intent),
            Record::Overlay(overlay) => facts.overlay = overlay,
            Record::Peer(peer) => facts.peers.push(peer),
            Record::Receipt(receipt) => facts.receipts.push(receipt),
            Record::CountersignedForgotten { .. } => return Err(Error::Removal("countersigned")),
            Record::HeadForgotten { .. } => return Err(Error::Removal("head")),
            Record::IntentClosed(_) => return Err(Error::Removal("intent")),
            Record::PeerForgotten { .. } => return Err(Error::Removal("peer")),
            Record::ReceiptDropped(_) => return Err(Error::Removal("receipt")),
        }
    }
    Ok(facts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::config::Value;
    use crate::engine::tests::{self, Zeros};

    fn timing(pairs: &[(&str, i64)]) -> BTreeMap<String, Value> {
        pairs.iter().map(|(name, millis)| (format!("mesh.timing.{name}"), Value::Int(*millis))).collect()
    }

    fn settings(partition: i64) -> Arc<Settings> {
        let file = timing(&[("period_ms", 1_000), ("stale_ms", 2_000), ("partition_ms", partition)]);
        let limits = Limits { partition: Millis(u64::try_from(partition).expect("positive")), ..Limits::default() };
        Arc::new(Settings { limits, file_values: file, ..tests::settings() })
    }

    #[test]
    fn edited_times_that_contradict_the_applied_ones_stand_alone() {
        let applied = timing(&[("stale_ms", 6_000), ("partition_ms", 8_000)]);
        let (overlay, _) = Overlay::default().with(&applied, &settings(4_000).file_values);
        let start = |partition| {
            let records = [Record::Overlay(overlay.clone())];
            let identity = Fingerprint([0; 32]);
            Engine::start(settings(partition), identity, records, Now::default(), &mut Zeros).expect("starts")
        };
        let (unedited, _) = start(4_000);
        assert_eq!((unedited.limits.stale, unedited.limits.partition), (Millis(6_000), Millis(8_000)));
        let (edited, effects) = start(5_000);
        assert_eq!((edited.limits.stale, edited.limits.partition), (Millis(2_000), Millis(5_000)));
        assert!(edited.overlay.values.is_empty());
        assert_eq!(effects.batch.audits.len(), 1, "it is on record");
    }
}
