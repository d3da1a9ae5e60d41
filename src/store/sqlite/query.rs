//! Answers to questions, from connections that only read.

use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};
use tokio::sync::{mpsc, oneshot};

use super::chain::{Link, file_of, to_sql};
use super::error::{Health, running};
use super::events::Each;
use super::evidence::{growth, newest_note};
use super::file::Folder;
use crate::domain::audit::{AuditId, Entry, Position};
use crate::engine::record::Record;
use crate::store::{Chain, Error, Filter, Growth, PAGE_MAX, Page};
use crate::wire::record;

/// What is asked, and whoever waits for the answer.
#[derive(Debug)]
pub(super) enum Question {
    /// All facts.
    Recall { reply: oneshot::Sender<Result<Vec<Record>, Error>> },
    /// A page of audit records.
    Page { filter: Box<Filter>, reply: oneshot::Sender<Result<Page, Error>> },
    /// The newest checkpoint.
    Checkpoint { reply: oneshot::Sender<Result<Option<String>, Error>> },
    /// The newest checkpoint and what came since.
    Growth { from: u64, reply: oneshot::Sender<Result<Option<Growth>, Error>> },
    /// How many records the chain of writes has.
    Length { reply: oneshot::Sender<Result<u64, Error>> },
    /// The place of one record in the chain of writes.
    Place { audit_id: AuditId, reply: oneshot::Sender<Result<Option<Position>, Error>> },
}

/// One file, read only.
struct Source {
    connection: Connection,
    path: PathBuf,
    health: Arc<Health>,
}

/// Reads the files of all chains.
pub(super) struct Reader {
    writes: Source,
    reads: Source,
    refusals: Source,
}

impl Reader {
    pub(super) fn open(folder: &Folder, writes: Arc<Health>, rotated: &Each<Arc<Health>>) -> Result<Self, Error> {
        let source = |chain, health| {
            let name = file_of(chain);
            Ok(Source { connection: folder.reader(name)?, path: folder.file(name), health })
        };
        Ok(Self {
            writes: source(Chain::Writes, writes)?,
            reads: source(Chain::Reads, Arc::clone(&rotated.reads))?,
            refusals: source(Chain::Refusals, Arc::clone(&rotated.refusals))?,
        })
    }

    /// What ends a long question.
    pub(super) fn interrupts(&self) -> Vec<rusqlite::InterruptHandle> {
        let sources = [&self.writes, &self.reads, &self.refusals];
        sources.map(|source| source.connection.get_interrupt_handle()).into()
    }

    /// Answers until every sender is gone.
    pub(super) fn run(self, mut questions: mpsc::Receiver<Question>) {
        while let Some(question) = questions.blocking_recv() {
            // Whoever gave up waiting needs no answer.
            match question {
                Question::Recall { reply } => drop(reply.send(self.writes.recall())),
                Question::Page { filter, reply } => drop(reply.send(self.page(&filter))),
                Question::Checkpoint { reply } => drop(reply.send(self.writes.checkpoint())),
                Question::Growth { from, reply } => drop(reply.send(self.writes.growth(from))),
                Question::Length { reply } => drop(reply.send(self.writes.length())),
                Question::Place { audit_id, reply } => drop(reply.send(self.writes.place(audit_id))),
            }
        }
    }

    fn page(&self, filter: &Filter) -> Result<Page, Error> {
        let limit = filter.limit.min(PAGE_MAX);
        let mut found = Vec::new();
        let sources = [&self.reads, &self.refusals, &self.writes];
        for (chain, source) in [Chain::Reads, Chain::Refusals, Chain::Writes].into_iter().zip(sources) {
            found.extend(source.entries(filter, limit)?.into_iter().map(|entry| (chain, entry)));
        }
        Ok(Page::cut(found, limit))
    }
}

impl Source {
    /// An I/O error met while reading is as final as one met while writing.
    fn failed(&self, error: rusqlite::Error) -> Error {
        let error = running(&self.path, error);
        if matches!(error, Error::Broken { .. }) {
            self.health.note(&error);
        }
        error
    }

