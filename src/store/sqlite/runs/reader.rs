//! Answers to questions about runs, from a connection that only reads.

use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::{Connection, InterruptHandle, OptionalExtension, Row, params};

use super::row::{self, POINTER, POINTER_COLUMNS};
use crate::domain::run::{Event, Pointer, Run, RunId};
use crate::store::Error;
use crate::store::runs::{EventPage, EventsAsked, Head, PAGE_MAX};
use crate::store::sqlite::chain::to_sql;
use crate::store::sqlite::error::{Health, running};
use crate::store::sqlite::file::{Folder, Name};

/// Whether a run was forgotten. Asked for every run that is accepted and not found, by whoever follows it.
pub(super) const IS_FORGOTTEN: &str = "SELECT EXISTS (SELECT 1 FROM forgotten WHERE run = ?1)";

/// Reads the file.
pub(super) struct Reader {
    connection: Connection,
    path: PathBuf,
    health: Arc<Health>,
}

impl Reader {
    pub(super) fn open(folder: &Folder, health: Arc<Health>) -> Result<Self, Error> {
        Ok(Self { connection: folder.reader(Name::Runs)?, path: folder.file(Name::Runs), health })
    }

    /// What ends a long question.
    pub(super) fn interrupt(&self) -> InterruptHandle {
        self.connection.get_interrupt_handle()
    }

    /// Answers a question from one state of the file, however many statements it takes.
    pub(super) fn read<T>(&self, ask: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Error> {
        let answer = self.connection.unchecked_transaction().and_then(|snapshot| {
            let answer = ask(&snapshot)?;
            snapshot.finish()?;
            Ok(answer)
        });
        answer.map_err(|error| {
            let error = running(&self.path, error);
            if matches!(error, Error::Broken { .. }) {
                self.health.note(&error);
            }
            error
        })
    }

    pub(super) fn run(&self, run: RunId) -> Result<Option<Run>, Error> {
        let read = |row: &Row<'_>| {
            let (result, error) = (row.get(POINTER_COLUMNS)?, row.get(POINTER_COLUMNS.saturating_add(1))?);
            Ok(Run { pointer: row::pointer(row)?, result, error })
        };
        let sql = format!("SELECT {POINTER}, result, error FROM run WHERE run = ?1");
        self.read(|file| file.prepare_cached(&sql)?.query_row(params![run.to_string()], read).optional())
    }

    pub(super) fn is_forgotten(&self, run: RunId) -> Result<bool, Error> {
        self.read(|file| file.prepare_cached(IS_FORGOTTEN)?.query_row(params![run.to_string()], |row| row.get(0)))
    }

    pub(super) fn lookup(&self, run: RunId) -> Result<Option<Pointer>, Error> {
        let find = |file: &Connection, table: &str| {
            let sql = format!("SELECT {POINTER} FROM {table} WHERE run = ?1");
            file.prepare_cached(&sql)?.query_row(params![run.to_string()], row::pointer).optional()
        };
        self.read(|file| {
            let own = find(file, "run")?;
            if own.is_some() { Ok(own) } else { find(file, "replica") }
        })
    }

    pub(super) fn head(&self, run: RunId) -> Result<Option<Head>, Error> {
        self.read(|file| Ok(row::place(file, run)?.map(|(_, head)| head)))
    }

    pub(super) fn unfinished(&self) -> Result<Vec<RunId>, Error> {
        let sql = "SELECT run FROM run WHERE ended_ns IS NULL ORDER BY started_ms, run";
        self.read(|file| file.prepare_cached(sql)?.query_map([], |row| row::parsed(row, 0))?.collect())
    }

    pub(super) fn events(&self, asked: &EventsAsked) -> Result<Option<EventPage>, Error> {
        let read = |row: &Row<'_>| {
            let pointer = row::pointer(row)?;
            let count = row::number(row, POINTER_COLUMNS.saturating_add(1))?;
            let head = Head { count, is_ended: pointer.end.is_some() };
            Ok((row.get(POINTER_COLUMNS)?, pointer, head))
        };
        let sql = format!("SELECT {POINTER}, no, head FROM run WHERE run = ?1");
        self.read(|file| {
            let found = file.prepare_cached(&sql)?.query_row(params![asked.run.to_string()], read).optional()?;
            found.map(|(no, pointer, head)| page(file, asked, no, (pointer, head))).transpose()
        })
    }
}

fn page(
    file: &Connection,
    asked: &EventsAsked,
    no: i64,
    (pointer, head): (Pointer, Head),
) -> rusqlite::Result<EventPage> {
    let limit = asked.limit.min(PAGE_MAX);
    let mut statement = file.prepare_cached(&sql(asked))?;
    let mut rows = statement.query(params![no, to_sql(asked.from), row::count(limit)])?;
    let mut events: Vec<Event> = Vec::new();
    let mut bytes = 0_usize;
    let mut is_cut = limit == 0;
    while let Some(row) = rows.next()? {
        let event = row::event(row)?;
        bytes = bytes.saturating_add(event.body.len());
        is_cut = !events.is_empty() && asked.bytes_max < bytes;
        if is_cut {
            break;
        }
        events.push(event);
        is_cut = events.len() == limit;
    }
    let end = asked.from.max(head.count);
    let behind = events.last().map_or(asked.from, |event| event.index.saturating_add(1));
    Ok(EventPage { pointer, events, next: if is_cut { behind } else { end }, head })
}

/// The names of kinds are a closed set without a quote in it.
fn sql(asked: &EventsAsked) -> String {
    let kinds = asked.kinds.as_ref().map(|kinds| {
        let names: Vec<_> = kinds.iter().map(|kind| format!("'{kind}'")).collect();
        format!("AND kind IN ({})", names.join(", "))
    });
    let kinds = kinds.unwrap_or_default();
    format!(
        "SELECT number, kind, at_ns, body FROM event WHERE run_no = ?1 AND ?2 <= number {kinds} ORDER BY number LIMIT ?3"
    )
}
