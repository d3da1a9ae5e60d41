//! A thousand readers of one run of a real node: each gets, to the byte, what the node's disk has of what its program said.
//!
//! The readers hold what they get against the file of the store, which they read beside the node: so what they are sent must be
//! durable already.

// waits: only the program of this test sleeps, at its gates.

#[path = "../../api/runs/chunks.rs"]
mod chunks;
#[path = "../../api/runs/readers.rs"]
mod readers;

use std::fs;
use std::path::Path;
use std::sync::Mutex;

use rusqlite::{Connection, OpenFlags};
use serde_json::{Value as Json, json};

use self::readers::{BEFORE, Crowd, EVENTS, Log, MEANWHILE, READERS, Readers};
use super::{await_events, await_status, invoke, written};
use crate::harness::{Cluster, Running, Setup};

/// Half of the requests that a node works on at once; those who follow do not count from when their answer has begun.
const ARRIVING_MAX: usize = 256;

/// Counts, and stops at each gate until its file is there.
const COUNTS: &str = r#"#!/usr/bin/env python3
import json, os, sys, time
gates = json.load(sys.stdin)["gates"]
number = 0
for gate in gates:
    while number < gate["until"]:
        print(f"{number:0>120}")
        number += 1
    sys.stdout.flush()
    while gate["file"] and not os.path.exists(gate["file"]):
        time.sleep(0.01)
"#;

/// The file of a run, read beside the node that writes it.
struct Shelf {
    file: Connection,
    run: String,
}

impl Shelf {
    fn open(folder: &Path, run: &str) -> Self {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        Self { file: Connection::open_with_flags(folder.join("runs.db"), flags).expect("opens"), run: run.to_owned() }
    }

    /// Kinds and bodies of all events from one on.
    fn events(&self, from: usize) -> Vec<(String, String)> {
        let sql = "SELECT kind, body FROM event JOIN run ON run_no = no WHERE run = ?1 AND ?2 <= event.number
                   ORDER BY event.number";
        let mut statement = self.file.prepare_cached(sql).expect("as the store has it");
        let from = i64::try_from(from).expect("small");
        let rows = statement.query_map((&self.run, from), |row| Ok((row.get(0)?, row.get(1)?))).expect("reads");
        rows.collect::<Result<_, _>>().expect("reads")
    }

    /// Brings a log up to date.
    fn bring(&self, log: &mut Log) {
        self.events(log.count()).iter().for_each(|(kind, body)| log.push(kind, body));
    }
}

/// Lets the program go on.
fn open(node: &Running, gate: &str) {
    fs::write(node.project().join(gate), "").expect("its working folder");
}

/// Every line of the program is there once, in its order, between start and end.
#[track_caller]
fn assert_counted(shelf: &Shelf) {
    let events = shelf.events(0);
    let body = |(_, body): &(String, String)| serde_json::from_str::<Json>(body).expect("JSON");
    let messages = events[1..EVENTS - 1].iter().map(|event| body(event)["message"].clone());
    for (message, number) in messages.zip(0..) {
        assert_eq!(message, json!(format!("{number:0>120}")));
    }
    let kinds = [0, EVENTS - 1].map(|at| events[at].0.as_str());
    assert_eq!((events.len(), kinds), (EVENTS, ["run_start", "run_end"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_readers_of_a_real_node_each_get_what_is_on_its_disk() {
    let files = trust_runtime::node::open_files();
    assert!(2 * READERS as u64 <= files, "this test opens a socket for each reader, and may have {files} open");
    let cluster = Cluster::new();
    let node = cluster.play("a", Setup::new().with(written(&cluster, "counts", COUNTS, 300_000)));
    // The first event and the last are the node's.
    let gates = json!([
        { "until": BEFORE - 1, "file": "meanwhile" },
        { "until": MEANWHILE - 1, "file": "rest" },
        { "until": EVENTS - 2, "file": "" },
    ]);
    let run = invoke(&node, "many", "counts", &json!({ "gates": gates }));
    await_events(&node, &run, BEFORE - 2);
    let shelf = Mutex::new(Shelf::open(&node.state_folder(), &run));
    let more = Box::new(move |log: &mut Log| shelf.lock().expect("no panic").bring(log));
    let crowd = Crowd::new(&node.web().to_string(), &run, more, ARRIVING_MAX);
    let mut readers = Readers::new(&crowd);
    readers.enter();
    open(&node, "meanwhile");
    readers.until_got(MEANWHILE).await;
    open(&node, "rest");
    await_status(&node, &run, "completed");
    readers.enter_late();
    readers.finish().await;
    let returns = readers.free().await;
    assert!(100 < returns.cut, "{returns:?}");
    let (shelf, mut whole) = (Shelf::open(&node.state_folder(), &run), Log::default());
    shelf.bring(&mut whole);
    assert!(*crowd.log() == whole, "what was shown is still so");
    assert_counted(&shelf);
}
