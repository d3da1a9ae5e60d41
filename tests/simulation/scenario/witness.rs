//! A log that does not go on from where it was: what its witness finds, and what its owner hears of it.

use trust_runtime::domain::audit::GENESIS;
use trust_runtime::domain::audit::witness::Break;
use trust_runtime::domain::envelope::Health;
use trust_runtime::domain::preflight::Profile;

use super::{assert_whole, quiet, write};
use crate::disk::Disk;
use crate::fault::log_level;
use crate::node::{Setup, runtime};
use crate::witness::ROUND;
use crate::world::World;

const OWNER: usize = 0;
const WITNESS: usize = 1;

/// Lets the owner put so many writes of its own on record.
fn write_there(world: &mut World, from: usize, count: usize) {
    for number in from..from + count {
        let level = if number.is_multiple_of(2) { "debug" } else { "info" };
        world.ask(OWNER, write(&format!("w-{number}"), log_level(level), &[OWNER]), 1_000);
        world.run(200);
    }
}

/// Another disk at the next start, of which nothing before is owed any more.
fn set_back(world: &mut World, disk: Disk) {
    world.crash(OWNER);
    world.ledger.boots[OWNER] = disk.facts.boot.unwrap_or_default();
    world.ledger.chains[OWNER] = (0, GENESIS);
    world.ledger.was_set_back[OWNER] = true;
    world.ledger.acknowledged.retain(|(target, _, _)| *target != OWNER);
    world.ledger.executions.retain(|(target, _), _| *target != OWNER);
    world.ledger.countersigned.retain(|(owner, _)| *owner != OWNER);
    world.nodes[OWNER].disk = disk;
    world.start(OWNER);
}

fn countersigned(world: &World) -> u64 {
    let kept = world.nodes[WITNESS].disk.facts.heads.get(&runtime(OWNER));
    kept.map_or(0, |head| head.checkpoint.size)
}

#[test]
fn a_log_that_is_brought_back_cut_or_goes_on_from_a_copy_is_found_by_its_witness() {
    for (is_cut, more, wanted) in [(false, 0, Break::WentBack), (true, 0, Break::WentBack), (false, 9, Break::Forked)] {
        let mut world = quiet(Setup { nodes: 2, profile: Profile::Plant, is_loopback: false });
        world.has_rounds = true;
        write_there(&mut world, 0, 3);
        world.run(2 * ROUND);
        let copy = world.nodes[OWNER].disk.clone();
        let size = countersigned(&world);
        write_there(&mut world, 3, 5);
        world.run(2 * ROUND);
        assert!(size < countersigned(&world), "the longer log is countersigned: {:#?}", world.log);
        let newest = world.nodes[OWNER].disk.clone();
        world.cut(OWNER, WITNESS);
        let entries = copy.entries.clone();
        set_back(&mut world, if is_cut { Disk { entries, ..newest } } else { copy });
        write_there(&mut world, 20, more);
        world.mend(OWNER, WITNESS);
        world.run(3 * ROUND);
        assert_whole(&world);
        let found = world.nodes[WITNESS].disk.facts.heads[&runtime(OWNER)].broken;
        assert_eq!(found, Some(wanted), "cut: {is_cut}, {more} more");
        let told = world.nodes[OWNER].disk.facts.countersigned[&runtime(WITNESS)].refused.as_ref();
        assert_eq!(told.map(|told| told.reason), Some(wanted), "its owner hears of it");
        let health = world.nodes[OWNER].live.as_ref().expect("alive").view.health();
        assert_eq!(health, Health::Degraded);
        let is_on_record = |node: usize| {
            world.nodes[node].disk.entries.iter().filter(|it| it.draft.action == "continuity_broken").count()
        };
        assert_eq!((is_on_record(OWNER), is_on_record(WITNESS)), (1, 1));
    }
}
