//! The checkpoints of the chain of writes: made by its writer, in transactions of their own after what waited is acknowledged.
//! Each also states where the rotated chains stand.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rusqlite::{Connection, OptionalExtension, params};

use super::chain::{self, ChainReader, Link, to_sql};
use super::damage::with_damage;
use super::error::running;
use super::events::{Shared, SharedTails};
use super::file::{self, Name};
use super::{lock, words};
use crate::domain::audit::{
    Checkpoint, Examiner, Extension, Fault, Findings, Held, NoteError, NoteKey, Occasion, Rotated, Source, Stated,
    TAILS_INTERVALS, TailExaminer, Tails, Tree, is_due,
};
use crate::store::{Chain, Error, Growth};
use crate::wire::record::audit::{Anchor, Verifier};

/// Most checkpoints that are kept: the boots and days of years, in a few MiB.
const KEPT_MAX: i64 = 10_000;

/// The key that signs, as soon as there is one.
pub(super) type SharedKey = Arc<Mutex<Option<NoteKey>>>;

/// What the writer knows of its checkpoints.
pub(super) struct Evidence {
    key: SharedKey,
    tails: SharedTails,
    path: PathBuf,
    /// The tree as of the newest checkpoint.
    tree: Tree,
    newest: Option<Checkpoint>,
    /// The boot that the facts speak of.
    boot: u64,
    /// The last try failed: not every commit tries again.
    is_put_off: bool,
    /// Intervals since the newest checkpoint.
    intervals: u32,
}

impl Evidence {
    /// Goes on from the newest checkpoint. It must fit the file: whoever continued a log that was cut would bury the cut.
    pub(super) fn open(connection: &Connection, path: &Path, end: Anchor, shared: &Shared) -> Result<Self, Error> {
        let path = path.to_owned();
        let (key, tails) = (Arc::clone(&shared.key), Arc::clone(&shared.tails));
        let Some((size, note, subtrees)) = newest(connection, &path)? else {
            let (tree, newest) = (Tree::EMPTY, None);
            return Ok(Self { key, tails, path, tree, newest, boot: 0, is_put_off: false, intervals: 0 });
        };
        let unreadable =
            |reason: &str| Error::Unreadable { place: path.display().to_string(), reason: reason.to_owned() };
        // Whose signature it is, is for the examination; here it counts what the text says.
        let text = note.split_once("\n\n").map(|(text, _)| text).unwrap_or_default();
        let newest = Checkpoint::parse(text).map_err(|error| unreadable(&error.to_string()))?;
        let tree = u64::try_from(size).ok().and_then(|size| Tree::restore(size, &subtrees));
        let tree = tree.filter(|tree| tree.size() == newest.size && tree.root() == newest.root);
        let tree = tree.ok_or_else(|| unreadable("the newest checkpoint is not that of its own tree"))?;
        if end.seq < newest.size {
            return Err(unreadable(&format!(
                "wanted {} records, as the newest checkpoint says, got {}: `trust-runtime audit verify` tells what is missing",
                newest.size, end.seq
            )));
        }
        let boot = newest.boot;
        Ok(Self { key, tails, path, tree, newest: Some(newest), boot, is_put_off: false, intervals: 0 })
    }

    /// What the newest checkpoint states of the other chains.
    pub(super) fn stated(&self) -> Tails {
        self.newest.as_ref().map(|newest| newest.tails).unwrap_or_default()
    }

    #[cfg(test)]
    pub(super) fn set_key(&self, key: NoteKey) {
        *lock(&self.key) = Some(key);
    }

    /// A batch that begins a boot was written.
    pub(super) fn begin_boot(&mut self, boot: u64) {
        self.boot = boot;
    }

