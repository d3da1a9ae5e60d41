//! Secrets in files that other users of the machine may open, by the rule that keys are held to.

use std::fs::Metadata;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::settings::concern::Concern;
use crate::settings::key::{KEYS, Key};
use crate::settings::raw::{At, Node};
use crate::settings::table::Table;

/// Why the file is no place for a secret. Only files: a pipe or a terminal is not lying there for others.
pub(crate) fn of_file(path: &Path, metadata: &Metadata) -> Option<String> {
    let mode = metadata.permissions().mode() & 0o777;
    let is_open = metadata.is_file() && mode & 0o077 != 0;
    is_open.then(|| format!("{}: is open to others (mode {mode:o}); set its mode to 600", path.display()))
}

/// The concern about a secret in a file of which [`of_file`] has said something.
pub(crate) fn concern(key: &Key, at: At, reason: String) -> Concern {
    Concern { setting: key.path, at, reason, is_about_protection: true }
}

/// The first secret that is written in the settings file itself, where others may open that file.
pub(crate) fn of_settings(root: &Node, exposure: Option<String>) -> Option<Concern> {
    let reason = exposure?;
    KEYS.iter().filter(|key| key.kind.is_secret()).find_map(|key| {
        let (parent, name) = key.path.rsplit_once('.')?;
        let table = Table::of(root, parent);
        table.has(name).then(|| concern(key, table.at(name), reason.clone()))
    })
}
