//! Typed reads from the tree, with the defaults of the table of keys.
//!
//! The walk has already reported values of a wrong type; here they count as absent, so that the checks that follow can
//! still run and everything is reported at once.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use toml::value::Datetime;

use crate::domain::time::Wall;
use crate::settings::key;
use crate::settings::kind::ENTRIES_MAX;
use crate::settings::raw::{At, Entry, Node, Raw};
use crate::settings::secret::Secret;
use crate::settings::when;

/// One table of the file, or the place where it would be.
#[derive(Debug, Clone)]
pub(crate) struct Table<'a> {
    /// Its path in the form of the table of keys.
    path: String,
    /// Its path as the user sees it.
    pub(crate) shown: String,
    /// Where it stands.
    pub(crate) at: At,
    entries: Option<&'a BTreeMap<String, Entry>>,
}

impl<'a> Table<'a> {
    /// The table at a path such as `runtime.web`.
    pub(crate) fn of(root: &'a Node, path: &str) -> Self {
        let mut node = Some(root);
        for name in path.split('.') {
            node = node.and_then(entries).and_then(|entries| entries.get(name)).map(|entry| &entry.node);
        }
        let at = node.map_or(At::FILE, |node| node.at.clone());
        Self { path: path.to_owned(), shown: path.to_owned(), at, entries: node.and_then(entries) }
    }

    /// The tables of a list, each with its own place.
    pub(crate) fn list(&self, name: &str) -> Vec<Self> {
        let Some(Raw::List(items)) = self.raw(name).map(|node| &node.value) else { return Vec::new() };
        let table = |(index, item): (usize, &'a Node)| Self {
            path: format!("{}.{name}[]", self.path),
            shown: format!("{}.{name}[{index}]", self.shown),
            at: item.at.clone(),
            entries: entries(item),
        };
        items.iter().take(ENTRIES_MAX).enumerate().map(table).collect()
    }

    /// The key's path as the user sees it.
    pub(crate) fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.shown)
    }

    /// Where the key's value stands; where it is absent, the table.
    pub(crate) fn at(&self, name: &str) -> At {
        self.raw(name).map_or_else(|| self.at.clone(), |node| node.at.clone())
    }

    /// Whether the key is written down.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.raw(name).is_some()
    }

    /// Whether the key is written down and says something else than its default.
    pub(crate) fn is_changed(&self, name: &str) -> bool {
        let default = key::find(&format!("{}.{name}", self.path)).map_or("", |key| key.default);
        match self.raw(name).map(|node| &node.value) {
            None => false,
            Some(Raw::Bool(value)) => value.to_string() != default,
            Some(Raw::Int(number)) => number.to_string() != default,
            Some(Raw::Text(text)) => text != default,
            Some(Raw::List(items)) => !items.is_empty(),
            Some(Raw::Table(entries)) => !entries.is_empty(),
            Some(Raw::Float(_) | Raw::Time(_) | Raw::Unreadable) => true,
        }
    }

    /// Whether the table is written down, as opposed to the place where it would be.
    pub(crate) fn is_written(&self) -> bool {
        self.entries.is_some()
    }

    /// A text, or its default where there is one.
    pub(crate) fn text(&self, name: &str) -> Option<&'a str> {
        let key = key::find(&format!("{}.{name}", self.path))?;
        let default = (!key.default.is_empty()).then_some(key.default);
        match self.raw(name) {
            Some(node) if key.kind.accepts(&node.value) => node.value.text(),
            Some(_) | None => default,
        }
    }

    /// A text turned into a type; absent where it is not one.
    pub(crate) fn parsed<T: FromStr>(&self, name: &str) -> Option<T> {
        self.text(name)?.parse().ok()
    }

    /// A boolean, `false` where it has no default.
    pub(crate) fn flag(&self, name: &str) -> bool {
        match self.raw(name).map(|node| &node.value) {
            Some(Raw::Bool(value)) => *value,
            _ => self.text(name) == Some("true"),
        }
    }

    /// A whole number that is never negative.
    pub(crate) fn number(&self, name: &str) -> u64 {
        let fallback = || self.text(name).and_then(|text| text.parse().ok()).unwrap_or_default();
        match self.raw(name).map(|node| &node.value) {
            Some(Raw::Int(number)) => u64::try_from(*number).unwrap_or_else(|_negative| fallback()),
            _ => fallback(),
        }
    }

    /// A path, absent where it has no default.
    pub(crate) fn path(&self, name: &str) -> Option<PathBuf> {
        self.text(name).map(PathBuf::from)
    }

    /// A secret.
    pub(crate) fn secret(&self, name: &str) -> Option<Secret> {
        self.text(name).map(Secret::new)
    }

    /// The texts of a list with their places.
    pub(crate) fn texts(&self, name: &str) -> Vec<(At, &'a str)> {
        let Some(Raw::List(items)) = self.raw(name).map(|node| &node.value) else { return Vec::new() };
        items.iter().take(ENTRIES_MAX).filter_map(|item| Some((item.at.clone(), item.value.text()?))).collect()
    }

    /// The texts of a list.
    pub(crate) fn owned_texts(&self, name: &str) -> Vec<String> {
        self.texts(name).into_iter().map(|(_, text)| text.to_owned()).collect()
    }

    /// The named values of a table inside this one.
    pub(crate) fn map(&self, name: &str) -> Vec<(&'a str, &'a Entry)> {
        let found = self.raw(name).and_then(entries);
        found.into_iter().flatten().map(|(name, entry)| (name.as_str(), entry)).collect()
    }

    /// A moment, written as a TOML time or as a string.
    pub(crate) fn moment(&self, name: &str) -> Option<Wall> {
        match self.raw(name).map(|node| &node.value)? {
            Raw::Time(moment) => when::wall(moment),
            Raw::Text(text) => when::wall(&Datetime::from_str(text).ok()?),
            Raw::Bool(_) | Raw::Float(_) | Raw::Int(_) | Raw::List(_) | Raw::Table(_) | Raw::Unreadable => None,
        }
    }

    fn raw(&self, name: &str) -> Option<&'a Node> {
        self.entries?.get(name).map(|entry| &entry.node)
    }
}

fn entries(node: &Node) -> Option<&BTreeMap<String, Entry>> {
    if let Raw::Table(entries) = &node.value { Some(entries) } else { None }
}
