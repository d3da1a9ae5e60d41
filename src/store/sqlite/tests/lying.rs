//! A disk that confirms what it does not keep: after the crash its files hold less than was acknowledged, or what was there before.
//!
//! Not here: what becomes of requests and of peers then, which the simulation tries (`scenario::lying`).

use std::fs;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::{
    Chain, Error, Fault, Findings, Rotated, Store, TempDir, Verdict, draft, end_of, examine, examine_rotated, fault,
    note_key, open, opened, options, place, proven, read_checkpoints, receipt, until, verify,
};
use crate::engine::record::{Batch, Record};
use crate::store::contract::{boot, peer};
use crate::store::sqlite::{Bounds, open_within};

/// Audit records of one batch: enough that every third or so is followed by a checkpoint.
const EACH: u64 = 24;

/// What a disk writes or loses at a time, and what SQLite writes at a time.
const SECTOR: usize = 512;
const PAGE: usize = 4_096;

/// Stores that are looked at side by side: each waits for the disk most of the time.
const AT_ONCE: usize = 8;

/// A fact of its own, one that each batch replaces, and audit records.
fn batch(number: u64) -> Batch {
    let audits = (EACH * number..EACH * (number + 1)).map(draft).collect();
    Batch { records: vec![receipt(number, &[b'x'; 3_000]), peer("s/b", number + 1)], audits }
}

/// Whether these are the facts of this many batches, and of nothing else.
fn are_of(facts: &[Record], batches: u64) -> bool {
    let wanted = (0..batches).map(|number| receipt(number, &[b'x'; 3_000]));
    let newest = (0 < batches).then(|| peer("s/b", batches));
    let wanted: Vec<Record> = wanted.chain(newest).collect();
    facts.len() == wanted.len() && wanted.iter().all(|fact| facts.contains(fact))
}

/// How a disk loses a part of a file.
#[derive(Debug, Clone, Copy)]
pub(in crate::store::sqlite) enum Loss {
    /// The file is as short as it was.
    Cut,
    /// Its length is there, and nothing in it.
    Zeroed,
    /// One sector in the middle was never written, and what came later was.
    Hole,
}

impl Loss {
    pub(in crate::store::sqlite) const ALL: [Self; 3] = [Self::Cut, Self::Zeroed, Self::Hole];

    pub(in crate::store::sqlite) fn of(self, mut bytes: Vec<u8>, at: usize) -> Vec<u8> {
        match self {
            Self::Cut => bytes.truncate(at),
            Self::Zeroed => bytes[at..].fill(0),
            Self::Hole => {
                let end = bytes.len().min(at + SECTOR);
                bytes[at..end].fill(0xa5);
            }
        }
        bytes
    }
}

/// A file and its write-ahead log as they are on a disk.
#[derive(Debug, Clone)]
struct Disk {
    file: Vec<u8>,
    log: Vec<u8>,
}

impl Disk {
    fn of(file: &Path) -> Self {
        let read = |path: PathBuf| fs::read(path).expect("it is open");
        Self { file: read(file.to_owned()), log: read(file.with_extension("db-wal")) }
    }

    /// A folder with this instead of the file of that name, and otherwise as `path` is without what was not yet copied.
    fn laid(&self, path: &Path, name: &str) -> (TempDir, PathBuf) {
        let (folder, copy) = place();
        fs::create_dir(&copy).expect("made");
        for other in ["control.db", "events.db", "refusals.db"].into_iter().filter(|other| *other != name) {
            fs::copy(path.join(other), copy.join(other)).expect("copied");
        }
        let file = copy.join(name);
        fs::write(&file, &self.file).expect("written");
        fs::write(file.with_extension("db-wal"), &self.log).expect("written");
        (folder, copy)
    }
}

/// What came of a store whose disk has lost something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// So many batches, each whole, found by every search, and the store goes on from there.
    Whole(u64),
    /// It does not start or takes no writes, and names the file; `audit verify` has said before that something is wrong.
    Refused,
}

