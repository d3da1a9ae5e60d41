//! A storm of faults over real nodes, and what must hold all the same, judged from outside.
//!
//! A seed is a schedule of faults; callers and delays draw from it too. What the machine does between two draws is its own, so a
//! seed finds the same storm again and not always the same race. `scripts/fault_harness.sh` runs it for as long as wanted.

mod bent;
pub(crate) mod cable;
mod collect;
mod evidence;
mod judge;
mod lookout;
mod schedule;
mod traffic;
mod world;

use std::ops::RangeFrom;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::chance::Chance;
use crate::watch::{Stopwatch, try_until};
use evidence::{Evidence, Told};
use judge::{Breach, judge};
use schedule::Schedule;
use traffic::Traffic;
use world::World;

/// How long one storm lasts: a few of each kind of fault, and few enough requests that all are asked again soon.
const STORM: Duration = Duration::from_secs(20);

/// In less nothing could be broken and healed again.
const STORM_MIN: Duration = Duration::from_secs(5);

/// The storm of the gate, which has every kind of fault.
const GATE_SEED: u64 = 12;

/// How long what follows an answer may take: the origin's record of an outcome is not waited for.
const CONCLUDED_MAX: Duration = Duration::from_secs(10);

/// Lets one storm pass over a world of so many nodes, and gives what was broken.
fn storm(seed: u64, count: usize, span: Duration) -> Vec<Breach> {
    let schedule = Schedule::draw(seed, count, span);
    eprintln!("{count} nodes, {schedule}");
    let mut chance = Chance::new(seed);
    let mut world = World::start(count, &mut chance);
    let mut evidence = Evidence::default();
    let traffic = Traffic::default();
    rage(&mut world, &schedule, &traffic, &mut evidence, &mut chance);
    evidence.calls = traffic.calls.into_inner().expect("no panic");
    evidence.unsettled = world.settle();
    evidence.before = collect::kept(&world);
    evidence.repeated = traffic::repeat(&world.webs(), &evidence.calls, &mut chance);
    let attempts = evidence.calls.attempts.iter().chain(&evidence.repeated);
    evidence.runs = collect::runs(&world, attempts, &mut chance);
    evidence.left = collect::left(&world);
    evidence.weights = collect::weights(&world);
    evidence.done.clone_from(&world.done);
    evidence.ends.clone_from(&world.ends);
    // What still does not hold then is told at the end.
    drop(try_until(CONCLUDED_MAX, || {
        evidence.after = collect::kept(&world);
        if judge(&evidence).is_empty() { Ok(()) } else { Err(String::new()) }
    }));
    world.stop();
    evidence.ends.clone_from(&world.ends);
    evidence.left.extend(collect::left(&world));
    tell(&evidence);
    let breaches = judge(&evidence);
    if !breaches.is_empty() {
        world.keep();
    }
    breaches
}

/// The storm itself: faults, callers and lookouts at the same time.
fn rage(world: &mut World, schedule: &Schedule, traffic: &Traffic, evidence: &mut Evidence, chance: &mut Chance) {
    let (webs, nodes, begun) = (world.webs(), world.nodes(), world.stopwatch());
    std::thread::scope(|scope| {
        let (webs, nodes) = (&webs, &nodes);
        for caller in 0..traffic::CALLERS {
            let chance = chance.fork();
            scope.spawn(move || traffic.call(webs, caller, chance));
        }
        let look = |node: &schedule::Node| {
            let node = *node;
            scope.spawn(move || lookout::look_out(node, webs[node.0], nodes, begun, &traffic.is_over))
        };
        let lookouts: Vec<_> = nodes.iter().map(look).collect();
        world.carry_out(schedule);
        traffic.is_over.store(true, Ordering::SeqCst);
        evidence.sightings = lookouts.into_iter().flat_map(|it| it.join().expect("no panic")).collect();
    });
}

fn tell(evidence: &Evidence) {
    let of = |is: fn(&Told) -> bool| evidence.calls.attempts.iter().filter(|it| is(&it.told)).count();
    eprintln!(
        "{} requests asked {} times: {} done, {} refused, {} unknown; {} runs; {} sightings; {:?}",
        evidence.calls.requests.len(),
        evidence.calls.attempts.len(),
        of(|told| matches!(told, Told::Done { .. })),
        of(|told| matches!(told, Told::Refused(_))),
        of(|told| matches!(told, Told::Unknown(_))),
        evidence.runs.len(),
        evidence.sightings.len(),
        evidence.weights,
    );
}

/// What `scripts/fault_harness.sh` says to the test below; without it there is one short storm, the same in every gate.
#[derive(Debug)]
struct Order {
    seeds: RangeFrom<u64>,
    nodes: Option<usize>,
    storm: Duration,
    /// No storm begins after this.
    total: Duration,
}

impl Order {
    fn read() -> Self {
        let number = |name: &str| -> Option<u64> {
            let text = std::env::var(name).ok()?;
            Some(text.parse().unwrap_or_else(|_not_one| panic!("{name} is {text:?}, wanted a whole number")))
        };
        let storm = number("FAULTS_STORM").map_or(STORM, Duration::from_secs);
        assert!(STORM_MIN <= storm, "FAULTS_STORM is {storm:?}, wanted {STORM_MIN:?} or more: nothing breaks in less");
        Self {
            seeds: number("FAULTS_SEED").unwrap_or(GATE_SEED)..,
            nodes: number("FAULTS_NODES").map(|it| usize::try_from(it).expect("small")),
            storm,
            total: number("FAULTS_SECONDS").map_or(Duration::ZERO, Duration::from_secs),
        }
    }
}

/// Three to five.
fn nodes_of(seed: u64) -> usize {
    3 + Chance::new(seed).index(3)
}

#[test]
fn a_storm_of_faults_breaks_no_promise() {
    let order = Order::read();
    let watch = Stopwatch::start();
    let mut failed = Vec::new();
    for (seed, number) in order.seeds.zip(1..) {
        let nodes = order.nodes.unwrap_or_else(|| nodes_of(seed));
        let breaches = storm(seed, nodes, order.storm);
        breaches.iter().for_each(|breach| eprintln!("{breach}"));
        let verdict = if breaches.is_empty() { "holds" } else { "BROKEN" };
        eprintln!("VERDICT seed {seed}, {nodes} nodes: {verdict}; {number} storms in {:?}", watch.elapsed());
        failed.extend((!breaches.is_empty()).then_some(seed));
        if order.total <= watch.elapsed() {
            break;
        }
    }
    assert!(failed.is_empty(), "broken by the seeds {failed:?}; each again: scripts/fault_harness.sh --seed SEED");
}
