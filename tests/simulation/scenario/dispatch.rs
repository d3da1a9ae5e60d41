//! One write between two nodes, with its answer lost, its packets repeated, or one side killed at any point.

use trust_runtime::domain::action::Action;
use trust_runtime::domain::audit::{Entry, Outcome};
use trust_runtime::domain::code::Code;
use trust_runtime::engine::exchange::{Event, Finding};

use super::{
    LOOPBACK, assert_whole, captured, denied, done, finding, quiet, receipt, replay, revision, step_until, write,
};
use crate::fault::log_level;
use crate::network::Weather;
use crate::node::runtime;

#[test]
fn a_lost_receipt_is_learned_by_asking_for_the_outcome() {
    let mut world = quiet(LOOPBACK);
    let number = world.ask(0, write("w", log_level("debug"), &[1]), 400);
    step_until(&mut world, |world| revision(world, 1) == 1);
    world.network.weather = Weather { lost: 1_000, ..Weather::default() };
    world.run(300);
    world.network.weather = Weather::default();
    world.run(2_000);
    assert_whole(&world);
    assert!(done(&world, number) && receipt(&world, number).repeated);
    assert_eq!(revision(&world, 1), 1);
}

#[test]
fn a_refusal_of_a_repeated_question_is_not_taken_for_the_fate_of_the_first() {
    let mut world = quiet(LOOPBACK);
    let number = world.ask(0, write("w", log_level("debug"), &[1]), 1_000);
    step_until(&mut world, |world| revision(world, 1) == 1);
    // The link breaks under the answer, and what is sent after that does not verify any more.
    let live = world.nodes[0].live.as_ref().expect("alive");
    let ticket = live.dispatches[&number].open_ticket(0, world.nodes[0].epoch, number).expect("open");
    world.exchange_event(ticket, Event::NoReply);
    world.network.weather = Weather { bent: 1_000, ..Weather::default() };
    world.run(2_000);
    assert_whole(&world);
    assert_eq!(denied(&world, number), Code::Timeout);
}

#[test]
fn a_repeated_packet_is_carried_out_once() {
    let mut world = quiet(LOOPBACK);
    world.network.weather = Weather { repeated: 1_000, ..Weather::default() };
    let number = world.ask(0, write("w", log_level("debug"), &[1]), 1_000);
    world.run(2_000);
    let act = captured(&world, "act").pop().expect("captured");
    (0..5).for_each(|_| replay(&mut world, act.clone()));
    world.run(500);
    assert_whole(&world);
    assert!(done(&world, number));
    assert_eq!((revision(&world, 1), world.ledger.executions.len()), (1, 1));
}

#[test]
fn the_same_id_for_another_content_is_a_conflict() {
    let mut world = quiet(LOOPBACK);
    let first = world.ask(0, write("w", log_level("debug"), &[1]), 1_000);
    world.run(1_500);
    let other = world.ask(0, write("w", log_level("error"), &[1]), 1_000);
    let same = world.ask(0, write("w", log_level("debug"), &[1]), 1_000);
    world.run(1_500);
    assert_whole(&world);
    assert!(done(&world, first) && done(&world, same));
    assert_eq!(denied(&world, other), Code::Conflict);
    assert_eq!(receipt(&world, same).audit_id, receipt(&world, first).audit_id);
}

/// The own part of a write to several is refused when the others are on their way: that stands beside them.
#[test]
fn a_refused_own_part_is_on_record_with_the_parts_that_are_sent() {
    let mut world = quiet(LOOPBACK);
    world.ask(0, write("w", log_level("debug"), &[0]), 1_000);
    world.run(1_500);
    let number = world.ask(0, write("w", log_level("error"), &[0, 1]), 1_000);
    world.run(1_500);
    assert_whole(&world);
    assert!(done(&world, number));
    let is_here = |entry: &&Entry| entry.draft.target == runtime(0);
    let own = world.nodes[0].disk.entries.iter().rfind(is_here).expect("on record");
    assert_eq!((own.draft.outcome, own.draft.code), (Outcome::Denied, Some(Code::Conflict)));
}

#[test]
fn a_write_that_was_carried_out_stays_carried_out_when_the_policy_changes() {
    let mut world = quiet(LOOPBACK);
    let first = world.ask(0, write("w", log_level("debug"), &[1]), 1_000);
    world.run(1_500);
    world.nodes[1].policy = 2;
    world.crash(1);
    world.start(1);
    world.run(3_000);
    let again = world.ask(0, write("w", log_level("debug"), &[1]), 1_000);
    let new = world.ask(0, write("new", log_level("debug"), &[1]), 1_000);
    world.run(1_500);
    assert_whole(&world);
    assert_eq!(receipt(&world, again).audit_id, receipt(&world, first).audit_id);
    assert_eq!(denied(&world, new), Code::PermissionDenied);
}

/// Kills one side after every single event of a dispatch, starts it again, and asks again.
fn kill_at_every_point(victim: usize) {
    let mut points = 0;
    loop {
        let mut world = quiet(LOOPBACK);
        let number = world.ask(0, write("w", log_level("debug"), &[1]), 1_000);
        for _ in 0..points {
            world.step();
        }
        if world.ledger.told.contains_key(&number) && points > 10 {
            break;
        }
        world.crash(victim);
        world.run(200);
        world.start(victim);
        world.run(5_000);
        let again = world.ask(0, write("w", log_level("debug"), &[1]), 1_000);
        world.run(2_000);
        assert_whole(&world);
        assert!(done(&world, again), "killed n{victim} after {points} events");
        assert_eq!(revision(&world, 1), 1, "killed n{victim} after {points} events");
        world.settle();
        assert_whole(&world);
        points += 1;
    }
    assert!(10 < points, "only {points} points");
}

#[test]
fn the_target_may_be_killed_at_any_point() {
    kill_at_every_point(1);
}

#[test]
fn the_origin_may_be_killed_at_any_point() {
    kill_at_every_point(0);
}

#[test]
fn a_target_that_is_gone_leaves_the_outcome_unknown_and_on_record() {
    let mut world = quiet(LOOPBACK);
    let number = world.ask(0, write("w", Action::ping(), &[1]), 500);
    step_until(&mut world, |world| !world.nodes[0].disk.facts.intents.is_empty());
    world.crash(1);
    world.run(3_000);
    assert_whole(&world);
    assert!(matches!(finding(&world, number), Finding::Denied(denial) if denial.code == Code::Timeout));
    assert!(world.nodes[0].disk.facts.intents.is_empty());
}
