//! One example of every message and body in version 1, with and without what may be left out.

use std::collections::BTreeMap;

use serde_json::json;
use trust_runtime::domain::action::Action;
use trust_runtime::domain::audit::{AuditId, Hash, Position};
use trust_runtime::domain::code::Code;
use trust_runtime::domain::config::Value;
use trust_runtime::domain::envelope::{Health, Receipt, Response, Ruling, Status};
use trust_runtime::domain::policy::Denial;
use trust_runtime::domain::projection::{Edge, EdgeState};
use trust_runtime::domain::run::{End, Kind, Pointer, Run, RunId};
use trust_runtime::domain::time::{Millis, Wall};
use trust_runtime::engine::word::{Identity, Observation};
use trust_runtime::wire::mesh::{self, Echo, PointerNews, PointersAsked, PointersPage, Probe};
use trust_runtime::wire::mesh::{Announced, PIECE_BYTES_MAX, Part, RunAnswer, RunAsked, RunEvents, RunPiece, Whole};
use trust_runtime::wire::run::{run_end, run_start};

use crate::sealed::{ME, ORIGIN, envelope, fingerprint, origin_keys};
use crate::world::{now, parsed};

/// What the receipts answer.
pub(crate) const ENVELOPE: &[u8] = b"an envelope";

/// What the echo repeats.
pub(crate) const NONCE: &str = "00112233445566778899aabbccddeeff";

/// Every example by its file's name.
pub(crate) fn all() -> BTreeMap<String, Vec<u8>> {
    let groups = [actions(), receipts(), documents(), probes(), runs_asked(), runs_told(), pointers(), http()];
    groups.into_iter().flatten().map(|(name, bytes)| (name.to_owned(), bytes)).collect()
}

