//! Strict JSON: the place of a fault as a pointer, and values in which no key stands twice.

use std::fmt;

use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};
use serde_path_to_error::Segment;

use super::Fault;

/// Reads one JSON document and nothing behind it. Depth is bounded by `serde_json` (128), size by the caller.
pub(super) fn parse<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, Fault> {
    if is_array(bytes) {
        return Err(Fault::at("", "invalid type: sequence, expected an object"));
    }
    // The place is worked out only once something is wrong: keeping track of it costs an allocation per member.
    serde_json::from_slice(bytes)
        .map_err(|error| locate::<T>(bytes).unwrap_or_else(|| Fault::at("", error.to_string())))
}

/// Derived readers also take an object's values as an array, in the order of our source: no form that we have agreed on.
fn is_array(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().starts_with(b"[")
}

/// Where the fault is, unless it stands behind the document.
fn locate<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Option<Fault> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let error = serde_path_to_error::deserialize::<_, T>(&mut reader).err()?;
    let mut pointer = String::new();
    for segment in error.path() {
        match segment {
            Segment::Seq { index } => push(&mut pointer, &index.to_string()),
            Segment::Map { key } => push(&mut pointer, key),
            Segment::Enum { variant } => push(&mut pointer, variant),
            Segment::Unknown => {}
        }
    }
    let detail = error.inner().to_string();
    // A missing field has no place of its own and a duplicate has two: the parent is blamed unless we add the name.
    let named = ["missing field `", "duplicate field `"].into_iter().find_map(|it| detail.strip_prefix(it));
    if let Some(name) = named.and_then(|rest| rest.split('`').next()) {
        push(&mut pointer, name);
    }
    Some(Fault::at(pointer, detail))
}

/// Longest pointer in bytes: a hostile body can be as deep as it is allowed and have keys as long as itself.
const POINTER_BYTES_MAX: usize = 256;

fn push(pointer: &mut String, segment: &str) {
    let room = POINTER_BYTES_MAX.saturating_sub(pointer.len());
    if room == 0 {
        return;
    }
    pointer.push('/');
    for character in segment.chars().take(room.min(128)) {
        match character {
            '~' => pointer.push_str("~0"),
            '/' => pointer.push_str("~1"),
            other => pointer.push(other),
        }
    }
}

/// Reads a field that may be absent but not `null`.
pub(super) fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(reader: D) -> Result<Option<T>, D::Error> {
    T::deserialize(reader).map(Some)
}

/// Reads a whole number, also one that is written with a fraction of nothing: JSON has one kind of number, and to JSON Schema
/// `602.0` is an integer.
pub(super) fn whole<'de, D: Deserializer<'de>>(reader: D) -> Result<u64, D::Error> {
    reader.deserialize_u64(Whole)
}

struct Whole;

impl Visitor<'_> for Whole {
    type Value = u64;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("u64")
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<u64, E> {
        Ok(value)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<u64, E> {
        // Its shortest text has a point exactly if it has a fraction.
        value.to_string().parse().map_err(|_not_whole| E::invalid_type(Unexpected::Float(value), &self))
    }
}

/// Any JSON value without duplicate keys.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub(super) struct Strict(pub(super) Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        reader.deserialize_any(AnyValue).map(Self)
    }
}

/// A JSON object without duplicate keys.
#[derive(Debug, Clone, Default, PartialEq)]
pub(in crate::wire) struct Object(pub(in crate::wire) Map<String, Value>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        reader.deserialize_map(AnyObject).map(Self)
    }
}

struct AnyObject;

impl<'de> Visitor<'de> for AnyObject {
    type Value = Map<String, Value>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            if map.contains_key(&key) {
                let key: String = key.chars().take(128).collect();
                return Err(A::Error::custom(format_args!("duplicate key {key:?}")));
            }
            let Strict(value) = access.next_value()?;
            map.insert(key, value);
        }
        Ok(map)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        Ok(Value::from(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Strict(item)) = access.next_element()? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<Value, A::Error> {
        AnyObject.visit_map(access).map(Value::Object)
    }
}
