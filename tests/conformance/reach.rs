//! Questions about runs and their answers, bent in one respect each under a signature that holds.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use trust_runtime::domain::action::Action;
use trust_runtime::domain::audit::Hash;
use trust_runtime::domain::envelope::SKEW;
use trust_runtime::domain::envelope::dsse::PayloadType;
use trust_runtime::domain::policy::Policy;
use trust_runtime::domain::preflight::Profile;
use trust_runtime::domain::projection::Presence;
use trust_runtime::domain::run::{INSTANCE_BYTES_MAX, Pointer, Run};
use trust_runtime::domain::time::Millis;
use trust_runtime::engine::view::View;
use trust_runtime::wire::mesh::{
    self, ANSWER_BYTES_MAX, BROUGHT_AT_ONCE_MAX, BROUGHT_BYTES_MAX, PIECE_BYTES_MAX, POINTERS_MAX, Part, PointerNews,
    PointersAsked, PointersPage, Refusal, RunAnswer, RunAsked, RunPiece,
};

use crate::example::{self, ENVELOPE};
use crate::sealed::{ME, ORIGIN, envelope, fingerprint, origin_keys};
use crate::world::{self, now, parsed};

fn view() -> View {
    let peer = world::peer(fingerprint("origin"), Presence::default());
    let settings = world::settings(ME, Profile::Dev, Policy::default());
    View {
        peers: [(parsed(ORIGIN), Arc::new(peer))].into_iter().collect(),
        ..world::view(settings, fingerprint("target"))
    }
}

/// What an example says.
fn content(name: &str) -> Value {
    let outer: Value = serde_json::from_slice(&example::all()[name]).expect("JSON");
    let payload = STANDARD.decode(outer["payload"].as_str().expect("text")).expect("base64");
    serde_json::from_slice(&payload).expect("JSON")
}

/// An example with its content changed, signed anew.
fn bent(name: &str, kind: PayloadType, change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut content = content(name);
    change(&mut content);
    mesh::seal(&origin_keys(), kind, content.to_string().as_bytes())
}

#[test]
fn a_question_about_a_run_is_a_read_and_asks_for_what_there_is() {
    let open = |bytes: &[u8]| mesh::open_run_question(&view(), &parsed(ORIGIN), bytes, now().wall).map(|_question| ());
    let events = |change: fn(&mut Value)| open(&bent("run_asked.events", PayloadType::RunAsked, change));
    let result = |change: fn(&mut Value)| open(&bent("run_asked.result", PayloadType::RunAsked, change));
    assert_eq!(events(|_| {}), Ok(()), "the way of bending bends nothing");
    assert_eq!(result(|_| {}), Ok(()), "the way of bending bends nothing");
    for (what, read) in [
        ("nothing", events(|it| it["events"]["limit"] = json!(0))),
        ("too much", events(|it| it["events"]["limit"] = json!(1_001))),
        ("no page", events(|it| drop(it.as_object_mut().expect("an object").remove("events")))),
        ("a page of the record", events(|it| it["asked"] = json!("record"))),
        ("a page of the pointer", events(|it| it["asked"] = json!("pointer"))),
        ("no such kind", events(|it| it["events"]["types"] = json!(["log", "no_such"]))),
        ("a run in lower case", events(|it| it["run"] = json!(it["run"].as_str().expect("text").to_lowercase()))),
        ("a piece of a page", events(|it| it["from"] = json!(1))),
        ("a piece from nowhere", result(|it| drop(it.as_object_mut().expect("an object").remove("from")))),
        ("a piece from before the beginning", result(|it| it["from"] = json!(-1))),
        ("a piece of nothing", result(|it| it["most"] = json!(0))),
        ("a piece that is no piece", result(|it| it["most"] = json!(PIECE_BYTES_MAX + 1))),
        ("a length of the record", events(|it| it["most"] = json!(9))),
        ("a piece of the record", result(|it| it["asked"] = json!("record"))),
        ("an unclear word", events(|it| it["events"]["takes_held"] = json!(null))),
        ("a negative number", events(|it| it["events"]["from"] = json!(-1))),
    ] {
        assert_eq!(read, Err(Refusal::Malformed), "{what}");
    }
    let (write, _) = mesh::seal_run_question(
        &origin_keys(),
        &envelope(Action::ping()),
        example::pointer(None).run,
        &RunAsked::Record,
    );
    assert_eq!(open(&write), Err(Refusal::Malformed), "a write is not looked at here");
    let read = example::all()["action.status_read"].clone();
    assert_eq!(open(&read), Err(Refusal::Malformed), "nor is another message");
}

