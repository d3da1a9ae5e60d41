//! Who hears from this node itself that a restart may find a write carried out although its commit failed.

use super::*;
use crate::engine::Asker;
use crate::engine::effect::Answer;
use crate::engine::input::{ReplyId, Request, Write};

fn asking(id: &str, action: Action, target: &str) -> Write {
    let actor = "spiffe://trust/s/alice".parse().expect("legal");
    let asker = Asker { actor, role: Role::Engineer, is_verified: true };
    let targets = vec![target.parse().expect("legal")];
    Write { asker, request_id: id.parse().expect("legal"), action, targets }
}

fn begin(engine: &mut Engine, now: Now, write: Write) -> Effects {
    let mut effects = Effects::default();
    let request = Request::Begin { write, planned: None };
    engine.handle(now, &mut Zeros, Input::Request { reply: ReplyId(1), request }, &mut effects);
    effects
}

/// Whether a write that is refused is told so, and whether the error of a batch that has failed with it in it would.
fn is_told(engine: &mut Engine, write: &Write) -> [bool; 2] {
    let effects = begin(engine, at(3), write.clone());
    let Some(Effect::Reply { answer, .. }) = effects.after.first() else { panic!("{effects:?}") };
    let Answer::Refused { code: Code::StorageUnavailable, reason } = &**answer else { panic!("{answer:?}") };
    let (known, doubt) = ("this runtime's store takes no writes", "; it may be found carried out after a restart");
    assert!(*reason == known || *reason == format!("{known}{doubt}"), "{reason}");
    [*reason != known, engine.doubt_of(write) == doubt]
}

/// Also where the durable facts cannot be read back, and what was durable before is not known any more.
#[test]
fn who_repeats_what_stood_in_the_failed_batch_is_told_until_a_commit_succeeds_and_nobody_else_is() {
    let values = [("log.level".to_owned(), Value::Text("debug".to_owned()))];
    let another = Action::cfg_apply(values.into()).expect("one setting");
    for is_readable in [true, false] {
        let mut engine = engine(&["s/b"]);
        let before = begin(&mut engine, at(1), asking("before", Action::ping(), "s/a")).batch;
        engine.settle();
        let shown = engine.view();
        let failed = begin(&mut engine, at(2), asking("r", Action::ping(), "s/a")).batch;
        engine.doubt(&failed.audits.iter().map(|draft| draft.audit_id).collect::<Vec<_>>());
        let facts = || records(&["s/b"]).into_iter().chain(before.records.clone());
        if is_readable {
            engine = engine.rebuilt(facts(), at(2)).expect("facts");
        } else {
            engine.go_back_to(&shown);
        }
        engine.stop_writing();
        let repeated = asking("r", Action::ping(), "s/a");
        let others = [
            asking("before", Action::ping(), "s/a"),
            asking("another", Action::ping(), "s/a"),
            asking("r", another.clone(), "s/a"),
            asking("r", Action::ping(), "s/b"),
        ];
        assert_eq!(is_told(&mut engine, &repeated), [true; 2], "{is_readable}");
        for other in others {
            assert_eq!(is_told(&mut engine, &other), [false; 2], "{is_readable} {other:?}");
        }
        // A second failure changes nothing.
        let mut engine = engine.rebuilt(facts(), at(3)).expect("facts");
        engine.stop_writing();
        assert_eq!(is_told(&mut engine, &repeated), [true; 2], "{is_readable}");
        engine.settle();
        assert_eq!(is_told(&mut engine, &repeated), [false; 2], "{is_readable}");
    }
}
