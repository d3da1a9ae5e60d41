//! Overrides from the environment: `TRUST_RUNTIME__WEB__LISTEN` stands for `runtime.web.listen`, and
//! `TRUST_RUNTIME__CONTROL__AUTH_TOKEN_FILE` names a file with a secret.
//!
//! The environment is an argument; nothing here reads the process's own.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use crate::settings::concern::Concern;
use crate::settings::exposure;
use crate::settings::key::{KEYS, Key};
use crate::settings::kind::{Kind, nearest};
use crate::settings::problem::Faults;
use crate::settings::raw::{At, Entry, Node, Raw};
use crate::settings::walk;

/// What the names of our variables begin with. All else in the environment is not ours.
pub const PREFIX: &str = "TRUST_RUNTIME__";

const FILE_SUFFIX: &str = "_FILE";

/// Largest accepted file of a secret in bytes: the longest token and its line end.
const SECRET_FILE_BYTES_MAX: u64 = 1_026;

/// The variable that stands for a key; none for lists and tables.
pub fn variable(key: &Key) -> Option<String> {
    if !key.kind.is_scalar() || key.path.contains("[]") {
        return None;
    }
    let path = key.path.strip_prefix("runtime.").unwrap_or(key.path);
    Some(format!("{PREFIX}{}", path.replace('.', "__").to_uppercase()))
}

/// Lays the variables over the file's tree. Gives what is to be said of the files with secrets.
pub(crate) fn apply(
    root: &mut Node,
    environment: impl IntoIterator<Item = (String, String)>,
    faults: &mut Faults,
) -> Vec<Concern> {
    let mut concerns = Vec::new();
    let known: BTreeMap<String, &'static Key> = KEYS.iter().filter_map(|key| Some((variable(key)?, key))).collect();
    let ours: BTreeMap<String, String> = environment.into_iter().filter(|(name, _)| name.starts_with(PREFIX)).collect();
    for (name, value) in &ours {
        let at = At::Variable(name.as_str().into());
        let file_of = name.strip_suffix(FILE_SUFFIX).and_then(|it| known.get(it));
        match (known.get(name), file_of) {
            (Some(key), _) => {
                let node = Node { at, value: typed(key.kind, value) };
                walk::check_value(key, key.path, &node, faults);
                insert(root, key.path, node);
            }
            (None, Some(key)) if key.kind == Kind::Secret => {
                if name.strip_suffix(FILE_SUFFIX).is_some_and(|it| ours.contains_key(it)) {
                    faults.push(&at, key.path, "wanted the secret or its file, got both");
                }
                match read_secret(Path::new(value)) {
                    Ok((secret, exposure)) => {
                        concerns.extend(exposure.map(|reason| exposure::concern(key, at.clone(), reason)));
                        let node = Node { at, value: Raw::Text(secret) };
                        walk::check_value(key, key.path, &node, faults);
                        insert(root, key.path, node);
                    }
                    Err(reason) => faults.push(&at, key.path, reason),
                }
            }
            (None, Some(key)) => {
                faults.push(&at, key.path, "wanted a value, got a file; only secrets are read from files");
            }
            (None, None) => unknown(&at, name, &known, faults),
        }
    }
    concerns
}

fn unknown(at: &At, name: &str, known: &BTreeMap<String, &'static Key>, faults: &mut Faults) {
    let of_list = KEYS.iter().find(|key| {
        let path = key.path.strip_prefix("runtime.").unwrap_or(key.path).replace('.', "__").to_uppercase();
        name.strip_prefix(PREFIX) == Some(path.as_str())
    });
    if let Some(key) = of_list {
        faults.push(at, key.path, "a list or table cannot be set by a variable; set it in runtime.toml");
        return;
    }
    let suggestion = if faults.is_full() { None } else { nearest(known.keys().map(String::as_str), name) };
    faults.push_with(at, "", "stands for no setting", suggestion.map(|it| format!("did you mean {it}?")));
}

fn typed(kind: Kind, text: &str) -> Raw {
    match (kind, text) {
        (Kind::Bool, "true") => Raw::Bool(true),
        (Kind::Bool, "false") => Raw::Bool(false),
        (Kind::Int { .. }, text) => text.parse().map_or_else(|_| Raw::Text(text.to_owned()), Raw::Int),
        (_, text) => Raw::Text(text.to_owned()),
    }
}

/// Puts the value at its path. A table that the file spells as something else has been reported and is left alone.
fn insert(root: &mut Node, path: &str, node: Node) {
    let mut place = root;
    let mut names = path.split('.').peekable();
    while let Some(name) = names.next() {
        let Raw::Table(entries) = &mut place.value else { return };
        if names.peek().is_none() {
            entries.insert(name.to_owned(), Entry { key_at: node.at.clone(), node });
            return;
        }
        let entry = entries.entry(name.to_owned()).or_insert_with(|| Entry {
            key_at: node.at.clone(),
            node: Node { at: node.at.clone(), value: Raw::Table(BTreeMap::new()) },
        });
        place = &mut entry.node;
    }
}

/// The secret, and why its file is no place for one, if it is none.
fn read_secret(path: &Path) -> Result<(String, Option<String>), String> {
    let refuse = |reason: String| format!("{}: {reason}", path.display());
    let file = std::fs::File::open(path).map_err(|error| refuse(error.to_string()))?;
    let metadata = file.metadata().map_err(|error| refuse(error.to_string()))?;
    let mut bytes = Vec::new();
    let mut limited = file.take(SECRET_FILE_BYTES_MAX.saturating_add(1));
    limited.read_to_end(&mut bytes).map_err(|error| refuse(error.to_string()))?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > SECRET_FILE_BYTES_MAX) {
        return Err(refuse(format!("wanted at most {SECRET_FILE_BYTES_MAX} bytes, got more")));
    }
    let text = String::from_utf8(bytes).map_err(|_not_text| refuse("wanted text, got other bytes".to_owned()))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Ok((line.strip_suffix('\r').unwrap_or(line).to_owned(), exposure::of_file(path, &metadata)))
}