/// A store that was written for a while, and a checkpoint of it that is kept elsewhere.
struct Writing {
    _folder: TempDir,
    path: PathBuf,
    store: super::SqliteStore,
    count: u64,
}

impl Writing {
    fn new() -> Self {
        let (folder, path) = place();
        let store = opened(&path);
        store.sign_checkpoints(note_key());
        Self { _folder: folder, path, store, count: 0 }
    }

    /// Commits so many more, each of which is confirmed, and waits for the checkpoint that follows.
    async fn write(&mut self, batches: u64) {
        for number in self.count..self.count + batches {
            self.store.commit(batch(number)).await.expect("confirmed");
        }
        self.count += batches;
        until(|| self.count * EACH < self.size_of_newest() + crate::domain::audit::RECORDS_MAX).await;
    }

    fn notes(&self) -> Vec<String> {
        read_checkpoints(&self.path).expect("reads").pop().into_iter().collect()
    }

    fn size_of_newest(&self) -> u64 {
        self.notes().first().and_then(|note| note.lines().nth(1)?.parse().ok()).unwrap_or_default()
    }

    fn disk(&self) -> Disk {
        Disk::of(&self.path.join("control.db"))
    }

    /// Copies the log into the file, so that the next commit begins the log anew over the old one.
    fn copy_log(&self) {
        let connection = Connection::open(self.path.join("control.db")).expect("opens");
        let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?));
        let (pages, copied) = connection.query_row("PRAGMA wal_checkpoint = PASSIVE", [], read).expect("copies");
        assert!(0 < pages && pages == copied, "{copied} of {pages} pages");
    }

    /// What is found after each of these losses.
    fn found(&self, disks: &[(String, Disk)]) -> Vec<Found> {
        let kept = (self.size_of_newest(), self.notes());
        let (path, kept) = (self.path.as_path(), &kept);
        let look = |(what, disk): &(String, Disk)| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("builds");
            runtime.block_on(look(what, &disk.laid(path, "control.db").1, kept))
        };
        let mut all = Vec::new();
        for disks in disks.chunks(AT_ONCE) {
            let found: Vec<_> = std::thread::scope(|scope| {
                let looks: Vec<_> = disks.iter().map(|disk| scope.spawn(|| look(disk))).collect();
                looks.into_iter().map(|look| look.join().expect("no panic")).collect()
            });
            all.extend(found);
        }
        all
    }
}

/// Opens what is left, goes on with it if that can be done, and has the log checked.
async fn look(what: &str, path: &Path, (size, kept): &(u64, Vec<String>)) -> Found {
    let file = path.join("control.db").display().to_string();
    let names = |error: &Error| match error {
        Error::Unreadable { place, .. } | Error::Broken { place, .. } => assert_eq!(*place, file, "{what}: {error}"),
        Error::NoSpace { .. } | Error::InUse { .. } | Error::Closed => panic!("{what}: {error:?}"),
    };
    let is_told = is_told(path, kept);
    let refused = |error: &Error| {
        names(error);
        assert!(is_told, "{what}: {error}, and `audit verify` finds nothing");
        Found::Refused
    };
    let store = match open(options(path)) {
        Ok(store) => store,
        Err(error) => return refused(&error),
    };
    assert!(store.was_checked() && !store.is_being_checked(), "{what}");
    // A node asks this before it serves.
    let facts = match store.recall().await {
        Ok(facts) => facts,
        Err(error) => {
            store.close().await;
            return refused(&error);
        }
    };
    let count = facts.len().saturating_sub(1) as u64;
    assert!(are_of(&facts, count), "{what}: the facts of a part of a batch, {} in all", facts.len());
    let went_on = store.commit(batch(1_000)).await;
    let shown = store.fault();
    store.close().await;
    if let Err(error) = went_on {
        assert_eq!(shown.as_ref(), Some(&error), "{what}: what the node shows of itself");
        return refused(&error);
    }
    assert_eq!(end_of(path, Chain::Writes).seq, EACH * (count + 1), "{what}: facts and records go together");
    let findings = proven(kept, |proof| examine(path, proof).expect("reads").0);
    let is_less = EACH * count < *size;
    assert_eq!(fault(&findings.completeness).is_some(), is_less, "{what}: {count} batches, {findings:?}");
    assert_eq!((fault(&findings.integrity), fault(&findings.continuity)), (None, None), "{what}");
    let check = Connection::open(&file).expect("opens");
    let said: String = check.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("an answer");
    assert_eq!(said, "ok", "{what}: not whole, and nothing told so");
    Found::Whole(count)
}

