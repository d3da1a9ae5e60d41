//! One turn at a time, with a disk that fails.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;

use crate::domain::action::Action;
use crate::domain::audit::{AuditId, Hash, Outcome};
use crate::domain::code::Code;
use crate::domain::config::Value;
use crate::domain::envelope::{Envelope, Response, Ruling};
use crate::domain::identity::{IdentityKey, Role};
use crate::domain::offer::{Agent, Offer};
use crate::domain::run::RunId;
use crate::domain::time::{Millis, Monotonic, Wall};
use crate::engine::Engine;
use crate::engine::effect::{Answer, Effect, Started};
use crate::engine::input::{Conclusion, Invoke, Received, Request, Write};
use crate::engine::view::Settings;
use crate::handle::Failure;
use crate::mesh::{self, Responder};
use crate::node::arrived::Arrived;
use crate::node::clock::Clock;
use crate::node::driver::waiting::{Mail, Waiting};
use crate::node::driver::{Driver, Errand};
use crate::node::keyring::Keyring;
use crate::node::tests::{engineer, parsed, settings};
use crate::store::memory::{Fault, MemoryStore};
use crate::store::{Chain, READ_QUEUE_MAX};

pub(in crate::node) fn driver(store: &MemoryStore) -> Driver {
    driver_with(settings(), store)
}

fn driver_with(settings: Arc<Settings>, store: &MemoryStore) -> Driver {
    let clock = Clock::start();
    let now = clock.now();
    let keyring =
        Keyring::new(IdentityKey::from_seed([1; 32]).into(), settings.me.clone(), now.wall).expect("a key signs");
    let identity = keyring.keys().signer().identity;
    let engine = Engine::recover(settings, identity, [], now).expect("no removal");
    let (_nobody, mailbox) = mpsc::channel(1);
    let urgent = mpsc::channel(1).1;
    Driver {
        clock,
        store: Arc::new(store.clone()),
        views: Arc::new(ArcSwap::from_pointee(engine.view())),
        engine,
        keyring: Arc::new(keyring),
        tasks: TaskTracker::new(),
        apply: Box::new(|_values| {}),
        mailbox,
        urgent,
        errands: mpsc::channel(1).0,
        metrics: Arc::default(),
        retry_at: Monotonic::default(),
    }
}

fn ping(id: &str, target: &str) -> Write {
    let targets = vec![parsed(target)];
    Write { asker: engineer(), request_id: parsed(id), action: Action::ping(), targets }
}

/// A run whose errand is dropped would be open and never begun, and whoever started it would wait for ever.
#[tokio::test]
async fn what_finds_no_room_in_the_queue_waits_for_it_and_is_not_lost() {
    let (errands, mut accepted) = mpsc::channel(1);
    let driver = Driver { errands, ..driver(&MemoryStore::new()) };
    let runs = [1, 2, 3, 4].map(|number| RunId::new(Wall::from_millis(1), [number; 10]));
    let after = runs.map(Effect::CancelRun).into();
    let release = async move { driver.release(after, &mut Waiting::default(), &BTreeMap::new()).await };
    let take = async {
        let mut taken = Vec::new();
        while let Some(Errand::Cancel(run)) = accepted.recv().await {
            taken.push(run);
        }
        taken
    };
    assert_eq!(tokio::join!(release, take).1, runs);
}

/// One turn with one request in it.
async fn ask(driver: &mut Driver, request: Request) -> Result<Answer, Failure> {
    let (tx, rx) = oneshot::channel();
    driver.turn(&mut vec![Mail::Request(request, tx)]).await;
    rx.await.expect("answered")
}

fn begin(write: Write) -> Request {
    Request::Begin { write, planned: None }
}

