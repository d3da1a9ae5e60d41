//! The two chains beside the log of writes, as a checkpoint states them: how many records, the hash of the newest, and the
//! first number that is kept at least.
//!
//! A chain that is rotated has no tree over all of its records: those in front are gone. Its newest hash stands for every
//! record before it; the first number says which of them nobody may have removed.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Hash;
use super::checkpoint::{NotACheckpoint, number};

/// A chain that is held to a quota, its oldest records removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rotated {
    /// What was read.
    Reads,
    /// What was refused, wrong credentials among it.
    Refusals,
}

impl Rotated {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Reads, Self::Refusals];

    /// The stable text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reads => "reads",
            Self::Refusals => "refusals",
        }
    }
}

/// Where a rotated chain stood at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tail {
    /// The number of its newest record, 0 for none.
    pub size: u64,
    /// The hash of that record.
    pub hash: Hash,
    /// From this number on every record was to be kept.
    pub first: u64,
}

impl fmt::Display for Tail {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {} from {}", self.size, STANDARD.encode(self.hash.0), self.first)
    }
}

impl FromStr for Tail {
    type Err = NotACheckpoint;

    fn from_str(text: &str) -> Result<Self, NotACheckpoint> {
        let (size, rest) = text.split_once(' ').ok_or(NotACheckpoint)?;
        let (hash, first) = rest.split_once(" from ").ok_or(NotACheckpoint)?;
        let hash = STANDARD.decode(hash).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(NotACheckpoint)?;
        Ok(Self { size: number(size)?, hash: Hash(hash), first: number(first)? })
    }
}

/// What one checkpoint states; nothing of a chain that its maker did not know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tails {
    /// Of the chain of reads.
    pub reads: Option<Tail>,
    /// Of the chain of refusals.
    pub refusals: Option<Tail>,
}

impl Tails {
    /// Of one of them.
    pub const fn of(&self, chain: Rotated) -> Option<Tail> {
        match chain {
            Rotated::Reads => self.reads,
            Rotated::Refusals => self.refusals,
        }
    }

    /// The place of one of them.
    pub const fn of_mut(&mut self, chain: Rotated) -> &mut Option<Tail> {
        match chain {
            Rotated::Reads => &mut self.reads,
            Rotated::Refusals => &mut self.refusals,
        }
    }

    /// The lines of a checkpoint.
    pub(super) fn text(&self) -> String {
        let line = |chain| self.of(chain).map(|tail| format!("{} {tail}\n", Rotated::as_str(chain)));
        Rotated::ALL.into_iter().filter_map(line).collect()
    }

    /// Takes a line in if it is about one of the chains. Others are passed over; one said twice is refused.
    pub(super) fn take(&mut self, line: &str) -> Result<(), NotACheckpoint> {
        for chain in Rotated::ALL {
            let Some(rest) = line.strip_prefix(chain.as_str()).and_then(|rest| rest.strip_prefix(' ')) else {
                continue;
            };
            if self.of_mut(chain).replace(rest.parse()?).is_some() {
                return Err(NotACheckpoint);
            }
        }
        Ok(())
    }

    /// Whether one of the chains is shorter here than it was before.
    pub fn went_back(&self, before: &Self) -> bool {
        self.any_pair(before, |now, then| now.size < then.size)
    }

    /// Whether one of the chains is as long as before and ends in another record.
    pub fn forked(&self, before: &Self) -> bool {
        self.any_pair(before, |now, then| now.size == then.size && now.hash != then.hash)
    }

    fn any_pair(&self, before: &Self, is_so: impl Fn(Tail, Tail) -> bool) -> bool {
        Rotated::ALL.into_iter().any(|chain| match (self.of(chain), before.of(chain)) {
            (Some(now), Some(then)) => is_so(now, then),
            (_, None) | (None, _) => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(size: u64, byte: u8, first: u64) -> Tail {
        Tail { size, hash: Hash([byte; 32]), first }
    }

    #[test]
    fn a_tail_reads_back_and_only_from_its_own_form() {
        let text = "7 AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE= from 3";
        assert_eq!(tail(7, 1, 3).to_string(), text);
        assert_eq!(text.parse(), Ok(tail(7, 1, 3)));
        for (from, to) in
            [("7 ", "07 "), ("7 ", "+7 "), ("AQ", "A"), (" from 3", ""), ("from 3", "from 03"), ("7 ", "")]
        {
            assert_eq!(text.replacen(from, to, 1).parse::<Tail>(), Err(NotACheckpoint), "{to:?}");
        }
    }

    #[test]
    fn a_chain_that_got_shorter_or_ends_otherwise_is_seen_and_a_longer_one_is_not() {
        let of = |reads, refusals| Tails { reads, refusals };
        let before = of(Some(tail(7, 1, 1)), Some(tail(9, 1, 1)));
        for (after, wanted) in [
            (before, (false, false)),
            (of(Some(tail(8, 2, 3)), Some(tail(9, 1, 4))), (false, false)),
            (of(Some(tail(7, 1, 1)), Some(tail(8, 1, 1))), (true, false)),
            (of(Some(tail(6, 1, 1)), Some(tail(10, 1, 1))), (true, false)),
            (of(Some(tail(7, 2, 1)), Some(tail(9, 1, 1))), (false, true)),
            (Tails::default(), (false, false)),
        ] {
            assert_eq!((after.went_back(&before), after.forked(&before)), wanted, "{after:?}");
        }
        assert!(!before.went_back(&Tails::default()));
    }
}
