//! Reading objects by the names of their members alone.
//!
//! Derived readers also take an object's values as an array, in the order of our source: a form that nobody has agreed on, and
//! that a second implementation would not read. What is read through [`Named`] has to be an object.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

/// An object whose members are given by name.
pub(super) struct Named<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Named<T> {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        reader.deserialize_map(Members(PhantomData)).map(Self)
    }
}

struct Members<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(members))
    }
}

/// Reads an object.
pub(super) fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(reader: D) -> Result<T, D::Error> {
    Named::deserialize(reader).map(|named| named.0)
}

/// Reads a list of objects.
pub(super) fn each<'de, D: Deserializer<'de>, T: Deserialize<'de>>(reader: D) -> Result<Vec<T>, D::Error> {
    Vec::<Named<T>>::deserialize(reader).map(|list| list.into_iter().map(|named| named.0).collect())
}

/// Reads an object that may be left out.
pub(super) fn maybe<'de, D: Deserializer<'de>, T: Deserialize<'de>>(reader: D) -> Result<Option<T>, D::Error> {
    Ok(Option::<Named<T>>::deserialize(reader)?.map(|named| named.0))
}

/// Reads a list with one object.
pub(super) fn only<'de, D: Deserializer<'de>, T: Deserialize<'de>>(reader: D) -> Result<[T; 1], D::Error> {
    <[Named<T>; 1]>::deserialize(reader).map(|list| list.map(|named| named.0))
}

/// Reads a list of objects that may be left out.
pub(super) fn maybe_each<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    reader: D,
) -> Result<Option<Vec<T>>, D::Error> {
    let list = Option::<Vec<Named<T>>>::deserialize(reader)?;
    Ok(list.map(|list| list.into_iter().map(|named| named.0).collect()))
}
