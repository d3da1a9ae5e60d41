//! Many runs on a real node: lists that neither repeat nor leave out, and how much of the past is kept.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::{Connection, OpenFlags};
use serde_json::{Value as Json, json};
use trust_runtime::domain::run::{AgentName, End, Pointer, RunId};
use trust_runtime::domain::time::{Millis, Wall};
use trust_runtime::store::runs::{Change, RunStore};
use trust_runtime::store::sqlite::runs::{self, Options};
use trust_runtime::wire::run::{run_end, run_start};

use super::{all_events, assert_whole, await_status, declared, invoke, kind};
use crate::harness::{Cluster, Running, SEEN_MAX, Setup};
use crate::http::{self, Answer};

/// Runs that were there before the first page was asked for.
const RUNS: u64 = 10_000;

/// When the first of them began: long ago, so that each new one is newer.
const BEGAN_MS: u64 = 1_700_000_000_000;

const ADMIN: &str = "[runtime.admin]\nenabled = true\nlisten = \"127.0.0.1:0\"\n\n";

/// Asks the listener of admins with the node's own token.
#[track_caller]
fn ask(node: &Running, path: &str) -> Answer {
    let read = |name: &str| fs::read_to_string(node.state_folder().join(name)).expect("there while it runs");
    let ready: Json = serde_json::from_str(&read("ready.json")).expect("JSON");
    let address = ready["admin"].as_str().and_then(|url| url.strip_prefix("http://")?.parse().ok());
    let sent = http::send(address.expect("an address"), path, Some(read("admin.token").trim()), None);
    sent.and_then(http::Sent::answer).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A finished run as an earlier life of the node would have left it, three of each millisecond.
fn past(number: u64) -> [Change; 2] {
    let at = Wall::from_millis(BEGAN_MS + number / 3);
    let run = RunId::new(at, *u128::from(number).to_be_bytes().last_chunk().expect("longer"));
    let pointer = Pointer {
        run,
        owner: "default-site/a".parse().expect("legal"),
        agent: AgentName::of_agent(&"hello".parse().expect("legal")),
        instance: format!("i{}", number / 40).parse().expect("legal"),
        started: at,
        end: None,
    };
    let end = End { at, is_error: false, duration: Millis(1) };
    let (first, last) = (run_start(&pointer, "{}"), run_end(run, 1, &end, Some("1"), None));
    [Change::Create { pointer, first }, Change::End { run, end, result: Some("1".to_owned()), error: None, last }]
}

/// Puts runs into the store of a node that is not running.
fn fill(folder: &Path) -> BTreeSet<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let store = runs::open(&Options { folder: folder.to_owned(), runs_kept: 50, runs_max_mb: 512 }).expect("opens");
    let mut names = BTreeSet::new();
    runtime.block_on(async {
        for first in (0..RUNS).step_by(500) {
            let batch: Vec<Change> = (first..first + 500).flat_map(past).collect();
            let created = batch.iter().filter_map(|change| match change {
                Change::Create { pointer, .. } => Some(pointer.run.to_string()),
                Change::Append { .. } | Change::End { .. } => None,
            });
            names.extend(created);
            store.commit(batch).await.expect("commits");
        }
        store.close().await;
    });
    names
}

