//! A certificate of a minute that renews itself on a running node, over the links that it secures.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value as Json;

use crate::harness::{program, run_to_end};
use crate::plant::{Desk, outcome, ping};
use crate::watch::{Stopwatch, wait_until};

/// The life of the certificate.
const LIFE: Duration = Duration::from_secs(60);

/// How long the node may be away while its links take up the new certificate: a redial.
const AWAY_MAX: Duration = Duration::from_secs(5);

fn ledger(ca: &Path, id: &str) -> usize {
    let text = fs::read_to_string(ca.join("issued.jsonl")).expect("a ledger");
    text.lines().filter(|line| line.contains(&format!("\"{id}\""))).count()
}

#[test]
fn a_certificate_of_a_minute_renews_itself_while_linked_and_nothing_is_cut_for_longer_than_a_redial() {
    let desk = Desk::new(&["north"]);
    let ca = desk.path("ca-north");
    let authority = format!("authority = {:?}", ca.display());
    let a = desk.play_with(("plant", "north", "a"), &["north"], &[], &[], &authority);
    let life = Stopwatch::start();
    let b = desk.play_with(("plant", "north", "b"), &["north"], &[&a], &["--minutes", "1"], "renew_from = \"a\"");
    let file = b.project.join("tls/node-b.pem");
    let first = fs::read(&file).expect("a certificate");
    a.sees("b", "lifecycle_state", "online");
    wait_until("the certificate is another one", LIFE, || {
        let now = fs::read(&file).expect("always a whole file");
        if now == first { Err("it is the first one".to_owned()) } else { Ok(()) }
    });
    let id = "spiffe://trust/north/runtime/b";
    assert!(2 <= ledger(&ca, id), "what is issued is in the ledger");

    // Past the end of the first one: b is there all the time, but for a redial.
    let (mut away, mut longest): (Option<Stopwatch>, Duration) = (None, Duration::ZERO);
    wait_until("the first certificate has ended long ago", LIFE * 2, || {
        if a.peer("b")["lifecycle_state"] == "online" {
            away = None;
        } else {
            longest = longest.max(away.get_or_insert_with(Stopwatch::start).elapsed());
        }
        if LIFE + Duration::from_secs(15) < life.elapsed() { Ok(()) } else { Err("not yet".to_owned()) }
    });
    eprintln!("away for {longest:?} at most");
    assert!(longest < AWAY_MAX, "away for {longest:?}");
    assert_eq!(a.peer("b")["lifecycle_state"], "online");
    let person = desk.person("ca-north", "alice");
    let asked = ping(&a, "spiffe://trust/north/alice", "b", "after");
    assert_eq!(outcome(&a.dispatch(&desk, "north", &person, &asked)), "ok");
    let (records, _) =
        run_to_end(program().args(["audit", "export", "--project"]).arg(&a.project), Duration::from_secs(10));
    let records = String::from_utf8_lossy(&records.stdout).into_owned();
    let renewed = |line: &str| {
        let record: Json = serde_json::from_str(line).expect("JSON");
        record["action"] == "identity_renew" && record["outcome"] == "applied" && record["target"] == "north/b"
    };
    assert!(records.lines().any(renewed), "{records}");

    // Banned: the next one is refused, on record, and its own end comes.
    let issued = ledger(&ca, id);
    desk.identity(&["ban", "--ca", &ca.display().to_string(), "--id", id]);
    a.sees("b", "lifecycle_state", "partitioned");
    assert!(ledger(&ca, id) <= issued + 1, "one may have been under way");
}
