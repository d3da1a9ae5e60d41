//! The writer of `control.db`: facts and the chain of writes, acknowledged after one fsync for all that waited.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc as blocking;
use std::time::Duration;

use rusqlite::{Connection, params};
use tokio::sync::{mpsc, oneshot};

use super::chain::{self, Refused};
use super::error::{Health, running};
use super::events::Shared;
use super::evidence::Evidence;
use super::file::{self, Folder, Name, Pages};
use super::stop::Closing;
use crate::domain::audit::{Occasion, Position, Tails};
use crate::engine::record::{Batch, Record};
use crate::store::{Error, boot_of};
use crate::wire::record::audit::Anchor;
use crate::wire::record::{self, Change};

/// Batches in one transaction. Nobody lingers to fill it: it only bounds what waited during the last fsync.
const GROUP_MAX: usize = 256;

/// How long the last checkpoint waits for the writers of the other chains.
const OTHERS_WAIT: Duration = Duration::from_millis(700);

type Outcome = Result<Vec<Position>, Error>;

/// What the writer is asked.
#[derive(Debug)]
pub(super) enum Job {
    /// A batch and whoever waits for it.
    Commit {
        /// What is to be written.
        batch: Batch,
        /// Where the outcome goes.
        reply: oneshot::Sender<Outcome>,
    },
    /// To look whether the newest records have waited long enough for a checkpoint.
    Interval,
    /// To say in a checkpoint what a rotated chain keeps from now on.
    Rotation {
        /// Whether it is said.
        reply: blocking::SyncSender<bool>,
    },
}

/// The only writer of its file, and the only one who knows the end of the chain.
pub(super) struct Writer {
    connection: Connection,
    path: PathBuf,
    end: Anchor,
    health: Arc<Health>,
    evidence: Evidence,
}

impl Writer {
    pub(super) fn open(folder: &Folder, pages: Pages, health: Arc<Health>, shared: &Shared) -> Result<Self, Error> {
        let path = folder.file(Name::Control);
        let connection = folder.writer(Name::Control, pages)?;
        let end = chain::end(&connection, &path)?;
        let evidence = Evidence::open(&connection, &path, end, shared)?;
        Ok(Self { connection, path, end, health, evidence })
    }

    /// Where the chain ends.
    pub(super) const fn end(&self) -> Anchor {
        self.end
    }

    /// What the newest checkpoint states of the other chains.
    pub(super) fn stated(&self) -> Tails {
        self.evidence.stated()
    }

    /// Closes the file. What could not be written is no clean end.
    pub(super) fn close(self, closing: &Closing) {
        drop(self.connection);
        if self.health.broken().is_none() {
            closing.closed(Name::Control, self.end.to_string());
        }
    }

    /// Writes until every sender is gone and nothing waits. The last checkpoint also states what the other writers wrote last:
    /// they are `ended` when nobody has the other end any more.
    pub(super) fn run(&mut self, mut jobs: mpsc::Receiver<Job>, ended: &blocking::Receiver<()>) {
        let mut group = Vec::with_capacity(GROUP_MAX);
        while 0 < jobs.blocking_recv_many(&mut group, GROUP_MAX) {
            let mut occasion = Occasion::Growth;
            let mut rotations = Vec::new();
            let mut waiting = |job| match job {
                Job::Commit { batch, reply } => Some((batch, reply)),
                Job::Interval => {
                    occasion = Occasion::Interval;
                    None
                }
                Job::Rotation { reply } => {
                    rotations.push(reply);
                    None
                }
            };
            let (batches, replies): (Vec<_>, Vec<_>) = group.drain(..).filter_map(&mut waiting).unzip();
            for (reply, outcome) in replies.into_iter().zip(self.commit(&batches)) {
                // Whoever gave up waiting finds the record when it asks again.
                drop(reply.send(outcome));
            }
            self.keep_evidence(occasion);
            if !rotations.is_empty() {
                let is_said = self.keep_evidence(Occasion::Rotation);
                // Whoever gave up waiting asks again.
                rotations.into_iter().for_each(|reply| reply.send(is_said).unwrap_or_default());
            }
            self.checkpoint();
        }
        // Nothing is ever sent.
        ended.recv_timeout(OTHERS_WAIT).unwrap_or_default();
        self.keep_evidence(Occasion::Closing);
    }

