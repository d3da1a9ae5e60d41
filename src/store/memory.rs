//! The store's contract in memory: for tests, and for a simulation that wants a disk which fails on command.
//!
//! [`Disk`] is the synchronous core. It is a value that outlives the node which wrote it: [`Disk::crash`] leaves exactly what
//! a real disk would still hold.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedMutexGuard;

use super::thinning::Thinning;
use super::{
    Chain, Error, Filter, Full, Growth, PAGE_MAX, Page, Pending, READ_QUEUE_MAX, REFUSALS_MAX_MB, Store, boot_of,
    rotated_for,
};
use crate::domain::audit::{
    AuditId, Checkpoint, Draft, Entry, Extension, Hash, NoteKey, Occasion, Position, Rotated, Tail, Tails, Tree, is_due,
};
use crate::engine::record::{Batch, Record};
use crate::wire::record::audit::{Anchor, place};
use crate::wire::record::{self, Change};

/// Where errors say they happened.
const PLACE: &str = "memory";

/// The quota of the chain of reads until somebody sets one: the default of `store.read_audit_max_mb`.
const READ_QUOTA_MB: u64 = 64;

const BYTES_PER_MB: u64 = 1024 * 1024;

/// What goes wrong at the next commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// No space: this commit fails, the next may succeed.
    NoSpace,
    /// An I/O error: nothing is written until a crash or restart.
    Broken,
    /// An I/O error after the bytes reached the disk: refused now, there after the restart. A failed fsync may do this.
    BrokenButWritten,
}

/// One chain of audit records.
#[derive(Debug, Clone)]
struct Log {
    /// The end of what rotation removed.
    anchor: Anchor,
    end: Anchor,
    bytes: u64,
    records: VecDeque<Logged>,
}

#[derive(Debug, Clone)]
struct Logged {
    entry: Entry,
    canonical: Vec<u8>,
}

impl Logged {
    fn new(draft: Draft, end: Anchor) -> Result<Self, record::Error> {
        let (position, canonical) = place(&draft, end)?;
        Ok(Self { entry: Entry { draft, position }, canonical })
    }
}

impl Log {
    const fn new() -> Self {
        Self { anchor: Anchor::START, end: Anchor::START, bytes: 0, records: VecDeque::new() }
    }

    fn push(&mut self, logged: Logged) {
        self.end = logged.entry.position.into();
        self.bytes = self.bytes.saturating_add(size(&logged.canonical));
        self.records.push_back(logged);
    }

    const fn tail(&self) -> Tail {
        Tail { size: self.end.seq, hash: self.end.hash, first: self.anchor.seq.saturating_add(1) }
    }

    /// Removes the oldest until the rest fits, but never the newest.
    fn rotate(&mut self, bytes_max: u64) {
        while bytes_max < self.bytes && 1 < self.records.len() {
            let Some(oldest) = self.records.pop_front() else { return };
            self.bytes = self.bytes.saturating_sub(size(&oldest.canonical));
            self.anchor = oldest.entry.position.into();
        }
    }
}