    fn unreadable(&self, error: &record::Error) -> Error {
        Error::Unreadable { place: self.path.display().to_string(), reason: error.to_string() }
    }

    fn recall(&self) -> Result<Vec<Record>, Error> {
        let run = || {
            let mut facts = Vec::new();
            let mut statement =
                self.connection.prepare_cached("SELECT kind, key, body FROM fact ORDER BY kind, key")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                facts.push(record::decode(text(row, 0)?, text(row, 1)?, text(row, 2)?));
            }
            Ok(facts)
        };
        let facts = run().map_err(|error| self.failed(error))?;
        facts.into_iter().map(|fact| fact.map_err(|error| self.unreadable(&error))).collect()
    }

    fn checkpoint(&self) -> Result<Option<String>, Error> {
        newest_note(&self.connection).map_err(|error| self.failed(error))
    }

    fn growth(&self, from: u64) -> Result<Option<Growth>, Error> {
        growth(&self.connection, from).map_err(|error| self.failed(error))
    }

    /// The chain of writes loses nothing, so its length is its last number.
    fn length(&self) -> Result<u64, Error> {
        let sql = "SELECT coalesce(max(seq), 0) FROM audit";
        let last: i64 = self.connection.query_row(sql, [], |row| row.get(0)).map_err(|error| self.failed(error))?;
        Ok(last.unsigned_abs())
    }

    fn place(&self, audit_id: AuditId) -> Result<Option<Position>, Error> {
        let run = || {
            let sql = "SELECT seq, body, hash FROM audit WHERE audit_id = ?1 ORDER BY seq LIMIT 1";
            self.connection.prepare_cached(sql)?.query_row(params![audit_id.to_string()], Link::read).optional()
        };
        let link = run().map_err(|error| self.failed(error))?;
        link.map(|link| Ok(self.decode(&link)?.position)).transpose()
    }

    /// The newest that the filter admits, one more than the limit, so that the caller sees whether older ones exist.
    fn entries(&self, filter: &Filter, limit: usize) -> Result<Vec<Entry>, Error> {
        let (sql, values) = select(filter, limit);
        let run = || {
            let mut statement = self.connection.prepare_cached(&sql)?;
            let rows = statement.query_map(params_from_iter(values), Link::read)?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        };
        let links = run().map_err(|error| self.failed(error))?;
        links.iter().map(|link| self.decode(link)).collect()
    }

    fn decode(&self, link: &Link) -> Result<Entry, Error> {
        link.decode().map_err(|error| self.unreadable(&error))
    }
}

fn text<'a>(row: &'a Row<'_>, column: usize) -> rusqlite::Result<&'a str> {
    Ok(row.get_ref(column)?.as_str()?)
}

fn select(filter: &Filter, limit: usize) -> (String, Vec<Value>) {
    let text = |text: &Option<String>| text.clone().map(Value::Text);
    let conditions = [
        ("request_id =", text(&filter.request_id)),
        ("actor =", text(&filter.actor)),
        ("action =", text(&filter.action)),
        ("target =", text(&filter.target)),
        ("at_ns >=", filter.since.map(|since| Value::Integer(to_sql(since.0)))),
        ("at_ns <", filter.until.map(|until| Value::Integer(to_sql(until.0)))),
        ("audit_id <", filter.before.map(|before| Value::Text(before.to_string()))),
    ];
    let mut sql = "SELECT seq, body, hash FROM audit WHERE 1".to_owned();
    let mut values = Vec::new();
    for (condition, value) in conditions {
        if let Some(value) = value {
            sql.push_str(" AND ");
            sql.push_str(condition);
            sql.push_str(" ?");
            values.push(value);
        }
    }
    let rows = limit.saturating_add(1);
    sql.push_str(&format!(" ORDER BY audit_id DESC, seq DESC LIMIT {rows}"));
    (sql, values)
}
