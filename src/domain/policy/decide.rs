//! The matcher: one question, one verdict. Preflight, dispatch and the target all call this function.

use crate::domain::action::Action;
use crate::domain::id::RuntimeId;
use crate::domain::identity::Actor;
use crate::domain::policy::{Policy, Rule, RuleEffect, Stage, action_name, actor_name};
use crate::domain::time::Wall;

/// Which of the two lists is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// `accept_write`, at the target.
    Inbound,
    /// `allow_write`, at the origin.
    Outbound,
}

impl Side {
    /// Both, from the way out to the way in.
    pub const ALL: [Self; 2] = [Self::Outbound, Self::Inbound];

    /// The stable text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }

    /// The name of the list that is asked.
    pub const fn list(self) -> &'static str {
        match self {
            Self::Inbound => "accept_write",
            Self::Outbound => "allow_write",
        }
    }

    /// The end at which the list is asked.
    pub const fn stage(self) -> Stage {
        match self {
            Self::Inbound => Stage::Target,
            Self::Outbound => Stage::Origin,
        }
    }
}

/// May this actor do this to that runtime now?
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Who asks.
    pub actor: &'a Actor,
    /// What would be done.
    pub action: &'a Action,
    /// To whom.
    pub target: &'a RuntimeId,
    /// When.
    pub now: Wall,
}

