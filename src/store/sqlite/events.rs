//! The writer of a rotated chain, of `events.db` or `refusals.db`: written in the background and held to a quota of its own.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rusqlite::{Connection, params};
use tokio::sync::mpsc;

use super::chain::{self, to_sql};
use super::damage;
use super::error::{Health, running};
use super::evidence::SharedKey;
use super::file::{self, Folder, Pages};
use super::stop::Closing;
use super::{control, lock};
use crate::domain::audit::{Draft, Rotated, Tail, Tails};
use crate::store::Error;
use crate::store::thinning::Thinning;
use crate::wire::record::audit::Anchor;

/// Records in one transaction: under a MiB, so that the quota is overshot by no more than that.
const GROUP_MAX: usize = 1_024;

/// How long the first record waits for others. Nobody waits for a read's record, and each fsync saved here is one that a
/// write need not queue behind.
const LINGER: Duration = Duration::from_millis(50);

/// How long the writer waits after a failure that may pass, such as a full disk.
const RETRY: Duration = Duration::from_secs(1);

/// The part of the chain that one step of rotation removes: seldom enough to be cheap, small enough to keep most.
const ROTATED_PART: u64 = 8;

/// Most records that one step of rotation removes, so that a transaction stays short.
const ROTATED_MAX: u64 = 8_192;

const BYTES_PER_MB: u64 = 1024 * 1024;

/// How long the writer waits for the checkpoint that lets records go.
const LEAVE_WAIT: Duration = Duration::from_secs(1);

/// The part of the quota that may be used beyond it while no checkpoint can be made. Then the oldest go without one: a chain that
/// grows without end would take the disk from the writes.
const OVERSHOOT_PART: u64 = 4;

/// How long a count of refusals waits for a record of its own once none comes any more: the minute that is counted.
const COUNTED: Duration = Duration::from_secs(60);

/// One of each rotated chain.
#[derive(Debug, Clone, Default)]
pub(super) struct Each<T> {
    pub(super) reads: T,
    pub(super) refusals: T,
}

impl<T> Each<T> {
    pub(super) const fn of(&self, chain: Rotated) -> &T {
        match chain {
            Rotated::Reads => &self.reads,
            Rotated::Refusals => &self.refusals,
        }
    }
}

/// Where both chains stand, for the writer of the checkpoints. What it says of a chain is on the disk.
pub(super) type SharedTails = Arc<Mutex<Tails>>;

/// What both writers share with the rest of the store.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    pub(super) tails: SharedTails,
    pub(super) key: SharedKey,
    /// The way to the writer of the checkpoints. It holds none of its own, so that it keeps nobody waiting.
    pub(super) checkpoints: mpsc::WeakSender<control::Job>,
}

/// The only writer of its file, and the only one who knows the end of the chain.
pub(super) struct Writer {
    chain: Rotated,
    connection: Connection,
    path: PathBuf,
    end: Anchor,
    quota_mb: Arc<AtomicU64>,
    health: Arc<Health>,
    shared: Shared,
    thinning: Thinning,
    /// How many messages are in the queue.
    waiting: Arc<AtomicUsize>,
}

impl Writer {
    pub(super) fn open(
        folder: &Folder,
        chain: Rotated,
        quota_mb: Arc<AtomicU64>,
        health: Arc<Health>,
        shared: Shared,
    ) -> Result<Self, Error> {
        let name = chain::file_of(chain.into());
        let path = folder.file(name);
        let connection = folder.writer(name, Pages::UNLIMITED)?;
        let end = chain::end(&connection, &path)?;
        let first = chain::anchor(&connection, &path)?.seq.saturating_add(1);
        *lock(&shared.tails).of_mut(chain) = Some(Tail { size: end.seq, hash: end.hash, first });
        let (thinning, waiting) = (Thinning::new(), Arc::default());
        Ok(Self { chain, connection, path, end, quota_mb, health, shared, thinning, waiting })
    }

    /// Where the chain ends.
    pub(super) const fn end(&self) -> Anchor {
        self.end
    }

    /// What a checkpoint states of this chain and is not there, in one sentence.
    pub(super) fn lost(&self, stated: &Tails) -> Result<Option<String>, Error> {
        let Some(stated) = stated.of(self.chain) else { return Ok(None) };
        let lost = damage::lost(&self.connection, self.end, stated).map_err(|error| running(&self.path, error))?;
        Ok(lost.map(|lost| format!("{}: {}: {lost}", self.path.display(), self.chain.as_str())))
    }

