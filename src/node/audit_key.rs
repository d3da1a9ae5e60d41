//! The key that signs checkpoints of the audit log: made once, separate from every other key, its public half published.

use std::fs;
use std::io;
use std::path::Path;

use super::{KeyError, identity_key};
use crate::domain::audit::{NoteKey, log_name};
use crate::domain::id::RuntimeId;

/// The private key's file in the state folder.
const FILE: &str = "audit.key";

/// The public key's file beside it: what somebody needs to check the log, and nothing secret.
pub(super) const PUBLIC_FILE: &str = "audit.vkey";

/// Loads the key, or makes it, and sees to it that its public half lies beside it.
pub(super) fn load_or_create(folder: &Path, runtime: &RuntimeId) -> Result<NoteKey, KeyError> {
    let (key, _is_new) = identity_key(&folder.join(FILE))?;
    let key = NoteKey::new(log_name(runtime), key);
    let path = folder.join(PUBLIC_FILE);
    publish(&path, &format!("{}\n", key.verifier())).map_err(|source| KeyError::File { path, source })?;
    Ok(key)
}

fn publish(path: &Path, text: &str) -> io::Result<()> {
    if fs::read_to_string(path).is_ok_and(|found| found == text) {
        return Ok(());
    }
    let draft = path.with_extension("vkey.new");
    fs::write(&draft, text)?;
    fs::rename(&draft, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::domain::audit::Verifier;

    #[test]
    fn the_key_is_made_once_for_its_owner_and_its_public_half_for_all() {
        let folder = tempfile::tempdir().expect("folder");
        let runtime = "site-a/rt-07".parse().expect("legal");
        let made = load_or_create(folder.path(), &runtime).expect("made").verifier();
        assert_eq!(load_or_create(folder.path(), &runtime).expect("found").verifier(), made);
        let text = fs::read_to_string(folder.path().join(PUBLIC_FILE)).expect("published");
        assert_eq!(text.trim().parse::<Verifier>(), Ok(made.clone()));
        assert_eq!(made.name(), "trust-runtime/site-a/rt-07");
        let mode = fs::metadata(folder.path().join(FILE)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        // What somebody else left there is put right.
        fs::write(folder.path().join(PUBLIC_FILE), "another").expect("written");
        load_or_create(folder.path(), &runtime).expect("found");
        assert_eq!(fs::read_to_string(folder.path().join(PUBLIC_FILE)).expect("published"), text);
    }
}
