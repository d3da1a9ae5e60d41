//! Lines of a program's output, which become events of its run.

use std::sync::LazyLock;

use serde_json::Value;
use trust_runtime::domain::run::{EVENT_BYTES_MAX, Event, Kind, RunId};
use trust_runtime::domain::time::Wall;
use trust_runtime::wire::run::{Frame, Level, Said, beginning, complaint, iso, line, said};

/// The event's number in the log: nothing that a program says may change it.
const INDEX: u64 = 41;

static RUN: LazyLock<RunId> = LazyLock::new(|| RunId::new(Wall::from_millis(1_800_000_000_000), [7; 10]));

const AT: Wall = Wall::from_millis(1_800_000_000_000);

/// Whether it says more than a line for people: an event, a result or an error.
pub fn is_accepted(data: &[u8]) -> bool {
    !matches!(line(data), Said::Log { .. })
}

/// Whatever the bytes are, what is kept of them is one line of JSON of a bounded length, which says whose it is as the node
/// says it.
pub fn run(data: &[u8]) {
    match said(frame(), line(data)) {
        Ok(event) => check_event(&event, data),
        Err(Said::Result(value)) => drop(json(&value)),
        Err(Said::Error { name, .. }) => assert!(!name.is_empty()),
        Err(other @ (Said::Event { .. } | Said::Log { .. })) => panic!("no event of {other:?}"),
    }
    let complained = said(frame(), complaint(data)).expect("a line for people is an event");
    assert_eq!(complained.kind, Kind::Log);
    check_event(&complained, data);
    check_message(&complained, data);
    let size = u64::try_from(data.len()).expect("small");
    let begun = said(frame(), beginning(Level::Info, &String::from_utf8_lossy(data), size)).expect("an event");
    check_event(&begun, data);
    assert_eq!(json(&begun.body).get("originalSize").and_then(Value::as_u64), Some(size));
}

/// A short line is shown as it is, but for the carriage return of systems that end lines with two characters.
fn check_message(event: &Event, data: &[u8]) {
    if let (true, Ok(text)) = (data.len() <= 1_024, std::str::from_utf8(data)) {
        let shown = text.strip_suffix('\r').unwrap_or(text);
        assert_eq!(json(&event.body).get("message").and_then(Value::as_str), Some(shown));
    }
}

fn frame() -> Frame {
    Frame { run: *RUN, index: INDEX, at: AT }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text:?}"))
}

fn check_event(event: &Event, data: &[u8]) {
    assert!(event.body.len() <= EVENT_BYTES_MAX, "{} bytes of {}", event.body.len(), data.len());
    // A frame of a stream is made of lines, so that no character of an event may end one.
    assert!(!event.body.bytes().any(|byte| byte < 0x20), "{:?}", event.body);
    assert!(!matches!(event.kind, Kind::RunStart | Kind::RunEnd | Kind::Idle), "{} is the node's to say", event.kind);
    assert_eq!(event.index, INDEX);
    let body = json(&event.body);
    let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
    assert_eq!(text("type"), event.kind.as_str());
    assert_eq!(text("runId"), RUN.to_string());
    assert_eq!(text("timestamp"), iso(AT));
    assert_eq!(body.get("eventIndex").and_then(Value::as_u64), Some(INDEX));
    // Twice the same name would be read differently by different readers.
    let own = format!(
        "{{\"type\":\"{}\",\"runId\":\"{}\",\"eventIndex\":{INDEX},\"timestamp\":\"{}\"",
        event.kind,
        *RUN,
        iso(AT)
    );
    let rest = event.body.strip_prefix(&own).unwrap_or_else(|| panic!("wanted {own} first: {}", event.body));
    let rest = json(&format!("{{{}", rest.strip_prefix(',').unwrap_or(rest)));
    assert!(["type", "runId", "eventIndex", "timestamp"].iter().all(|name| rest.get(name).is_none()), "{rest}");
}
