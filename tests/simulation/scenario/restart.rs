//! What a restart must not forget: requests, pins, boots. And what nobody may bring back: the dead.

use trust_runtime::domain::preflight::Profile;
use trust_runtime::domain::projection::Lifecycle;

use super::{LOOPBACK, assert_whole, captured, done, lifecycle, quiet, replay, revision, write};
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
