//! The judge itself, by evidence that is sound and then bent, once and again for each rule: it must say so, by that rule.

use std::time::Duration;

use super::cable::Weather;
use super::evidence::{Asked, Attempt, Done, Evidence, Kept, Record, Run, Sighting, Told, Weight, Wish};
use super::judge::{
    ACKNOWLEDGED_ONCE, AGREE, AT_MOST_ONCE, BOUNDED, CONCLUDED, EFFECT_BY_RECORD, ENDS_AS_ASKED, NOT_HEALTHY,
    NOTHING_LEFT, REFUSED_NEVER, REVISION, RUNS_END, SAME_RECEIPT, SETTLES, SOMETHING_SEEN, VERIFIES, judge,
};
use super::schedule::{Fault, Link, Node};

const A: Node = Node(0);
const B: Node = Node(1);

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn record(audit_id: &str, id: &str, action: &str, outcome: &str, detail: &str) -> Record {
    let text = str::to_owned;
    Record {
        audit_id: text(audit_id),
        request_id: text(id),
        origin: text("a"),
        target: text("b"),
        action: text(action),
        outcome: text(outcome),
        detail: text(detail),
    }
}

fn done(audit_id: &str, run: Option<&str>) -> Told {
    Told::Done { audit_id: audit_id.to_owned(), run: run.map(str::to_owned) }
}

fn attempt(id: &str, told: Told) -> Attempt {
    Attempt { id: id.to_owned(), origin: A, told }
}

fn run(status: &str, kinds: &[&str]) -> Run {
    let events = kinds.iter().zip(0..).map(|(kind, number)| (number, (*kind).to_owned())).collect();
    Run { status: status.to_owned(), events }
}

fn fault(at: u64, fault: Fault) -> Done {
    Done { begun: seconds(at), ended: seconds(at), fault }
}

fn sighting(at: u64, lifecycle: &str) -> Sighting {
    let asked = seconds(at);
    Sighting { asked, answered: asked, observer: A, subject: B, lifecycle: lifecycle.to_owned() }
}

/// A change, a program and a request that was refused and is done when it is asked again; all by the book.
fn sound() -> Evidence {
    let mut evidence = Evidence::default();
    for (id, wish) in [
        ("change", Wish::Apply { more: 100 }),
        ("program", Wish::Mark { hold_ms: 5 }),
        ("later", Wish::Mark { hold_ms: 5 }),
    ] {
        evidence.calls.requests.insert(id.to_owned(), Asked { wish, target: B });
    }
    evidence.calls.attempts = vec![
        attempt("change", Told::Unknown("timeout".to_owned())),
        attempt("change", done("01A", None)),
        attempt("program", done("01B", Some("run_1"))),
        attempt("later", Told::Refused("target_unreachable".to_owned())),
    ];
    evidence.repeated = vec![
        attempt("change", done("01A", None)),
        attempt("program", done("01B", Some("run_1"))),
        attempt("later", done("01C", Some("run_2"))),
    ];
    let there = vec![
        record("01A", "change", "cfg_apply", "applied", ""),
        record("01B", "program", "cmd_invoke/mark", "applied", "run_1"),
    ];
    let here = ["change", "program"].iter().zip(["01A", "01B"]).flat_map(|(id, there)| {
        let detail = format!("record {there} at the target");
        [record("01X", id, "", "intended", ""), record("01Y", id, "", "applied", &detail)]
    });
    let before = Kept { unverified: None, records: there, marks: vec!["program".to_owned()], revision: 1 };
    let mut after = before.clone();
    after.records.push(record("01C", "later", "cmd_invoke/mark", "applied", "run_2"));
    after.marks.push("later".to_owned());
    let mut origin = Kept { records: here.collect(), ..Kept::default() };
    evidence.before = [(A, origin.clone()), (B, before)].into();
    origin.records.push(record("01Z", "later", "", "denied", ""));
    origin.records.push(record("01V", "later", "", "intended", ""));
    origin.records.push(record("01W", "later", "", "applied", "record 01C at the target"));
    evidence.after = [(A, origin), (B, after)].into();
    let whole = run("completed", &["run_start", "log", "run_end"]);
    evidence.runs = [("run_1".to_owned(), whole.clone()), ("run_2".to_owned(), whole)].into();
    evidence.weights = [A, B].map(|node| (node, Weight { memory_kib: 60_000, descriptors: 60, threads: 20 })).into();
    evidence.done = vec![fault(10, Fault::Kill(B)), fault(20, Fault::Start(B))];
    let of_the_other = Sighting { observer: B, subject: A, ..sighting(5, "online") };
    let of_it = [(9, "online"), (11, "online"), (15, "partitioned"), (25, "online")];
    evidence.sightings =
        of_it.map(|(at, lifecycle)| sighting(at, lifecycle)).into_iter().chain([of_the_other]).collect();
    evidence
}