/// Whoever has not said that he understands it is not told, so that whoever is told has asked.
#[test]
fn that_a_run_is_held_up_is_an_answer_to_whoever_takes_it_alone() {
    let of = |owner: &str, takes_held| {
        let asked = RunAsked::Events { from: 0, kinds: None, limit: 9, wait: Millis(9), takes_held };
        let question = (Hash::of(ENVELOPE), example::pointer(None).run, &asked);
        let bytes = bent("run_answer.held_up", PayloadType::RunAnswer, |it| it["pointer"]["owner"] = json!(owner));
        mesh::open_run_answer(&view(), &parsed(ORIGIN), question, &bytes, now().wall)
    };
    assert_eq!(of(ORIGIN, true), Ok(RunAnswer::HeldUp(Box::new(example::pointer(None)))));
    assert_eq!(of(ORIGIN, false), Err(Refusal::NotItsOwnWord));
    assert_eq!(of(ME, true), Err(Refusal::NotItsOwnWord));
}

#[test]
fn a_runs_answer_says_one_thing_on_whole_lines() {
    let asked = RunAsked::Events { from: 0, kinds: None, limit: 9, wait: Millis(0), takes_held: false };
    let open = |bytes: &[u8]| {
        let question = (Hash::of(ENVELOPE), example::pointer(None).run, &asked);
        mesh::open_run_answer(&view(), &parsed(ORIGIN), question, bytes, now().wall).map(|_answer| ())
    };
    let events = |change: fn(&mut Value)| open(&bent("run_answer.events", PayloadType::RunAnswer, change));
    assert_eq!(events(|_| {}), Ok(()), "the way of bending bends nothing");
    for (what, read, refused) in [
        ("two things", events(|it| it["denial"] = json!({})), Refusal::Malformed),
        ("another word", events(|it| it["said"] = json!("unknown")), Refusal::Malformed),
        ("no object", events(|it| it["page"]["events"][0]["body"] = json!([])), Refusal::Malformed),
        ("no kind", events(|it| it["page"]["events"][0]["body"]["type"] = json!("no_such")), Refusal::Malformed),
        ("a gap", events(|it| it["page"]["events"][1]["body"]["eventIndex"] = json!(2)), Refusal::NotItsOwnWord),
        ("another question", events(|it| it["question"] = json!("0".repeat(64))), Refusal::NotItsOwnWord),
        (
            "whose they are",
            events(|it| it["pointer"]["run"] = json!("run_01MCC5RM000W3GE1R70W3GE1R7")),
            Refusal::NotItsOwnWord,
        ),
        ("nobody's", events(|it| drop(it.as_object_mut().expect("an object").remove("pointer"))), Refusal::Malformed),
        (
            "an event of another run",
            events(|it| it["page"]["events"][1]["body"]["runId"] = json!("run_01MCC5RM000W3GE1R70W3GE1R7")),
            Refusal::NotItsOwnWord,
        ),
        (
            "too long an event",
            events(|it| it["page"]["events"][0]["body"]["text"] = json!("x".repeat(256 * 1024))),
            Refusal::Malformed,
        ),
    ] {
        assert_eq!(read, Err(refused), "{what}");
    }
    // On one line each: a stream of lines would show the second line as an event of its own.
    let payload = format!(
        "{{\"question\":\"{}\",\"said\":\"events\",\"pointer\":{},\"page\":{{\"events\":[{{\"at_ns\":1,\"body\":{{\n\
         \"type\":\"log\",\"runId\":\"{}\",\"eventIndex\":0}}}}],\"next\":1,\"count\":1,\"is_ended\":false}}}}",
        Hash::of(ENVELOPE),
        content("run_answer.events")["pointer"],
        example::pointer(None).run,
    );
    let sealed = |payload: &str| mesh::seal(&origin_keys(), PayloadType::RunAnswer, payload.as_bytes());
    assert_eq!(open(&sealed(&payload)), Err(Refusal::Malformed));
    assert_eq!(open(&sealed(&payload.replace('\n', ""))), Ok(()));
    let too_large = "x".repeat(ANSWER_BYTES_MAX);
    assert_eq!(open(&sealed(&too_large)), Err(Refusal::TooLarge));
}

