//! Whether the wall clock is believed: it must never fall below what was seen, nor run a day ahead of the monotonic clock.

use crate::domain::time::{Millis, Now, Wall};
use crate::engine::effect::Effects;
use crate::engine::record::Record;
use crate::engine::view::{Category, ClockState, Severity};
use crate::engine::{Engine, Happening};

/// A step back by less is an ordinary correction by a time service.
const STEP_BACK_TOLERATED: Millis = Millis::from_secs(1);
/// A jump ahead by more is not a correction (DESIGN, *Time*).
const JUMP_AHEAD_MAX: Millis = Millis::from_hours(24);
/// How far the durable mark may lag: what a restart with a reset clock could go back unnoticed.
const MARK_EVERY: Millis = Millis::from_secs(60);

/// Compares each reading with the one before and with the durable mark.
#[derive(Debug, Clone, Copy)]
pub(super) struct SteadyClock {
    mark: Wall,
    durable_mark: Wall,
    last: Now,
    state: ClockState,
}

impl SteadyClock {
    /// Starts from the durable mark of earlier boots.
    pub(super) fn starting_at(now: Now, durable_mark: Wall) -> Self {
        let state =
            if now.wall.plus(STEP_BACK_TOLERATED) < durable_mark { ClockState::Uncertain } else { ClockState::Certain };
        Self { mark: durable_mark.max(now.wall), durable_mark, last: now, state }
    }

    pub(super) fn state(&self) -> ClockState {
        self.state
    }

    /// What the disk has.
    pub(super) fn durable_mark(&self) -> Wall {
        self.durable_mark
    }

    /// Takes in a reading.
    fn read(&mut self, now: Now) {
        let elapsed = now.monotonic.since(self.last.monotonic);
        let expected = self.last.wall.plus(elapsed);
        self.last = now;
        if now.wall.plus(STEP_BACK_TOLERATED) < self.mark || expected.plus(JUMP_AHEAD_MAX) < now.wall {
            self.state = ClockState::Uncertain;
        }
        if self.state == ClockState::Certain {
            self.mark = self.mark.max(now.wall);
        }
    }

    /// The mark, when it has to become durable; from then on it counts as durable.
    fn take_due_mark(&mut self) -> Option<Wall> {
        let is_due = self.state == ClockState::Certain && self.durable_mark.plus(MARK_EVERY) <= self.mark;
        if is_due {
            self.durable_mark = self.mark;
        }
        is_due.then_some(self.mark)
    }

    /// What the disk really has, where a mark that was due did not become durable.
    pub(super) fn with_durable_mark(self, durable_mark: Wall) -> Self {
        Self { durable_mark, ..self }
    }

    /// A person says that the clock is right as it is.
    pub(super) fn reset(&mut self, now: Now) {
        *self = Self { mark: now.wall, durable_mark: now.wall, last: now, state: ClockState::Certain };
    }
}

impl Engine {
    pub(super) fn watch_clock(&mut self, now: Now, effects: &mut Effects) {
        let before = self.clock.state();
        self.clock.read(now);
        if !self.is_read_only
            && let Some(wall) = self.clock.take_due_mark()
        {
            effects.persist(Record::ClockMark { wall });
        }
        if before != self.clock.state() {
            let summary = "the wall clock went back or jumped ahead: its time is uncertain".to_owned();
            let runtime = self.me().clone();
            let severity = Severity::Critical;
            self.tell(now, Happening { category: Category::Security, runtime, request_id: None, summary, severity });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::Monotonic;

    fn at(wall_s: u64, monotonic_s: u64) -> Now {
        Now {
            wall: Wall::default().plus(Millis::from_secs(wall_s)),
            monotonic: Monotonic::default().plus(Millis::from_secs(monotonic_s)),
        }
    }

    #[test]
    fn a_clock_below_the_durable_mark_is_uncertain_from_the_start() {
        let mark = at(1_000, 0).wall;
        assert_eq!(SteadyClock::starting_at(at(999, 0), mark).state(), ClockState::Certain);
        assert_eq!(SteadyClock::starting_at(at(998, 0), mark).state(), ClockState::Uncertain);
    }

    #[test]
    fn going_back_or_jumping_ahead_a_day_makes_time_uncertain_until_it_is_reset() {
        for (wall, monotonic, expected) in [
            (1_010, 10, ClockState::Certain),
            (1_009, 10, ClockState::Certain),
            (998, 10, ClockState::Uncertain),
            (1_000 + 10 + 86_400, 10, ClockState::Certain),
            (1_000 + 11 + 86_400, 10, ClockState::Uncertain),
            (1_000 + 90_000, 90_000, ClockState::Certain),
        ] {
            let mut clock = SteadyClock::starting_at(at(1_000, 0), Wall::default());
            clock.read(at(wall, monotonic));
            assert_eq!(clock.state(), expected, "wall {wall} monotonic {monotonic}");
            clock.reset(at(wall, monotonic));
            assert_eq!(clock.state(), ClockState::Certain);
        }
    }

    #[test]
    fn a_step_back_is_taken_up_to_a_second_below_the_latest_that_was_seen() {
        for (back_ms, expected) in [(1_000, ClockState::Certain), (1_001, ClockState::Uncertain)] {
            let mut clock = SteadyClock::starting_at(at(1_000, 0), Wall::default());
            clock.read(at(1_010, 10));
            clock.read(Now { wall: at(1_010, 0).wall.minus(Millis(back_ms)), ..at(0, 11) });
            assert_eq!(clock.state(), expected, "{back_ms} ms");
        }
    }

    #[test]
    fn the_mark_becomes_durable_once_a_minute() {
        let mut clock = SteadyClock::starting_at(at(1_000, 0), at(1_000, 0).wall);
        let mut due_at = |seconds| {
            clock.read(at(1_000 + seconds, seconds));
            clock.take_due_mark()
        };
        assert_eq!(due_at(59), None);
        assert_eq!(due_at(60), Some(at(1_060, 0).wall));
        assert_eq!(due_at(61), None);
    }

    #[test]
    fn a_mark_that_the_disk_did_not_take_is_due_again() {
        let durable = at(1_000, 0).wall;
        let mut clock = SteadyClock::starting_at(at(1_000, 0), durable);
        clock.read(at(1_060, 60));
        assert!(clock.take_due_mark().is_some());
        let mut clock = clock.with_durable_mark(durable);
        assert_eq!(clock.take_due_mark(), Some(at(1_060, 0).wall));
        assert_eq!(clock.take_due_mark(), None);
    }
}
