//! `kill -9` in the middle of appends: what was acknowledged is there, and what is there is whole.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use super::*;
use crate::store::runs::RunsAsked;

/// Set for the child: where to write. The child's numbers begin at [`FIRST`].
const FOLDER: &str = "TRUST_RUNTIME_TEST_RUNS";
const FIRST: &str = "TRUST_RUNTIME_TEST_RUNS_FIRST";
const CHILD: &str = "store::sqlite::runs::tests::death::child_writes_until_killed";
const ROUNDS: u64 = 12;
const STRIDE: u64 = 1_000;
const WRITERS: u64 = 4;

/// Not a test of its own: the body of the child that is killed. Each writer appends to runs of its own, three events at once.
#[tokio::test]
async fn child_writes_until_killed() {
    let (Ok(folder), Ok(first)) = (std::env::var(FOLDER), std::env::var(FIRST)) else { return };
    let first: u64 = first.parse().expect("a number");
    let store = Arc::new(opened(Path::new(&folder)));
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let store = Arc::clone(&store);
        writers.spawn(async move {
            for number in (first + writer..first + STRIDE).step_by(4) {
                store.commit(vec![create(number)]).await.expect("commits");
                for index in (1..22).step_by(3) {
                    store.commit(vec![append(number, index..index + 3)]).await.expect("commits");
                    say(number, index + 3);
                }
                store.commit(vec![end(number, 22)]).await.expect("commits");
                say(number, 23);
            }
        });
    }
    writers.join_all().await;
}

fn say(number: u64, count: u64) {
    std::io::stdout().write_all(format!("acknowledged {number} {count}\n").as_bytes()).expect("the parent reads");
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

/// Kills a child after some acknowledgements: the longest log that it acknowledged of each run.
pub(super) fn killed(folder: &Path, round: u64) -> BTreeMap<u64, u64> {
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
        if let ["acknowledged", number, count] = words.as_slice() {
            acknowledged.insert(number.parse().expect("a number"), count.parse().expect("a number"));
        }
        acknowledged.len() as u64
    };
    if !round.is_multiple_of(4) {
        let enough = 1 + random(12);
        while hear(lines.recv().expect("the child writes")) < enough {}
    }
    // Some moment after that, or while the child makes and opens its file.
    if let Ok(line) = lines.recv_timeout(Duration::from_micros(random(30_000))) {
        hear(line);
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
    let mut heard = 0;
    for round in 0..ROUNDS {
        let acknowledged = killed(&path, round);
        heard += acknowledged.len();
        let store = opened(&path);
        store.set_runs_kept(usize::MAX);
        for (number, count) in acknowledged {
            // One that ended may have made room for a later one since.
            if let Some(head) = store.head(run_id(number)).await.expect("reads") {
                assert!(count <= head.count, "{count} events of run {number} were acknowledged, {head:?}");
            } else {
                assert_eq!(count, 23, "run {number} had not ended and is gone");
            }
        }
        check_whole(&store).await;
        // What a node does at its start.
        for run in store.unfinished().await.expect("reads") {
            let head = store.head(run).await.expect("reads").expect("is there");
            let Change::End { end, result, error, .. } = end(1, 0) else { panic!("it is one") };
            let last = event(head.count, crate::domain::run::Kind::RunEnd);
            store.commit(vec![Change::End { run, end, result, error, last }]).await.expect("commits");
        }
        assert_eq!(store.unfinished().await, Ok(Vec::new()));
        check_whole(&store).await;
        store.close().await;
    }
    assert!(20 < heard, "the children wrote: {heard}");
}

/// Record, pointer and log tell the same of each run, and no log has a gap.
pub(super) async fn check_whole(store: &SqliteRuns) {
    let page = store.list(RunsAsked { limit: 1_000, ..RunsAsked::default() }).await.expect("reads");
    for pointer in page.pointers {
        let page = store.events(EventsAsked { run: pointer.run, ..all_of(0) }).await.expect("reads").expect("is there");
        let indices = page.events.iter().map(|event| event.index);
        assert!(indices.eq(0..page.head.count), "{}: {page:?}", pointer.run);
        let is_ended = page.events.last().is_some_and(|event| event.kind == crate::domain::run::Kind::RunEnd);
        assert_eq!((page.head.is_ended, pointer.end.is_some()), (is_ended, is_ended));
        assert_eq!(page.head.count % 3, if is_ended { page.head.count % 3 } else { 1 }, "half a batch");
        assert_eq!(store.run(pointer.run).await.expect("reads").map(|it| it.pointer), Some(pointer));
    }
}
