//! The parameters of the runs API, read strictly: each at most once, digits alone as numbers, known words alone.
//!
//! Parameters with other names are ignored (contract, RR-38).

use std::collections::BTreeSet;

use crate::domain::run::{Kind, Status};

/// What a page has where the caller does not say.
pub const LIMIT_DEFAULT: usize = 100;

/// The most that a page has.
pub const LIMIT_MAX: usize = 1_000;

/// What is wrong with a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issue {
    /// Which one.
    pub path: &'static str,
    /// What was wanted.
    pub message: String,
}

/// Which events of a run are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventsQuery {
    /// Only those behind this number.
    pub after: Option<u64>,
    /// Only these kinds.
    pub kinds: Option<BTreeSet<Kind>>,
    /// At most this many.
    pub limit: usize,
}

/// Which runs or instances are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListQuery<'a> {
    /// Only those that are this far.
    pub status: Option<Status>,
    /// Only those of this agent; an empty name is none.
    pub agent_name: Option<&'a str>,
    /// Where the page begins, as the page before said.
    pub cursor: Option<&'a str>,
    /// At most this many.
    pub limit: usize,
}

type Pairs = [(String, String)];

/// Reads the parameters of a list of events.
pub fn events_query(pairs: &Pairs) -> Result<EventsQuery, Vec<Issue>> {
    let mut reading = Reading { pairs, issues: Vec::new() };
    let after = reading.read("after", "a whole number", number);
    let kinds = reading.read("types", "types of events with commas between them", kinds);
    let limit = reading.limit();
    reading.end(EventsQuery { after, kinds, limit })
}

/// Reads the parameters of a list of runs or instances.
pub fn list_query(pairs: &Pairs) -> Result<ListQuery<'_>, Vec<Issue>> {
    let mut reading = Reading { pairs, issues: Vec::new() };
    let status = reading.read("status", "active, completed or errored", |text| {
        Status::ALL.into_iter().find(|status| status.as_str() == text)
    });
    let agent_name = reading.once("agentName").filter(|name| !name.is_empty());
    let cursor = reading.once("cursor");
    let limit = reading.limit();
    reading.end(ListQuery { status, agent_name, cursor, limit })
}

/// A number of nothing but digits. One that no counter reaches is as good as the largest.
pub fn number(text: &str) -> Option<u64> {
    const LARGEST: u64 = i64::MAX.cast_unsigned();
    let is_number = !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(LARGEST).min(LARGEST))
}

fn kinds(text: &str) -> Option<BTreeSet<Kind>> {
    text.split(',').map(|name| name.parse().ok()).collect()
}

struct Reading<'a> {
    pairs: &'a Pairs,
    issues: Vec<Issue>,
}

impl<'a> Reading<'a> {
    /// The one value of a parameter. More than one is an issue.
    fn once(&mut self, name: &'static str) -> Option<&'a str> {
        let mut values = self.pairs.iter().filter(|(it, _)| it == name).map(|(_, value)| value.as_str());
        let value = values.next()?;
        if values.next().is_some() {
            self.issues.push(Issue { path: name, message: format!("wanted {name} at most once") });
            return None;
        }
        Some(value)
    }

    fn read<T>(&mut self, name: &'static str, wanted: &str, read: impl Fn(&str) -> Option<T>) -> Option<T> {
        let value = read(self.once(name)?);
        if value.is_none() {
            self.issues.push(Issue { path: name, message: format!("wanted {wanted}") });
        }
        value
    }

    fn limit(&mut self) -> usize {
        let read = |text: &str| {
            let limit = usize::try_from(number(text)?).ok()?;
            (1..=LIMIT_MAX).contains(&limit).then_some(limit)
        };
        self.read("limit", "1 to 1000", read).unwrap_or(LIMIT_DEFAULT)
    }

    fn end<T>(self, query: T) -> Result<T, Vec<Issue>> {
        if self.issues.is_empty() { Ok(query) } else { Err(self.issues) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
        of.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn numbers_are_digits_and_nothing_else() {
        for (text, expected) in [
            ("0", Some(0)),
            ("007", Some(7)),
            ("99999999999999999999", Some(i64::MAX.cast_unsigned())),
            ("", None),
            ("-1", None),
            ("+5", None),
            ("1.5", None),
            ("1abc", None),
            (" 1", None),
            ("١", None),
        ] {
            assert_eq!(number(text), expected, "{text:?}");
        }
    }

    #[test]
    fn every_fault_is_named() {
        let given = pairs(&[("limit", "0"), ("after", "x"), ("types", "log,"), ("other", "?")]);
        let issues = events_query(&given).expect_err("three faults");
        assert_eq!(issues.iter().map(|issue| issue.path).collect::<Vec<_>>(), ["after", "types", "limit"]);
        let twice = pairs(&[("limit", "1"), ("limit", "1")]);
        assert_eq!(list_query(&twice).expect_err("twice")[0].path, "limit");
        let good = pairs(&[("types", "log,run_end"), ("after", "3")]);
        let query = events_query(&good).expect("good");
        assert_eq!((query.after, query.limit), (Some(3), LIMIT_DEFAULT));
        assert_eq!(query.kinds, Some([Kind::Log, Kind::RunEnd].into()));
        let empty = pairs(&[("agentName", ""), ("cursor", "")]);
        assert_eq!(list_query(&empty).map(|query| query.agent_name), Ok(None));
    }
}
