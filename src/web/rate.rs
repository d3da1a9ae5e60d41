//! How many requests a second each credential may send, and how many bad credentials are told what is wrong with them.
//!
//! Every credential has two buckets of its own, one for what acts and one for what reads: whoever sends too many slows down
//! nobody else, and whoever acts too often can still look at what became of it. Bad credentials share one: it is asked only
//! after a credential was found wrong, so no amount of guessing keeps a right one out.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::domain::identity::Actor;
use crate::domain::identity::token::TokenId;
use crate::domain::time::Monotonic;

/// Most credentials that are remembered at once: all tokens that a node may have, and three times as many people.
const HOLDERS_MAX: usize = 1_024;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// What a request is counted as. Every route says so in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// It changes something, starts something, leaves a record, or has the rules judge.
    Act,
    /// Nothing: it takes no credential.
    Free,
    /// It only reads. A stream counts once, when it is opened.
    Read,
}

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
    /// So many a second, and twice as many at once: whoever was silent for two seconds may catch up.
    pub const fn of(per_second: u32) -> Self {
        Self { burst: per_second.saturating_mul(2), per_second }
    }

    /// The time in which one comes back.
    fn interval(self) -> u64 {
        NANOS_PER_SECOND.checked_div(u64::from(self.per_second)).unwrap_or(NANOS_PER_SECOND)
    }

    /// The time in which an empty bucket is full. Each holds one at least.
    fn whole(self) -> u64 {
        self.interval().saturating_mul(u64::from(self.burst.max(1)))
    }

    /// How far behind a bucket may be and still give one.
    fn slack(self) -> u64 {
        self.whole().saturating_sub(self.interval())
    }
}

/// A request came too early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooSoon {
    /// In how many seconds one more is let through: at least one.
    pub(crate) seconds: u32,
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
    /// Takes one if there is one.
    fn take(&mut self, rate: Rate, now: Monotonic) -> Result<(), TooSoon> {
        self.spend(rate, now, rate.slack(), 1)
    }

    /// Takes more for what was let through, whether there are so many or not, unless the bucket owes some already. What is
    /// owed comes back before anything else is given.
    fn owe(&mut self, rate: Rate, now: Monotonic, more: u32) -> Result<(), TooSoon> {
        self.spend(rate, now, rate.whole(), more)
    }

    fn spend(&mut self, rate: Rate, now: Monotonic, behind_max: u64, count: u32) -> Result<(), TooSoon> {
        let full_at = self.full_at.max(now.0);
        let behind = full_at.saturating_sub(now.0);
        if behind_max < behind {
            let seconds = behind.saturating_sub(rate.slack()).div_ceil(NANOS_PER_SECOND).max(1);
            return Err(TooSoon { seconds: u32::try_from(seconds).unwrap_or(u32::MAX) });
        }
        self.full_at = full_at.saturating_add(rate.interval().saturating_mul(u64::from(count)));
        Ok(())
    }
}

/// Those of one credential.
#[derive(Debug, Clone, Copy, Default)]
struct Buckets {
    acts: Bucket,
    reads: Bucket,
}

impl Buckets {
    fn full_at(&self) -> u64 {
        self.acts.full_at.max(self.reads.full_at)
    }
}

/// The buckets of one listener.
#[derive(Debug)]
pub(crate) struct Rates {
    acts: Rate,
    reads: Rate,
    bad: Rate,
    holders: Mutex<BTreeMap<Holder, Buckets>>,
    failures: Mutex<Bucket>,
}

impl Rates {
    pub(crate) fn new(acts: Rate, reads: Rate, bad: Rate) -> Self {
        Self { acts, reads, bad, holders: Mutex::default(), failures: Mutex::default() }
    }

    /// Takes one request of this class, if this credential may have one more now.
    pub(crate) fn take(&self, holder: Holder, class: Class, now: Monotonic) -> Result<(), TooSoon> {
        self.of(holder, now, |buckets| match class {
            Class::Act => buckets.acts.take(self.acts, now),
            Class::Free => Ok(()),
            Class::Read => buckets.reads.take(self.reads, now),
        })
    }

    /// Counts a request that was let through as so many more acts: it does at once what others do one by one.
    pub(crate) fn owe_acts(&self, holder: Holder, more: u32, now: Monotonic) -> Result<(), TooSoon> {
        self.of(holder, now, |buckets| buckets.acts.owe(self.acts, now, more))
    }

    fn of<T>(&self, holder: Holder, now: Monotonic, work: impl FnOnce(&mut Buckets) -> T) -> T {
        let mut holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        if !holders.contains_key(&holder) {
            make_room(&mut holders, now);
        }
        work(holders.entry(holder).or_default())
    }

    /// Whether one more bad credential is told so now.
    pub(crate) fn take_bad(&self, now: Monotonic) -> bool {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).take(self.bad, now).is_ok()
    }
}

