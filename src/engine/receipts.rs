//! What a target remembers of the writes it carried out: by request, by age, and by age for each origin.
//!
//! Only the table is here, with its three orders kept the same; when a receipt may go is decided in `act`.

use std::collections::btree_map::Values;
use std::collections::{BTreeMap, BTreeSet};

use crate::domain::id::RuntimeId;
use crate::domain::time::Wall;
use crate::engine::record::{Receipt, RequestKey};

/// Most receipts kept of all origins together: more than a write each second for a day, or ten origins that keep all they
/// may, in about a hundred megabytes.
pub(super) const RECEIPTS_MAX: usize = 100_000;

/// Most receipts kept for one origin (DESIGN, *An action across the mesh*).
pub(super) const RECEIPTS_OF_ORIGIN_MAX: usize = 10_000;

/// Oldest first; of the same age in the order of their keys, so that the order does not depend on the machine.
type ByAge = BTreeSet<(Wall, RequestKey)>;

/// The receipts. Every look-up and every removal costs the logarithm of the table's size, never the size.
#[derive(Debug, Clone, Default)]
pub(super) struct Receipts {
    by_key: BTreeMap<RequestKey, Receipt>,
    by_age: ByAge,
    of_origin: BTreeMap<RuntimeId, ByAge>,
}

impl Receipts {
    pub(super) fn get(&self, key: &RequestKey) -> Option<&Receipt> {
        self.by_key.get(key)
    }

