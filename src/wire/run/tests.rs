//! What is said of runs: by hand where the contract names it, by chance where it has to hold for whatever a program says.

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::domain::run::{EVENT_BYTES_MAX, End, Event, Kind, Pointer, Run, RunId};
use crate::domain::time::{Millis, Wall};

const AT: Wall = Wall::from_millis(1_469_922_850_259);

fn run() -> RunId {
    RunId::new(AT, [7; 10])
}

fn frame(index: u64) -> Frame {
    Frame { run: run(), index, at: AT }
}

fn pointer() -> Pointer {
    Pointer {
        run: run(),
        owner: "s/a".parse().expect("legal"),
        agent: "hello".parse().expect("legal"),
        instance: "i1".parse().expect("legal"),
        started: AT,
        end: None,
    }
}

fn json_of(event: &Event) -> Json {
    assert!(event.body.len() <= EVENT_BYTES_MAX && !event.body.contains('\n'), "{} bytes", event.body.len());
    serde_json::from_str(&event.body).expect("JSON")
}

/// The event that a line becomes, as JSON without what every event has.
fn event_of(text: &str) -> (Kind, Json) {
    let event = said(frame(3), line(text.as_bytes())).expect("an event");
    let mut json = json_of(&event);
    let fields = json.as_object_mut().expect("an object");
    assert_eq!(fields.remove("type"), Some(json!(event.kind.as_str())));
    assert_eq!(fields.remove("runId"), Some(json!(run().to_string())));
    assert_eq!(fields.remove("eventIndex"), Some(json!(3)));
    assert_eq!(fields.remove("timestamp"), Some(json!("2016-07-30T23:54:10.259Z")));
    (event.kind, json)
}