    /// What cannot be signed now is signed at the next occasion: nobody waits for it. Gives whether all is said that is due.
    fn keep_evidence(&mut self, occasion: Occasion) -> bool {
        if self.health.broken().is_some() {
            return false;
        }
        let kept = self.evidence.keep(&self.connection, self.end, occasion);
        if let Err(error) = &kept {
            tracing::warn!(%error, "checkpoint of the audit log cannot be written");
            if matches!(error, Error::Broken { .. }) {
                self.health.note(error);
            }
        }
        kept.is_ok()
    }

    fn commit(&mut self, batches: &[Batch]) -> Vec<Outcome> {
        if batches.is_empty() {
            return Vec::new();
        }
        let outcomes = match self.transaction(batches) {
            Ok(outcomes) => outcomes,
            // A full disk may take the whole transaction with it: what fits by itself is not held to what does not.
            Err(Error::NoSpace { .. }) if 1 < batches.len() => batches.iter().map(|batch| self.alone(batch)).collect(),
            Err(error) => batches.iter().map(|_| Err(error.clone())).collect(),
        };
        for (batch, outcome) in batches.iter().zip(&outcomes) {
            match outcome {
                Ok(_) => {
                    self.health.note_success();
                    boot_of(batch).into_iter().for_each(|boot| self.evidence.begin_boot(boot));
                }
                Err(error) => self.health.note(error),
            }
        }
        outcomes
    }

    fn alone(&mut self, batch: &Batch) -> Outcome {
        let outcomes = self.transaction(std::slice::from_ref(batch)).inspect_err(|error| self.health.note(error))?;
        let missing = || Error::Broken { place: self.path.display().to_string(), reason: "no outcome".into() };
        outcomes.into_iter().next().unwrap_or_else(|| Err(missing()))
    }

    /// One transaction for all. An error is about the file and has undone everything.
    fn transaction(&mut self, batches: &[Batch]) -> Result<Vec<Outcome>, Error> {
        if let Some(broken) = self.health.broken() {
            return Err(broken);
        }
        let before = self.end;
        let outcome = self.write(batches);
        if outcome.is_err() {
            self.end = before;
            self.roll_back();
        }
        outcome
    }

    fn write(&mut self, batches: &[Batch]) -> Result<Vec<Outcome>, Error> {
        self.execute("BEGIN IMMEDIATE")?;
        let outcomes = batches.iter().map(|batch| self.write_one(batch)).collect::<Result<_, _>>()?;
        self.execute("COMMIT")?;
        Ok(outcomes)
    }

    /// One batch inside its own savepoint, so that it fails alone. The outer error is about the whole transaction.
    fn write_one(&mut self, batch: &Batch) -> Result<Outcome, Error> {
        self.execute("SAVEPOINT batch")?;
        let before = self.end;
        let outcome = self.insert(batch).map_err(|refused| refused.at(&self.path));
        if let Err(error) = &outcome {
            self.end = before;
            if matches!(error, Error::Broken { .. }) || self.connection.is_autocommit() {
                return Err(error.clone());
            }
            self.execute("ROLLBACK TO batch")?;
        }
        self.execute("RELEASE batch")?;
        Ok(outcome)
    }

    fn insert(&mut self, batch: &Batch) -> Result<Vec<Position>, Refused> {
        batch.records.iter().try_for_each(|fact| self.apply(fact))?;
        let mut positions = Vec::with_capacity(batch.audits.len());
        for draft in &batch.audits {
            let position = chain::append(&self.connection, draft, self.end)?;
            self.end = position.into();
            positions.push(position);
        }
        Ok(positions)
    }

