//! The folder, its lock, and the files in it: made whole or not at all, and opened only if this version can read them.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::error::{opening, running};
use super::runs::{RUN_INDICES, RUN_OBJECTS, RUN_TABLES};
use super::stop::{Ends, Files, Left};
use crate::store::Error;

/// The oldest SQLite without the bug that loses frames when two connections reset the write-ahead log at once.
const SQLITE_VERSION_MIN: i32 = 3_051_003;

/// Marks a file as ours: `trst`.
const APPLICATION_ID: i32 = 0x7472_7374;

/// What version 2 of `control.db` added: the checkpoints of its chain.
const CHECKPOINT_TABLE: &str = "
    CREATE TABLE checkpoint (
        id INTEGER PRIMARY KEY,
        size INTEGER NOT NULL,
        note TEXT NOT NULL,
        subtrees BLOB NOT NULL
    ) STRICT;
";

const FOLDER_MODE: u32 = 0o700;
pub(super) const FILE_MODE: u32 = 0o600;

/// How long a connection waits for another process, such as a shell that a person opened.
const BUSY_WAIT: Duration = Duration::from_secs(5);

/// What the write-ahead log is cut back to once it has been copied. Four times the length at which the writers copy it.
const JOURNAL_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Pages in the write-ahead log at which a writer copies it into the file: 4 MiB, SQLite's own default.
const CHECKPOINT_PAGES: i64 = 1_000;

/// The tables of a chain. The columns beside `body` are copies for searching; what counts is `body`.
const CHAIN_TABLES: &str = "
    CREATE TABLE audit (
        seq INTEGER PRIMARY KEY,
        audit_id TEXT NOT NULL,
        at_ns INTEGER NOT NULL,
        actor TEXT NOT NULL,
        action TEXT NOT NULL,
        target TEXT NOT NULL,
        request_id TEXT,
        body TEXT NOT NULL,
        hash BLOB NOT NULL CHECK (length(hash) = 32)
    ) STRICT;
    CREATE INDEX audit_by_name ON audit (audit_id);
    CREATE INDEX audit_by_request ON audit (request_id, audit_id) WHERE request_id IS NOT NULL;
    CREATE TABLE anchor (
        only INTEGER PRIMARY KEY CHECK (only = 1),
        seq INTEGER NOT NULL,
        hash BLOB NOT NULL CHECK (length(hash) = 32)
    ) STRICT;
    INSERT INTO anchor (only, seq, hash) VALUES (1, 0, zeroblob(32));
";

const CONTROL_TABLES: &str = "
    CREATE TABLE fact (
        kind TEXT NOT NULL,
        key TEXT NOT NULL,
        body TEXT NOT NULL,
        UNIQUE (kind, key)
    ) STRICT;
    CREATE INDEX audit_by_actor ON audit (actor, audit_id);
    CREATE INDEX audit_by_action ON audit (action, audit_id);
    CREATE INDEX audit_by_target ON audit (target, audit_id);
";

/// Which file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    /// Facts and the chain of writes.
    Control,
    /// The chain of reads.
    Events,
    /// The chain of refusals.
    Refusals,
    /// Runs, their events and where those of peers are.
    Runs,
}