type Examples = Vec<(&'static str, Vec<u8>)>;

fn actions() -> Examples {
    let sealed = |action| mesh::seal_envelope(&origin_keys(), &envelope(action)).0;
    let settings = [
        ("log.level".to_owned(), Value::Text("warn".to_owned())),
        ("mesh.timing.period_ms".to_owned(), Value::Int(500)),
        ("no.such.flag".to_owned(), Value::Bool(true)),
    ];
    let params = [("speed".to_owned(), "{\"unit\":\"rpm\",\"value\":12.5}".to_owned())];
    vec![
        ("action.cfg_apply", sealed(Action::cfg_apply(settings.into()).expect("settings"))),
        ("action.cmd_invoke", sealed(Action::cmd_invoke("spin", params.into()).expect("a command"))),
        ("action.ping", sealed(Action::ping())),
        ("action.status_read", sealed(Action::StatusRead)),
        // The writes beside it were stored when a write did not name its target's boot.
        ("action.target_boot", sealed(Action::ping())),
    ]
}

fn receipts() -> Examples {
    let sealed = |ruling, position| {
        let receipt = Receipt {
            envelope: Hash::of(ENVELOPE),
            target: parsed(ORIGIN),
            origin: parsed(ME),
            request_id: parsed("request-1"),
            ruling,
            audit_id: AuditId::new(now().wall, [7; 10]),
            position,
            repeated: false,
            at: now().wall,
        };
        mesh::seal_receipt(&origin_keys(), &receipt)
    };
    let position = Position { seq: 9, previous: Hash::of(b"before"), hash: Hash::of(b"this") };
    let status = Status {
        runtime: parsed(ORIGIN),
        version: "0.1.0".to_owned(),
        boot: 5,
        uptime: Millis::from_secs(60),
        health: Health::Degraded,
        config_revision: 3,
        peers_online: 2,
    };
    let applied = Response::Applied { revision: 3, keys: vec!["log.level".to_owned()] };
    let denial = Denial::at_target(Code::PermissionDenied, "accept_write", "no accept_write rule allows it");
    vec![
        ("receipt.applied", sealed(Ruling::Done(applied), Some(position))),
        ("receipt.denied", sealed(Ruling::Refused(denial), None)),
        ("receipt.pong", sealed(Ruling::Done(Response::Pong), Some(position))),
        ("receipt.status", sealed(Ruling::Done(Response::Status(Box::new(status))), None)),
    ]
}

fn documents() -> Examples {
    let keys = origin_keys();
    let identity = |more: bool| Identity {
        runtime: parsed(ORIGIN),
        boot: 5,
        at: now().wall,
        api_version: "1.0".to_owned(),
        version: "0.1.0".to_owned(),
        capabilities: vec!["status_read".to_owned(), "cmd_invoke/ping".to_owned()],
        host: more.then(|| "line-pc".to_owned()),
        web: more.then(|| "http://127.0.0.1:8080".to_owned()),
        is_secure: more,
        policy_hash: Hash::of(b"a policy"),
        config_revision: 3,
        config_etag: Hash::of(b"a configuration"),
    };
    let edge = |state, answered: bool| Edge {
        target: parsed(ME),
        state,
        latency_p95_us: answered.then_some(1_250),
        loss_pct: if answered { 3 } else { 100 },
        last_ok: answered.then(|| Wall(now().wall.0)),
    };
    let observation = |edges, is_leaving| Observation {
        runtime: parsed(ORIGIN),
        boot: 5,
        sequence: 17,
        at: now().wall,
        health: Health::Healthy,
        config_revision: 3,
        runs_head: None,
        edges,
        is_leaving,
    };
    let edges = vec![edge(EdgeState::Healthy, true), edge(EdgeState::Failed, false)];
    vec![
        ("identity.full", mesh::seal_identity(&keys, &identity(true))),
        ("identity.least", mesh::seal_identity(&keys, &identity(false))),
        ("observation.edges", mesh::seal_observation(&keys, &observation(Some(edges), false))),
        ("observation.goodbye", mesh::seal_observation(&keys, &observation(None, true))),
        (
            "observation.runs",
            mesh::seal_observation(&keys, &Observation { runs_head: Some(9), ..observation(None, false) }),
        ),
    ]
}

fn probes() -> Examples {
    let echo = Echo { nonce: NONCE.to_owned(), boot: 5 };
    let probe = Probe { nonce: NONCE.to_owned() };
    vec![("echo", mesh::seal_echo(&origin_keys(), &echo)), ("probe", probe.to_bytes())]
}

/// The run of the examples, and where it is.
pub(crate) fn pointer(end: Option<End>) -> Pointer {
    let started = Wall::from_millis(1_000);
    Pointer {
        run: RunId::new(started, [7; 10]),
        owner: parsed(ORIGIN),
        agent: parsed("cmd.spin"),
        instance: parsed("line \"4\""),
        started,
        end,
    }
}

const END: End = End { at: Wall::from_millis(3_000), is_error: true, duration: Millis(2_000) };

fn runs_asked() -> Examples {
    let sealed = |asked: RunAsked| {
        mesh::seal_run_question(&origin_keys(), &envelope(Action::StatusRead), pointer(None).run, &asked).0
    };
    let events =
        |kinds, takes_held| RunAsked::Events { from: 3, kinds, limit: 1_000, wait: Millis(10_000), takes_held };
    vec![
        ("run_asked.events", sealed(events(None, false))),
        ("run_asked.held", sealed(events(None, true))),
        ("run_asked.kinds", sealed(events(Some([Kind::Log, Kind::RunEnd].into()), false))),
        ("run_asked.pointer", sealed(RunAsked::Pointer)),
        ("run_asked.record", sealed(RunAsked::Record)),
        ("run_asked.result", sealed(RunAsked::Part { part: Part::Result, from: 196_608, most: PIECE_BYTES_MAX })),
        ("run_asked.piece", sealed(RunAsked::Part { part: Part::Result, from: 196_608, most: 49_152 })),
        ("run_asked.error", sealed(RunAsked::Part { part: Part::Error, from: 0, most: PIECE_BYTES_MAX })),
    ]
}

fn runs_told() -> Examples {
    let sealed = |answer: RunAnswer| mesh::seal_run_answer(&origin_keys(), Hash::of(ENVELOPE), &answer);
    let record = |end, result: Option<&str>, error: Option<&str>| {
        let (result, error) = (result.map(str::to_owned), error.map(str::to_owned));
        RunAnswer::Record(Box::new(Run { pointer: pointer(end), result, error }))
    };
    let first = run_start(&pointer(None), "{\"speed\":1.50}");
    let last = run_end(pointer(None).run, 1, &END, None, Some("{\"name\":\"Cancelled\"}"));
    let page = RunEvents { events: vec![first, last], next: 2, count: 2, is_ended: true };
    let long = Run { pointer: pointer(Some(END)), result: Some("null".to_owned()), error: None };
    let announced = Announced { run: long, result: None, error: Some(Whole::of("{\"name\":\"Cancelled\"}")) };
    let announced = RunAnswer::Announced(Box::new(announced));
    let denial = Denial::at_target(Code::PermissionDenied, "role", "status_read needs the role viewer");
    vec![
        ("run_answer.denied", sealed(RunAnswer::Denied(denial))),
        ("run_answer.events", sealed(RunAnswer::Events(Box::new(pointer(Some(END))), page))),
        ("run_answer.announced", sealed(announced)),
        ("run_answer.held_up", sealed(RunAnswer::HeldUp(Box::new(pointer(None))))),
        ("run_answer.piece", sealed(RunAnswer::Piece(RunPiece::of("\"done\"", 2, 49_152).expect("there is more")))),
        ("run_answer.pointer", sealed(RunAnswer::Pointer(Box::new(pointer(None))))),
        ("run_answer.record", sealed(record(Some(END), Some("null"), Some("{\"name\":\"Cancelled\"}")))),
        ("run_answer.started", sealed(record(None, None, None))),
        ("run_answer.unknown", sealed(RunAnswer::Unknown)),
    ]
}

fn pointers() -> Examples {
    let asked = PointersAsked { owner: parsed(ME), at: now().wall, sequence: 4, number: 9, floor: 2 };
    let page = PointersPage {
        is_restart: true,
        changes: vec![
            PointerNews::Put(pointer(None)),
            PointerNews::Put(pointer(Some(END))),
            PointerNews::Forgotten(pointer(None).run),
        ],
        number: 12,
        floor: 2,
        has_more: true,
    };
    vec![
        ("pointers_asked", mesh::seal_pointers_asked(&origin_keys(), &asked).0),
        ("pointers", mesh::seal_pointers(&origin_keys(), Hash::of(ENVELOPE), &page)),
    ]
}

fn http() -> Examples {
    let action = |kind: &str, more: serde_json::Value| {
        let mut body = json!({
            "api_version": "1.0",
            "request_id": "request-1",
            "connected_via": "target",
            "target_runtimes": ["target", "site-b/other"],
            "actor": "spiffe://trust/site-a/alice",
            "action_type": kind,
        });
        let body_members = body.as_object_mut().expect("an object");
        body_members.extend(more.as_object().expect("an object").clone());
        body.to_string().into_bytes()
    };
    let apply =
        json!({ "payload": { "params": { "log.level": "warn" } }, "plan_hash": "opaque", "query_budget_ms": 500 });
    let invoke = json!({ "payload": { "command": "spin", "params": { "speed": { "unit": "rpm" } } }, "dry_run": true });
    let fingerprint = fingerprint("origin").to_string();
    vec![
        ("http_action.cfg_apply", action("cfg_apply", apply)),
        ("http_action.cmd_invoke", action("cmd_invoke", invoke)),
        ("http_action.status_read", action("status_read", json!({}))),
        ("http_control.empty", b"{}".to_vec()),
        ("http_control.version", json!({ "api_version": "1.7" }).to_string().into_bytes()),
        (
            "http_peer.approve",
            json!({ "api_version": "1.0", "runtime_id": "site-b/other", "fingerprint": fingerprint })
                .to_string()
                .into_bytes(),
        ),
        ("http_peer.forget", json!({ "runtime_id": "other" }).to_string().into_bytes()),
    ]
}