    /// Makes a checkpoint if there is a key and one is due.
    pub(super) fn keep(&mut self, connection: &Connection, end: Anchor, occasion: Occasion) -> Result<(), Error> {
        let Some(key) = lock(&self.key).clone() else { return Ok(()) };
        let occasion = self.tick(occasion);
        let waits = self.is_put_off && occasion == Occasion::Growth;
        let tails = *lock(&self.tails);
        if waits || !is_due(self.newest.as_ref(), end.seq, self.boot, &tails, occasion) {
            return Ok(());
        }
        self.is_put_off = true;
        let make = || {
            let mut tree = self.tree.clone();
            add_newer(connection, &mut tree)?;
            let checkpoint = Checkpoint::of(key.name(), &tree, self.boot).with(tails);
            let replaced = self.newest.as_ref().is_some_and(|it| (it.size, it.boot) == (checkpoint.size, self.boot));
            insert(connection, &checkpoint, replaced, (&key.sign(&checkpoint.text()), &tree))?;
            Ok((tree, checkpoint))
        };
        let (tree, newest) = make().map_err(|error| running(&self.path, error))?;
        (self.tree, self.newest, self.is_put_off, self.intervals) = (tree, Some(newest), false, 0);
        Ok(())
    }

    /// Counts an interval, and says when enough of them are over that the rotated chains count too.
    fn tick(&mut self, occasion: Occasion) -> Occasion {
        if occasion != Occasion::Interval {
            return occasion;
        }
        self.intervals = self.intervals.saturating_add(1);
        if self.intervals < TAILS_INTERVALS { Occasion::Interval } else { Occasion::Tails }
    }
}

/// Adds the records that are newer than the tree.
fn add_newer(connection: &Connection, tree: &mut Tree) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached("SELECT body FROM audit WHERE ?1 < seq ORDER BY seq")?;
    let mut rows = statement.query(params![to_sql(tree.size())])?;
    while let Some(row) = rows.next()? {
        tree.push(row.get_ref(0)?.as_bytes()?);
    }
    Ok(())
}

/// Only the newest keeps its tree: the others' can be made from the records. One of the same boot and size is replaced, so that
/// reads and refusals alone do not push out the checkpoints of what was written.
fn insert(
    connection: &Connection,
    checkpoint: &Checkpoint,
    replaces: bool,
    (note, tree): (&str, &Tree),
) -> rusqlite::Result<()> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let write = || {
        if replaces {
            let sql = "DELETE FROM checkpoint WHERE id = (SELECT max(id) FROM checkpoint)";
            connection.prepare_cached(sql)?.execute([])?;
        }
        connection
            .prepare_cached("UPDATE checkpoint SET subtrees = zeroblob(0) WHERE subtrees <> zeroblob(0)")?
            .execute([])?;
        let sql = "INSERT INTO checkpoint (size, note, subtrees) VALUES (?1, ?2, ?3)";
        connection.prepare_cached(sql)?.execute(params![to_sql(checkpoint.size), note, tree.subtrees()])?;
        let oldest = connection.last_insert_rowid().saturating_sub(KEPT_MAX);
        connection.prepare_cached("DELETE FROM checkpoint WHERE id <= ?1")?.execute(params![oldest])?;
        connection.execute_batch("COMMIT")
    };
    let written = write();
    if written.is_err() && !connection.is_autocommit() {
        // The first failure is the one to tell.
        drop(connection.execute_batch("ROLLBACK"));
    }
    written
}

type Row = (i64, String, Vec<u8>);

fn newest(connection: &Connection, path: &Path) -> Result<Option<Row>, Error> {
    let sql = "SELECT size, note, subtrees FROM checkpoint ORDER BY id DESC LIMIT 1";
    let read = connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional();
    read.map_err(|error| super::error::opening(path, error))
}

/// The newest checkpoint as a signed note.
pub(super) fn newest_note(connection: &Connection) -> rusqlite::Result<Option<String>> {
    connection.query_row("SELECT note FROM checkpoint ORDER BY id DESC LIMIT 1", [], |row| row.get(0)).optional()
}

