//! House rules that the compiler cannot check, as plain tests.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use sha2::{Digest as _, Sha256};
use trust_runtime::cli::args::Cli;
use trust_runtime::domain::code::Code;
use trust_runtime::metrics::table::{ALL, Kind, Row};
use trust_runtime::settings;
use trust_runtime::wire::api::v1::action::{self, Ask, Reading};

/// Layers from the bottom up, each with the layers it may name.
const LAYERS: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("engine", &["domain"]),
    ("wire", &["domain", "engine"]),
    ("settings", &["domain"]),
    ("metrics", &["domain"]),
    ("handle", &["domain", "engine", "metrics"]),
    ("tls", &["domain"]),
    ("store", &["domain", "engine", "wire"]),
    ("mesh", &["domain", "engine", "wire", "tls"]),
    ("workload", &["domain"]),
    ("web", &["domain", "engine", "wire", "metrics", "handle", "store", "tls"]),
    ("node", &["domain", "engine", "wire", "settings", "metrics", "handle", "tls", "store", "mesh", "workload", "web"]),
    ("cli", &["domain", "wire", "settings", "node"]),
];

/// Names that a pure layer must not contain: IO, tasks, clocks and chance.
const PURE: &[&str] = &["domain", "engine", "wire"];
const IMPURE_CRATES: &[&str] = &[
    "axum",
    "dashmap",
    "getrandom",
    "rand",
    "rcgen",
    "rusqlite",
    "rustls",
    "tokio",
    "zenoh",
    "HashMap",
    "Instant",
    "SystemTime",
];
const IMPURE_STD: &[&str] = &["std::env", "std::fs", "std::net", "std::process", "std::thread"];

/// File names that say nothing about what is inside.
const VAGUE: &[&str] = &["common.rs", "helpers.rs", "manager.rs", "misc.rs", "types.rs", "util.rs", "utils.rs"];

