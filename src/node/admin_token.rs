//! The node's own admin token: made once, kept in the state folder for its owner's command line, never logged. Whoever removes
//! or replaces the file takes the old one back, also while the node runs.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
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
    match fs::read_to_string(&path) {
        Ok(text) if text.trim().len() >= CHARS_MIN => Ok(Some(digest(text.trim()))),
        Ok(_) => Err(io::Error::other(format!("{}: is not a token; remove the file", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
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
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(token.as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
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
    fn a_truncated_token_is_refused() {
        let folder = tempfile::tempdir().expect("folder");
        fs::write(folder.path().join(FILE), "trt_x").expect("written");
        assert!(load_or_create(folder.path()).is_err());
    }
}
