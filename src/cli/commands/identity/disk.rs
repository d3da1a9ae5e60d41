//! Files of an authority: whole or not at all, with their mode from the first byte on, one writer at a time.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::cli::exit::{Exit, Failure};
use crate::node::draft;

/// For what only its owner may read.
pub(super) const SECRET: u32 = 0o600;
/// For what everybody may read.
pub(super) const PUBLIC: u32 = 0o644;

/// Longest file that is read whole, in bytes: a list with the most bans.
const BYTES_MAX: u64 = 2 * 1_024 * 1_024;

/// The same for the list of what was issued: 200,000 certificates, or eight years of fifty nodes that renew every other day.
const LONG_BYTES_MAX: u64 = 64 * 1_024 * 1_024;

/// Makes a folder that only its owner may enter, with the folders above it.
pub(super) fn make_folder(path: &Path) -> Result<(), Failure> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| fault(path, &error))
}

/// Replaces a file so that readers, and whoever comes after a crash, see the old bytes or the new ones.
pub(super) fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Failure> {
    draft::replace(path, bytes, mode).map_err(|error| fault(path, &error))
}

/// Removes a file for good; one that is gone is no fault.
pub(super) fn remove(path: &Path) -> Result<(), Failure> {
    match fs::remove_file(path) {
        Ok(()) => draft::sync_folder(path).map_err(|error| fault(path, &error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(fault(path, &error)),
    }
}

/// Reads a text file as a whole.
pub(super) fn read(path: &Path) -> Result<String, Failure> {
    read_file(File::open(path), path, BYTES_MAX)
}

/// The same of a file that grows for years.
pub(super) fn read_long(path: &Path) -> Result<String, Failure> {
    read_file(File::open(path), path, LONG_BYTES_MAX)
}

/// Reads a key, which nobody else may read.
pub(super) fn read_secret(path: &Path) -> Result<String, Failure> {
    let file = File::open(path).map_err(|error| fault(path, &error))?;
    let mode = file.metadata().map_err(|error| fault(path, &error))?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let message = format!("{}: others may read the key (mode {mode:o}): set its mode to 600", path.display());
        return Err(Failure::new(Exit::Configuration, message));
    }
    read_file(Ok(file), path, BYTES_MAX)
}

fn read_file(file: io::Result<File>, path: &Path, bytes_max: u64) -> Result<String, Failure> {
    let mut text = String::new();
    let read = file.and_then(|file| file.take(bytes_max.saturating_add(1)).read_to_string(&mut text));
    let length = read.map_err(|error| fault(path, &error))?;
    if u64::try_from(length).is_ok_and(|length| length <= bytes_max) {
        return Ok(text);
    }
    let message = format!("{}: wanted at most {bytes_max} bytes: is it the right file?", path.display());
    Err(Failure::new(Exit::Configuration, message))
}

/// Keeps other commands off a folder as long as it lives.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Waits for nobody: two people at one authority should know of each other.
    pub(super) fn take(folder: &Path) -> Result<Self, Failure> {
        let path = folder.join("lock");
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(SECRET).open(&path);
        let mut file = file.map_err(|error| fault(&path, &error))?;
        match file.try_lock() {
            Ok(()) => {
                // Whoever finds it locked is told by whom: a command that hangs keeps all renewals waiting.
                let noted = file.set_len(0).and_then(|()| write!(file, "process {}", std::process::id()));
                noted.map_err(|error| fault(&path, &error))?;
                Ok(Self { _file: file })
            }
            Err(fs::TryLockError::WouldBlock) => {
                let holder = fs::read_to_string(&path).unwrap_or_default();
                let place = folder.display();
                let message = format!("{place}: another command is at work here: try again ({holder})");
                Err(Failure::new(Exit::Conflict, message))
            }
            Err(fs::TryLockError::Error(error)) => Err(fault(&path, &error)),
        }
    }
}

/// What the system said about a path.
pub(super) fn fault(path: &Path, error: &io::Error) -> Failure {
    Failure::failed(format!("{}: {error}", path.display()))
}
