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
}

impl Overlay {
    /// This overlay with `changes` applied over it, and whether anything differs. The revision rises only then.
    pub fn with(&self, changes: &BTreeMap<String, Value>) -> (Self, bool) {
        let mut values = self.values.clone();
        values.extend(changes.iter().map(|(key, value)| (key.clone(), value.clone())));
        let differs = values != self.values;
        let revision = if differs { self.revision.saturating_add(1) } else { self.revision };
        (Self { revision, values }, differs)
    }
}
