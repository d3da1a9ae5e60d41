//! What can happen next to the target.

use crate::model::target::{LETTERS_MAX, Target};

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// A letter arrives, and this becomes of the batch that it comes into.
    Arrive(Source, Fate),
    /// A new letter is written and held back by the network.
    Delay(Content),
    /// The process ends, and with it what is not durable.
    Crash,
    /// The process starts again.
    Start,
    /// The store takes writes again.
    Repair,
    /// Time passes, as it should.
    Pass(u64),
    /// The target's wall clock jumps ahead by this much.
    Jump(u64),
    /// The target's wall clock is right again.
    SetRight,
    /// A person sees that the clock is right, and says so.
    Reset,
}

/// Which letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// One that was written before, whether it has arrived or not.
    Again(usize),
    /// One that is written now.
    New(Content),
}

/// One of two requests, and for the first of them one of two contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Content {
    /// The first request.
    First,
    /// The first request's id with another content.
    FirstOther,
    /// The second request.
    Second,
}

/// What becomes of a batch. A crash before it is durable is `Held` and then a crash, one before anybody hears of it is `Kept`
/// and then a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// More comes into it.
    Held,
    /// It becomes durable, and is spoken of.
    Kept,
    /// The store does not take it.
    Failed,
}

const FATES: [Fate; 3] = [Fate::Held, Fate::Kept, Fate::Failed];
const CONTENTS: [Content; 3] = [Content::First, Content::FirstOther, Content::Second];

const HOUR_MS: u64 = 3_600_000;

/// So long as a receipt is kept at least.
pub(super) const KEPT_MS: u64 = 180_000;
/// As little less as a clock here can tell, and more than lies between two marks of time.
const ALMOST_KEPT_MS: u64 = KEPT_MS - 1;
/// Too little to be noticed.
const UNNOTICED_MS: u64 = 20 * HOUR_MS;
pub(super) const NOTICED_MS: u64 = 25 * HOUR_MS;

impl Step {
    /// All that can happen in this state.
    pub(super) fn possible(target: &Target) -> Vec<Self> {
        let mut steps = vec![Self::Pass(ALMOST_KEPT_MS), Self::Pass(KEPT_MS)];
        steps.extend([Self::Jump(UNNOTICED_MS), Self::Jump(NOTICED_MS)]);
        if target.is_wrong() {
            steps.push(Self::SetRight);
        }
        let may_write = target.letters.len() < LETTERS_MAX;
        // With another name the second request would be the first.
        let is_next = |content: &Content| *content == Content::First || !target.letters.is_empty();
        let new = CONTENTS.into_iter().filter(|content| may_write && is_next(content));
        steps.extend(new.clone().map(Self::Delay));
        if target.live.is_none() {
            steps.push(Self::Start);
            return steps;
        }
        let sources = new.map(Source::New).chain((0..target.letters.len()).map(Source::Again));
        steps.extend(sources.flat_map(|source| FATES.map(|fate| Self::Arrive(source, fate))));
        steps.push(Self::Crash);
        if target.is_read_only() {
            steps.push(Self::Repair);
        } else if target.is_uncertain() && !target.is_wrong() {
            steps.push(Self::Reset);
        }
        steps
    }
}
