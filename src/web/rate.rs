//! How many requests a second each credential may send, and how many bad credentials are told what is wrong with them.
//!
//! Every credential has a bucket of its own, so whoever sends too many slows down nobody else. Bad credentials share one: it
//! is asked only after a credential was found wrong, so no amount of guessing keeps a right one out.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::domain::identity::Actor;
use crate::domain::identity::token::TokenId;
use crate::domain::time::Monotonic;

/// Most credentials that are remembered at once: all tokens that a node may have, and three times as many people.
const HOLDERS_MAX: usize = 1_024;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// A bucket: how much it holds and how fast it fills. At least one a second comes back whatever is set, so that a
/// `Retry-After` of one second is always true.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many may come at once.
    pub burst: u32,
    /// How many may come in each second after that.
    pub per_second: u32,
}

impl Rate {
    /// The time in which one comes back.
    fn interval(self) -> u64 {
        NANOS_PER_SECOND.checked_div(u64::from(self.per_second)).unwrap_or(NANOS_PER_SECOND)
    }

    /// How far behind a bucket may be and still give one.
    fn slack(self) -> u64 {
        self.interval().saturating_mul(u64::from(self.burst.saturating_sub(1)))
    }
}

/// Whose requests are counted together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Holder {
    /// Whoever has the admin token of the settings.
    Admin,
    /// Whoever has the node's own files.
    Owner,
    /// Everybody on this machine without a credential.
    Local,
    /// Whoever has this token.
    Token(TokenId),
    /// Whoever has a certificate of this actor.
    Certificate(Actor),
}

/// What was taken, as the moment at which it has all come back: one number, and none at all for a full bucket.
#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    full_at: u64,
}

impl Bucket {
    fn take(&mut self, rate: Rate, now: Monotonic) -> bool {
        let full_at = self.full_at.max(now.0);
        let is_allowed = full_at.saturating_sub(now.0) <= rate.slack();
        if is_allowed {
            self.full_at = full_at.saturating_add(rate.interval());
        }
        is_allowed
    }
}

/// The buckets of one listener.
#[derive(Debug)]
pub(crate) struct Rates {
    good: Rate,
    bad: Rate,
    holders: Mutex<BTreeMap<Holder, Bucket>>,
    failures: Mutex<Bucket>,
}

impl Rates {
    pub(crate) fn new(good: Rate, bad: Rate) -> Self {
        Self { good, bad, holders: Mutex::default(), failures: Mutex::default() }
    }

    /// Whether this credential may have one more request now.
    pub(crate) fn take(&self, holder: Holder, now: Monotonic) -> bool {
        let mut holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        if !holders.contains_key(&holder) {
            make_room(&mut holders, now);
        }
        holders.entry(holder).or_default().take(self.good, now)
    }

    /// Whether one more bad credential is told so now.
    pub(crate) fn take_bad(&self, now: Monotonic) -> bool {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).take(self.bad, now)
    }
}

/// Forgets full buckets, which are as good as none, once the table is full; failing that, the one that is nearest to it.
fn make_room(holders: &mut BTreeMap<Holder, Bucket>, now: Monotonic) {
    if holders.len() < HOLDERS_MAX {
        return;
    }
    holders.retain(|_, bucket| now.0 < bucket.full_at);
    if holders.len() < HOLDERS_MAX {
        return;
    }
    let nearest = holders.iter().min_by_key(|(_, bucket)| bucket.full_at).map(|(holder, _)| holder.clone());
    if let Some(nearest) = nearest {
        holders.remove(&nearest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::Millis;

    const SLOW: Rate = Rate { burst: 3, per_second: 2 };

    fn at(millis: u64) -> Monotonic {
        Monotonic::default().plus(Millis(millis))
    }

    fn token(bits: u32) -> Holder {
        Holder::Token(TokenId::from_bits(bits))
    }

    /// How many of ten are let through at this moment.
    fn taken(rates: &Rates, holder: &Holder, now: Monotonic) -> usize {
        (0..10).filter(|_| rates.take(holder.clone(), now)).count()
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_what_comes_back() {
        let rates = Rates::new(SLOW, SLOW);
        for (millis, expected) in [(5_000, 3), (5_499, 0), (5_500, 1), (5_500, 0), (6_600, 2), (60_000, 3)] {
            assert_eq!(taken(&rates, &Holder::Admin, at(millis)), expected, "at {millis} ms");
        }
    }

    #[test]
    fn a_refused_request_costs_nothing() {
        let rates = Rates::new(SLOW, SLOW);
        for _ in 0..100 {
            taken(&rates, &Holder::Admin, at(1_000));
        }
        assert_eq!(
            taken(&rates, &Holder::Admin, at(2_000)),
            2,
            "a second of asking in vain does not lengthen the wait"
        );
    }

    #[test]
    fn one_holder_does_not_use_up_another() {
        let rates = Rates::new(SLOW, SLOW);
        let alice = Holder::Certificate("spiffe://trust/site-1/alice".parse().expect("legal"));
        let bob = Holder::Certificate("spiffe://trust/site-1/bob".parse().expect("legal"));
        for holder in [Holder::Admin, Holder::Local, token(1), token(2), alice, bob] {
            assert_eq!(taken(&rates, &holder, at(1)), 3, "{holder:?}");
        }
        assert_eq!((0..10).filter(|_| rates.take_bad(at(1))).count(), 3);
    }

    #[test]
    fn a_clock_that_stands_still_or_goes_back_gives_nothing_away() {
        let rates = Rates::new(SLOW, SLOW);
        assert_eq!(taken(&rates, &Holder::Admin, at(5_000)), 3);
        assert_eq!(taken(&rates, &Holder::Admin, at(0)), 0);
        assert_eq!(taken(&rates, &Holder::Admin, at(5_500)), 1);
    }

    #[test]
    fn a_rate_of_nothing_still_lets_one_through_each_second() {
        let none = Rate { burst: 0, per_second: 0 };
        let rates = Rates::new(none, none);
        for (millis, expected) in [(0, 1), (999, 0), (1_000, 1)] {
            assert_eq!(taken(&rates, &Holder::Admin, at(millis)), expected, "at {millis} ms");
        }
    }

    #[test]
    fn the_table_is_bounded_and_keeps_whoever_has_asked_most() {
        let rates = Rates::new(SLOW, SLOW);
        assert_eq!(taken(&rates, &Holder::Admin, at(0)), 3);
        for bits in 0..5_000 {
            assert!(rates.take(token(bits), at(0)), "a newcomer always begins with a full bucket");
        }
        assert_eq!(rates.holders.lock().expect("whole").len(), HOLDERS_MAX);
        assert_eq!(taken(&rates, &Holder::Admin, at(0)), 0, "nobody gets a fresh bucket by others' asking");
        rates.take(token(9_999), at(60_000));
        assert_eq!(rates.holders.lock().expect("whole").len(), 1, "full buckets are forgotten first");
    }
}