    /// All of them, in the order of their keys.
    pub(super) fn all(&self) -> Values<'_, RequestKey, Receipt> {
        self.by_key.values()
    }

    /// Whether not one more is taken, whoever it is for.
    pub(super) fn is_full(&self) -> bool {
        RECEIPTS_MAX <= self.by_key.len()
    }

    /// The oldest receipt of an origin that has as many as it may; none where there is room.
    pub(super) fn oldest_of_full(&self, origin: &RuntimeId) -> Option<&(Wall, RequestKey)> {
        self.of_origin.get(origin).filter(|its| RECEIPTS_OF_ORIGIN_MAX <= its.len())?.first()
    }

    /// Receipts given at or before this moment, oldest first, at most so many.
    pub(super) fn given_until(&self, moment: Wall, most: usize) -> Vec<RequestKey> {
        self.by_age.iter().take_while(|(at, _)| *at <= moment).take(most).map(|(_, key)| key.clone()).collect()
    }

    /// Takes a receipt in, in place of an earlier one for the same request.
    pub(super) fn keep(&mut self, receipt: Receipt) {
        self.remove(&receipt.key);
        let place = (receipt.at, receipt.key.clone());
        self.by_age.insert(place.clone());
        self.of_origin.entry(receipt.origin.clone()).or_default().insert(place);
        self.by_key.insert(receipt.key.clone(), receipt);
    }

    /// Forgets one. Gives when it was given.
    pub(super) fn remove(&mut self, key: &RequestKey) -> Option<Wall> {
        let receipt = self.by_key.remove(key)?;
        let place = (receipt.at, receipt.key);
        self.by_age.remove(&place);
        if let Some(its) = self.of_origin.get_mut(&receipt.origin) {
            its.remove(&place);
            if its.is_empty() {
                self.of_origin.remove(&receipt.origin);
            }
        }
        Some(place.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::audit::{AuditId, Hash};
    use crate::domain::envelope::Response;

    fn key(number: usize) -> RequestKey {
        let actor = "spiffe://trust/s/alice".parse().expect("legal");
        RequestKey { actor, request_id: format!("r{number}").parse().expect("legal") }
    }

    fn receipt(number: usize, origin: &str, at: u64) -> Receipt {
        Receipt {
            key: key(number),
            origin: origin.parse().expect("legal"),
            digest: Hash([0; 32]),
            at: Wall(at),
            audit_id: AuditId::new(Wall(at), [0; 10]),
            response: Response::Pong,
        }
    }

    const ORIGINS: [&str; 2] = ["s/a", "s/b"];
    const NUMBERS: usize = 5;

    /// What happens to a table: few requests and few moments, so that the same ones meet.
    #[derive(Debug, Clone)]
    enum Step {
        Keep { number: usize, origin: usize },
        Drop { number: usize },
        DropOld { ago: u64, most: usize },
        Jump { to: u64 },
        Restart,
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..NUMBERS, 0..ORIGINS.len()).prop_map(|(number, origin)| Step::Keep { number, origin }),
            2 => (0..NUMBERS).prop_map(|number| Step::Drop { number }),
            1 => (0..4_u64, 0..4_usize).prop_map(|(ago, most)| Step::DropOld { ago, most }),
            2 => (0..8_u64).prop_map(|to| Step::Jump { to }),
            1 => Just(Step::Restart),
        ]
    }

    /// The same table the slow way: one list, searched from end to end.
    #[derive(Debug, Default)]
    struct Naive {
        list: Vec<Receipt>,
        now: u64,
    }

    impl Naive {
        fn remove(&mut self, key: &RequestKey) -> Option<Wall> {
            let place = self.list.iter().position(|it| it.key == *key)?;
            Some(self.list.remove(place).at)
        }

        fn oldest_first(&self, is_wanted: impl Fn(&Receipt) -> bool) -> Vec<(Wall, RequestKey)> {
            let mut places: Vec<_> =
                self.list.iter().filter(|it| is_wanted(it)).map(|it| (it.at, it.key.clone())).collect();
            places.sort();
            places
        }

        fn given_until(&self, moment: Wall, most: usize) -> Vec<RequestKey> {
            self.oldest_first(|it| it.at <= moment).into_iter().map(|(_, key)| key).take(most).collect()
        }

        /// Does to both what the step says. Gives what each said of it.
        fn take(&mut self, step: &Step, table: &mut Receipts) -> [Vec<Option<Wall>>; 2] {
            let mut said = [Vec::new(), Vec::new()];
            let mut forget = |naive: &mut Self, key: &RequestKey| {
                said[0].push(naive.remove(key));
                said[1].push(table.remove(key));
            };
            match step {
                Step::Keep { number, origin } => {
                    let receipt = receipt(*number, ORIGINS[*origin], self.now);
                    self.remove(&receipt.key);
                    self.list.push(receipt.clone());
                    table.keep(receipt);
                }
                Step::Drop { number } => forget(self, &key(*number)),
                Step::DropOld { ago, most } => {
                    let old = self.given_until(Wall(self.now.saturating_sub(*ago)), *most);
                    old.iter().for_each(|key| forget(self, key));
                }
                Step::Jump { to } => self.now = *to,
                // What was durable comes back in an order of its own.
                Step::Restart => {
                    *table = Receipts::default();
                    self.list.iter().rev().for_each(|receipt| table.keep(receipt.clone()));
                }
            }
            said
        }

        fn check(&self, table: &Receipts) {
            for number in 0..NUMBERS {
                let kept = self.list.iter().find(|it| it.key == key(number));
                assert_eq!(table.get(&key(number)), kept);
            }
            for (moment, most) in (0..9).flat_map(|moment| [0, 1, 3, NUMBERS].map(|most| (Wall(moment), most))) {
                assert_eq!(table.given_until(moment, most), self.given_until(moment, most));
            }
            for origin in ORIGINS.map(|origin| origin.parse::<RuntimeId>().expect("legal")) {
                let its = self.oldest_first(|it| it.origin == origin);
                let listed: Vec<_> = table.of_origin.get(&origin).into_iter().flatten().cloned().collect();
                assert_eq!(listed, its);
                assert_eq!(table.of_origin.contains_key(&origin), !its.is_empty(), "what is empty takes no room");
            }
        }
    }

    proptest! {
        #[test]
        fn the_table_is_a_list_of_receipts_whatever_comes_goes_jumps_and_restarts(
            steps in prop::collection::vec(any_step(), 0..60)
        ) {
            let (mut naive, mut table) = (Naive::default(), Receipts::default());
            for step in &steps {
                let [expected, said] = naive.take(step, &mut table);
                prop_assert_eq!(said, expected);
                naive.check(&table);
            }
        }
    }

    #[test]
    fn an_origin_is_full_at_its_bound_and_not_one_before() {
        let (full, other): (RuntimeId, RuntimeId) = ("s/a".parse().expect("legal"), "s/b".parse().expect("legal"));
        let mut receipts = Receipts::default();
        receipts.keep(receipt(RECEIPTS_OF_ORIGIN_MAX, "s/b", 0));
        for number in 0..RECEIPTS_OF_ORIGIN_MAX {
            assert_eq!(receipts.oldest_of_full(&full), None);
            receipts.keep(receipt(number, "s/a", 5 + number as u64));
        }
        assert_eq!(receipts.oldest_of_full(&full), Some(&(Wall(5), key(0))), "its own, not the oldest of all");
        assert_eq!(receipts.oldest_of_full(&other), None);
        assert_eq!(receipts.remove(&key(0)), Some(Wall(5)));
        assert_eq!(receipts.oldest_of_full(&full), None);
    }

    #[test]
    fn what_is_taken_twice_stands_once_in_every_order() {
        let mut receipts = Receipts::default();
        receipts.keep(receipt(1, "s/a", 5));
        receipts.keep(receipt(1, "s/b", 9));
        receipts.keep(receipt(2, "s/b", 7));
        assert_eq!(receipts.given_until(Wall(9), 9), [key(2), key(1)]);
        assert_eq!(receipts.given_until(Wall(8), 9), [key(2)]);
        assert_eq!(receipts.given_until(Wall(9), 1), [key(2)]);
        assert_eq!((receipts.remove(&key(1)), receipts.remove(&key(1))), (Some(Wall(9)), None));
        assert_eq!(receipts.remove(&key(2)), Some(Wall(7)));
        assert!(receipts.by_age.is_empty() && receipts.of_origin.is_empty());
    }
}
