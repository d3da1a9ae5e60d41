//! What a disk has done to files that nobody was at: pages that were lost behind their log, indices that do not hold what their
//! table holds, records that do not continue their chain, events of runs that are gone.
//!
//! A start looks for it after a stop that was not clean (`stop.rs`), `audit verify` looks for the first two at any time. A page
//! that is as it was before, and that no index and no hash speaks of, is not seen: an older body of a fact.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc as blocking;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use super::chain::{self, Link, to_sql};
use super::error::{Health, opening};
use super::file::{self, Folder, Name};
use super::{Interrupts, Spawn};
use crate::domain::audit::{Fault, Findings, Hash, Tail, Verdict};
use crate::store::{Chain, Error};
use crate::wire::record::audit::Anchor;

/// How long a start waits for the check. A file of some hundred thousand records takes less, see the reference of the audit log;
/// beyond it a plant waits for its node more than for the answer, and the check goes on beside the work.
pub(super) const CHECK_WAIT: Wait = Wait::of(Duration::from_secs(20));

/// How long a start waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wait {
    most: Duration,
    /// The check begins once it gets this.
    #[cfg(test)]
    hold: Option<&'static std::sync::Mutex<()>>,
}

impl Wait {
    pub(super) const fn of(most: Duration) -> Self {
        Self {
            most,
            #[cfg(test)]
            hold: None,
        }
    }

    /// For a start that does not wait: its check has no end before the test lets go.
    #[cfg(test)]
    pub(super) const fn held(hold: &'static std::sync::Mutex<()>) -> Self {
        Self { most: Duration::ZERO, hold: Some(hold) }
    }
}

/// What operators are to do. Only `control.db` cannot be done without: it holds what was acknowledged, and the other files begin
/// anew. To bring them back with the folder would set it back too.
fn remedy(name: Name) -> String {
    let lost = match name {
        Name::Control => {
            return "restore the folder from a backup; `trust-runtime audit verify` tells what is concerned".to_owned();
        }
        Name::Events => "reads",
        Name::Refusals => "refusals",
        Name::Runs => "runs",
    };
    format!(
        "move the file away with its -wal and -shm, keep them for the auditor and start again: its {lost} are lost, no write is"
    )
}

/// One file that is to be checked.
struct Checked {
    name: Name,
    connection: Connection,
    path: PathBuf,
    health: Arc<Health>,
}

/// The files of a store, to be checked one after the other.
pub(super) struct Check(Vec<Checked>);

impl Check {
    pub(super) fn open<const N: usize>(folder: &Folder, files: [(Name, Arc<Health>); N]) -> Result<Self, Error> {
        let open =
            |(name, health)| Ok(Checked { name, connection: folder.reader(name)?, path: folder.file(name), health });
        files.into_iter().map(open).collect::<Result<_, _>>().map(Self)
    }

    fn interrupts(&self) -> Interrupts {
        Interrupts(self.0.iter().map(|file| file.connection.get_interrupt_handle()).collect())
    }

    /// Checks on a thread of its own, and waits for the answer as long as a start may. What takes longer goes on beside the work:
    /// a file that is then found damaged takes no writes any more. Gives what ends it.
    pub(super) fn begin(self, spawn: &Spawn<'_>, wait: Wait) -> Result<Under, Error> {
        let interrupts = self.interrupts();
        let (end, ended) = blocking::sync_channel(1);
        // Without room: what is sent was received, or nobody waits any more.
        let (tell, told) = blocking::sync_channel(0);
        let closing = Arc::clone(spawn.closing);
        tracing::info!(
            folder = spawn.folder.place(),
            "the last stop was not clean: the files of the store are checked"
        );
        let thread = spawn.thread("store-check", move || {
            #[cfg(test)]
            let _held = wait.hold.map(super::lock);
            let found = self.run(&ended);
            if let Ok(found) = &found
                && found.is_empty()
            {
                closing.note_whole();
            }
            if let Err(blocking::SendError(Ok(found))) = tell.send(found) {
                found.into_iter().for_each(|(health, error)| note_late(&health, error));
            }
        })?;
        let stopped =
            || Error::Broken { place: spawn.folder.place(), reason: "the check of the files has stopped".into() };
        match told.recv_timeout(wait.most) {
            Ok(outcome) => {
                // With its end it lets go of the folder, which whoever is refused may open again at once.
                thread.join().map_err(|_panic| stopped())?;
                let found = outcome.map_err(|Ended| Error::Closed)?;
                found.into_iter().next().map_or(Ok(()), |(_health, error)| Err(error))?;
            }
            Err(blocking::RecvTimeoutError::Timeout) => {
                let (folder, waited_s) = (spawn.folder.place(), wait.most.as_secs());
                tracing::warn!(folder, waited_s, "the check of the store's files goes on beside the work");
            }
            Err(blocking::RecvTimeoutError::Disconnected) => return Err(stopped()),
        }
        Ok(Under { _end: end, _interrupts: interrupts })
    }

