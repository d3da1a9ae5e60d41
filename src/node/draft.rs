//! Files that are replaced as a whole, with their mode from the first byte on: readers, and whoever comes after a crash, see the
//! old bytes or the new ones, however many write at once.
//!
//! Each writer has a draft with a name of its own: of two with one name the second would take away, or put in place half written,
//! what the first has begun. What a crash leaves of a draft nobody reads. Which of two writers is the last is not decided here.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::node::clock::random;

/// How the name of a draft ends.
const ENDING: &str = ".new";

/// Puts these bytes in the file's place.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    replace_if(path, bytes, mode, || true).map(drop)
}

/// The same if that is still wanted once everything is on the disk but the name. Gives whether it was.
pub(super) fn replace_if(path: &Path, bytes: &[u8], mode: u32, is_wanted: impl FnOnce() -> bool) -> io::Result<bool> {
    let draft = draft_of(path);
    let put = || {
        write(&draft, bytes, mode)?;
        if !is_wanted() {
            return Ok(false);
        }
        fs::rename(&draft, path).map(|()| true)
    };
    match put() {
        Ok(true) => sync_folder(path).map(|()| true),
        other => {
            // Nobody else has its name, so that it would stay for good.
            drop(fs::remove_file(&draft));
            other
        }
    }
}

/// A new name in a folder is durable when the folder is.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

fn draft_of(path: &Path) -> PathBuf {
    let number = u64::from_ne_bytes(random());
    let mut name = OsString::from(path.as_os_str());
    name.push(format!(".{number:016x}{ENDING}"));
    name.into()
}

fn write(draft: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(draft)?;
    file.write_all(bytes)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(folder: &Path) -> Vec<OsString> {
        let entries = fs::read_dir(folder).expect("a folder");
        let mut names: Vec<_> = entries.map(|entry| entry.expect("an entry").file_name()).collect();
        names.sort();
        names
    }

    #[test]
    fn two_writers_of_one_file_do_not_touch_each_others_draft() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("note");
        // The second begins and ends between the draft of the first and its name.
        let between = || {
            replace(&path, b"second", 0o644).expect("written");
            assert_eq!(fs::read(&path).expect("a file"), b"second");
            true
        };
        assert!(replace_if(&path, b"first", 0o600, between).expect("written"));
        assert_eq!(fs::read(&path).expect("a file"), b"first", "the last one counts, and is whole");
        assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
        // One begins in between and ends before it has written anything, as by a crash: its empty draft is put nowhere.
        let beginning = || File::create_new(draft_of(&path)).is_ok();
        assert!(replace_if(&path, b"third", 0o600, beginning).expect("written"));
        assert_eq!(fs::read(&path).expect("a file"), b"third");
    }

    #[test]
    fn what_is_not_wanted_any_more_or_cannot_be_put_in_place_leaves_nothing_behind() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("note");
        replace(&path, b"one", 0o644).expect("written");
        assert!(!replace_if(&path, b"two", 0o644, || false).expect("no fault"));
        assert_eq!((fs::read(&path).expect("a file"), files(folder.path())), (b"one".to_vec(), vec!["note".into()]));
        let taken = folder.path().join("folder");
        fs::create_dir(&taken).expect("a folder");
        assert!(replace(&taken, b"two", 0o644).is_err());
        assert_eq!(files(folder.path()), ["folder", "note"]);
    }
}
