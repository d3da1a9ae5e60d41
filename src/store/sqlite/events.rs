//! The writer of `events.db`: the chain of reads, written in the background and held to a quota.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use rusqlite::{Connection, params};

use super::chain::{self, to_sql};
use super::error::{Health, running};
use super::file::{self, Folder, Name, Pages};
use crate::domain::audit::Draft;
use crate::store::Error;
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

/// The only writer of its file, and the only one who knows the end of the chain.
pub(super) struct Writer {
    connection: Connection,
    path: PathBuf,
    end: Anchor,
    quota_mb: Arc<AtomicU64>,
    health: Arc<Health>,
    /// How many messages are in the queue.
    waiting: Arc<AtomicUsize>,
}

impl Writer {
    pub(super) fn open(folder: &Folder, quota_mb: Arc<AtomicU64>, health: Arc<Health>) -> Result<Self, Error> {
        let path = folder.file(Name::Events);
        let connection = folder.writer(Name::Events, Pages::UNLIMITED)?;
        let end = chain::end(&connection, &path)?;
        Ok(Self { connection, path, end, quota_mb, health, waiting: Arc::default() })
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
        while let Ok(first) = drafts.recv() {
            if !is_busy {
                // Nothing is ever sent: the wait ends early at close, and from then on there is none.
                stopped.recv_timeout(LINGER).unwrap_or_default();
            }
            let taken: Vec<_> = std::iter::once(first).chain(drafts.try_iter().take(GROUP_MAX)).collect();
            self.waiting.fetch_sub(taken.len(), Ordering::Relaxed);
            let group: Vec<_> = taken.into_iter().flatten().collect();
            is_busy = GROUP_MAX <= group.len();
            if !self.write_through(&group, stopped) {
                return;
            }
        }
    }

    /// Tries until the group is written. False when it never will be.
    fn write_through(&mut self, group: &[Draft], stopped: &Receiver<()>) -> bool {
        while let Err(error) = self.append(group) {
            tracing::error!(%error, records = group.len(), "read records cannot be written");
            self.health.note(&error);
            let is_closing = || stopped.recv_timeout(RETRY) == Err(RecvTimeoutError::Disconnected);
            if self.health.broken().is_some() || is_closing() {
                return false;
            }
        }
        // The group is written: whatever fails from here on must not write it again.
        match self.keep_house() {
            Ok(()) => self.health.note_success(),
            Err(error) => {
                tracing::error!(%error, "read records cannot be rotated");
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
        if outcome.is_err() {
            self.end = before;
        }
        outcome
    }

    /// Holds the file to its quota and its log to its length.
    fn keep_house(&mut self) -> Result<(), Error> {
        while self.is_over_quota()? {
            if !self.rotate()? {
                break;
            }
        }
        file::checkpoint(&self.connection).map_err(|error| running(&self.path, error))
    }

    fn is_over_quota(&self) -> Result<bool, Error> {
        let quota = self.quota_mb.load(Ordering::Relaxed).saturating_mul(BYTES_PER_MB);
        let used = self.pragma("page_count")?.saturating_sub(self.pragma("freelist_count")?);
        Ok(quota < used.saturating_mul(self.pragma("page_size")?))
    }

    fn pragma(&self, name: &str) -> Result<u64, Error> {
        let number = self.connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0));
        let number = number.map_err(|error| running(&self.path, error))?;
        Ok(u64::try_from(number).unwrap_or_default())
    }

    /// Removes the oldest records and carries the chain over. False when only the newest is left.
    fn rotate(&mut self) -> Result<bool, Error> {
        let begin = chain::anchor(&self.connection, &self.path)?;
        let kept = self.end.seq.saturating_sub(begin.seq);
        if kept <= 1 {
            return Ok(false);
        }
        let removed = kept.div_ceil(ROTATED_PART).min(ROTATED_MAX).min(kept.saturating_sub(1));
        let last = to_sql(begin.seq.saturating_add(removed));
        self.transaction(|writer| {
            let run = || {
                let connection = &writer.connection;
                let sql = "UPDATE anchor SET (seq, hash) = (SELECT seq, hash FROM audit WHERE seq = ?1)";
                connection.prepare_cached(sql)?.execute(params![last])?;
                connection.prepare_cached("DELETE FROM audit WHERE seq <= ?1")?.execute(params![last])
            };
            run().map(drop).map_err(|error| running(&writer.path, error))
        })?;
        self.give_back()?;
        Ok(true)
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