/// The newest checkpoint with what the chain has grown by since it held `from` records.
pub(super) fn growth(connection: &Connection, from: u64) -> rusqlite::Result<Option<Growth>> {
    let sql = "SELECT size, note, subtrees FROM checkpoint ORDER BY id DESC LIMIT 1";
    let read = connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()?;
    let Some((size, note, subtrees)): Option<Row> = read else { return Ok(None) };
    let tree = u64::try_from(size).ok().and_then(|size| Tree::restore(size, &subtrees)).filter(|_| from == 0);
    if let Some(tree) = tree {
        return Ok(Some(Growth { note, subtrees: tree.roots().to_vec() }));
    }
    let mut extension = Extension::after(from);
    let mut statement =
        connection.prepare_cached("SELECT body FROM audit WHERE ?1 < seq AND seq <= ?2 ORDER BY seq")?;
    let mut rows = statement.query(params![to_sql(from), size])?;
    while let Some(row) = rows.next()? {
        extension.push(row.get_ref(0)?.as_bytes()?);
    }
    Ok(Some(Growth { note, subtrees: extension.subtrees() }))
}

/// Every checkpoint that is kept with the chain of writes, oldest first. The node may be running or not.
pub fn read_checkpoints(folder: &Path) -> Result<Vec<String>, Error> {
    let folder = folder
        .canonicalize()
        .map_err(|error| Error::Unreadable { place: folder.display().to_string(), reason: error.to_string() })?;
    let path = folder.join(Name::Control.as_str());
    let connection = file::open_reader(&folder, Name::Control)?;
    let read = || {
        // A file of an earlier version has none.
        let known = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'checkpoint'";
        if connection.query_row(known, [], |row| row.get::<_, i64>(0))? == 0 {
            return Ok(Vec::new());
        }
        let mut statement = connection.prepare("SELECT note FROM checkpoint ORDER BY id")?;
        statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()
    };
    read().map_err(|error| super::error::opening(&path, error))
}

/// What a chain is held against.
#[derive(Debug, Clone, Copy)]
pub struct Proof<'a> {
    /// The key that signs the checkpoints.
    pub key: Option<&'a crate::domain::audit::Verifier>,
    /// Checkpoints that were kept elsewhere.
    pub elsewhere: &'a [Held],
    /// Keys of peers that are known from elsewhere.
    pub witnesses: &'a [crate::domain::audit::Verifier],
}

impl Proof<'_> {
    /// All that is known of this log: the checkpoints kept with it, those elsewhere, and what peers said to them.
    fn gather(&self, folder: &Path) -> Result<(Vec<Held>, words::Evidence), Error> {
        let Some(key) = self.key else { return Ok((self.elsewhere.to_vec(), words::Evidence::default())) };
        // What an earlier key has signed proves nothing by this one; a runtime that was renamed has another.
        let is_by_another = |note: &String| matches!(key.open(note), Err(NoteError::Unsigned(_)));
        let notes = read_checkpoints(folder)?.into_iter().filter(|note| !is_by_another(note));
        let own: Vec<_> = notes.map(|note| Held::read(Source::Own, &note, key)).collect();
        let mut words = words::held(folder, key, self.witnesses)?;
        let held = [own, self.elsewhere.to_vec(), std::mem::take(&mut words.held)].concat();
        Ok((held, words))
    }
}

/// Holds the chain of writes against all that is known of it, and its file against what SQLite wants of one.
pub fn examine(folder: &Path, proof: &Proof<'_>) -> Result<(Findings, Anchor), Error> {
    with_damage(folder, Chain::Writes, examine_writes(folder, proof), Anchor::START)
}

fn examine_writes(folder: &Path, proof: &Proof<'_>) -> Result<(Findings, Anchor), Error> {
    let (held, words) = proof.gather(folder)?;
    let mut examiner = Examiner::new(held);
    words.countersigned.into_iter().for_each(|(witness, size)| examiner.countersigned(witness, size));
    let reader = chain::read_chain(folder, Chain::Writes)?;
    if reader.anchor() != Anchor::START {
        examiner.breaks(1, Fault::Removed, "wanted a chain that begins with its first record".to_owned());
    }
    let end = walk(reader, Anchor::START, &mut examiner)?;
    Ok((examiner.finish(), end))
}

