//! Online, stale, partitioned, offline: a pure function of what was heard, what is the limit, and what time it is.
//!
//! Rules of the contract, *Freshness*. A liveliness token alone proves nothing and a signed word outweighs it.

use crate::domain::time::{Millis, Monotonic};

/// A token that went away may be a reconnect, which takes 10 to 110 ms. Shorter than the second in which a kill must show.
const TOKEN_GRACE: Millis = Millis(500);

/// A signed word this long after the token went proves that its sender is still there. Words in flight arrive sooner.
const WORD_OUTWEIGHS_TOKEN: Millis = Millis(200);

/// How long a token may be away after a certificate was renewed at either end: its links are held for a few seconds more, end,
/// and are dialled again within a second. A death shows in the meantime by its silence.
const RELINK_GRACE: Millis = Millis::from_secs(6);

/// The measures of freshness (`runtime.mesh.timing`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How often every runtime speaks.
    pub period: Millis,
    /// Older than this is stale.
    pub stale: Millis,
    /// Silent for longer than this is partitioned.
    pub partition: Millis,
}

impl Limits {
    /// Whether a peer can be stale before it is partitioned, and two lost words do not make it stale.
    pub const fn is_ordered(&self) -> bool {
        self.period.0.saturating_mul(2) <= self.stale.0 && self.stale.0 < self.partition.0
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { period: Millis(1_000), stale: Millis(2_000), partition: Millis(4_000) }
    }
}

/// How a runtime stands at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lifecycle {
    /// Said goodbye, or known and never heard.
    Offline,
    /// Heard from recently.
    Online,
    /// Its token is gone, or it has been silent past the partition limit.
    Partitioned,
    /// Heard from, but not recently.
    Stale,
}

impl Lifecycle {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Offline, Self::Online, Self::Partitioned, Self::Stale];

    /// The stable text on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Offline => "offline",
            Self::Online => "online",
            Self::Partitioned => "partitioned",
            Self::Stale => "stale",
        }
    }
}

/// What was heard of one runtime in its present boot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Presence {
    /// When the last signed word came.
    pub heard: Option<Monotonic>,
    /// When its token went away, if it has not come back.
    pub token_gone: Option<Monotonic>,
    /// Until when its links are expected to be replaced, because a certificate was renewed at either end.
    pub relinks_until: Option<Monotonic>,
    /// Whether it said goodbye.
    pub left: bool,
}

impl Presence {
    /// A signed word came.
    pub fn hear(&mut self, now: Monotonic) {
        self.heard = Some(now);
        self.left = false;
        if self.token_gone.is_some_and(|gone| gone.plus(WORD_OUTWEIGHS_TOKEN) <= now) {
            self.token_gone = None;
        }
    }

    /// A certificate was renewed at either end, so that the links between both are about to be replaced.
    pub fn relink(&mut self, now: Monotonic) {
        self.relinks_until = Some(now.plus(RELINK_GRACE));
    }

    /// From when on a token that is away counts.
    fn token_counts_from(&self) -> Option<Monotonic> {
        let gone = self.token_gone?.plus(TOKEN_GRACE);
        Some(self.relinks_until.map_or(gone, |until| until.max(gone)))
    }

    /// How the runtime stands now.
    pub fn lifecycle(&self, limits: &Limits, now: Monotonic) -> Lifecycle {
        let Some(heard) = self.heard.filter(|_| !self.left) else { return Lifecycle::Offline };
        let silent_from = |limit: Millis| heard.plus(limit) <= now;
        let is_token_gone = self.token_counts_from().is_some_and(|from| from <= now);
        if is_token_gone || silent_from(limits.partition) {
            Lifecycle::Partitioned
        } else if silent_from(limits.stale) {
            Lifecycle::Stale
        } else {
            Lifecycle::Online
        }
    }

