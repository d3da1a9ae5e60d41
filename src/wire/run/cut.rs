//! Events that are too long, cut to what an event may be (contract, RR-58 and RR-59).

use serde_json::{Value as Json, json};

use super::event::Frame;
use super::line::quoted;
use super::text::{Members, Text};
use crate::domain::run::{EVENT_BYTES_MAX, Kind};

/// The fields that are cut, before the event itself is.
const CUT: [&str; 4] = ["result", "args", "text", "content"];

/// What is left of an event of which nothing else can be: what tells whose it is and how the run began and ended.
const KEPT: [&str; 10] = [
    "session",
    "parentSession",
    "taskId",
    "harness",
    "operationId",
    "instanceId",
    "agentName",
    "startedAt",
    "isError",
    "durationMs",
];

/// Longest of those, in bytes of JSON; a longer one goes with the rest. An instance's name fits, whatever is in it.
const KEPT_BYTES_MAX: usize = 2 * 1024;

/// Characters of what was cut that are still shown.
const PREVIEW_CHARS: usize = 1_024;

/// The event's text, cut until it is short enough.
pub(super) fn text(frame: &Frame, kind: Kind, mut fields: Members) -> String {
    let whole = frame.text(kind, &fields);
    if whole.len() <= EVENT_BYTES_MAX {
        return whole;
    }
    let mut left = CUT.to_vec();
    while let Some((name, size)) = largest(&fields, &left) {
        left.retain(|it| *it != name);
        if let Some((_, value)) = fields.iter_mut().find(|(it, _)| it == name) {
            *value = Text::from(stump(count(size), &shown(value)));
        }
        let text = frame.text(kind, &fields);
        if text.len() <= EVENT_BYTES_MAX {
            return text;
        }
    }
    fields.retain(|(name, value)| KEPT.contains(&name.as_str()) && value.as_str().len() <= KEPT_BYTES_MAX);
    if let Json::Object(stump) = stump(count(whole.len()), &whole) {
        fields.extend(stump.into_iter().map(|(name, value)| (name, Text::from(value))));
    }
    frame.text(kind, &fields)
}

/// The largest of these fields, and its bytes as JSON.
fn largest(fields: &Members, of: &[&'static str]) -> Option<(&'static str, usize)> {
    let size = |name: &str| fields.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str().len());
    of.iter().filter_map(|name| Some((*name, size(name)?))).max_by_key(|(_, size)| *size)
}

fn count(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// A text as it is, anything else as JSON.
fn shown(value: &Text) -> String {
    quoted(value).unwrap_or_else(|| value.as_str().to_owned())
}

/// What is said of what was cut.
pub(super) fn stump(size: u64, shown: &str) -> Json {
    let preview: String = shown.chars().take(PREVIEW_CHARS).collect();
    json!({ "truncated": true, "originalSize": size, "preview": preview })
}
