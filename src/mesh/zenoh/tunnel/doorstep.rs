//! Strangers whose handshake is not over: so many at once, and nobody keeps anybody out by standing there.
//!
//! Many honest nodes may come from one address, and whoever floods the listener may come from the same one, so an address is no
//! reason to turn somebody away. Every newcomer is let on. Where no place is left, one of the address that has the most is sent
//! away: another address loses nothing by a flood, and who of the same one is sent away is left to chance. So the honest ones get
//! through it sooner or later, however long their handshakes take, and they come again.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// A number below another one, by chance.
type Chance = fn(usize) -> usize;

/// The places of one listener.
#[derive(Debug)]
pub(super) struct Doorstep {
    most: usize,
    chance: Chance,
    standing: Mutex<Standing>,
}

#[derive(Debug, Default)]
struct Standing {
    /// Who came last has the highest number.
    next: u64,
    all: BTreeMap<u64, (IpAddr, CancellationToken)>,
}

/// A place, given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    doorstep: Arc<Doorstep>,
    number: u64,
    /// Whoever stands here has to go.
    pub(super) sent_away: CancellationToken,
}

impl Doorstep {
    pub(super) fn of(most: usize) -> Arc<Self> {
        Self::with(most, below)
    }

    fn with(most: usize, chance: Chance) -> Arc<Self> {
        Arc::new(Self { most, chance, standing: Mutex::default() })
    }

    /// A place for a newcomer, which may be somebody else's until now.
    pub(super) fn take(self: &Arc<Self>, from: IpAddr) -> Place {
        let sent_away = CancellationToken::new();
        let mut standing = self.lock();
        if self.most <= standing.all.len() {
            standing.send_one_away(from, self.chance);
        }
        let number = standing.next;
        standing.next = number.saturating_add(1);
        standing.all.insert(number, (from, sent_away.clone()));
        drop(standing);
        Place { doorstep: Arc::clone(self), number, sent_away }
    }

    fn lock(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Standing {
    /// Ends the wait of one of the address that would have the most places, the newcomer's among them.
    fn send_one_away(&mut self, newcomer: IpAddr, chance: Chance) {
        let mut counts = BTreeMap::from([(newcomer, 1_usize)]);
        for (from, _) in self.all.values() {
            let count = counts.entry(*from).or_default();
            *count = count.saturating_add(1);
        }
        let Some((greediest, count)) = counts.into_iter().max_by_key(|(from, count)| (*count, *from == newcomer))
        else {
            return;
        };
        let there = if greediest == newcomer { count.saturating_sub(1) } else { count };
        let mut of_it = self.all.iter().filter(|(_, (from, _))| *from == greediest).map(|(number, _)| *number);
        let chosen = of_it.nth(chance(there));
        if let Some((_, sent_away)) = chosen.and_then(|number| self.all.remove(&number)) {
            sent_away.cancel();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.doorstep.lock().all.remove(&self.number);
    }
}

/// Without random bytes it is whoever has been there longest.
fn below(bound: usize) -> usize {
    let mut bytes = [0; 4];
    if getrandom::fill(&mut bytes).is_err() {
        return 0;
    }
    let number = usize::try_from(u32::from_be_bytes(bytes)).unwrap_or_default();
    number.checked_rem(bound).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn from(last: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, last).into()
    }

    /// Who stands there still, by the order of their coming.
    fn left(places: &[Place]) -> Vec<usize> {
        places.iter().enumerate().filter(|(_, place)| !place.sent_away.is_cancelled()).map(|(at, _)| at).collect()
    }

    #[test]
    fn every_newcomer_has_a_place_and_there_are_never_more() {
        let doorstep = Doorstep::of(4);
        let places: Vec<Place> = (0..100).map(|_| doorstep.take(from(1))).collect();
        assert_eq!(left(&places).len(), 4);
        assert_eq!(left(&places).last(), Some(&99));
        drop(places);
        assert!(doorstep.lock().all.is_empty(), "nothing is kept of who is gone");
    }

    #[test]
    fn a_flood_takes_no_place_of_another_address() {
        let doorstep = Doorstep::with(4, |_| 0);
        let mut places: Vec<Place> = (0..4).map(|_| doorstep.take(from(1))).collect();
        places.push(doorstep.take(from(2)));
        assert_eq!(left(&places), [1, 2, 3, 4], "who has most makes room");
        places.push(doorstep.take(from(2)));
        assert_eq!(left(&places), [2, 3, 4, 5]);
        places.extend((0..10).map(|_| doorstep.take(from(1))));
        assert_eq!(left(&places), [4, 5, 14, 15], "a flood displaces its own");
        places.push(doorstep.take(from(2)));
        assert_eq!(left(&places), [5, 14, 15, 16], "and so does whoever would have most");
    }

    #[test]
    fn who_is_sent_away_is_left_to_chance() {
        let doorstep = Doorstep::with(4, |bound| bound - 1);
        let places: Vec<Place> = (0..6).map(|_| doorstep.take(from(1))).collect();
        assert_eq!(left(&places), [0, 1, 2, 5]);
        for bound in [1, 4, 256] {
            assert!((0..100).all(|_| below(bound) < bound));
        }
        let met: std::collections::BTreeSet<usize> = (0..1_000).map(|_| below(4)).collect();
        assert_eq!(met.len(), 4);
    }
}