    /// Closes the file. What could not be written is no clean end.
    pub(super) fn close(self, closing: &Closing) {
        drop(self.connection);
        if self.health.broken().is_none() {
            closing.closed(chain::file_of(self.chain.into()), self.end.to_string());
        }
    }

    /// Counts the messages in the queue: whoever sends one adds it before.
    pub(super) fn waiting(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.waiting)
    }

    /// Writes until every sender is gone and nothing waits, or until the file breaks: records are then refused at the queue.
    ///
    /// An empty message asks for a look at the quota.
    pub(super) fn run(&mut self, drafts: &Receiver<Option<Draft>>, stopped: &Receiver<()>) {
        let mut is_busy = false;
        loop {
            let first = match self.next(drafts) {
                Ok(first) => first,
                Err(ended) => {
                    let counts = self.thinning.flush();
                    if !self.write_through(&counts, stopped) || ended == RecvTimeoutError::Disconnected {
                        return;
                    }
                    continue;
                }
            };
            if !is_busy {
                // Nothing is ever sent: the wait ends early at close, and from then on there is none.
                stopped.recv_timeout(LINGER).unwrap_or_default();
            }
            let taken: Vec<_> = std::iter::once(first).chain(drafts.try_iter().take(GROUP_MAX)).collect();
            self.waiting.fetch_sub(taken.len(), Ordering::Relaxed);
            is_busy = GROUP_MAX <= taken.len();
            let group: Vec<_> = taken.into_iter().flatten().flat_map(|draft| self.thin(draft)).collect();
            if !self.write_through(&group, stopped) {
                return;
            }
        }
    }

    /// Waits for the next message, and no longer than a count may wait.
    fn next(&self, drafts: &Receiver<Option<Draft>>) -> Result<Option<Draft>, RecvTimeoutError> {
        if self.thinning.is_counting() {
            return drafts.recv_timeout(COUNTED);
        }
        drafts.recv().map_err(|_disconnected| RecvTimeoutError::Disconnected)
    }

    /// What is to be put on record now. Every read is.
    fn thin(&mut self, draft: Draft) -> Vec<Draft> {
        match self.chain {
            Rotated::Reads => vec![draft],
            Rotated::Refusals => self.thinning.take(draft),
        }
    }

    /// Tries until the group is written. False when it never will be.
    fn write_through(&mut self, group: &[Draft], stopped: &Receiver<()>) -> bool {
        // A check beside the work may have found damage since: then nothing more is written.
        if self.health.broken().is_some() {
            return false;
        }
        while let Err(error) = self.append(group) {
            tracing::error!(%error, chain = self.chain.as_str(), records = group.len(), "records cannot be written");
            self.health.note(&error);
            let is_closing = || stopped.recv_timeout(RETRY) == Err(RecvTimeoutError::Disconnected);
            if self.health.broken().is_some() || is_closing() {
                return false;
            }
        }
        if self.health.broken().is_some() {
            return false;
        }
        // The group is written: whatever fails from here on must not write it again.
        match self.keep_house() {
            Ok(()) => self.health.note_success(),
            Err(error) => {
                tracing::error!(%error, chain = self.chain.as_str(), "records cannot be rotated");
                self.health.note(&error);
            }
        }
        self.health.broken().is_none()
    }

    fn append(&mut self, group: &[Draft]) -> Result<(), Error> {
        if group.is_empty() {
            return Ok(());
        }
        let before = self.end;
        let outcome = self.transaction(|writer| {
            for draft in group {
                let position = chain::append(&writer.connection, draft, writer.end);
                writer.end = position.map_err(|refused| refused.at(&writer.path))?.into();
            }
            Ok(())
        });
        match outcome {
            Ok(()) => self.tell(|tail, end| (tail.size, tail.hash) = (end.seq, end.hash)),
            Err(_) => self.end = before,
        }
        outcome
    }

    /// Changes what checkpoints state of this chain.
    fn tell(&self, change: impl FnOnce(&mut Tail, Anchor)) {
        if let Some(tail) = lock(&self.shared.tails).of_mut(self.chain) {
            change(tail, self.end);
        }
    }

    /// Holds the file to its quota and its log to its length.
    fn keep_house(&mut self) -> Result<(), Error> {
        while let used @ 1.. = self.over_quota()? {
            let Some(last) = self.oldest_part()? else { break };
            let allowed = self.quota().wrapping_div(OVERSHOOT_PART);
            if !self.may_let_go(last) && used <= allowed {
                break;
            }
            self.rotate(last)?;
        }
        file::checkpoint(&self.connection).map_err(|error| running(&self.path, error))
    }

    fn quota(&self) -> u64 {
        self.quota_mb.load(Ordering::Relaxed).saturating_mul(BYTES_PER_MB)
    }

    /// The bytes that are used beyond the quota.
    fn over_quota(&self) -> Result<u64, Error> {
        let used = self.pragma("page_count")?.saturating_sub(self.pragma("freelist_count")?);
        Ok(used.saturating_mul(self.pragma("page_size")?).saturating_sub(self.quota()))
    }

    fn pragma(&self, name: &str) -> Result<u64, Error> {
        let number = self.connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0));
        let number = number.map_err(|error| running(&self.path, error))?;
        Ok(u64::try_from(number).unwrap_or_default())
    }

    /// The number of the last record that one step of rotation removes. None when only the newest is left.
    fn oldest_part(&self) -> Result<Option<u64>, Error> {
        let begin = chain::anchor(&self.connection, &self.path)?;
        let kept = self.end.seq.saturating_sub(begin.seq);
        let removed = kept.div_ceil(ROTATED_PART).min(ROTATED_MAX).min(kept.saturating_sub(1));
        Ok((0 < removed).then(|| begin.seq.saturating_add(removed)))
    }

    /// Whether a checkpoint says that these records need not be kept any more: without one, nobody could tell a rotation from
    /// the work of somebody who wants them gone. Where nothing is signed, nothing is asked.
    fn may_let_go(&self, last: u64) -> bool {
        if lock(&self.shared.key).is_none() {
            return true;
        }
        self.tell(|tail, _| tail.first = tail.first.max(last.saturating_add(1)));
        // At close the rest is left to the next start.
        let Some(checkpoints) = self.shared.checkpoints.upgrade() else { return false };
        let (reply, answer) = sync_channel(1);
        let is_sent = checkpoints.try_send(control::Job::Rotation { reply }).is_ok();
        drop(checkpoints);
        is_sent && answer.recv_timeout(LEAVE_WAIT) == Ok(true)
    }

    /// Removes the oldest records and carries the chain over.
    fn rotate(&mut self, last: u64) -> Result<(), Error> {
        let last = to_sql(last);
        self.transaction(|writer| {
            let run = || {
                let connection = &writer.connection;
                let sql = "UPDATE anchor SET (seq, hash) = (SELECT seq, hash FROM audit WHERE seq = ?1)";
                connection.prepare_cached(sql)?.execute(params![last])?;
                connection.prepare_cached("DELETE FROM audit WHERE seq <= ?1")?.execute(params![last])
            };
            run().map(drop).map_err(|error| running(&writer.path, error))
        })?;
        self.give_back()
    }

    /// Gives the file's free pages back to the file system.
    fn give_back(&self) -> Result<(), Error> {
        let run = || {
            let mut statement = self.connection.prepare_cached("PRAGMA incremental_vacuum")?;
            let mut rows = statement.query([])?;
            while rows.next()?.is_some() {}
            Ok(())
        };
        run().map_err(|error| running(&self.path, error))
    }

    fn transaction(&mut self, write: impl FnOnce(&mut Self) -> Result<(), Error>) -> Result<(), Error> {
        self.execute("BEGIN IMMEDIATE")?;
        let outcome = write(self).and_then(|()| self.execute("COMMIT"));
        if outcome.is_err() && !self.connection.is_autocommit() {
            // The first failure is the one to tell; if this one fails too, the next BEGIN says so.
            drop(self.execute("ROLLBACK"));
        }
        outcome
    }

    fn execute(&self, sql: &str) -> Result<(), Error> {
        let run = || self.connection.prepare_cached(sql)?.execute([]);
        run().map(drop).map_err(|error| running(&self.path, error))
    }
}
