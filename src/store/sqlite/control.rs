//! The writer of `control.db`: facts and the chain of writes, acknowledged after one fsync for all that waited.

use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::{Connection, params};
use tokio::sync::{mpsc, oneshot};

use super::chain::{self, Refused};
use super::error::{Health, running};
use super::file::{self, Folder, Name, Pages};
use crate::domain::audit::Position;
use crate::engine::record::{Batch, Record};
use crate::store::Error;
use crate::wire::record::audit::Anchor;
use crate::wire::record::{self, Change};

/// Batches in one transaction. Nobody lingers to fill it: it only bounds what waited during the last fsync.
const GROUP_MAX: usize = 256;

type Outcome = Result<Vec<Position>, Error>;

/// A batch and whoever waits for it.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) batch: Batch,
    pub(super) reply: oneshot::Sender<Outcome>,
}

/// The only writer of its file, and the only one who knows the end of the chain.
pub(super) struct Writer {
    connection: Connection,
    path: PathBuf,
    end: Anchor,
    health: Arc<Health>,
}

impl Writer {
    pub(super) fn open(folder: &Folder, pages: Pages, health: Arc<Health>) -> Result<Self, Error> {
        let path = folder.file(Name::Control);
        let connection = folder.writer(Name::Control, pages)?;
        let end = chain::end(&connection, &path)?;
        Ok(Self { connection, path, end, health })
    }

    /// Writes until every sender is gone and nothing waits.
    pub(super) fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut group = Vec::with_capacity(GROUP_MAX);
        while 0 < jobs.blocking_recv_many(&mut group, GROUP_MAX) {
            let (batches, replies): (Vec<_>, Vec<_>) = group.drain(..).map(|job| (job.batch, job.reply)).unzip();
            for (reply, outcome) in replies.into_iter().zip(self.commit(&batches)) {
                // Whoever gave up waiting finds the record when it asks again.
                drop(reply.send(outcome));
            }
            self.checkpoint();
        }
    }

    fn commit(&mut self, batches: &[Batch]) -> Vec<Outcome> {
        let outcomes = match self.transaction(batches) {
            Ok(outcomes) => outcomes,
            // A full disk may take the whole transaction with it: what fits by itself is not held to what does not.
            Err(Error::NoSpace { .. }) if 1 < batches.len() => batches.iter().map(|batch| self.alone(batch)).collect(),
            Err(error) => batches.iter().map(|_| Err(error.clone())).collect(),
        };
        for outcome in &outcomes {
            match outcome {
                Ok(_) => self.health.note_success(),
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