/// The record of a ping of this runtime itself.
async fn done(driver: &mut Driver, id: &str) -> AuditId {
    match ask(driver, begin(ping(id, "s/a"))).await {
        Ok(Answer::Begun { started, .. }) => match started.as_slice() {
            [Started::Here { ruling: Ruling::Done(Response::Pong), audit_id }] => *audit_id,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

/// What a target did with a ping, for the record.
fn outcome() -> Request {
    let ruling = Some(Ruling::Done(Response::Pong));
    let conclusions = vec![Conclusion { target: "s/b".parse().expect("legal"), ruling, audit_id: None }];
    Request::Conclude { write: ping("r", "s/b"), conclusions }
}

fn outcomes(store: &MemoryStore) -> Vec<Outcome> {
    store.with_disk(|disk| disk.entries(Chain::Writes).map(|entry| entry.draft.outcome).collect())
}

/// A turn in which the disk is tried again.
async fn retry(driver: &mut Driver) {
    driver.retry_at = Monotonic::default();
    driver.turn(&mut Vec::new()).await;
}

#[tokio::test]
async fn an_engine_that_forgot_its_receipts_writes_only_when_it_knows_them_again() {
    let store = MemoryStore::new();
    let mut driver = driver(&store);
    let first = done(&mut driver, "once").await;
    store.with_disk(|disk| {
        disk.inject(Fault::NoSpace);
        disk.hide_facts();
    });
    let failed = ask(&mut driver, begin(ping("other", "s/a"))).await;
    assert_eq!(failed.expect_err("no space").code, Code::StorageUnavailable);
    retry(&mut driver).await;
    assert!(driver.views.load().is_read_only, "nobody knows what is durable");
    ask(&mut driver, outcome()).await.expect("put off");
    store.with_disk(|disk| disk.show_facts());
    retry(&mut driver).await;
    assert!(!driver.views.load().is_read_only);
    assert_eq!(outcomes(&store).len(), 2, "the ping and the outcome that was put off");
    assert_eq!(done(&mut driver, "once").await, first, "the stored receipt, not a second time");
}

/// Settings count from their reload on, also where it is the very batch with them that the disk refuses.
#[tokio::test]
async fn the_parts_of_a_node_take_new_values_whose_record_failed() {
    let taken = Arc::new(Mutex::new(BTreeMap::new()));
    let store = MemoryStore::new();
    let mut driver = driver(&store);
    let take = Arc::clone(&taken);
    driver.apply = Box::new(move |values| *take.lock().expect("no panic under the lock") = values.clone());
    let file_values = BTreeMap::from([("log.level".to_owned(), Value::Text("debug".to_owned()))]);
    let settings = Arc::new(Settings { file_values: file_values.clone(), ..(*settings()).clone() });
    store.with_disk(|disk| disk.inject(Fault::NoSpace));
    let failed = ask(&mut driver, Request::Reload { asker: engineer(), settings, detail: String::new() }).await;
    assert_eq!(failed.expect_err("no space").code, Code::StorageUnavailable);
    assert_eq!(*taken.lock().expect("no panic under the lock"), file_values);
}

#[tokio::test]
async fn an_outcome_in_a_failed_batch_is_on_record_once_there_is_space() {
    let store = MemoryStore::new();
    let mut driver = driver(&store);
    let on_record = || outcomes(&store);
    // In the batch that fails, in the batch with which the disk is tried again, and while it is not tried.
    store.with_disk(|disk| (0..2).for_each(|_| disk.inject(Fault::NoSpace)));
    let failed = ask(&mut driver, outcome()).await;
    assert!(matches!(failed, Ok(Answer::Refused { code: Code::StorageUnavailable, .. })), "{failed:?}");
    retry(&mut driver).await;
    let refused = ask(&mut driver, outcome()).await;
    assert!(matches!(refused, Ok(Answer::Refused { code: Code::StorageUnavailable, .. })), "{refused:?}");
    assert_eq!(on_record(), []);
    retry(&mut driver).await;
    assert_eq!(on_record(), [Outcome::Applied; 2]);
    driver.turn(&mut Vec::new()).await;
    store.with_disk(|disk| disk.inject(Fault::NoSpace));
    let later = ask(&mut driver, begin(ping("later", "s/a"))).await;
    assert_eq!(later.expect_err("no space").code, Code::StorageUnavailable);
    retry(&mut driver).await;
    assert_eq!(on_record().len(), 2, "once is enough");
}

/// It is for somebody else, so that it is refused before anything else is asked.
#[tokio::test]
async fn a_refused_write_from_the_mesh_is_on_record_or_is_told_that_there_is_no_room() {
    let store = MemoryStore::new();
    let mut driver = driver(&store);
    for (is_full, records) in [(false, 1), (true, 1)] {
        if is_full {
            store.with_disk(|disk| {
                disk.hold_reads();
                let draft = disk.entries(Chain::Refusals).next().expect("one").draft.clone();
                disk.append_reads(vec![draft; READ_QUEUE_MAX]).expect("room");
            });
        }
        let (responder, answer) = Responder::channel();
        driver.turn(&mut vec![Mail::Act(Box::new(Arrived::new(misdirected(&driver), Vec::new())), responder)]).await;
        match answer.await.expect("answered") {
            mesh::Answer::Reply(_) => assert!(!is_full, "a signed refusal without its record"),
            mesh::Answer::Refusal(text) => assert_eq!((is_full, text.as_str()), (true, "server_busy")),
        }
        assert_eq!(store.with_disk(|disk| disk.entries(Chain::Refusals).count()), records);
    }
}

/// After a failed fsync a restart may find what was refused; where the disk was full it will not.
#[tokio::test]
async fn the_engine_doubts_what_a_restart_may_find_until_a_commit_succeeds() {
    for (fault, wanted) in [(Fault::NoSpace, false), (Fault::Broken, true), (Fault::BrokenButWritten, true)] {
        let store = MemoryStore::new();
        let mut driver = driver(&store);
        store.with_disk(|disk| disk.inject(fault));
        ask(&mut driver, begin(ping("r", "s/a"))).await.expect_err("the disk failed");
        assert_eq!(driver.engine.has_doubts(), wanted, "{fault:?}");
    }
    let mut driver = driver(&MemoryStore::new());
    let first = done(&mut driver, "first").await;
    driver.engine.doubt(&[first]);
    driver.engine = driver.engine.rebuilt([], driver.clock.now()).expect("facts");
    assert!(driver.engine.has_doubts());
    done(&mut driver, "next").await;
    assert!(!driver.engine.has_doubts());
}

/// What each of these hears of one turn.
async fn ask_together<const N: usize>(driver: &mut Driver, requests: [Request; N]) -> [String; N] {
    let (mut mails, mut answers) = (Vec::new(), Vec::new());
    for request in requests {
        let (tx, rx) = oneshot::channel();
        mails.push(Mail::Request(request, tx));
        answers.push(rx);
    }
    driver.turn(&mut mails).await;
    let mut heard = Vec::new();
    for answer in answers {
        heard.push(match answer.await.expect("answered") {
            Ok(Answer::Refused { code: Code::StorageUnavailable, reason }) => reason,
            Err(Failure { code: Code::StorageUnavailable, reason }) => reason,
            other => panic!("{other:?}"),
        });
    }
    heard.try_into().expect("as many")
}

fn run_of_it() -> Request {
    let invoke = Invoke { agent: parsed("it"), instance: parsed("i"), payload: "{}".to_owned(), is_streamed: false };
    Request::StartRun { asker: engineer(), invoke: Box::new(invoke) }
}

#[tokio::test]
async fn who_asked_for_what_stood_in_a_failed_batch_is_told_what_a_restart_may_find_and_nobody_else_is() {
    let offered = Agent { role: Role::Operator, webhook: true };
    let offer = Offer { agents: [(parsed("it"), offered)].into(), ..Offer::default() };
    let settings = Arc::new(Settings { offer, ..(*settings()).clone() });
    for (fault, may_be_found) in [(Fault::NoSpace, false), (Fault::Broken, true), (Fault::BrokenButWritten, true)] {
        let store = MemoryStore::new();
        let mut driver = driver_with(Arc::clone(&settings), &store);
        done(&mut driver, "before").await;
        store.with_disk(|disk| disk.inject(fault));
        let doubted = |reason: &str| reason.contains("it may be found carried out after a restart");
        let together = [
            begin(ping("here", "s/a")),
            // Twice in one batch, and once in a batch that is durable.
            begin(ping("here", "s/a")),
            begin(ping("before", "s/a")),
            // Refused before anything is on record.
            begin(ping("there", "s/b")),
            Request::TimeReset { asker: engineer() },
            run_of_it(),
        ];
        let heard = ask_together(&mut driver, together).await;
        let told = [true, true, false, false, true, false].map(|it| it && may_be_found);
        assert_eq!(heard.each_ref().map(|reason| doubted(reason)), told, "{heard:?}");
        assert_eq!(heard[5].contains("as a run that ended before its program was started"), may_be_found, "{heard:?}");
        // The disk is not tried meanwhile.
        driver.retry_at = driver.clock.now().monotonic.plus(Millis::from_secs(3_600));
        let applied = Action::cfg_apply([("log.level".to_owned(), Value::Text("debug".to_owned()))].into());
        let another = Write { action: applied.expect("legal"), ..ping("here", "s/a") };
        let elsewhere = Write { targets: vec![parsed("s/b")], ..ping("here", "s/a") };
        let repeated = [ping("here", "s/a"), another, elsewhere, ping("later", "s/a")].map(begin);
        let heard = ask_together(&mut driver, repeated).await;
        let told = [may_be_found, false, false, false];
        assert_eq!(heard.each_ref().map(|reason| doubted(reason)), told, "{fault:?} {heard:?}");
    }
}

/// As on a disk that took the end of a batch and had no space for it to be confirmed.
#[tokio::test]
async fn a_commit_that_succeeds_ends_the_doubts() {
    let mut driver = driver(&MemoryStore::new());
    driver.store = Arc::new(broken());
    let [reason] = ask_together(&mut driver, [begin(ping("r", "s/a"))]).await;
    assert!(reason.contains("after a restart"), "{reason}");
    let store = MemoryStore::new();
    driver.store = Arc::new(store.clone());
    retry(&mut driver).await;
    store.with_disk(|disk| disk.inject(Fault::NoSpace));
    ask_together(&mut driver, [begin(ping("other", "s/a"))]).await;
    let [reason] = ask_together(&mut driver, [begin(ping("r", "s/a"))]).await;
    assert!(!reason.contains("after a restart"), "{reason}");
}

/// It was refused before the disk was tried, and is answered after that.
#[tokio::test]
async fn who_repeats_a_doubted_write_in_the_turn_whose_commit_succeeds_is_not_told() {
    let mut driver = driver(&MemoryStore::new());
    driver.store = Arc::new(broken());
    ask_together(&mut driver, [begin(ping("r", "s/a"))]).await;
    assert!(driver.engine.has_doubts());
    driver.store = Arc::new(MemoryStore::new());
    driver.retry_at = Monotonic::default();
    let [reason] = ask_together(&mut driver, [begin(ping("r", "s/a"))]).await;
    assert_eq!(reason, "this runtime's store takes no writes");
    assert!(!driver.engine.has_doubts(), "not tried");
}

/// Its answer is the error of the batch with which the disk was tried again.
#[tokio::test]
async fn who_repeats_a_doubted_write_while_the_disk_is_tried_in_vain_is_told() {
    let mut driver = driver(&MemoryStore::new());
    driver.store = Arc::new(broken());
    ask_together(&mut driver, [begin(ping("r", "s/a"))]).await;
    let store = MemoryStore::new();
    store.with_disk(|disk| disk.inject(Fault::NoSpace));
    driver.store = Arc::new(store);
    driver.retry_at = Monotonic::default();
    let heard = ask_together(&mut driver, [begin(ping("r", "s/a")), begin(ping("other", "s/a"))]).await;
    assert!(heard.iter().all(|reason| !reason.contains("takes no writes")), "not tried: {heard:?}");
    assert_eq!(heard.each_ref().map(|reason| reason.contains("after a restart")), [true, false], "{heard:?}");
}

fn broken() -> MemoryStore {
    let store = MemoryStore::new();
    store.with_disk(|disk| disk.inject(Fault::Broken));
    store
}

fn misdirected(driver: &Driver) -> Received {
    let view = driver.engine.view();
    let signer = driver.keyring.keys().signer().clone();
    let Write { asker, request_id, action, .. } = ping("w", "s/b");
    let envelope = Envelope {
        target: parsed("s/b"),
        target_key: view.identity,
        target_boot: Some(view.boot),
        origin: view.me().clone(),
        actor: asker.actor,
        role: asker.role,
        actor_verified: true,
        request_id,
        action,
        issued: driver.clock.now().wall,
        expires: driver.clock.now().wall,
        boot: 1,
        sequence: 1,
        policy_hash: Hash([0; 32]),
    };
    Received { signer, envelope, digest: Hash([0; 32]) }
}
