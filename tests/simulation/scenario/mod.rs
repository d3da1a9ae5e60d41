//! Single faults in a quiet world, each at the worst moment.

mod clock;
mod dispatch;
mod disk;
mod identity;
mod lying;
mod receipt;
mod restart;
mod witness;
mod years;

use trust_runtime::domain::action::Action;
use trust_runtime::domain::code::Code;
use trust_runtime::domain::envelope::{Receipt, Ruling};
use trust_runtime::domain::preflight::Profile;
use trust_runtime::domain::projection::Lifecycle;
use trust_runtime::engine::exchange::Finding;
use trust_runtime::engine::input::Write;
use trust_runtime::engine::record::RequestKey;

use crate::dispatch::Told;
use crate::network::{Body, Packet};
use crate::node::{Setup, asker, runtime};
use crate::world::World;

const LOOPBACK: Setup = Setup { nodes: 2, profile: Profile::Dev, is_loopback: true };

/// A world in which everybody knows everybody, and nobody shows a log.
fn quiet(setup: Setup) -> World {
    let mut world = World::new(setup, 1);
    world.has_rounds = false;
    world.run(4_000);
    world
}

fn write(id: &str, action: Action, targets: &[usize]) -> Write {
    let targets = targets.iter().map(|index| runtime(*index)).collect();
    Write { asker: asker("alice"), request_id: id.parse().expect("legal"), action, targets }
}

fn key(id: &str) -> RequestKey {
    RequestKey { actor: asker("alice").actor, request_id: id.parse().expect("legal") }
}

/// Steps to a moment that must come soon.
fn step_until(world: &mut World, has_come: impl Fn(&World) -> bool) {
    for _ in 0..2_000 {
        if has_come(world) {
            return;
        }
        world.step();
    }
    panic!("the moment does not come: {:#?}", world.log);
}

/// How often this node really carried it out: its receipts and its revision say the same.
fn revision(world: &World, node: usize) -> u64 {
    world.nodes[node].disk.facts.overlay.as_ref().map_or(0, |overlay| overlay.revision)
}

fn finding(world: &World, number: u64) -> Finding {
    match world.ledger.told.get(&number) {
        Some(Told::Findings(findings)) => findings.first().expect("one part").1.clone(),
        other => panic!("wanted a finding of #{number}, got {other:?}"),
    }
}

fn receipt(world: &World, number: u64) -> Receipt {
    match finding(world, number) {
        Finding::Receipt(receipt) => *receipt,
        Finding::Denied(denial) => panic!("wanted a receipt of #{number}, got {denial:?}"),
    }
}

fn done(world: &World, number: u64) -> bool {
    matches!(receipt(world, number).ruling, Ruling::Done(_))
}

/// The code with which it was denied, by either side.
fn denied(world: &World, number: u64) -> Code {
    match finding(world, number) {
        Finding::Denied(denial) => denial.code,
        Finding::Receipt(receipt) => match receipt.ruling {
            Ruling::Refused(denial) => denial.code,
            Ruling::Done(response) => panic!("wanted a denial of #{number}, got {response:?}"),
        },
    }
}

fn lifecycle(world: &World, observer: usize, other: usize) -> Option<Lifecycle> {
    let node = &world.nodes[observer];
    let view = &node.live.as_ref().expect("alive").view;
    view.standing(&runtime(other), node.monotonic_of(world.now)).map(|standing| standing.lifecycle)
}

/// Every captured packet of this kind, in the order it was sent.
fn captured(world: &World, name: &str) -> Vec<Packet> {
    world.network.captured.iter().filter(|packet| packet.body.name() == name).cloned().collect()
}

/// Sends an old packet again; nobody waits for an answer.
fn replay(world: &mut World, mut packet: Packet) {
    if let Body::Query { ticket, .. } = &mut packet.body {
        *ticket = None;
    }
    world.arrive(packet);
}

fn assert_whole(world: &World) {
    assert!(world.breach.is_none(), "{:?}\n{:#?}", world.breach, world.log);
}
