//! What a line of a program's output says (DESIGN, *The project folder*).
//!
//! A JSON object with the type of an event becomes that event, but for those that frame a run, and names its result or its
//! error. Anything else is a line for people, kept as a `log`: a program that knows nothing of events is understood too.

use serde_json::Value as Json;

use super::cut;
use super::text::{Members, Text, members};
use crate::domain::run::Kind;

/// The name of an error that a program has not named.
const UNNAMED: &str = "Error";

/// How much a line for people matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// As it should be.
    Info,
    /// Maybe not.
    Warn,
    /// Not.
    Error,
}

impl Level {
    /// The stable text on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// The fields of an event that are the program's to say.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fields(pub(super) Members);

/// What a program says with a line.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    /// An event of a kind that a program may say.
    Event {
        /// Its kind.
        kind: Kind,
        /// What it says beside what the node says.
        fields: Fields,
    },
    /// What the run brings, as a JSON text. Of several the last counts.
    Result(String),
    /// What went wrong.
    Error {
        /// The name of the error.
        name: String,
        /// What it says.
        message: String,
    },
    /// A line for people.
    Log {
        /// How much it matters.
        level: Level,
        /// The line.
        message: String,
    },
}

/// Whether a field is the node's to say, whatever the program puts there.
pub(super) fn reserved(name: &str) -> bool {
    matches!(name, "type" | "runId" | "eventIndex" | "timestamp")
}

/// What a line of standard output says, its line feed left out. Bytes that are no text are shown as U+FFFD.
pub fn line(bytes: &[u8]) -> Said {
    let object = std::str::from_utf8(bytes).ok().and_then(members);
    object.and_then(event).unwrap_or_else(|| Said::Log { level: Level::Info, message: shown(bytes) })
}

/// What a line of standard error says: a warning. Many programs tell their progress there; whether one has failed, its exit
/// says.
pub fn complaint(bytes: &[u8]) -> Said {
    Said::Log { level: Level::Warn, message: shown(bytes) }
}

/// What is kept of a line that was too long to be read whole, and of how many bytes it is. It is no event any more, whatever its
/// beginning looks like.
pub fn beginning(level: Level, text: &str, size: u64) -> Said {
    let mut fields = vec![("level".to_owned(), Text::from(Json::from(level.as_str())))];
    if let Json::Object(stump) = cut::stump(size, text) {
        fields.extend(stump.into_iter().map(|(name, value)| (name, Text::from(value))));
    }
    Said::Event { kind: Kind::Log, fields: Fields(fields) }
}

fn shown(bytes: &[u8]) -> String {
    let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    String::from_utf8_lossy(bytes).into_owned()
}

/// What an object says, if it says anything that is known.
fn event(mut object: Members) -> Option<Said> {
    let name = quoted(field(&object, "type")?)?;
    match name.as_str() {
        "result" => Some(Said::Result(field(&object, "value").map_or("null", Text::as_str).to_owned())),
        "error" => {
            let text = |name| match field(&object, name) {
                None => String::new(),
                Some(value) if value.as_str() == "null" => String::new(),
                Some(value) => quoted(value).unwrap_or_else(|| value.as_str().to_owned()),
            };
            let (name, message) = (text("name"), text("message"));
            Some(Said::Error { name: if name.is_empty() { UNNAMED.to_owned() } else { name }, message })
        }
        _ => {
            let kind = name.parse::<Kind>().ok().filter(|kind| kind.may_be_said())?;
            object.retain(|(name, _)| !reserved(name));
            Some(Said::Event { kind, fields: Fields(object) })
        }
    }
}

fn field<'a>(object: &'a Members, name: &str) -> Option<&'a Text> {
    object.iter().find(|(it, _)| it == name).map(|(_, value)| value)
}

/// What a JSON string says.
pub(super) fn quoted(text: &Text) -> Option<String> {
    serde_json::from_str(text.as_str()).ok()
}