/// What is too long for one answer is announced, and comes in pieces of what was announced.
#[test]
fn a_long_result_is_announced_in_bounds_and_comes_in_pieces_of_them() {
    let open = |name: &str, asked: &RunAsked, change: fn(&mut Value)| {
        let question = (Hash::of(ENVELOPE), example::pointer(None).run, asked);
        let bytes = bent(name, PayloadType::RunAnswer, change);
        mesh::open_run_answer(&view(), &parsed(ORIGIN), question, &bytes, now().wall).map(|_answer| ())
    };
    let record = |change: fn(&mut Value)| open("run_answer.announced", &RunAsked::Record, change);
    assert_eq!(record(|_| {}), Ok(()), "the way of bending bends nothing");
    assert_eq!(record(|it| it["announced"]["error"]["bytes"] = json!(BROUGHT_BYTES_MAX)), Ok(()));
    for (what, read, refused) in [
        ("too long", record(|it| it["announced"]["error"]["bytes"] = json!(BROUGHT_BYTES_MAX + 1)), Refusal::TooLarge),
        ("brought and announced", record(|it| it["brought"]["error"] = json!({})), Refusal::Malformed),
        ("no hash", record(|it| it["announced"]["error"]["digest"] = json!("abc")), Refusal::Malformed),
        ("of a pointer", record(|it| it["said"] = json!("pointer")), Refusal::Malformed),
        (
            "of another run",
            record(|it| it["pointer"]["run"] = json!("run_01MCC5RM000W3GE1R70W3GE1R7")),
            Refusal::NotItsOwnWord,
        ),
    ] {
        assert_eq!(read, Err(refused), "{what}");
    }
    let asked = |from| RunAsked::Part { part: Part::Result, from, most: PIECE_BYTES_MAX };
    let piece = |change: fn(&mut Value)| open("run_answer.piece", &asked(2), change);
    assert_eq!(piece(|_| {}), Ok(()), "the way of bending bends nothing");
    for (what, read, refused) in [
        ("elsewhere", piece(|it| it["piece"]["from"] = json!(1)), Refusal::NotItsOwnWord),
        ("nothing", piece(|it| it["piece"]["bytes"] = json!("")), Refusal::NotItsOwnWord),
        ("no bytes", piece(|it| it["piece"]["bytes"] = json!("?")), Refusal::Malformed),
        ("more than there is", piece(|it| it["piece"]["whole"]["bytes"] = json!(5)), Refusal::NotItsOwnWord),
        ("of what is too long", piece(|it| it["piece"]["whole"]["bytes"] = json!(1_u64 << 40)), Refusal::TooLarge),
        (
            "behind every end",
            open("run_answer.piece", &asked(u64::MAX), |it| it["piece"]["from"] = json!(u64::MAX)),
            Refusal::NotItsOwnWord,
        ),
        (
            "too much at once",
            piece(|it| {
                it["piece"]["bytes"] = json!(STANDARD.encode(vec![b'x'; PIECE_BYTES_MAX + 1]));
                it["piece"]["whole"]["bytes"] = json!(BROUGHT_BYTES_MAX);
            }),
            Refusal::NotItsOwnWord,
        ),
        (
            "more than was asked for",
            open("run_answer.piece", &RunAsked::Part { part: Part::Result, from: 2, most: 1 }, |_| {}),
            Refusal::NotItsOwnWord,
        ),
        ("of a record", open("run_answer.piece", &RunAsked::Record, |_| {}), Refusal::NotItsOwnWord),
    ] {
        assert_eq!(read, Err(refused), "{what}");
    }
}

