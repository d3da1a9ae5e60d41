//! A chain in its table: how a record is added, and how a chain is read from outside without a running node.

use std::collections::VecDeque;
use std::path::Path;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::error::running;
use super::file::{self, Name};
use crate::domain::audit::{Draft, Hash, Position};
use crate::store::{Chain, Error};
use crate::wire::record::audit::{Anchor, Broken, Verifier, place};

/// Records in memory at once while a chain is read from outside: some hundred KiB.
const READ_PAGE: i64 = 512;

/// The chain a file holds.
pub(super) const fn file_of(chain: Chain) -> Name {
    match chain {
        Chain::Reads => Name::Events,
        Chain::Refusals => Name::Refusals,
        Chain::Writes => Name::Control,
    }
}

/// Why a record was not added: SQLite refused it, or it has no stored form.
pub(super) enum Refused {
    Sql(rusqlite::Error),
    Form(String),
}

impl From<rusqlite::Error> for Refused {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl Refused {
    /// The same as the store's own error.
    pub(super) fn at(self, path: &Path) -> Error {
        match self {
            Self::Sql(error) => running(path, error),
            Self::Form(reason) => Error::Unreadable { place: path.display().to_string(), reason },
        }
    }
}

/// What the columns beside the body hold: copies for searching, from nowhere but the record.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Copies {
    audit_id: String,
    at_ns: i64,
    actor: String,
    action: String,
    target: String,
    request_id: Option<String>,
}

impl Copies {
    fn of(draft: &Draft) -> Self {
        Self {
            audit_id: draft.audit_id.to_string(),
            at_ns: to_sql(draft.at.0),
            actor: draft.actor.clone(),
            action: draft.action.clone(),
            target: draft.target.to_string(),
            request_id: draft.request_id.as_ref().map(ToString::to_string),
        }
    }

    /// Whether the columns hold what the record holds.
    pub(super) fn are_of(&self, draft: &Draft) -> bool {
        *self == Self::of(draft)
    }

    /// Reads the columns from the fourth on.
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            audit_id: row.get(3)?,
            at_ns: row.get(4)?,
            actor: row.get(5)?,
            action: row.get(6)?,
            target: row.get(7)?,
            request_id: row.get(8)?,
        })
    }
}

/// Adds a draft after the end of its chain.
pub(super) fn append(connection: &Connection, draft: &Draft, end: Anchor) -> Result<Position, Refused> {
    let (position, bytes) = place(draft, end).map_err(|error| Refused::Form(error.to_string()))?;
    let body = String::from_utf8(bytes).map_err(|error| Refused::Form(error.to_string()))?;
    let copies = Copies::of(draft);
    let sql = "INSERT INTO audit (seq, body, hash, audit_id, at_ns, actor, action, target, request_id)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    connection.prepare_cached(sql)?.execute(params![
        to_sql(position.seq),
        body,
        position.hash.0,
        copies.audit_id,
        copies.at_ns,
        copies.actor,
        copies.action,
        copies.target,
        copies.request_id,
    ])?;
    Ok(position)
}

/// SQLite's integers end at 2^63: as a time that is the year 2262, as a count it is never reached.
pub(super) fn to_sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Where the kept part of the chain begins.
pub(super) fn anchor(connection: &Connection, path: &Path) -> Result<Anchor, Error> {
    let row = connection.query_row("SELECT seq, hash FROM anchor", [], |row| Ok((row.get(0)?, row.get(1)?)));
    let (seq, hash): (i64, [u8; 32]) = row.map_err(|error| file_error(path, error))?;
    Ok(Anchor { seq: from_sql(seq, path)?, hash: Hash(hash) })
}

/// The end of the chain. The newest record must hold by itself: a writer that continued from a damaged one would bury the
/// damage.
pub(super) fn end(connection: &Connection, path: &Path) -> Result<Anchor, Error> {
    let newest = connection
        .query_row("SELECT seq, body, hash FROM audit ORDER BY seq DESC LIMIT 1", [], |row| Ok(Link::read(row)))
        .optional()
        .map_err(|error| file_error(path, error))?;
    let Some(newest) = newest else { return anchor(connection, path) };
    let link = newest.map_err(|error| file_error(path, error))?;
    let entry = link.decode().map_err(|error| unreadable(path, error))?;
    let wanted = Hash::chain(entry.position.previous, &link.canonical);
    if entry.position.seq != link.seq || wanted != link.hash {
        return Err(unreadable(path, format!("record {}: its hash or place does not hold", link.seq)));
    }
    Ok(entry.position.into())
}

/// A failure to read what this version itself should have written.
fn file_error(path: &Path, error: rusqlite::Error) -> Error {
    super::error::opening(path, error)
}

fn unreadable(path: &Path, reason: impl ToString) -> Error {
    Error::Unreadable { place: path.display().to_string(), reason: reason.to_string() }
}

fn from_sql(number: i64, path: &Path) -> Result<u64, Error> {
    u64::try_from(number).map_err(|error| unreadable(path, error))
}

