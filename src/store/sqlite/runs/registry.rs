//! Answers to questions about pointers: lists, and what became of them.

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};

use super::reader::Reader;
use super::row::{self, POINTER, POINTER_COLUMNS};
use crate::domain::id::RuntimeId;
use crate::domain::run::{Pointer, Status};
use crate::store::Error;
use crate::store::runs::{
    AgentInstance, InstancePage, InstancesAsked, PAGE_MAX, PointerChange, PointerChanges, RunCursor, RunPage,
    RunsAsked, Upto,
};
use crate::store::sqlite::chain::to_sql;

/// A condition and its values.
#[derive(Default)]
struct Where {
    conditions: Vec<&'static str>,
    values: Vec<Value>,
}

impl Where {
    fn and(&mut self, condition: &'static str, values: impl IntoIterator<Item = Value>) {
        self.conditions.push(condition);
        self.values.extend(values);
    }

    fn sql(&self) -> String {
        if self.conditions.is_empty() { String::new() } else { format!("WHERE {}", self.conditions.join(" AND ")) }
    }
}

fn text(value: impl ToString) -> Value {
    Value::Text(value.to_string())
}

/// One more than the page holds: whether there is more.
fn one_more(limit: usize) -> i64 {
    row::count(limit.saturating_add(1))
}

impl Reader {
    pub(super) fn list(&self, asked: &RunsAsked) -> Result<RunPage, Error> {
        let limit = asked.limit.min(PAGE_MAX);
        let mut wanted = Where::default();
        match asked.status {
            None => {}
            Some(Status::Active) => wanted.and("ended_ns IS NULL", []),
            Some(Status::Completed) => wanted.and("ended_ns IS NOT NULL AND is_error = 0", []),
            Some(Status::Errored) => wanted.and("ended_ns IS NOT NULL AND is_error = 1", []),
        }
        if let Some(agent) = &asked.agent {
            wanted.and("agent = ?", [text(agent)]);
        }
        if let Some(instance) = &asked.instance {
            wanted.and("instance = ?", [text(instance)]);
        }
        if let Some(RunCursor { started, run }) = asked.cursor {
            wanted.and("(started_ms, run) < (?, ?)", [Value::Integer(to_sql(started.as_millis())), text(run)]);
        }
        let sql = format!("SELECT {POINTER} FROM run {} ORDER BY started_ms DESC, run DESC LIMIT ?", wanted.sql());
        wanted.values.push(Value::Integer(one_more(limit)));
        let mut pointers: Vec<Pointer> = self.read(|file| {
            file.prepare_cached(&sql)?.query_map(params_from_iter(wanted.values), row::pointer)?.collect()
        })?;
        let has_more = limit < pointers.len();
        pointers.truncate(limit);
        let next = pointers.last().filter(|_| has_more).map(RunCursor::of);
        Ok(RunPage { pointers, next })
    }

    pub(super) fn instances(&self, asked: &InstancesAsked) -> Result<InstancePage, Error> {
        let limit = asked.limit.min(PAGE_MAX);
        let mut wanted = Where::default();
        if let Some(agent) = &asked.agent {
            wanted.and("agent = ?", [text(agent)]);
        }
        if let Some(AgentInstance { agent, instance }) = &asked.cursor {
            wanted.and("(agent, instance) > (?, ?)", [text(agent), text(instance)]);
        }
        let sql = format!("SELECT DISTINCT agent, instance FROM run {} ORDER BY agent, instance LIMIT ?", wanted.sql());
        wanted.values.push(Value::Integer(one_more(limit)));
        let read = |row: &Row<'_>| Ok(AgentInstance { agent: row::parsed(row, 0)?, instance: row::parsed(row, 1)? });
        let mut instances: Vec<AgentInstance> =
            self.read(|file| file.prepare_cached(&sql)?.query_map(params_from_iter(wanted.values), read)?.collect())?;
        let has_more = limit < instances.len();
        instances.truncate(limit);
        let next = instances.last().filter(|_| has_more).cloned();
        Ok(InstancePage { instances, next })
    }

    pub(super) fn changes(&self, after: Upto, limit: usize) -> Result<PointerChanges, Error> {
        let limit = limit.min(PAGE_MAX);
        self.read(|file| {
            let counters = |row: &Row<'_>| Ok((row::number(row, 0)?, row::number(row, 1)?));
            let (head, dropped_upto) =
                file.prepare_cached("SELECT number, dropped_upto FROM counter")?.query_row([], counters)?;
            let is_restart = !after.is_continued_by(head, dropped_upto);
            let from = if is_restart { Upto { number: 0, floor: dropped_upto } } else { after };
            let mut changes = changed(file, from.number, limit)?;
            let has_more = limit < changes.len();
            changes.truncate(limit);
            let last = changes.last().map_or(from.number, |(number, _)| *number);
            let upto = Upto { number: if has_more { last } else { head }, ..from };
            Ok(PointerChanges { is_restart, changes, upto, has_more })
        })
    }

    pub(super) fn number(&self) -> Result<u64, Error> {
        self.read(|file| file.prepare_cached("SELECT number FROM counter")?.query_row([], |row| row::number(row, 0)))
    }

    pub(super) fn replicated_upto(&self, owner: &RuntimeId) -> Result<Upto, Error> {
        self.read(|file| Ok(upto(file, owner)?.unwrap_or_default()))
    }
}

/// How far the copy of a peer's pointers is.
pub(super) fn upto(file: &Connection, owner: &RuntimeId) -> rusqlite::Result<Option<Upto>> {
    let read = |row: &Row<'_>| Ok(Upto { number: row::number(row, 0)?, floor: row::number(row, 1)? });
    let mut statement = file.prepare_cached("SELECT upto, floor FROM peer WHERE owner = ?1")?;
    statement.query_row(params![owner.to_string()], read).optional()
}

/// At least one change more than the limit, if there are that many, in their order.
fn changed(file: &Connection, after: u64, limit: usize) -> rusqlite::Result<Vec<(u64, PointerChange)>> {
    let range = params![to_sql(after), one_more(limit)];
    let sql = format!("SELECT {POINTER}, number FROM run WHERE ?1 < number ORDER BY number LIMIT ?2");
    let put = |row: &Row<'_>| Ok((row::number(row, POINTER_COLUMNS)?, PointerChange::Put(row::pointer(row)?)));
    let mut changes: Vec<_> = file.prepare_cached(&sql)?.query_map(range, put)?.collect::<rusqlite::Result<_>>()?;
    let sql = "SELECT number, run FROM forgotten WHERE ?1 < number ORDER BY number LIMIT ?2";
    let gone = |row: &Row<'_>| Ok((row::number(row, 0)?, PointerChange::Forgotten(row::parsed(row, 1)?)));
    for change in file.prepare_cached(sql)?.query_map(range, gone)? {
        changes.push(change?);
    }
    changes.sort_by_key(|(number, _)| *number);
    Ok(changes)
}
