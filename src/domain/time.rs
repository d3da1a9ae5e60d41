//! Time as an argument: wall time for signatures and people, monotonic time for freshness and deadlines.
//!
//! Nothing here reads a clock; `node::clock` is the only reader. All arithmetic saturates, so that a hostile or broken
//! clock can never wrap around into the past.

use std::fmt;

/// Nanoseconds in a millisecond.
pub const NANOS_PER_MILLI: u64 = 1_000_000;

/// A length of time in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Millis(pub u64);

impl Millis {
    /// A whole number of seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1_000))
    }

    /// A whole number of hours.
    pub const fn from_hours(hours: u64) -> Self {
        Self::from_secs(hours.saturating_mul(3_600))
    }

    /// The same length in nanoseconds.
    pub const fn as_nanos(self) -> u64 {
        self.0.saturating_mul(NANOS_PER_MILLI)
    }
}

/// A point of wall time: Unix nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wall(pub u64);

impl Wall {
    /// A point given in Unix milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(NANOS_PER_MILLI))
    }

    /// Unix milliseconds, rounded down.
    pub const fn as_millis(self) -> u64 {
        self.0.wrapping_div(NANOS_PER_MILLI)
    }

    /// The nanoseconds since the last whole millisecond: below a million.
    pub const fn within_milli(self) -> u64 {
        self.0.wrapping_rem(NANOS_PER_MILLI)
    }

    /// This point moved later.
    pub const fn plus(self, length: Millis) -> Self {
        Self(self.0.saturating_add(length.as_nanos()))
    }

    /// This point moved earlier.
    pub const fn minus(self, length: Millis) -> Self {
        Self(self.0.saturating_sub(length.as_nanos()))
    }
}

/// A point of monotonic time: nanoseconds since an arbitrary start, meaningless in another process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Monotonic(pub u64);

impl Monotonic {
    /// This point moved later.
    pub const fn plus(self, length: Millis) -> Self {
        Self(self.0.saturating_add(length.as_nanos()))
    }

    /// Time since `earlier`; zero when `earlier` is later.
    pub const fn since(self, earlier: Self) -> Millis {
        Millis(self.0.saturating_sub(earlier.0).wrapping_div(NANOS_PER_MILLI))
    }
}

/// One reading of both clocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Now {
    /// For signatures, records and people.
    pub wall: Wall,
    /// For freshness, deadlines and leases.
    pub monotonic: Monotonic,
}

impl fmt::Display for Wall {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}ns", self.0)
    }
}
