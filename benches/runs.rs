//! What each of many readers of one run costs, as ratios to a floor within one run.
//!
//! A node runs as a process of its own, with an agent that says ten thousand events. So does the floor: an axum server that
//! sends the same bytes from memory, and has no log, no pages and no events. A thousand readers at once take the whole stream
//! over real sockets, from node and floor in turn; before that as many stop behind their first bytes, and what the server has
//! grown by is divided among them. Each round has new processes. Readers and servers share the machine, which is noisy: the ratios count.
//!
//! `cargo bench --bench runs` prints a table, with times and KiB per reader; `-- --json` prints JSON; `-- --rounds N` and
//! `-- --readers N` change the length.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a benchmark reads the clock, prints, and may stop at the first surprise"
)]

use std::path::Path;

use serde_json::{Value, json};

use readers::{Source, Taken};
use stand::http::{Http, header};
use stand::process::{Floor, Node};
use stand::rows::{Arguments, Row, median};
use stand::{Outcome, rows, runtime};

#[path = "../tests/api/runs/chunks.rs"]
mod chunks;
mod readers;
mod replay;
mod stand;

/// Events of the run, its first and its last included.
const EVENTS: usize = 10_000;

/// By how much the events of another run are longer, the one whose readers stop: the kernel would keep all of a short one, two
/// megabytes on a loopback, and the server would hold nothing for them.
const PAD: usize = 600;

/// How often one reader alone reads in a round.
const ALONE: usize = 10;

fn main() -> Outcome<()> {
    let arguments = Arguments::given();
    if let Some(file) = arguments.value("--floor-stream") {
        return runtime()?.block_on(replay::serve(file));
    }
    let rounds = arguments.value("--rounds").map_or(Ok(3), str::parse)?;
    let readers = arguments.value("--readers").map_or(Ok(1_000), str::parse)?;
    let files = trust_runtime::node::open_files();
    if files < 4 * readers as u64 {
        return Err(format!("{readers} readers want a node with four files each, and it may open {files}").into());
    }
    rows::print(&runtime()?.block_on(measure(rounds, readers))?, &arguments);
    Ok(())
}

async fn measure(rounds: usize, readers: usize) -> Outcome<Vec<Row>> {
    let folder = tempfile::tempdir()?;
    let run = ended_run(folder.path(), 0)?;
    let long_run = ended_run(folder.path(), PAD)?;
    let (mut alone, mut time, mut work, mut memory) = <(Pair, Pair, Pair, Pair)>::default();
    for _ in 0..rounds {
        // In processes of its own: what a crowd that has gone leaves with the allocator would hold the next one at no cost.
        let stand = Stand::start(folder.path(), &long_run).await?;
        memory.push(readers::held(&stand.of_node, readers).await?, readers::held(&stand.of_floor, readers).await?);
        drop(stand);
        let stand = Stand::start(folder.path(), &run).await?;
        for _ in 0..ALONE {
            let (node, floor) = stand.crowds(1).await?;
            alone.push(rate(&node), rate(&floor));
        }
        let (node, floor) = stand.crowds(readers).await?;
        time.push(node.time, floor.time);
        work.push(node.work, floor.work);
    }
    let name = |what: &str| format!("stream, {readers} readers: {what}");
    // The floor sends finished bytes; a node reads its log in pages and writes each of them once, for all readers. So the aims
    // are a tenth of the events of a floor for one reader, who has nobody to share with, which is a million a second; five times
    // the floor's processor, most of which the kernel's copying and the readers' own work hide in the time; and, beside what a
    // connection holds anyway, pages of its own for a reader who has stopped alone.
    Ok(vec![
        alone.row("stream, 1 reader: events".into(), "1/s", 0.1),
        time.row(name("time"), "us", 1.5),
        work.row(name("processor"), "us", 5.0),
        memory.row(name("memory"), "KiB", 5.0),
    ])
}

/// Node and floor of one round, as new processes.
struct Stand {
    of_node: Source,
    of_floor: Source,
    bytes: usize,
    _node: Node,
    _floor: Floor,
}

impl Stand {
    async fn start(folder: &Path, run: &str) -> Outcome<Self> {
        let node = start(folder)?;
        let of_node = Source { address: host(&node), path: format!("/runs/{run}/stream"), process: node.process.id() };
        let whole = readers::whole(&of_node).await?;
        let events = whole.windows(7).filter(|bytes| bytes == b"event: ").count();
        if events != EVENTS {
            return Err(format!("the stream has {events} events, not {EVENTS}").into());
        }
        let file = folder.join("stream").display().to_string();
        std::fs::write(&file, &whole)?;
        let floor = Floor::start(&["--floor-stream", &file])?;
        let of_floor = Source { address: floor.address.clone(), path: "/".into(), process: floor.process.id() };
        if readers::whole(&of_floor).await? != whole {
            return Err("the floor sends something else".into());
        }
        Ok(Self { of_node, of_floor, bytes: whole.len(), _node: node, _floor: floor })
    }

    /// What so many readers take of the node, and then of the floor.
    async fn crowds(&self, readers: usize) -> Outcome<(Taken, Taken)> {
        let node = readers::crowd(&self.of_node, readers, self.bytes).await?;
        Ok((node, readers::crowd(&self.of_floor, readers, self.bytes).await?))
    }
}

/// What node and floor took, round by round.
#[derive(Default)]
struct Pair {
    node: Vec<f64>,
    floor: Vec<f64>,
}

impl Pair {
    fn push(&mut self, node: f64, floor: f64) {
        self.node.push(node);
        self.floor.push(floor);
    }

    fn row(self, name: String, unit: &'static str, aim: f64) -> Row {
        Row { name, node: median(self.node), floor: median(self.floor), unit, aim }
    }
}

/// Events a second of one reader.
fn rate(taken: &Taken) -> f64 {
    EVENTS as f64 * 1e6 / taken.time
}

/// A node that can start the example that says many lines.
fn start(folder: &Path) -> Outcome<Node> {
    let agents = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/agents");
    let settings = format!(
        "[bundle]\nversion = 1\n[resource]\nname = \"a\"\n[runtime.web]\nlisten = \"127.0.0.1:0\"\n\
         reads_per_s = 100000\n[runtime.discovery]\nenabled = false\n[runtime.mesh]\nlisten = \"127.0.0.1:0\"\n\
         [runtime.log]\nlevel = \"warn\"\n\
         [[runtime.agent]]\nname = \"many\"\nprogram = \"{agents}/many.py\"\nwebhook = true\n"
    );
    Node::start(folder, "a", &settings)
}

fn host(node: &Node) -> String {
    node.address("web").trim_start_matches("http://").to_owned()
}

/// The id of a run with all its events, which has come to a good end at a node that is gone.
fn ended_run(folder: &Path, pad: usize) -> Outcome<String> {
    let node = start(folder)?;
    let mut http = Http::connect(&host(&node))?;
    // `run_start` and `run_end` are the node's.
    http.post("/agents/many/bench", json!({ "n": EVENTS - 2, "pad": pad }).to_string().as_bytes())?;
    let run = header(&http.head, "x-trust-run-id").ok_or("the answer names the run")?.to_owned();
    let record: Value = serde_json::from_slice(&http.get(&format!("/runs/{run}"))?)?;
    if record["status"] == json!("completed") {
        return Ok(run);
    }
    Err(format!("the run did not end well: {record}").into())
}
