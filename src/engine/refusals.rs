//! What a target has refused under its signature, for as long as somebody could send it again.
//!
//! An origin tells its caller that a write was refused, so no copy of that write may be carried out later: a network may
//! repeat it, and whoever has seen it may keep it back until the disk has space or the policy has changed.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use crate::domain::audit::Hash;
use crate::domain::id::RuntimeId;
use crate::domain::policy::Denial;
use crate::domain::time::Wall;

/// Most that are remembered of one origin; those who are not known here share one such place.
pub(super) const REFUSALS_OF_ORIGIN_MAX: usize = 256;

/// Most of all together: about ten megabytes.
const REFUSALS_MAX: usize = 20_000;

/// A refused write.
#[derive(Debug, Clone)]
struct Refused {
    /// Why.
    denial: Denial,
    /// On whose account it is remembered.
    account: Option<RuntimeId>,
}

/// The refusals, by the hash of the signed bytes.
#[derive(Debug, Clone, Default)]
pub(super) struct Refusals {
    by_digest: BTreeMap<Hash, Refused>,
    /// The same by the end of their windows: what is over is found without looking at the others, so that whoever is
    /// refused all the time costs a target no more than anybody else.
    by_end: BTreeSet<(Wall, Hash)>,
    /// How many are on each account.
    counts: BTreeMap<Option<RuntimeId>, usize>,
}

impl Refusals {
    /// Why this write was refused before.
    pub(super) fn get(&self, digest: &Hash) -> Option<&Denial> {
        self.by_digest.get(digest).map(|refused| &refused.denial)
    }

    /// Remembers a refusal. Gives whether there was room: what is not remembered must not be claimed.
    pub(super) fn keep(&mut self, account: Option<&RuntimeId>, digest: Hash, denial: &Denial, over: Wall) -> bool {
        if self.by_digest.contains_key(&digest) {
            return true;
        }
        let account = account.cloned();
        let count = self.counts.get(&account).copied().unwrap_or_default();
        if REFUSALS_OF_ORIGIN_MAX <= count || REFUSALS_MAX <= self.by_digest.len() {
            return false;
        }
        self.counts.insert(account.clone(), count.saturating_add(1));
        self.by_end.insert((over, digest));
        self.by_digest.insert(digest, Refused { denial: denial.clone(), account });
        true
    }

    /// Forgets what nobody can send again.
    pub(super) fn forget_over(&mut self, now: Wall) {
        while let Some((over, digest)) = self.by_end.first().copied()
            && over < now
        {
            self.by_end.pop_first();
            if let Some(refused) = self.by_digest.remove(&digest) {
                self.take_off(refused.account);
            }
        }
    }

    /// One less on this account.
    fn take_off(&mut self, account: Option<RuntimeId>) {
        if let Entry::Occupied(mut entry) = self.counts.entry(account) {
            *entry.get_mut() = entry.get().saturating_sub(1);
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::code::Code;

    fn denial() -> Denial {
        Denial::at_target(Code::StorageUnavailable, "store", "the target's store takes no writes")
    }

    fn digest(number: usize) -> Hash {
        Hash::of(&number.to_be_bytes())
    }

    fn origin(name: &str) -> RuntimeId {
        format!("s/{name}").parse().expect("legal")
    }

    #[test]
    fn an_origin_that_is_refused_all_the_time_takes_no_room_of_others() {
        let (one, other) = (origin("one"), origin("other"));
        let mut refusals = Refusals::default();
        let keep = |refusals: &mut Refusals, origin: Option<&RuntimeId>, number| {
            refusals.keep(origin, digest(number), &denial(), Wall(10))
        };
        for number in 0..REFUSALS_OF_ORIGIN_MAX {
            assert!(keep(&mut refusals, Some(&one), number));
        }
        assert!(!keep(&mut refusals, Some(&one), REFUSALS_OF_ORIGIN_MAX), "it has had its share");
        assert!(keep(&mut refusals, Some(&one), 0), "this one is known");
        assert!(keep(&mut refusals, Some(&other), 1_000) && keep(&mut refusals, None, 2_000));
        assert!(refusals.get(&digest(REFUSALS_OF_ORIGIN_MAX)).is_none());
        assert_eq!(refusals.get(&digest(1_000)), Some(&denial()));
    }

    #[test]
    fn room_comes_of_windows_that_are_over_and_of_no_others() {
        let one = origin("one");
        let mut refusals = Refusals::default();
        for number in 0..REFUSALS_OF_ORIGIN_MAX {
            let over = if number == 7 { Wall(5) } else { Wall(10) };
            assert!(refusals.keep(Some(&one), digest(number), &denial(), over));
        }
        for (now, is_room) in [(5, false), (6, true)] {
            refusals.forget_over(Wall(now));
            assert_eq!(refusals.clone().keep(Some(&one), digest(1_000), &denial(), Wall(10)), is_room, "at {now}");
        }
        assert!(refusals.keep(Some(&one), digest(1_000), &denial(), Wall(10)));
        assert!(!refusals.keep(Some(&one), digest(1_001), &denial(), Wall(10)), "one that is over makes room for one");
        assert!(refusals.get(&digest(7)).is_none());
        assert!(refusals.get(&digest(8)).is_some());
    }

    #[test]
    fn all_of_them_together_have_a_bound() {
        let mut refusals = Refusals::default();
        let names = 0..REFUSALS_MAX.div_ceil(REFUSALS_OF_ORIGIN_MAX);
        for (name, number) in names.flat_map(|name| (0..REFUSALS_OF_ORIGIN_MAX).map(move |number| (name, number))) {
            refusals.keep(
                Some(&origin(&name.to_string())),
                digest(name.saturating_mul(REFUSALS_OF_ORIGIN_MAX).saturating_add(number)),
                &denial(),
                Wall(10),
            );
        }
        assert_eq!(refusals.by_digest.len(), REFUSALS_MAX);
        assert!(!refusals.keep(Some(&origin("one-more")), digest(usize::MAX), &denial(), Wall(10)));
        refusals.forget_over(Wall(11));
        assert!(refusals.keep(Some(&origin("one-more")), digest(usize::MAX), &denial(), Wall(10)));
        assert_eq!((refusals.by_digest.len(), refusals.by_end.len(), refusals.counts.len()), (1, 1, 1));
    }
}
