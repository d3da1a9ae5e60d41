//! What people read: the errors and the reference, compared with their golden files. UPDATE_GOLDEN=1 rewrites them.

use std::path::Path;

use super::NO_ENVIRONMENT;
use crate::settings::{parse, reference};

/// Every kind of fault once, as a person would make it.
const FAULTY: &str = "\
[bundle]
version = 2

[resource]
name = \"line 1\"
cycle_interval_ms = 10
[[resource.tasks]]
name = \"main\"

[web]
listen = \"127.0.0.1:8080\"

[runtime.retain]
mode = \"file\"

[runtime.web]
lisen = \"127.0.0.1:8080\"
listen = \"8080\"
\tauth = \"tokn\"
hosts = \"panel\"

[runtime.control]
auth_token = \"not to be shown\"
auth_tokn = \"not to be shown\"

[runtime.mesh]
connect = [\"10.0.0.1:5200\", \"10.0.0.2\"]
zenohd_version = \"1.6.0\"
timing = { period_ms = 1000, stale_ms = 1500 }
level = \"debug\"

[runtime.cloud.wan]
allow_write = [{ action = \"cfg_apply\", target = \"site-*\" }]
accept_write = [{ action = \"cfg_apply\" }]
";

fn compare(golden: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(golden);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, found).expect("golden file is written");
    }
    let wanted = std::fs::read_to_string(&path).expect("golden file is readable");
    assert!(wanted == found, "{golden} is out of date; UPDATE_GOLDEN=1 rewrites it. Now it would be:\n{found}");
}

#[test]
fn the_problems_of_a_faulty_file_read_well() {
    let variable = ("TRUST_RUNTIME__LOG__LEVL".to_owned(), "debug".to_owned());
    let problems = parse(FAULTY, "runtime.toml", "node", [variable]).expect_err("refused");
    compare("src/settings/tests/problems.txt", &format!("{problems}\n"));
}

#[test]
fn the_problems_of_a_broken_file_read_well() {
    let text = "[bundle]\nversion = 1\n[runtime.web\nlisten = 127.0.0.1:8080\n";
    let problems = parse(text, "runtime.toml", "node", NO_ENVIRONMENT).expect_err("refused");
    compare("src/settings/tests/syntax.txt", &format!("{problems}\n"));
}

#[test]
fn the_reference_is_current() {
    compare("docs/reference/settings.md", &reference());
}

#[test]
fn a_long_line_is_cut_around_its_fault() {
    let text = format!("bundle.version = 1\nruntime.web = {{ hosts = [{}], lisen = 1 }}\n", "\"a\", ".repeat(200));
    let shown = parse(&text, "f", "node", NO_ENVIRONMENT).expect_err("refused").to_string();
    let lines: Vec<_> = shown.lines().collect();
    assert!(lines[1].chars().count() < 140, "{shown}");
    let caret = lines[2].find('^').expect("a caret");
    assert_eq!(lines[1].get(caret..caret + 5), Some("lisen"), "{shown}");
}