    fn apply(&self, fact: &Record) -> Result<(), Refused> {
        match record::encode(fact).map_err(|error| Refused::Form(error.to_string()))? {
            Change::Put { kind, key, body } => {
                let sql = "INSERT INTO fact (kind, key, body) VALUES (?1, ?2, ?3)
                           ON CONFLICT (kind, key) DO UPDATE SET body = excluded.body";
                self.connection.prepare_cached(sql)?.execute(params![kind, key, body])?;
            }
            Change::Delete { kind, key } => {
                let sql = "DELETE FROM fact WHERE kind = ?1 AND key = ?2";
                self.connection.prepare_cached(sql)?.execute(params![kind, key])?;
            }
        }
        Ok(())
    }

    fn execute(&self, sql: &str) -> Result<(), Error> {
        let run = || self.connection.prepare_cached(sql)?.execute([]);
        run().map(drop).map_err(|error| running(&self.path, error))
    }

    fn roll_back(&self) {
        // SQLite may have rolled back by itself.
        if !self.connection.is_autocommit()
            && let Err(error) = self.execute("ROLLBACK")
        {
            tracing::error!(%error, "transaction cannot be rolled back");
            self.health.note(&Error::Broken { place: self.path.display().to_string(), reason: error.to_string() });
        }
    }

