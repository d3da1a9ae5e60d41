//! Who hears from this node itself that a restart may find a write carried out although its commit failed.

use super::*;
use crate::domain::run::RunId;
use crate::engine::Asker;
use crate::engine::doubt::of_answer;
use crate::engine::effect::Answer;
use crate::engine::input::{ReplyId, Request, Write};

pub(super) fn asking(id: &str, action: Action, target: &str) -> Write {
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

/// Whether whoever asks for a write is told.
fn is_told(engine: &Engine, write: &Write) -> bool {
    let words = engine.doubt_of(write);
    assert!(words.is_empty() || words == "; it may be found carried out after a restart", "{words}");
    !words.is_empty()
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
        assert!(is_told(&engine, &repeated), "{is_readable}");
        assert!(engine.has_doubts());
        for other in others {
            assert!(!is_told(&engine, &other), "{is_readable} {other:?}");
        }
        // What fails after it takes nothing back.
        engine.doubt(&[]);
        let mut engine = engine.rebuilt(facts(), at(3)).expect("facts");
        engine.stop_writing();
        assert!(is_told(&engine, &repeated), "{is_readable}");
        engine.settle();
        assert!(!is_told(&engine, &repeated), "{is_readable}");
        assert!(!engine.has_doubts());
    }
}

#[test]
fn what_was_answered_says_what_a_restart_may_find_of_it() {
    let refused = Answer::Refused { code: Code::Conflict, reason: "known".to_owned() };
    let run = RunId::new(at(1).wall, [0; 10]);
    assert_eq!(of_answer(&Answer::Recorded), "; it may be found carried out after a restart");
    assert!(of_answer(&Answer::RunAccepted(run)).contains("as a run that ended before its program was started"));
    assert_eq!(of_answer(&refused), "");
}
