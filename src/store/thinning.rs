//! Of a flood of refusals, what is put on record: all that differs, of the same again and again a few and their count.
//!
//! Whoever may not write can be refused as often as he likes. Each refusal of its own would rotate away what was there before,
//! so that of one kind only [`SAME_MAX`] are kept in a minute, and of one actor [`ACTOR_MAX`]; a record counts the rest.

use std::collections::BTreeMap;

use crate::domain::audit::Draft;
use crate::domain::code::Code;

/// Refusals of one actor, action, target and code in one minute that are kept whole.
pub(super) const SAME_MAX: u32 = 16;

/// Refusals of one actor in one minute that are kept whole, whatever they are: names of commands and targets are the asker's own
/// choice. At 700 bytes each that is 10 MiB an hour.
pub(super) const ACTOR_MAX: u32 = 256;

/// Actors and kinds that are told apart in one minute. Beyond that refusals are kept whole: better a shorter log than one that
/// hides somebody behind many others.
const KINDS_MAX: usize = 4_096;

/// What counts as the same. Of an actor at its limit, everything does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    actor: String,
    what: Option<(String, String, Option<Code>)>,
}

#[derive(Debug, Clone)]
struct Counted {
    kept: u32,
    more: u64,
    last: Draft,
}

/// What was seen in the present minute.
#[derive(Debug, Clone, Default)]
pub(super) struct Thinning {
    minute: u64,
    kinds: BTreeMap<Kind, Counted>,
    actors: BTreeMap<String, u32>,
}

impl Thinning {
    pub(super) const fn new() -> Self {
        Self { minute: 0, kinds: BTreeMap::new(), actors: BTreeMap::new() }
    }

    /// Whether there is a count that no record tells yet.
    pub(super) fn is_counting(&self) -> bool {
        self.kinds.values().any(|it| 0 < it.more)
    }

    /// Gives what is to be put on record now: the refusal itself or nothing, and before it the counts of a minute that is over.
    pub(super) fn take(&mut self, draft: Draft) -> Vec<Draft> {
        let minute = draft.at.as_millis().wrapping_div(60_000);
        let mut kept = if minute == self.minute { Vec::new() } else { self.flush() };
        self.minute = minute;
        if self.keeps(&draft) {
            kept.push(draft);
        }
        kept
    }

    fn keeps(&mut self, draft: &Draft) -> bool {
        let whole = self.actors.get(&draft.actor).copied().unwrap_or_default();
        let what = (draft.action.clone(), draft.target.to_string(), draft.code);
        let is_at_limit = ACTOR_MAX <= whole;
        let kind = Kind { actor: draft.actor.clone(), what: (!is_at_limit).then_some(what) };
        let is_full = KINDS_MAX <= self.kinds.len();
        if let Some(counted) = self.kinds.get_mut(&kind) {
            counted.last = draft.clone();
            if is_at_limit || SAME_MAX <= counted.kept {
                counted.more = counted.more.saturating_add(1);
                return false;
            }
            counted.kept = counted.kept.saturating_add(1);
        } else if is_at_limit {
            self.kinds.insert(kind, Counted { kept: 0, more: 1, last: draft.clone() });
            return false;
        } else if is_full {
            return true;
        } else {
            self.kinds.insert(kind, Counted { kept: 1, more: 0, last: draft.clone() });
        }
        self.actors.insert(draft.actor.clone(), whole.saturating_add(1));
        true
    }

    /// Ends the minute: one record for each kind of which not all were kept, in the place of the newest of them.
    pub(super) fn flush(&mut self) -> Vec<Draft> {
        self.actors.clear();
        let counted = std::mem::take(&mut self.kinds).into_iter().filter(|(_, it)| 0 < it.more);
        counted.map(|(kind, it)| summary(&kind, it)).collect()
    }
}

fn summary(kind: &Kind, counted: Counted) -> Draft {
    let Counted { more, mut last, .. } = counted;
    let of = if kind.what.is_some() { "like it" } else { "of this actor" };
    let others = more.saturating_sub(1);
    last.detail =
        format!("{} (and {others} more {of} in this minute, of which only this one is on record)", last.detail);
    last
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::Wall;
    use crate::store::contract::refused;

    fn at(number: u64, millis: u64) -> Draft {
        Draft { at: Wall::from_millis(millis), ..refused(number) }
    }

    fn named(actor: &str, action: &str, millis: u64) -> Draft {
        Draft { actor: actor.to_owned(), action: action.to_owned(), ..at(1, millis) }
    }

    #[test]
    fn of_the_same_refusals_some_are_kept_and_the_rest_is_counted_with_the_newest() {
        let mut thinning = Thinning::new();
        let same = |number| Draft { audit_id: refused(number).audit_id, ..named("mallory", "cfg_apply", 5) };
        let kept = (0..1_000).flat_map(|number| thinning.take(same(number))).count();
        assert_eq!((kept, thinning.is_counting()), (SAME_MAX as usize, true));
        let others = thinning.take(named("mallory", "cmd_invoke/open", 59_999));
        assert_eq!(others.len(), 1, "what differs is kept whole");
        let next = thinning.take(named("mallory", "cfg_apply", 60_000));
        let [count, own] = next.as_slice() else { panic!("{next:?}") };
        assert_eq!((count.audit_id, own.at), (same(999).audit_id, Wall::from_millis(60_000)));
        assert!(count.detail.ends_with("(and 983 more like it in this minute, of which only this one is on record)"));
        assert!(!thinning.is_counting() && thinning.flush().is_empty());
    }

    #[test]
    fn an_actor_with_ever_new_names_is_held_to_its_own_limit_and_nobody_elses() {
        let mut thinning = Thinning::new();
        let kept = (0..5_000).flat_map(|number| thinning.take(named("mallory", &format!("cmd_invoke/{number}"), 1)));
        assert_eq!(kept.count(), ACTOR_MAX as usize);
        assert_eq!(thinning.take(named("alice", "cfg_apply", 1)).len(), 1);
        let counts = thinning.flush();
        let [count] = counts.as_slice() else { panic!("{counts:?}") };
        assert_eq!(count.action, "cmd_invoke/4999");
        assert!(count.detail.contains("4743 more of this actor"), "{}", count.detail);
    }

    #[test]
    fn more_actors_than_are_told_apart_are_kept_whole_in_bounded_memory() {
        let mut thinning = Thinning::new();
        let count = KINDS_MAX.saturating_mul(2);
        let kept = (0..count).flat_map(|number| thinning.take(named(&format!("guest{number}"), "cfg_apply", 1)));
        assert_eq!(kept.count(), count);
        assert!(thinning.kinds.len() <= KINDS_MAX && thinning.actors.len() <= KINDS_MAX);
    }
}