    /// When the state changes next if nothing more is heard.
    pub fn next_change(&self, limits: &Limits, now: Monotonic) -> Option<Monotonic> {
        let heard = self.heard.filter(|_| !self.left)?;
        [Some(heard.plus(limits.stale)), Some(heard.plus(limits.partition)), self.token_counts_from()]
            .into_iter()
            .flatten()
            .filter(|moment| now < *moment)
            .min()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Monotonic {
        Monotonic::default().plus(Millis(millis))
    }

    fn heard_at(millis: u64) -> Presence {
        Presence { heard: Some(at(millis)), ..Presence::default() }
    }

    #[test]
    fn silence_turns_online_into_stale_into_partitioned_exactly_at_the_limits() {
        let limits = Limits::default();
        let presence = heard_at(1_000);
        for (moment, expected) in [
            (1_000, Lifecycle::Online),
            (2_999, Lifecycle::Online),
            (3_000, Lifecycle::Stale),
            (4_999, Lifecycle::Stale),
            (5_000, Lifecycle::Partitioned),
        ] {
            assert_eq!(presence.lifecycle(&limits, at(moment)), expected, "at {moment} ms");
        }
    }

    #[test]
    fn a_short_reconnect_does_not_flap_and_a_kill_shows_within_a_second() {
        let limits = Limits::default();
        let mut presence = heard_at(1_000);
        presence.token_gone = Some(at(1_100));
        assert_eq!(presence.lifecycle(&limits, at(1_599)), Lifecycle::Online);
        assert_eq!(presence.lifecycle(&limits, at(1_600)), Lifecycle::Partitioned);
        presence.hear(at(1_150));
        assert!(presence.token_gone.is_some(), "a word in flight proves nothing");
        presence.hear(at(1_300));
        assert_eq!(presence.lifecycle(&limits, at(1_600)), Lifecycle::Online);
    }

    #[test]
    fn a_token_that_goes_because_a_certificate_was_renewed_may_take_longer_to_come_back() {
        let limits = Limits { stale: Millis(8_000), partition: Millis(9_000), ..Limits::default() };
        let mut presence = heard_at(1_000);
        presence.relink(at(1_000));
        presence.token_gone = Some(at(4_000));
        assert_eq!(presence.lifecycle(&limits, at(6_999)), Lifecycle::Online);
        assert_eq!(presence.next_change(&limits, at(4_000)), Some(at(7_000)));
        assert_eq!(presence.lifecycle(&limits, at(7_000)), Lifecycle::Partitioned);
        // One that goes at the end of it has the usual grace.
        presence.token_gone = Some(at(6_900));
        assert_eq!(presence.lifecycle(&limits, at(7_399)), Lifecycle::Online);
        assert_eq!(presence.lifecycle(&limits, at(7_400)), Lifecycle::Partitioned);
        assert_eq!(presence.lifecycle(&Limits::default(), at(5_000)), Lifecycle::Partitioned, "silence still counts");
    }

    #[test]
    fn goodbye_and_never_heard_are_offline() {
        let limits = Limits::default();
        assert_eq!(Presence::default().lifecycle(&limits, at(0)), Lifecycle::Offline);
        let left = Presence { left: true, ..heard_at(0) };
        assert_eq!(left.lifecycle(&limits, at(0)), Lifecycle::Offline);
    }

    proptest! {
        #[test]
        fn the_next_change_is_when_the_state_changes(
            heard in 0_u64..10_000,
            gone in prop::option::of(0_u64..10_000),
            relinks in prop::option::of(0_u64..10_000),
            now in 0_u64..20_000,
        ) {
            let limits = Limits::default();
            let presence =
                Presence { token_gone: gone.map(at), relinks_until: relinks.map(at), ..heard_at(heard) };
            if let Some(next) = presence.next_change(&limits, at(now)) {
                let before = Monotonic(next.0.saturating_sub(1));
                prop_assert_eq!(presence.lifecycle(&limits, at(now)), presence.lifecycle(&limits, before));
            }
        }
    }
}
