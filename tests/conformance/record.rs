//! Version 1 of every stored fact, as a row that must be read for ever.
//!
//! A stored example is never written again: `UPDATE_GOLDEN=1` only makes those that are not there yet.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use serde_json::{Value as Json, json};
use trust_runtime::domain::audit::witness::{Break, Head};
use trust_runtime::domain::audit::{Checkpoint, Hash, NoteKey, Tree, log_name};
use trust_runtime::domain::config::{Overlay, Value};
use trust_runtime::domain::envelope::{Health, Response, Status};
use trust_runtime::domain::identity::{IdentityKey, TrustState};
use trust_runtime::domain::run::RunId;
use trust_runtime::domain::time::{Millis, Wall};
use trust_runtime::engine::record::{
    Countersigned, Deed, Intent, IntentKey, NotContinued, OpenRun, Peer, Receipt, Record, RequestKey,
};
use trust_runtime::wire::record::{Change, decode, encode};

use crate::case_file::{all, assert_none, is_updating, path, text};
use crate::sealed::{ME, ORIGIN, fingerprint};
use crate::world::{now, parsed};

const FOLDER: &str = "record/v1";

fn request() -> RequestKey {
    RequestKey { actor: parsed("spiffe://trust/site-a/alice"), request_id: parsed("request-1") }
}

fn receipt(response: Response) -> Record {
    Record::Receipt(Receipt {
        key: request(),
        origin: parsed(ORIGIN),
        digest: Hash::of(b"a request"),
        at: now().wall,
        audit_id: parsed("01MCC5RM000W3GE1R70W3GE1R7"),
        response,
    })
}

fn peer(trust: TrustState) -> Record {
    Record::Peer(Peer { runtime: parsed(ORIGIN), pinned: fingerprint("origin"), trust, boot: 5 })
}

fn overlay() -> Record {
    let value = |key: &str, value| (key.to_owned(), value);
    let values = [
        value("log.level", Value::Text("warn".to_owned())),
        value("mesh.timing.period_ms", Value::Int(500)),
        value("no.such.flag", Value::Bool(true)),
        value("no.such.list", Value::Other("[1]".to_owned())),
    ];
    Record::Overlay(Overlay { revision: 3, values: values.into(), over: [value("log.level", Value::Int(1))].into() })
}

fn status() -> Response {
    Response::Status(Box::new(Status {
        runtime: parsed(ME),
        version: "0.1.0".to_owned(),
        boot: 5,
        uptime: Millis(1_000),
        health: Health::Degraded,
        config_revision: 3,
        peers_online: 2,
    }))
}

/// Two records of a log, countersigned and then found to be others.
fn head() -> Head {
    let key = NoteKey::new(log_name(&parsed(ORIGIN)), IdentityKey::from_seed([6; 32]));
    let mut tree = Tree::EMPTY;
    tree.push(b"a");
    tree.push(b"b");
    let note = key.sign(&Checkpoint::of(key.name(), &tree, 4).text());
    let head = Head::restore(key.verifier(), note, &tree.subtrees(), now().wall, Some(Break::Forked));
    head.expect("belong together")
}

fn countersigned() -> Countersigned {
    let Head { note, checkpoint, .. } = head();
    let key = NoteKey::new(log_name(&parsed(ME)), IdentityKey::from_seed([7; 32]));
    Countersigned {
        witness: parsed(ME),
        key: key.countersigner().to_string(),
        note: format!("{note}{}", key.countersign(&checkpoint.text(), 1_800_000_000)),
        refused: Some(NotContinued { reason: Break::WentBack, held: note }),
    }
}

fn run_id() -> RunId {
    RunId::new(now().wall, [7; 10])
}

fn deed() -> Deed {
    let key = request();
    Deed { key, origin: parsed(ORIGIN), is_verified: true, command: parsed("restart"), at: now().wall }
}

fn run() -> OpenRun {
    OpenRun {
        run: run_id(),
        agent: parsed("cmd.purge"),
        instance: parsed("me"),
        payload: r#"{"line":4}"#.to_owned(),
        is_streamed: false,
        actor: request().actor,
        at: now().wall,
    }
}

