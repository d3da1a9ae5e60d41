//! `scripts/runtime_cloud_browser_gate.sh` over browsers that are none: one that believes and gives everything, and one that says
//! nothing. With either of them no line may pass.

use std::env;
use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::{Verdict, executable, gate};

const SCRIPT: &str = "runtime_cloud_browser_gate.sh";

/// Speaks as a browser does over its pipe. No certificate is refused, TLS is an old one, and every script gets what it should not.
const BELIEVES: &str = r#"
import json, os
def say(message): os.write(4, json.dumps(message).encode() + b"\0")
def came_of(script):
    for word, came in (
        ("innerText", [["north/a", True]]),
        ("preflight", [[{"allowed": True, "plan_hash": ""}, {"ok": False}]]),
        ("stream", [[200, "event: other\n\n"]]),
        ("no-cors", [["basic", "opaque"]]),
        ("violation", [200]),
        ("/state", [[200, {"topology": {"nodes": [{"runtime_id": "a"}]}}]]),
    ):
        if word in script: return came[0]
pending = b""
while more := os.read(3, 65536):
    pending += more
    while b"\0" in pending:
        message, pending = pending.split(b"\0", 1)
        asked = json.loads(message)
        method, result = asked["method"], {"targetId": "1", "sessionId": "1"}
        if method == "Page.navigate":
            response = {"url": asked["params"]["url"] + "/", "status": 200, "securityState": "secure", "securityDetails": {"protocol": "TLS 1.2"}}
            say({"method": "Network.responseReceived", "params": {"response": response}})
        if method == "Runtime.evaluate":
            result = {"result": {"value": came_of(asked["params"]["expression"])}}
        say({"id": asked["id"], "result": result})
"#;

/// The lines, and what is wrong about each for whoever believes everything.
const LINES: [(&str, &str); 9] = [
    ("a browser without the site's anchors opens neither node", "wanted net::ERR_CERT_AUTHORITY_INVALID, got None"),
    ("the anchors of one site open no page", "wanted net::ERR_CERT_AUTHORITY_INVALID, got None"),
    ("a node is not opened by a name", "wanted net::ERR_CERT_COMMON_NAME_INVALID, got None"),
    ("with the site's anchors the page of a node opens", "wanted TLS 1.3, got 'TLS 1.2'"),
    ("a script of that page reads the fleet", "wanted 401, got (200,"),
    ("it asks whether it may act", "wanted an act that was carried out"),
    ("it follows the fleet as it changes", "wanted a first event that tells of north/a"),
    ("by itself a node's page lets no script ask", "wanted a request that the page's policy has stopped, got 200"),
    ("a page of another origin gets nothing", "wanted nothing that a script can read, got ['basic', 'opaque']"),
];

/// The gate's verdict with this program for a browser. What only a real one needs is not asked for.
fn judged(browser: &str) -> Verdict {
    let folder = TempDir::new().expect("a folder");
    let programs = folder.path().join("programs");
    fs::create_dir(&programs).expect("made");
    executable(&programs.join("certutil"), "#!/bin/sh\nexit 0\n");
    executable(&programs.join("browser"), browser);
    let path = format!("{}:{}", programs.display(), env::var("PATH").expect("a path"));
    let variables = [
        ("TRUST_RUNTIME_BIN", Path::new(env!("CARGO_BIN_EXE_trust-runtime"))),
        ("TRUST_GATE_BROWSER", Path::new("browser")),
        ("PATH", Path::new(&path)),
        // What a gate that failed has kept goes with the test.
        ("TMPDIR", folder.path()),
    ];
    gate(SCRIPT, &[], &variables)
}

#[test]
fn a_browser_that_believes_everything_passes_no_line() {
    let said = judged(&format!("#!/usr/bin/env python3\n{BELIEVES}"));
    said.is(1, &["0 passed, 9 failed"]);
    for (line, wrong) in LINES {
        let after = said.out.split_once(line).unwrap_or_else(|| panic!("{line}: {said:#?}")).1;
        let told = after.lines().nth(1).unwrap_or_default();
        assert!(told.contains(wrong), "{line}: {told}");
    }
}

#[test]
fn a_browser_that_ends_at_once_has_refused_nothing() {
    let said = judged("#!/bin/sh\nexit 0\n");
    said.is(1, &["0 passed, 9 failed", "the browser has ended"]);
}

#[test]
fn a_browser_that_is_missing_is_named_before_anything_starts() {
    gate(SCRIPT, &[], &[("TRUST_GATE_BROWSER", Path::new("no-such-browser"))]).is(2, &["missing: no-such-browser"]);
}

#[test]
fn a_line_that_nobody_knows_is_refused() {
    gate(SCRIPT, &["--only", "nothing"], &[]).is(2, &["no such line", "There are: unknown-authority"]);
}
