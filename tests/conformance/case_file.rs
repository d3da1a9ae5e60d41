//! Where case files are, and what was wrong with all of their rows at once.

use std::fs;
use std::path::PathBuf;

use serde::de::DeserializeOwned;

/// Whether files that a test makes itself are to be written.
pub(crate) fn is_updating() -> bool {
    std::env::var_os("UPDATE_GOLDEN").is_some()
}

pub(crate) fn path(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conformance/cases")).join(name)
}

pub(crate) fn text(name: &str) -> String {
    let path = path(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The rows of a table, without its first line of names and its comments.
pub(crate) fn rows(name: &str) -> Vec<Vec<String>> {
    let rows: Vec<Vec<String>> = text(name)
        .lines()
        .filter(|line| !line.starts_with('#'))
        .skip(1)
        .map(|line| line.split('\t').map(str::to_owned).collect())
        .collect();
    assert!(!rows.is_empty(), "{name} has no rows");
    rows
}

/// Every file of a folder with this ending, by its path under `cases`.
pub(crate) fn all(folder: &str, ending: &str) -> Vec<String> {
    let entries = fs::read_dir(path(folder)).expect("a folder of cases");
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(ending)).collect();
    names.sort();
    assert!(!names.is_empty(), "{folder} has no {ending}");
    names.into_iter().map(|name| format!("{folder}/{name}")).collect()
}

pub(crate) fn toml<T: DeserializeOwned>(name: &str) -> T {
    toml::from_str(&text(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Holds a whole text that a test makes against the reviewed file, or writes the file anew.
pub(crate) fn assert_golden(name: &str, got: &str) {
    if is_updating() {
        fs::write(path(name), got).expect("written");
        return;
    }
    let wanted = text(name);
    let differing = got.lines().zip(wanted.lines()).find(|(got, wanted)| got != wanted);
    assert!(got == wanted, "{name}: first difference (got, wanted): {differing:#?}");
}

/// Fails with everything that is wrong.
pub(crate) fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} cases fail:\n{}", wrong.len(), wrong.join("\n"));
}
