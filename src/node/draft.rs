//! Files that are replaced as a whole, with their mode from the first byte on: readers, and whoever comes after a crash, see the
//! old bytes or the new ones, however many write at once.
//!
//! Each writer has a draft with a name of its own: of two with one name the second would take away, or put in place half written,
//! what the first has begun. Which of two writers is the last is not decided here. What a crash leaves of a draft nobody reads, and
//! [`sweep`] takes it away: a writer who is still there has its draft locked.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::node::clock::random;

/// How the name of a draft ends.
const ENDING: &str = ".new";

/// Digits of the number in its name.
const DIGITS: usize = 16;

/// How often a draft is begun anew that somebody sweeps away before it is locked.
const BEGUN_MAX: usize = 8;

/// Puts these bytes in the file's place.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    replace_if(path, bytes, mode, || true).map(drop)
}

/// The same if that is still wanted once everything is on the disk but the name. Gives whether it was.
pub(super) fn replace_if(path: &Path, bytes: &[u8], mode: u32, is_wanted: impl FnOnce() -> bool) -> io::Result<bool> {
    let (draft, file) = begin(path, mode)?;
    let put = |mut file: File| {
        file.write_all(bytes)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.sync_all()?;
        if !is_wanted() {
            return Ok(false);
        }
        // It is locked until it has its name.
        fs::rename(&draft, path).map(|()| true)
    };
    match put(file) {
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

/// An empty draft that nobody sweeps away.
fn begin(path: &Path, mode: u32) -> io::Result<(PathBuf, File)> {
    for _ in 0..BEGUN_MAX {
        let draft = draft_of(path);
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&draft)?;
        match file.try_lock() {
            // Swept away between its first moment and its lock.
            Ok(()) if file.metadata()?.nlink() == 0 => {}
            Err(fs::TryLockError::WouldBlock) => {}
            // Where nothing can be locked nothing is swept away.
            Ok(()) | Err(fs::TryLockError::Error(_)) => return Ok((draft, file)),
        }
    }
    Err(io::ErrorKind::ResourceBusy.into())
}

/// Takes away what a crash has left of drafts of these files. Nothing else is touched, and no link is followed; what cannot be
/// taken away harms nobody. Gives how many there were.
pub fn sweep<'a>(files: impl IntoIterator<Item = &'a Path>) -> usize {
    files.into_iter().map(sweep_one).fold(0, usize::saturating_add)
}

fn sweep_one(file: &Path) -> usize {
    let (Some(name), Some(folder)) = (file.file_name(), file.parent()) else { return 0 };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let drafts = entries.filter(|entry| is_draft_of(&entry.file_name(), name)).map(|entry| entry.path());
    drafts.filter(|draft| remove_abandoned(draft).unwrap_or(false)).count()
}

/// Whether a file of this name could have been made by [`draft_of`], and by nothing that a person would do.
fn is_draft_of(found: &OsStr, name: &OsStr) -> bool {
    let rest = found.as_bytes().strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b"."));
    let Some(number) = rest.and_then(|rest| rest.strip_suffix(ENDING.as_bytes())) else { return false };
    number.len() == DIGITS && number.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Removes a draft whose writer is gone. Gives whether it did.
fn remove_abandoned(draft: &Path) -> io::Result<bool> {
    // What the name itself stands for: a link is no file, whatever it leads to.
    let named = fs::symlink_metadata(draft)?;
    if !named.is_file() {
        return Ok(false);
    }
    let file = File::open(draft)?;
    let opened = file.metadata()?;
    if (opened.dev(), opened.ino()) != (named.dev(), named.ino()) || file.try_lock().is_err() {
        return Ok(false);
    }
    fs::remove_file(draft).map(|()| true)
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
        let beginning = || begin(&path, 0o644).is_ok();
        assert!(replace_if(&path, b"third", 0o600, beginning).expect("written"));
        assert_eq!(fs::read(&path).expect("a file"), b"third");
    }

    #[test]
    fn what_a_crash_has_left_is_swept_away_and_nothing_else() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().expect("a folder");
        let [path, other] = ["note", "other"].map(|name| folder.path().join(name));
        let put = |name: &str| fs::write(folder.path().join(name), b"half").expect("written");
        // What somebody else has named, a folder, a link, and the draft of another file.
        let kept = [
            "note",
            "note.0123456789abcdef",
            "note.0123456789abcde.new",
            "note.0123456789abcdefa.new",
            "note.0123456789ABCDEF.new",
            "note.new",
            "note0123456789abcdef.new",
            "other.0123456789abcdef.new",
            "target",
        ];
        kept.iter().copied().for_each(put);
        fs::create_dir(folder.path().join("note.1111111111111111.new")).expect("made");
        symlink(folder.path().join("target"), folder.path().join("note.2222222222222222.new")).expect("linked");
        let before = files(folder.path());
        ["note.0123456789abcdef.new", "note.fedcba9876543210.new"].into_iter().for_each(put);
        assert_eq!(sweep([path.as_path()]), 2);
        assert_eq!(files(folder.path()), before);
        assert_eq!((sweep([path.as_path()]), sweep([other.as_path()])), (0, 1));
        assert_eq!(sweep([Path::new("/"), &folder.path().join("away/note")]), 0);
    }

    #[test]
    fn a_draft_that_is_being_written_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("note");
        let between = || {
            assert_eq!(sweep([path.as_path()]), 0);
            true
        };
        assert!(replace_if(&path, b"one", 0o644, between).expect("written"));
        assert_eq!((fs::read(&path).expect("a file"), files(folder.path())), (b"one".to_vec(), vec!["note".into()]));
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
