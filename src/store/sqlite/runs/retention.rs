//! Which finished runs go when one more has ended, in the transaction that ends it.
//!
//! First by instance: of each only so many are kept (contract, RR-60). Then over all, because callers name the instances: by
//! number, and by the space that the file uses; there the newest one stays, whatever it takes. The oldest start goes first,
//! also where that is the run that has just ended: who waits for it is told otherwise (decision 0016). A run that goes on is
//! never among them.
//!
//! The order of the starts is that of the rows: a run is written when it begins, and its row's number is larger than all that
//! are there. A clock that was set back says otherwise, and is not asked. No number is ever given twice, because the row with
//! the largest one stays: of finished runs the newest is kept, and those that go on all are.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::row;
use crate::domain::run::RunId;
use crate::store::runs::{BYTES_PER_MB, Limits};

/// Most runs that go at once to make room over all: one end is not held up by a setting that was made much smaller. The next
/// ends go on with it.
const GONE_AT_ONCE_MAX: usize = 1_000;

/// Free pages that are given back to the file system at once: some 4 MiB.
const GIVEN_BACK_MAX: u64 = 1_024;

/// Of the agent and instance of one run, what is finished beyond so many, the newest first.
pub(super) const SURPLUS: &str = "SELECT no, run FROM run
    WHERE (agent, instance) = (SELECT agent, instance FROM run WHERE run = ?1) AND ended_ns IS NOT NULL
    ORDER BY no DESC LIMIT -1 OFFSET ?2";

/// Of all that is finished, what began first. Before it there are only runs that go on, which are few.
pub(super) const OLDEST: &str = "SELECT no, run FROM run WHERE ended_ns IS NOT NULL ORDER BY no LIMIT 1";

/// How much of the past is kept.
#[derive(Debug)]
pub(super) struct Keep {
    /// Finished runs of each instance.
    pub(super) runs: Arc<AtomicUsize>,
    /// What the file may use.
    pub(super) megabytes: Arc<AtomicU64>,
    pub(super) limits: Limits,
    /// Finished runs over all, where that is known.
    pub(super) finished: Cell<Option<usize>>,
}

impl Keep {
    /// Makes room for a run that has just ended: those that went, in order.
    pub(super) fn make_room(&self, file: &Connection, ended: RunId) -> rusqlite::Result<Vec<RunId>> {
        let mut finished = match self.finished.get() {
            Some(before) => before.saturating_add(1),
            None => count(file)?,
        };
        let of_instance = self.surplus_of_instance(file, ended)?;
        let mut gone = Vec::with_capacity(of_instance.len());
        for (no, run) in of_instance {
            forget(file, no, run)?;
            finished = finished.saturating_sub(1);
            gone.push(run);
        }
        while gone.len() < GONE_AT_ONCE_MAX
            && 1 < finished
            && (self.limits.finished < finished || self.is_over_quota(file)?)
            && let Some((no, run)) = oldest(file)?
        {
            forget(file, no, run)?;
            finished = finished.saturating_sub(1);
            gone.push(run);
        }
        if !gone.is_empty() {
            drop_forgotten(file, self.limits.forgotten)?;
        }
        self.finished.set(Some(finished));
        Ok(gone)
    }

    /// After something was undone: counted again when it is wanted.
    pub(super) fn forget_count(&self) {
        self.finished.set(None);
    }

    /// Gives free pages back to the file system while the file is larger than it may be. Below that they are used again.
    pub(super) fn give_back(&self, file: &Connection) -> rusqlite::Result<()> {
        let (pages, free) = (pragma(file, "page_count")?, pragma(file, "freelist_count")?);
        if free == 0 || pages.saturating_mul(pragma(file, "page_size")?) <= self.quota() {
            return Ok(());
        }
        let mut statement = file.prepare_cached(&format!("PRAGMA incremental_vacuum({GIVEN_BACK_MAX})"))?;
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
        Ok(())
    }

    fn quota(&self) -> u64 {
        self.megabytes.load(Ordering::Relaxed).saturating_mul(BYTES_PER_MB)
    }

    fn is_over_quota(&self, file: &Connection) -> rusqlite::Result<bool> {
        let used = pragma(file, "page_count")?.saturating_sub(pragma(file, "freelist_count")?);
        Ok(self.quota() < used.saturating_mul(pragma(file, "page_size")?))
    }

    /// What is too much of this run's agent and instance, the newest first.
    fn surplus_of_instance(&self, file: &Connection, ended: RunId) -> rusqlite::Result<Vec<(i64, RunId)>> {
        let kept = row::count(self.runs.load(Ordering::Relaxed).max(1));
        file.prepare_cached(SURPLUS)?.query_map(params![ended.to_string(), kept], place)?.collect()
    }
}

fn place(row: &Row<'_>) -> rusqlite::Result<(i64, RunId)> {
    Ok((row.get(0)?, row::parsed(row, 1)?))
}

/// The finished run that began before all others.
fn oldest(file: &Connection) -> rusqlite::Result<Option<(i64, RunId)>> {
    file.prepare_cached(OLDEST)?.query_row([], place).optional()
}

/// Finished runs over all, from two indices.
fn count(file: &Connection) -> rusqlite::Result<usize> {
    let sql = "SELECT (SELECT count(*) FROM run) - (SELECT count(*) FROM run WHERE ended_ns IS NULL)";
    let count = file.prepare_cached(sql)?.query_row([], |row| row::number(row, 0))?;
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

fn pragma(file: &Connection, name: &str) -> rusqlite::Result<u64> {
    file.prepare_cached(&format!("PRAGMA {name}"))?.query_row([], |row| row::number(row, 0))
}

fn forget(file: &Connection, no: i64, run: RunId) -> rusqlite::Result<()> {
    file.prepare_cached("DELETE FROM event WHERE run_no = ?1")?.execute(params![no])?;
    file.prepare_cached("DELETE FROM run WHERE no = ?1")?.execute(params![no])?;
    let sql = "INSERT INTO forgotten (number, run) VALUES (?1, ?2)";
    file.prepare_cached(sql)?.execute(params![row::next_number(file)?, run.to_string()]).map(drop)
}

/// Holds the memory of forgotten runs to its length, and says up to where it is gone.
fn drop_forgotten(file: &Connection, kept: usize) -> rusqlite::Result<()> {
    let sql = "UPDATE counter SET dropped_upto = coalesce(
                   (SELECT number FROM forgotten ORDER BY number DESC LIMIT 1 OFFSET ?1), dropped_upto)";
    file.prepare_cached(sql)?.execute(params![row::count(kept)])?;
    let sql = "DELETE FROM forgotten WHERE number <= (SELECT dropped_upto FROM counter)";
    file.prepare_cached(sql)?.execute([]).map(drop)
}