/// One record as it is stored, not yet checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The number under which it is stored.
    pub seq: u64,
    /// The bytes that its hash covers.
    pub canonical: Vec<u8>,
    /// Its stored hash.
    pub hash: Hash,
}

impl Link {
    /// Reads the columns `seq, body, hash`.
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let seq: i64 = row.get(0)?;
        // A body that is no text any more is for the decoder to refuse.
        let canonical = match row.get_ref(1)? {
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.to_vec(),
            ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => Vec::new(),
        };
        Ok(Self { seq: u64::try_from(seq).unwrap_or_default(), canonical, hash: Hash(row.get(2)?) })
    }

    /// The record itself.
    pub fn decode(&self) -> Result<crate::domain::audit::Entry, crate::wire::record::Error> {
        crate::wire::record::audit::decode(&self.canonical, self.hash)
    }
}

/// Reads a chain from its file, oldest first, a page at a time. The node may be running or not.
#[derive(Debug)]
pub struct ChainReader {
    connection: Connection,
    path: std::path::PathBuf,
    anchor: Anchor,
    last: i64,
    page: VecDeque<(Link, Copies)>,
    is_done: bool,
}

/// The name of a chain's file.
pub fn file_name(chain: Chain) -> &'static str {
    file_of(chain).as_str()
}

/// Whether the folder has a chain of refusals: that of an earlier version has none.
pub fn has_refusals(folder: &Path) -> bool {
    folder.join(Name::Refusals.as_str()).try_exists().unwrap_or(true)
}

/// Opens a chain for reading from outside.
pub fn read_chain(folder: &Path, chain: Chain) -> Result<ChainReader, Error> {
    // SQLite refuses links on the way to a file; those above the folder are the operator's choice.
    let folder = folder.canonicalize().map_err(|error| unreadable(folder, error))?;
    let path = folder.join(file_of(chain).as_str());
    let connection = file::open_reader(&folder, file_of(chain))?;
    if chain != Chain::Writes {
        // Rotation must not overtake the reading. Writes are never removed, so their log need not be held back.
        connection.execute_batch("BEGIN").map_err(|error| running(&path, error))?;
    }
    let anchor = anchor(&connection, &path)?;
    let last = to_sql(anchor.seq);
    Ok(ChainReader { connection, path, anchor, last, page: VecDeque::new(), is_done: false })
}

impl ChainReader {
    /// Where the kept part of the chain begins: the number and hash of the last record that was removed.
    pub const fn anchor(&self) -> Anchor {
        self.anchor
    }

    fn next_page(&mut self) -> Result<(), Error> {
        let read = || {
            let sql = "SELECT seq, body, hash, audit_id, at_ns, actor, action, target, request_id
                       FROM audit WHERE ?1 < seq ORDER BY seq LIMIT ?2";
            let mut statement = self.connection.prepare_cached(sql)?;
            let read = |row: &Row<'_>| Ok((Link::read(row)?, Copies::read(row)?));
            let rows = statement.query_map(params![self.last, READ_PAGE], read)?;
            rows.collect::<rusqlite::Result<VecDeque<_>>>()
        };
        self.page = read().map_err(|error| file_error(&self.path, error))?;
        match self.page.back() {
            Some((last, _)) => self.last = to_sql(last.seq),
            None => self.is_done = true,
        }
        Ok(())
    }

    pub(super) fn next_row(&mut self) -> Option<Result<(Link, Copies), Error>> {
        if self.page.is_empty()
            && !self.is_done
            && let Err(error) = self.next_page()
        {
            self.is_done = true;
            return Some(Err(error));
        }
        self.page.pop_front().map(Ok)
    }
}

impl Iterator for ChainReader {
    type Item = Result<Link, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_row().map(|row| row.map(|(link, _)| link))
    }
}

/// What the check of a chain found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Every record holds.
    Whole {
        /// What is no longer kept ends here.
        begin: Anchor,
        /// The newest record.
        end: Anchor,
    },
    /// The first record that does not.
    Broken(Broken),
}

/// Checks a chain from its file, the columns for searching included: a record that no search finds is as good as removed.
/// The node may be running or not.
pub fn verify(folder: &Path, chain: Chain) -> Result<Verdict, Error> {
    let mut reader = read_chain(folder, chain)?;
    let begin = reader.anchor();
    let mut verifier = Verifier::after(begin);
    while let Some(row) = reader.next_row() {
        let (link, copies) = row?;
        match verifier.follow(&link.canonical, link.hash) {
            Ok(entry) if copies.are_of(&entry.draft) && entry.position.seq == link.seq => {}
            Ok(entry) => {
                let reason = "wanted the columns for searching to hold what the record holds".to_owned();
                return Ok(Verdict::Broken(Broken { seq: entry.position.seq, reason }));
            }
            Err(broken) => return Ok(Verdict::Broken(broken)),
        }
    }
    Ok(Verdict::Whole { begin, end: verifier.end() })
}
