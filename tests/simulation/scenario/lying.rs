//! A disk that confirms what it does not keep, and the power that goes.

use std::collections::BTreeSet;

use trust_runtime::domain::audit::witness::Break;
use trust_runtime::domain::audit::{AuditId, Checkpoint, Draft, Hash, Outcome};
use trust_runtime::domain::envelope::Health;
use trust_runtime::domain::preflight::Profile;
use trust_runtime::domain::projection::Lifecycle;
use trust_runtime::engine::record::RequestKey;
use trust_runtime::engine::view::Peer;

use super::{assert_whole, captured, done, key, lifecycle, quiet, receipt, replay, revision, write};
use crate::fault::log_level;
use crate::node::{Setup, runtime};
use crate::witness::ROUND;
use crate::world::World;

const PLANT: Setup = Setup { nodes: 2, profile: Profile::Plant, is_loopback: false };
/// Who asks, and whose disk it is.
const ORIGIN: usize = 0;
const TARGET: usize = 1;

/// What its disk still owes to everybody when it begins to lie.
struct Owed {
    boot: u64,
    chain: (usize, Hash),
    executions: BTreeSet<(usize, RequestKey)>,
    acknowledged: Vec<(usize, RequestKey, AuditId)>,
    countersigned: Vec<(usize, Checkpoint)>,
}

fn lie(world: &mut World) -> Owed {
    world.nodes[TARGET].disk.begin_to_lie();
    let ledger = &world.ledger;
    Owed {
        boot: ledger.boots[TARGET],
        chain: ledger.chains[TARGET],
        executions: ledger.executions.keys().cloned().collect(),
        acknowledged: ledger.acknowledged.iter().filter(|it| it.0 == TARGET).cloned().collect(),
        countersigned: ledger.countersigned.iter().filter(|it| it.0 == TARGET).cloned().collect(),
    }
}

/// The power goes: of what was confirmed since, nothing is owed, and of what was before, everything.
fn crash(world: &mut World, owed: Owed) {
    world.crash(TARGET);
    let ledger = &mut world.ledger;
    ledger.was_set_back[TARGET] = true;
    ledger.boots[TARGET] = owed.boot;
    ledger.chains[TARGET] = owed.chain;
    for (place, execution) in ledger.executions.iter_mut().filter(|((node, _), _)| *node == TARGET) {
        if !owed.executions.contains(place) {
            execution.lose();
        }
    }
    ledger.acknowledged.retain(|it| it.0 != TARGET);
    ledger.acknowledged.extend(owed.acknowledged);
    ledger.countersigned.retain(|it| it.0 != TARGET);
    ledger.countersigned.extend(owed.countersigned);
}

/// Its process ends and comes back, while the machine and what it holds in memory go on.
fn restart(world: &mut World) {
    let kept = world.nodes[TARGET].disk.kept.take();
    world.crash(TARGET);
    world.nodes[TARGET].disk.kept = kept;
    world.start(TARGET);
    world.run(3_000);
}

/// The power comes back, to a disk that lies no more.
fn come_back(world: &mut World, owed: Owed) {
    crash(world, owed);
    world.run(500);
    world.start(TARGET);
    world.run(2_500);
}

fn write_there(world: &mut World, id: &str, level: &str) {
    let number = world.ask(ORIGIN, write(id, log_level(level), &[TARGET]), 1_000);
    world.run(1_500);
    assert!(done(world, number), "{id}: {:#?}", world.log);
}

/// What the origin shows of the target.
fn shown(world: &World) -> &Peer {
    &world.nodes[ORIGIN].live.as_ref().expect("alive").view.peers[&runtime(TARGET)]
}

/// Whatever moment the power goes at: every commit of the lie is lost, whole, and none from before it.
#[test]
fn what_a_lying_disk_has_lost_is_lost_whole_and_what_was_there_before_is_held() {
    let mut acknowledged = 0;
    for steps in 0..40 {
        let mut world = quiet(PLANT);
        write_there(&mut world, "kept", "debug");
        let kept = captured(&world, "act").pop().expect("captured");
        let (facts, entries) = (world.nodes[TARGET].disk.facts.clone(), world.nodes[TARGET].disk.entries.clone());
        let owed = lie(&mut world);
        let number = world.ask(ORIGIN, write("lost", log_level("info"), &[TARGET]), 1_000);
        (0..steps).for_each(|_| world.step());
        acknowledged += usize::from(world.ledger.told.contains_key(&number));
        come_back(&mut world, owed);
        let disk = &world.nodes[TARGET].disk;
        assert_eq!((revision(&world, TARGET), disk.facts.boot), (1, facts.boot.map(|boot| boot + 1)), "{steps}");
        assert_eq!((&disk.facts.receipts, disk.entries.get(..entries.len())), (&facts.receipts, Some(&entries[..])));
        let peer = shown(&world);
        let published = peer.identity.as_ref().map(|identity| identity.config_revision);
        assert_eq!((published, peer.wants_identity()), (Some(1), false), "{steps}: what is lost is shown no more");
        replay(&mut world, kept);
        world.run(1_500);
        assert_eq!(revision(&world, TARGET), 1, "{steps}: what was carried out before is carried out once");
        assert_whole(&world);
    }
    assert!((5..35).contains(&acknowledged), "{acknowledged} of 40 callers were told of what was lost then");
}

