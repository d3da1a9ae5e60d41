//! What would have to change for a denied question to be allowed: the smallest change, tried before it is offered.

use crate::domain::action::Action;
use crate::domain::config::Value;
use crate::domain::identity::Role;
use crate::domain::policy::{
    Condition, Denial, Pattern, Policy, Question, Rule, RuleEffect, Side, action_name, actor_name,
};
use crate::domain::preflight::{self, Case};
use crate::domain::time::{Millis, Wall};

/// How far a window that has closed is opened beyond the moment of the question.
const WINDOW_MORE: Millis = Millis::from_hours(1);

/// Most steps of one remedy: a role, the denies, a rule.
const STEPS_MAX: usize = 3;

/// One field of one rule with another value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Another set of actions.
    Action(Pattern),
    /// Another set of actors.
    Actor(Pattern),
    /// Another set of targets.
    Target(Pattern),
    /// An earlier first moment.
    NotBefore(Wall),
    /// A later last moment.
    NotAfter(Wall),
}

/// One step towards being allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The asker needs this role.
    RaiseRole(Role),
    /// These rules deny it, whatever else is written.
    DropDenies(Vec<String>),
    /// One field of a rule.
    Change {
        /// The rule's name.
        rule: String,
        /// The field.
        to: Change,
    },
    /// A further rule, for exactly this question where a rule can say it: see [`unnameable`].
    Add(Rule),
}

/// Steps that together allow it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remedy {
    /// In the order in which the checks ask for them.
    pub steps: Vec<Step>,
}

impl Step {
    /// Takes the step.
    pub fn apply(&self, policy: &mut Policy, side: Side, role: &mut Role) {
        let rules = policy.rules_mut(side);
        match self {
            Self::RaiseRole(least) => *role = *least,
            Self::DropDenies(names) => rules.retain(|rule| !names.contains(&rule.id)),
            Self::Add(rule) => rules.push(rule.clone()),
            Self::Change { rule: name, to } => {
                if let Some(rule) = rules.iter_mut().find(|rule| rule.id == *name) {
                    to.apply(rule);
                }
            }
        }
    }
}

impl Change {
    fn apply(&self, rule: &mut Rule) {
        match self {
            Self::Action(pattern) => rule.action = pattern.clone(),
            Self::Actor(pattern) => rule.actor = pattern.clone(),
            Self::Target(pattern) => rule.target = pattern.clone(),
            Self::NotBefore(moment) => rule.not_before = Some(*moment),
            Self::NotAfter(moment) => rule.not_after = Some(*moment),
        }
    }
}

/// Which way to take where no rule allows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Change one field of a rule, which opens it for more than this question.
    Change,
    /// Add a rule of its own for this question.
    Add,
}

/// The ways to have it allowed at this end, the smallest edit first: one field of one rule where that is enough, and a
/// rule of its own. An error is what no rule can allow.
pub(super) fn remedies(case: Case<'_>, side: Side) -> Result<Vec<Remedy>, Denial> {
    let add = find(case, side, Way::Add)?;
    let change = find(case, side, Way::Change)?;
    Ok(if change == add { vec![add] } else { vec![change, add] })
}

/// Takes step after step, each time asking the function that also decides, until it allows.
fn find(case: Case<'_>, side: Side, way: Way) -> Result<Remedy, Denial> {
    let (mut policy, mut asker) = (case.policy.clone(), case.asker.clone());
    let mut steps = Vec::new();
    loop {
        let changed = Case { policy: &policy, asker: &asker, ..case };
        let step = match preflight::authorize(changed, side) {
            Ok(_) => return Ok(Remedy { steps }),
            Err(denial) if steps.len() == STEPS_MAX => return Err(denial),
            Err(denial) => next_step(changed, side, way).ok_or(denial)?,
        };
        step.apply(&mut policy, side, &mut asker.role);
        steps.push(step);
    }
}

