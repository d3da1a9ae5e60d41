//! TOML moments as wall time: only those with date, time and offset name one moment.

use toml::value::{Date, Datetime, Offset, Time};

use crate::domain::time::{NANOS_PER_MILLI, Wall};

const MILLIS_PER_SECOND: i64 = 1_000;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// The moment's wall time, if it has a date, a time and an offset and lies between 1970 and 2500.
///
/// 2500 keeps the nanoseconds inside 64 bits; whoever writes a later year means "for ever" and can leave the key out.
pub(crate) fn wall(moment: &Datetime) -> Option<Wall> {
    let (date, time, offset) = (moment.date?, moment.time?, moment.offset?);
    if !(1_970..=2_500).contains(&date.year) {
        return None;
    }
    let offset_minutes = match offset {
        Offset::Z => 0,
        Offset::Custom { minutes } => i64::from(minutes),
    };
    let days = days_since_1970(i64::from(date.year), i64::from(date.month), i64::from(date.day));
    let minutes = days
        .saturating_mul(24)
        .saturating_add(i64::from(time.hour))
        .saturating_mul(60)
        .saturating_add(i64::from(time.minute))
        .saturating_sub(offset_minutes);
    let seconds = minutes.saturating_mul(60).saturating_add(i64::from(time.second.unwrap_or_default()));
    let millis = u64::try_from(seconds.saturating_mul(MILLIS_PER_SECOND)).ok()?;
    let nanos = millis.checked_mul(NANOS_PER_MILLI)?;
    Some(Wall(nanos.saturating_add(u64::from(time.nanosecond.unwrap_or_default()))))
}

/// A moment of wall time as TOML writes it, in UTC.
pub fn text(moment: Wall) -> String {
    let seconds = moment.0.wrapping_div(NANOS_PER_SECOND);
    let (days, second_of_day) = (seconds.wrapping_div(86_400), seconds.wrapping_rem(86_400));
    let (year, month, day) = date(i64::try_from(days).unwrap_or_default());
    let (hour, minute) = (second_of_day.wrapping_div(3_600), second_of_day.wrapping_div(60).wrapping_rem(60));
    let second = second_of_day.wrapping_rem(60);
    let fraction = match moment.0.wrapping_rem(NANOS_PER_SECOND) {
        0 => String::new(),
        nanos => format!(".{nanos:09}"),
    };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// Reads a moment such as `2030-01-31T08:00:00Z`.
pub fn moment(text: &str) -> Option<Wall> {
    wall(&text.parse().ok()?)
}

/// The date of a day after 1970-01-01 (Howard Hinnant, `civil_from_days`): the reverse of [`days_since_1970`].
fn date(days: i64) -> (i64, i64, i64) {
    let shifted = days.saturating_add(719_468);
    let era = shifted.wrapping_div(146_097);
    let day_of_era = shifted.wrapping_rem(146_097);
    let year_of_era = day_of_era
        .saturating_sub(day_of_era.wrapping_div(1_460))
        .saturating_add(day_of_era.wrapping_div(36_524))
        .saturating_sub(day_of_era.wrapping_div(146_096))
        .wrapping_div(365);
    let days_before = year_of_era
        .saturating_mul(365)
        .saturating_add(year_of_era.wrapping_div(4))
        .saturating_sub(year_of_era.wrapping_div(100));
    let day_of_year = day_of_era.saturating_sub(days_before);
    let month_from_march = day_of_year.saturating_mul(5).saturating_add(2).wrapping_div(153);
    let day = day_of_year
        .saturating_sub(month_from_march.saturating_mul(153).saturating_add(2).wrapping_div(5))
        .saturating_add(1);
    let month =
        if month_from_march < 10 { month_from_march.saturating_add(3) } else { month_from_march.saturating_sub(9) };
    let year = year_of_era.saturating_add(era.saturating_mul(400));
    (if month <= 2 { year.saturating_add(1) } else { year }, month, day)
}

/// Days from 1970-01-01 in the proleptic Gregorian calendar (Howard Hinnant, `days_from_civil`), from March on so that
/// the leap day is the last of its year.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let shifted = if month <= 2 { year.saturating_sub(1) } else { year };
    let era = shifted.wrapping_div(400);
    let year_of_era = shifted.wrapping_rem(400);
    let month_from_march = month.saturating_add(9).wrapping_rem(12);
    let day_of_year =
        month_from_march.saturating_mul(153).saturating_add(2).wrapping_div(5).saturating_add(day).saturating_sub(1);
    let day_of_era = year_of_era
        .saturating_mul(365)
        .saturating_add(year_of_era.wrapping_div(4))
        .saturating_sub(year_of_era.wrapping_div(100))
        .saturating_add(day_of_year);
    era.saturating_mul(146_097).saturating_add(day_of_era).saturating_sub(719_468)
}

/// The wall time as a TOML moment in UTC, to the second below.
pub(crate) fn datetime(wall: Wall) -> Datetime {
    let seconds = wall.0.wrapping_div(NANOS_PER_SECOND);
    let (days, of_day) = (seconds.wrapping_div(86_400), seconds.wrapping_rem(86_400));
    let (year, month, day) = date(i64::try_from(days).unwrap_or_default());
    let [month, day] = [month, day].map(|part| u8::try_from(part).unwrap_or_default());
    let [hour, minute, second] =
        [of_day.wrapping_div(3_600), of_day.wrapping_div(60).wrapping_rem(60), of_day.wrapping_rem(60)]
            .map(|part| u8::try_from(part).unwrap_or_default());
    Datetime {
        date: Some(Date { year: u16::try_from(year).unwrap_or(u16::MAX), month, day }),
        time: Some(Time { hour, minute, second: Some(second), nanosecond: None }),
        offset: Some(Offset::Z),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_whole_second_reads_back(seconds in 0_u64..16_725_225_600) {
            let at = Wall(seconds.saturating_mul(1_000_000_000));
            prop_assert_eq!(wall(&datetime(at)), Some(at));
        }
    }

    #[test]
    fn moments_become_unix_time() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T12:00:00Z", Some(951_825_600)),
            ("2000-03-01T00:00:00+02:00", Some(951_861_600)),
            ("2026-11-21T04:00:00.5-01:30", Some(1_795_239_000)),
            ("2026-11-21T04:00:00", None),
            ("2026-11-21", None),
            ("9999-01-01T00:00:00Z", None),
            ("1969-12-31T23:59:59Z", None),
            ("1970-01-01T00:00:00+01:00", None),
        ] {
            let moment: Datetime = text.parse().expect("toml accepts it");
            assert_eq!(wall(&moment).map(|it| it.as_millis() / 1_000), seconds, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_moment_reads_back_from_its_text(nanos in 0_u64..16_725_225_600_000_000_000) {
            proptest::prop_assert_eq!(moment(&text(Wall(nanos))), Some(Wall(nanos)));
        }
    }

    #[test]
    fn moments_are_written_in_utc() {
        assert_eq!(text(Wall(951_825_600_000_000_000)), "2000-02-29T12:00:00Z");
        assert_eq!(text(Wall(1)), "1970-01-01T00:00:00.000000001Z");
    }
}
