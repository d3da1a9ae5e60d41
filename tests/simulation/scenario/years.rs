//! A clock that is ten years off, ahead and behind: nothing is granted by it, every question ends, and others notice nothing.

use trust_runtime::domain::action::Action;
use trust_runtime::domain::envelope::Ruling;
use trust_runtime::domain::preflight::Profile;
use trust_runtime::engine::exchange::Finding;
use trust_runtime::engine::input::Request;
use trust_runtime::engine::view::ClockState;

use super::{assert_whole, done, quiet, revision, write};
use crate::dispatch::Told;
use crate::fault::log_level;
use crate::node::{Node, Setup, asker};
use crate::world::World;

const PLANT: Setup = Setup { nodes: 3, profile: Profile::Plant, is_loopback: false };
const TEN_YEARS_MS: i64 = 10 * 365 * 86_400_000;

/// Whose clock is wrong.
const WRONG: usize = 1;

/// Whether a write was carried out anywhere; it has ended, whatever came of it.
fn is_granted(world: &World, number: u64) -> bool {
    match world.ledger.told.get(&number).expect("it ends within its budget") {
        Told::Nothing => false,
        Told::Findings(findings) => findings.iter().any(|(_, finding)| match finding {
            Finding::Receipt(receipt) => matches!(receipt.ruling, Ruling::Done(_)),
            Finding::Denied(_) => false,
        }),
    }
}

fn clock(world: &World, node: usize) -> ClockState {
    world.nodes[node].live.as_ref().expect("alive").view.clock
}

/// Everybody asks everybody; only what is between the two with a right clock happens.
fn assert_nothing_is_granted(world: &mut World, name: &str) {
    let before = [revision(world, 0), revision(world, WRONG)];
    let to = world.ask(0, write(&format!("to-{name}"), log_level("debug"), &[WRONG]), 1_000);
    let from = world.ask(WRONG, write(&format!("from-{name}"), log_level("debug"), &[0]), 1_000);
    let own = world.ask(WRONG, write(&format!("own-{name}"), Action::ping(), &[0, 2]), 1_000);
    for (origin, target) in [(0, WRONG), (WRONG, 0)] {
        world.ask(origin, write(&format!("read-{name}"), Action::StatusRead, &[target]), 1_000);
    }
    let others = [(0, 2), (2, 0)].map(|(origin, target)| {
        let level = if origin == 0 { "warn" } else { "info" };
        world.ask(origin, write(&format!("fine-{origin}-{name}"), log_level(level), &[target]), 1_000)
    });
    world.run(2_500);
    for number in [to, from, own] {
        assert!(!is_granted(world, number), "{name}: #{number}");
    }
    let waits = |node: &Node| node.live.as_ref().is_some_and(|live| !live.dispatches.is_empty());
    assert!(!world.nodes.iter().any(waits), "{name}: a read does not end");
    for number in others {
        assert!(done(world, number), "{name}: the others are affected");
    }
    assert_eq!([revision(world, 0), revision(world, WRONG)], [before[0] + 1, before[1]], "{name}");
    assert_eq!([clock(world, 0), clock(world, 2)], [ClockState::Certain; 2], "{name}");
}

#[test]
fn a_running_clock_that_jumps_ten_years_grants_nothing_and_harms_nobody_else() {
    for (name, fault) in [("ahead", TEN_YEARS_MS), ("behind", -TEN_YEARS_MS)] {
        let mut world = quiet(PLANT);
        world.set_wall(WRONG, fault);
        world.run(5_000);
        assert_nothing_is_granted(&mut world, name);
        assert_eq!(clock(&world, WRONG), ClockState::Uncertain, "{name}");
        let view = &world.nodes[WRONG].live.as_ref().expect("alive").view;
        assert!(
            view.timeline.iter().any(|row| row.summary.contains("its time is uncertain")),
            "{name}: nobody is told"
        );
        assert_whole(&world);
    }
}

#[test]
fn a_start_ten_years_off_grants_nothing_and_is_mended_by_the_right_time_and_a_person() {
    for (name, fault) in [("ahead", TEN_YEARS_MS), ("behind", -TEN_YEARS_MS)] {
        let mut world = quiet(PLANT);
        world.crash(WRONG);
        world.set_wall(WRONG, fault);
        world.start(WRONG);
        world.run(6_000);
        assert_nothing_is_granted(&mut world, name);
        world.set_wall(WRONG, 0);
        world.run(3_000);
        assert_eq!(clock(&world, WRONG), ClockState::Uncertain, "{name}: one of the two times was wrong");
        world.admin(WRONG, Request::TimeReset { asker: asker("admin") });
        world.run(3_000);
        let granted = world.ask(0, write("after", log_level("debug"), &[WRONG]), 1_000);
        world.run(2_000);
        assert!(done(&world, granted), "{name}");
        assert_whole(&world);
    }
}
