//! Version 1 of every message and body, as an example that must be read for ever, and strictly.
//!
//! A stored example is never written again: `UPDATE_GOLDEN=1` only makes those that are not there yet.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value as Json, json};
use trust_runtime::domain::audit::Hash;
use trust_runtime::domain::envelope::dsse::PayloadType;
use trust_runtime::domain::policy::Policy;
use trust_runtime::domain::preflight::Profile;
use trust_runtime::domain::projection::Presence;
use trust_runtime::domain::time::Millis;
use trust_runtime::engine::view::View;
use trust_runtime::engine::word::Word;
use trust_runtime::wire::api::v1::action::{self, Ask};
use trust_runtime::wire::api::v1::control;
use trust_runtime::wire::mesh::{self, Part, Probe, RunAsked};

use crate::case_file::{all, assert_none, is_updating, path};
use crate::example::{self, ENVELOPE, NONCE};
use crate::sealed::{ME, ORIGIN, fingerprint, origin_keys};
use crate::world::{self, now, parsed};

const FOLDER: &str = "wire/v1";

/// Words of closed sets: their members by name.
const CLOSED: [&str; 11] =
    ["action", "action_type", "asked", "code", "health", "kind", "role", "said", "stage", "state", "api_version"];

/// Members that the writer always gives and the reader can do without.
const DEFAULTED: [(&str, &str); 1] = [("observation", "is_leaving")];

/// Members whose content is the caller's own.
const FREE: [&str; 4] = ["body", "error", "params", "result"];

fn view() -> View {
    let peer = world::peer(fingerprint("origin"), Presence::default());
    let settings = world::settings(ME, Profile::Dev, Policy::default());
    View {
        peers: [(parsed(ORIGIN), Arc::new(peer))].into_iter().collect(),
        ..world::view(settings, fingerprint("target"))
    }
}

/// What signs a kind of message; none for what is not signed.
fn payload_type(kind: &str) -> Option<PayloadType> {
    match kind {
        "action" => Some(PayloadType::Action),
        "echo" => Some(PayloadType::Echo),
        "identity" => Some(PayloadType::Identity),
        "observation" => Some(PayloadType::Observation),
        "pointers" => Some(PayloadType::Pointers),
        "pointers_asked" => Some(PayloadType::PointersAsked),
        "receipt" => Some(PayloadType::Receipt),
        "run_answer" => Some(PayloadType::RunAnswer),
        "run_asked" => Some(PayloadType::RunAsked),
        _ => None,
    }
}

/// Reads one, and gives the bytes that today's writer makes of it, where this program writes it too.
fn read(kind: &str, bytes: &[u8]) -> Result<Option<Vec<u8>>, String> {
    let (view, origin, at, keys) = (view(), parsed(ORIGIN), now().wall, origin_keys());
    let word = |kind| mesh::open_word(&view, &origin, kind, bytes, at).map(|(_, word)| word).map_err(told);
    match kind {
        "action" => {
            let received = mesh::open_envelope(&view, &origin, bytes, at).map_err(told)?;
            Ok(Some(mesh::seal_envelope(&keys, &received.envelope).0))
        }
        "echo" => {
            let (_, echo) = mesh::open_echo(&view, &origin, NONCE, bytes, at).map_err(told)?;
            Ok(Some(mesh::seal_echo(&keys, &echo)))
        }
        "identity" | "observation" => match word(payload_type(kind).expect("signed"))? {
            Word::Identity(identity) => Ok(Some(mesh::seal_identity(&keys, &identity))),
            Word::Observation(observation) => Ok(Some(mesh::seal_observation(&keys, &observation))),
            Word::Echo(_) => Err("an echo is no document".to_owned()),
        },
        "receipt" => {
            let receipt = mesh::open_receipt(&view, &origin, Hash::of(ENVELOPE), bytes, at).map_err(told)?;
            Ok(Some(mesh::seal_receipt(&keys, &receipt)))
        }
        "pointers" => {
            let page = mesh::open_pointers(&view, &origin, Hash::of(ENVELOPE), bytes, at).map_err(told)?;
            Ok(Some(mesh::seal_pointers(&keys, Hash::of(ENVELOPE), &page)))
        }
        "pointers_asked" => {
            let (_, asked, _) = mesh::open_pointers_asked(&view, &origin, bytes, at).map_err(told)?;
            Ok(Some(mesh::seal_pointers_asked(&keys, &asked).0))
        }
        "run_answer" => {
            let events = RunAsked::Events { from: 0, kinds: None, limit: 2, wait: Millis(0), takes_held: true };
            let open = |asked| {
                let question = (Hash::of(ENVELOPE), example::pointer(None).run, asked);
                mesh::open_run_answer(&view, &origin, question, bytes, at).map_err(told)
            };
            let others = [RunAsked::Pointer, RunAsked::Record, RunAsked::Part { part: Part::Result, from: 2, most: 9 }];
            let answer = others.iter().fold(open(&events), |opened, asked| opened.or_else(|_| open(asked)))?;
            Ok(Some(mesh::seal_run_answer(&keys, Hash::of(ENVELOPE), &answer)))
        }
        "run_asked" => {
            let question = mesh::open_run_question(&view, &origin, bytes, at).map_err(told)?;
            Ok(Some(mesh::seal_run_question(&keys, &question.read.envelope, question.run, &question.asked).0))
        }
        "probe" => Probe::parse(bytes).map(|probe| Some(probe.to_bytes())).map_err(told),
        "http_action" => match action::read(bytes, Ask::Dispatch, &parsed(ME)).map_err(told)? {
            action::Reading::Wanted(_) => Ok(None),
            action::Reading::Refused(refused) => Err(refused.denial.reason.to_string()),
        },
        "http_control" => control::read_plain(bytes).map(|()| None).map_err(told),
        "http_peer" => control::read_peer(bytes, &parsed(ME)).map(|_| None).map_err(told),
        other => panic!("no kind {other}"),
    }
}