    fn checkpoint(&self) {
        if self.health.broken().is_none()
            && let Err(error) = file::checkpoint(&self.connection).map_err(|error| running(&self.path, error))
        {
            tracing::warn!(%error, "write-ahead log cannot be copied");
            self.health.note(&error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::contract::{draft, receipt};

    fn writer(pages: u32) -> (tempfile::TempDir, Writer) {
        let place = tempfile::tempdir().expect("a folder for the test");
        let folder = Folder::open(place.path()).expect("opens");
        let writer = Writer::open(&folder, Pages(Some(pages)), Arc::default(), &shared()).expect("opens");
        (place, writer)
    }

    fn shared() -> Shared {
        let (nobody, _) = mpsc::channel(1);
        Shared { tails: Arc::default(), key: Arc::default(), checkpoints: nobody.downgrade() }
    }

    fn batch(number: u64, bytes: usize) -> Batch {
        Batch { records: vec![receipt(number, &vec![1; bytes])], audits: vec![draft(number)] }
    }

    fn seqs(outcomes: &[Outcome]) -> Vec<Option<u64>> {
        outcomes.iter().map(|outcome| outcome.as_ref().ok()?.first().map(|place| place.seq)).collect()
    }

    fn count(writer: &Writer, table: &str) -> i64 {
        writer.connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).expect("counts")
    }

    #[test]
    fn a_batch_that_does_not_fit_fails_alone_in_its_group() {
        let (_place, mut writer) = writer(100);
        let group = [batch(1, 10), batch(2, 1 << 20), batch(3, 10), batch(4, 1 << 20), batch(5, 10)];
        let outcomes = writer.commit(&group);
        assert_eq!(seqs(&outcomes), [Some(1), None, Some(2), None, Some(3)]);
        assert!(matches!(outcomes[1], Err(Error::NoSpace { .. })));
        assert_eq!((count(&writer, "fact"), count(&writer, "audit")), (3, 3));
        assert_eq!(writer.health.fault(), None, "the last one was written");
        assert_eq!(seqs(&writer.commit(&[batch(6, 10)])), [Some(4)]);
    }

    /// SQLite takes a whole transaction back when the disk is full; here it takes back only the statement.
    #[test]
    fn a_batch_refused_halfway_leaves_nothing_behind() {
        let (_place, mut writer) = writer(1_000);
        let too_large = format!(
            "CREATE TEMP TRIGGER too_large AFTER INSERT ON main.audit WHEN new.audit_id = '{}'
             BEGIN SELECT zeroblob(2000000000); END",
            draft(22).audit_id
        );
        writer.connection.execute_batch(&too_large).expect("runs");
        let halfway = Batch { records: vec![receipt(2, b"")], audits: vec![draft(21), draft(22)] };
        let outcomes = writer.commit(&[batch(1, 1), halfway, batch(3, 1)]);
        assert_eq!(seqs(&outcomes), [Some(1), None, Some(2)]);
        assert!(matches!(outcomes[1], Err(Error::Unreadable { .. })), "{:?}", outcomes[1]);
        assert_eq!((count(&writer, "fact"), count(&writer, "audit")), (2, 2));
        assert_eq!(writer.health.fault(), None, "the batch was at fault");
    }

    #[test]
    fn a_checkpoint_that_fails_is_tried_again_at_the_next_interval_and_harms_nobody() {
        let (_place, mut writer) = writer(1_000);
        writer.evidence.set_key(crate::store::contract::note_key());
        let refusing = "CREATE TEMP TRIGGER refusing BEFORE INSERT ON main.checkpoint
                        BEGIN SELECT zeroblob(2000000000); END";
        writer.connection.execute_batch(refusing).expect("runs");
        assert_eq!(seqs(&writer.commit(&[batch(1, 1)])), [Some(1)]);
        writer.keep_evidence(Occasion::Growth);
        assert!(writer.connection.is_autocommit(), "the failed one is rolled back");
        writer.connection.execute_batch("DROP TRIGGER refusing").expect("runs");
        assert_eq!(seqs(&writer.commit(&[batch(2, 1)])), [Some(2)]);
        writer.keep_evidence(Occasion::Growth);
        assert_eq!(count(&writer, "checkpoint"), 0, "not at every commit");
        writer.keep_evidence(Occasion::Interval);
        assert_eq!((count(&writer, "checkpoint"), writer.health.fault()), (1, None));
    }

    #[test]
    fn a_group_is_one_transaction() {
        let (_place, mut writer) = writer(1_000);
        let changes = |writer: &Writer| -> i64 {
            writer.connection.query_row("PRAGMA wal_checkpoint = NOOP", [], |row| row.get(1)).expect("counts")
        };
        let before = changes(&writer);
        let group: Vec<_> = (1..=100).map(|number| batch(number, 1)).collect();
        assert_eq!(writer.commit(&group).len(), 100);
        // A hundred transactions would each write every changed page again.
        let pages = changes(&writer).saturating_sub(before);
        assert!(pages < 100, "{pages} pages");
    }

    #[test]
    fn a_refused_write_leaves_no_transaction_open_and_stays_refused() {
        let (_place, mut writer) = writer(1_000);
        writer.connection.execute_batch("PRAGMA query_only = ON").expect("runs");
        let outcomes = writer.commit(&[batch(1, 1), batch(2, 1)]);
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Err(Error::Broken { .. }))), "{outcomes:?}");
        writer.connection.execute_batch("PRAGMA query_only = OFF").expect("runs");
        assert!(writer.connection.is_autocommit());
        assert!(matches!(writer.commit(&[batch(3, 1)]).as_slice(), [Err(Error::Broken { .. })]));
        assert_eq!(count(&writer, "audit"), 0);
    }

    #[test]
    fn the_log_is_copied_once_it_is_long() {
        let (_place, mut writer) = writer(100_000);
        for number in 0..200 {
            writer.commit(&[batch(number, 64 << 10)]);
            writer.checkpoint();
        }
        let log = std::fs::metadata(writer.path.with_extension("db-wal")).expect("is there").len();
        assert!(log < 8 << 20, "{log} bytes");
        let file = std::fs::metadata(&writer.path).expect("is there").len();
        assert!(8 << 20 < file, "{file} bytes");
    }
}