/// Every fact by its file's name. A new one has to be named here: the compiler asks for its kind.
fn facts() -> BTreeMap<&'static str, Record> {
    let key = IntentKey { request: request(), target: parsed(ME) };
    let applied = Response::Applied { revision: 3, keys: vec!["log.level".to_owned()] };
    BTreeMap::from([
        ("boot", Record::Boot { counter: 5 }),
        ("clock_mark", Record::ClockMark { wall: Wall(u64::MAX) }),
        ("dropped_until", Record::DroppedUntil { wall: now().wall }),
        ("countersigned", Record::Countersigned(Box::new(countersigned()))),
        ("head", Record::Head { runtime: parsed(ORIGIN), head: Box::new(head()) }),
        ("deed", Record::Deed(deed())),
        ("intent", Record::Intent(Intent { key, action: "cfg_apply".to_owned(), at: now().wall })),
        ("overlay", overlay()),
        ("peer.trusted", peer(TrustState::Trusted)),
        ("peer.untrusted", peer(TrustState::Untrusted)),
        ("receipt.applied", receipt(applied)),
        ("receipt.cancelling", receipt(Response::Cancelling { run: run_id() })),
        ("receipt.commanded", receipt(Response::Commanded { command: parsed("restart") })),
        ("receipt.pong", receipt(Response::Pong)),
        ("receipt.started", receipt(Response::Started { run: run_id() })),
        ("receipt.status", receipt(status())),
        ("run", Record::Run(Arc::new(run()))),
    ])
}

/// The kind of the row that a fact leaves; none for a removal.
const fn kind(record: &Record) -> Option<&'static str> {
    match record {
        Record::Boot { .. } => Some("boot"),
        Record::ClockMark { .. } => Some("clock_mark"),
        Record::DroppedUntil { .. } => Some("dropped_until"),
        Record::Countersigned(_) => Some("countersigned"),
        Record::Head { .. } => Some("head"),
        Record::Deed(_) => Some("deed"),
        Record::Intent(_) => Some("intent"),
        Record::Overlay(_) => Some("overlay"),
        Record::Peer(_) => Some("peer"),
        Record::Receipt(_) => Some("receipt"),
        Record::Run(_) => Some("run"),
        Record::CountersignedForgotten { .. }
        | Record::DeedClosed(_)
        | Record::HeadForgotten { .. }
        | Record::IntentClosed(_)
        | Record::PeerForgotten { .. }
        | Record::ReceiptDropped(_)
        | Record::RunClosed(_) => None,
    }
}

fn row(record: &Record) -> Json {
    match encode(record).expect("a fact has a row") {
        Change::Put { kind, key, body } => json!({ "kind": kind, "key": key, "body": body }),
        Change::Delete { .. } => panic!("{record:?} leaves no row"),
    }
}

fn stored() -> BTreeMap<String, Json> {
    let read = |name: String| {
        let row = serde_json::from_str(&text(&name)).expect("JSON");
        let file = name.rsplit('/').next().expect("a file").trim_end_matches(".json").to_owned();
        (file, row)
    };
    all(FOLDER, ".json").into_iter().map(read).collect()
}

#[test]
fn stored_facts_are_read_and_written_as_ever() {
    let facts = facts();
    if is_updating() {
        for (name, record) in &facts {
            let path = path(&format!("{FOLDER}/{name}.json"));
            if !path.exists() {
                fs::create_dir_all(path.parent().expect("a folder")).expect("made");
                fs::write(path, row(record).to_string()).expect("written");
            }
        }
    }
    let stored = stored();
    let mut wrong = Vec::new();
    for (name, record) in &facts {
        let Some(kept) = stored.get(*name) else {
            wrong.push(format!("{name} is not stored"));
            continue;
        };
        let field = |field: &str| kept[field].as_str().expect("text");
        if kind(record) != Some(field("kind")) {
            wrong.push(format!("{name} has another kind"));
        }
        match decode(field("kind"), field("key"), field("body")) {
            Ok(read) if read != *record => wrong.push(format!("{name} is read as {read:?}")),
            Err(fault) => wrong.push(format!("{name} is not read any more: {fault}")),
            Ok(_) if row(record) != *kept => wrong.push(format!("{name} would be written as {}", row(record))),
            Ok(_) => {}
        }
    }
    assert_none(&wrong);
    assert_eq!(stored.len(), facts.len(), "a stored example that nothing names");
}