/// Nobody can know that it was done before. What was sent to the life that is lost counts for no other one, and the origin has the
/// proof of what is missing.
#[test]
fn a_request_that_a_lying_disk_has_lost_is_carried_out_by_no_copy_of_it() {
    let mut world = quiet(PLANT);
    write_there(&mut world, "kept", "debug");
    let owed = lie(&mut world);
    let number = world.ask(ORIGIN, write("lost", log_level("info"), &[TARGET]), 1_000);
    world.run(1_500);
    let lost = receipt(&world, number).position.expect("on record");
    let act = captured(&world, "act").pop().expect("captured");
    come_back(&mut world, owed);
    assert!(world.nodes[TARGET].disk.entries.iter().all(|entry| entry.position != lost), "the record is gone");
    let is_applied =
        |draft: &Draft| draft.outcome == Outcome::Applied && draft.request_id == Some(key("lost").request_id);
    assert!(world.nodes[ORIGIN].disk.entries.iter().any(|entry| is_applied(&entry.draft)), "and stands at the origin");
    for _ in 0..3 {
        replay(&mut world, act.clone());
        world.run(1_500);
        assert_eq!(revision(&world, TARGET), 1);
    }
    write_there(&mut world, "lost", "info");
    assert_eq!(revision(&world, TARGET), 2, "asked again by its caller it is done once in what is left");
    write_there(&mut world, "lost", "info");
    assert_eq!(revision(&world, TARGET), 2, "and is the same request from then on");
    assert_whole(&world);
}

/// How the target's log was found broken by its peer, and whether the target itself was told that it is.
fn found(world: &World) -> (Option<Break>, bool) {
    let told = world.nodes[TARGET].disk.facts.countersigned.get(&runtime(ORIGIN));
    let kept = world.nodes[ORIGIN].disk.facts.heads.get(&runtime(TARGET));
    (kept.and_then(|head| head.broken), told.is_some_and(|word| word.refused.is_some()))
}

#[test]
fn what_a_lying_disk_has_lost_is_named_by_whoever_has_countersigned_it() {
    // It lies or not, and its peers have seen what it loses or not.
    for (is_lying, is_seen) in [(true, true), (true, false), (false, true)] {
        let mut world = quiet(PLANT);
        world.has_rounds = true;
        write_there(&mut world, "kept", "debug");
        world.run(2 * ROUND);
        let owed = lie(&mut world);
        if !is_lying {
            world.nodes[TARGET].disk.kept = None;
        }
        world.has_rounds = is_seen;
        write_there(&mut world, "lost", "info");
        world.run(2 * ROUND);
        if is_lying {
            come_back(&mut world, owed);
        } else {
            restart(&mut world);
        }
        world.has_rounds = true;
        world.run(3 * ROUND);
        assert_whole(&world);
        let is_named = is_lying && is_seen;
        let wanted = is_named.then_some(Break::WentBack);
        assert_eq!(found(&world), (wanted, is_named), "lying: {is_lying}, seen: {is_seen}");
        let health = world.nodes[TARGET].live.as_ref().expect("alive").view.health();
        assert_eq!(health == Health::Degraded, is_named);
        for node in [ORIGIN, TARGET] {
            let entries = world.nodes[node].disk.entries.iter();
            let on_record = entries.filter(|it| it.draft.action == "continuity_broken").count();
            assert_eq!(on_record, usize::from(is_named), "n{node}");
        }
    }
}

/// Starts are on the disk as well. A boot that peers have heard already is counted again, until it is beyond what they know.
#[test]
fn boots_that_a_lying_disk_has_lost_are_counted_again_and_not_taken_for_new_ones() {
    for lost in 1..=3 {
        let mut world = quiet(PLANT);
        world.has_rounds = true;
        write_there(&mut world, "kept", "debug");
        world.run(2 * ROUND);
        let owed = lie(&mut world);
        (0..lost).for_each(|_| restart(&mut world));
        let known = shown(&world).boot;
        write_there(&mut world, "lost", "info");
        world.run(2 * ROUND);
        come_back(&mut world, owed);
        for _ in 1..lost {
            assert!(world.nodes[TARGET].disk.facts.boot < Some(known));
            for _ in 0..20 {
                world.run(500);
                assert_ne!(lifecycle(&world, ORIGIN, TARGET), Some(Lifecycle::Online), "{lost} lost");
            }
            let refused = &world.nodes[ORIGIN].live.as_ref().expect("alive").view.refused;
            assert!(refused.contains_key("old_boot"), "{refused:?}");
            restart(&mut world);
        }
        world.run(3 * ROUND);
        assert_eq!(world.nodes[TARGET].disk.facts.boot, Some(known), "the number that was used before");
        assert_eq!(lifecycle(&world, ORIGIN, TARGET), Some(Lifecycle::Online));
        let peer = shown(&world);
        let published = peer.identity.as_ref().map(|identity| identity.config_revision);
        assert_eq!(published, Some(1), "its document is the newer one, whatever its boot: {lost} lost");
        assert_eq!(found(&world), (Some(Break::WentBack), true), "{lost} lost");
        restart(&mut world);
        let peer = shown(&world);
        assert_eq!((peer.boot, peer.config_revision, peer.wants_identity()), (known + 1, Some(1), false));
        assert_whole(&world);
    }
}