fn size(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// What is durable.
#[derive(Debug, Clone)]
struct Content {
    facts: BTreeMap<(String, String), String>,
    writes: Log,
    reads: Log,
    refusals: Log,
    evidence: Evidence,
}

/// The checkpoints of the chain of writes.
#[derive(Debug, Clone)]
struct Evidence {
    tree: Tree,
    boot: u64,
    newest: Option<(Checkpoint, String)>,
}

/// A disk in memory, with faults on command.
#[derive(Debug, Clone)]
pub struct Disk {
    content: Content,
    /// What signs checkpoints; a crash forgets it with the process.
    key: Option<NoteKey>,
    /// Records of reads and refusals that nobody has waited for: a crash loses them.
    unsynced: VecDeque<Draft>,
    thinning: Thinning,
    holds_reads: bool,
    hides_facts: bool,
    quota_bytes: u64,
    next: VecDeque<Fault>,
    fault: Option<Error>,
    /// What a restart finds instead, after [`Fault::BrokenButWritten`].
    uncertain: Option<Prepared>,
}

impl Default for Disk {
    fn default() -> Self {
        Self::new()
    }
}

impl Disk {
    /// An empty disk.
    pub const fn new() -> Self {
        let evidence = Evidence { tree: Tree::EMPTY, boot: 0, newest: None };
        let content =
            Content { facts: BTreeMap::new(), writes: Log::new(), reads: Log::new(), refusals: Log::new(), evidence };
        Self {
            content,
            key: None,
            unsynced: VecDeque::new(),
            thinning: Thinning::new(),
            holds_reads: false,
            hides_facts: false,
            quota_bytes: READ_QUOTA_MB.saturating_mul(BYTES_PER_MB),
            next: VecDeque::new(),
            fault: None,
            uncertain: None,
        }
    }

    /// Lets the next commit fail; several calls line up.
    pub fn inject(&mut self, fault: Fault) {
        self.next.push_back(fault);
    }

    /// Keeps read records in the queue, as a slow disk does, until released.
    pub fn hold_reads(&mut self) {
        self.holds_reads = true;
    }

    /// Ends [`Disk::hold_reads`] and writes out what waits.
    pub fn release_reads(&mut self) {
        self.holds_reads = false;
        self.sync_reads();
    }

    /// Lets every recall fail, as a disk that cannot be read does, until [`Disk::show_facts`].
    pub const fn hide_facts(&mut self) {
        self.hides_facts = true;
    }

    /// Ends [`Disk::hide_facts`].
    pub const fn show_facts(&mut self) {
        self.hides_facts = false;
    }

    /// The power fails and comes back: read records that were not written yet are gone, and so is every fault.
    pub fn crash(&mut self) {
        self.unsynced.clear();
        self.thinning = Thinning::new();
        self.key = None;
        self.next.clear();
        self.fault = None;
        self.holds_reads = false;
        self.hides_facts = false;
        if let Some(prepared) = self.uncertain.take() {
            self.content.apply(prepared);
        }
    }

    /// Makes a batch durable, all or nothing.
    pub fn commit(&mut self, batch: &Batch) -> Result<Vec<Position>, Error> {
        if let Some(error @ Error::Broken { .. }) = &self.fault {
            return Err(error.clone());
        }
        let prepared = self.content.prepare(batch).map_err(unreadable)?;
        let positions = prepared.records.iter().map(|logged| logged.entry.position).collect();
        let broken = || Error::Broken { place: PLACE.into(), reason: "injected".into() };
        let outcome = match self.next.pop_front() {
            None => {
                self.content.apply(prepared);
                self.content.evidence.boot = boot_of(batch).unwrap_or(self.content.evidence.boot);
                self.sign(Occasion::Growth);
                Ok(positions)
            }
            Some(Fault::NoSpace) => Err(Error::NoSpace { place: PLACE.into(), is_at_the_end: false }),
            Some(Fault::Broken) => Err(broken()),
            Some(Fault::BrokenButWritten) => {
                self.uncertain = Some(prepared);
                Err(broken())
            }
        };
        self.fault = outcome.as_ref().err().cloned();
        outcome
    }

    /// Lets this key sign checkpoints.
    pub fn sign_checkpoints(&mut self, key: NoteKey) {
        self.key = Some(key);
    }

    /// Signs a checkpoint if one is due.
    pub fn sign(&mut self, occasion: Occasion) {
        let Content { writes, reads, refusals, evidence, .. } = &mut self.content;
        let Some(key) = &self.key else { return };
        let newest = evidence.newest.as_ref().map(|(checkpoint, _)| checkpoint);
        let tails = Tails { reads: Some(reads.tail()), refusals: Some(refusals.tail()) };
        if is_due(newest, writes.end.seq, evidence.boot, &tails, occasion) {
            let known = usize::try_from(evidence.tree.size()).unwrap_or(usize::MAX);
            writes.records.iter().skip(known).for_each(|logged| evidence.tree.push(&logged.canonical));
            let checkpoint = Checkpoint::of(key.name(), &evidence.tree, evidence.boot).with(tails);
            let note = key.sign(&checkpoint.text());
            evidence.newest = Some((checkpoint, note));
        }
    }

    /// The newest checkpoint as a signed note.
    pub fn checkpoint(&self) -> Option<&str> {
        self.content.evidence.newest.as_ref().map(|(_, note)| note.as_str())
    }

    /// The newest checkpoint, with what the chain of writes has grown by.
    pub fn growth(&self, from: u64) -> Option<Growth> {
        let (checkpoint, note) = self.content.evidence.newest.as_ref()?;
        let mut extension = Extension::after(from);
        let wanted = |entry: &Entry| from < entry.position.seq && entry.position.seq <= checkpoint.size;
        let newer = self.content.writes.records.iter().filter(|logged| wanted(&logged.entry));
        newer.for_each(|logged| extension.push(&logged.canonical));
        Some(Growth { note: note.clone(), subtrees: extension.subtrees() })
    }

    /// The newest of every fact, in the order of their keys.
    pub fn recall(&self) -> Result<Vec<Record>, Error> {
        if self.hides_facts {
            return Err(Error::Broken { place: PLACE.into(), reason: "injected".into() });
        }
        let rows = self.content.facts.iter();
        rows.map(|((kind, key), body)| record::decode(kind, key, body).map_err(unreadable)).collect()
    }

    /// Takes the records of a request that changed nothing, or refuses all of them when too many would wait.
    pub fn append_reads(&mut self, drafts: Vec<Draft>) -> Result<(), Full> {
        for chain in Rotated::ALL {
            let of_it = |draft: &&Draft| rotated_for(draft) == chain;
            let added = drafts.iter().filter(of_it).count();
            if READ_QUEUE_MAX < self.unsynced.iter().filter(of_it).count().saturating_add(added) {
                return Err(Full);
            }
        }
        self.unsynced.extend(drafts);
        if !self.holds_reads {
            self.sync_reads();
        }
        Ok(())
    }

    /// Makes the records of reads and refusals durable that wait.
    pub fn sync_reads(&mut self) {
        for draft in std::mem::take(&mut self.unsynced) {
            match rotated_for(&draft) {
                Rotated::Reads => append(&mut self.content.reads, draft),
                Rotated::Refusals => {
                    let kept = self.thinning.take(draft);
                    kept.into_iter().for_each(|draft| append(&mut self.content.refusals, draft));
                }
            }
        }
        self.rotate();
    }

    /// Makes the counts durable of refusals that are not on record one by one.
    fn sync_counts(&mut self) {
        self.thinning.flush().into_iter().for_each(|draft| append(&mut self.content.refusals, draft));
        self.rotate();
    }

    fn rotate(&mut self) {
        self.content.reads.rotate(self.quota_bytes);
        self.content.refusals.rotate(REFUSALS_MAX_MB.saturating_mul(BYTES_PER_MB));
    }

    /// Changes the quota of the chain of reads.
    pub fn set_read_quota(&mut self, megabytes: u64) {
        self.quota_bytes = megabytes.saturating_mul(BYTES_PER_MB);
        self.content.reads.rotate(self.quota_bytes);
    }

    /// The records of a chain that are kept, oldest first.
    pub fn entries(&self, chain: Chain) -> impl DoubleEndedIterator<Item = &Entry> {
        self.log(chain).records.iter().map(|logged| &logged.entry)
    }

    /// The canonical bytes and hashes of a chain, oldest first, for `verify_chain` from [`Disk::anchor`].
    pub fn links(&self, chain: Chain) -> impl Iterator<Item = (&[u8], Hash)> {
        self.log(chain).records.iter().map(|logged| (logged.canonical.as_slice(), logged.entry.position.hash))
    }

    /// Where the kept part of a chain begins.
    pub fn anchor(&self, chain: Chain) -> Anchor {
        self.log(chain).anchor
    }

    /// Reads audit records, newest first.
    pub fn audit(&self, filter: &Filter) -> Page {
        let mut found = Vec::new();
        for chain in [Chain::Reads, Chain::Refusals, Chain::Writes] {
            let admitted = self.entries(chain).rev().filter(|entry| filter.admits(&entry.draft));
            found.extend(admitted.map(|entry| (chain, entry.clone())));
        }
        Page::cut(found, filter.limit.min(PAGE_MAX))
    }

    /// The place of one record in the chain of writes.
    pub fn position(&self, audit_id: AuditId) -> Option<Position> {
        self.entries(Chain::Writes).find(|entry| entry.draft.audit_id == audit_id).map(|entry| entry.position)
    }

    /// Why nothing can be written, if so.
    pub fn fault(&self) -> Option<Error> {
        self.fault.clone()
    }

    const fn log(&self, chain: Chain) -> &Log {
        match chain {
            Chain::Reads => &self.content.reads,
            Chain::Refusals => &self.content.refusals,
            Chain::Writes => &self.content.writes,
        }
    }
}

fn append(log: &mut Log, draft: Draft) {
    match Logged::new(draft, log.end) {
        Ok(logged) => log.push(logged),
        // The only failure is a text that JSON cannot hold, which a Rust string never is.
        Err(error) => tracing::error!(%error, "record cannot be written"),
    }
}

/// A batch in its stored form, which can no longer fail.
#[derive(Debug, Clone)]
struct Prepared {
    changes: Vec<Change>,
    records: Vec<Logged>,
}

impl Content {
    fn prepare(&self, batch: &Batch) -> Result<Prepared, record::Error> {
        let changes = batch.records.iter().map(record::encode).collect::<Result<_, _>>()?;
        let mut end = self.writes.end;
        let mut records = Vec::with_capacity(batch.audits.len());
        for draft in &batch.audits {
            let logged = Logged::new(draft.clone(), end)?;
            end = logged.entry.position.into();
            records.push(logged);
        }
        Ok(Prepared { changes, records })
    }

    fn apply(&mut self, prepared: Prepared) {
        for change in prepared.changes {
            match change {
                Change::Put { kind, key, body } => self.facts.insert((kind.to_owned(), key), body),
                Change::Delete { kind, key } => self.facts.remove(&(kind.to_owned(), key)),
            };
        }
        prepared.records.into_iter().for_each(|logged| self.writes.push(logged));
    }
}

fn unreadable(error: record::Error) -> Error {
    Error::Unreadable { place: PLACE.into(), reason: error.to_string() }
}

/// A store over a [`Disk`] that tests can reach into.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    shared: Arc<Mutex<Shared>>,
    /// Whoever has it holds up all commits.
    turn: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    disk: Disk,
    is_closed: bool,
    /// Whether a commit waits for its turn; one at a time is made.
    is_held_up: bool,
}

