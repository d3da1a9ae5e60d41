//! Work that is started here: accepted once, durable first, closed by a start.

use super::*;
use crate::domain::audit::Outcome;
use crate::domain::code::Code;
use crate::domain::envelope::Response;
use crate::domain::identity::Role;
use crate::domain::offer::{Agent, Offer};
use crate::domain::preflight::Asker;
use crate::domain::run::RunId;
use crate::engine::RUNS_ACTIVE_MAX;
use crate::engine::effect::Answer;
use crate::engine::input::{Invoke, ReplyId, Request};
use crate::engine::record::{Deed, OpenRun};

/// Random bytes that are never the same twice.
struct Counter(u8);

impl Entropy for Counter {
    fn fill(&mut self, buffer: &mut [u8]) {
        self.0 = self.0.wrapping_add(1);
        buffer.fill(self.0);
    }
}

fn offering() -> Settings {
    let name = |text: &str| text.parse().expect("legal");
    let offer = Offer {
        has_workload: true,
        commands: [(name("purge"), Role::Operator), (name("flash"), Role::Admin)].into(),
        agents: [(name("hello"), Agent { role: Role::Engineer, webhook: true })].into(),
    };
    Settings { offer, ..settings() }
}

fn started(records: Vec<Record>) -> (Engine, Effects) {
    let runtime = "s/b".parse().expect("legal");
    let peer = Record::Peer(Peer { runtime, pinned: THERE, trust: TrustState::Trusted, boot: 1 });
    let records = std::iter::once(peer).chain(records);
    Engine::start(Arc::new(offering()), ME, records, at(0), &mut Counter(100)).expect("facts")
}

fn command(id: &str, name: &str, params: &[(&str, &str)]) -> Envelope {
    let params = params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let action = Action::cmd_invoke(name, params).expect("legal");
    let expires = at(1).wall.plus(action.kind().window());
    Envelope { action, expires, ..letter("s/b", id, "debug", at(1)) }
}

fn done(effects: &Effects) -> Response {
    match ruling(effects) {
        Some(Ruling::Done(response)) => response.clone(),
        other => panic!("{other:?}"),
    }
}

fn denied(effects: &Effects) -> Code {
    match ruling(effects) {
        Some(Ruling::Refused(denial)) => denial.code,
        other => panic!("{other:?}"),
    }
}

fn begins(effects: &Effects) -> Vec<Arc<OpenRun>> {
    let run = |effect: &Effect| if let Effect::StartRun(run) = effect { Some(Arc::clone(run)) } else { None };
    effects.after.iter().filter_map(run).collect()
}

fn performs(effects: &Effects) -> Vec<Deed> {
    let deed = |effect: &Effect| if let Effect::Perform(deed) = effect { Some((**deed).clone()) } else { None };
    effects.after.iter().filter_map(deed).collect()
}

fn request(engine: &mut Engine, request: Request) -> (Answer, Effects) {
    let mut effects = Effects::default();
    let input = Input::Request { reply: ReplyId(1), request };
    engine.handle(at(2), &mut Counter(0), input, &mut effects);
    let answer = effects.after.iter().find_map(|effect| match effect {
        Effect::Reply { answer, .. } => Some((**answer).clone()),
        Effect::Answer { .. }
        | Effect::Apply { .. }
        | Effect::AuditLightly { .. }
        | Effect::CancelRun(_)
        | Effect::Perform(_)
        | Effect::Refuse { .. }
        | Effect::StartRun(_) => None,
    });
    (answer.expect("an answer"), effects)
}

fn invoke(engine: &mut Engine, role: Role) -> (Answer, Effects) {
    let asker = Asker { actor: "spiffe://trust/s/alice".parse().expect("legal"), role, is_verified: true };
    let (agent, instance) = ("hello".parse().expect("legal"), "i 1".parse().expect("legal"));
    let invoke = Box::new(Invoke { agent, instance, payload: "[1]".to_owned(), is_streamed: false });
    request(engine, Request::StartRun { asker, invoke })
}