impl Name {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Control => "control.db",
            Self::Events => "events.db",
            Self::Refusals => "refusals.db",
            Self::Runs => "runs.db",
        }
    }

    fn tables(self) -> String {
        match self {
            Self::Control => format!("{CHAIN_TABLES}{CONTROL_TABLES}{CHECKPOINT_TABLE}"),
            Self::Events | Self::Refusals => CHAIN_TABLES.to_owned(),
            Self::Runs => format!("{RUN_TABLES}{RUN_INDICES}"),
        }
    }

    /// The version of the tables that this code writes.
    const fn version(self) -> i32 {
        match self {
            Self::Control | Self::Runs => 2,
            Self::Events | Self::Refusals => 1,
        }
    }

    /// The names of what the file defines in a version, in order. `None` for a version that this code cannot read.
    fn objects(self, version: i32) -> Option<Vec<&'static str>> {
        let mut names = vec!["anchor", "audit", "audit_by_name", "audit_by_request"];
        match (self, version) {
            (Self::Events | Self::Refusals, 1) => {}
            (Self::Runs, 1 | 2) => {
                names = RUN_OBJECTS.to_vec();
                names.extend((version == 2).then_some(["forgotten_by_run", "run_finished"]).into_iter().flatten());
            }
            (Self::Control, 1 | 2) => {
                names.extend(["audit_by_action", "audit_by_actor", "audit_by_target", "fact"]);
                names.extend((version == 2).then_some("checkpoint"));
            }
            (Self::Control | Self::Events | Self::Refusals | Self::Runs, _) => return None,
        }
        names.sort_unstable();
        Some(names)
    }
}

/// A limit on a file's size.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pages(pub(super) Option<u32>);

impl Pages {
    pub(super) const UNLIMITED: Self = Self(None);
}

/// The folder, held against other processes for as long as a copy of its lock lives.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    lock: Arc<Lock>,
    left: Left,
}

/// A hold on the folder.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing is not enough: a child that is just being started still has a copy of the open file for a moment.
        if let Err(error) = self.0.unlock() {
            tracing::warn!(%error, "lock of the store is released only when the process ends");
        }
    }
}

