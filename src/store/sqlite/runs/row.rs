//! Pointers, events and numbers as they stand in rows.

use std::fmt::Display;
use std::str::FromStr;

use rusqlite::types::{Type, Value};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::domain::run::{End, Event, Pointer, RunId};
use crate::domain::time::{Millis, Wall};
use crate::store::runs::Head;
use crate::store::sqlite::chain::to_sql;

/// The columns of a pointer, in both tables that have them, in the order in which [`pointer()`] reads them.
pub(super) const POINTER: &str = "run, owner, agent, instance, started_ns, started_ms, ended_ns, is_error, duration_ms";

/// How many columns that are.
pub(super) const POINTER_COLUMNS: usize = 9;

/// A number as SQLite has given it.
pub(super) fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_negative| rusqlite::Error::IntegralValueOutOfRange(column, number))
}

/// A text as it lies in the row.
fn text<'a>(row: &'a Row<'_>, column: usize) -> rusqlite::Result<&'a str> {
    let value = row.get_ref(column)?;
    value.as_str().map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, value.data_type(), error.into()))
}

/// A text that is another type's form.
pub(super) fn parsed<T: FromStr<Err: Display>>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    text(row, column)?.parse().map_err(|error: T::Err| {
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, error.to_string().into())
    })
}

/// A limit or an offset.
pub(super) fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The pointer in the first columns of a row.
pub(super) fn pointer(row: &Row<'_>) -> rusqlite::Result<Pointer> {
    let end = match row.get::<_, Option<i64>>(6)? {
        None => None,
        Some(_) => Some(End { at: Wall(number(row, 6)?), is_error: row.get(7)?, duration: Millis(number(row, 8)?) }),
    };
    Ok(Pointer {
        run: parsed(row, 0)?,
        owner: parsed(row, 1)?,
        agent: parsed(row, 2)?,
        instance: parsed(row, 3)?,
        started: Wall(number(row, 4)?),
        end,
    })
}

/// The values of a pointer in the order of [`POINTER`].
pub(super) fn values(pointer: &Pointer) -> [Value; POINTER_COLUMNS] {
    let of_end = |pick: fn(&End) -> Value| pointer.end.as_ref().map_or(Value::Null, pick);
    [
        Value::Text(pointer.run.to_string()),
        Value::Text(pointer.owner.to_string()),
        Value::Text(pointer.agent.to_string()),
        Value::Text(pointer.instance.to_string()),
        Value::Integer(to_sql(pointer.started.0)),
        Value::Integer(to_sql(pointer.started.as_millis())),
        of_end(|end| Value::Integer(to_sql(end.at.0))),
        of_end(|end| Value::Integer(end.is_error.into())),
        of_end(|end| Value::Integer(to_sql(end.duration.0))),
    ]
}

/// An event from the columns number, kind, at and body.
pub(super) fn event(row: &Row<'_>) -> rusqlite::Result<Event> {
    Ok(Event { index: number(row, 0)?, kind: parsed(row, 1)?, at: Wall(number(row, 2)?), body: text(row, 3)?.into() })
}

/// A run's place in the file and how long its log is.
pub(super) fn place(connection: &Connection, run: RunId) -> rusqlite::Result<Option<(i64, Head)>> {
    let mut statement = connection.prepare_cached("SELECT no, head, ended_ns IS NOT NULL FROM run WHERE run = ?1")?;
    let read = |row: &Row<'_>| Ok((row.get(0)?, Head { count: number(row, 1)?, is_ended: row.get(2)? }));
    statement.query_row(params![run.to_string()], read).optional()
}

/// The number of the next change of a pointer.
pub(super) fn next_number(file: &Connection) -> rusqlite::Result<i64> {
    let sql = "UPDATE counter SET number = number + 1 RETURNING number";
    file.prepare_cached(sql)?.query_row([], |row| row.get(0))
}
