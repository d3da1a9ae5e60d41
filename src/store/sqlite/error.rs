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
        (ffi::SQLITE_FULL, _) | (_, ffi::SQLITE_IOERR_SHMSIZE) => Error::NoSpace { place },
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