/// Whether `audit verify` says that something is wrong, before any start.
fn is_told(path: &Path, kept: &[String]) -> bool {
    proven(kept, |proof| match examine(path, proof) {
        Err(_) => true,
        Ok((Findings { integrity, completeness, continuity }, _)) => {
            [integrity, completeness, continuity].iter().any(|answer| fault(answer).is_some())
        }
    })
}

#[tokio::test]
async fn a_log_that_lost_the_end_of_what_was_confirmed_holds_whole_batches_up_to_some_moment() {
    let mut writing = Writing::new();
    writing.write(9).await;
    let whole = writing.disk();
    let places: Vec<usize> = (0..=whole.log.len()).step_by(whole.log.len() / (14 * SECTOR) * SECTOR).collect();
    for loss in Loss::ALL {
        let lost = |at: &usize| {
            let log = loss.of(whole.log.clone(), *at);
            (format!("{loss:?} at {at}"), Disk { log, ..whole.clone() })
        };
        let disks: Vec<_> = places.iter().map(lost).collect();
        let counts: Vec<u64> = writing
            .found(&disks)
            .into_iter()
            .map(|found| match found {
                Found::Whole(count) => count,
                Found::Refused => panic!("{loss:?}: {found:?} is no earlier moment"),
            })
            .collect();
        assert!(counts.is_sorted(), "{loss:?}: what was kept longer is there: {counts:?}");
        assert_eq!((counts.first(), 6 < counts[counts.len() - 2]), (Some(&0), true), "{loss:?}: {counts:?}");
    }
    writing.store.close().await;
}

/// The log begins anew over the old one: what the disk has not written of it is what stood there before.
#[tokio::test]
async fn a_log_with_parts_of_the_one_before_it_is_a_state_that_was_or_is_refused() {
    let mut writing = Writing::new();
    writing.write(5).await;
    writing.copy_log();
    writing.write(9).await;
    let before = writing.disk();
    writing.copy_log();
    writing.write(4).await;
    let whole = writing.disk();
    assert_ne!(before.log[..32], whole.log[..32], "it was begun anew");
    assert_eq!(before.log.len(), whole.log.len(), "over the old one");
    let places = (0..whole.log.len()).step_by(whole.log.len() / (12 * SECTOR) * SECTOR);
    let stale = |from: usize, to: usize| {
        let mut log = whole.log.clone();
        log[from..to].copy_from_slice(&before.log[from..to]);
        (format!("{from} to {to} as before"), Disk { log, ..whole.clone() })
    };
    let disks: Vec<_> =
        places.flat_map(|at| [stale(at, at + SECTOR), stale(0, at), stale(at, whole.log.len())]).collect();
    let all = writing.found(&disks);
    let told = |wanted: Found| all.iter().filter(|found| **found == wanted).count();
    assert!(0 < told(Found::Whole(14)) && 0 < told(Found::Whole(18)) && 0 < told(Found::Refused), "{all:?}");
    writing.store.close().await;
}

