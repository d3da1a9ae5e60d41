//! What SQLite's codes mean to the store, and the memory of what went wrong.

use std::path::Path;
use std::sync::Mutex;

use rusqlite::ffi;

use super::lock;
use crate::store::Error;

/// The primary part of an extended result code.
const PRIMARY_MASK: i32 = 0xff;

/// A failure while the store is in use.
pub(super) fn running(place: &Path, error: rusqlite::Error) -> Error {
    let place = place.display().to_string();
    let Some(code) = code(&error) else {
        // A column that does not hold what this version writes.
        return Error::Unreadable { place, reason: error.to_string() };
    };
    match (code & PRIMARY_MASK, code) {
        // The index of the write-ahead log is a file that grows, and its growth has no code of its own for a full disk.
        // It grows for what is in the log already.
        (ffi::SQLITE_FULL, _) => Error::NoSpace { place, is_at_the_end: false },
        (_, ffi::SQLITE_IOERR_SHMSIZE) => Error::NoSpace { place, is_at_the_end: true },
        // Our own connections never wait for each other, and other processes of ours are kept out by the lock.
        (ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED, _) => Error::InUse { place },
        // Larger than a row may be: the batch is at fault, not the disk.
        (ffi::SQLITE_TOOBIG, _) => Error::Unreadable { place, reason: error.to_string() },
        // Close ends long questions.
        (ffi::SQLITE_INTERRUPT, _) => Error::Closed,
        _ => Error::Broken { place, reason: error.to_string() },
    }
}

/// A failure while the store is opened, where what is found may not be a store at all.
pub(super) fn opening(place: &Path, error: rusqlite::Error) -> Error {
    let reason = error.to_string();
    match code(&error).map(|code| code & PRIMARY_MASK) {
        None | Some(ffi::SQLITE_CORRUPT | ffi::SQLITE_NOTADB | ffi::SQLITE_ERROR | ffi::SQLITE_SCHEMA) => {
            Error::Unreadable { place: place.display().to_string(), reason }
        }
        Some(_) => running(place, error),
    }
}

fn code(error: &rusqlite::Error) -> Option<i32> {
    error.sqlite_error().map(|error| error.extended_code)
}

/// Why a file takes no writes at the moment. A broken one stays broken until the process ends.
#[derive(Debug, Default)]
pub(super) struct Health(Mutex<Option<Error>>);

impl Health {
    /// The present fault.
    pub(super) fn fault(&self) -> Option<Error> {
        lock(&self.0).clone()
    }

    /// The fault that stays, if there is one.
    pub(super) fn broken(&self) -> Option<Error> {
        self.fault().filter(|error| matches!(error, Error::Broken { .. }))
    }

    /// A write succeeded: whatever was short-lived is over.
    pub(super) fn note_success(&self) {
        let mut fault = lock(&self.0);
        if !matches!(*fault, Some(Error::Broken { .. })) {
            *fault = None;
        }
    }

    /// A write failed.
    pub(super) fn note(&self, error: &Error) {
        let mut fault = lock(&self.0);
        let is_about_the_file = match error {
            Error::NoSpace { .. } | Error::Broken { .. } | Error::InUse { .. } => true,
            Error::Unreadable { .. } | Error::Closed => false,
        };
        if is_about_the_file && !matches!(*fault, Some(Error::Broken { .. })) {
            *fault = Some(error.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(code: i32) -> rusqlite::Error {
        rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)
    }

    #[test]
    fn codes_mean_what_the_port_promises() {
        let path = Path::new("state/control.db");
        for (code, is_wanted) in [
            (ffi::SQLITE_FULL, (|error| matches!(error, Error::NoSpace { .. })) as fn(&Error) -> bool),
            (ffi::SQLITE_IOERR_SHMSIZE, |error| matches!(error, Error::NoSpace { .. })),
            (ffi::SQLITE_BUSY, |error| matches!(error, Error::InUse { .. })),
            (ffi::SQLITE_BUSY_SNAPSHOT, |error| matches!(error, Error::InUse { .. })),
            (ffi::SQLITE_INTERRUPT, |error| matches!(error, Error::Closed)),
            (ffi::SQLITE_TOOBIG, |error| matches!(error, Error::Unreadable { .. })),
            (ffi::SQLITE_IOERR, |error| matches!(error, Error::Broken { .. })),
            (ffi::SQLITE_IOERR_FSYNC, |error| matches!(error, Error::Broken { .. })),
            (ffi::SQLITE_IOERR_WRITE, |error| matches!(error, Error::Broken { .. })),
            (ffi::SQLITE_IOERR_READ, |error| matches!(error, Error::Broken { .. })),
            (ffi::SQLITE_CORRUPT, |error| matches!(error, Error::Broken { .. })),
            (ffi::SQLITE_NOTADB, |error| matches!(error, Error::Broken { .. })),
            (ffi::SQLITE_READONLY, |error| matches!(error, Error::Broken { .. })),
            (ffi::SQLITE_READONLY_DBMOVED, |error| matches!(error, Error::Broken { .. })),
            (ffi::SQLITE_CANTOPEN, |error| matches!(error, Error::Broken { .. })),
            (ffi::SQLITE_CONSTRAINT, |error| matches!(error, Error::Broken { .. })),
        ] {
            let error = running(path, failed(code));
            assert!(is_wanted(&error), "{code}: {error:?}");
        }
        for code in [ffi::SQLITE_NOTADB, ffi::SQLITE_CORRUPT, ffi::SQLITE_ERROR] {
            assert!(matches!(opening(path, failed(code)), Error::Unreadable { .. }), "{code}");
        }
        assert!(matches!(opening(path, failed(ffi::SQLITE_FULL)), Error::NoSpace { .. }));
        assert!(matches!(opening(path, failed(ffi::SQLITE_IOERR_READ)), Error::Broken { .. }));
    }

    #[test]
    fn what_is_broken_stays_broken_and_what_is_full_does_not() {
        let place = || "control.db".to_owned();
        let health = Health::default();
        health.note(&Error::NoSpace { place: place(), is_at_the_end: false });
        assert_eq!(health.fault(), Some(Error::NoSpace { place: place(), is_at_the_end: false }));
        assert_eq!(health.broken(), None);
        health.note_success();
        assert_eq!(health.fault(), None);
        health.note(&Error::Unreadable { place: place(), reason: "one batch".into() });
        assert_eq!(health.fault(), None);
        let broken = Error::Broken { place: place(), reason: "fsync".into() };
        health.note(&broken);
        health.note_success();
        health.note(&Error::NoSpace { place: place(), is_at_the_end: false });
        assert_eq!((health.fault(), health.broken()), (Some(broken.clone()), Some(broken)));
    }
}
