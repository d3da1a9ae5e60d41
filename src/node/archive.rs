//! The audit chains of a project, read from its files alone: what `audit verify` and `audit export` show.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::audit_key::PUBLIC_FILE;
use crate::domain::audit::{Fault, Findings, Held, Rotated, Source, Verdict, Verifier};
use crate::store::sqlite;
use crate::store::{Chain, Error};

/// The chains, in the order in which they are exported.
const CHAINS: [Chain; 3] = [Chain::Writes, Chain::Reads, Chain::Refusals];

/// The ending of files that hold a checkpoint.
const NOTE_ENDING: &str = "note";

/// The ending of files that hold a public key.
const KEY_ENDING: &str = "vkey";

/// Most files of a folder of checkpoints: one for each five minutes of a month. A fuller folder is refused, because a
/// checkpoint that is passed over proves nothing.
const FILES_MAX: usize = 10_000;

/// Largest file that is read: a note with many signatures, or a key.
const NOTE_BYTES_MAX: u64 = 64 * 1024;

/// Why an archive cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The store's files.
    #[error("{0}")]
    Store(#[from] Error),
    /// A file or folder that was named.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file that holds no public key.
    #[error("{}: {source}", path.display())]
    Key {
        /// Which.
        path: PathBuf,
        /// What was wanted.
        source: crate::domain::audit::NoteError,
    },
}

/// What a log is held against beside what lies with it.
#[derive(Debug, Clone, Default)]
pub struct Against {
    /// A folder of checkpoints that were kept elsewhere, and perhaps the public key.
    pub checkpoints: Option<PathBuf>,
    /// The file of the public key.
    pub key: Option<PathBuf>,
}

/// What the check of one chain found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// `writes`, `reads` or `refusals`.
    pub chain: &'static str,
    /// How many records, or the first broken one.
    pub text: String,
    /// The three answers.
    pub findings: Findings,
    /// Whether its records were gone through. Where they were not, nothing is known of them, and `rotated` says nothing.
    pub is_checked: bool,
    /// How many records were rotated away: those in front of the first that is kept.
    pub rotated: u64,
    /// Where the public key was found.
    pub key: Option<PathBuf>,
}

