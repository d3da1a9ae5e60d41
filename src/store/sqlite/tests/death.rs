//! `kill -9` at any moment: what was acknowledged is there, and what is there is whole.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use super::{Chain, Store, Verdict, draft, end_of, opened, place, read_chain, receipt, verify};
use crate::engine::record::{Batch, Record};

/// Set for the child: where to write. The child's numbers begin at [`FIRST`].
const FOLDER: &str = "TRUST_RUNTIME_TEST_STORE";
const FIRST: &str = "TRUST_RUNTIME_TEST_FIRST";
const CHILD: &str = "store::sqlite::tests::death::child_writes_until_killed";
const ROUNDS: u64 = 20;
const STRIDE: u64 = 1_000_000;
const WRITERS: u64 = 6;

/// One fact and two audit records, so that a torn batch would show.
fn batch(number: u64) -> Batch {
    let audits = vec![draft(2 * number), draft(2 * number + 1)];
    Batch { records: vec![receipt(number, &[1; 3_000])], audits }
}

/// Not a test of its own: the body of the child that is killed.
#[tokio::test]
async fn child_writes_until_killed() {
    let (Ok(folder), Ok(first)) = (std::env::var(FOLDER), std::env::var(FIRST)) else { return };
    let first: u64 = first.parse().expect("a number");
    let store = Arc::new(opened(Path::new(&folder)));
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let store = Arc::clone(&store);
        writers.spawn(async move {
            for number in (first + writer..first + STRIDE).step_by(6) {
                let places = store.commit(batch(number)).await.expect("commits");
                let seqs: Vec<_> = places.iter().map(|place| place.seq).collect();
                let line = format!("acknowledged {number} {} {}\n", seqs[0], places[1].hash);
                std::io::stdout().write_all(line.as_bytes()).expect("the parent reads");
                // Refused or not: what is kept must be whole.
                store.append_read(draft(number)).unwrap_or_default();
            }
        });
    }
    writers.join_all().await;
}

fn spawn(folder: &Path, first: u64) -> Child {
    Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", CHILD, "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder)
        .env(FIRST, first.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts")
}

fn random(below: u64) -> u64 {
    getrandom::u64().expect("chance") % below
}

/// Kills a child after some acknowledgements, or at some moment of its start. All that it acknowledged: number to place.
pub(super) fn killed(folder: &Path, round: u64) -> BTreeMap<u64, (u64, String)> {
    let mut child = spawn(folder, round * STRIDE);
    let (heard, lines) = mpsc::sync_channel(64);
    let output = BufReader::new(child.stdout.take().expect("piped"));
    let listener = std::thread::spawn(move || {
        for line in output.lines() {
            heard.send(line.expect("text")).expect("the test listens");
        }
    });
    let mut acknowledged = BTreeMap::new();
    let mut hear = |line: String| {
        let words: Vec<_> = line.split(' ').collect();
        if let ["acknowledged", number, seq, hash] = words.as_slice() {
            let place = (seq.parse().expect("a number"), (*hash).to_owned());
            acknowledged.insert(number.parse().expect("a number"), place);
        }
        acknowledged.len() as u64
    };
    if round.is_multiple_of(2) {
        let enough = 1 + random(300);
        while hear(lines.recv().expect("the child writes")) < enough {}
    }
    // Some moment after that, or while the child makes and opens its files.
    let moment = Duration::from_micros(random(60_000));
    while let Ok(line) = lines.recv_timeout(moment / 8) {
        hear(line);
        if random(8) == 0 {
            break;
        }
    }
    child.kill().expect("own child");
    for line in lines.iter() {
        hear(line);
    }
    listener.join().expect("listens to the end");
    child.wait().expect("own child");
    acknowledged
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill_at_any_moment() {
    let (_folder, path) = place();
    let mut acknowledged = BTreeMap::new();
    for round in 0..ROUNDS {
        acknowledged.extend(killed(&path, round));
        let store = opened(&path);
        let facts = store.recall().await.expect("recalls");
        store.close().await;
        check_all_or_nothing(&path, &facts);
        let places: BTreeMap<_, _> = read_chain(&path, Chain::Writes)
            .expect("opens")
            .map(|link| link.expect("reads"))
            .map(|link| (link.seq, link.hash.to_string()))
            .collect();
        for (number, (seq, hash)) in &acknowledged {
            assert_eq!(places.get(&(seq + 1)), Some(hash), "write {number} was acknowledged and is gone");
        }
        assert!(matches!(verify(&path, Chain::Reads), Ok(Verdict::Whole { .. })));
    }
    assert!(ROUNDS < acknowledged.len() as u64, "the children wrote: {}", acknowledged.len());
}

/// Each fact stands with both of its audit records, side by side.
fn check_all_or_nothing(path: &Path, facts: &[Record]) {
    let end = end_of(path, Chain::Writes);
    assert_eq!(end.seq, 2 * facts.len() as u64);
    let links: Vec<_> = read_chain(path, Chain::Writes).expect("opens").map(|link| link.expect("reads")).collect();
    for pair in links.chunks(2) {
        let [first, second] = pair else { panic!("half a batch") };
        let (first, second) = (first.decode().expect("decodes"), second.decode().expect("decodes"));
        let number = first.draft.at.as_millis() / 2;
        assert_eq!((first.draft, second.draft), (draft(2 * number), draft(2 * number + 1)));
        assert!(facts.contains(&receipt(number, &[1; 3_000])), "{number}");
    }
}
