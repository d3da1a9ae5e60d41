//! One node's disk: a commit is all or nothing, may fail, and is all that outlives a crash.

use std::collections::BTreeMap;
use std::sync::Arc;

use trust_runtime::domain::audit::witness::Head;
use trust_runtime::domain::audit::{Entry, GENESIS, Hash, Position};
use trust_runtime::domain::config::Overlay;
use trust_runtime::domain::id::RuntimeId;
use trust_runtime::domain::run::RunId;
use trust_runtime::domain::time::Wall;
use trust_runtime::engine::effect::Effects;
use trust_runtime::engine::input::ReplyId;
use trust_runtime::engine::record::{
    Batch, Countersigned, Deed, Intent, IntentKey, OpenRun, Peer, Receipt, Record, RequestKey,
};

use crate::invariant::Allowance;
use crate::turn::Purpose;

/// How the disk does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    /// Fails every commit until a restart finds it repaired.
    Broken,
    Fine,
    /// Fails every commit until somebody frees space.
    Full,
}

/// The newest of every fact, by what it is about (see `engine::record`).
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Facts {
    pub(crate) boot: Option<u64>,
    pub(crate) mark: Option<Wall>,
    pub(crate) dropped_until: Option<Wall>,
    pub(crate) overlay: Option<Overlay>,
    pub(crate) peers: BTreeMap<RuntimeId, Peer>,
    pub(crate) receipts: BTreeMap<RequestKey, Receipt>,
    pub(crate) intents: BTreeMap<IntentKey, Intent>,
    pub(crate) deeds: BTreeMap<RequestKey, Deed>,
    pub(crate) runs: BTreeMap<RunId, Arc<OpenRun>>,
    pub(crate) countersigned: BTreeMap<RuntimeId, Box<Countersigned>>,
    pub(crate) heads: BTreeMap<RuntimeId, Box<Head>>,
}

#[derive(Debug, Clone)]
pub(crate) struct Disk {
    pub(crate) facts: Facts,
    pub(crate) entries: Vec<Entry>,
    pub(crate) condition: Condition,
    /// Where it lies: what is really on it. Every commit since then is confirmed, and gone with the next crash.
    pub(crate) kept: Option<Box<(Facts, Vec<Entry>)>>,
    /// A batch whose commit failed, and which the next start finds all the same.
    pub(crate) written: Option<Box<Written>>,
    /// Whether it has refused a batch since it broke.
    pub(crate) has_failed: bool,
}

/// A batch with what else was decided in its turn, who asked, and what the oracle said of each write in it.
#[derive(Debug, Clone)]
pub(crate) struct Written {
    pub(crate) effects: Effects,
    pub(crate) replies: BTreeMap<ReplyId, Purpose>,
    pub(crate) allowances: BTreeMap<RequestKey, Vec<Allowance>>,
    /// When its commit was said to have failed.
    pub(crate) at: u64,
}

impl Disk {
    pub(crate) fn empty() -> Self {
        Self {
            facts: Facts::default(),
            entries: Vec::new(),
            condition: Condition::Fine,
            kept: None,
            written: None,
            has_failed: false,
        }
    }

    /// From now on it confirms what it does not keep.
    pub(crate) fn begin_to_lie(&mut self) {
        self.kept = Some(Box::new((self.facts.clone(), self.entries.clone())));
    }

    /// Its machine loses power: what was never on it is gone.
    pub(crate) fn crash(&mut self) {
        if let Some(kept) = self.kept.take() {
            (self.facts, self.entries) = *kept;
        }
    }

    /// All of the batch or nothing of it; each audit record gets its place.
    pub(crate) fn commit(&mut self, batch: &Batch) -> Result<Vec<Position>, Condition> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        if self.condition != Condition::Fine {
            return Err(self.condition);
        }
        // It lies where a failed one would have been.
        self.written = None;
        batch.records.iter().for_each(|record| self.facts.take(record.clone()));
        let mut positions = Vec::new();
        for draft in &batch.audits {
            let (seq, previous) =
                self.entries.last().map_or((0, GENESIS), |last| (last.position.seq, last.position.hash));
            let hash = Hash::chain(previous, format!("{draft:?}").as_bytes());
            let position = Position { seq: seq + 1, previous, hash };
            positions.push(position);
            self.entries.push(Entry { draft: draft.clone(), position });
        }
        Ok(positions)
    }

    /// What a start reads back.
    pub(crate) fn recall(&self) -> Vec<Record> {
        self.facts.recall()
    }
}

impl Facts {
    /// The newest of every fact, as records.
    pub(crate) fn recall(&self) -> Vec<Record> {
        let Self { boot, mark, dropped_until, overlay, peers, receipts, intents, deeds, runs, countersigned, heads } =
            self.clone();
        let mut records = Vec::new();
        records.extend(boot.map(|counter| Record::Boot { counter }));
        records.extend(mark.map(|wall| Record::ClockMark { wall }));
        records.extend(dropped_until.map(|wall| Record::DroppedUntil { wall }));
        records.extend(overlay.map(Record::Overlay));
        records.extend(peers.into_values().map(Record::Peer));
        records.extend(receipts.into_values().map(Record::Receipt));
        records.extend(intents.into_values().map(Record::Intent));
        records.extend(deeds.into_values().map(Record::Deed));
        records.extend(runs.into_values().map(Record::Run));
        records.extend(countersigned.into_values().map(Record::Countersigned));
        records.extend(heads.into_iter().map(|(runtime, head)| Record::Head { runtime, head }));
        records
    }

    pub(crate) fn take(&mut self, record: Record) {
        match record {
            Record::Boot { counter } => self.boot = Some(counter),
            Record::ClockMark { wall } => self.mark = Some(wall),
            Record::DroppedUntil { wall } => self.dropped_until = Some(wall),
            Record::Countersigned(word) => drop(self.countersigned.insert(word.witness.clone(), word)),
            Record::CountersignedForgotten { witness } => drop(self.countersigned.remove(&witness)),
            Record::Head { runtime, head } => drop(self.heads.insert(runtime, head)),
            Record::HeadForgotten { runtime } => drop(self.heads.remove(&runtime)),
            Record::Intent(intent) => drop(self.intents.insert(intent.key.clone(), intent)),
            Record::IntentClosed(key) => drop(self.intents.remove(&key)),
            Record::Deed(deed) => drop(self.deeds.insert(deed.key.clone(), deed)),
            Record::DeedClosed(key) => drop(self.deeds.remove(&key)),
            Record::Run(run) => drop(self.runs.insert(run.run, run)),
            Record::RunClosed(run) => drop(self.runs.remove(&run)),
            Record::Overlay(overlay) => self.overlay = Some(overlay),
            Record::Peer(peer) => drop(self.peers.insert(peer.runtime.clone(), peer)),
            Record::PeerForgotten { runtime } => drop(self.peers.remove(&runtime)),
            Record::Receipt(receipt) => drop(self.receipts.insert(receipt.key.clone(), receipt)),
            Record::ReceiptDropped(key) => drop(self.receipts.remove(&key)),
        }
    }
}