#[test]
fn a_declared_command_is_a_run_that_is_durable_with_its_receipt() {
    let (mut engine, _) = started(Vec::new());
    let letter = command("r", "purge", &[("line", "4"), ("a\"b", "null")]);
    let effects = act(&mut engine, at(1), letter.clone());
    let Response::Started { run } = done(&effects) else { panic!("{effects:?}") };
    let [begun] = begins(&effects).try_into().expect("one run");
    assert_eq!((begun.run, begun.agent.as_str(), begun.instance.as_str()), (run, "cmd.purge", "a"));
    assert_eq!(begun.payload, r#"{"a\"b":null,"line":4}"#);
    let records = &effects.batch.records;
    assert!(records.contains(&Record::Run(Arc::clone(&begun))), "{records:?}");
    assert_eq!(count(&effects, |it| matches!(it, Record::Receipt(_))), 1);
    assert!(engine.view().runs.contains_key(&run));

    let again = act(&mut engine, at(2), letter);
    assert_eq!((done(&again), begins(&again).len()), (Response::Started { run }, 0), "one run in total");
    let (_, ended) = request(&mut engine, Request::EndRun { run });
    assert_eq!(ended.batch.records, [Record::RunClosed(run)]);
    assert!(engine.view().runs.is_empty());
    let (_, twice) = request(&mut engine, Request::EndRun { run });
    assert!(twice.batch.is_empty(), "an end is written once");
}

#[test]
fn a_command_asks_for_the_role_that_its_file_declares_and_must_be_declared() {
    let (mut engine, _) = started(Vec::new());
    assert_eq!(denied(&act(&mut engine, at(1), command("1", "flash", &[]))), Code::PermissionDenied);
    let admin = Envelope { role: Role::Admin, ..command("2", "flash", &[]) };
    assert!(matches!(done(&act(&mut engine, at(1), admin)), Response::Started { .. }));
    assert_eq!(denied(&act(&mut engine, at(1), command("3", "other", &[]))), Code::ContractViolation);
    assert_eq!(denied(&act(&mut engine, at(1), command("4", "hello", &[]))), Code::ContractViolation);
    let viewer = Envelope { role: Role::Viewer, ..command("5", "purge", &[]) };
    assert_eq!(denied(&act(&mut engine, at(1), viewer)), Code::PermissionDenied);
    let (mut bare, _) = Engine::start(Arc::new(settings()), ME, known(), at(0), &mut Zeros).expect("facts");
    assert_eq!(denied(&act(&mut bare, at(1), command("6", "restart", &[]))), Code::NotConfigured);
}

fn known() -> [Record; 1] {
    let runtime = "s/b".parse().expect("legal");
    [Record::Peer(Peer { runtime, pinned: THERE, trust: TrustState::Trusted, boot: 1 })]
}

#[test]
fn an_agent_is_started_by_whom_its_file_lets() {
    let (mut engine, _) = started(Vec::new());
    let (answer, effects) = invoke(&mut engine, Role::Operator);
    assert!(matches!(answer, Answer::Refused { code: Code::PermissionDenied, .. }), "{answer:?}");
    assert!(effects.batch.audits.is_empty() && begins(&effects).is_empty());
    assert_eq!(count(&effects, |it| matches!(it, Record::Run(_))), 0);
    let (answer, effects) = invoke(&mut engine, Role::Engineer);
    let [begun] = begins(&effects).try_into().expect("one run");
    assert_eq!(answer, Answer::RunAccepted(begun.run));
    assert_eq!((begun.agent.as_str(), begun.instance.as_str(), begun.payload.as_str()), ("hello", "i 1", "[1]"));
    let [audit] = effects.batch.audits.try_into().expect("one record");
    assert_eq!((audit.action.as_str(), audit.detail), ("agent_invoke/hello", begun.run.to_string()));
    engine.stop_writing();
    let (answer, effects) = invoke(&mut engine, Role::Engineer);
    assert!(matches!(answer, Answer::Refused { code: Code::StorageUnavailable, .. }), "{answer:?}");
    assert!(begins(&effects).is_empty());
}

#[test]
fn no_more_runs_go_on_than_may() {
    let (mut engine, _) = started(Vec::new());
    let mut entropy = Counter(0);
    for number in 0..=RUNS_ACTIVE_MAX {
        let mut effects = Effects::default();
        let received = signed_by("s/b", command(&number.to_string(), "purge", &[]));
        engine.handle(at(1), &mut entropy, Input::Act { query: QueryId(1), received }, &mut effects);
        if number == RUNS_ACTIVE_MAX {
            assert_eq!(denied(&effects), Code::ServerBusy);
            assert_eq!(count(&effects, |it| matches!(it, Record::Run(_))), 0);
        } else {
            assert!(matches!(done(&effects), Response::Started { .. }));
        }
    }
    assert_eq!(engine.view().runs.len(), RUNS_ACTIVE_MAX);
}

#[test]
fn a_run_that_goes_on_is_told_to_end_and_no_other() {
    let (mut engine, _) = started(Vec::new());
    let Response::Started { run } = done(&act(&mut engine, at(1), command("1", "purge", &[]))) else { panic!() };
    let named = format!("\"{run}\"");
    let effects = act(&mut engine, at(2), command("2", "cancel", &[("run_id", &named)]));
    assert_eq!(done(&effects), Response::Cancelling { run });
    assert!(effects.after.contains(&Effect::CancelRun(run)));
    let other = format!("\"{}\"", RunId::new(at(9).wall, [9; 10]));
    for (id, params, code) in [
        ("3", vec![("run_id", other.as_str())], Code::ContractViolation),
        ("4", vec![], Code::SchemaMismatch),
        ("5", vec![("run_id", "4")], Code::SchemaMismatch),
        ("6", vec![("run_id", named.as_str()), ("more", "1")], Code::SchemaMismatch),
    ] {
        let effects = act(&mut engine, at(2), command(id, "cancel", &params));
        assert_eq!(denied(&effects), code, "{id}");
        assert!(!effects.after.iter().any(|it| matches!(it, Effect::CancelRun(_))), "{id}");
    }
}

#[test]
fn a_run_is_ended_with_the_role_that_starts_it_and_by_another_site_only_if_it_is_its_own() {
    let (mut engine, _) = started(Vec::new());
    let admin = Envelope { role: Role::Admin, ..command("1", "flash", &[]) };
    let Response::Started { run } = done(&act(&mut engine, at(1), admin)) else { panic!() };
    let params = [("run_id", format!("\"{run}\""))];
    let params: Vec<_> = params.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let effects = act(&mut engine, at(2), command("2", "cancel", &params));
    assert_eq!(denied(&effects), Code::PermissionDenied, "an operator");
    assert!(!effects.after.contains(&Effect::CancelRun(run)));
    let admin = Envelope { role: Role::Admin, ..command("3", "cancel", &params) };
    assert_eq!(done(&act(&mut engine, at(2), admin)), Response::Cancelling { run });

    // What the rules of this site let another one do is decided before this.
    let guest = |site: &str| Envelope {
        actor: format!("spiffe://trust/{site}/bob").parse().expect("legal"),
        origin: format!("{site}/x").parse().expect("legal"),
        role: Role::Admin,
        ..command("4", "cancel", &params)
    };
    let own = OpenRun::clone(&engine.view().runs[&run]);
    let theirs = OpenRun { actor: guest("t").actor, ..own.clone() };
    let judged = |site: &str, open: &OpenRun| engine.check_cancel(&guest(site), open).map_err(|denial| denial.code);
    assert_eq!(judged("t", &theirs), Ok(()));
    assert_eq!((judged("t", &own), judged("u", &theirs)), (Err(Code::PermissionDenied), Err(Code::PermissionDenied)));
}

/// Here too nobody is more than what is granted here, whatever his credential says.
#[test]
fn a_grant_bounds_what_is_done_at_this_runtime_itself() {
    let grants = vec![("s/alice".parse().expect("legal"), Role::Viewer)];
    let settings = Settings { grants, ..offering() };
    let (mut engine, _) = Engine::start(Arc::new(settings), ME, [], at(0), &mut Counter(100)).expect("facts");
    let (answer, effects) = invoke(&mut engine, Role::Admin);
    assert!(matches!(answer, Answer::Refused { code: Code::PermissionDenied, .. }), "{answer:?}");
    assert!(begins(&effects).is_empty());
    let view = engine.view();
    let asked = |principal: &str, target: &str| {
        let actor = format!("spiffe://trust/s/{principal}").parse().expect("legal");
        let asker = Asker { actor, role: Role::Engineer, is_verified: true };
        let action = Action::cmd_invoke("ping", [].into()).expect("legal");
        let plan = view.plan(&asker, &action, &[target.parse().expect("legal")], at(1));
        plan.first_denial().map(|denial| denial.rule.to_string())
    };
    assert_eq!(asked("alice", "s/a").as_deref(), Some("role"));
    assert_eq!(asked("bob", "s/a"), None);
    assert_eq!(asked("alice", "s/b").as_deref(), Some("known"), "elsewhere the other runtime's grants decide");
}

#[test]
fn without_a_store_of_runs_none_is_accepted_until_the_next_start() {
    let (mut engine, _) = started(Vec::new());
    let before = engine.view().timeline.len();
    for _ in 0..2 {
        let (answer, _) = request(&mut engine, Request::RunsFailed { reason: "the disk is broken".to_owned() });
        assert!(matches!(answer, Answer::Recorded), "{answer:?}");
    }
    assert_eq!(engine.view().timeline.len(), before + 1, "told once");
    // A commit that fails meanwhile brings no store of runs back.
    let mut engine = engine.rebuilt(records(&["s/b"]), at(3)).expect("facts");
    let effects = act(&mut engine, at(3), command("1", "purge", &[]));
    assert_eq!((denied(&effects), begins(&effects).len()), (Code::StorageUnavailable, 0));
    let (answer, effects) = invoke(&mut engine, Role::Engineer);
    assert!(matches!(answer, Answer::Refused { code: Code::StorageUnavailable, .. }), "{answer:?}");
    assert!(begins(&effects).is_empty());
    assert_eq!(done(&act(&mut engine, at(3), command("2", "ping", &[]))), Response::Pong);
}

#[test]
fn a_command_to_the_workload_is_concluded_once_on_record() {
    let (mut engine, _) = started(Vec::new());
    for (id, result, outcome) in
        [("1", Ok("running".to_owned()), Outcome::Applied), ("2", Err("no such file".to_owned()), Outcome::Failed)]
    {
        let effects = act(&mut engine, at(1), command(id, "restart", &[]));
        assert_eq!(done(&effects), Response::Commanded { command: "restart".parse().expect("legal") });
        let [deed] = performs(&effects).try_into().expect("one");
        assert_eq!(count(&effects, |it| matches!(it, Record::Deed(_))), 1);
        let conclude = || Request::ConcludeDeed { deed: Box::new(deed.clone()), result: result.clone() };
        let (_, effects) = request(&mut engine, conclude());
        let [audit] = effects.batch.audits.try_into().expect("one record");
        assert_eq!((audit.outcome, audit.action.as_str()), (outcome, "cmd_invoke/restart"));
        assert_eq!(effects.batch.records, [Record::DeedClosed(deed.key.clone())]);
        let (_, twice) = request(&mut engine, conclude());
        assert!(twice.batch.is_empty());
    }
}

#[test]
fn a_start_says_what_was_interrupted_and_repeats_nothing() {
    let (mut engine, _) = started(Vec::new());
    let mut records = act(&mut engine, at(1), command("1", "restart", &[])).batch.records;
    records.extend(act(&mut engine, at(1), command("2", "purge", &[])).batch.records);
    let facts = records.into_iter().filter(|it| matches!(it, Record::Deed(_) | Record::Run(_) | Record::Receipt(_)));
    let (mut engine, effects) = started(facts.collect());
    assert!(begins(&effects).is_empty() && performs(&effects).is_empty());
    let [audit] = effects.batch.audits.try_into().expect("one record");
    assert_eq!((audit.outcome, audit.code), (Outcome::Unknown, Some(Code::Interrupted)));
    assert_eq!(effects.batch.records.iter().filter(|it| matches!(it, Record::DeedClosed(_))).count(), 1);
    assert_eq!(engine.view().runs.len(), 1, "open until its events have an end");
    let again = act(&mut engine, at(3), command("2", "purge", &[]));
    assert!(matches!(done(&again), Response::Started { .. }) && begins(&again).is_empty());
}