fn rules(evidence: &Evidence) -> Vec<&'static str> {
    let mut rules: Vec<_> = judge(evidence).into_iter().map(|breach| breach.rule).collect();
    rules.dedup();
    rules
}

#[track_caller]
fn check(rule: &'static str, bends: &[fn(&mut Evidence)]) {
    for (bend, number) in bends.iter().zip(1..) {
        let mut evidence = sound();
        bend(&mut evidence);
        assert!(rules(&evidence).contains(&rule), "{rule}: bend {number} was not seen: {:?}", judge(&evidence));
    }
}

fn at(evidence: &mut Evidence, node: Node) -> [&mut Kept; 2] {
    [&mut evidence.before, &mut evidence.after].map(|kept| kept.get_mut(&node).expect("kept"))
}

#[test]
fn sound_evidence_is_found_sound() {
    assert_eq!(judge(&sound()), []);
}

#[test]
fn a_storm_of_which_nothing_was_seen_is_not_found_sound() {
    assert_eq!(rules(&Evidence::default()), [SOMETHING_SEEN]);
    check(
        SOMETHING_SEEN,
        &[
            |it| it.done.clear(),
            |it| it.calls.attempts.retain(|attempt| !matches!(attempt.told, Told::Done { .. })),
            |it| it.repeated.retain(|attempt| attempt.id == "change"),
            |it| drop(it.before.remove(&A)),
            |it| it.weights.retain(|node, _| *node != B),
            |it| it.sightings.retain(|sighting| sighting.observer == A),
            |it| it.sightings.iter_mut().for_each(|sighting| sighting.lifecycle.clear()),
        ],
    );
}

#[test]
fn a_node_that_does_not_come_back_ends_by_itself_or_leaves_a_process_is_seen() {
    check(SETTLES, &[|it| it.unsettled.push("a: b is partitioned".to_owned())]);
    check(ENDS_AS_ASKED, &[|it| it.ends.push("b ended by itself".to_owned())]);
    check(NOTHING_LEFT, &[|it| it.left.push("/proc/7: sleep 5".to_owned())]);
    check(
        BOUNDED,
        &[
            |it| it.weights.entry(A).or_default().memory_kib = 600_000,
            |it| it.weights.entry(A).or_default().descriptors = 900,
            |it| it.weights.entry(A).or_default().threads = 500,
        ],
    );
}

#[test]
fn a_log_that_does_not_verify_and_a_change_without_a_record_are_seen() {
    check(VERIFIES, &[|it| at(it, A)[0].unverified = Some("truncated".to_owned())]);
    check(
        REVISION,
        &[|it| at(it, B)[1].revision = 2, |it| at(it, B)[1].records.retain(|record| record.request_id != "change")],
    );
}

#[test]
fn an_acknowledged_write_that_is_lost_or_has_two_receipts_is_seen() {
    check(
        ACKNOWLEDGED_ONCE,
        &[
            |it| at(it, B)[0].records.retain(|record| record.request_id != "program"),
            |it| it.calls.attempts[1].told = done("01F", None),
            |it| it.calls.attempts[0].told = done("01F", None),
        ],
    );
    check(
        SAME_RECEIPT,
        &[
            |it| it.repeated[0].told = done("01F", None),
            |it| it.repeated[1].told = done("01B", Some("run_9")),
            |it| it.repeated[2].told = Told::Unknown("timeout".to_owned()),
            |it| drop(it.repeated.pop()),
        ],
    );
}

