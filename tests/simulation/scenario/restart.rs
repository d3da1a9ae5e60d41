//! What a restart must not forget: requests, pins, boots. And what nobody may bring back: the dead.

use trust_runtime::domain::code::Code;
use trust_runtime::domain::preflight::Profile;
use trust_runtime::domain::projection::Lifecycle;

use super::{LOOPBACK, assert_whole, captured, denied, done, lifecycle, quiet, replay, revision, step_until, write};
use crate::disk::Condition;
use crate::fault::log_level;
use crate::node::Setup;

#[test]
fn a_replay_after_a_restart_is_not_carried_out_again() {
    let mut world = quiet(LOOPBACK);
    let number = world.ask(0, write("w", log_level("debug"), &[1]), 1_000);
    world.run(1_500);
    assert!(done(&world, number));
    let act = captured(&world, "act").pop().expect("captured");
    world.crash(1);
    world.start(1);
    replay(&mut world, act);
    world.run(4_000);
    assert_whole(&world);
    assert_eq!((revision(&world, 1), world.ledger.executions.len()), (1, 1));
}

/// Its origin has told its caller that it was not carried out, and somebody has kept a copy until there is space again.
#[test]
fn a_copy_of_a_refused_write_is_refused_by_whatever_life_it_finds() {
    let mut world = quiet(LOOPBACK);
    world.nodes[1].disk.condition = Condition::Full;
    // The first tells the target that it cannot write; the second is refused as it comes.
    for (id, level) in [("first", "info"), ("w", "debug")] {
        let number = world.ask(0, write(id, log_level(level), &[1]), 1_000);
        world.run(1_500);
        assert_eq!(denied(&world, number), Code::StorageUnavailable);
    }
    let acts = captured(&world, "act");
    for _ in 0..2 {
        world.crash(1);
        world.nodes[1].disk.condition = Condition::Fine;
        world.start(1);
        acts.iter().for_each(|act| replay(&mut world, act.clone()));
        world.run(4_000);
        assert_whole(&world);
        assert_eq!((revision(&world, 1), world.ledger.executions.len()), (0, 0));
    }
    // The same request is carried out once its origin asks again, and a copy of the first envelope gets the receipt of that.
    let again = world.ask(0, write("w", log_level("debug"), &[1]), 1_000);
    world.run(1_500);
    assert!(done(&world, again));
    acts.iter().for_each(|act| replay(&mut world, act.clone()));
    world.run(1_000);
    assert_whole(&world);
    assert_eq!((revision(&world, 1), world.ledger.executions.len()), (1, 1));
}

/// The target has come back, and its origin has not heard of it yet.
#[test]
fn a_write_for_a_life_that_is_over_is_refused_at_once_and_taken_when_the_new_one_is_heard() {
    let mut world = quiet(LOOPBACK);
    world.crash(1);
    world.start(1);
    let early = world.ask(0, write("w", log_level("debug"), &[1]), 1_000);
    step_until(&mut world, |world| world.ledger.told.contains_key(&early));
    assert_eq!(denied(&world, early), Code::Replayed);
    world.run(2_500);
    let number = world.ask(0, write("w", log_level("debug"), &[1]), 1_000);
    world.run(1_500);
    assert_whole(&world);
    assert!(done(&world, number));
    assert_eq!((revision(&world, 1), world.ledger.executions.len()), (1, 1));
}

#[test]
fn a_restart_keeps_the_identity_and_begins_a_new_boot() {
    let mut world = quiet(LOOPBACK);
    let boot = |world: &crate::world::World| {
        let view = &world.nodes[0].live.as_ref().expect("alive").view;
        view.peers.get(&crate::node::runtime(1)).map(|peer| (peer.pinned, peer.boot))
    };
    let before = boot(&world).expect("known");
    world.crash(1);
    world.run(1_000);
    assert_eq!(lifecycle(&world, 0, 1), Some(Lifecycle::Partitioned));
    world.start(1);
    world.run(2_500);
    assert_whole(&world);
    assert_eq!(boot(&world), Some((before.0, before.1 + 1)));
    assert_eq!(lifecycle(&world, 0, 1), Some(Lifecycle::Online));
    assert_eq!(world.nodes[0].live.as_ref().expect("alive").view.refused.get("changed_key"), None);
}

#[test]
fn captured_words_do_not_bring_a_dead_runtime_back_to_one_that_restarted() {
    let mut world = quiet(Setup { nodes: 2, profile: Profile::Dev, is_loopback: true });
    world.attacker.replays_words = true;
    let words = [captured(&world, "observation"), captured(&world, "identity")].concat();
    let theirs: Vec<_> = words.into_iter().filter(|packet| packet.from == 1).collect();
    assert!(theirs.len() > 2);
    world.crash(1);
    world.run(60_000);
    world.crash(0);
    world.start(0);
    for packet in theirs {
        replay(&mut world, packet);
        world.run(100);
        assert_ne!(lifecycle(&world, 0, 1), Some(Lifecycle::Online));
    }
    assert_whole(&world);
}