    /// What is wrong, at most one of each file.
    fn run(self, ended: &blocking::Receiver<()>) -> Result<Vec<(Arc<Health>, Error)>, Ended> {
        let mut all = Vec::new();
        for file in self.0 {
            if ended.try_recv() == Err(blocking::TryRecvError::Disconnected) {
                return Err(Ended);
            }
            match file.found() {
                Ok(None) => {}
                Ok(Some(what)) => {
                    let reason = format!(
                        "is damaged, as the check after a stop that was not clean found: {what}; {}",
                        remedy(file.name)
                    );
                    all.push((file.health, Error::Unreadable { place: file.path.display().to_string(), reason }));
                }
                Err(Error::Closed) => return Err(Ended),
                Err(error) => all.push((file.health, error)),
            }
        }
        Ok(all)
    }
}

/// The check was ended before its time.
#[derive(Debug)]
struct Ended;

/// A check that may be under way. It ends when this is dropped.
pub(super) struct Under {
    _end: blocking::SyncSender<()>,
    _interrupts: Interrupts,
}

/// The node serves already: from now on the file takes no writes.
fn note_late(health: &Health, error: Error) {
    tracing::error!(%error, "the check of the store's files has found damage");
    health.note(&match error {
        Error::Unreadable { place, reason } => Error::Broken { place, reason },
        Error::NoSpace { .. } | Error::Broken { .. } | Error::InUse { .. } | Error::Closed => error,
    });
}

impl Checked {
    /// The first thing that is wrong.
    fn found(&self) -> Result<Option<String>, Error> {
        let found = match pages_and_indices(&self.connection, &self.path)? {
            Some(found) => Some(found),
            None => match self.name {
                Name::Control | Name::Events | Name::Refusals => broken_record(&self.connection, &self.path)?,
                Name::Runs => missing_events(&self.connection).map_err(|error| opening(&self.path, error))?,
            },
        };
        Ok(found)
    }
}

/// What SQLite itself finds wrong.
fn pages_and_indices(connection: &Connection, path: &Path) -> Result<Option<String>, Error> {
    let said = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get::<_, String>(0));
    let said = match said.map_err(|error| opening(path, error)) {
        Ok(said) => said,
        // It could not even be gone through.
        Err(Error::Unreadable { reason, .. }) => return Ok(Some(reason)),
        Err(error) => return Err(error),
    };
    Ok((said != "ok").then(|| said.lines().collect::<Vec<_>>().join(" ")))
}

/// The first record that does not continue its chain by its hash. What a record says is not read: a disk forges nothing.
fn broken_record(connection: &Connection, path: &Path) -> Result<Option<String>, Error> {
    // One state of the file: a rotation may go on meanwhile.
    let snapshot = connection.unchecked_transaction().map_err(|error| opening(path, error))?;
    let mut end = chain::anchor(&snapshot, path)?;
    let mut read = || {
        let mut statement = snapshot.prepare("SELECT seq, body, hash FROM audit ORDER BY seq")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let link = Link::read(row)?;
            let wanted = Anchor { seq: end.seq.saturating_add(1), hash: Hash::chain(end.hash, &link.canonical) };
            if link.seq != wanted.seq {
                return Ok(Some(format!("record {} is missing", wanted.seq)));
            }
            if link.hash != wanted.hash {
                return Ok(Some(format!("record {}: wanted hash {}, got {}", link.seq, wanted.hash, link.hash)));
            }
            end = wanted;
        }
        Ok(None)
    };
    read().map_err(|error| opening(path, error))
}

