//! Rules that can never decide: an allow that some deny covers wholly.
//!
//! They are no fault of the file. Whoever denies everything in an emergency must not be refused because the rules below
//! have become silent; but a rule that looks as if it let something pass deserves a word.

use crate::domain::action::ActionKind;
use crate::domain::policy::{Pattern, Policy, Rule, RuleEffect, Side};

/// An allow rule that never decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shadowed<'a> {
    /// Which list holds both.
    pub side: Side,
    /// The rule that is silent.
    pub rule: &'a Rule,
    /// The deny rule that covers it.
    pub by: &'a Rule,
}

impl Policy {
    /// Every allow rule that one deny rule covers wholly.
    pub fn shadowed(&self) -> Vec<Shadowed<'_>> {
        let of = |side| {
            let having = move |effect| self.rules(side).iter().filter(move |rule| rule.effect == effect);
            having(RuleEffect::Allow).filter_map(move |rule| {
                let by = having(RuleEffect::Deny).find(|deny| deny.covers(rule))?;
                Some(Shadowed { side, rule, by })
            })
        };
        Side::ALL.into_iter().flat_map(of).collect()
    }
}

impl Rule {
    /// Whether this rule speaks of everything that the other speaks of.
    fn covers(&self, other: &Self) -> bool {
        let begins = self.not_before.is_none_or(|ours| other.not_before.is_some_and(|theirs| ours <= theirs));
        let ends = self.not_after.is_none_or(|ours| other.not_after.is_some_and(|theirs| theirs <= ours));
        covers_actions(&self.action, &other.action)
            && self.actor.covers(&other.actor)
            && self.target.covers(&other.target)
            && self.params.iter().all(|param| other.params.contains(param))
            && begins
            && ends
    }
}

/// `cmd_invoke` and `cmd_invoke/*` both mean every command.
fn covers_actions(ours: &Pattern, theirs: &Pattern) -> bool {
    let kind = ActionKind::CmdInvoke.as_str();
    let every_command = format!("{kind}/*");
    let is_any_command = |pattern: &Pattern| [kind, &every_command].contains(&pattern.to_string().as_str());
    let is_command = |pattern: &Pattern| pattern.to_string().split('/').next() == Some(kind);
    ours.is_everything()
        || (is_any_command(ours) && is_command(theirs))
        || (!theirs.is_everything() && ours.covers(theirs))
}
