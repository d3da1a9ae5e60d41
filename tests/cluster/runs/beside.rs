//! Many runs at once, each written by its program and followed at its own node and across the mesh: every reader gets the whole
//! of his run, and what was about while they read is gone afterwards.
//!
//! The gate runs a few. `RUNS_AT_ONCE=200` is what `docs/reference/performance.md` speaks of, and `CLUSTER_PROGRAM` names a
//! release build.

// waits: only the programs of this test sleep, between their lines and at their gate.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{await_status, invoke, written};
use crate::harness::{Cluster, Running, Setup};
use crate::idle::busy;
use crate::leaks::settle;
use crate::vitals::Watched;
use crate::watch::{Stopwatch, wait_until};

/// Runs at once that the gate has, over both nodes. A node takes 128.
const RUNS: usize = 16;

/// What a run says before all of its readers are there, and in all; and how long it waits after each line, at least.
const BEFORE: usize = 20;
const LINES: usize = 200;
const PAUSE_MS: u64 = 5;

/// One run in so many ends with an error.
const FAILING: usize = 3;

/// How long all of them may take on a busy machine.
const READ_MAX: Duration = Duration::from_secs(120);

/// What a node may need more while they run: for each of its runs and readers, and in all.
const EACH_BYTES: i64 = 256 * 1_024;
const MORE_BYTES: i64 = 16 * 1_024 * 1_024;

/// What it may need more for as many again: the heap's holes are elsewhere.
const AGAIN_BYTES: i64 = 8 * 1_024 * 1_024;

/// Says its lines, and stops behind some of them until it is let on.
const SAYS: &str = r#"#!/usr/bin/env -S python3 -IS
import json, os, sys, time
asked = json.load(sys.stdin)
for number in range(asked["lines"]):
    while number == asked["before"] and not os.path.exists("on"):
        time.sleep(0.05)
    print(asked["tag"], number, flush=True)
    time.sleep(asked["ms"] / 1000)
sys.exit(asked["code"])
"#;

/// A run, by what was asked of it.
struct Asked {
    run: String,
    tag: String,
    is_failing: bool,
    owner: usize,
}

impl Asked {
    fn new(nodes: &[Running; 2], number: usize) -> Self {
        let (owner, is_failing, tag) = (number % 2, number.is_multiple_of(FAILING), format!("run-{number}"));
        let code = u8::from(is_failing);
        let params = json!({ "tag": tag, "lines": LINES, "before": BEFORE, "ms": PAUSE_MS, "code": code });
        let run = invoke(&nodes[owner], &tag, "says", &params);
        Self { run, tag, is_failing, owner }
    }

    /// Holds a stream against what its program said.
    #[track_caller]
    fn is_whole(&self, text: &str) {
        let body = text.split_once("\r\n\r\n").map_or(text, |(_, body)| body);
        let frames: Vec<&str> = body.split("\n\n").filter(|it| !it.is_empty() && !it.starts_with(':')).collect();
        let events: Vec<Json> = frames.iter().zip(0..).map(|(frame, index)| event(frame, index)).collect();
        assert_eq!(events.len(), LINES + 2, "{}: {:?}", self.tag, frames.last());
        assert!(events.iter().all(|event| event["runId"] == self.run.as_str()), "{}: of another run", self.tag);
        for (event, number) in events[1..=LINES].iter().zip(0..) {
            assert_eq!(event["message"], format!("{} {number}", self.tag), "{event}");
        }
        let (first, last) = (&events[0], &events[LINES + 1]);
        assert_eq!((&first["type"], &last["type"]), (&json!("run_start"), &json!("run_end")), "{first} {last}");
        assert_eq!(last["isError"], self.is_failing, "{}: {last}", self.tag);
    }
}

/// What a frame holds, which is that of this number.
#[track_caller]
fn event(frame: &str, index: usize) -> Json {
    let data = frame.split_once(&format!("\nid: {index}\ndata: ")).map(|(_, data)| data);
    let data = data.unwrap_or_else(|| panic!("not event {index}: {frame:?}"));
    serde_json::from_str(data).unwrap_or_else(|error| panic!("{frame:?}: {error}"))
}

