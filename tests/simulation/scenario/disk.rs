//! A disk that is full or broken under a target: nothing is promised that would not last.

use trust_runtime::domain::code::Code;
use trust_runtime::domain::projection::Lifecycle;

use super::{LOOPBACK, assert_whole, denied, done, lifecycle, quiet, revision, write};
use crate::disk::Condition;
use crate::fault::log_level;

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

#[test]
fn a_broken_disk_stays_read_only_until_a_restart_and_the_node_stays_visible() {
    let mut world = quiet(LOOPBACK);
    world.set_disk(1, Condition::Broken);
    let first = world.ask(0, write("first", log_level("debug"), &[1]), 1_000);
    world.run(3_000);
    let second = world.ask(0, write("second", log_level("debug"), &[1]), 1_000);
    world.run(3_000);
    assert_eq!(denied(&world, first), Code::StorageUnavailable);
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
