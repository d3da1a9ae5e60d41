//! What preflight and dispatch cost beside their floors, as ratios within one run.
//!
//! Two nodes run as processes of their own, and so do the floors: an axum server that reads and writes the same bodies behind
//! the same checks without deciding anything, and a bare Zenoh queryable. The machines are shared and noisy, so nothing here is
//! an absolute promise: node and floor are measured in alternating rounds of the same run, and the ratio of their medians is
//! printed.
//!
//! `cargo bench --bench mesh` prints a table; `-- --json` prints JSON; `-- --rounds N` changes the length.

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
use std::time::{Duration, Instant};

use ed25519_dalek::{Signer, SigningKey};
use serde_json::{Value, json};

use plant::Plant;
use processor::OneProcessor;
use stand::http::Http;
use stand::process::{Floor, Node, wait_until};
use stand::rows::{Arguments, Row, median, micros};
use stand::{Outcome, rows, runtime};

mod floor;
mod plant;
mod processor;
mod stand;

/// Requests of one round; rounds of node and floor alternate.
const REQUESTS_PER_ROUND: usize = 200;
const CALLERS: usize = 64;

fn main() -> Outcome<()> {
    let arguments = Arguments::given();
    if arguments.has("--floor-axum") {
        return runtime()?.block_on(floor::serve());
    }
    if arguments.has("--floor-zenoh") {
        return runtime()?.block_on(floor_zenoh());
    }
    let rounds = arguments.value("--rounds").map_or(Ok(8), str::parse)?;
    rows::print(&runtime()?.block_on(measure(rounds))?, &arguments);
    Ok(())
}

/// A node with one mesh neighbour at most, and callers that never rest.
fn node(folder: &Path, name: &str, connect: Option<&str>) -> Outcome<Node> {
    let connect = connection(connect);
    let settings = format!(
        "[bundle]\nversion = 1\n[resource]\nname = \"{name}\"\n[runtime.web]\nlisten = \"127.0.0.1:0\"\n\
         acts_per_s = 100000\n[runtime.discovery]\nenabled = false\n[runtime.mesh]\nlisten = \"127.0.0.1:0\"\nconnect = [{connect}]\n\
         [runtime.log]\nlevel = \"warn\"\n"
    );
    Node::start(folder, name, &settings)
}

/// What stands in a list of neighbours.
fn connection(address: Option<&str>) -> String {
    address.map(|address| format!("\"{address}\"")).unwrap_or_default()
}

fn mesh_of(node: &Node) -> String {
    node.address("mesh")
}

fn wait_for_peer(http: &mut Http, name: &str) -> Outcome<()> {
    wait_until("the nodes see each other", || {
        let state: Value = serde_json::from_slice(&http.get("/api/runtime-cloud/state").ok()?).ok()?;
        let nodes = state["topology"]["nodes"].as_array()?;
        let is_there = |node: &Value| node["runtime_id"] == json!(name) && node["lifecycle_state"] == json!("online");
        nodes.iter().any(is_there).then_some(())
    })
}