/// Forgets full buckets, which are as good as none, once the table is full; failing that, the one that is nearest to it.
fn make_room(holders: &mut BTreeMap<Holder, Buckets>, now: Monotonic) {
    if holders.len() < HOLDERS_MAX {
        return;
    }
    holders.retain(|_, buckets| now.0 < buckets.full_at());
    if holders.len() < HOLDERS_MAX {
        return;
    }
    let nearest = holders.iter().min_by_key(|(_, buckets)| buckets.full_at()).map(|(holder, _)| holder.clone());
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

    fn rates() -> Rates {
        Rates::new(SLOW, Rate { burst: 5, per_second: 2 }, SLOW)
    }

    /// How many of ten acts are let through at this moment.
    fn taken(rates: &Rates, holder: &Holder, now: Monotonic) -> usize {
        taken_of(rates, holder, Class::Act, now)
    }

    fn taken_of(rates: &Rates, holder: &Holder, class: Class, now: Monotonic) -> usize {
        (0..10).filter(|_| rates.take(holder.clone(), class, now).is_ok()).count()
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_what_comes_back() {
        let rates = rates();
        for (millis, expected) in [(5_000, 3), (5_499, 0), (5_500, 1), (5_500, 0), (6_600, 2), (60_000, 3)] {
            assert_eq!(taken(&rates, &Holder::Admin, at(millis)), expected, "at {millis} ms");
        }
    }

    #[test]
    fn acts_and_reads_of_one_credential_are_counted_apart() {
        let rates = rates();
        assert_eq!(taken(&rates, &token(1), at(0)), 3);
        assert_eq!(
            taken_of(&rates, &token(1), Class::Read, at(0)),
            5,
            "who acts too often still sees what became of it"
        );
        assert_eq!(taken_of(&rates, &token(2), Class::Read, at(0)), 5);
        assert_eq!(taken(&rates, &token(2), at(0)), 3, "and who looks too often still acts");
        assert_eq!(taken_of(&rates, &token(2), Class::Free, at(0)), 10);
    }

    #[test]
    fn what_does_the_work_of_many_is_let_through_and_has_them_all_to_wait_for() {
        let rates = rates();
        let (take, owe) =
            (|now| rates.take(token(1), Class::Act, now), |more, now| rates.owe_acts(token(1), more, now));
        assert_eq!((take(at(0)), owe(9, at(0))), (Ok(()), Ok(())), "ten acts in one, of which the bucket has three");
        assert_eq!(take(at(0)), Err(TooSoon { seconds: 4 }), "seven are owed, and the next is one more");
        assert_eq!(owe(1, at(3_499)), Err(TooSoon { seconds: 1 }), "no credit on credit");
        assert_eq!(owe(0, at(3_500)), Ok(()), "nothing is owed any more, and nothing is there");
        assert_eq!((take(at(3_999)), take(at(4_000))), (Err(TooSoon { seconds: 1 }), Ok(())), "what was promised");
        assert_eq!(taken_of(&rates, &token(1), Class::Read, at(0)), 5, "reads owe nothing");
        assert_eq!(owe(u32::MAX, at(60_000)), Ok(()));
        assert_eq!(take(at(60_000)), Err(TooSoon { seconds: 2_147_483_647 }), "without an overflow");
    }

    #[test]
    fn a_refused_request_costs_nothing() {
        let rates = rates();
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
        let rates = rates();
        let alice = Holder::Certificate("spiffe://trust/site-1/alice".parse().expect("legal"));
        let bob = Holder::Certificate("spiffe://trust/site-1/bob".parse().expect("legal"));
        for holder in [Holder::Admin, Holder::Owner, Holder::Local, token(1), token(2), alice, bob] {
            assert_eq!(taken(&rates, &holder, at(1)), 3, "{holder:?}");
        }
        assert_eq!((0..10).filter(|_| rates.take_bad(at(1))).count(), 3);
    }

    #[test]
    fn a_clock_that_stands_still_or_goes_back_gives_nothing_away() {
        let rates = rates();
        assert_eq!(taken(&rates, &Holder::Admin, at(5_000)), 3);
        assert_eq!(taken(&rates, &Holder::Admin, at(0)), 0);
        assert_eq!(taken(&rates, &Holder::Admin, at(5_500)), 1);
    }

    #[test]
    fn a_rate_of_nothing_still_lets_one_through_each_second() {
        let rates = Rates::new(Rate::of(0), Rate::of(0), Rate::of(0));
        for class in [Class::Act, Class::Read] {
            for (millis, expected) in [(0, 1), (999, 0), (1_000, 1)] {
                assert_eq!(taken_of(&rates, &Holder::Admin, class, at(millis)), expected, "{class:?} at {millis} ms");
            }
        }
    }

    #[test]
    fn the_table_is_bounded_and_keeps_whoever_has_asked_most() {
        let rates = rates();
        assert_eq!(taken(&rates, &Holder::Admin, at(0)), 3);
        assert_eq!(taken_of(&rates, &Holder::Local, Class::Read, at(0)), 5);
        for bits in 0..5_000 {
            assert_eq!(
                rates.take(token(bits), Class::Act, at(0)),
                Ok(()),
                "a newcomer always begins with a full bucket"
            );
        }
        assert_eq!(rates.holders.lock().expect("whole").len(), HOLDERS_MAX);
        assert_eq!(taken(&rates, &Holder::Admin, at(0)), 0, "nobody gets a fresh bucket by others' asking");
        assert_eq!(taken_of(&rates, &Holder::Local, Class::Read, at(0)), 0, "whichever bucket it is");
        assert_eq!(rates.take(token(9_999), Class::Read, at(60_000)), Ok(()));
        assert_eq!(rates.holders.lock().expect("whole").len(), 1, "full buckets are forgotten first");
    }
}