#[test]
fn ten_thousand_runs_are_listed_once_each_while_new_ones_start() {
    let cluster = Cluster::new();
    let setup = Setup::new().with(format!("{ADMIN}{}", declared()));
    let project = cluster.project("a", &setup);
    let before = fill(&project.join("state"));
    assert_eq!(u64::try_from(before.len()).expect("small"), RUNS);
    let node = cluster.play("a", setup);
    let (mut seen, mut started, mut next) = (Vec::new(), 0, String::new());
    loop {
        let answer = ask(&node, &format!("/runs?limit=250&cursor={next}"));
        assert_eq!(answer.status, 200, "{}", answer.text);
        let items = answer.body["items"].as_array().expect("a list");
        seen.extend(items.iter().filter_map(|item| Some(item["runId"].as_str()?.to_owned())));
        for _ in 0..3 {
            let answer = node.post("/agents/hello/new", &json!({}));
            assert_eq!(answer.status, 200, "{}", answer.text);
            started += 1;
        }
        match answer.body["nextCursor"].as_str() {
            Some(cursor) => next = cursor.to_owned(),
            None => break,
        }
    }
    let once: BTreeSet<String> = seen.iter().cloned().collect();
    assert_eq!(once.len(), seen.len(), "a run stands on two pages");
    assert!(once == before, "missing {:?}", before.difference(&once).take(3).collect::<Vec<_>>());
    let instance = ask(&node, "/agents/hello/instances/new/runs?limit=1000");
    // As many of them as are kept of an instance.
    assert_eq!(instance.body["items"].as_array().map(Vec::len), Some(50.min(started)), "{}", instance.text);
}

/// What the file holds, seen at one moment: finished runs, active runs, events, and events that there should be.
fn counts(node: &Running) -> [i64; 4] {
    let file = node.state_folder().join("runs.db");
    let database = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("opens");
    let sql = "SELECT (SELECT count(*) FROM run WHERE ended_ns IS NOT NULL),
                      (SELECT count(*) FROM run WHERE ended_ns IS NULL),
                      (SELECT count(*) FROM event), (SELECT coalesce(sum(head), 0) FROM run)";
    database.query_row(sql, [], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?])).expect("counts")
}

/// Looks at the file while something happens to it.
fn watched<T>(node: &Running, work: impl FnOnce() -> T) -> T {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut looks = 0;
            while !is_over.load(Ordering::Relaxed) || looks < 100 {
                let [finished, _, events, of_runs] = counts(node);
                assert!(finished <= 3, "{finished} finished runs at once");
                assert_eq!(events, of_runs, "a run and its events come and go together");
                looks += 1;
            }
        });
        let done = work();
        is_over.store(true, Ordering::Relaxed);
        watcher.join().expect("it held");
        done
    })
}

#[test]
fn the_oldest_finished_runs_go_with_their_events_and_active_ones_never() {
    let cluster = Cluster::new();
    let setup = Setup::new().with(format!("[runtime.store]\nruns_kept = 3\n\n{}", declared()));
    let mut node = cluster.play("a", setup);
    let endless = json!({ "n": 1_000_000, "ms": 1_000 });
    let oldest = invoke(&node, "oldest", "tick", &endless);
    let quick = |number: usize| {
        let run = invoke(&node, &format!("quick-{number}"), "tick", &json!({ "n": 20, "ms": 1 }));
        await_status(&node, &run, "completed");
        run
    };
    let others: Vec<String> = watched(&node, || (0..7).map(quick).collect());
    let (gone, kept) = others.split_at(4);
    for run in gone {
        for path in [format!("/runs/{run}"), format!("/runs/{run}/events"), format!("/runs/{run}/stream")] {
            let answer = node.get(&path);
            assert_eq!((answer.status, kind(&answer)), (404, "run_not_found"), "{path}: {}", answer.text);
        }
    }
    kept.iter().for_each(|run| assert_whole(&all_events(&node, run)));
    assert_eq!(node.get(&format!("/runs/{oldest}")).body["status"], "active", "it is older than all of them");
    assert_eq!(counts(&node)[..2], [3, 1]);
    // A restart ends it. It began before all that are kept, and goes with its end.
    node.kill();
    node.restart();
    node.wait_until("it is gone", SEEN_MAX, |node| {
        let answer = node.try_get(&format!("/runs/{oldest}"))?;
        if (answer.status, kind(&answer)) == (404, "run_not_found") { Ok(()) } else { Err(answer.text) }
    });
    assert_eq!(counts(&node)[..2], [3, 0]);
    kept.iter().for_each(|run| assert_whole(&all_events(&node, run)));
    assert!(node.log().contains("forgotten by its own end"), "{}", node.log());
}
