//! `tokens.toml` in the state folder: the node's bearer tokens, as digests. Changed whole or not at all.
//!
//! The command line writes it, beside a running node or without one; the node reads it again when it has changed.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::value::Datetime;

use crate::domain::id::SiteId;
use crate::domain::identity::parse_hex32;
use crate::domain::identity::token::{self, Audience, TokenId, TokenRecord};

pub use crate::domain::identity::token::Tokens;
use crate::domain::time::Wall;
use crate::settings::when;

/// The file's name in the state folder.
pub const TOKENS_FILE: &str = "tokens.toml";

/// When each token was last used, in the state folder.
const USES_FILE: &str = "tokens.used.toml";

/// Far more than the most tokens with the longest notes take.
const FILE_BYTES_MAX: u64 = 256 * 1_024;

const HEAD: &str = "# Bearer tokens of this node, as digests only. Change them with: trust-runtime token\n\n";

/// Why the tokens could not be read or changed. The file is as it was.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others on this machine may change or read it.
    #[error("{}: is open to others (mode {mode:o}); set its mode to 600", path.display())]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It is not what `trust-runtime token` writes.
    #[error("{}: {reason}", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong, with its place.
        reason: String,
    },
    /// What was wanted does not fit with what is there.
    #[error("{0}")]
    Refused(String),
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default, rename = "token", skip_serializing_if = "Vec::is_empty")]
    tokens: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: String,
    role: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    audience: Option<String>,
    actor: String,
    digest: String,
    created: Datetime,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<Datetime>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    note: String,
}

/// The tokens in the state folder; none where there is no file.
pub fn load(folder: &Path, site: &SiteId) -> Result<Tokens, Error> {
    let path = folder.join(TOKENS_FILE);
    let content = |reason: String| Error::Content { path: path.clone(), reason };
    Tokens::new(read(&path)?, site).map_err(|error| content(error.to_string()))
}

/// Changes the tokens under a lock, so that two callers at once both succeed. What `change` refuses changes nothing.
pub fn change<T>(
    folder: &Path,
    site: &SiteId,
    change: impl FnOnce(&mut Vec<TokenRecord>) -> Result<T, Error>,
) -> Result<T, Error> {
    let path = folder.join(TOKENS_FILE);
    let fault = |source| Error::File { path: path.clone(), source };
    let lock_path = path.with_extension("lock");
    let lock =
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(lock_path).map_err(fault)?;
    // Given back when `lock` is dropped, also by a process that dies.
    lock.lock().map_err(fault)?;
    let mut records = read(&path)?;
    let changed = change(&mut records)?;
    let entries = records.iter().map(Entry::from).collect();
    Tokens::new(records, site).map_err(|error| Error::Refused(error.to_string()))?;
    let text = toml::to_string(&Document { tokens: entries }).map_err(|error| fault(io::Error::other(error)))?;
    write(&path, &format!("{HEAD}{text}")).map_err(fault)?;
    Ok(changed)
}

/// When each token was last used, as the node noted it. Nothing is decided by it, so a file that cannot be read is none.
pub fn uses(folder: &Path) -> BTreeMap<TokenId, Wall> {
    let Ok(text) = fs::read_to_string(folder.join(USES_FILE)) else { return BTreeMap::new() };
    let Ok(document) = toml::from_str::<BTreeMap<String, Datetime>>(&text) else { return BTreeMap::new() };
    document.iter().filter_map(|(id, at)| Some((id.parse().ok()?, when::wall(at)?))).collect()
}

/// Notes when each of these tokens was last used, beside what is already there. Tokens that are gone are forgotten.
pub fn note_uses(folder: &Path, tokens: &Tokens, new: &BTreeMap<TokenId, Wall>) -> io::Result<()> {
    let mut all = uses(folder);
    all.extend(new);
    all.retain(|id, _| tokens.records().any(|record| record.id == *id));
    let document: BTreeMap<_, _> = all.iter().map(|(id, at)| (id.to_string(), when::datetime(*at))).collect();
    write(&folder.join(USES_FILE), &toml::to_string(&document).map_err(io::Error::other)?)
}

fn read(path: &Path) -> Result<Vec<TokenRecord>, Error> {
    let fault = |source| Error::File { path: path.to_owned(), source };
    let content = |reason: String| Error::Content { path: path.to_owned(), reason };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(fault(error)),
    };
    let mode = file.metadata().map_err(fault)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(Error::Exposed { path: path.to_owned(), mode });
    }
    let mut text = String::new();
    let got = file.take(FILE_BYTES_MAX.saturating_add(1)).read_to_string(&mut text).map_err(fault)?;
    if FILE_BYTES_MAX < u64::try_from(got).unwrap_or(u64::MAX) {
        return Err(content(format!("wanted at most {FILE_BYTES_MAX} bytes, got more")));
    }
    let document: Document = toml::from_str(&text).map_err(|error| content(error.to_string()))?;
    document.tokens.into_iter().map(|entry| TokenRecord::try_from(entry).map_err(content)).collect()
}

/// Readers see the whole file, the old or the new one, also after a loss of power.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let draft = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

impl From<&TokenRecord> for Entry {
    fn from(record: &TokenRecord) -> Self {
        Self {
            id: record.id.to_string(),
            role: record.role.to_string(),
            audience: Some(record.audience).filter(|it| *it != Audience::default()).map(|it| it.to_string()),
            actor: record.actor.to_string(),
            digest: record.digest.iter().map(|byte| format!("{byte:02x}")).collect(),
            created: when::datetime(record.created),
            expires: record.expires.map(when::datetime),
            note: record.note.clone(),
        }
    }
}

impl TryFrom<Entry> for TokenRecord {
    type Error = String;

    fn try_from(entry: Entry) -> Result<Self, String> {
        let at = |key: &str, reason: String| format!("token {:?}: {key}: {reason}", entry.id);
        let moment = |key: &str, moment: &Datetime| -> Result<Wall, String> {
            when::wall(moment).ok_or_else(|| at(key, format!("wanted a moment with its offset, got {moment}")))
        };
        Ok(Self {
            id: entry.id.parse().map_err(|error: token::NotATokenId| at("id", error.to_string()))?,
            digest: parse_hex32(&entry.digest).map_err(|error| at("digest", error.to_string()))?,
            role: entry
                .role
                .parse()
                .map_err(|error: crate::domain::identity::UnknownRole| at("role", error.to_string()))?,
            actor: entry
                .actor
                .parse()
                .map_err(|error: crate::domain::policy::PatternError| at("actor", error.to_string()))?,
            audience: entry
                .audience
                .as_deref()
                .map_or(Ok(Audience::default()), str::parse)
                .map_err(|error| at("audience", error.to_string()))?,
            created: moment("created", &entry.created)?,
            expires: entry.expires.as_ref().map(|it| moment("expires", it)).transpose()?,
            note: entry.note.clone(),
        })
    }
}
