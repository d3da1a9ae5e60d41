//! Holds every key of the file against the table: unknown ones, foreign ones, wrong types, missing ones.

use std::collections::{BTreeMap, BTreeSet};

use crate::settings::key::{self, KEYS, Key};
use crate::settings::kind::{ENTRIES_MAX, nearest};
use crate::settings::problem::Faults;
use crate::settings::raw::{At, Entry, Node, Raw};

/// Names of a PLC language runtime's keys below these tables. Such files lie in the same folders, so they get an answer
/// of their own instead of a suggestion.
const FOREIGN_TABLES: &[&str] = &["", "resource", "runtime"];
const FOREIGN_NAMES: &[&str] = &[
    "ads",
    "ads_server",
    "cycle_interval_ms",
    "execution_backend",
    "fault",
    "opcua",
    "retain",
    "simulation",
    "tasks",
    "watchdog",
];

/// What a path of the table stands for.
enum Place {
    Leaf(&'static Key),
    List,
    Section,
    Unknown,
}

/// Walks the whole tree of the file.
pub(crate) fn check(root: &Node, faults: &mut Faults) {
    if let Raw::Table(entries) = &root.value {
        check_table("", "", entries, faults);
    }
}

/// Notes the required keys that neither the file nor the environment has.
pub(crate) fn check_required(root: &Node, faults: &mut Faults) {
    for key in KEYS.iter().filter(|key| key.is_required && !key.path.contains("[]")) {
        if !has(root, key.path) {
            faults.push_with(&At::FILE, key.path, format!("wanted {}, got nothing", key.kind.wanted()), None);
        }
    }
}

/// Holds one value against its key.
pub(crate) fn check_value(key: &Key, shown_path: &str, node: &Node, faults: &mut Faults) {
    if key.kind.is_secret() {
        faults.cover(&node.at);
    }
    if key.kind.accepts(&node.value) {
        return;
    }
    let is_secret = key.kind.is_secret();
    let got = if is_secret { node.value.type_name().to_owned() } else { key.kind.got(&node.value) };
    let suggestion = if is_secret { None } else { key.kind.hint(&node.value) };
    faults.push_with(&node.at, shown_path, format!("wanted {}, got {got}", key.kind.wanted()), suggestion);
}

fn check_table(path: &str, shown: &str, entries: &BTreeMap<String, Entry>, faults: &mut Faults) {
    for (name, entry) in entries {
        let path = join(path, name);
        let shown = join(shown, name);
        match place(&path) {
            Place::Leaf(key) => check_value(key, &shown, &entry.node, faults),
            Place::Section => {
                if let Raw::Table(entries) = &entry.node.value {
                    check_table(&path, &shown, entries, faults);
                } else {
                    wrong_shape(&entry.node, &shown, "a table", faults);
                }
            }
            Place::List => check_list(&path, &shown, &entry.node, faults),
            Place::Unknown => unknown(&path, &shown, entry, faults),
        }
    }
}

fn check_list(path: &str, shown: &str, node: &Node, faults: &mut Faults) {
    let Raw::List(items) = &node.value else {
        wrong_shape(node, shown, "a list of tables", faults);
        return;
    };
    if items.len() > ENTRIES_MAX {
        faults.push(&node.at, shown, format!("wanted at most {ENTRIES_MAX} entries, got {}", items.len()));
    }
    let path = format!("{path}[]");
    for (index, item) in items.iter().enumerate().take(ENTRIES_MAX) {
        let shown = format!("{shown}[{index}]");
        let Raw::Table(entries) = &item.value else {
            wrong_shape(item, &shown, "a table", faults);
            continue;
        };
        check_table(&path, &shown, entries, faults);
        for key in KEYS.iter().filter(|key| key.is_required) {
            let name = key.path.strip_prefix(path.as_str()).and_then(|rest| rest.strip_prefix('.'));
            if let Some(name) = name.filter(|name| !entries.contains_key(*name)) {
                let message = format!("wanted {}, got nothing", key.kind.wanted());
                faults.push(&item.at, join(&shown, name), message);
            }
        }
    }
}

fn wrong_shape(node: &Node, shown: &str, wanted: &str, faults: &mut Faults) {
    cover_everything(node, faults);
    faults.push(&node.at, shown, format!("wanted {wanted}, got {}", node.value.type_name()));
}

fn unknown(path: &str, shown: &str, entry: &Entry, faults: &mut Faults) {
    cover_everything(&entry.node, faults);
    let (parent, name) = path.rsplit_once('.').unwrap_or(("", path));
    if FOREIGN_TABLES.contains(&parent) && FOREIGN_NAMES.contains(&name) {
        let message = "belongs to a PLC language runtime; this node supervises programs and runs no PLC code";
        faults.push_with(
            &entry.key_at,
            cut(shown),
            message,
            Some("remove it here, or keep it in that runtime's own file".into()),
        );
        return;
    }
    let suggestion = if faults.is_full() { None } else { suggest(path, name) };
    faults.push_with(&entry.key_at, cut(shown), "no such setting", suggestion.map(|it| format!("did you mean {it}?")));
}

/// The value of an unknown key may be that of a misspelled token.
fn cover_everything(node: &Node, faults: &mut Faults) {
    match &node.value {
        Raw::Table(entries) => entries.values().for_each(|entry| cover_everything(&entry.node, faults)),
        Raw::List(items) => items.iter().for_each(|item| cover_everything(item, faults)),
        Raw::Text(_) => faults.cover(&node.at),
        Raw::Bool(_) | Raw::Float(_) | Raw::Int(_) | Raw::Time(_) | Raw::Unreadable => (),
    }
}

/// The known path that was most likely meant: a slip of the hand, a forgotten `runtime.`, or the right name in the wrong
/// table.
fn suggest(path: &str, name: &str) -> Option<String> {
    let known = paths();
    let forgotten = format!("runtime.{path}");
    if let Some(found) = known.iter().find(|it| **it == forgotten) {
        return Some(shown_path(found));
    }
    let (parent, _) = path.rsplit_once('.').unwrap_or(("", path));
    let siblings = known.iter().filter(|it| it.rsplit_once('.').unwrap_or(("", it)).0 == parent);
    let by_name = nearest(siblings.map(|it| last(it).trim_end_matches("[]")), name);
    if let Some(found) = by_name {
        return Some(shown_path(&join(parent, found)));
    }
    let mut elsewhere = known.iter().filter(|it| last(it).trim_end_matches("[]") == name);
    match (elsewhere.next(), elsewhere.next()) {
        (Some(found), None) => Some(shown_path(found)),
        _ => nearest(known.iter().map(String::as_str), path).map(shown_path),
    }
}

fn last(path: &str) -> &str {
    path.rsplit_once('.').map_or(path, |(_, name)| name)
}

fn shown_path(path: &str) -> String {
    path.replace("[]", "")
}

/// Every key and every table of the table of keys.
fn paths() -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for key in KEYS {
        let mut path = key.path;
        paths.insert(path.to_owned());
        while let Some((parent, _)) = path.rsplit_once('.') {
            paths.insert(parent.to_owned());
            path = parent;
        }
    }
    paths
}

fn place(path: &str) -> Place {
    if let Some(key) = key::find(path) {
        return Place::Leaf(key);
    }
    let below =
        |mark: &str| KEYS.iter().any(|key| key.path.strip_prefix(path).is_some_and(|rest| rest.starts_with(mark)));
    if below("[].") {
        Place::List
    } else if below(".") {
        Place::Section
    } else {
        Place::Unknown
    }
}

fn has(root: &Node, path: &str) -> bool {
    let mut node = root;
    for name in path.split('.') {
        let Raw::Table(entries) = &node.value else { return false };
        let Some(entry) = entries.get(name) else { return false };
        node = &entry.node;
    }
    true
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn cut(path: &str) -> String {
    path.chars().take(128).flat_map(char::escape_debug).collect()
}
