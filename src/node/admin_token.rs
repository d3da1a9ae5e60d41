//! The node's own admin token: made once, kept in the state folder for its owner's command line, never logged. Whoever removes
//! or replaces the file takes the old one back, also while the node runs.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use crate::engine::Entropy;
use crate::node::clock::SystemEntropy;

/// The token's file in the state folder.
pub(super) const FILE: &str = "admin.token";

/// Shortest token that is believed to be one of ours: a truncated file must not become an easy secret.
const CHARS_MIN: usize = 40;

/// Longest file that is read.
const BYTES_MAX: u64 = 4 * 1_024;

/// The digest of a token.
pub(super) type Digested = [u8; 32];

/// The digest of the token in the file; a new token where there is none.
pub(super) fn load_or_create(folder: &Path) -> io::Result<Digested> {
    match load(folder)? {
        Some(digest) => Ok(digest),
        None => create(&folder.join(FILE)).map(|token| digest(&token)),
    }
}

/// The digest of the token in the file, if there is one.
pub(super) fn load(folder: &Path) -> io::Result<Option<Digested>> {
    let path = folder.join(FILE);
    let explain = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let wrong = |reason: &str| Err(io::Error::other(format!("{}: {reason}", path.display())));
    let kind = match fs::symlink_metadata(&path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(explain(error)),
    };
    // Not opened at all otherwise: whoever opens a pipe waits.
    if !kind.is_file() {
        return wrong("is not a file; remove it");
    }
    if kind.permissions().mode() & 0o077 != 0 {
        return wrong("is open to others; chmod 600 it, or remove it if they may have read it");
    }
    let mut text = String::new();
    File::open(&path).and_then(|file| file.take(BYTES_MAX).read_to_string(&mut text)).map_err(explain)?;
    match text.trim() {
        token if token.len() >= CHARS_MIN => Ok(Some(digest(token))),
        _short => wrong("is not a token; remove the file"),
    }
}

fn digest(token: &str) -> Digested {
    Sha256::digest(token.as_bytes()).into()
}

fn create(path: &Path) -> io::Result<String> {
    let mut random = [0; 32];
    SystemEntropy.fill(&mut random);
    let token = format!("trt_{}", URL_SAFE_NO_PAD.encode(random));
    let draft = path.with_extension("new");
    // What a crash has left, with whatever mode.
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(token.as_bytes())?;
    file.sync_all()?;
    // Never in the place of a file that somebody has put there meanwhile.
    fs::hard_link(&draft, path)?;
    fs::remove_file(&draft)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())?;
    Ok(token)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_token_is_made_once_for_its_owner_only() {
        let folder = tempfile::tempdir().expect("folder");
        let made = load_or_create(folder.path()).expect("made");
        assert_eq!(load_or_create(folder.path()).expect("found"), made);
        let mode = fs::metadata(folder.path().join(FILE)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_token_that_others_can_read_or_that_is_no_file_is_refused() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join(FILE);
        let token = format!("trt_{}", "x".repeat(43));
        fs::write(&path, &token).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("ours");
        assert!(load(folder.path()).expect_err("readable").to_string().contains("chmod 600"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("ours");
        assert_eq!(load(folder.path()).expect("good"), Some(digest(&token)));
        fs::remove_file(&path).expect("ours");
        std::os::unix::fs::symlink("/dev/zero", &path).expect("linked");
        assert!(load(folder.path()).expect_err("endless").to_string().contains("not a file"));
    }

    #[test]
    fn what_a_crash_has_left_of_a_token_is_in_nobodys_way() {
        let folder = tempfile::tempdir().expect("folder");
        let draft = folder.path().join(FILE).with_extension("new");
        fs::write(&draft, "half").expect("written");
        let made = load_or_create(folder.path()).expect("made");
        assert_eq!((load(folder.path()).expect("good"), draft.exists()), (Some(made), false));
    }

    #[test]
    fn a_truncated_token_is_refused() {
        let folder = tempfile::tempdir().expect("folder");
        fs::write(folder.path().join(FILE), "trt_x").expect("written");
        fs::set_permissions(folder.path().join(FILE), fs::Permissions::from_mode(0o600)).expect("ours");
        assert!(load_or_create(folder.path()).is_err());
    }
}
