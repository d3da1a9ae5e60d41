//! Whether the last stop was clean: a store that has written all and closed its files leaves a word that says where each ended,
//! and the next start takes it away before it opens them.
//!
//! Without the word the stop was none of ours: a kill, a power cut, files that somebody copied while the node ran. The same where
//! a write-ahead log was left, or where the word is about other files than those that are there. What is looked for then stands in
//! `damage.rs`. A stop on a full disk may leave the word: what did not fit was acknowledged to nobody, the files are whole.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::file::{FILE_MODE, Name, beside, is_plain_file, remove_if_there, system};
use super::lock;
use crate::store::Error;

/// Longest word that is read: three lines of a name, a number and a hash are a third of it.
const WORD_BYTES_MAX: u64 = 1_024;

/// The files of one store, and the name of the word about them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Files {
    word: &'static str,
    names: &'static [Name],
}

impl Files {
    /// Facts and the three chains.
    pub(super) const AUDIT: Self = Self { word: "clean", names: &[Name::Control, Name::Events, Name::Refusals] };
    /// Runs.
    pub(super) const RUNS: Self = Self { word: "runs.clean", names: &[Name::Runs] };
}

/// What the last stop left.
#[derive(Debug)]
pub(super) struct Left {
    is_new: bool,
    has_log: bool,
    word: Option<String>,
}

impl Left {
    /// Reads the word and takes it away for good: whatever happens to the files from now on, it does not speak of them.
    pub(super) fn take(folder: &Path, files: Files) -> Result<Self, Error> {
        let mut left = Self { is_new: true, has_log: false, word: None };
        for name in files.names {
            let place = folder.join(name.as_str());
            left.is_new &= !is_plain_file(&place)?;
            left.has_log |= has_bytes(&beside(&place, "-wal"))?;
        }
        let place = folder.join(files.word);
        if is_plain_file(&place)? {
            let mut word = String::new();
            let mut read = || File::open(&place)?.take(WORD_BYTES_MAX).read_to_string(&mut word);
            // A word that cannot be read is none.
            left.word = read().ok().map(|_length| word);
            let remove = || {
                fs::remove_file(&place)?;
                File::open(folder)?.sync_all()
            };
            remove().map_err(|error| system(&place, &error))?;
        }
        Ok(left)
    }

    /// Whether the files are those that a clean stop left, or were not there at all.
    pub(super) fn is_clean(&self, ends: &Ends) -> bool {
        self.is_new || (!self.has_log && self.word.as_ref() == Some(&ends.to_word()))
    }
}

/// Where files end.
#[derive(Debug, Default)]
pub(super) struct Ends(BTreeMap<&'static str, String>);

impl Ends {
    pub(super) fn put(&mut self, name: Name, end: String) {
        self.0.insert(name.as_str(), end);
    }

    fn to_word(&self) -> String {
        self.0.iter().map(|(name, end)| format!("{name} {end}\n")).collect()
    }
}

/// What must come together before the word may be left.
#[derive(Debug)]
pub(super) struct Closing {
    folder: PathBuf,
    files: Files,
    ends: Mutex<Ends>,
    is_checked: AtomicBool,
}

impl Closing {
    pub(super) fn of(folder: &Path, files: Files) -> Self {
        Self { folder: folder.to_owned(), files, ends: Mutex::default(), is_checked: AtomicBool::new(false) }
    }

    /// The files are known to be whole.
    pub(super) fn note_whole(&self) {
        self.is_checked.store(true, Ordering::Relaxed);
    }

    /// Whether they are. Until then nothing is known.
    pub(super) fn is_known_whole(&self) -> bool {
        self.is_checked.load(Ordering::Relaxed)
    }

    /// A file ended here and is closed; all that was to be written is in it. After the last one the word is left.
    pub(super) fn closed(&self, name: Name, end: String) {
        let mut ends = lock(&self.ends);
        ends.put(name, end);
        if ends.0.len() < self.files.names.len() || !self.is_known_whole() {
            return;
        }
        if let Err(error) = self.leave(&ends.to_word()) {
            tracing::warn!(%error, "the word of a clean stop cannot be left; the next start checks the files");
        }
    }

    fn leave(&self, word: &str) -> Result<(), Error> {
        for name in self.files.names {
            // Somebody else has the file open: what is in its log is still to be copied.
            if has_bytes(&beside(&self.folder.join(name.as_str()), "-wal"))? {
                return Ok(());
            }
        }
        let place = self.folder.join(self.files.word);
        let new = beside(&place, ".new");
        remove_if_there(&new)?;
        let write = || {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&new)?;
            file.write_all(word.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &place)?;
            File::open(&self.folder)?.sync_all()
        };
        write().map_err(|error| system(&place, &error))
    }
}

/// Whether something stands in a file.
fn has_bytes(place: &Path) -> Result<bool, Error> {
    if !is_plain_file(place)? {
        return Ok(false);
    }
    match fs::symlink_metadata(place) {
        Ok(metadata) => Ok(0 < metadata.len()),
        // A reader of another process has just left and taken it along.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(system(place, &error)),
    }
}
