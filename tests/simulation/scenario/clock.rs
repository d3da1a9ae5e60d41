//! A wall clock that goes back or jumps a day ahead: reads go on, nothing new is granted, nothing runs twice.

use trust_runtime::domain::code::Code;
use trust_runtime::domain::preflight::Profile;
use trust_runtime::domain::projection::Lifecycle;
use trust_runtime::engine::input::Request;

use super::{LOOPBACK, assert_whole, captured, denied, done, key, quiet, replay, revision, write};
use crate::fault::log_level;
use crate::network::Packet;
use crate::node::{Setup, asker};
use crate::world::World;

const PLANT: Setup = Setup { nodes: 2, profile: Profile::Plant, is_loopback: false };
const DAY_MS: i64 = 86_400_000;

/// A write that node 1 carried out for node 0, as it travelled.
fn carried_out(world: &mut World) -> Packet {
    let number = world.ask(0, write("w", log_level("debug"), &[1]), 1_000);
    world.run(1_500);
    assert!(done(world, number));
    captured(world, "act").pop().expect("captured")
}

/// Node 1's clock jumps, and the node writes something of its own there: only a write drops old receipts.
fn write_at(world: &mut World, jump: i64, id: &str) {
    world.set_wall(1, jump);
    world.run(1_500);
    world.ask(1, write(id, log_level("info"), &[1]), 1_000);
    world.run(500);
}

#[test]
fn an_uncertain_clock_grants_nothing_until_a_person_says_that_it_is_right() {
    let mut world = quiet(PLANT);
    world.set_wall(1, -20_000);
    world.run(1_500);
    let refused = world.ask(0, write("w", log_level("debug"), &[1]), 1_000);
    world.run(1_500);
    assert_eq!(denied(&world, refused), Code::ClockUncertain);
    world.admin(1, Request::TimeReset { asker: asker("admin") });
    world.run(500);
    let granted = world.ask(0, write("w", log_level("debug"), &[1]), 1_000);
    world.run(1_500);
    assert_whole(&world);
    assert!(done(&world, granted));
}

#[test]
fn a_clock_that_runs_ahead_for_a_while_does_not_forget_what_was_carried_out() {
    // One jump that is noticed, and two that are each too small to be.
    for jumps in [[DAY_MS + 3_600_000, DAY_MS + 3_600_000], [20 * 3_600_000, 2 * 20 * 3_600_000]] {
        let mut world = quiet(LOOPBACK);
        let act = carried_out(&mut world);
        jumps.into_iter().enumerate().for_each(|(index, jump)| write_at(&mut world, jump, &format!("own-{index}")));
        let before = revision(&world, 1);
        world.set_wall(1, 0);
        replay(&mut world, act);
        world.run(1_500);
        assert_whole(&world);
        assert_eq!(revision(&world, 1), before, "{jumps:?}");
        assert!(world.ledger.executions.contains_key(&(1, key("w"))));
    }
}

/// The receipt is dropped under two jumps that are each too small to be noticed, and a restart forgets all but the disk.
#[test]
fn a_restart_after_the_receipt_was_dropped_does_not_make_its_request_new() {
    let mut world = quiet(LOOPBACK);
    let act = carried_out(&mut world);
    for jump in [20 * 3_600_000, 40 * 3_600_000] {
        write_at(&mut world, jump, &format!("own-{jump}"));
    }
    assert!(!world.nodes[1].disk.facts.receipts.contains_key(&key("w")), "dropped");
    world.crash(1);
    world.set_wall(1, 0);
    world.start(1);
    let before = revision(&world, 1);
    replay(&mut world, act);
    world.run(1_500);
    assert_whole(&world);
    assert_eq!(revision(&world, 1), before);
    let view = &world.nodes[1].live.as_ref().expect("alive").view;
    assert_eq!(view.refused.get("replayed"), Some(&1), "{:?}", view.refused);
}

#[test]
fn a_receipt_dropped_in_a_false_future_stops_writes_until_a_person_resets_the_time() {
    let mut world = quiet(LOOPBACK);
    for jump in [20 * 3_600_000, 40 * 3_600_000, 60 * 3_600_000] {
        write_at(&mut world, jump, &format!("own-{jump}"));
    }
    assert!(!world.nodes[1].disk.facts.receipts.contains_key(&key("own-72000000")), "dropped");
    world.crash(1);
    world.set_wall(1, 0);
    world.start(1);
    world.run(2_500);
    let refused = world.ask(0, write("w", log_level("debug"), &[1]), 1_000);
    world.run(1_500);
    assert_eq!(denied(&world, refused), Code::Replayed);
    world.admin(1, Request::TimeReset { asker: asker("admin") });
    // What was asked before the reset, or by a clock that is slower by the permitted skew, may have been done.
    world.run(31_000);
    let granted = world.ask(0, write("w", log_level("debug"), &[1]), 1_000);
    world.run(1_500);
    assert_whole(&world);
    assert!(done(&world, granted));
}

/// Far enough for the delegation to be renewed there, near enough to be believed.
#[test]
fn a_clock_that_jumps_ahead_and_back_leaves_nobody_mute_or_out_of_date() {
    for jump in [3_600_000, 20 * 3_600_000] {
        let mut world = quiet(LOOPBACK);
        let known = |world: &World| {
            let view = &world.nodes[0].live.as_ref().expect("alive").view;
            view.peers[&crate::node::runtime(1)].identity.as_ref().map(|identity| identity.config_revision)
        };
        world.set_wall(1, jump);
        world.run(1_500);
        world.ask(1, write("ahead", log_level("debug"), &[1]), 1_000);
        world.run(1_500);
        world.set_wall(1, 0);
        // One period to renew, and one for the word under the new delegation.
        world.run(2_500);
        assert_eq!(super::lifecycle(&world, 0, 1), Some(Lifecycle::Online), "{jump}");
        world.ask(1, write("back", log_level("info"), &[1]), 1_000);
        world.run(2_500);
        assert_whole(&world);
        assert_eq!((revision(&world, 1), known(&world)), (2, Some(2)), "{jump}");
        let number = world.ask(1, write("out", log_level("debug"), &[0]), 1_000);
        world.run(1_500);
        assert!(done(&world, number), "its envelopes are believed again");
    }
}

#[test]
fn a_restart_after_a_clock_that_ran_ahead_remembers_what_was_carried_out() {
    let mut world = quiet(LOOPBACK);
    let act = carried_out(&mut world);
    write_at(&mut world, 3 * DAY_MS, "own");
    world.crash(1);
    world.set_wall(1, 0);
    world.start(1);
    let before = revision(&world, 1);
    replay(&mut world, act);
    world.run(1_500);
    assert_whole(&world);
    assert_eq!(revision(&world, 1), before);
}