impl Finding {
    /// The answers with their names.
    pub const fn verdicts(&self) -> [(&'static str, &Verdict); 3] {
        let Findings { integrity, completeness, continuity } = &self.findings;
        [("integrity", integrity), ("completeness", completeness), ("continuity", continuity)]
    }

    /// Whether it was gone through, and nothing is broken.
    pub fn is_whole(&self) -> bool {
        self.is_checked && !self.is_broken()
    }

    /// Whether something is.
    pub fn is_broken(&self) -> bool {
        self.verdicts().iter().any(|(_, verdict)| matches!(verdict, Verdict::Broken { .. }))
    }
}

/// Checks every chain from the first kept record to the last. The node may be running or not.
pub fn verify(folder: &Path, against: &Against) -> Result<Vec<Finding>, ArchiveError> {
    let key = find_key(folder, against)?;
    let witnesses: Vec<Verifier> = match &against.checkpoints {
        Some(checkpoints) => read_keys(checkpoints)?.into_iter().map(|(key, _)| key).collect(),
        None => Vec::new(),
    };
    let elsewhere = match (&key, &against.checkpoints) {
        (Some((key, _)), Some(checkpoints)) => read_notes(checkpoints, key)?,
        (_, _) => Vec::new(),
    };
    let (verifier, path) = key.as_ref().map(|(key, path)| (key, path.clone())).unzip();
    let proof = sqlite::Proof { key: verifier, elsewhere: &elsewhere, witnesses: &witnesses };
    let mut found = Vec::new();
    let mut failed = None;
    for chain in [None].into_iter().chain(Rotated::ALL.map(Some)) {
        let checked = match chain {
            None => verify_writes(folder, &proof, path.clone()),
            Some(chain) => verify_rotated(folder, chain, &proof, path.clone()),
        };
        match checked {
            Ok(finding) => found.push(finding),
            Err(error) => {
                found.push(unreadable(folder, chain, &error, path.clone()));
                failed = failed.or(Some(error));
            }
        }
    }
    match failed {
        // What could not be looked at is nowhere passed off as whole, and a folder without a log has none that is damaged.
        Some(error) if !has_log(folder) || !found.iter().any(Finding::is_broken) => Err(error.into()),
        _ => Ok(found),
    }
}

fn has_log(folder: &Path) -> bool {
    CHAINS.into_iter().any(|chain| folder.join(sqlite::file_name(chain)).exists())
}

/// What is to be said of a chain that cannot be gone through. It is damaged where its own file is gone or does not hold what one
/// holds. A file that this place or this moment does not let be read may be whole.
fn unreadable(folder: &Path, chain: Option<Rotated>, error: &Error, key: Option<PathBuf>) -> Finding {
    let own = sqlite::file_name(chain.map_or(Chain::Writes, Chain::from));
    let is_own = |place: &str| Path::new(place).file_name().is_some_and(|name| name == own);
    let is_damaged = match error {
        Error::Unreadable { place, .. } => is_own(place),
        Error::Broken { place, .. } => is_own(place) && !folder.join(own).exists(),
        Error::Closed | Error::InUse { .. } | Error::NoSpace { .. } => false,
    };
    let unknown = Verdict::Unproven(format!("the records cannot be gone through: {error}"));
    let text = error.to_string();
    let integrity =
        if is_damaged { Verdict::Broken { fault: Fault::Damaged, record: 0, text } } else { unknown.clone() };
    let findings = Findings { integrity, completeness: unknown.clone(), continuity: unknown };
    let text = broken(&findings).unwrap_or_else(|| format!("not checked: {error}"));
    let chain = chain.map_or("writes", Rotated::as_str);
    Finding { chain, text, findings, is_checked: false, rotated: 0, key }
}

fn verify_writes(folder: &Path, proof: &sqlite::Proof<'_>, key: Option<PathBuf>) -> Result<Finding, Error> {
    let (findings, end) = sqlite::examine(folder, proof)?;
    let whole = || format!("whole: {} records, up to number {} with the hash {}", end.seq, end.seq, end.hash);
    let text = broken(&findings).unwrap_or_else(whole);
    Ok(Finding { chain: "writes", text, findings, is_checked: true, rotated: 0, key })
}

/// A chain that is held to a quota, as far as it is kept.
fn verify_rotated(
    folder: &Path,
    chain: Rotated,
    proof: &sqlite::Proof<'_>,
    key: Option<PathBuf>,
) -> Result<Finding, Error> {
    let (findings, kept) = sqlite::examine_rotated(folder, chain, proof)?;
    let (begin, end) = kept.into_inner();
    let whole = || {
        let count = end.seq.saturating_sub(begin.seq);
        let gone = match begin.seq {
            0 => "none rotated away".to_owned(),
            1 => "the first rotated away".to_owned(),
            rotated => format!("1 to {rotated} rotated away"),
        };
        format!("whole: {count} records, {gone}, up to number {} with the hash {}", end.seq, end.hash)
    };
    let text = broken(&findings).unwrap_or_else(whole);
    Ok(Finding { chain: chain.as_str(), text, findings, is_checked: true, rotated: begin.seq, key })
}

fn broken(findings: &Findings) -> Option<String> {
    match &findings.integrity {
        Verdict::Broken { fault: Fault::Damaged, text, .. } => Some(format!("damaged: {text}")),
        Verdict::Broken { record, text, .. } => Some(format!("broken at record {record}: {text}")),
        Verdict::Holds(_) | Verdict::Unproven(_) => None,
    }
}

/// The public key: the named one, the one kept with the checkpoints elsewhere, or the one that lies with the log.
fn find_key(folder: &Path, against: &Against) -> Result<Option<(Verifier, PathBuf)>, ArchiveError> {
    let own = folder.join(PUBLIC_FILE);
    let known = own.exists().then(|| read_key(&own)).transpose()?;
    if let Some(path) = &against.key {
        return Ok(Some((read_key(path)?, path.clone())));
    }
    let elsewhere = against.checkpoints.as_ref().map(|folder| read_keys(folder)).transpose()?.unwrap_or_default();
    // The folder may have keys of several runtimes: this log's, or where nothing says which, the only one.
    let is_its = |key: &Verifier| known.as_ref().is_none_or(|known| known.name() == key.name());
    let kept = elsewhere.into_iter().find(|(key, _)| is_its(key));
    Ok(kept.or(known.map(|key| (key, own))))
}

fn read_key(path: &Path) -> Result<Verifier, ArchiveError> {
    let text = read_file(path)?;
    text.trim().parse().map_err(|source| ArchiveError::Key { path: path.to_owned(), source })
}

/// The public keys in a folder, the first that was kept there before all others.
fn read_keys(folder: &Path) -> Result<Vec<(Verifier, PathBuf)>, ArchiveError> {
    let mut paths = files_of(folder, KEY_ENDING)?;
    paths.sort_by_key(|path| path.file_name().is_none_or(|name| name != PUBLIC_FILE));
    paths.into_iter().map(|path| Ok((read_key(&path)?, path))).collect()
}

/// The checkpoints of this log in a folder. Those of other logs may lie there too.
fn read_notes(folder: &Path, key: &Verifier) -> Result<Vec<Held>, ArchiveError> {
    let mut held = Vec::new();
    for path in files_of(folder, NOTE_ENDING)? {
        let note = read_file(&path)?;
        if note.lines().next() == Some(key.name()) {
            held.push(Held::read(Source::Elsewhere(path.display().to_string()), &note, key));
        }
    }
    Ok(held)
}

/// The files of a folder with this ending, in order.
fn files_of(folder: &Path, ending: &str) -> Result<Vec<PathBuf>, ArchiveError> {
    let fault = |source| ArchiveError::File { path: folder.to_owned(), source };
    let entries = fs::read_dir(folder).map_err(fault)?.take(FILES_MAX.saturating_add(1));
    let entries = entries.collect::<io::Result<Vec<_>>>().map_err(fault)?;
    if FILES_MAX < entries.len() {
        return Err(fault(io::Error::other(format!("wanted at most {FILES_MAX} files"))));
    }
    let mut paths: Vec<PathBuf> = entries.iter().map(fs::DirEntry::path).collect();
    paths.retain(|path| path.extension().is_some_and(|found| found == ending));
    paths.sort();
    Ok(paths)
}

fn read_file(path: &Path) -> Result<String, ArchiveError> {
    let read = || {
        if fs::metadata(path)?.len() > NOTE_BYTES_MAX {
            return Err(io::Error::other(format!("wanted at most {NOTE_BYTES_MAX} bytes")));
        }
        fs::read_to_string(path)
    };
    read().map_err(|source| ArchiveError::File { path: path.to_owned(), source })
}

/// Hands over every record as one line of canonical JSON, oldest first, without holding more than a page in memory.
pub fn export<E: From<Error>>(folder: &Path, mut line: impl FnMut(&str) -> Result<(), E>) -> Result<(), E> {
    for chain in CHAINS {
        // A node of an earlier version kept refusals among the reads.
        if chain == Chain::Refusals && !sqlite::has_refusals(folder) {
            continue;
        }
        for link in sqlite::read_chain(folder, chain)? {
            line(&String::from_utf8_lossy(&link?.canonical))?;
        }
    }
    Ok(())
}

/// The files that were written into a folder that is to be kept elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The newest checkpoint of the own log.
    pub checkpoint: PathBuf,
    /// The newest heads of the logs of peers that were countersigned here.
    pub heads: Vec<PathBuf>,
}

