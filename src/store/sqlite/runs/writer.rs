//! The writer of `runs.db`: record, events and pointer in one transaction, acknowledged after one fsync for all that waited.

use std::path::PathBuf;
use std::sync::{Arc, Weak};

use rusqlite::types::Value;
use rusqlite::{Connection, params, params_from_iter};
use tokio::sync::{mpsc, oneshot};

use super::SharedObserver;
use super::replica;
use super::retention::Keep;
use super::row::{self, POINTER};
use crate::domain::run::{End, Event, Pointer, RunId};
use crate::store::Error;
use crate::store::runs::{self, Change, Fault, Outcome, Refused, Replica, continues};
use crate::store::sqlite::chain::to_sql;
use crate::store::sqlite::error::{Health, opening, running};
use crate::store::sqlite::file::{self, Folder, Name, Pages};
use crate::store::sqlite::lock;
use crate::store::sqlite::stop::Closing;

/// Batches in one transaction. Nobody lingers to fill it: it only bounds what waited during the last fsync.
const GROUP_MAX: usize = 256;

/// What is to be written.
#[derive(Debug)]
pub(super) enum Work {
    /// Changes of own runs.
    Commit(Vec<Change>),
    /// What a peer said of its runs.
    Replicate(Replica),
}

/// Work and whoever waits for it.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) work: Work,
    pub(super) reply: oneshot::Sender<Result<Outcome, Refused>>,
}

/// The only writer of its file.
pub(super) struct Writer {
    connection: Connection,
    path: PathBuf,
    health: Arc<Health>,
    keep: Keep,
    observer: SharedObserver,
}

impl Writer {
    pub(super) fn open(
        folder: &Folder,
        pages: Pages,
        health: Arc<Health>,
        keep: Keep,
        observer: SharedObserver,
    ) -> Result<Self, Error> {
        let connection = folder.writer(Name::Runs, pages)?;
        Ok(Self { connection, path: folder.file(Name::Runs), health, keep, observer })
    }

    /// The number of the newest change, which is where the file ends.
    pub(super) fn newest(&self) -> Result<String, Error> {
        let sql = "SELECT number FROM counter";
        let number = self.connection.query_row(sql, [], |row| row.get::<_, i64>(0));
        number.map(|number| number.to_string()).map_err(|error| opening(&self.path, error))
    }

    /// Closes the file. What could not be written is no clean end.
    pub(super) fn close(self, closing: &Closing) {
        let end = self.newest();
        drop(self.connection);
        if let Ok(end) = end
            && self.health.broken().is_none()
        {
            closing.closed(Name::Runs, end);
        }
    }

    /// Writes until every sender is gone and nothing waits.
    pub(super) fn run(&mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut group = Vec::with_capacity(GROUP_MAX);
        while 0 < jobs.blocking_recv_many(&mut group, GROUP_MAX) {
            let (work, replies): (Vec<_>, Vec<_>) = group.drain(..).map(|Job { work, reply }| (work, reply)).unzip();
            let outcomes = self.commit(&work);
            self.tell(&work, &outcomes);
            for (reply, outcome) in replies.into_iter().zip(outcomes) {
                // Whoever gave up waiting finds the run when it asks.
                drop(reply.send(outcome));
            }
            self.give_back();
            self.checkpoint();
        }
    }

    fn tell(&self, work: &[Work], outcomes: &[Result<Outcome, Refused>]) {
        let Some(observer) = lock(&self.observer).as_ref().and_then(Weak::upgrade) else { return };
        for (work, outcome) in work.iter().zip(outcomes) {
            if let (Work::Commit(batch), Ok(outcome)) = (work, outcome) {
                runs::tell(&*observer, batch, outcome);
            }
        }
    }

    pub(super) fn commit(&self, work: &[Work]) -> Vec<Result<Outcome, Refused>> {
        let outcomes = match self.transaction(work) {
            Ok(outcomes) => outcomes,
            // A full disk may take the whole transaction with it: what fits by itself is not held to what does not.
            Err(Error::NoSpace { .. }) if 1 < work.len() => work.iter().map(|one| self.alone(one)).collect(),
            Err(error) => work.iter().map(|_| Err(error.clone().into())).collect(),
        };
        for outcome in &outcomes {
            match outcome {
                Ok(_) => self.health.note_success(),
                Err(Refused::Store(error)) => self.health.note(error),
                Err(Refused::Wrong { .. }) => {}
            }
        }
        outcomes
    }

    fn alone(&self, work: &Work) -> Result<Outcome, Refused> {
        let missing = || Error::Broken { place: self.path.display().to_string(), reason: "no outcome".into() };
        self.transaction(std::slice::from_ref(work))?.into_iter().next().unwrap_or_else(|| Err(missing().into()))
    }

    /// One transaction for all. An error is about the file and has undone everything.
    fn transaction(&self, work: &[Work]) -> Result<Vec<Result<Outcome, Refused>>, Error> {
        if let Some(broken) = self.health.broken() {
            return Err(broken);
        }
        let outcome = self.write(work);
        if outcome.is_err() {
            self.roll_back();
            self.keep.forget_count();
        }
        outcome
    }