fn next_step(case: Case<'_>, side: Side, way: Way) -> Option<Step> {
    if !preflight::has_role(case, side.stage()) {
        return Some(Step::RaiseRole(preflight::least_role(case)));
    }
    let question = question(case);
    let rules = case.policy.rules(side);
    let speaking = |effect| rules.iter().filter(move |rule| rule.effect == effect && rule.speaks_of(question));
    let denies: Vec<_> = speaking(RuleEffect::Deny).map(|rule| rule.id.clone()).collect();
    if !denies.is_empty() {
        return Some(Step::DropDenies(denies));
    }
    if speaking(RuleEffect::Allow).next().is_some() || preflight::is_ruled_by_role(case, side) {
        // What still denies are the parameters, and they are no business of the rules.
        return None;
    }
    let change = match way {
        Way::Change => smallest_change(rules, question),
        Way::Add => None,
    };
    Some(change.unwrap_or_else(|| Step::Add(exact_rule(case, side))))
}

/// The first rule that lacks one field only; those whose window is closed before those that name somebody else.
fn smallest_change(rules: &[Rule], question: Question<'_>) -> Option<Step> {
    let allows = rules.iter().filter(|rule| rule.effect == RuleEffect::Allow);
    let mut changes: Vec<_> = allows.filter_map(|rule| Some((rule, only_change(rule, question)?))).collect();
    changes.sort_by_key(|(_, change)| match change {
        Change::NotBefore(_) | Change::NotAfter(_) => 0,
        Change::Action(_) | Change::Actor(_) | Change::Target(_) => 1,
    });
    let (rule, to) = changes.into_iter().next()?;
    Some(Step::Change { rule: rule.id.clone(), to })
}

/// The field with which the rule would speak of the question, if it is only one. Never its parameters: with others it would not
/// speak any more of what it was written for, and without any it would take whatever comes.
fn only_change(rule: &Rule, question: Question<'_>) -> Option<Change> {
    let mut failing = rule.failing(question);
    let (condition, None) = (failing.next()?, failing.next()) else { return None };
    match condition {
        Condition::Action => rule.action.widened_to(&action_name(question.action)).map(Change::Action),
        Condition::Actor => rule.actor.widened_to(&actor_name(question.actor)).map(Change::Actor),
        Condition::Target => rule.target.widened_to(&question.target.to_string()).map(Change::Target),
        Condition::NotBefore => Some(Change::NotBefore(question.now)),
        Condition::NotAfter => Some(Change::NotAfter(question.now.plus(WINDOW_MORE))),
        Condition::Param(_) | Condition::Unnamed(_) => None,
    }
}

/// A rule for exactly this question at one end. It names all parameters or, where there is none or a rule cannot name one of
/// them, none: a rule that names some takes no others.
pub(super) fn exact_rule(case: Case<'_>, side: Side) -> Rule {
    #[expect(clippy::expect_used, reason = "names of actions, actors and runtimes are patterns of themselves")]
    let pattern = |text: String| text.parse().expect("a name is a pattern");
    Rule {
        id: format!("{}[{}]", side.list(), case.policy.rules(side).len()),
        effect: RuleEffect::Allow,
        action: pattern(action_name(case.action)),
        actor: pattern(actor_name(&case.asker.actor)),
        target: pattern(case.target.to_string()),
        params: params(case.action),
        not_before: None,
        not_after: None,
        reason: None,
    }
}

fn params(action: &Action) -> Vec<(String, String)> {
    if !unnameable(action).is_empty() {
        return Vec::new();
    }
    action.parameter_names().filter_map(|name| Some((name.to_owned(), action.parameter(name)?))).collect()
}

/// The parameters that no rule can name as they are here, because a rule cannot write their values. A rule that is to allow
/// them can only take any parameters.
pub fn unnameable(action: &Action) -> Vec<&str> {
    let can_be_named = |name: &str| !name.is_empty() && action.parameter(name).is_some_and(|json| is_nameable(&json));
    action.parameter_names().filter(|name| !can_be_named(name)).collect()
}

