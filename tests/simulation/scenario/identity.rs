//! Names and keys: impostors, clones, and peers that nobody approved.

use trust_runtime::domain::code::Code;
use trust_runtime::domain::envelope::Health;
use trust_runtime::domain::envelope::dsse::PayloadType;
use trust_runtime::domain::identity::IdentityKey;
use trust_runtime::domain::preflight::Profile;
use trust_runtime::domain::time::Millis;
use trust_runtime::engine::word::Observation;
use trust_runtime::wire::mesh as wire;

use super::{LOOPBACK, assert_whole, denied, done, quiet, revision, write};
use crate::fault::log_level;
use crate::network::{Body, Packet};
use crate::node::{Setup, runtime, true_wall};

#[test]
fn an_impostor_changes_no_pin_and_executes_nothing() {
    let mut world = quiet(LOOPBACK);
    world.run(500);
    let pin = world.nodes[1].disk.facts.peers.clone();
    for _ in 0..20 {
        world.forge_write(0, 1);
        world.forge_word(0, 1);
        world.run(20);
    }
    assert_whole(&world);
    assert_eq!(world.nodes[1].disk.facts.peers, pin);
    assert_eq!((revision(&world, 1), world.ledger.executions.len()), (0, 0));
    let view = &world.nodes[1].live.as_ref().expect("alive").view;
    assert!(view.refused.contains_key("changed_key"), "{:?}", view.refused);
}

#[test]
fn a_clone_with_the_same_id_and_key_is_noticed_by_the_one_it_copies() {
    let mut world = quiet(LOOPBACK);
    let now = true_wall(world.now);
    let copied = &world.nodes[0].identity;
    let keys = wire::delegate(copied, IdentityKey::from_seed([9; 32]), &runtime(0), now, now.plus(Millis(60_000)));
    let observation = Observation {
        runtime: runtime(0),
        boot: 7,
        sequence: 1,
        at: now,
        health: Health::Healthy,
        config_revision: 0,
        runs_head: None,
        edges: None,
        is_leaving: false,
    };
    let bytes = wire::seal_observation(&keys, &observation);
    let body = Body::Word { about: runtime(0), document: PayloadType::Observation, bytes };
    world.arrive(Packet { from: 1, to: 0, body });
    world.run(10);
    let view = &world.nodes[0].live.as_ref().expect("alive").view;
    assert_eq!(view.refused.get("clone_of_this_runtime"), Some(&1));
    assert!(view.timeline.iter().any(|event| event.summary.contains("clone_of_this_runtime")));
    assert_whole(&world);
}

#[test]
fn off_loopback_a_write_waits_for_the_approval_of_its_origin() {
    let mut world = quiet(Setup { nodes: 2, profile: Profile::Dev, is_loopback: false });
    let before = world.ask(0, write("before", log_level("debug"), &[1]), 500);
    world.run(1_500);
    world.approve_all(1);
    let after = world.ask(0, write("after", log_level("debug"), &[1]), 500);
    world.run(1_500);
    assert_whole(&world);
    assert_eq!(denied(&world, before), Code::UntrustedIdentity);
    assert!(done(&world, after));
}