/// Writes the newest checkpoint with what peers have countersigned of it, the heads of peers' logs that are kept here, and the
/// public keys of them all. `None` where the log has no checkpoint yet.
pub fn export_checkpoint(folder: &Path, into: &Path) -> Result<Option<Kept>, ArchiveError> {
    let Some(note) = sqlite::read_checkpoints(folder)?.pop() else { return Ok(None) };
    let words = sqlite::read_words(folder)?;
    let own_key = folder.join(PUBLIC_FILE);
    let key = read_key(&own_key)?;
    fs::create_dir_all(into).map_err(|source| ArchiveError::File { path: into.to_owned(), source })?;
    keep_key(&into.join(PUBLIC_FILE), &key)?;
    let checkpoint = keep_note(into, &key, &with_countersignatures(&note, &words))?;
    let heads = words.heads.iter().map(|(_, head)| keep_note(into, &head.key, &head.note));
    Ok(Some(Kept { checkpoint, heads: heads.collect::<Result<_, _>>()? }))
}

/// The note with the further lines that peers put below the very same text.
fn with_countersignatures(note: &str, words: &sqlite::Words) -> String {
    let lines = words.countersigned.iter().filter_map(|word| word.note.strip_prefix(note));
    std::iter::once(note).chain(lines).collect()
}