#[test]
fn known_events_are_said_and_frames_cannot_be_forged() {
    let log = |line: &str| (Kind::Log, json!({ "level": "info", "message": line }));
    assert_eq!(event_of(r#"{"type":"text_delta","text":"ho"}"#), (Kind::TextDelta, json!({ "text": "ho" })));
    assert_eq!(event_of(r#" {"type":"turn"} "#), (Kind::Turn, json!({})));
    let forged = r#"{"type":"tool_start","runId":"run_x","eventIndex":0,"timestamp":"now","toolName":"t","a":[1]}"#;
    assert_eq!(event_of(forged), (Kind::ToolStart, json!({ "toolName": "t", "a": [1] })));
    for line in [
        r#"{"type":"run_start"}"#,
        r#"{"type":"run_end","isError":false}"#,
        r#"{"type":"idle"}"#,
        r#"{"type":"Turn"}"#,
        r#"{"type":7}"#,
        r#"{"type":"turn"} x"#,
        r#"["turn"]"#,
        "{}",
        "",
        "plain \u{1} text",
    ] {
        assert_eq!(event_of(line), log(line));
    }
    assert_eq!(event_of("dos\r"), log("dos"));
    let Said::Log { message, .. } = line(b"a\xff\xfeb") else { panic!("a log") };
    assert_eq!(message, "a\u{fffd}\u{fffd}b");
    assert_eq!(complaint(b"oh"), Said::Log { level: Level::Warn, message: "oh".to_owned() });
}

#[test]
fn results_and_errors_are_the_runs_and_no_events() {
    for (text, wanted) in [
        (r#"{"type":"result","value":{"a":[1,2.5]}}"#, Said::Result(r#"{"a":[1,2.5]}"#.to_owned())),
        (r#"{"type":"result"}"#, Said::Result("null".to_owned())),
        (r#"{"type":"error","name":"N","message":"m"}"#, Said::Error { name: "N".into(), message: "m".into() }),
        (r#"{"type":"error"}"#, Said::Error { name: "Error".into(), message: String::new() }),
        (r#"{"type":"error","message":{"a":1}}"#, Said::Error { name: "Error".into(), message: r#"{"a":1}"#.into() }),
    ] {
        let got = line(text.as_bytes());
        assert_eq!(got, wanted);
        assert_eq!(said(frame(1), got.clone()), Err(got));
    }
    assert_eq!(error_of("N", "m"), r#"{"message":"m","name":"N"}"#);
}

/// A text that loses its order and its digits when it is read as a value and written again.
const FAITHFUL: &str = r#"{"z":1e-7,"a":123456789012345678901234567890,"m":[1.10,-0,"\u00e9 \" : x"],"b":0.1000}"#;

#[test]
fn what_a_program_says_is_kept_to_the_digit_and_in_its_order() {
    let spaced = FAITHFUL.replace("\":", "\" :\t").replace("\" :\t x", "\" : x").replace(",\"", " ,\r \"");
    assert_ne!(spaced, FAITHFUL);
    let whole = serde_json::from_str::<Json>(FAITHFUL).expect("JSON").to_string();
    assert_ne!(whole, FAITHFUL, "read as a value it is another text");
    let result = format!(r#"{{"value":{spaced},"type":"result"}}"#);
    assert_eq!(line(result.as_bytes()), Said::Result(FAITHFUL.to_owned()));
    let call = format!(r#" {{"toolName":"t","type":"tool_call","result":{spaced},"args":[ ]}} "#);
    let event = said(frame(3), line(call.as_bytes())).expect("an event");
    assert!(event.body.ends_with(&format!(r#","toolName":"t","result":{FAITHFUL},"args":[]}}"#)), "{}", event.body);
    let start = run_start(&pointer(), &spaced);
    assert!(start.body.ends_with(&format!(r#","payload":{FAITHFUL}}}"#)), "{}", start.body);
    let end = End { at: AT, is_error: false, duration: Millis(1) };
    let end = run_end(run(), 9, &end, Some(FAITHFUL), None);
    assert!(end.body.contains(&format!(r#""result":{FAITHFUL},"#)), "{}", end.body);
    let run = Run { pointer: pointer(), result: Some(FAITHFUL.to_owned()), error: None };
    assert!(String::from_utf8(record(&run)).expect("text").contains(&format!(r#""result":{FAITHFUL}"#)));
    let twice = said(frame(3), line(br#"{"type":"turn","a":1,"b":2,"a":3}"#)).expect("an event");
    assert!(twice.body.ends_with(r#","a":3,"b":2}"#), "of two values the last counts: {}", twice.body);
}

#[test]
fn what_no_reader_could_take_is_a_line_for_people() {
    let deep = "[".repeat(200) + &"]".repeat(200);
    for value in ["1e999", r#""\ud800""#, deep.as_str(), "01", "\"a\tb\""] {
        let text = format!(r#"{{"type":"result","value":{value}}}"#);
        assert!(matches!(line(text.as_bytes()), Said::Log { message, .. } if message == text), "{value}");
    }
}

#[test]
fn a_run_is_framed_by_what_the_contract_says() {
    let start = run_start(&pointer(), "[1,null]");
    assert_eq!((start.index, start.kind, start.at), (0, Kind::RunStart, AT));
    let wanted = json!({
        "type": "run_start", "runId": run().to_string(), "eventIndex": 0, "timestamp": "2016-07-30T23:54:10.259Z",
        "instanceId": "i1", "agentName": "hello", "startedAt": "2016-07-30T23:54:10.259Z", "payload": [1, null],
    });
    assert_eq!(json_of(&start), wanted);
    assert!(start.body.starts_with(r#"{"type":"run_start","runId":"run_"#), "what every event has stands first");
    let end = End { at: AT, is_error: false, duration: Millis(12) };
    let json = json_of(&run_end(run(), 9, &end, None, None));
    assert_eq!((&json["result"], &json["isError"], &json["durationMs"]), (&Json::Null, &json!(false), &json!(12)));
    assert_eq!((&json["eventIndex"], json.get("error")), (&json!(9), None));
    let end = End { is_error: true, ..end };
    let json = json_of(&run_end(run(), 9, &end, Some("7"), Some(&error_of("Cancelled", "by a person"))));
    assert_eq!((&json["result"], &json["error"]["name"]), (&json!(7), &json!("Cancelled")));
}

#[test]
fn what_is_too_long_is_cut_the_largest_first() {
    let long = "é".repeat(100_000);
    let text = json!({ "type": "tool_call", "args": long, "result": [long, long], "toolName": "t" }).to_string();
    let (_, json) = event_of(&text);
    assert_eq!((&json["args"], &json["toolName"]), (&json!(long), &json!("t")), "only as much as has to be");
    let cut = &json["result"];
    assert_eq!((&cut["truncated"], &cut["originalSize"]), (&json!(true), &json!(400_007)));
    assert_eq!(cut["preview"], json!(format!("[\"{}", "é".repeat(1_022))));
    let text = json!({ "type": "text_delta", "text": long.repeat(2), "content": long.repeat(3) }).to_string();
    let (_, json) = event_of(&text);
    assert_eq!(json["text"]["preview"], json!("é".repeat(1_024)));
    assert_eq!(json["content"]["originalSize"], json!(600_002));
    let text = json!({ "type": "task", "taskId": "t1", "session": long.repeat(2), "other": 1 }).to_string();
    let (_, json) = event_of(&text);
    let mut names: Vec<_> = json.as_object().expect("an object").keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["originalSize", "preview", "taskId", "truncated"]);
    assert!(json["originalSize"].as_u64() > Some(400_000), "{json}");
}

#[test]
fn the_longest_event_is_left_as_it_is() {
    let bare = event_of(r#"{"type":"log","message":""}"#).1.to_string().len();
    let whole = |count: usize| json!({ "type": "log", "message": "x".repeat(count) }).to_string();
    let frame_bytes = said(frame(3), line(whole(0).as_bytes())).expect("an event").body.len();
    let fits = EVENT_BYTES_MAX - frame_bytes;
    assert!(bare < frame_bytes);
    assert_eq!(said(frame(3), line(whole(fits).as_bytes())).expect("an event").body.len(), EVENT_BYTES_MAX);
    assert_eq!(event_of(&whole(fits + 1)).1["truncated"], json!(true));
}

#[test]
fn a_long_payload_and_a_long_error_leave_what_frames_the_run() {
    let long = json!("x".repeat(400 << 10)).to_string();
    let json = json_of(&run_start(&pointer(), &long));
    assert_eq!((&json["agentName"], &json["instanceId"]), (&json!("hello"), &json!("i1")));
    let end = End { at: AT, is_error: true, duration: Millis(12) };
    let json = json_of(&run_end(run(), 9, &end, None, Some(&long)));
    assert_eq!((&json["isError"], &json["durationMs"]), (&json!(true), &json!(12)));
}

#[test]
fn records_show_what_the_contract_says() {
    let mut kept = Run { pointer: pointer(), result: None, error: None };
    let body = |run: &Run| serde_json::to_value(RunBody::from(run)).expect("JSON");
    let active = json!({
        "runId": run().to_string(), "instanceId": "i1", "agentName": "hello", "status": "active",
        "startedAt": "2016-07-30T23:54:10.259Z",
    });
    assert_eq!(body(&kept), active);
    assert_eq!(serde_json::to_value(PointerBody::from(&kept.pointer)).expect("JSON"), active);
    kept.pointer.end = Some(End { at: AT.plus(Millis(41)), is_error: true, duration: Millis(41) });
    kept.error = Some(error_of("N", "m"));
    kept.result = Some("1.0".to_owned());
    let ended = json!({
        "runId": run().to_string(), "instanceId": "i1", "agentName": "hello", "status": "errored",
        "startedAt": "2016-07-30T23:54:10.259Z", "endedAt": "2016-07-30T23:54:10.300Z", "isError": true,
        "durationMs": 41, "result": 1.0, "error": { "name": "N", "message": "m" },
    });
    assert_eq!(body(&kept), ended);
    assert!(serde_json::to_string(&RunBody::from(&kept)).expect("JSON").contains("1.0"), "a result is as it was given");
    let shown = serde_json::to_value(PointerBody::from(&kept.pointer)).expect("JSON");
    assert_eq!((shown.get("result"), shown.get("error"), &shown["isError"]), (None, None, &json!(true)));
}

#[test]
fn cursors_come_back_and_anything_else_is_none() {
    let text = run_cursor(AT.plus(Millis(1)), run());
    assert_eq!(read_run_cursor(&text), Some((AT.plus(Millis(1)), run())));
    let (agent, instance) = ("cmd.purge".parse().expect("legal"), "Zelle ä 漢".parse().expect("legal"));
    let text = instance_cursor(&agent, &instance);
    assert_eq!(read_instance_cursor(&text), Some((agent, instance)));
    // As an encoder for ASCII wrote it, with padding.
    assert_eq!(read_instance_cursor("aGVsbG8AaTE=").map(|it| it.1.to_string()), Some("i1".to_owned()));
    for text in ["", "x", "e30", "????", "eyJzIjoiIiwiciI6IiJ9", "AAAA"] {
        assert_eq!((read_run_cursor(text), read_instance_cursor(text)), (None, None), "{text}");
    }
}

#[test]
fn moments_are_written_with_milliseconds_and_read_in_any_form() {
    assert_eq!(iso(Wall(0)), "1970-01-01T00:00:00.000Z");
    assert_eq!(iso(Wall(u64::MAX)), "2554-07-21T23:34:33.709Z");
    assert_eq!(read_iso("2016-07-31T01:54:10.259999+02:00"), Some(AT));
    assert_eq!((read_iso("1969-12-31T23:59:59Z"), read_iso("now")), (None, None));
}

/// Any JSON, with the names that mean something among them.
fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        ".{0,40}".prop_map(Json::from),
        (any::<char>(), 0_usize..300_000).prop_map(|(it, count)| Json::from(it.to_string().repeat(count))),
    ];
    let name = prop_oneof![
        "[a-zA-Z]{0,8}",
        prop::sample::select(vec![
            "type",
            "runId",
            "eventIndex",
            "timestamp",
            "result",
            "args",
            "text",
            "content",
            "value",
            "message",
            "session",
        ])
        .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(3, 24, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Json::from),
            prop::collection::btree_map(name.clone(), inner, 0..6).prop_map(|it| it.into_iter().collect()),
        ]
    })
}

/// A line as a program may write it: of a known type, any JSON, or any bytes.
fn any_line() -> impl Strategy<Value = Vec<u8>> {
    let typed = (prop::sample::select(Kind::ALL.to_vec()), any_json()).prop_map(|(kind, json)| {
        let mut object = json.as_object().cloned().unwrap_or_default();
        object.insert("type".to_owned(), Json::from(kind.as_str()));
        Json::Object(object).to_string().into_bytes()
    });
    prop_oneof![typed, any_json().prop_map(|it| it.to_string().into_bytes()), any::<Vec<u8>>()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_a_line_is_its_event_is_whole_short_and_not_forged(line in any_line(), index in any::<u64>()) {
        for said in [super::line(&line), complaint(&line)] {
            match super::said(frame(index), said) {
                Ok(event) => {
                    let json = json_of(&event);
                    prop_assert!(event.kind.may_be_said());
                    prop_assert_eq!(&json["type"], &json!(event.kind.as_str()));
                    prop_assert_eq!((event.index, &json["eventIndex"]), (index, &json!(index)));
                    prop_assert_eq!(&json["runId"], &json!(run().to_string()));
                }
                Err(Said::Result(text)) => prop_assert!(serde_json::from_str::<Json>(&text).is_ok()),
                Err(Said::Error { .. }) => {}
                Err(other @ (Said::Event { .. } | Said::Log { .. })) => panic!("{other:?} is an event"),
            }
        }
    }

    #[test]
    fn whatever_a_run_is_given_and_brings_its_frame_is_whole(given in any_json(), brought in any_json()) {
        let (given, brought) = (given.to_string(), brought.to_string());
        prop_assert_eq!(&json_of(&run_start(&pointer(), &given))["agentName"], &json!("hello"));
        let end = End { at: AT, is_error: true, duration: Millis(1) };
        let json = json_of(&run_end(run(), 4, &end, Some(&brought), Some(&given)));
        prop_assert_eq!((&json["type"], &json["isError"]), (&json!("run_end"), &json!(true)));
    }

    #[test]
    fn no_cursor_is_a_panic(text in ".{0,60}") {
        read_run_cursor(&text);
        read_instance_cursor(&text);
    }
}