    fn write(&self, work: &[Work]) -> Result<Vec<Result<Outcome, Refused>>, Error> {
        self.execute("BEGIN IMMEDIATE")?;
        let outcomes = work.iter().map(|one| self.write_one(one)).collect::<Result<_, _>>()?;
        self.execute("COMMIT")?;
        Ok(outcomes)
    }

    /// One batch inside its own savepoint, so that it fails alone. The outer error is about the whole transaction.
    fn write_one(&self, work: &Work) -> Result<Result<Outcome, Refused>, Error> {
        self.execute("SAVEPOINT batch")?;
        let outcome = match work {
            Work::Commit(batch) => self.apply_all(batch),
            Work::Replicate(replica) => self
                .sql(|file| replica::keep(file, replica, self.keep.limits))
                .map(|is_new| Outcome { changed: vec![is_new], forgotten: Vec::new() }),
        };
        if let Err(refused) = &outcome {
            if let Refused::Store(error) = refused
                && (matches!(error, Error::Broken { .. }) || self.connection.is_autocommit())
            {
                return Err(error.clone());
            }
            self.execute("ROLLBACK TO batch")?;
            self.keep.forget_count();
        }
        self.execute("RELEASE batch")?;
        Ok(outcome)
    }

    fn apply_all(&self, batch: &[Change]) -> Result<Outcome, Refused> {
        let mut outcome = Outcome::default();
        for change in batch {
            change.check()?;
            let is_changed = match change {
                Change::Create { pointer, first } => self.create(pointer, first)?,
                Change::Append { run, events } => self.append(*run, events)?,
                Change::End { run, end, result, error, last } => {
                    let brought = [result, error].map(|text| text.clone().map_or(Value::Null, Value::Text));
                    let is_ended = self.end(*run, end, brought, last)?;
                    if is_ended {
                        outcome.forgotten.extend(self.sql(|file| self.keep.make_room(file, *run))?);
                    }
                    is_ended
                }
            };
            outcome.changed.push(is_changed);
        }
        Ok(outcome)
    }

    fn create(&self, pointer: &Pointer, first: &Event) -> Result<bool, Refused> {
        self.sql(|file| {
            if row::place(file, pointer.run)?.is_some() {
                return Ok(false);
            }
            let sql = format!("INSERT INTO run ({POINTER}, head, number) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 1, ?)");
            let values = row::values(pointer).into_iter().chain([Value::Integer(row::next_number(file)?)]);
            file.prepare_cached(&sql)?.execute(params_from_iter(values))?;
            insert(file, file.last_insert_rowid(), first)?;
            Ok(true)
        })
    }

    fn append(&self, run: RunId, events: &[Event]) -> Result<bool, Refused> {
        let wrong = |fault| Refused::Wrong { run, fault };
        let (no, head) = self.sql(|file| row::place(file, run))?.ok_or(wrong(Fault::Unknown))?;
        if head.is_ended {
            return Err(wrong(Fault::Ended));
        }
        let mut count = head.count;
        for event in events {
            continues(run, count, event)?;
            self.sql(|file| insert(file, no, event))?;
            count = count.saturating_add(1);
        }
        let sql = "UPDATE run SET head = ?2 WHERE no = ?1";
        self.sql(|file| file.prepare_cached(sql)?.execute(params![no, to_sql(count)]))?;
        Ok(!events.is_empty())
    }

    fn end(&self, run: RunId, end: &End, brought: [Value; 2], last: &Event) -> Result<bool, Refused> {
        let (no, head) = match self.sql(|file| row::place(file, run))? {
            Some((no, head)) if !head.is_ended => (no, head),
            Some(_) | None => return Ok(false),
        };
        continues(run, head.count, last)?;
        let [result, error] = brought;
        self.sql(|file| {
            insert(file, no, last)?;
            let sql =
                "UPDATE run SET ended_ns = ?2, is_error = ?3, duration_ms = ?4, result = ?5, error = ?6, head = ?7,
                       number = ?8 WHERE no = ?1";
            let (at, duration) = (to_sql(end.at.0), to_sql(end.duration.0));
            let head = to_sql(head.count.saturating_add(1));
            let values = params![no, at, end.is_error, duration, result, error, head, row::next_number(file)?];
            file.prepare_cached(sql)?.execute(values)
        })?;
        Ok(true)
    }

    fn sql<T>(&self, run: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Refused> {
        run(&self.connection).map_err(|error| running(&self.path, error).into())
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

    fn give_back(&self) {
        if self.health.broken().is_none()
            && let Err(error) = self.keep.give_back(&self.connection).map_err(|error| running(&self.path, error))
        {
            tracing::warn!(%error, "free space of the store of runs cannot be given back");
            self.health.note(&error);
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

fn insert(file: &Connection, no: i64, event: &Event) -> rusqlite::Result<()> {
    let sql = "INSERT INTO event (run_no, number, kind, at_ns, body) VALUES (?1, ?2, ?3, ?4, ?5)";
    let values = params![no, to_sql(event.index), event.kind.as_str(), to_sql(event.at.0), &*event.body];
    file.prepare_cached(sql)?.execute(values).map(drop)
}