/// The bounds of the parts of an answer leave it below the bound of the whole.
#[test]
fn the_largest_record_and_the_largest_piece_fit_into_an_answer() {
    let text = "x".repeat(BROUGHT_AT_ONCE_MAX);
    let run = |text: String| {
        let instance = parsed(&"\"".repeat(INSTANCE_BYTES_MAX));
        let pointer = Pointer { instance, ..example::pointer(None) };
        Run { pointer, result: Some(format!("\"{text}\"")), error: Some(format!("\"{text}\"")) }
    };
    let record = RunAnswer::of_record(run(text.get(2..).expect("longer").to_owned()));
    assert!(matches!(record, RunAnswer::Record(_)));
    assert!(matches!(RunAnswer::of_record(run(text)), RunAnswer::Announced(_)));
    let long = "x".repeat(BROUGHT_BYTES_MAX);
    let piece = RunAnswer::Piece(RunPiece::of(&long, 0, usize::MAX).expect("some"));
    for answer in [record, piece] {
        let sealed = mesh::seal_run_answer(&origin_keys(), Hash::of(ENVELOPE), &answer);
        assert!(sealed.len() <= ANSWER_BYTES_MAX, "{}", sealed.len());
    }
}

#[test]
fn an_answer_about_a_run_counts_only_with_the_pinned_key() {
    let unknown = mesh::seal_run_answer(&origin_keys(), Hash::of(ENVELOPE), &RunAnswer::Unknown);
    for (pinned, wanted) in [("origin", Ok(RunAnswer::Unknown)), ("stranger", Err(Refusal::NotItsOwnWord))] {
        let mut view = view();
        let peer = world::peer(fingerprint(pinned), Presence::default());
        view.peers = [(parsed(ORIGIN), Arc::new(peer))].into_iter().collect();
        let question = (Hash::of(ENVELOPE), example::pointer(None).run, &RunAsked::Record);
        let opened = mesh::open_run_answer(&view, &parsed(ORIGIN), question, &unknown, now().wall);
        assert_eq!(opened, wanted, "{pinned}");
    }
}

#[test]
fn pointers_are_asked_of_their_owner_now_and_told_in_pages() {
    let asked = PointersAsked { owner: parsed(ME), at: now().wall, sequence: 1, number: 0, floor: 0 };
    let open = |asked: &PointersAsked| {
        let (sealed, _) = mesh::seal_pointers_asked(&origin_keys(), asked);
        mesh::open_pointers_asked(&view(), &parsed(ORIGIN), &sealed, now().wall).map(|_opened| ())
    };
    let at = |at| PointersAsked { at, ..asked.clone() };
    assert_eq!(open(&at(now().wall.minus(SKEW))), Ok(()));
    assert_eq!(open(&at(now().wall.plus(SKEW))), Ok(()));
    for refused in [
        at(now().wall.minus(Millis(SKEW.0 + 1))),
        at(now().wall.plus(Millis(SKEW.0 + 1))),
        PointersAsked { owner: parsed("site-a/other"), ..asked.clone() },
    ] {
        assert_eq!(open(&refused), Err(Refusal::NotItsOwnWord), "{refused:?}");
    }
    for (count, wanted) in [(POINTERS_MAX, Ok(())), (POINTERS_MAX + 1, Err(Refusal::Malformed))] {
        let changes = vec![PointerNews::Put(example::pointer(None)); count];
        let page = PointersPage { is_restart: false, changes, number: 1, floor: 0, has_more: false };
        let sealed = mesh::seal_pointers(&origin_keys(), Hash::of(ENVELOPE), &page);
        let opened = mesh::open_pointers(&view(), &parsed(ORIGIN), Hash::of(ENVELOPE), &sealed, now().wall);
        assert_eq!(opened.map(|_page| ()), wanted, "{count}");
        let other = mesh::open_pointers(&view(), &parsed(ORIGIN), Hash::of(b"another"), &sealed, now().wall);
        assert_eq!(other, Err(Refusal::NotItsOwnWord));
    }
}
