//! How far the clocks of peers are from the own one, as far as their signed words tell.
//!
//! One peer may have a wrong clock, or say so; the median of all is wrong only where most are. Or where the own clock is,
//! which is what it shows.

use crate::domain::time::{Millis, Monotonic, Now, Wall};
use crate::engine::view::View;

/// A word older than this says nothing of the clocks of now. Far above the period of observations, so that a peer whose words
/// are not taken for fresh any more, because of the very skew, is still seen.
const COUNTS_FOR: Millis = Millis::from_secs(60);

/// One peer's wall clock against the own one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skew {
    /// What its word says, less what was the time here when it came: with the way that the word took in it.
    pub ahead_nanos: i64,
    /// When that was.
    pub at: Monotonic,
}

impl Skew {
    /// Of a word that was signed then and has come now.
    pub fn of(signed: Wall, now: Now) -> Self {
        let ahead = i128::from(signed.0).saturating_sub(i128::from(now.wall.0));
        let far = if ahead < 0 { i64::MIN } else { i64::MAX };
        Self { ahead_nanos: i64::try_from(ahead).unwrap_or(far), at: now.monotonic }
    }
}

impl View {
    /// How far the clocks of peers run ahead of the own one, in nanoseconds: the median of those that were heard of late.
    pub fn clock_skew(&self, now: Monotonic) -> Option<i64> {
        let heard = self.peers.values().filter_map(|peer| peer.skew).filter(|skew| now <= skew.at.plus(COUNTS_FOR));
        median(heard.map(|skew| skew.ahead_nanos).collect())
    }
}

/// Of an even number the lower one of both in the middle, which somebody has said.
fn median(mut all: Vec<i64>) -> Option<i64> {
    all.sort_unstable();
    all.get(all.len().saturating_sub(1).wrapping_div(2)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_word_of_the_middle_and_one_liar_does_not_move_it() {
        for (all, wanted) in [
            (&[][..], None),
            (&[7], Some(7)),
            (&[9, 5], Some(5)),
            (&[3, i64::MAX, 1], Some(3)),
            (&[-2, i64::MIN, 4, 0], Some(-2)),
        ] {
            assert_eq!(median(all.to_vec()), wanted, "{all:?}");
        }
    }

    #[test]
    fn the_farthest_clocks_there_are_have_a_skew() {
        let at = |wall| Now { wall: Wall(wall), monotonic: Monotonic(1) };
        for (signed, here, wanted) in
            [(5, 3, 2), (3, 5, -2), (0, u64::MAX, i64::MIN), (u64::MAX, 0, i64::MAX), (u64::MAX, u64::MAX, 0)]
        {
            assert_eq!(Skew::of(Wall(signed), at(here)).ahead_nanos, wanted, "{signed} {here}");
        }
    }
}
