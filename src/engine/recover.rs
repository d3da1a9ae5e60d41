//! Builds the engine from what is durable, at a start and after a failed commit.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::domain::audit::{Draft, Outcome};
use crate::domain::code::Code;
use crate::domain::config::Overlay;
use crate::domain::identity::{Fingerprint, SpiffeId};
use crate::domain::projection::Limits;
use crate::domain::time::{Millis, Now, Wall};
use crate::engine::effect::Effects;
use crate::engine::record::{Intent, Peer, Record};
use crate::engine::steady::SteadyClock;
use crate::engine::view::{self, Settings};
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
    overlay: Overlay,
    peers: Vec<Peer>,
    receipts: Vec<crate::engine::record::Receipt>,
    intents: Vec<Intent>,
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
        let mut engine = Self::recover(settings, identity, records, now)?;
        let mut effects = Effects::default();
        engine.boot = engine.boot.saturating_add(1);
        effects.persist(Record::Boot { counter: engine.boot });
        engine.close_open_intents(now, entropy, &mut effects);
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
        let facts = sort(records)?;
        let mut engine = Self {
            settings,
            limits: Limits::default(),
            receipts_kept: Millis::default(),
            identity,
            boot: facts.boot,
            started: now,
            clock: SteadyClock::starting_at(now, facts.mark),
            peers: Arc::new(facts.peers.into_iter().map(known_peer).collect()),
            unsaved_boots: BTreeSet::new(),
            overlay: Arc::new(facts.overlay),
            receipts: BTreeMap::new(),
            receipts_by_age: BTreeSet::new(),
            receipts_of: BTreeMap::new(),
            dropped_until: Wall::default(),
            intents: facts.intents.into_iter().map(|intent| (intent.key.clone(), intent)).collect(),
            timeline: Arc::new(VecDeque::new()),
            events: 0,
            refused: Arc::default(),
            generation: 0,
            is_read_only: false,
        };
        engine.apply_overlay();
        facts.receipts.into_iter().for_each(|receipt| engine.keep(receipt));
        Ok(engine)
    }

    /// A value edited in the file beats what was applied over it, and that is on record (DESIGN, *What cfg_apply may touch*).
    fn let_the_file_win(&mut self, now: Now, entropy: &mut dyn Entropy, effects: &mut Effects) {
        let (overlay, edited) = self.overlay.without_edited(&self.settings.file_values);
        if edited.is_empty() {
            return;
        }
        self.overlay = Arc::new(overlay.clone());
        self.apply_overlay();
        effects.persist(Record::Overlay(overlay));
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

    /// This engine with nothing but durable facts, after a commit failed: what was heard of peers stays, because it was
    /// never meant to be durable.
    pub fn rebuilt(&self, records: impl IntoIterator<Item = Record>, now: Now) -> Result<Self, Error> {
        let mut engine = Self::recover(Arc::clone(&self.settings), self.identity, records, now)?;
        engine.boot = self.boot;
        engine.started = self.started;
        engine.clock = self.clock;
        engine.dropped_until = self.dropped_until;
        engine.timeline = Arc::clone(&self.timeline);
        engine.events = self.events;
        engine.refused = Arc::clone(&self.refused);
        engine.generation = self.generation.saturating_add(1);
        for (runtime, durable) in Arc::make_mut(&mut engine.peers) {
            let heard =
                self.peers.get(runtime).filter(|peer| peer.pinned == durable.pinned && durable.boot <= peer.boot);
            if let Some(heard) = heard {
                if durable.boot < heard.boot {
                    engine.unsaved_boots.insert(runtime.clone());
                }
                *durable = Arc::new(view::Peer { trust: durable.trust, ..(**heard).clone() });
            }
        }
        Ok(engine)
    }

    fn close_open_intents(&mut self, now: Now, entropy: &mut dyn Entropy, effects: &mut Effects) {
        for (key, intent) in std::mem::take(&mut self.intents) {
            effects.audit(Draft {
                audit_id: audit_id(now, entropy),
                at: now.wall,
                actor: key.request.actor.to_string(),
                actor_verified: false,
                origin: self.me().clone(),
                action: intent.action,
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
            Record::Intent(intent) => facts.intents.push(intent),
            Record::Overlay(overlay) => facts.overlay = overlay,
            Record::Peer(peer) => facts.peers.push(peer),
            Record::Receipt(receipt) => facts.receipts.push(receipt),
            Record::IntentClosed(_) => return Err(Error::Removal("intent")),
            Record::PeerForgotten { .. } => return Err(Error::Removal("peer")),
            Record::ReceiptDropped(_) => return Err(Error::Removal("receipt")),
        }
    }
    Ok(facts)
}