/// A page of the file itself that was confirmed, whereupon the log that still had it was begun anew.
#[tokio::test]
async fn a_file_that_lost_pages_behind_its_log_is_refused_by_name_and_told_by_the_check_of_its_chain() {
    let mut writing = Writing::new();
    writing.write(6).await;
    writing.copy_log();
    writing.write(4).await;
    let before = writing.disk();
    writing.copy_log();
    writing.write(2).await;
    let whole = writing.disk();
    assert!(before.file.len() < whole.file.len());
    let lost = |page: usize| {
        let mut file = whole.file.clone();
        let range = page * PAGE..(page + 1) * PAGE;
        // It is as it was before, or was not there.
        match before.file.get(range.clone()) {
            Some(old) => file[range].copy_from_slice(old),
            None => file[range].fill(0),
        }
        (format!("page {page}"), Disk { file, ..whole.clone() })
    };
    let mut disks: Vec<_> =
        (0..whole.file.len() / PAGE).map(lost).filter(|(_, disk)| disk.file != whole.file).collect();
    disks.push(("all pages".to_owned(), Disk { file: before.file.clone(), ..whole.clone() }));
    disks.push(("the end".to_owned(), Disk { file: whole.file[..before.file.len()].to_vec(), ..whole.clone() }));
    let all = writing.found(&disks);
    let told = |wanted: Found| all.iter().filter(|found| **found == wanted).count();
    let (refused, whole) = (told(Found::Refused), told(Found::Whole(12)));
    eprintln!("{} losses: {refused} refused, {whole} of pages that the log has too", all.len());
    // A page that the log has too is not missed.
    assert_eq!(refused + whole, all.len(), "{all:?}");
    assert!(20 < refused, "{all:?}");
    writing.store.close().await;
}

/// The chain of reads lies in a file of its own, which may have lost what the checkpoints in the other one speak of.
#[tokio::test]
async fn reads_that_were_lost_behind_a_checkpoint_are_named_also_when_their_chain_went_on() {
    let (_folder, path) = place();
    let store =
        open_within(&options(&path), Bounds { interval: std::time::Duration::from_millis(5), ..Bounds::OF_A_NODE })
            .expect("opens");
    store.sign_checkpoints(note_key());
    store.commit(boot(1)).await.expect("confirmed");
    store.commit(batch(0)).await.expect("confirmed");
    for number in 0..200 {
        store.append_read(draft(number)).expect("queues");
    }
    let key = note_key().verifier();
    let states = || {
        let note = read_checkpoints(&path).expect("reads").pop()?;
        let text = key.open(&note).expect("signed");
        crate::domain::audit::Checkpoint::parse(text).expect("ours").tails.of(Rotated::Reads)
    };
    until(|| states().is_some_and(|tail| tail.size == 200)).await;
    let (control, events) = (Disk::of(&path.join("control.db")), Disk::of(&path.join("events.db")));
    store.close().await;
    for (loss, at) in Loss::ALL.into_iter().flat_map(|loss| [0, 1, 2].map(|part| (loss, part * events.log.len() / 3))) {
        let log = loss.of(events.log.clone(), at);
        let (_folder, copy) = Disk { log, ..events.clone() }.laid(&path, "events.db");
        fs::write(copy.join("control.db"), &control.file).expect("written");
        fs::write(copy.join("control.db-wal"), &control.log).expect("written");
        let found = |copy: &Path| {
            let findings = proven(&[], |proof| examine_rotated(copy, Rotated::Reads, proof).expect("reads").0);
            [fault(&findings.integrity), fault(&findings.completeness)].map(|found| found.map(|(fault, _)| fault))
        };
        assert_eq!(found(&copy), [None, Some(Fault::Truncated)], "{loss:?} at {at}");
        let store = opened(&copy);
        let [lost] = store.losses().try_into().expect("one chain");
        assert!(lost.contains("events.db: reads: wanted 200 records, as the newest checkpoint says, got "), "{lost}");
        store.sign_checkpoints(note_key());
        // As every start does.
        store.commit(boot(2)).await.expect("confirmed");
        for number in 1_000..1_300 {
            store.append_read(draft(number)).expect("queues");
        }
        store.close().await;
        assert!(matches!(verify(&copy, Chain::Reads), Ok(Verdict::Whole { .. })), "{loss:?} at {at}");
        assert_eq!(found(&copy), [Some(Fault::Edited), None], "{loss:?} at {at}: it went on");
        let store = opened(&copy);
        assert_eq!(store.losses(), <[String; 0]>::default(), "{loss:?} at {at}: told once");
        store.close().await;
    }
}