async fn measure(rounds: usize) -> Outcome<Vec<Row>> {
    let folder = tempfile::tempdir()?;
    let target = node(folder.path(), "b", None)?;
    let origin = node(folder.path(), "a", Some(&mesh_of(&target)))?;
    wait_for_peer(&mut Http::connect(&origin.address("web"))?, "b")?;
    let axum = Floor::start(&["--floor-axum"])?;
    let zenoh = Floor::start(&["--floor-zenoh"])?;
    let session = zenoh_session(Some(&zenoh.address)).await?;
    wait_for_zenoh(&session).await?;
    let mut rows = Vec::new();
    let held = OneProcessor::hold(&[std::process::id(), origin.process.id(), axum.process.id()])?;
    for (name, targets) in [("preflight, 1 target", 1), ("preflight, 1,000 targets", 1_000)] {
        rows.push(preflight(name, targets, rounds, &origin, &axum)?);
    }
    drop(held);
    let (read, read_floor) = single(rounds, &origin, &axum, &session, "status_read", &json!({})).await?;
    rows.push(Row {
        name: "dispatch read, 1 caller (p50)".into(),
        node: read,
        floor: read_floor,
        unit: "us",
        aim: 2.0,
    });
    let payload = json!({ "command": "ping" });
    let commits = commit_micros(folder.path())?;
    let (write, write_floor) = single(rounds, &origin, &axum, &session, "cmd_invoke", &payload).await?;
    // Before and after, because the disk is shared: the smaller of the two is the stricter floor.
    let commits = commits.min(commit_micros(folder.path())?) * 2.0;
    let floor = write_floor + commits + four_signatures_micros();
    rows.push(Row { name: "dispatch write, 1 caller (p50)".into(), node: write, floor, unit: "us", aim: 2.0 });
    rows.push(concurrent(rounds, &origin, &session).await?);
    let plant = Plant::start(folder.path())?;
    for (name, kind, payload) in [
        ("dispatch read, plant to dev", "status_read", json!({})),
        ("dispatch write, plant to dev", "cmd_invoke", payload),
    ] {
        rows.push(in_plant((name, kind, &payload), rounds, &plant, &origin)?);
    }
    Ok(rows)
}

fn preflight(name: &'static str, targets: usize, rounds: usize, origin: &Node, axum: &Floor) -> Outcome<Row> {
    let body = action("preflight", "status_read", &json!({}), &names(targets));
    let mut node = Http::connect(&origin.address("web"))?;
    let mut floor = Http::connect(&axum.address)?;
    let answer = node.post("/api/runtime-cloud/actions/preflight", &body)?;
    let floor_path = format!("/preflight/{targets}");
    check_alike(&answer, &floor.post(&floor_path, &body)?)?;
    let (mut of_node, mut of_floor) = (Vec::new(), Vec::new());
    let requests = if targets == 1 { REQUESTS_PER_ROUND } else { REQUESTS_PER_ROUND / 10 };
    for _ in 0..rounds {
        for _ in 0..requests {
            of_floor.push(timed(|| floor.post(&floor_path, &body).map(drop))?);
        }
        for _ in 0..requests {
            of_node.push(timed(|| node.post("/api/runtime-cloud/actions/preflight", &body).map(drop))?);
        }
    }
    Ok(Row { name: name.into(), node: median(of_node), floor: median(of_floor), unit: "us", aim: 1.25 })
}

/// What profile `plant` adds: HTTPS, a token, and mesh links inside TLS between nodes with certificates.
fn in_plant(
    (name, kind, payload): (&'static str, &str, &Value),
    rounds: usize,
    plant: &Plant,
    dev: &Node,
) -> Outcome<Row> {
    let path = "/api/runtime-cloud/actions/dispatch";
    let (mut in_plant, mut in_dev) = (plant.http()?, Http::connect(&dev.address("web"))?);
    let answer: Value = serde_json::from_slice(
        &in_plant.post(path, &action(&format!("warm-up-{kind}"), kind, payload, &["b".to_owned()]))?,
    )?;
    if answer["ok"] != json!(true) {
        return Err(format!("the dispatch was refused: {answer}").into());
    }
    let (mut of_plant, mut of_dev) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        for index in 0..REQUESTS_PER_ROUND {
            let body = action(&format!("in-plant-{kind}-{round}-{index}"), kind, payload, &["b".to_owned()]);
            of_dev.push(timed(|| in_dev.post(path, &body).map(drop))?);
            of_plant.push(timed(|| in_plant.post(path, &body).map(drop))?);
        }
    }
    Ok(Row { name: name.into(), node: median(of_plant), floor: median(of_dev), unit: "us", aim: 1.1 })
}

fn names(targets: usize) -> Vec<String> {
    (0..targets).map(|index| if index == 0 { "b".into() } else { format!("n{index}") }).collect()
}