#[test]
fn an_effect_that_comes_twice_or_although_it_was_refused_is_seen() {
    let twice = |it: &mut Evidence| {
        let again = record("01F", "program", "cmd_invoke/mark", "applied", "run_9");
        at(it, B)[1].records.push(again);
    };
    check(AT_MOST_ONCE, &[twice, |it| at(it, B)[1].records.retain(|record| record.request_id != "program")]);
    check(
        REFUSED_NEVER,
        &[
            |it| at(it, B)[0].records.push(record("01C", "later", "cmd_invoke/mark", "applied", "")),
            |it| at(it, B)[0].marks.push("later".to_owned()),
        ],
    );
    check(
        EFFECT_BY_RECORD,
        &[
            |it| at(it, B)[1].marks.push("program".to_owned()),
            |it| at(it, B)[1].marks.clear(),
            |it| at(it, B)[1].marks.push("change".to_owned()),
            |it| at(it, A)[1].marks.push("program".to_owned()),
        ],
    );
    // What ends before its program has begun has no effect.
    let mut interrupted = sound();
    interrupted.runs.insert("run_2".to_owned(), run("errored", &["run_start", "run_end"]));
    at(&mut interrupted, B)[1].marks.pop();
    assert_eq!(judge(&interrupted), []);
}

#[test]
fn an_origin_that_says_otherwise_than_the_target_or_nothing_is_seen() {
    check(
        AGREE,
        &[
            |it| at(it, B)[1].records.retain(|record| record.request_id != "program"),
            |it| at(it, A)[1].records.iter_mut().for_each(|record| record.detail.clear()),
            |it| at(it, A)[1].records.retain(|record| record.outcome != "intended"),
        ],
    );
    check(CONCLUDED, &[|it| at(it, A)[1].records.retain(|record| record.outcome != "applied")]);
}

#[test]
fn a_run_with_a_gap_two_ends_or_none_is_seen() {
    check(
        RUNS_END,
        &[
            |it| drop(it.runs.insert("run_1".to_owned(), run("active", &["run_start", "log"]))),
            |it| drop(it.runs.insert("run_1".to_owned(), run("completed", &["run_start", "run_end", "run_end"]))),
            |it| drop(it.runs.insert("run_1".to_owned(), run("completed", &["log", "run_end"]))),
            |it| drop(it.runs.insert("run_1".to_owned(), run("completed", &["run_start", "run_end", "log"]))),
            |it| it.runs.get_mut("run_1").expect("there").events[1].0 = 7,
            |it| it.runs.get_mut("run_1").expect("there").status = "active".to_owned(),
            |it| drop(it.runs.remove("run_1")),
        ],
    );
}

#[test]
fn a_node_that_is_shown_online_although_it_cannot_be_heard_is_seen() {
    check(
        NOT_HEALTHY,
        &[
            |it| it.sightings.push(sighting(15, "online")),
            |it| {
                it.done[0] = fault(10, Fault::Freeze(B));
                it.done[1] = fault(20, Fault::Thaw(B));
                it.sightings.push(sighting(17, "online"));
            },
            |it| {
                it.done[0] = fault(10, Fault::Link(Link(A, B), Weather::Cut));
                it.done[1] = fault(20, Fault::Link(Link(A, B), Weather::Clear));
                it.sightings.push(sighting(17, "online"));
            },
            |it| {
                it.done[0] = fault(10, Fault::Link(Link(A, B), Weather::Stalled));
                it.done[1] = fault(20, Fault::Link(Link(A, B), Weather::Clear));
                it.sightings.push(sighting(17, "online"));
            },
            // A start of somebody else changes nothing about it.
            |it| {
                it.done.insert(1, fault(11, Fault::Start(Node(2))));
                it.sightings.push(sighting(15, "online"));
            },
        ],
    );
}

#[test]
fn whoever_could_not_look_has_its_time_to_notice_anew() {
    let mut evidence = sound();
    evidence.done.insert(1, fault(13, Fault::Thaw(A)));
    let before = evidence.sightings.clone();
    let with = |one: Sighting| before.iter().cloned().chain([one]).collect();
    evidence.sightings = with(sighting(15, "online"));
    assert_eq!(judge(&evidence), []);
    evidence.sightings.push(sighting(17, "online"));
    assert_eq!(rules(&evidence), [NOT_HEALTHY]);
    // Asked while it was dead, answered when it was back: it may have come back in between.
    evidence.sightings = with(Sighting { answered: seconds(21), ..sighting(17, "online") });
    assert_eq!(judge(&evidence), []);
}