/// Follows a run to its end. Counts itself as soon as something has come.
async fn follow(at: SocketAddr, run: String, begun: Arc<AtomicUsize>) -> Result<String, String> {
    let reading = async {
        let mut stream = TcpStream::connect(at).await?;
        // Without chunks, so that what comes is the stream itself.
        let head = format!("GET /runs/{run}/stream HTTP/1.0\r\nhost: {at}\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        let mut text = vec![0];
        stream.read_exact(&mut text).await?;
        begun.fetch_add(1, Ordering::SeqCst);
        stream.read_to_end(&mut text).await?;
        Ok::<_, std::io::Error>(text)
    };
    let text = timeout(READ_MAX, reading).await.map_err(|_elapsed| format!("{run}: took too long"))?;
    let text = String::from_utf8(text.map_err(|error| format!("{run}: {error}"))?).expect("text");
    if text.starts_with("HTTP/1.1 200 ") || text.starts_with("HTTP/1.0 200 ") { Ok(text) } else { Err(text) }
}

/// One who reads to the end: what he got.
type Reading = JoinHandle<Result<String, String>>;

/// All that follow these runs: one at the owner of each, and one at the other node.
struct Readers {
    runtime: Runtime,
    /// By the number of their run.
    all: Vec<(usize, [Reading; 2])>,
    begun: Arc<AtomicUsize>,
}

impl Readers {
    #[track_caller]
    fn enter(nodes: &[Running; 2], asked: &[Asked]) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let (runtime, begun) = (runtime.expect("a runtime"), Arc::<AtomicUsize>::default());
        let reader =
            |node: usize, run: &Asked| runtime.spawn(follow(nodes[node].web(), run.run.clone(), Arc::clone(&begun)));
        let both = |(number, run): (usize, &Asked)| (number, [reader(run.owner, run), reader(1 - run.owner, run)]);
        let all: Vec<_> = asked.iter().enumerate().map(both).collect();
        wait_until("every reader gets something", READ_MAX, || match begun.load(Ordering::SeqCst) {
            count if count == 2 * asked.len() => Ok(()),
            count => match all.iter().flat_map(|(_, both)| both).filter(|it| it.is_finished()).count() {
                0 => Err(format!("{count} do")),
                ended => panic!("{ended} readers are done before their runs; {count} got something"),
            },
        });
        Self { runtime, all, begun }
    }

    /// Gives the most that each node needed meanwhile, and the bytes that were read.
    #[track_caller]
    fn finish(self, watched: &[Watched<'_>; 2], asked: &[Asked]) -> ([i64; 2], usize) {
        let mut most = [0; 2];
        wait_until("every reader is done", READ_MAX, || {
            for (most, node) in most.iter_mut().zip(watched) {
                *most = node.memory().0.max(*most);
            }
            let left = self.all.iter().flat_map(|(_, both)| both).filter(|it| !it.is_finished()).count();
            if left == 0 { Ok(()) } else { Err(format!("{left} of {} read", self.begun.load(Ordering::SeqCst))) }
        });
        let mut bytes = 0;
        for (number, both) in self.all {
            let [near, far] = both.map(|it| self.runtime.block_on(it).expect("no panic"));
            let (near, far) = (near.expect("at its owner"), far.expect("across the mesh"));
            asked[number].is_whole(&near);
            asked[number].is_whole(&far);
            bytes += near.len() + far.len();
        }
        (most, bytes)
    }
}

/// Starts so many runs over both nodes, and has each followed twice, from before its end to its end.
#[track_caller]
fn run_all(nodes: &[Running; 2], watched: &[Watched<'_>; 2], numbers: std::ops::Range<usize>) -> [i64; 2] {
    let (count, on) = (numbers.len(), nodes.each_ref().map(|node| node.project().join("on")));
    let watch = Stopwatch::start();
    let asked: Vec<Asked> = numbers.map(|number| Asked::new(nodes, number)).collect();
    let started = watch.elapsed();
    // Whoever follows at once a run of which its node has not heard yet depends on how fast the other one answers.
    for (run, node) in asked.iter().flat_map(|run| nodes.iter().map(move |node| (run, node))) {
        wait_until("the run is known", READ_MAX, || match node.try_get(&format!("/runs/{}", run.run))? {
            answer if answer.status == 200 => Ok(()),
            answer => Err(answer.text),
        });
    }
    let readers = Readers::enter(nodes, &asked);
    for node in watched {
        let streams = node.living().expect("an answer").streams;
        assert_eq!(usize::try_from(streams).expect("small"), count, "{}: each run has a reader here", node.name);
    }
    let (entered, before) = (watch.elapsed(), nodes.each_ref().map(busy));
    on.iter().for_each(|on| fs::write(on, "").expect("a working folder"));
    let (most, bytes) = readers.finish(watched, &asked);
    let (took, after) = (watch.elapsed().saturating_sub(entered), nodes.each_ref().map(busy));
    on.iter().for_each(|on| fs::remove_file(on).expect("ours"));
    let busy = [0, 1].map(|node| after[node].saturating_sub(before[node]));
    let events = 2 * count * (LINES - BEFORE + 1);
    eprintln!(
        "{count} runs started after {started:?}, {} readers in after {entered:?}; the rest, {events} events, after {took:?} \
         ({bytes} bytes in all), of which the nodes had the processor for {busy:?}",
        2 * count
    );
    for run in asked {
        let status = if run.is_failing { "errored" } else { "completed" };
        await_status(&nodes[run.owner], &run.run, status);
    }
    most
}

#[test]
fn many_runs_at_once_are_each_followed_whole_here_and_there_and_leave_nothing_behind() {
    let count = std::env::var("RUNS_AT_ONCE").map_or(RUNS, |it| it.parse().expect("a number"));
    let cluster = Cluster::new();
    let sections = format!("[runtime.store]\nruns_kept = 1000\n\n{}", written(&cluster, "says", SAYS, 300_000));
    let nodes = cluster.site_of(["a", "b"], &Setup::new().with(sections));
    let watched = nodes.each_ref().map(Watched::of);
    // What is needed once for all is there then.
    run_all(&nodes, &watched, 0..2);
    let before = watched.each_ref().map(|node| (node.at_rest(), node.memory().0));
    let first = run_all(&nodes, &watched, 2..2 + count);
    let again = run_all(&nodes, &watched, 2 + count..2 + 2 * count);
    for (number, (node, (living, memory))) in watched.iter().zip(before).enumerate() {
        settle("many runs", node, living);
        let (first, again) = (first[number], again[number]);
        let bound = memory + MORE_BYTES + i64::try_from(2 * count).expect("small") * EACH_BYTES;
        eprintln!("{}: {living:?}; {memory} bytes before, at most {first} and then {again}", node.name);
        assert!(first <= bound, "{}: {first} bytes, wanted at most {bound}", node.name);
        assert!(again <= first + AGAIN_BYTES, "{}: {first} bytes, and {again} for as many again", node.name);
    }
}
