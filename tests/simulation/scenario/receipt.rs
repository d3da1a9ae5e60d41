//! A target's memory of requests, at its bound.

use trust_runtime::domain::audit::{AuditId, Hash};
use trust_runtime::domain::code::Code;
use trust_runtime::domain::envelope::Response;
use trust_runtime::domain::time::{Millis, Wall};
use trust_runtime::engine::record::Receipt;

use super::{LOOPBACK, assert_whole, denied, done, key, quiet, write};
use crate::fault::log_level;
use crate::node::true_wall;
use crate::world::World;

/// Most receipts of all origins together, and of one.
const ALL_MAX: usize = 100_000;
const OF_ORIGIN_MAX: usize = 10_000;

const DAY: Millis = Millis::from_hours(24);

/// Starts the second node with receipts of these origins, of each as many as it may have.
fn fill(world: &mut World, origins: impl Iterator<Item = String>, at: impl Fn(usize) -> Wall) {
    world.crash(1);
    let each = origins.flat_map(|origin| std::iter::repeat_n(origin, OF_ORIGIN_MAX));
    for (number, origin) in each.enumerate() {
        let receipt = Receipt {
            key: key(&format!("old-{number}")),
            origin: origin.parse().expect("legal"),
            digest: Hash([0; 32]),
            at: at(number),
            audit_id: AuditId::new(at(number), [0; 10]),
            response: Response::Pong,
        };
        world.nodes[1].disk.facts.receipts.insert(receipt.key.clone(), receipt);
    }
    world.start(1);
    world.run(2_500);
}

#[test]
fn a_full_table_of_receipts_refuses_a_write_until_one_is_over_and_evicts_none() {
    let mut world = quiet(LOOPBACK);
    let now = true_wall(world.now);
    // One is over in ten seconds, all others in a day.
    let origins = (0..ALL_MAX / OF_ORIGIN_MAX).map(|index| format!("plant-1/other-{index}"));
    fill(&mut world, origins, |number| if number == 0 { now.plus(Millis::from_secs(10)).minus(DAY) } else { now });
    let refused = world.ask(0, write("w", log_level("debug"), &[1]), 1_000);
    world.run(1_500);
    assert_eq!(denied(&world, refused), Code::ServerBusy);
    assert_eq!(world.nodes[1].disk.facts.receipts.len(), ALL_MAX);
    world.run(10_000);
    // What was dropped was given so long ago that nothing asked since is taken for it.
    let granted = world.ask(0, write("w", log_level("debug"), &[1]), 1_000);
    world.run(1_500);
    assert!(done(&world, granted));
    let next = world.ask(0, write("next", log_level("info"), &[1]), 1_000);
    world.run(1_500);
    assert_whole(&world);
    assert_eq!(denied(&world, next), Code::ServerBusy);
    let receipts = &world.nodes[1].disk.facts.receipts;
    assert!(receipts.len() == ALL_MAX && !receipts.contains_key(&key("old-0")) && receipts.contains_key(&key("w")));
}

#[test]
fn the_newest_receipts_of_an_origin_displace_its_own_oldest_and_none_that_may_be_repeated() {
    let origins = || ["plant-1/n0".to_owned(), "plant-1/other".to_owned()].into_iter();
    for (age, may_be_repeated) in [(170, true), (200, false)] {
        let mut world = quiet(LOOPBACK);
        let at = true_wall(world.now).minus(Millis::from_secs(age));
        fill(&mut world, origins(), |number| if number < OF_ORIGIN_MAX { at } else { at.minus(Millis::from_hours(1)) });
        let number = world.ask(0, write("w", log_level("debug"), &[1]), 1_000);
        world.run(1_500);
        assert_whole(&world);
        if may_be_repeated {
            assert_eq!(denied(&world, number), Code::ServerBusy);
        } else {
            assert!(done(&world, number));
        }
        let receipts = &world.nodes[1].disk.facts.receipts;
        assert_eq!(receipts.len(), 2 * OF_ORIGIN_MAX);
        assert_eq!(receipts.contains_key(&key("old-0")), may_be_repeated);
    }
}
