//! Moments as people and programs read them: ISO 8601 in UTC with milliseconds.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::domain::time::{NANOS_PER_MILLI, Wall};

/// A moment as text, such as `2016-07-30T23:54:10.259Z`.
pub fn iso(at: Wall) -> String {
    // Every wall time is a date: they end in the year 2554.
    let moment = OffsetDateTime::from_unix_timestamp_nanos(at.0.into()).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let (hour, minute, second, milli) = moment.to_hms_milli();
    let (year, month, day) = (moment.year(), u8::from(moment.month()), moment.day());
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

/// The moment that a text names, in whole milliseconds. None if it names none after 1970.
pub fn read_iso(text: &str) -> Option<Wall> {
    let moment = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    let nanos = u64::try_from(moment.unix_timestamp_nanos()).ok()?;
    Some(Wall::from_millis(nanos.checked_div(NANOS_PER_MILLI)?))
}
