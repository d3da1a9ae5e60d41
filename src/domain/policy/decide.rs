//! The matcher: one question, one verdict. Preflight, dispatch and the target all call this function.

use crate::domain::action::Action;
use crate::domain::id::RuntimeId;
use crate::domain::identity::Actor;
use crate::domain::policy::{Policy, Rule, RuleEffect, actor_name};
use crate::domain::time::Wall;

/// Which of the two lists is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// `accept_write`, at the target.
    Inbound,
    /// `allow_write`, at the origin.
    Outbound,
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
        let rules = match side {
            Side::Inbound => &self.accept_write,
            Side::Outbound => &self.allow_write,
        };
        let matching = |effect| rules.iter().find(|rule| rule.effect == effect && rule.speaks_of(question));
        match (matching(RuleEffect::Deny), matching(RuleEffect::Allow)) {
            (Some(rule), _) => Verdict::Denied(rule),
            (None, Some(rule)) => Verdict::Allowed(rule),
            (None, None) => Verdict::Unmentioned,
        }
    }
}

impl Rule {
    fn speaks_of(&self, question: Question<'_>) -> bool {
        let Question { actor, action, target, now } = question;
        let action_matches = self.action.matches(action.kind().as_str())
            || action
                .command()
                .is_some_and(|command| self.action.matches(&format!("{}/{command}", action.kind().as_str())));
        action_matches
            && self.actor.matches(&actor_name(actor))
            && self.target.matches(&target.to_string())
            && self.not_before.is_none_or(|limit| limit <= now)
            && self.not_after.is_none_or(|limit| now < limit)
            && self.params.iter().all(|(name, value)| action.parameter(name).as_deref() == Some(value))
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
        fn a_further_deny_never_allows(rules in prop::collection::vec(any_rule(), 0..6)) {
            let mut stricter = rules.clone();
            stricter.push(rule(RuleEffect::Deny, "*", "*", "*"));
            prop_assert_eq!(ask(stricter), "denied");
            let _ = rules;
        }
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