/// Medians of a dispatch by one caller, and of an axum echo plus a bare get.
async fn single(
    rounds: usize,
    origin: &Node,
    axum: &Floor,
    session: &zenoh::Session,
    kind: &str,
    payload: &Value,
) -> Outcome<(f64, f64)> {
    let target = ["b".to_owned()];
    let mut node = Http::connect(&origin.address("web"))?;
    let mut floor = Http::connect(&axum.address)?;
    let path = "/api/runtime-cloud/actions/dispatch";
    let answer = node.post(path, &action("warm-up", kind, payload, &target))?;
    let parsed: Value = serde_json::from_slice(&answer)?;
    if parsed["ok"] != json!(true) {
        return Err(format!("the dispatch was refused: {parsed}").into());
    }
    let floor_path = format!("/dispatch/{kind}");
    check_alike(&answer, &floor.post(&floor_path, &action("warm-up", kind, payload, &target))?)?;
    let (mut of_node, mut of_echo, mut of_get) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        for index in 0..REQUESTS_PER_ROUND {
            let body = action(&format!("{kind}-{round}-{index}"), kind, payload, &target);
            of_echo.push(timed(|| floor.post(&floor_path, &body).map(drop))?);
            let begin = Instant::now();
            bare_get(session).await?;
            of_get.push(micros(begin.elapsed()));
            of_node.push(timed(|| node.post(path, &body).map(drop))?);
        }
    }
    Ok((median(of_node), median(of_echo) + median(of_get)))
}

/// Dispatches a second by 64 callers, and bare gets with four Ed25519 operations each by as many.
async fn concurrent(rounds: usize, origin: &Node, session: &zenoh::Session) -> Outcome<Row> {
    let web = origin.address("web");
    let (mut of_node, mut of_floor) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let begin = Instant::now();
        let callers: Vec<_> = (0..CALLERS).map(|caller| caller_thread(web.clone(), round, caller)).collect();
        for caller in callers {
            caller.join().map_err(|_panic| "a caller panicked")??;
        }
        of_node.push(rate(begin.elapsed()));
        let begin = Instant::now();
        let gets: Vec<_> = (0..CALLERS).map(|_| tokio::spawn(getter(session.clone()))).collect();
        for get in gets {
            get.await??;
        }
        of_floor.push(rate(begin.elapsed()));
    }
    let name = "dispatch read, 64 callers".into();
    Ok(Row { name, node: median(of_node), floor: median(of_floor), unit: "1/s", aim: 0.6 })
}

const REQUESTS_PER_CALLER: usize = 50;

fn rate(elapsed: Duration) -> f64 {
    (CALLERS * REQUESTS_PER_CALLER) as f64 / elapsed.as_secs_f64()
}

fn caller_thread(web: String, round: usize, caller: usize) -> std::thread::JoinHandle<Result<(), String>> {
    std::thread::spawn(move || {
        let mut http = Http::connect(&web).map_err(|error| error.to_string())?;
        for index in 0..REQUESTS_PER_CALLER {
            let body = action(&format!("c-{round}-{caller}-{index}"), "status_read", &json!({}), &["b".to_owned()]);
            http.post("/api/runtime-cloud/actions/dispatch", &body).map_err(|error| error.to_string())?;
        }
        Ok(())
    })
}