/// What the rules say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// Allowed by this rule.
    Allowed(&'a Rule),
    /// Denied by this rule.
    Denied(&'a Rule),
    /// No rule speaks of it, which denies.
    Unmentioned,
}

impl Policy {
    /// Asks one side. Deny beats allow; the order of the rules does not matter for the outcome.
    pub fn ask(&self, side: Side, question: Question<'_>) -> Verdict<'_> {
        let rules = self.rules(side);
        let matching = |effect| rules.iter().find(|rule| rule.effect == effect && rule.speaks_of(question));
        match (matching(RuleEffect::Deny), matching(RuleEffect::Allow)) {
            (Some(rule), _) => Verdict::Denied(rule),
            (None, Some(rule)) => Verdict::Allowed(rule),
            (None, None) => Verdict::Unmentioned,
        }
    }
}

/// One condition of a rule. A rule speaks of a question when all of its conditions hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition<'a> {
    /// The action's pattern.
    Action,
    /// The actor's pattern.
    Actor,
    /// The target's pattern.
    Target,
    /// The first moment.
    NotBefore,
    /// The moment from which the rule is silent.
    NotAfter,
    /// The parameter of this name.
    Param(&'a str),
    /// That the rule, which allows certain parameters, names this one of the action.
    Unnamed(&'a str),
}

impl Rule {
    /// Whether every condition holds. Stops at the first that does not.
    pub(super) fn speaks_of(&self, question: Question<'_>) -> bool {
        self.failing(question).next().is_none()
    }

    /// The conditions that do not hold. There is no other matcher: what decides and what explains are the same.
    pub(super) fn failing<'a>(&'a self, question: Question<'a>) -> impl Iterator<Item = Condition<'a>> {
        let fixed = [Condition::Action, Condition::Actor, Condition::Target, Condition::NotBefore, Condition::NotAfter];
        let params = self.params.iter().map(|(name, _)| Condition::Param(name));
        let unnamed = question.action.parameter_names().map(Condition::Unnamed);
        fixed.into_iter().chain(params).chain(unnamed).filter(move |condition| !self.holds(*condition, question))
    }

    fn holds(&self, condition: Condition<'_>, question: Question<'_>) -> bool {
        let Question { actor, action, target, now } = question;
        match condition {
            Condition::Action => {
                self.action.matches(action.kind().as_str())
                    || action.command().is_some() && self.action.matches(&action_name(action))
            }
            Condition::Actor => self.actor.matches(&actor_name(actor)),
            Condition::Target => self.target.matches(&target.to_string()),
            Condition::NotBefore => self.not_before.is_none_or(|limit| limit <= now),
            Condition::NotAfter => self.not_after.is_none_or(|limit| now < limit),
            Condition::Param(name) => {
                let wanted = self.params.iter().filter(|(it, _)| it == name);
                wanted.into_iter().all(|(_, value)| action.parameter(name).as_ref() == Some(value))
            }
            // A deny speaks of whatever has what it names: a further parameter must not be a way past it.
            Condition::Unnamed(name) => {
                self.effect == RuleEffect::Deny
                    || self.params.is_empty()
                    || self.params.iter().any(|(it, _)| it == name)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::policy::Pattern;

    fn rule(effect: RuleEffect, action: &str, actor: &str, target: &str) -> Rule {
        let pattern = |text: &str| text.parse::<Pattern>().expect("legal");
        Rule {
            id: format!("{effect:?}:{action}:{actor}:{target}"),
            effect,
            action: pattern(action),
            actor: pattern(actor),
            target: pattern(target),
            params: Vec::new(),
            not_before: None,
            not_after: None,
            reason: None,
        }
    }

    fn any_rule() -> impl Strategy<Value = Rule> {
        let effect = prop_oneof![Just(RuleEffect::Allow), Just(RuleEffect::Deny)];
        let action = prop_oneof![Just("*"), Just("cmd_invoke"), Just("cfg_apply"), Just("cmd_invoke/ping")];
        let actor = prop_oneof![Just("*"), Just("a/*"), Just("a/alice"), Just("b/*")];
        let target = prop_oneof![Just("*"), Just("b/*"), Just("b/r1"), Just("a/r1")];
        (effect, action, actor, target).prop_map(|(effect, action, actor, target)| rule(effect, action, actor, target))
    }

    fn ask(rules: Vec<Rule>) -> &'static str {
        let policy = Policy { allow_write: rules, accept_write: Vec::new() };
        let actor = "spiffe://trust/a/alice".parse().expect("legal");
        let target = "b/r1".parse().expect("legal");
        let action = Action::ping();
        let question = Question { actor: &actor, action: &action, target: &target, now: Wall(5) };
        match policy.ask(Side::Outbound, question) {
            Verdict::Allowed(_) => "allowed",
            Verdict::Denied(_) => "denied",
            Verdict::Unmentioned => "unmentioned",
        }
    }

    proptest! {
        #[test]
        fn order_never_matters(rules in prop::collection::vec(any_rule(), 0..6)) {
            let forward = ask(rules.clone());
            prop_assert_eq!(forward, ask(rules.into_iter().rev().collect()));
        }

        #[test]
        fn a_further_deny_never_allows(
            rules in prop::collection::vec(any_rule(), 0..6), further in any_rule(), at in any::<prop::sample::Index>()
        ) {
            let (before, further) = (ask(rules.clone()), Rule { effect: RuleEffect::Deny, ..further });
            let speaks = ask(vec![further.clone()]) == "denied";
            let mut stricter = rules;
            stricter.insert(at.index(stricter.len().saturating_add(1)), further);
            // Where it speaks it decides, whatever else is written; where it is silent it changes nothing.
            prop_assert_eq!(ask(stricter), if speaks { "denied" } else { before });
        }
    }

    #[test]
    fn a_side_is_named_as_people_and_settings_name_it() {
        let named = Side::ALL.map(|side| (side.as_str(), side.list()));
        assert_eq!(named, [("outbound", "allow_write"), ("inbound", "accept_write")]);
    }

    #[test]
    fn an_empty_list_says_nothing_and_a_window_limits_a_rule() {
        assert_eq!(ask(Vec::new()), "unmentioned");
        let mut windowed = rule(RuleEffect::Allow, "cmd_invoke/ping", "a/alice", "b/r1");
        assert_eq!(ask(vec![windowed.clone()]), "allowed");
        windowed.not_after = Some(Wall(5));
        assert_eq!(ask(vec![windowed.clone()]), "unmentioned");
        windowed.not_after = Some(Wall(6));
        windowed.not_before = Some(Wall(6));
        assert_eq!(ask(vec![windowed]), "unmentioned");
    }
}
