//! When a certificate counts as one that nears its end, when a node asks for a new one, and which one it takes.
//!
//! A renewal is of the same id and the same key: whoever has the key of a certificate in force may have it prolonged, and
//! nothing else.

use crate::domain::identity::svid::Svid;
use crate::domain::time::{Millis, Wall};

/// Shortest and longest pause between two looks at the certificate.
const LOOK_MIN: Millis = Millis::from_secs(2);
const LOOK_MAX: Millis = Millis::from_hours(1);

/// Longest time before its end in which a certificate is shown as nearing it, for those that hold for years: a month, in which
/// somebody can still travel to a plant.
const SOON_MAX: Millis = Millis::from_hours(30 * 24);

/// How much of a certificate's life is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// There is time.
    Valid,
    /// It is in the last third of its life, and in its last thirty days.
    Expiring,
    /// It is over.
    Expired,
}

impl Stage {
    /// The stage of a certificate that holds from then until then. A third, because in that time nodes renew by themselves: what
    /// is there longer is worth a look.
    pub fn of(from: Wall, until: Wall, now: Wall) -> Self {
        let third = until.0.saturating_sub(from.0).wrapping_div(3);
        let soon = third.min(SOON_MAX.as_nanos());
        if until < now {
            Self::Expired
        } else if until.0.saturating_sub(now.0) <= soon {
            Self::Expiring
        } else {
            Self::Valid
        }
    }

    /// Its name, as lists show it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Expiring => "expiring",
            Self::Expired => "expired",
        }
    }
}

/// Whether it is time: less than a third of its life is left, and some is.
pub fn is_due(from: Wall, until: Wall, now: Wall) -> bool {
    let life = until.0.saturating_sub(from.0);
    let left = until.0.saturating_sub(now.0);
    0 < left && left < life.wrapping_div(3)
}

/// How long it is until then.
pub fn until_due(from: Wall, until: Wall, now: Wall) -> Millis {
    let third = until.0.saturating_sub(from.0).wrapping_div(3);
    Millis(until.0.saturating_sub(third).saturating_sub(now.0).wrapping_div(1_000_000))
}

/// When an authority issues again for an id: not before a third of the life that it gave last is over. That bounds what a
/// node that asks all the time can make it do.
pub fn not_again_before(issued: Wall, until: Wall) -> Wall {
    let life = until.0.saturating_sub(issued.0);
    Wall(issued.0.saturating_add(life.wrapping_div(3)))
}

/// The pause until the next look: an eighth of what is left, so that many tries fit into it, spread by chance (0 to 255) over
/// three quarters to five quarters, so that nodes whose certificates were issued together do not ask together.
pub fn pause(until: Wall, now: Wall, chance: u8) -> Millis {
    let left = Millis(until.0.saturating_sub(now.0).wrapping_div(1_000_000));
    let pause = Millis(left.0.wrapping_div(8)).clamp(LOOK_MIN, LOOK_MAX);
    Millis(pause.0.saturating_mul(384_u64.saturating_add(chance.into())).wrapping_div(512))
}

/// Why an issued certificate is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotARenewal {
    /// It has another id.
    #[error("it names somebody else")]
    AnotherId,
    /// It is another key's.
    #[error("it is another key's")]
    AnotherKey,
    /// It ends no later.
    #[error("it ends no later than the one in force")]
    NoLonger,
}

/// Whether a certificate prolongs the one in force. That it holds by the anchors is checked beside this.
pub fn prolongs(in_force: &Svid, issued: &Svid) -> Result<(), NotARenewal> {
    if issued.id != in_force.id {
        Err(NotARenewal::AnotherId)
    } else if issued.key != in_force.key {
        Err(NotARenewal::AnotherKey)
    } else if issued.not_after <= in_force.not_after {
        Err(NotARenewal::NoLonger)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::RuntimeId;
    use crate::domain::identity::{Fingerprint, Subject};

    fn at(second: u64) -> Wall {
        Wall::default().plus(Millis::from_secs(second))
    }

    #[test]
    fn an_end_is_near_in_the_last_third_and_in_thirty_days_at_most() {
        let day = 24 * 3_600;
        for (life, left, wanted) in [
            // A node's of thirty days: ten of them, and not from its first second on.
            (30 * day, 30 * day, "valid"),
            (30 * day, 10 * day + 1, "valid"),
            (30 * day, 10 * day, "expiring"),
            (30 * day, 0, "expiring"),
            // An actor's of half a day.
            (day / 2, 4 * 3_600 + 1, "valid"),
            (day / 2, 4 * 3_600, "expiring"),
            // Where a third is longer than thirty days, and where it is just as long.
            (3_650 * day, 30 * day + 1, "valid"),
            (3_650 * day, 30 * day, "expiring"),
            (90 * day, 30 * day + 1, "valid"),
            (90 * day, 30 * day, "expiring"),
        ] {
            let until = at(life);
            assert_eq!(Stage::of(at(0), until, at(life - left)).word(), wanted, "{life} {left}");
        }
        assert_eq!(Stage::of(at(0), at(300), Wall(at(300).0 + 1)), Stage::Expired);
        assert_eq!(Stage::of(at(300), at(0), at(0)), Stage::Expiring, "one that ends before it begins");
    }

    #[test]
    fn it_is_due_in_the_last_third_and_not_once_it_is_over() {
        for (now, wanted) in [(0, false), (200, false), (201, true), (299, true), (300, false), (301, false)] {
            assert_eq!(is_due(at(0), at(300), at(now)), wanted, "{now}");
        }
        assert_eq!(not_again_before(at(10), at(310)), at(110));
        for (now, wanted_s) in [(0, 200), (150, 50), (200, 0), (400, 0)] {
            assert_eq!(until_due(at(0), at(300), at(now)), Millis::from_secs(wanted_s), "{now}");
        }
        assert!(!is_due(at(300), at(0), at(100)), "a certificate that ends before it begins");
    }

    #[test]
    fn looks_are_spread_and_bounded() {
        let days = 24 * 3_600;
        for (left, chance, wanted_s) in
            [(30 * days, 0, 2_700), (30 * days, 255, 4_492), (80, 128, 10), (1, 0, 1), (0, 255, 2)]
        {
            assert_eq!(pause(at(left), at(0), chance).0 / 1_000, wanted_s, "{left} {chance}");
        }
    }

    #[test]
    fn only_the_same_id_and_key_for_longer_is_a_renewal() {
        let runtime: RuntimeId = "s/a".parse().expect("legal");
        let svid = |id: &str, key, until| Svid {
            id: id.parse().expect("legal"),
            subject: Subject::of_runtime(&runtime),
            not_before: at(0),
            not_after: at(until),
            key: Fingerprint([key; 32]),
            certificate: Fingerprint([0; 32]),
            public_key: [].into(),
        };
        let own = "spiffe://trust/s/runtime/a";
        let in_force = svid(own, 1, 100);
        for (issued, wanted) in [
            (svid(own, 1, 101), Ok(())),
            (svid(own, 1, 100), Err(NotARenewal::NoLonger)),
            (svid(own, 2, 200), Err(NotARenewal::AnotherKey)),
            (svid("spiffe://trust/s/runtime/b", 1, 200), Err(NotARenewal::AnotherId)),
        ] {
            assert_eq!(prolongs(&in_force, &issued), wanted);
        }
    }
}
