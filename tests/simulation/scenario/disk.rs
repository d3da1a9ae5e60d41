//! A disk that is full or broken under a target: nothing is promised that would not last.

use trust_runtime::domain::audit::{Draft, Outcome};
use trust_runtime::domain::code::Code;
use trust_runtime::domain::projection::Lifecycle;

use super::{LOOPBACK, assert_whole, denied, done, lifecycle, quiet, revision, step_until, write};
use crate::disk::Condition;
use crate::fault::log_level;
use crate::world::World;

#[test]
fn a_full_disk_refuses_the_write_and_takes_it_once_there_is_space() {
    let mut world = quiet(LOOPBACK);
    world.set_disk(1, Condition::Full);
    let refused = world.ask(0, write("w", log_level("debug"), &[1]), 1_000);
    world.run(1_500);
    assert_eq!(denied(&world, refused), Code::StorageUnavailable);
    assert_eq!(revision(&world, 1), 0);
    world.set_disk(1, Condition::Fine);
    world.run(1_500);
    let taken = world.ask(0, write("w", log_level("debug"), &[1]), 1_000);
    world.run(1_500);
    assert_whole(&world);
    assert!(done(&world, taken));
    assert_eq!(revision(&world, 1), 1);
}

/// The origin's disk is full when the outcome is to be put on record: it is, once there is space, without a restart.
#[test]
fn an_outcome_that_found_no_space_is_on_record_once_there_is_space() {
    // Full for one attempt of the store, and for several.
    for full_for in [100, 4_000] {
        let mut world = quiet(LOOPBACK);
        let number = world.ask(0, write("w", log_level("debug"), &[1]), 1_000);
        step_until(&mut world, |world| revision(world, 1) == 1);
        world.set_disk(0, Condition::Full);
        world.run(full_for);
        assert!(done(&world, number));
        assert_eq!(outcomes(&world, "w"), [Outcome::Intended]);
        world.set_disk(0, Condition::Fine);
        world.run(3_000);
        assert_whole(&world);
        assert_eq!(outcomes(&world, "w"), [Outcome::Intended, Outcome::Applied], "{full_for}");
        assert!(world.nodes[0].disk.facts.intents.is_empty());
    }
}

/// What the origin has on record of a request.
fn outcomes(world: &World, id: &str) -> Vec<Outcome> {
    let is_wanted = |draft: &Draft| draft.request_id.as_ref().is_some_and(|it| it.as_str() == id);
    let entries = world.nodes[0].disk.entries.iter().filter(|entry| is_wanted(&entry.draft));
    entries.map(|entry| entry.draft.outcome).collect()
}

#[test]
fn a_broken_disk_stays_read_only_until_a_restart_and_the_node_stays_visible() {
    let mut world = quiet(LOOPBACK);
    world.set_disk(1, Condition::Broken);
    let first = world.ask(0, write("first", log_level("debug"), &[1]), 1_000);
    world.run(3_000);
    let second = world.ask(0, write("second", log_level("debug"), &[1]), 1_000);
    world.run(3_000);
    assert_eq!(denied(&world, first), Code::Timeout, "a restart may find it");
    assert_eq!(denied(&world, second), Code::StorageUnavailable);
    assert_eq!((lifecycle(&world, 0, 1), lifecycle(&world, 1, 0)), (Some(Lifecycle::Online), Some(Lifecycle::Online)));
    assert!(world.nodes[1].live.as_ref().expect("alive").view.is_read_only);
    world.crash_and_restart(1);
    world.run(10_000);
    let third = world.ask(0, write("third", log_level("debug"), &[1]), 1_000);
    world.run(1_500);
    assert_whole(&world);
    assert!(done(&world, third));
}
