//! House rules that the compiler cannot check, as plain tests.

#![expect(clippy::arithmetic_side_effects, clippy::expect_used, reason = "a test may stop at the first surprise")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Layers from the bottom up, each with the layers it may name.
const LAYERS: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("engine", &["domain"]),
    ("wire", &["domain", "engine"]),
    ("settings", &["domain"]),
    ("handle", &["domain", "engine"]),
    ("tls", &["domain"]),
    ("store", &["domain", "engine", "wire"]),
    ("mesh", &["domain", "engine", "wire", "tls"]),
    ("workload", &["domain", "engine"]),
    ("web", &["domain", "engine", "wire", "handle", "store", "tls"]),
    ("node", &["domain", "engine", "wire", "settings", "handle", "tls", "store", "mesh", "workload", "web"]),
    ("cli", &["domain", "wire", "settings", "node"]),
];

/// Names that a pure layer must not contain: IO, tasks, clocks and chance.
const PURE: &[&str] = &["domain", "engine", "wire"];
const IMPURE_CRATES: &[&str] =
    &["axum", "dashmap", "rand", "rusqlite", "rustls", "tokio", "zenoh", "HashMap", "Instant", "SystemTime"];
const IMPURE_STD: &[&str] = &["std::env", "std::fs", "std::net", "std::process", "std::thread"];

/// File names that say nothing about what is inside.
const VAGUE: &[&str] = &["common.rs", "helpers.rs", "manager.rs", "misc.rs", "types.rs", "util.rs", "utils.rs"];

const FILE_LINES_MAX: usize = 600;

#[test]
fn layers_form_the_declared_dag() {
    let allowed: BTreeMap<_, _> = LAYERS.iter().copied().collect();
    let mut broken = Vec::new();
    for file in sources() {
        let Some(layer) = layer_of(&file) else {
            continue;
        };
        let uses = allowed.get(layer.as_str()).unwrap_or_else(|| panic!("undeclared layer {layer}"));
        for target in crate_paths(&code(&file)) {
            if target != layer && !uses.contains(&target.as_str()) && allowed.contains_key(target.as_str()) {
                broken.push(format!("{}: {layer} must not use {target}", file.display()));
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn pure_layers_name_no_io() {
    let mut broken = Vec::new();
    for file in sources() {
        if !layer_of(&file).is_some_and(|layer| PURE.contains(&layer.as_str())) {
            continue;
        }
        for (number, line) in code_lines(&file) {
            let words = || line.split(|it: char| !it.is_alphanumeric() && it != '_');
            let named = IMPURE_CRATES.iter().filter(|name| words().any(|word| word == **name));
            let pathed = IMPURE_STD.iter().filter(|path| line.contains(**path));
            for name in named.chain(pathed) {
                broken.push(format!("{}:{number}: {name} in a pure layer", file.display()));
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn files_are_short_documented_and_named() {
    let mut broken = Vec::new();
    for file in sources() {
        let text = fs::read_to_string(&file).expect("source is readable");
        let lines = text.lines().count();
        if FILE_LINES_MAX < lines {
            broken.push(format!("{}: {lines} lines, at most {FILE_LINES_MAX}", file.display()));
        }
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if VAGUE.contains(&name.as_str()) {
            broken.push(format!("{}: name the file after what it holds", file.display()));
        }
        if !text.starts_with("//!") {
            broken.push(format!("{}: no module comment", file.display()));
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

/// The first path segment after each `crate::`, every arm of `crate::{a, b::{c}}` included.
fn crate_paths(code: &str) -> Vec<String> {
    let mut names = Vec::new();
    for rest in code.split("crate::").skip(1) {
        let Some(group) = rest.strip_prefix('{') else {
            names.push(leading_name(rest));
            continue;
        };
        let mut depth = 0;
        let mut arm = String::new();
        for character in group.chars() {
            match character {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => names.push(leading_name(&std::mem::take(&mut arm))),
                _ if depth == 0 => arm.push(character),
                _ => (),
            }
        }
        names.push(leading_name(&arm));
    }
    names
}

fn leading_name(path: &str) -> String {
    path.trim_start().chars().take_while(|it| it.is_alphanumeric() || *it == '_').collect()
}

fn code(file: &Path) -> String {
    code_lines(file).into_iter().map(|(_, line)| line + "\n").collect()
}

/// Numbered lines without comments, up to the file's test module.
fn code_lines(file: &Path) -> Vec<(usize, String)> {
    let text = fs::read_to_string(file).expect("source is readable");
    text.lines()
        .enumerate()
        .take_while(|(_, line)| !line.contains("#[cfg(test)]"))
        .map(|(index, line)| (index + 1, line.split("//").next().unwrap_or_default().to_owned()))
        .collect()
}

fn layer_of(file: &Path) -> Option<String> {
    let inside = file.strip_prefix(src()).expect("file is under src");
    let first = inside.components().next()?.as_os_str().to_string_lossy().into_owned();
    let layer = first.trim_end_matches(".rs").to_owned();
    (layer != "lib" && layer != "main").then_some(layer)
}

fn sources() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![src()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("folder is readable") {
            let path = entry.expect("entry is readable").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}
