//! JSON that somebody else wrote, kept as it was written but for space between its parts.
//!
//! A value read and written again is not always the same: names change their order, and numbers of more than 64 bits lose
//! digits. What a program says or is given, its readers get to the digit.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value as Json};

/// A JSON text on one line.
#[derive(Debug, Clone)]
pub(super) struct Text(Box<RawValue>);

/// The fields of an object, in the order in which they were written.
pub(super) type Members = Vec<(String, Text)>;

impl Text {
    /// A JSON text, if it is one that every reader can take: neither too deep nor with numbers out of all range.
    pub(super) fn read(text: &str) -> Option<Self> {
        serde_json::from_str::<Json>(text).ok()?;
        Self::unread(text)
    }

    /// The same of a part of what has been read.
    fn unread(text: &str) -> Option<Self> {
        RawValue::from_string(compact(text)).ok().map(Self)
    }

    /// The same, or what is no JSON as a text.
    pub(super) fn read_or_quote(text: &str) -> Self {
        Self::read(text).unwrap_or_else(|| Self::from(Json::from(text)))
    }

    pub(super) fn as_str(&self) -> &str {
        self.0.get()
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl From<Json> for Text {
    fn from(json: Json) -> Self {
        // A value of JSON has a text.
        Self(to_raw_value(&json).unwrap_or_else(|_never| RawValue::NULL.to_owned()))
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// The fields of an object, if the text is one. Of a name that is written twice the last value counts.
pub(super) fn members(text: &str) -> Option<Members> {
    serde_json::from_str::<Map<String, Json>>(text).ok()?;
    let Read(raw) = serde_json::from_str(text).ok()?;
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let mut members: Members = Vec::with_capacity(raw.len());
    for (name, value) in raw {
        let value = Text::unread(value.get())?;
        match places.get(&name).and_then(|place| members.get_mut(*place)) {
            Some((_, earlier)) => *earlier = value,
            None => {
                places.insert(name.clone(), members.len());
                members.push((name, value));
            }
        }
    }
    Some(members)
}

/// An object as it is written.
struct Read(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Read {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(InOrder).map(Self)
    }
}

struct InOrder;

impl<'de> Visitor<'de> for InOrder {
    type Value = Vec<(String, Box<RawValue>)>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(members)
    }
}

/// A JSON text without the space between its parts, and so without a line end: inside a JSON string none can stand.
fn compact(text: &str) -> String {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let is_part = |it: &char| {
        if !is_quoted {
            is_quoted = *it == '"';
            return !it.is_ascii_whitespace();
        }
        is_quoted = is_escaped || *it != '"';
        is_escaped = *it == '\\' && !is_escaped;
        true
    };
    text.chars().filter(is_part).collect()
}