/// A run that has not all of its events, or events without a run.
fn missing_events(connection: &Connection) -> rusqlite::Result<Option<String>> {
    let sql =
        "SELECT run, head, (SELECT count(*) FROM event WHERE run_no = no) AS kept FROM run WHERE head <> kept LIMIT 1";
    let read = |row: &rusqlite::Row<'_>| {
        let (run, head, kept): (String, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(format!("run {run}: wanted {head} events, got {kept}"))
    };
    if let Some(found) = connection.query_row(sql, [], read).optional()? {
        return Ok(Some(found));
    }
    let sql = "SELECT run_no FROM event WHERE NOT EXISTS (SELECT 1 FROM run WHERE no = run_no) LIMIT 1";
    let orphan = connection.query_row(sql, [], |row| row.get::<_, i64>(0)).optional()?;
    Ok(orphan.map(|no| format!("wanted a run for each event, got events of number {no} without one")))
}

/// What the newest checkpoint states of a rotated chain and is not there. The chain goes on all the same: of what is recorded
/// without anybody waiting, nothing was promised to anybody but the auditor.
pub(super) fn lost(connection: &Connection, end: Anchor, stated: Tail) -> rusqlite::Result<Option<String>> {
    let wanted = format!("wanted {} records, as the newest checkpoint says", stated.size);
    if end.seq < stated.size {
        return Ok(Some(format!("{wanted}, got {}", end.seq)));
    }
    let sql = "SELECT hash FROM audit WHERE seq = ?1 UNION ALL SELECT hash FROM anchor WHERE seq = ?1";
    let found = connection.query_row(sql, params![to_sql(stated.size)], |row| row.get::<_, [u8; 32]>(0)).optional()?;
    // None: what it speaks of was rotated away since.
    Ok(found.filter(|found| *found != stated.hash.0).map(|_other| format!("{wanted}, and others are there")))
}

/// Adds to the answers about a chain what SQLite finds wrong with its file. What cannot be gone through is damaged, and nothing
/// else is known of it.
pub(super) fn with_damage<T>(
    folder: &Path,
    chain: Chain,
    examined: Result<(Findings, T), Error>,
    nothing: T,
) -> Result<(Findings, T), Error> {
    let Some(text) = of_chain(folder, chain)? else { return examined };
    let integrity = Verdict::Broken { fault: Fault::Damaged, record: 0, text };
    match examined {
        // A record that does not hold says more than the page that it stands on.
        Ok((findings, end)) if matches!(findings.integrity, Verdict::Broken { .. }) => Ok((findings, end)),
        Ok((findings, end)) => Ok((Findings { integrity, ..findings }, end)),
        Err(error) => {
            let unknown = Verdict::Unproven(format!("the records cannot be gone through: {error}"));
            Ok((Findings { integrity, completeness: unknown.clone(), continuity: unknown }, nothing))
        }
    }
}

/// What SQLite finds wrong with the file of a chain. The node may be running or not.
fn of_chain(folder: &Path, chain: Chain) -> Result<Option<String>, Error> {
    let name = chain::file_of(chain);
    let folder = folder
        .canonicalize()
        .map_err(|error| Error::Unreadable { place: folder.display().to_string(), reason: error.to_string() })?;
    let (connection, path) = (file::open_reader(&folder, name)?, folder.join(name.as_str()));
    let found = pages_and_indices(&connection, &path)?;
    Ok(found.map(|found| format!("{} is damaged: {found}", path.display())))
}
