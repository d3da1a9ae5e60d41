//! What the origin of a write decides of it, puts on record, and keeps while the store takes no writes.

use super::doubting::asking;
use super::rebuilding::having_heard;
use super::*;
use crate::domain::audit::Draft;
use crate::engine::dispatch::plan_overtaken;
use crate::engine::effect::{Answer, Started};
use crate::engine::input::{Conclusion, ReplyId, Request, Write};
use crate::engine::view::Basis;

fn ask(engine: &mut Engine, now: Now, request: Request) -> (Answer, Effects) {
    let mut effects = Effects::default();
    engine.handle(now, &mut Zeros, Input::Request { reply: ReplyId(1), request }, &mut effects);
    let replied = effects.after.iter().find_map(|effect| match effect {
        Effect::Reply { answer, .. } => Some((**answer).clone()),
        Effect::Answer { .. }
        | Effect::Apply { .. }
        | Effect::AuditLightly { .. }
        | Effect::CancelRun(_)
        | Effect::Perform(_)
        | Effect::Refuse { .. }
        | Effect::StartRun(_) => None,
    });
    (replied.expect("an answer"), effects)
}

fn begin(engine: &mut Engine, now: Now, write: &Write, planned: Option<Basis>) -> (Answer, Effects) {
    ask(engine, now, Request::Begin { write: write.clone(), planned })
}

/// What goes on record of a request that changes nothing: target, code and detail of each.
fn lightly(effects: &Effects) -> Vec<(String, Option<Code>, String)> {
    let of = |draft: &Draft| (draft.target.to_string(), draft.code, draft.detail.clone());
    let drafts = effects.after.iter().filter_map(|effect| match effect {
        Effect::AuditLightly { drafts, .. } => Some(drafts),
        Effect::Answer { .. }
        | Effect::Apply { .. }
        | Effect::CancelRun(_)
        | Effect::Perform(_)
        | Effect::Refuse { .. }
        | Effect::Reply { .. }
        | Effect::StartRun(_) => None,
    });
    drafts.flatten().map(of).collect()
}

/// A ping for these runtimes.
fn ping(id: &str, targets: &[&str]) -> Write {
    let targets = targets.iter().map(|it| it.parse().expect("legal")).collect();
    Write { targets, ..asking(id, Action::ping(), "s/a") }
}

#[test]
fn a_write_begins_by_the_plan_that_was_named_and_by_no_other() {
    let mut engine = having_heard(1);
    for (id, targets) in [("one", &["s/b"][..]), ("two", &["s/b", "s/a"])] {
        let write = ping(id, targets);
        let view = engine.view();
        let plan = view.plan(&write.asker, &write.action, &write.targets, at(1));
        let basis = view.basis(&plan);
        let changed = Basis { policy_hash: Hash([9; 32]), ..basis.clone() };
        let (answer, effects) = begin(&mut engine, at(1), &write, Some(changed));
        assert!(matches!(answer, Answer::Overtaken { .. }), "{answer:?}");
        assert!(effects.batch.audits.is_empty(), "{effects:?}");
        let [(target, code, detail)] = &lightly(&effects)[..] else { panic!("one record: {effects:?}") };
        assert_eq!((target.as_str(), *code), ("s/b", Some(Code::Conflict)));
        let (several, reason) = ("the first of 2 targets: ", plan_overtaken().reason.to_string());
        assert_eq!(*detail, if targets.len() == 1 { reason } else { format!("{several}{reason}") });
        let (answer, _) = begin(&mut engine, at(1), &write, Some(basis));
        let Answer::Begun { started, .. } = answer else { panic!("{answer:?}") };
        assert_eq!(started.len(), targets.len());
    }
}

#[test]
fn a_denied_write_has_a_record_for_each_target_that_it_may_not_reach() {
    let mut engine = having_heard(1);
    let (answer, effects) = begin(&mut engine, at(1), &ping("r", &["s/x", "s/b", "s/y"]), None);
    assert!(matches!(&answer, Answer::Begun { started, .. } if started.is_empty()), "{answer:?}");
    assert!(effects.batch.audits.is_empty(), "{effects:?}");
    let recorded: Vec<_> = lightly(&effects).into_iter().map(|(target, code, _)| (target, code)).collect();
    let unknown = |target: &str| (target.to_owned(), Some(Code::PeerNotAvailable));
    assert_eq!(recorded, [unknown("s/x"), unknown("s/y")]);
}

#[test]
fn a_write_to_the_own_runtime_that_is_repeated_has_the_receipt_of_the_first() {
    let mut engine = engine(&[]);
    let here = |engine: &mut Engine, now, write: &Write| {
        let (answer, effects) = begin(engine, now, write, None);
        let Answer::Begun { mut started, .. } = answer else { panic!("{answer:?}") };
        let Some(Started::Here { ruling, audit_id }) = started.pop() else { panic!("{started:?}") };
        (ruling, audit_id, effects.batch.audits.is_empty())
    };
    let (first, id, is_empty) = here(&mut engine, at(1), &ping("r", &["s/a"]));
    assert!(matches!(first, Ruling::Done(_)) && !is_empty, "{first:?}");
    assert_eq!(here(&mut engine, at(2), &ping("r", &["s/a"])), (first, id, true));
    let values = [("log.level".to_owned(), Value::Text("debug".to_owned()))];
    let another = asking("r", Action::cfg_apply(values.into()).expect("one setting"), "s/a");
    let (ruling, _, is_empty) = here(&mut engine, at(3), &another);
    assert!(matches!(&ruling, Ruling::Refused(denial) if denial.code == Code::Conflict) && is_empty, "{ruling:?}");
}

#[test]
fn as_many_outcomes_wait_for_the_store_as_may_and_what_is_more_is_counted() {
    let mut engine = engine(&["s/b"]);
    engine.stop_writing();
    for (outcomes, kept, counted) in [(10_000, 10_000, None), (1, 10_000, Some(1))] {
        let conclusion = Conclusion { target: "s/b".parse().expect("legal"), ruling: None, audit_id: None };
        let conclusions = std::iter::repeat_n(conclusion, outcomes).collect();
        let (answer, _) = ask(&mut engine, at(1), Request::Conclude { write: ping("r", &["s/b"]), conclusions });
        assert!(matches!(answer, Answer::Refused { code: Code::StorageUnavailable, .. }), "{answer:?}");
        assert_eq!((engine.late.len(), engine.view().refused.get("late_outcome").copied()), (kept, counted));
    }
}
