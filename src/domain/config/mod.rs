//! The managed document: which settings may be changed at run time, their types, and the values applied over the file.

mod key;

use std::collections::BTreeMap;
use std::fmt;

pub(crate) use key::distance;
pub use key::{Error as KeyError, KEYS, Key, Kind, Scope, check, find, is_protected};

/// One typed value of a setting. Displays as canonical JSON.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A text.
    Text(String),
    /// Anything else, as canonical JSON: never a legal value, kept so that a refusal can name it.
    Other(String),
}

impl Value {
    /// The type's name in error messages.
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::Bool(_) => "a boolean",
            Self::Int(_) => "a whole number",
            Self::Text(_) => "a string",
            Self::Other(_) => "another type",
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => value.fmt(formatter),
            Self::Int(value) => value.fmt(formatter),
            Self::Text(value) => write_json_string(value, formatter),
            Self::Other(json) => formatter.write_str(json),
        }
    }
}

/// Writes a JSON string with the escapes that JSON demands and no others.
fn write_json_string(text: &str, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
    formatter.write_str("\"")?;
    for character in text.chars() {
        match character {
            '"' => formatter.write_str("\\\"")?,
            '\\' => formatter.write_str("\\\\")?,
            control if control < ' ' => write!(formatter, "\\u{:04x}", u32::from(control))?,
            other => write!(formatter, "{other}")?,
        }
    }
    formatter.write_str("\"")
}

/// Values applied at run time over the file's, with the revision that counts the applications.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overlay {
    /// Rises by one with every application that changed something.
    pub revision: u64,
    /// The applied values by key.
    pub values: BTreeMap<String, Value>,
    /// What the file said of the same keys when they were applied: once the file says something else, the file wins.
    pub over: BTreeMap<String, Value>,
}

impl Overlay {
    /// This overlay with `changes` applied over it, and whether anything differs. The revision rises only then.
    pub fn with(&self, changes: &BTreeMap<String, Value>, file: &BTreeMap<String, Value>) -> (Self, bool) {
        let mut next = self.clone();
        for (key, value) in changes {
            next.values.insert(key.clone(), value.clone());
            if let Some(said) = file.get(key) {
                next.over.insert(key.clone(), said.clone());
            }
        }
        let differs = next.values != self.values;
        if differs {
            next.revision = self.revision.saturating_add(1);
        }
        (next, differs)
    }

    /// This overlay without the keys whose value in the file was edited since, and those keys.
    pub fn without_edited(&self, file: &BTreeMap<String, Value>) -> (Self, Vec<String>) {
        self.without(|key| self.over.get(key) != file.get(key))
    }

    /// This overlay without the keys that are picked, and those keys. The revision rises if there are any.
    pub fn without(&self, is_picked: impl Fn(&str) -> bool) -> (Self, Vec<String>) {
        let picked: Vec<String> = self.values.keys().filter(|key| is_picked(key)).cloned().collect();
        let mut next = self.clone();
        for key in &picked {
            next.values.remove(key);
            next.over.remove(key);
        }
        if !picked.is_empty() {
            next.revision = self.revision.saturating_add(1);
        }
        (next, picked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(text: &str) -> BTreeMap<String, Value> {
        BTreeMap::from([("log.level".to_owned(), Value::Text(text.to_owned()))])
    }

    #[test]
    fn the_revision_rises_only_with_a_difference() {
        let (first, differs) = Overlay::default().with(&level("debug"), &level("info"));
        assert!(differs && first.revision == 1);
        let (second, differs) = first.with(&level("debug"), &level("info"));
        assert!(!differs && second == first);
    }

    #[test]
    fn an_edited_file_beats_the_overlay_and_an_unedited_one_does_not() {
        let (overlay, _) = Overlay::default().with(&level("debug"), &level("info"));
        assert_eq!(overlay.without_edited(&level("info")), (overlay.clone(), Vec::new()));
        let (rest, edited) = overlay.without_edited(&level("warn"));
        assert_eq!(edited, ["log.level"]);
        assert!(rest.values.is_empty() && rest.revision == 2);
    }
}
