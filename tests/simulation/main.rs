//! Many runtimes in one thread over a faulty network, clocks and disks, from one seed; every step is judged.
//!
//! Beside it a model check: one target and everything that can happen to a few writes, to a bounded depth.
//!
//! `SIM_SEED=7 cargo test --test simulation` runs one seed again, `SIM_SEEDS=100000` runs the seeds up to this one, and
//! `SIM_FROM=15000` those from this one on; `MODEL_DEPTH=6` sets how many steps the model check takes.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may stop at the first surprise"
)]

mod attacker;
mod authority;
#[path = "../support/chance.rs"]
mod chance;
mod disk;
mod dispatch;
mod fault;
mod invariant;
mod luck;
mod model;
mod network;
mod node;
mod scenario;
mod settle;
mod turn;
mod voice;
mod witness;
mod work;
mod world;

use std::fs;
use std::path::Path;
use std::str::FromStr;

use trust_runtime::domain::preflight::Profile;

use crate::chance::Chance;
use crate::node::Setup;
use crate::world::World;

/// Seeds of one ordinary run.
const SEEDS: u64 = 300;

/// How long the storm of a run lasts, in virtual milliseconds.
const STORM: u64 = 15_000;

fn setup(seed: u64) -> Setup {
    let mut chance = Chance::new(seed ^ 0xa5a5);
    let nodes = [2, 2, 3, 3, 3, 4, 5][chance.index(7)];
    let (profile, is_loopback) =
        [(Profile::Dev, true), (Profile::Dev, false), (Profile::Plant, false)][chance.index(3)];
    Setup { nodes, profile, is_loopback }
}

fn run(seed: u64) -> World {
    let mut world = World::new(setup(seed), seed);
    world.run(3_000);
    world.begin_storm(STORM);
    world.run(STORM);
    if world.breach.is_none() {
        world.settle();
    }
    world
}

/// What to print about a broken run; none when it held. Also written down for later.
fn report(seed: u64, world: &World) -> Option<String> {
    let breach = world.breach.as_ref()?;
    let rows: Vec<&str> = world.log.iter().map(String::as_str).collect();
    let told = serde_json::json!({
        "seed": seed,
        "sentence": breach.sentence,
        "detail": breach.detail,
        "setup": format!("{:?}", world.setup),
        "events": rows,
    });
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/simulation");
    let written =
        fs::create_dir_all(&folder).and_then(|()| fs::write(folder.join(format!("{seed}.json")), told.to_string()));
    let place = written.map_or_else(|error| error.to_string(), |()| format!("target/simulation/{seed}.json"));
    let (sentence, detail) = (breach.sentence, &breach.detail);
    Some(format!("SIM_SEED={seed}\nbroken: {sentence}\n{detail}\n{:?}\n{}\n{place}", world.setup, rows.join("\n")))
}

/// What the environment asks for. Text that is no number must not quietly mean something smaller.
fn number<T: FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} wants a whole number, got '{text}'")))
}

fn seeds() -> Vec<u64> {
    if let Some(seed) = number("SIM_SEED") {
        return vec![seed];
    }
    let once_failed = include_str!("seeds.txt").lines().filter_map(|line| line.split('#').next()?.trim().parse().ok());
    once_failed.chain(number("SIM_FROM").unwrap_or(1)..=number("SIM_SEEDS").unwrap_or(SEEDS)).collect()
}

#[test]
fn no_seed_breaks_an_invariant() {
    let seeds = seeds();
    // Two halves, because a run is one thread and most machines have two.
    let (even, odd): (Vec<u64>, Vec<u64>) = seeds.iter().partition(|seed| seed.is_multiple_of(2));
    let first_broken = |seeds: Vec<u64>| {
        let mut counts = [0_usize; 10];
        for seed in seeds {
            let world = run(seed);
            if let Some(report) = report(seed, &world) {
                return Err(report);
            }
            let ledger = &world.ledger;
            let counted = [ledger.executions.len(), ledger.acknowledged.len()];
            let told = [ledger.refusals, ledger.unknowns, ledger.reads, ledger.witnessed]
                .map(|it| usize::try_from(it).unwrap_or(0));
            let works = &ledger.works;
            let begun = u64::try_from(works.begun.len()).unwrap_or(0);
            let worked = [begun, works.closed, works.cancelled, works.deeds].map(|it| usize::try_from(it).unwrap_or(0));
            counts.iter_mut().zip(counted.into_iter().chain(told).chain(worked)).for_each(|(sum, it)| *sum += it);
        }
        Ok(counts)
    };
    let results = std::thread::scope(|scope| {
        let halves = [scope.spawn(|| first_broken(even)), scope.spawn(|| first_broken(odd))];
        halves.map(|half| half.join().expect("a run does not panic"))
    });
    let mut totals = [0; 10];
    for result in results {
        match result {
            Err(report) => panic!("\n{report}"),
            Ok(counts) => totals.iter_mut().zip(counts).for_each(|(sum, it)| *sum += it),
        }
    }
    let [executed, acknowledged, refused, unknown, read, witnessed, begun, closed, cancelled, deeds] = totals;
    println!(
        "{} runs: {executed} executed, {acknowledged} acknowledged, {refused} refused, {unknown} unknown, {read} read, \
         {witnessed} logs witnessed, {begun} runs begun, {closed} closed, {cancelled} cancelled, {deeds} deeds",
        seeds.len()
    );
    if seeds.len() > 10 {
        assert!(totals.iter().all(|it| *it > 0), "a simulation in which nothing happens proves nothing");
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 1..=3 {
        let (one, other) = (run(seed), run(seed));
        assert_eq!((one.trace, one.steps), (other.trace, other.steps), "seed {seed}");
    }
}

#[test]
fn different_seeds_differ() {
    let traces: std::collections::BTreeSet<_> = (42..=45).map(|seed| run(seed).trace).collect();
    assert_eq!(traces.len(), 4);
}