/// Whether a rule can name the value: a boolean, a whole number, or a text that needs no escape.
fn is_nameable(json: &str) -> bool {
    let text = json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    match text {
        // With an escape in it, it is not written as it reads.
        Some(text) => Value::Text(text.to_owned()).to_string() == json && !text.is_empty(),
        None => matches!(json, "true" | "false") || json.parse::<i64>().is_ok_and(|number| number.to_string() == json),
    }
}

pub(super) const fn question(case: Case<'_>) -> Question<'_> {
    Question { actor: &case.asker.actor, action: case.action, target: case.target, now: case.now }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::domain::id::RuntimeId;
    use crate::domain::offer::Known;
    use crate::domain::preflight::{Asker, Profile};

    const NOW: Wall = Wall(5);

    /// An administrator of site a asks for something at site b.
    struct Asked {
        asker: Asker,
        action: Action,
        target: RuntimeId,
        origin: RuntimeId,
        policy: Policy,
    }

    fn asked(action: Action, rules: Vec<Rule>) -> Asked {
        let actor = "spiffe://trust/a/alice".parse().expect("legal");
        Asked {
            asker: Asker { actor, role: Role::Admin, is_verified: true },
            action,
            target: "b/r1".parse().expect("legal"),
            origin: "a/r1".parse().expect("legal"),
            policy: Policy { allow_write: rules, accept_write: Vec::new() },
        }
    }

    impl Asked {
        fn case(&self) -> Case<'_> {
            let Self { asker, action, target, origin, policy } = self;
            Case { asker, action, target, origin, policy, profile: Profile::Dev, offer: Known::Nothing, now: NOW }
        }
    }

    fn pattern(text: &str) -> Pattern {
        text.parse().expect("legal")
    }

    fn allow(id: &str, action: &str, actor: &str, target: &str) -> Rule {
        Rule {
            id: id.to_owned(),
            effect: RuleEffect::Allow,
            action: pattern(action),
            actor: pattern(actor),
            target: pattern(target),
            params: Vec::new(),
            not_before: None,
            not_after: None,
            reason: None,
        }
    }

    fn bound(params: &[(&str, &str)]) -> Rule {
        let params = params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Rule { params, ..allow("bound", "cmd_invoke/ping", "a/alice", "b/r1") }
    }

    fn start() -> Action {
        let params = BTreeMap::from([("n".to_owned(), "1".to_owned())]);
        Action::cmd_invoke("ping", params).expect("legal")
    }

    #[test]
    fn a_rule_that_lacks_one_field_is_changed_in_that_field_alone() {
        let whole = || allow("it", "cmd_invoke/ping", "a/alice", "b/r1");
        for (rule, to) in [
            (allow("it", "cmd_invoke/stop", "a/alice", "b/r1"), Change::Action(pattern("cmd_invoke/*"))),
            (allow("it", "cmd_invoke/ping", "a/bob", "b/r1"), Change::Actor(pattern("a/*"))),
            (allow("it", "cmd_invoke/ping", "a/alice", "b/r2"), Change::Target(pattern("b/*"))),
            (Rule { not_before: Some(Wall(6)), ..whole() }, Change::NotBefore(NOW)),
            (Rule { not_after: Some(NOW), ..whole() }, Change::NotAfter(NOW.plus(WINDOW_MORE))),
        ] {
            let asked = asked(start(), vec![rule]);
            let change = Remedy { steps: vec![Step::Change { rule: "it".to_owned(), to }] };
            let add = Remedy { steps: vec![Step::Add(exact_rule(asked.case(), Side::Outbound))] };
            assert_eq!(remedies(asked.case(), Side::Outbound), Ok(vec![change, add]));
        }
    }

    #[test]
    fn where_no_rule_is_near_there_is_one_way_only() {
        for rule in [
            allow("it", "cfg_apply", "a/bob", "b/r1"),
            // One field, but of another site or kind of action.
            allow("it", "cmd_invoke/ping", "c/alice", "b/r1"),
            allow("it", "cfg_apply", "a/alice", "b/r1"),
            // One parameter, of which nothing is changed: another value, one more than the action has, one less.
            bound(&[("n", "2")]),
            bound(&[("n", "1"), ("m", "1")]),
            bound(&[("m", "1")]),
        ] {
            let asked = asked(start(), vec![rule]);
            let add = Remedy { steps: vec![Step::Add(exact_rule(asked.case(), Side::Outbound))] };
            assert_eq!(remedies(asked.case(), Side::Outbound), Ok(vec![add]));
        }
    }

    #[test]
    fn a_window_is_opened_before_a_name_is_widened_and_parameters_are_left_as_they_are() {
        let late = Rule { not_after: Some(NOW), ..allow("late", "*", "a/alice", "b/r1") };
        let other = allow("other", "*", "a/alice", "b/r2");
        let bound = || bound(&[("n", "2")]);
        for (rules, first) in [(vec![bound(), other.clone(), late], "late"), (vec![bound(), other], "other")] {
            let asked = asked(start(), rules);
            let step = next_step(asked.case(), Side::Outbound, Way::Change);
            assert!(matches!(&step, Some(Step::Change { rule, .. }) if rule == first), "{step:?}");
        }
        let asked = asked(start(), vec![bound()]);
        let step = next_step(asked.case(), Side::Outbound, Way::Change);
        assert_eq!(step, Some(Step::Add(exact_rule(asked.case(), Side::Outbound))));
    }

    #[test]
    fn no_rule_is_offered_for_parameters_that_no_rule_can_allow() {
        let shouting = BTreeMap::from([("log.level".to_owned(), Value::Text("shouting".to_owned()))]);
        let asked = asked(Action::CfgApply(shouting), vec![allow("all", "*", "*", "*")]);
        assert_eq!(next_step(asked.case(), Side::Outbound, Way::Add), None);
        assert!(remedies(asked.case(), Side::Outbound).is_err());
    }

    /// Of two rules of one name the first is changed, though it was the second that lacked one field.
    #[test]
    fn the_search_ends_though_its_changes_change_nothing() {
        let far = allow("it", "cfg_apply", "c/carol", "b/r1");
        let near = allow("it", "cmd_invoke/ping", "a/alice", "b/r2");
        let asked = asked(start(), vec![far, near]);
        assert!(find(asked.case(), Side::Outbound, Way::Change).is_err());
        assert!(find(asked.case(), Side::Outbound, Way::Add).is_ok());
    }

    #[test]
    fn a_rule_for_one_question_names_all_parameters_or_none() {
        let named = [r#""warn""#, r#""two words""#, "true", "false", "0", "-7"];
        let unnamed = [r#""""#, r#""a\"b""#, r#""a\\b""#, "1.5", "-0", "007", "null", "[1]", "{}", "\"", ""];
        let value = |json: &&str| {
            params(&Action::cmd_invoke("ping", [("p".to_owned(), (*json).to_owned())].into()).expect("legal"))
        };
        for json in &named {
            assert_eq!(value(json), [("p".to_owned(), (*json).to_owned())], "{json}");
        }
        for json in &unnamed {
            assert_eq!(value(json), [], "{json}");
        }
        let nameless = Action::cmd_invoke("ping", [(String::new(), "1".to_owned())].into()).expect("legal");
        assert_eq!(params(&nameless), []);
        let level = BTreeMap::from([("log.level".to_owned(), Value::Text("warn".to_owned()))]);
        assert_eq!(params(&Action::CfgApply(level)), [("log.level".to_owned(), r#""warn""#.to_owned())]);
        assert_eq!(params(&Action::StatusRead), []);
        let both = [("n".to_owned(), "1".to_owned()), ("list".to_owned(), "[1]".to_owned())].into();
        let both = Action::cmd_invoke("ping", both).expect("legal");
        assert_eq!((params(&both), unnameable(&both)), (Vec::new(), vec!["list"]));
        assert!(unnameable(&start()).is_empty());
    }
}