impl MemoryStore {
    /// A store over an empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// A store over what another one left behind.
    pub fn on(disk: Disk) -> Self {
        Self { shared: Arc::new(Mutex::new(Shared { disk, ..Shared::default() })), turn: Arc::default() }
    }

    /// Reaches into the disk: to inject faults, or to look.
    pub fn with_disk<T>(&self, reach: impl FnOnce(&mut Disk) -> T) -> T {
        reach(&mut self.shared().disk)
    }

    /// Commits wait from now on, as on a slow disk, until what this gives is dropped.
    pub async fn hold_commits(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.turn).lock_owned().await
    }

    /// Whether a commit waits.
    pub fn is_held_up(&self) -> bool {
        self.shared().is_held_up
    }

    /// What is left after the process is killed at this point. This store answers [`Error::Closed`] from now on.
    pub fn crash(&self) -> Disk {
        let mut shared = self.shared();
        shared.is_closed = true;
        let mut disk = std::mem::take(&mut shared.disk);
        disk.crash();
        disk
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        // A test that panicked while it held the lock has already said what is wrong.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> Result<MutexGuard<'_, Shared>, Error> {
        let shared = self.shared();
        if shared.is_closed { Err(Error::Closed) } else { Ok(shared) }
    }
}

impl Store for MemoryStore {
    fn commit(&self, batch: Batch) -> Pending<'_, Result<Vec<Position>, Error>> {
        Box::pin(async move {
            self.shared().is_held_up = true;
            let _turn = self.turn.lock().await;
            self.shared().is_held_up = false;
            self.open()?.disk.commit(&batch)
        })
    }

    fn recall(&self) -> Pending<'_, Result<Vec<Record>, Error>> {
        Box::pin(async move { self.open()?.disk.recall() })
    }

    fn append_reads(&self, drafts: Vec<Draft>) -> Result<(), Full> {
        self.open().map_err(|_closed| Full)?.disk.append_reads(drafts)
    }

    fn audit(&self, filter: Filter) -> Pending<'_, Result<Page, Error>> {
        Box::pin(async move { Ok(self.open()?.disk.audit(&filter)) })
    }

    fn position(&self, audit_id: AuditId) -> Pending<'_, Result<Option<Position>, Error>> {
        Box::pin(async move { Ok(self.open()?.disk.position(audit_id)) })
    }

    fn length(&self) -> Pending<'_, Result<u64, Error>> {
        Box::pin(async move { Ok(self.open()?.disk.content.writes.end.seq) })
    }

    fn sign_checkpoints(&self, key: NoteKey) {
        self.shared().disk.sign_checkpoints(key);
    }

    fn checkpoint(&self) -> Pending<'_, Result<Option<String>, Error>> {
        Box::pin(async move { Ok(self.open()?.disk.checkpoint().map(str::to_owned)) })
    }

    fn growth(&self, from: u64) -> Pending<'_, Result<Option<Growth>, Error>> {
        Box::pin(async move { Ok(self.open()?.disk.growth(from)) })
    }

    fn fault(&self) -> Option<Error> {
        self.shared().disk.fault()
    }

    fn set_read_quota(&self, megabytes: u64) {
        self.shared().disk.set_read_quota(megabytes);
    }

    fn close(&self) -> Pending<'_, ()> {
        Box::pin(async move {
            let mut shared = self.shared();
            if !shared.is_closed {
                shared.disk.sync_reads();
                shared.disk.sync_counts();
                shared.disk.sign(Occasion::Closing);
                shared.is_closed = true;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::contract::{draft, write};
    use crate::wire::record::audit::verify_chain;

    fn seqs(disk: &Disk, chain: Chain) -> Vec<u64> {
        disk.entries(chain).map(|entry| entry.position.seq).collect()
    }

    #[test]
    fn a_failed_commit_changes_nothing_and_a_full_disk_recovers() {
        let mut disk = Disk::new();
        disk.commit(&write(1)).expect("commits");
        disk.inject(Fault::NoSpace);
        assert!(matches!(disk.commit(&write(2)), Err(Error::NoSpace { .. })));
        assert!(matches!(disk.fault(), Some(Error::NoSpace { .. })));
        assert_eq!(disk.recall().expect("recalls").len(), 1);
        assert_eq!(disk.commit(&write(3)).expect("commits").first().map(|place| place.seq), Some(2));
        assert_eq!(disk.fault(), None);
        assert!(verify_chain(disk.anchor(Chain::Writes), disk.links(Chain::Writes)).is_ok());
    }

    #[test]
    fn a_broken_disk_stays_broken_until_the_restart() {
        for (fault, kept) in [(Fault::Broken, 1), (Fault::BrokenButWritten, 2)] {
            let mut disk = Disk::new();
            disk.commit(&write(1)).expect("commits");
            disk.inject(fault);
            let error = disk.commit(&write(2)).expect_err("injected");
            assert_eq!(disk.commit(&write(3)), Err(error));
            assert_eq!(seqs(&disk, Chain::Writes), [1]);
            disk.crash();
            assert_eq!(disk.fault(), None);
            assert_eq!(disk.recall().expect("recalls").len(), kept);
            disk.commit(&write(4)).expect("commits");
            let end = verify_chain(disk.anchor(Chain::Writes), disk.links(Chain::Writes)).expect("whole");
            assert_eq!(end.seq, kept as u64 + 1);
        }
    }

    #[test]
    fn a_crash_loses_the_reads_that_were_not_written_and_nothing_else() {
        let mut disk = Disk::new();
        disk.append_reads(vec![draft(1)]).expect("queues");
        disk.hold_reads();
        disk.append_reads(vec![draft(2)]).expect("queues");
        disk.commit(&write(3)).expect("commits");
        disk.crash();
        assert_eq!((seqs(&disk, Chain::Reads), seqs(&disk, Chain::Writes)), (vec![1], vec![1]));
        disk.append_reads(vec![draft(4)]).expect("queues");
        assert_eq!(seqs(&disk, Chain::Reads), [1, 2]);
    }

    #[test]
    fn reads_are_held_to_their_quota_and_the_rest_still_verifies() {
        let mut disk = Disk::new();
        disk.set_read_quota(1);
        for number in 1..=5_000 {
            disk.append_reads(vec![draft(number)]).expect("queues");
        }
        let anchor = disk.anchor(Chain::Reads);
        assert!(1_000 < anchor.seq, "{anchor:?}");
        assert_eq!(verify_chain(anchor, disk.links(Chain::Reads)).map(|end| end.seq), Ok(5_000));
    }

    #[tokio::test]
    async fn a_crashed_store_is_closed_and_its_disk_lives_on() {
        let store = MemoryStore::new();
        store.commit(write(1)).await.expect("commits");
        let disk = store.crash();
        assert_eq!(store.commit(write(2)).await, Err(Error::Closed));
        assert_eq!(MemoryStore::on(disk).recall().await.expect("recalls").len(), 1);
    }
}
