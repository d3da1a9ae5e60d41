//! The text of an event, as it is stored and as every reader gets it.

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::Value as Json;

use super::cut;
use super::line::{Said, reserved};
use super::moment::iso;
use super::text::{Members, Text};
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
        ("instanceId", text(pointer.instance.as_str())),
        ("agentName", text(pointer.agent.as_str())),
        ("startedAt", text(iso(pointer.started))),
        ("payload", Text::read_or_quote(payload)),
    ];
    frame.event(Kind::RunStart, named(fields))
}

/// The event that ends a run. Result and error are JSON texts; what is none is shown as a text.
pub fn run_end(run: RunId, index: u64, end: &End, result: Option<&str>, error: Option<&str>) -> Event {
    let frame = Frame { run, index, at: end.at };
    let fields = [
        ("result", result.map_or_else(|| text(Json::Null), Text::read_or_quote)),
        ("isError", text(end.is_error)),
        ("durationMs", text(end.duration.0)),
    ];
    let error = error.map(|error| ("error", Text::read_or_quote(error)));
    frame.event(Kind::RunEnd, named(fields.into_iter().chain(error)))
}

/// Nothing is under way any more: told to a caller who follows, before the end (contract, RR-14).
pub fn idle(frame: Frame) -> Event {
    frame.event(Kind::Idle, Members::new())
}

/// The event for what a program has said, unless it was its result or its error: those are the run's, and end it.
pub fn said(frame: Frame, said: Said) -> Result<Event, Said> {
    match said {
        Said::Event { kind, fields } if kind.may_be_said() => Ok(frame.event(kind, fields.0)),
        Said::Event { kind, fields } => {
            // Nothing here makes such a one; what frames a run is the node's to say.
            let body = Body { frame: &frame, kind, fields: &fields.0 }.text();
            let fields = [("level", text("info")), ("message", text(body))];
            Ok(frame.event(Kind::Log, named(fields)))
        }
        Said::Log { level, message } => {
            let fields = [("level", text(level.as_str())), ("message", text(message))];
            Ok(frame.event(Kind::Log, named(fields)))
        }
        Said::Result(_) | Said::Error { .. } => Err(said),
    }
}

fn named<'a>(fields: impl IntoIterator<Item = (&'a str, Text)>) -> Members {
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn text(value: impl Into<Json>) -> Text {
    Text::from(value.into())
}

impl Frame {
    fn event(self, kind: Kind, mut fields: Members) -> Event {
        fields.retain(|(name, _)| !reserved(name));
        let body = cut::text(&self, kind, fields).into();
        Event { index: self.index, kind, at: self.at, body }
    }

    /// The event as a JSON object on one line.
    pub(super) fn text(&self, kind: Kind, fields: &[(String, Text)]) -> String {
        Body { frame: self, kind, fields }.text()
    }
}

/// An event with its frame first.
struct Body<'a> {
    frame: &'a Frame,
    kind: Kind,
    fields: &'a [(String, Text)],
}

impl Body<'_> {
    fn text(&self) -> String {
        // Values of JSON are JSON again, and no writer can fail here.
        serde_json::to_string(self).unwrap_or_default()
    }
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