async fn getter(session: zenoh::Session) -> Result<(), String> {
    let key = SigningKey::from_bytes(&[7; 32]);
    for _ in 0..REQUESTS_PER_CALLER {
        four_signatures(&key);
        bare_get(&session).await.map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn four_signatures(key: &SigningKey) {
    let message = [5_u8; 600];
    for _ in 0..2 {
        let signature = key.sign(&message);
        assert!(key.verifying_key().verify_strict(&message, &signature).is_ok());
    }
}

fn four_signatures_micros() -> f64 {
    let key = SigningKey::from_bytes(&[7; 32]);
    median(
        (0..200)
            .map(|_| {
                let begin = Instant::now();
                four_signatures(&key);
                micros(begin.elapsed())
            })
            .collect(),
    )
}

/// The median of one committed row with `synchronous=FULL` on the same disk: what an fsync costs here.
fn commit_micros(folder: &Path) -> Outcome<f64> {
    let store = rusqlite::Connection::open(folder.join("floor.db"))?;
    store.execute_batch(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE IF NOT EXISTS t(body BLOB) STRICT;",
    )?;
    let mut of_commit = Vec::new();
    for _ in 0..200 {
        let begin = Instant::now();
        store.execute("INSERT INTO t VALUES (?1)", [vec![1_u8; 512]])?;
        of_commit.push(micros(begin.elapsed()));
    }
    Ok(median(of_commit))
}

fn timed(work: impl FnOnce() -> Outcome<()>) -> Outcome<f64> {
    let begin = Instant::now();
    work()?;
    Ok(micros(begin.elapsed()))
}

/// The floor must answer what the node answers, or it is the floor of something else.
fn check_alike(node: &[u8], floor: &[u8]) -> Outcome<()> {
    let fields = |answer: &[u8]| -> Outcome<Vec<String>> {
        let answer: serde_json::Map<String, Value> = serde_json::from_slice(answer)?;
        Ok(answer.keys().cloned().collect())
    };
    let is_as_long = node.len().abs_diff(floor.len()) <= node.len() / 10;
    if fields(node)? == fields(floor)? && is_as_long {
        return Ok(());
    }
    Err(format!("the floor answers something else: {} bytes, not {}", floor.len(), node.len()).into())
}

fn action(request_id: &str, kind: &str, payload: &Value, targets: &[String]) -> Vec<u8> {
    json!({
        "api_version": "1.0",
        "request_id": request_id,
        "connected_via": "a",
        "target_runtimes": targets,
        "actor": "spiffe://trust/default-site/engineer-1",
        "action_type": kind,
        "query_budget_ms": 5_000,
        "payload": payload,
    })
    .to_string()
    .into_bytes()
}

const KEY: &str = "bench/floor";

async fn zenoh_session(connect: Option<&str>) -> Outcome<zenoh::Session> {
    let mut config = zenoh::Config::default();
    let mut set = |key: &str, value: &str| config.insert_json5(key, value).map_err(|error| error.to_string());
    set("scouting/multicast/enabled", "false")?;
    match connect {
        Some(address) => {
            set("listen/endpoints", "[]")?;
            set("connect/endpoints", &format!("[\"tcp/{address}\"]"))?;
        }
        None => set("listen/endpoints", "[\"tcp/127.0.0.1:0\"]")?,
    }
    Ok(zenoh::open(config).await.map_err(|error| error.to_string())?)
}

async fn floor_zenoh() -> Outcome<()> {
    let session = zenoh_session(None).await?;
    let _queryable = session
        .declare_queryable(KEY)
        .complete(true)
        .callback(|query| {
            let answer = query.payload().map(|payload| payload.to_bytes().into_owned()).unwrap_or_default();
            zenoh::Wait::wait(query.reply(KEY, answer)).expect("the reply is sent");
        })
        .await
        .map_err(|error| error.to_string())?;
    let locators = session.info().locators().await;
    let address = locators.first().map(ToString::to_string).unwrap_or_default();
    println!("{}", address.trim_start_matches("tcp/"));
    std::future::pending::<()>().await;
    Ok(())
}

async fn wait_for_zenoh(session: &zenoh::Session) -> Outcome<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while bare_get(session).await.is_err() {
        if deadline < Instant::now() {
            return Err("the Zenoh floor does not answer".into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// One query with a payload of an envelope's size, as the mesh sends it.
async fn bare_get(session: &zenoh::Session) -> Outcome<()> {
    let replies = session
        .get(KEY)
        .payload(vec![1_u8; 2_000])
        .consolidation(zenoh::query::ConsolidationMode::None)
        .express(true)
        .await
        .map_err(|error| error.to_string())?;
    replies.recv_async().await.map_err(|error| error.to_string())?;
    Ok(())
}