/// Where the tests in a source file begin. Not at the first `#[cfg(test)]`: that may name a module in a file of its own.
const TEST_MODULE: &str = "mod tests {";

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
    for file in all_sources() {
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

#[test]
fn tests_wait_for_conditions_and_not_for_time() {
    // Put together, or this file would find itself.
    let call = ["sle", "ep("].concat();
    let mut broken = Vec::new();
    for file in
        files(&root().join("tests"), "rs").into_iter().chain(files(&root().join("fuzz"), "rs")).chain(all_sources())
    {
        let text = fs::read_to_string(&file).expect("source is readable");
        let is_support =
            file.components().any(|part| part.as_os_str() == "support" || part.as_os_str() == "support.rs");
        let is_harness = file.file_name().is_some_and(|name| name == "harness.rs");
        let says_why = text.lines().any(|line| line.trim_start().starts_with("// waits: "));
        if is_support || is_harness || says_why {
            continue;
        }
        for (number, line) in test_lines(&file, &text) {
            if line.split("//").next().is_some_and(|code| code.contains(&call)) {
                broken.push(format!("{}:{number}: wait for a condition, or say why in `// waits:`", file.display()));
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn no_queue_is_unbounded_and_no_path_climbs_twice() {
    let mut broken = Vec::new();
    for file in all_sources() {
        let text = fs::read_to_string(&file).expect("source is readable");
        for (index, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for (found, why) in [
                ("unbounded_channel", "a queue without a limit is a leak"),
                ("super::super", "name the path from `crate`"),
            ] {
                if code.contains(found) {
                    broken.push(format!("{}:{}: {why}", file.display(), index + 1));
                }
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn every_dependency_says_why_it_is_there() {
    let mut broken = Vec::new();
    for manifest in ["Cargo.toml", "crates/door/Cargo.toml", "fuzz/Cargo.toml"] {
        let text = fs::read_to_string(root().join(manifest)).expect("a manifest");
        let (mut is_dependency, mut before) = (false, "");
        for line in text.lines() {
            if line.starts_with('[') {
                is_dependency = line.trim_end_matches(']').ends_with("dependencies");
            } else if is_dependency && line.contains(" = ") && !before.starts_with("# ") && !line.contains(" # ") {
                broken.push(format!("{manifest}: {line}"));
            }
            before = line;
        }
    }
    assert!(broken.is_empty(), "a comment above or beside says why it is there:\n{}", broken.join("\n"));
}

#[test]
fn every_example_is_read_as_a_node_reads_it() {
    let all = files(&root().join("examples"), "");
    assert!(!all.is_empty());
    for file in all {
        let text = fs::read_to_string(&file).expect("an example is readable");
        let shown = file.display().to_string();
        match file.extension().and_then(|it| it.to_str()) {
            Some("md") => {}
            Some("toml") => {
                settings::parse(&text, &shown, "example", []).unwrap_or_else(|problems| panic!("{problems}"));
            }
            Some("json") if shown.ends_with("dashboard.json") => check_dashboard(&shown, &text),
            Some("json") => check_request(&shown, &text),
            // Files of Prometheus.
            Some("yml") => check_expressions(&shown, &expressions_of_rules(&text)),
            // A file of Zenoh's own router.
            Some("json5") => drop(zenoh::Config::from_file(&file).unwrap_or_else(|error| panic!("{shown}: {error}"))),
            Some("py" | "sh") => check_program(&shown, &text, &file),
            other => panic!("{shown}: nothing here reads {other:?}; add it"),
        }
    }
}

/// A program can be started as it lies there; what it does is run on real nodes.
fn check_program(shown: &str, text: &str, file: &Path) {
    let mode = fs::metadata(file).expect("an example's mode").permissions().mode();
    assert_eq!(mode & 0o111, 0o111, "{shown}: may not be executed; set its mode to 755");
    let interpreter = text.lines().next().unwrap_or_default();
    let known = ["#!/bin/sh", "#!/usr/bin/env bash", "#!/usr/bin/env python3"];
    assert!(known.contains(&interpreter), "{shown}: {interpreter:?} starts nothing");
}

/// A request is read by the runtime that it is sent through.
fn check_request(shown: &str, text: &str) {
    let body: serde_json::Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{shown}: {error}"));
    let field = |name: &str| body.get(name).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
    let actor: trust_runtime::domain::identity::Actor = field("actor").parse().expect("an actor");
    let via = field("connected_via");
    let me = if via.contains('/') { via } else { format!("{}/{via}", actor.site) };
    match action::read(text.as_bytes(), Ask::Dispatch, &me.parse().expect("a runtime")) {
        Ok(Reading::Wanted(_)) => {}
        other => panic!("{shown}: {other:?}"),
    }
}

/// A dashboard is whole, shows nothing twice in one place, and asks for what a node exposes.
fn check_dashboard(shown: &str, text: &str) {
    let board: serde_json::Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{shown}: {error}"));
    let panels = board["panels"].as_array().expect("panels");
    let mut taken = std::collections::BTreeSet::new();
    let mut expressions = Vec::new();
    for panel in panels {
        let title = panel["title"].as_str().expect("a title");
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().expect("a place"));
        assert!(x + w <= 24, "{shown}: {title} is wider than the board");
        let cells = (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y)));
        cells.for_each(|cell| assert!(taken.insert(cell), "{shown}: {title} lies over another panel"));
        let asked = panel["targets"].as_array().into_iter().flatten();
        let asked: Vec<String> = asked.map(|it| it["expr"].as_str().expect("an expression").to_owned()).collect();
        assert!(panel["type"] == "row" || !asked.is_empty(), "{shown}: {title} asks for nothing");
        expressions.extend(asked);
    }
    let ids: std::collections::BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len(), "{shown}: two panels have one id");
    check_expressions(shown, &expressions);
    let is_shown = |row: &&Row| expressions.iter().any(|it| it.contains(row.name));
    let missing: Vec<_> = ALL.iter().filter(|row| !is_shown(row)).map(|row| row.name).collect();
    assert_eq!(missing, ["process_start_time_seconds"], "{shown}: what is measured and not shown");
}

/// What follows `expr:` in a file of rules.
fn expressions_of_rules(text: &str) -> Vec<String> {
    text.lines().filter_map(|line| line.trim_start().strip_prefix("expr: ").map(str::to_owned)).collect()
}

/// Every metric that an expression names is exposed under that very name, and has the labels that it is asked by.
fn check_expressions(shown: &str, expressions: &[String]) {
    for expression in expressions {
        let is_word = |it: char| it.is_ascii_alphanumeric() || it == '_';
        let mut labels: Vec<&str> = vec!["instance", "job", "le"];
        for word in expression.split(|it| !is_word(it)) {
            if !word.starts_with("trust_runtime_") && !word.starts_with("process_") {
                continue;
            }
            let row = ALL.iter().find(|row| series(row).iter().any(|name| name == word));
            let row = row.unwrap_or_else(|| panic!("{shown}: no node exposes {word}: {expression}"));
            labels.extend(row.labels.iter().map(|(label, _)| *label));
        }
        for matcher in expression.split('{').skip(1).filter_map(|rest| rest.split('}').next()) {
            for label in matcher.split(',').filter_map(|it| it.split(['=', '!']).next()) {
                assert!(labels.contains(&label), "{shown}: no metric of it has the label {label}: {expression}");
            }
        }
        for grouped in expression.split("by (").skip(1).filter_map(|rest| rest.split(')').next()) {
            for label in grouped.split(", ") {
                assert!(labels.contains(&label), "{shown}: no metric of it has the label {label}: {expression}");
            }
        }
    }
}

/// The names of the lines that a metric has in the exposition.
fn series(row: &Row) -> Vec<String> {
    let ends: &[&str] = match row.kind {
        Kind::Counter => &["_total"],
        Kind::Gauge => &[""],
        Kind::Histogram => &["_bucket", "_count", "_sum"],
        Kind::Info => &["_info"],
    };
    ends.iter().map(|end| format!("{}{end}", row.name)).collect()
}

/// What was promised of real nodes. A promise that is taken back is taken out here too, by hand.
const HELD: &str = "\
    authorisation-rows certificate-ends-while-linked clients-behind-routers clock-ten-years-ahead \
    clock-ten-years-behind cloned-key death-and-freeze demo-ends demo-of-five disk-fails disk-full dropped-fsync \
    fault-storm five-nodes foreign-client-1.10.2 foreign-client-1.7.2 idle kill-9-origin kill-9-target \
    links-come-back many-slow-targets metrics metrics-on-nodes nothing-leaks one-request-two-logs opened-anew \
    profile-on-every-route \
    quickstart redeem-once replay-model-dev replay-model-plant schemathesis simulation slow-clients \
    stolen-at-another-site stream-cut-at-every-byte ten-thousand-runs thousand-readers three-sites \
    wan-cut-and-healed workload-orphans";

#[test]
fn every_line_of_the_acceptance_table_names_tests_that_exist() {
    let folders = [("lib", "src")].into_iter().chain(
        ["adapters", "api", "cluster", "conformance", "gates", "interop", "simulation"].map(|suite| (suite, suite)),
    );
    let texts: BTreeMap<&str, String> = folders
        .map(|(suite, folder)| {
            let folder = if suite == "lib" { root().join(folder) } else { root().join("tests").join(folder) };
            (suite, files(&folder, "rs").iter().map(|file| fs::read_to_string(file).expect("readable")).collect())
        })
        .collect();
    let table = fs::read_to_string(root().join("tests/acceptance.tsv")).expect("tests/acceptance.tsv");
    let check = fs::read_to_string(root().join("scripts/check.sh")).expect("scripts/check.sh");
    let mut seen = std::collections::BTreeSet::new();
    for line in table.lines().filter(|line| !line.starts_with('#')) {
        let [name, suite, test] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{line:?}: wanted three cells")
        };
        assert!(seen.insert(line), "{line} stands twice");
        if let Some(cases) = name.strip_prefix("cases/") {
            assert!(root().join("tests/conformance/cases").join(cases).exists(), "there are no cases {cases}");
        }
        if (suite, test) == ("-", "-") {
            continue;
        }
        if suite == "check" {
            assert!(check.contains(&format!(" step \"{test}\" ")), "{line:?}: scripts/check.sh has no such step");
            continue;
        }
        let text = texts.get(suite).unwrap_or_else(|| panic!("{line:?}: no such suite"));
        // A suite of a contract names its tests in a list, and runs each for every adapter.
        let last = test.rsplit("::").next().unwrap_or(test);
        let is_there = ["fn {}(", "fn {}<"].iter().any(|form| text.contains(&form.replace("{}", last)));
        assert!(is_there, "{line:?}: there is no such test");
    }
    let lines: std::collections::BTreeSet<&str> = seen.iter().filter_map(|line| line.split('\t').next()).collect();
    let contract = (1..=83).map(|number| format!("RR-{number}")).chain((43..=46).map(|number| format!("CC-{number}")));
    let held = HELD.split_whitespace().map(|name| format!("hold/{name}"));
    let gates = ["bench", "browser", "check", "conformance", "faults", "fuzz", "security", "zenoh"]
        .map(|name| format!("gate/{name}"));
    for wanted in contract.chain(held).chain(gates) {
        assert!(lines.contains(wanted.as_str()), "{wanted} has no line");
    }
}

#[test]
fn the_page_of_codes_is_current() {
    let text = fs::read_to_string(root().join("docs/reference/errors.md")).expect("docs/reference/errors.md");
    let rows = text.lines().filter(|line| line.starts_with("| `")).map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        cells.join(" | ")
    });
    // The first table is that of the codes.
    let rows: Vec<String> = rows.take(Code::ALL.len()).collect();
    let wanted = Code::ALL.map(|code| {
        let retryable = if code.is_retryable() { "yes" } else { "no" };
        format!("`{code}` | {} | {} | {retryable}", code.meaning(), code.remediation())
    });
    for (row, wanted) in rows.iter().zip(&wanted) {
        assert_eq!(row, wanted);
    }
    assert_eq!(rows.len(), wanted.len(), "a code has no row");
}

#[test]
fn the_guide_to_identities_names_every_step_and_every_option() {
    let guide = fs::read_to_string(root().join("docs/guides/RUNTIME_CLOUD_IDENTITY.md")).expect("the guide");
    let program = Cli::command();
    let noun = program.find_subcommand("identity").expect("identity");
    let mut missing = Vec::new();
    let rotate = noun.find_subcommand("rotate").expect("rotate").get_subcommands().map(|step| ("rotate ", step));
    let steps: Vec<_> = noun.get_subcommands().map(|step| ("", step)).chain(rotate).collect();
    for (before, step) in &steps {
        let name = format!("{before}{}", step.get_name());
        if !guide.contains(&format!("trust-runtime identity {name} ")) && name != "rotate" {
            missing.push(name.clone());
        }
        let options = step.get_arguments().filter_map(|option| option.get_long());
        missing.extend(options.map(|option| format!("--{option}")).filter(|option| !guide.contains(option.as_str())));
    }
    assert!(missing.is_empty(), "the guide says nothing about {missing:?}");
    assert!(steps.len() > 9, "only {} steps were found", steps.len());
}

#[test]
fn the_pages_on_security_name_tests_that_exist() {
    let texts: Vec<String> = [root().join("src"), root().join("tests")]
        .iter()
        .flat_map(|folder| files(folder, "rs"))
        .map(|file| fs::read_to_string(file).expect("readable"))
        .collect();
    for page in ["threat-model.md", "iec-62443-4-2.md"] {
        let text = fs::read_to_string(root().join("docs/reference").join(page)).expect(page);
        let named = tests_named(&text);
        let is_there = |name: &&String| {
            ["(", "<"].iter().any(|end| texts.iter().any(|it| it.contains(&format!("fn {name}{end}"))))
        };
        let missing: Vec<_> = named.iter().filter(|name| !is_there(name)).collect();
        assert!(missing.is_empty(), "{page} names tests that do not exist: {missing:?}");
        assert!(named.len() > 20, "{page}: only {} tests were found", named.len());
    }
}

/// What stands between backticks in the columns headed `test`; every row has as many cells as its head.
/// A count of mutants says something of the code that it was made of, and of no other.
#[test]
fn the_page_of_mutants_is_of_the_code_as_it_is() {
    let table: toml::Table =
        fs::read_to_string(root().join(".cargo/mutants.toml")).expect("readable").parse().expect("TOML");
    let globs = table["examine_globs"].as_array().expect("a list");
    let page = fs::read_to_string(root().join("docs/reference/mutants.md")).expect("readable");
    let rows: BTreeMap<&str, &str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | `"))
        .filter_map(|(name, rest)| Some((name, rest.split_once('`')?.0)))
        .collect();
    for file in globs.iter().flat_map(|glob| named_by(glob.as_str().expect("a text"))) {
        let inside = file.strip_prefix(src()).expect("under src").with_extension("");
        let shown = inside.to_str().expect("UTF-8");
        let lines = code_lines(&file).into_iter().map(|(_, line)| line.trim_end().to_owned());
        let code = lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n");
        let hash: String = Sha256::digest(code).iter().map(|byte| format!("{byte:02x}")).take(6).collect();
        assert_eq!(
            rows.get(shown),
            Some(&hash.as_str()),
            "{shown}: run scripts/mutants.sh --re {shown}, and put its row into docs/reference/mutants.md"
        );
    }
}

/// The files of a pattern that names one, or all below a folder; those of tests alone are left out.
fn named_by(glob: &str) -> Vec<PathBuf> {
    match glob.strip_suffix("/**/*.rs") {
        Some(folder) => files(&root().join(folder), "rs").into_iter().filter(|it| !it.ends_with("tests.rs")).collect(),
        None => vec![root().join(glob)],
    }
}

fn tests_named(page: &str) -> Vec<String> {
    let mut named = Vec::new();
    let mut head: Option<Vec<&str>> = None;
    for line in page.lines() {
        if !line.starts_with('|') {
            head = None;
            continue;
        }
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let head = head.get_or_insert_with(|| cells.clone());
        assert_eq!(head.len(), cells.len(), "{line}");
        let tests = head.iter().zip(&cells).find(|(name, _)| **name == "test").map_or("", |(_, cell)| *cell);
        named.extend(tests.split('`').skip(1).step_by(2).map(str::to_owned));
    }
    named
}

/// Lines that only tests run: all of a file that belongs to tests, else what follows the mark of the test module.
fn test_lines<'a>(file: &Path, text: &'a str) -> Vec<(usize, &'a str)> {
    let is_source = file.starts_with(src());
    let path = file.strip_prefix(root()).expect("under the root").to_string_lossy().into_owned();
    let is_all_test = !is_source || path.contains("/tests") || path.ends_with("contract.rs");
    let numbered = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    if is_all_test { numbered.collect() } else { numbered.skip_while(|(_, line)| *line != TEST_MODULE).collect() }
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
        .take_while(|(_, line)| *line != TEST_MODULE)
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
    files(&src(), "rs")
}

/// The program's and those of the crates beside it.
fn all_sources() -> Vec<PathBuf> {
    files(&root().join("crates"), "rs").into_iter().chain(sources()).collect()
}

/// Every file below a folder with this ending; with any where it is empty.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("folder is readable") {
            let path = entry.expect("entry is readable").path();
            let is_built = path.file_name().is_some_and(|name| name == "target");
            if path.is_dir() && !is_built {
                folders.push(path);
            } else if path.is_file() && (ending.is_empty() || path.extension().is_some_and(|it| it == ending)) {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

fn src() -> PathBuf {
    root().join("src")
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
