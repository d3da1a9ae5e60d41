//! The text of an event, as it is stored and as every reader gets it.

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value as Json, json};

use super::cut;
use super::line::{Said, reserved};
use super::moment::iso;
use crate::domain::run::{End, Event, Kind, Pointer, RunId};
use crate::domain::time::Wall;

/// What every event has, whoever says it: the node alone says this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Whose event it is.
    pub run: RunId,
    /// Its number in the run's log.
    pub index: u64,
    /// When it happened.
    pub at: Wall,
}

/// The event that begins a run. A payload that is no JSON is shown as a text.
pub fn run_start(pointer: &Pointer, payload: &str) -> Event {
    let frame = Frame { run: pointer.run, index: 0, at: pointer.started };
    let fields = [
        ("instanceId", Json::from(pointer.instance.as_str())),
        ("agentName", Json::from(pointer.agent.as_str())),
        ("startedAt", Json::from(iso(pointer.started))),
        ("payload", json_or_text(payload)),
    ];
    frame.event(Kind::RunStart, named(fields))
}

/// The event that ends a run. Result and error are JSON texts; what is none is shown as a text.
pub fn run_end(run: RunId, index: u64, end: &End, result: Option<&str>, error: Option<&str>) -> Event {
    let frame = Frame { run, index, at: end.at };
    let fields = [
        ("result", result.map_or(Json::Null, json_or_text)),
        ("isError", Json::from(end.is_error)),
        ("durationMs", Json::from(end.duration.0)),
    ];
    let error = error.map(|error| ("error", json_or_text(error)));
    frame.event(Kind::RunEnd, named(fields.into_iter().chain(error)))
}

/// Nothing is under way any more: told to a caller who follows, before the end (contract, RR-14).
pub fn idle(frame: Frame) -> Event {
    frame.event(Kind::Idle, Map::new())
}

/// The event for what a program has said, unless it was its result or its error: those are the run's, and end it.
pub fn said(frame: Frame, said: Said) -> Result<Event, Said> {
    match said {
        Said::Event { kind, fields } if kind.may_be_said() => Ok(frame.event(kind, fields.0)),
        Said::Event { kind, fields } => {
            // Nothing here makes such a one; what frames a run is the node's to say.
            let message = Json::Object(fields.0).to_string();
            let fields = [("level", Json::from("info")), ("message", Json::from(format!("{kind}: {message}")))];
            Ok(frame.event(Kind::Log, named(fields)))
        }
        Said::Log { level, message } => {
            let fields = [("level", Json::from(level.as_str())), ("message", Json::from(message))];
            Ok(frame.event(Kind::Log, named(fields)))
        }
        Said::Result(_) | Said::Error { .. } => Err(said),
    }
}

fn named<'a>(fields: impl IntoIterator<Item = (&'a str, Json)>) -> Map<String, Json> {
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn json_or_text(text: &str) -> Json {
    serde_json::from_str(text).unwrap_or_else(|_no_json| json!(text))
}

impl Frame {
    fn event(self, kind: Kind, mut fields: Map<String, Json>) -> Event {
        fields.retain(|name, _| !reserved(name));
        let body = cut::text(&self, kind, fields).into();
        Event { index: self.index, kind, at: self.at, body }
    }

    /// The event as a JSON object on one line.
    pub(super) fn text(&self, kind: Kind, fields: &Map<String, Json>) -> String {
        // Values of JSON are JSON again, and no writer can fail here.
        serde_json::to_string(&Body { frame: self, kind, fields }).unwrap_or_default()
    }
}

/// An event with its frame first.
struct Body<'a> {
    frame: &'a Frame,
    kind: Kind,
    fields: &'a Map<String, Json>,
}

impl Serialize for Body<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("type", self.kind.as_str())?;
        map.serialize_entry("runId", &self.frame.run.to_string())?;
        map.serialize_entry("eventIndex", &self.frame.index)?;
        map.serialize_entry("timestamp", &iso(self.frame.at))?;
        for (name, value) in self.fields {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}