impl Folder {
    /// Makes the folder if absent, takes the lock, and makes the files if absent.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let folder = Self::hold(path, "lock", Files::AUDIT)?;
        folder.create_missing()?;
        Ok(folder)
    }

    /// The same for the file of runs, which is held by a lock of its own: its store is another one than that of the audit.
    pub(super) fn open_runs(path: &Path) -> Result<Self, Error> {
        let folder = Self::hold(path, "runs.lock", Files::RUNS)?;
        if !is_plain_file(&folder.file(Name::Runs))? {
            folder.create(Name::Runs)?;
        }
        folder.protect(Name::Runs)?;
        Ok(folder)
    }

    /// Makes the folder if absent, and takes this lock in it and the word that the last stop left.
    fn hold(path: &Path, lock: &str, files: Files) -> Result<Self, Error> {
        let version = rusqlite::version_number();
        if version < SQLITE_VERSION_MIN {
            let reason = format!("wanted SQLite {SQLITE_VERSION_MIN} or newer, got {version}");
            return Err(Error::Unreadable { place: path.display().to_string(), reason });
        }
        DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(path).map_err(|error| system(path, &error))?;
        // Links on the way to the folder are the operator's choice; inside it nothing may be one.
        let path = path.canonicalize().map_err(|error| system(path, &error))?;
        fs::set_permissions(&path, Permissions::from_mode(FOLDER_MODE)).map_err(|error| system(&path, &error))?;
        let lock = Arc::new(take_lock(&path.join(lock))?);
        let left = Left::take(&path, files)?;
        Ok(Self { path, lock, left })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether files that end here are those of a clean stop.
    pub(super) fn is_clean(&self, ends: &Ends) -> bool {
        self.left.is_clean(ends)
    }

    /// Another hold on the lock.
    pub(super) fn lock(&self) -> Arc<Lock> {
        Arc::clone(&self.lock)
    }

    /// The folder's name in messages.
    pub(super) fn place(&self) -> String {
        self.path.display().to_string()
    }

    /// Where a file lies.
    pub(super) fn file(&self, name: Name) -> PathBuf {
        self.path.join(name.as_str())
    }

    /// `control.db` is made first: if only another one is there, somebody removed it, and with it receipts and audit.
    fn create_missing(&self) -> Result<(), Error> {
        let control = self.file(Name::Control);
        let has_control = is_plain_file(&control)?;
        for name in [Name::Events, Name::Refusals] {
            if is_plain_file(&self.file(name))? && !has_control {
                let reason = format!("is missing, while {} is there", name.as_str());
                return Err(Error::Unreadable { place: control.display().to_string(), reason });
            }
        }
        for name in [Name::Control, Name::Events, Name::Refusals] {
            if !is_plain_file(&self.file(name))? {
                self.create(name)?;
            }
            self.protect(name)?;
        }
        Ok(())
    }

    /// Makes a file under another name and moves it into place, so that a file of that name always has its tables.
    fn create(&self, name: Name) -> Result<(), Error> {
        let place = self.file(name);
        if is_plain_file(&beside(&place, "-wal"))? {
            let reason = "is missing, while its write-ahead log is there".to_owned();
            return Err(Error::Unreadable { place: place.display().to_string(), reason });
        }
        let new = beside(&place, ".new");
        for leftover in ["", "-wal", "-shm", "-journal"] {
            remove_if_there(&beside(&new, leftover))?;
        }
        let made = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&new);
        drop(made.map_err(|error| system(&new, &error))?);
        let connection = connect(&new, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(|error| running(&new, error))?;
        let script = format!(
            "PRAGMA auto_vacuum = INCREMENTAL;
             PRAGMA journal_mode = WAL;
             BEGIN;
             {}
             PRAGMA application_id = {APPLICATION_ID};
             PRAGMA user_version = {};
             COMMIT;",
            name.tables(),
            name.version()
        );
        connection.execute_batch(&script).map_err(|error| running(&new, error))?;
        connection.close().map_err(|(_connection, error)| running(&new, error))?;
        let move_in = || {
            File::open(&new)?.sync_all()?;
            fs::rename(&new, &place)?;
            File::open(&self.path)?.sync_all()
        };
        move_in().map_err(|error| system(&place, &error))
    }

    /// Holds the file and what SQLite keeps beside it to the owner alone.
    fn protect(&self, name: Name) -> Result<(), Error> {
        let place = self.file(name);
        for suffix in ["", "-wal", "-shm"] {
            let path = beside(&place, suffix);
            if is_plain_file(&path)? {
                let set = fs::set_permissions(&path, Permissions::from_mode(FILE_MODE));
                set.map_err(|error| system(&path, &error))?;
            }
        }
        Ok(())
    }

    /// The one connection that writes a file.
    pub(super) fn writer(&self, name: Name, pages: Pages) -> Result<Connection, Error> {
        let place = self.file(name);
        let open = || {
            let connection = connect(&place, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
            // The writer copies the log itself, after it has acknowledged: otherwise a failing copy would go unnoticed.
            connection.execute_batch(&format!(
                "PRAGMA synchronous = FULL;
                 PRAGMA fullfsync = ON;
                 PRAGMA checkpoint_fullfsync = ON;
                 PRAGMA wal_autocheckpoint = 0;
                 PRAGMA journal_size_limit = {JOURNAL_BYTES_MAX};"
            ))?;
            if let Some(limit) = pages.0 {
                connection.execute_batch(&format!("PRAGMA max_page_count = {limit};"))?;
            }
            Ok(connection)
        };
        let connection = open().map_err(|error| opening(&place, error))?;
        let version = check_tables(&connection, &place, name)?;
        migrate(&connection, name, version).map_err(|error| opening(&place, error))?;
        Ok(connection)
    }

    /// A connection that only reads.
    pub(super) fn reader(&self, name: Name) -> Result<Connection, Error> {
        open_reader(&self.path, name)
    }
}

/// A connection that only reads, to a file that may belong to a running node.
pub(super) fn open_reader(folder: &Path, name: Name) -> Result<Connection, Error> {
    let place = folder.join(name.as_str());
    let connection = connect(&place, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(|error| opening(&place, error))?;
    check_tables(&connection, &place, name)?;
    Ok(connection)
}

/// Copies the write-ahead log into the file once it is long enough. Called after a group is acknowledged.
pub(super) fn checkpoint(connection: &Connection) -> rusqlite::Result<()> {
    let pages = |mode| connection.query_row(&format!("PRAGMA wal_checkpoint = {mode}"), [], |row| row.get::<_, i64>(1));
    if CHECKPOINT_PAGES <= pages("NOOP")? {
        pages("PASSIVE")?;
    }
    Ok(())
}

fn connect(place: &Path, access: OpenFlags) -> rusqlite::Result<Connection> {
    let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(place, flags)?;
    connection.busy_timeout(BUSY_WAIT)?;
    connection.execute_batch("PRAGMA trusted_schema = OFF; PRAGMA foreign_keys = ON; PRAGMA cell_size_check = ON;")?;
    Ok(connection)
}

/// Brings a file of an earlier version to the present one, all or nothing.
fn migrate(connection: &Connection, name: Name, version: i32) -> rusqlite::Result<()> {
    let added = match (name, version) {
        (Name::Control, 1) => CHECKPOINT_TABLE,
        (Name::Runs, 1) => RUN_INDICES,
        (Name::Control | Name::Events | Name::Refusals | Name::Runs, _) => return Ok(()),
    };
    let version = name.version();
    connection.execute_batch(&format!("BEGIN IMMEDIATE; {added} PRAGMA user_version = {version}; COMMIT;"))
}

/// Gives the version of a file that this code can read.
fn check_tables(connection: &Connection, place: &Path, name: Name) -> Result<i32, Error> {
    let number = |name: &str| {
        let number = connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i32>(0));
        number.map_err(|error| opening(place, error))
    };
    let unreadable = |reason| Error::Unreadable { place: place.display().to_string(), reason };
    let (application, version) = (number("application_id")?, number("user_version")?);
    if application != APPLICATION_ID {
        return Err(unreadable(format!("wanted application id {APPLICATION_ID:#x}, got {application:#x}")));
    }
    let Some(wanted) = name.objects(version) else {
        return Err(unreadable(format!("wanted tables of version {}, got {version}", name.version())));
    };
    let found = objects(connection).map_err(|error| opening(place, error))?;
    if found != wanted {
        return Err(unreadable(format!("wanted the tables {}, got {}", wanted.join(", "), found.join(", "))));
    }
    Ok(version)
}

/// The names of what a file defines. Anything more, such as a trigger, would act on what we write.
fn objects(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let sql = "SELECT name FROM sqlite_schema WHERE name NOT LIKE 'sqlite^_%' ESCAPE '^' ORDER BY name";
    connection.prepare(sql)?.query_map([], |row| row.get(0))?.collect()
}

fn take_lock(place: &Path) -> Result<Lock, Error> {
    is_plain_file(place)?;
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(place);
    let file = opened.map_err(|error| system(place, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(Lock(file)),
        Err(TryLockError::WouldBlock) => Err(Error::InUse { place: place.display().to_string() }),
        Err(TryLockError::Error(error)) => Err(system(place, &error)),
    }
}

/// Whether a file is there. What is there and is no file, such as a link, is refused.
pub(super) fn is_plain_file(place: &Path) -> Result<bool, Error> {
    match fs::symlink_metadata(place) {
        Ok(metadata) if metadata.is_file() => Ok(true),
        Ok(_) => {
            let reason = "wanted a file, got a link, folder or device".to_owned();
            Err(Error::Unreadable { place: place.display().to_string(), reason })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(system(place, &error)),
    }
}

pub(super) fn remove_if_there(place: &Path) -> Result<(), Error> {
    match fs::remove_file(place) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(system(place, &error)),
    }
}

pub(super) fn beside(place: &Path, suffix: &str) -> PathBuf {
    let mut name = place.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

pub(super) fn system(place: &Path, error: &io::Error) -> Error {
    let place = place.display().to_string();
    if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        return Error::NoSpace { place, is_at_the_end: false };
    }
    Error::Broken { place, reason: error.to_string() }
}
