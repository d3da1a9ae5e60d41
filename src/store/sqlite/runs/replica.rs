//! The copies of peers' pointers, held to their limits.

use std::collections::BTreeSet;

use rusqlite::{Connection, params, params_from_iter};

use super::registry::upto;
use super::row::{self, POINTER};
use crate::domain::id::RuntimeId;
use crate::domain::run::Pointer;
use crate::store::runs::{Limits, PointerChange, Replica};
use crate::store::sqlite::chain::to_sql;

/// Keeps a page. False if it is older than what is kept.
pub(super) fn keep(file: &Connection, replica: &Replica, limits: Limits) -> rusqlite::Result<bool> {
    let Replica { owner, is_restart, changes, upto: told } = replica;
    if !is_restart && upto(file, owner)?.is_some_and(|kept| told.number < kept.number) {
        return Ok(false);
    }
    let name = owner.to_string();
    if *is_restart {
        file.prepare_cached("DELETE FROM replica WHERE owner = ?1")?.execute(params![name])?;
    }
    for change in changes {
        match change {
            PointerChange::Put(pointer) if pointer.owner == *owner => put(file, pointer)?,
            // A peer speaks for itself alone.
            PointerChange::Put(_) => {}
            PointerChange::Forgotten(run) => {
                let sql = "DELETE FROM replica WHERE run = ?1 AND owner = ?2";
                file.prepare_cached(sql)?.execute(params![run.to_string(), name])?;
            }
        }
    }
    let sql = "INSERT INTO peer (owner, upto, floor, kept) VALUES (?1, ?2, ?3, 0)
               ON CONFLICT (owner) DO UPDATE SET upto = excluded.upto, floor = excluded.floor";
    file.prepare_cached(sql)?.execute(params![name, to_sql(told.number), to_sql(told.floor)])?;
    trim(file, owner, limits)?;
    Ok(true)
}

fn put(file: &Connection, pointer: &Pointer) -> rusqlite::Result<()> {
    let sql = format!(
        "INSERT INTO replica ({POINTER}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (run) DO UPDATE SET agent = excluded.agent, instance = excluded.instance,
            started_ns = excluded.started_ns, started_ms = excluded.started_ms, ended_ns = excluded.ended_ns,
            is_error = excluded.is_error, duration_ms = excluded.duration_ms
         WHERE owner = excluded.owner"
    );
    file.prepare_cached(&sql)?.execute(params_from_iter(row::values(pointer))).map(drop)
}

/// The oldest go: first those of this peer, then those of all.
fn trim(file: &Connection, owner: &RuntimeId, limits: Limits) -> rusqlite::Result<()> {
    let sql = "DELETE FROM replica WHERE run IN (
                   SELECT run FROM replica WHERE owner = ?1 ORDER BY started_ms DESC, run DESC LIMIT -1 OFFSET ?2)";
    file.prepare_cached(sql)?.execute(params![owner.to_string(), row::count(limits.replicated)])?;
    recount(file, &owner.to_string())?;
    let kept: i64 = file.prepare_cached("SELECT sum(kept) FROM peer")?.query_row([], |row| row.get(0))?;
    let surplus = kept.saturating_sub(row::count(limits.replicated_total));
    if surplus <= 0 {
        return Ok(());
    }
    let sql = "DELETE FROM replica WHERE run IN (SELECT run FROM replica ORDER BY started_ms, run LIMIT ?1)
               RETURNING owner";
    let mut statement = file.prepare_cached(sql)?;
    let losers: BTreeSet<String> =
        statement.query_map(params![surplus], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    losers.iter().try_for_each(|owner| recount(file, owner))
}

fn recount(file: &Connection, owner: &str) -> rusqlite::Result<()> {
    let sql = "UPDATE peer SET kept = (SELECT count(*) FROM replica WHERE replica.owner = ?1) WHERE owner = ?1";
    file.prepare_cached(sql)?.execute(params![owner]).map(drop)
}