/// Writes a note under its log's name and size, and the log's key beside it.
fn keep_note(into: &Path, key: &Verifier, note: &str) -> Result<PathBuf, ArchiveError> {
    let name = key.name().replace('/', "_");
    keep_key(&into.join(format!("{name}.{KEY_ENDING}")), key)?;
    let size = note.lines().nth(1).unwrap_or_default();
    let path = into.join(format!("{name}.{size}.{NOTE_ENDING}"));
    fs::write(&path, note).map_err(|source| ArchiveError::File { path: path.clone(), source })?;
    Ok(path)
}

/// A key that is kept there is what later checks go by: it is never replaced.
fn keep_key(path: &Path, key: &Verifier) -> Result<(), ArchiveError> {
    if path.exists() {
        return Ok(());
    }
    fs::write(path, format!("{key}\n")).map_err(|source| ArchiveError::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::audit::{AuditId, Draft, Hash, NoteKey, Outcome};
    use crate::domain::identity::IdentityKey;
    use crate::domain::time::Wall;
    use crate::engine::record::{Batch, Record};
    use crate::store::Store;

    /// SQLite's size of a page.
    const PAGE: usize = 4_096;

    fn note_key() -> NoteKey {
        NoteKey::new("trust-runtime/s/log", IdentityKey::from_seed([7; 32]))
    }

    fn draft(number: u64, outcome: Outcome) -> Draft {
        Draft {
            audit_id: AuditId::new(Wall::from_millis(number), [0; 10]),
            at: Wall::from_millis(number),
            actor: "alice".to_owned(),
            actor_verified: true,
            origin: "s/a".parse().expect("legal"),
            action: "status_read".to_owned(),
            target: "s/a".parse().expect("legal"),
            request_id: None,
            outcome,
            code: None,
            detail: String::new(),
            policy_hash: Hash([9; 32]),
        }
    }

    /// A log with records in each chain and checkpoints that speak of them, and its key.
    async fn log() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("folder");
        let options = sqlite::Options { folder: folder.path().to_owned(), read_audit_max_mb: 64 };
        let store = sqlite::open(options).expect("opens");
        store.sign_checkpoints(note_key());
        let boot = Batch { records: vec![Record::Boot { counter: 1 }], audits: vec![draft(1, Outcome::Applied)] };
        store.commit(boot).await.expect("commits");
        store.append_reads(vec![draft(2, Outcome::Applied), draft(3, Outcome::Denied)]).expect("queues");
        store.close().await;
        fs::write(folder.path().join(PUBLIC_FILE), format!("{}\n", note_key().verifier())).expect("written");
        folder
    }

    /// Fills the page on which a table begins, or the first one.
    fn overwrite(file: &Path, table: Option<&str>) {
        let page = table.map_or(1, |table| {
            let connection = rusqlite::Connection::open(file).expect("opens");
            let sql = "SELECT rootpage FROM sqlite_schema WHERE name = ?1";
            connection.query_row(sql, [table], |row| row.get::<_, u32>(0)).expect("is there")
        });
        let page = usize::try_from(page).expect("a small file");
        let mut bytes = fs::read(file).expect("reads");
        bytes.chunks_mut(PAGE).take(page).last().expect("has pages").fill(0);
        fs::write(file, bytes).expect("own file");
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_read_is_a_finding_and_the_others_are_checked() {
        for (file, table, wanted) in [
            ("control.db", Some("checkpoint"), ["damaged", "unproven", "unproven"]),
            ("control.db", None, ["damaged", "unproven", "unproven"]),
            ("events.db", None, ["holds", "damaged", "holds"]),
            ("refusals.db", None, ["holds", "holds", "damaged"]),
        ] {
            let folder = log().await;
            overwrite(&folder.path().join(file), table);
            let found = verify(folder.path(), &Against::default()).unwrap_or_else(|error| panic!("{file}: {error}"));
            let seen: Vec<_> = found
                .iter()
                .map(|finding| match &finding.findings.integrity {
                    Verdict::Holds(_) => "holds",
                    Verdict::Unproven(_) => "unproven",
                    Verdict::Broken { fault, .. } => fault.as_str(),
                })
                .collect();
            assert_eq!(seen, wanted, "{file}: {found:?}");
            assert_eq!(found.iter().map(|finding| finding.chain).collect::<Vec<_>>(), ["writes", "reads", "refusals"]);
            let told = found.iter().filter(|finding| finding.text.contains(file)).count();
            assert_eq!(told, wanted.iter().filter(|word| **word != "holds").count(), "{found:?}");
            let whole: Vec<_> = found.iter().map(Finding::is_whole).collect();
            assert_eq!(whole, wanted.map(|word| word == "holds"), "what was not gone through is not whole: {found:?}");
        }
    }

    /// Such as on a file system that takes no writes, where SQLite cannot make what it needs beside the log.
    #[tokio::test]
    async fn a_log_that_cannot_be_opened_here_is_not_called_damaged() {
        let folder = log().await;
        let in_the_way = folder.path().join("control.db-wal");
        fs::create_dir(&in_the_way).expect("nothing is there after a clean stop");
        let error = verify(folder.path(), &Against::default()).expect_err("control.db cannot be opened");
        assert!(error.to_string().contains("control.db"), "{error}");
        fs::remove_dir(in_the_way).expect("removed");
        assert!(verify(folder.path(), &Against::default()).expect("opens").iter().all(Finding::is_whole));
    }

    #[tokio::test]
    async fn a_folder_without_a_log_and_a_file_that_is_not_there_are_told_apart() {
        let empty = tempfile::tempdir().expect("folder");
        verify(empty.path(), &Against::default()).expect_err("nothing is there");
        verify(&empty.path().join("nowhere"), &Against::default()).expect_err("nothing is there");
        let folder = log().await;
        fs::remove_file(folder.path().join("control.db")).expect("was there");
        let found = verify(folder.path(), &Against::default()).expect("reads");
        assert!(!found[0].is_whole(), "{found:?}");
    }

    #[test]
    fn a_folder_with_too_many_files_is_refused_and_not_read_in_part() {
        let key = NoteKey::new("trust-runtime/s/log", IdentityKey::from_seed([7; 32]));
        let folder = tempfile::tempdir().expect("folder");
        let note = key.sign("trust-runtime/s/log\n1\nbjQLnP+zepicpUTmu3gKLHiQHT+zNzh2hRGjBhevoB0=\nboot 1\n");
        fs::write(folder.path().join("kept.note"), note).expect("written");
        for number in 1..FILES_MAX {
            fs::write(folder.path().join(number.to_string()), "").expect("written");
        }
        assert_eq!(read_notes(folder.path(), &key.verifier()).map(|held| held.len()).ok(), Some(1));
        fs::write(folder.path().join("one more"), "").expect("written");
        let refused = read_notes(folder.path(), &key.verifier()).expect_err("too many");
        assert!(refused.to_string().ends_with("wanted at most 10000 files"), "{refused}");
    }
}