fn told(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn stored() -> Vec<(String, String, Vec<u8>)> {
    let files = all(FOLDER, ".json").into_iter().map(|name| {
        let file = name.rsplit('/').next().expect("a file");
        let kind = file.split('.').next().expect("a kind").to_owned();
        let bytes = fs::read(path(&name)).expect("readable");
        (name, kind, bytes)
    });
    files.collect()
}

/// The content: of a signed message what was signed.
fn content(kind: &str, bytes: &[u8]) -> Json {
    let outer: Json = serde_json::from_slice(bytes).expect("JSON");
    match payload_type(kind) {
        None => outer,
        Some(_) => {
            let payload = STANDARD.decode(outer["payload"].as_str().expect("text")).expect("base64");
            serde_json::from_slice(&payload).expect("JSON")
        }
    }
}

/// Another content in the same form, with a signature that holds.
fn enclose(kind: &str, content: &Json) -> Vec<u8> {
    let bytes = serde_json::to_vec(content).expect("JSON");
    payload_type(kind).map_or_else(|| bytes.clone(), |kind| mesh::seal(&origin_keys(), kind, &bytes))
}

#[test]
fn stored_examples_are_read_and_written_as_ever() {
    if is_updating() {
        for (name, bytes) in example::all() {
            let path = path(&format!("{FOLDER}/{name}.json"));
            if !path.exists() {
                fs::write(path, bytes).expect("written");
            }
        }
    }
    let mut wrong = Vec::new();
    for (name, kind, bytes) in stored() {
        match read(&kind, &bytes) {
            Err(fault) => wrong.push(format!("{name} is not read any more: {fault}")),
            Ok(Some(written)) if written != bytes => wrong.push(format!("{name} would be written as other bytes")),
            Ok(_) => {}
        }
    }
    assert_none(&wrong);
}

#[test]
fn every_kind_has_a_stored_example() {
    let names: Vec<String> = stored().into_iter().map(|(name, ..)| name).collect();
    for (name, _) in example::all() {
        assert!(names.contains(&format!("{FOLDER}/{name}.json")), "{name} is not stored");
    }
}

#[test]
fn an_unknown_field_is_refused_wherever_it_stands() {
    let mut wrong = Vec::new();
    for (name, kind, bytes) in stored() {
        let content = content(&kind, &bytes);
        for place in objects(&content, "") {
            let mut changed = content.clone();
            let object = changed.pointer_mut(&place).and_then(Json::as_object_mut).expect("an object");
            object.insert("unknown_field".to_owned(), Json::from(1));
            if read(&kind, &enclose(&kind, &changed)).is_ok() {
                wrong.push(format!("{name}: taken at {place:?}"));
            }
        }
        let mut outer: Json = serde_json::from_slice(&bytes).expect("JSON");
        outer["unknown_field"] = Json::from(1);
        if read(&kind, &serde_json::to_vec(&outer).expect("JSON")).is_ok() {
            wrong.push(format!("{name}: taken around the content"));
        }
    }
    assert_none(&wrong);
}

#[test]
fn the_values_without_their_names_are_refused() {
    for (kind, values) in [
        ("http_control", json!([])),
        ("http_peer", json!(["1.0", "other"])),
        ("http_action", json!(["1.0", "r", "target", ["target"], "spiffe://trust/site-a/alice", "status_read"])),
        ("probe", json!([NONCE])),
        ("echo", json!([NONCE, 5])),
        ("observation", json!([ORIGIN, 5, 17, 1, "healthy", 3, null, false])),
    ] {
        assert!(read(kind, &enclose(kind, &values)).is_err(), "{kind}");
    }
}

/// Each stands where the example has the same values by name.
#[test]
fn the_values_of_an_inner_object_without_their_names_are_refused() {
    let hash = |name: &str| json!(Hash::of(name.as_bytes()).to_string());
    let mut wrong = Vec::new();
    for (name, kind, place, values) in [
        ("receipt.applied", "receipt", "/response", json!(["applied", 3, ["log.level"]])),
        ("receipt.applied", "receipt", "/position", json!([1, hash("a"), hash("b")])),
        ("receipt.pong", "receipt", "/response", json!(["pong"])),
        ("receipt.status", "receipt", "/response", json!(["status", ORIGIN, "0.1.0", 5, 1_000, "healthy", 3, 2])),
        ("receipt.denied", "receipt", "/denial", json!(["permission_denied", "no", "target", "r"])),
        ("observation.edges", "observation", "/edges/0", json!([ME, "healthy", 1, 0, 1])),
        ("pointers", "pointers", "/changes/2", json!([null, example::pointer(None).run.to_string()])),
        ("run_answer.events", "run_answer", "/page", json!([[], 0, 0, true])),
        ("run_answer.started", "run_answer", "/brought", json!([])),
        ("run_asked.events", "run_asked", "/events", json!([3, null, 5, 0])),
    ] {
        let bytes = fs::read(path(&format!("{FOLDER}/{name}.json"))).expect("readable");
        let mut changed = content(kind, &bytes);
        let inner = changed.pointer_mut(place).unwrap_or_else(|| panic!("{name} has no {place}"));
        assert!(inner.is_object(), "{name}{place}");
        *inner = values;
        if read(kind, &enclose(kind, &changed)).is_ok() {
            wrong.push(format!("{name}: taken at {place}"));
        }
    }
    let bytes = fs::read(path(&format!("{FOLDER}/echo.json"))).expect("readable");
    let mut outer: Json = serde_json::from_slice(&bytes).expect("JSON");
    let signature = outer["signatures"][0].clone();
    outer["signatures"][0] = json!([signature["keyid"], signature["sig"]]);
    if read("echo", &serde_json::to_vec(&outer).expect("JSON")).is_ok() {
        wrong.push("echo: taken around the content".to_owned());
    }
    assert_none(&wrong);
}

#[test]
fn a_value_is_the_same_over_http_and_over_the_mesh() {
    let stored: BTreeMap<String, Vec<u8>> = stored().into_iter().map(|(name, _, bytes)| (name, bytes)).collect();
    let example = |name: &str| content(name, &stored[&format!("{FOLDER}/{name}.cfg_apply.json")]);
    let texts = ["true", "1", "-1", "1.5", "1e3", "18446744073709551615", "\"1\"", "null", "[1,{}]", "{\"a\":[]}"];
    for text in texts {
        let value: Json = serde_json::from_str(text).expect("JSON");
        let (mut http, mut sealed) = (example("http_action"), example("action"));
        http["payload"]["params"] = json!({ "k": value });
        sealed["params"] = json!({ "k": value });
        let body = serde_json::to_vec(&http).expect("JSON");
        let action::Reading::Wanted(wanted) = action::read(&body, Ask::Dispatch, &parsed(ME)).expect("read") else {
            panic!("{text} is refused")
        };
        let bytes = enclose("action", &sealed);
        let received = mesh::open_envelope(&view(), &parsed(ORIGIN), &bytes, now().wall).expect("opened");
        assert_eq!(wanted.action, received.envelope.action, "{text}");
    }
}

#[test]
fn an_unknown_word_of_a_closed_set_is_refused() {
    let mut wrong = Vec::new();
    let mut tried = 0;
    for (name, kind, bytes) in stored() {
        let content = content(&kind, &bytes);
        for place in objects(&content, "") {
            let object = content.pointer(&place).and_then(Json::as_object).expect("an object");
            for member in object.keys().filter(|member| CLOSED.contains(&member.as_str())) {
                let is_free_text = member == "api_version" && kind == "identity";
                let mut changed = content.clone();
                changed.pointer_mut(&place).expect("there")[member.as_str()] = Json::from("no_such_word");
                if !is_free_text && read(&kind, &enclose(&kind, &changed)).is_ok() {
                    wrong.push(format!("{name}: {place}/{member} may be anything"));
                }
                tried += 1;
            }
        }
    }
    assert_none(&wrong);
    assert!(tried > 20, "only {tried} words were tried");
}

#[test]
fn a_missing_field_is_refused_unless_an_example_does_without() {
    let mut wrong = Vec::new();
    let all = stored();
    for (name, kind, bytes) in &all {
        let whole = content(kind, bytes);
        for member in whole.as_object().expect("an object").keys() {
            let is_optional =
                all.iter().any(|(_, other, bytes)| other == kind && content(other, bytes).get(member).is_none());
            let is_optional = is_optional || DEFAULTED.contains(&(kind, member));
            let mut changed = whole.clone();
            changed.as_object_mut().expect("an object").remove(member);
            if !is_optional && read(kind, &enclose(kind, &changed)).is_ok() {
                wrong.push(format!("{name}: does without {member}"));
            }
        }
    }
    assert_none(&wrong);
}

/// The places of all objects that have a fixed set of members.
fn objects(json: &Json, at: &str) -> Vec<String> {
    match json {
        Json::Object(members) => {
            let fixed = members.iter().filter(|(name, _)| !FREE.contains(&name.as_str()));
            let inner = fixed.flat_map(|(name, json)| objects(json, &format!("{at}/{name}")));
            std::iter::once(at.to_owned()).chain(inner).collect()
        }
        Json::Array(items) => {
            items.iter().enumerate().flat_map(|(index, json)| objects(json, &format!("{at}/{index}"))).collect()
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => Vec::new(),
    }
}