/// The same for a rotated chain, held against what the checkpoints state of it. Gives where the kept part begins and ends.
pub fn examine_rotated(
    folder: &Path,
    which: Rotated,
    proof: &Proof<'_>,
) -> Result<(Findings, RangeInclusive<Anchor>), Error> {
    let examined = examine_kept(folder, which, proof);
    if !has_file(folder, which) {
        return examined;
    }
    with_damage(folder, which.into(), examined, Anchor::START..=Anchor::START)
}

fn has_file(folder: &Path, which: Rotated) -> bool {
    folder.join(chain::file_of(which.into()).as_str()).try_exists().unwrap_or(true)
}

fn examine_kept(folder: &Path, which: Rotated, proof: &Proof<'_>) -> Result<(Findings, RangeInclusive<Anchor>), Error> {
    let (held, _) = proof.gather(folder)?;
    let of = |held: &Held| {
        let tail = held.checkpoint.as_ref().ok()?.tails.of(which)?;
        Some(Stated { source: held.source.clone(), tail })
    };
    let stated: Vec<_> = held.iter().filter_map(of).collect();
    if !has_file(folder, which) {
        // A node of an earlier version had no such file; if a checkpoint speaks of it, somebody removed it.
        let findings = TailExaminer::new(stated, 0, 0, Anchor::START.hash).finish();
        return Ok((findings, Anchor::START..=Anchor::START));
    }
    let reader = chain::read_chain(folder, which.into())?;
    // What was rotated away while the checkpoints were read, one that is newer lets go.
    let (newer, _) = proof.gather(folder)?;
    let first = newer.iter().filter_map(of).map(|it| it.tail.first).max().unwrap_or_default();
    let begin = reader.anchor();
    let mut examiner = TailExaminer::new(stated, first, begin.seq, begin.hash);
    let end = walk(reader, begin, &mut examiner)?;
    Ok((examiner.finish(), begin..=end))
}

/// What is told of each record on the way.
trait Examination {
    fn stored(&mut self, seq: u64);
    fn follow(&mut self, record: &Link);
    fn breaks(&mut self, seq: u64, fault: Fault, reason: String);
    fn found_later(&mut self, seq: u64);
}

impl Examination for Examiner {
    fn stored(&mut self, seq: u64) {
        self.stored(seq);
    }

    fn follow(&mut self, record: &Link) {
        self.follow(&record.canonical);
    }

    fn breaks(&mut self, seq: u64, fault: Fault, reason: String) {
        self.breaks(seq, fault, reason);
    }

    fn found_later(&mut self, seq: u64) {
        self.found_later(seq);
    }
}

impl Examination for TailExaminer {
    fn stored(&mut self, seq: u64) {
        self.stored(seq);
    }

    fn follow(&mut self, record: &Link) {
        self.follow(record.seq, record.hash);
    }

    fn breaks(&mut self, seq: u64, fault: Fault, reason: String) {
        self.breaks(seq, fault, reason);
    }

    fn found_later(&mut self, seq: u64) {
        self.found_later(seq);
    }
}

/// Goes through a chain. Gives the last record that continues it.
fn walk(mut reader: ChainReader, begin: Anchor, examiner: &mut impl Examination) -> Result<Anchor, Error> {
    let mut verifier = Verifier::after(begin);
    while let Some(row) = reader.next_row() {
        let (link, copies) = row?;
        let wanted = verifier.end().seq.saturating_add(1);
        examiner.stored(link.seq);
        match verifier.follow(&link.canonical, link.hash) {
            Ok(entry) if copies.are_of(&entry.draft) && entry.position.seq == link.seq => examiner.follow(&link),
            Ok(entry) => {
                examiner.found_later(entry.position.seq);
                let reason = "wanted the columns for searching to hold what the record holds".to_owned();
                examiner.breaks(wanted, Fault::Edited, reason);
            }
            Err(broken) => {
                // The number inside a record says where it belongs, whatever number it is stored under.
                let belongs = link.decode().map_or(wanted, |entry| entry.position.seq);
                let fault = if belongs == wanted { Fault::Edited } else { Fault::Removed };
                examiner.found_later(belongs);
                examiner.breaks(broken.seq, fault, broken.reason);
            }
        }
    }
    Ok(verifier.end())
}
