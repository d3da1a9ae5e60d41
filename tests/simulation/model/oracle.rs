//! What must come of a letter, written down a second time: the oracle must not ask the code under test.

use trust_runtime::domain::code::Code;
use trust_runtime::domain::envelope::Envelope;
use trust_runtime::domain::preflight::Profile;
use trust_runtime::domain::time::{Millis, Now, Wall};
use trust_runtime::engine::record::Receipt;

const SKEW: Millis = Millis::from_secs(30);
const WINDOW: Millis = Millis::from_secs(120);
const STEP_BACK: Millis = Millis::from_secs(1);
const DAY: Millis = Millis::from_hours(24);
/// How far a start may go back unnoticed.
const LAG: Millis = Millis::from_secs(60);

/// What must happen.
#[derive(Debug, PartialEq)]
pub(super) enum Expected {
    /// It is carried out now.
    CarriedOut,
    /// It was carried out before, and its receipt is given again.
    Stored(Box<Receipt>),
    /// It is refused, with this code.
    Refused(Code),
}

/// What is known when a letter arrives.
pub(super) struct Known<'a> {
    pub(super) now: Wall,
    pub(super) profile: Profile,
    pub(super) is_uncertain: bool,
    pub(super) is_read_only: bool,
    /// Whether one more receipt fits.
    pub(super) has_room: bool,
    pub(super) receipt: Option<&'a Receipt>,
    pub(super) dropped: Option<Wall>,
    /// The target's boot counter.
    pub(super) boot: u64,
    /// Why this very letter was refused in this life.
    pub(super) refused: Option<Code>,
}

pub(super) fn expected(known: &Known<'_>, letter: &Envelope) -> Expected {
    let is_same = |receipt: &&Receipt| receipt.digest == letter.digest();
    if let Some(receipt) = known.receipt.filter(is_same) {
        return Expected::Stored(Box::new(receipt.clone()));
    }
    if let Some(code) = known.refused {
        return Expected::Refused(code);
    }
    let is_in_time = letter.issued <= known.now.plus(SKEW) && known.now <= letter.issued.plus(WINDOW).plus(SKEW);
    let is_older = known.dropped.is_some_and(|dropped| letter.issued <= dropped.plus(SKEW));
    if !is_in_time {
        Expected::Refused(Code::EnvelopeExpired)
    } else if letter.target_boot != Some(known.boot) {
        Expected::Refused(Code::Replayed)
    } else if known.is_uncertain && known.profile == Profile::Plant {
        Expected::Refused(Code::ClockUncertain)
    } else if known.receipt.is_some() {
        Expected::Refused(Code::Conflict)
    } else if is_older {
        Expected::Refused(Code::Replayed)
    } else if known.is_read_only {
        Expected::Refused(Code::StorageUnavailable)
    } else if !known.has_room {
        Expected::Refused(Code::ServerBusy)
    } else {
        Expected::CarriedOut
    }
}

/// What a target may not overlook of its own clock.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Watch {
    last: Now,
    /// The latest that was believed in this life.
    high: Wall,
    /// The latest of which the disk knows, within a minute.
    durable: Wall,
    is_in_doubt: bool,
}

impl Watch {
    pub(super) fn start(now: Now, durable: Wall) -> Self {
        let is_in_doubt = now.wall.plus(STEP_BACK).plus(LAG) < durable;
        Self { last: now, high: now.wall, durable, is_in_doubt }
    }

    /// Takes in a reading. Gives whether time must be uncertain.
    pub(super) fn read(&mut self, now: Now) -> bool {
        let expected = self.last.wall.plus(now.monotonic.since(self.last.monotonic));
        self.is_in_doubt |= now.wall.plus(STEP_BACK) < self.high || expected.plus(DAY) < now.wall;
        self.last = now;
        self.is_in_doubt
    }

    pub(super) fn believe(&mut self) {
        self.high = self.high.max(self.last.wall);
    }

    /// A batch was taken by the disk.
    pub(super) fn commit(&mut self) {
        self.durable = self.durable.max(self.high);
    }

    /// A person believes the clock.
    pub(super) fn reset(&mut self, now: Now) {
        *self = Self { last: now, high: now.wall, durable: now.wall, is_in_doubt: false };
    }

    pub(super) fn durable(&self) -> Wall {
        self.durable
    }
}
