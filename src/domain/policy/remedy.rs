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
    /// Whatever this parameter is.
    WithoutParam(String),
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
    /// A further rule, for exactly this question.
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
            Self::WithoutParam(name) => rule.params.retain(|(it, _)| it != name),
        }
    }
}

/// Which way to take where no rule allows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Change one field of a rule, which opens it for more than this question.
    Change,
    /// Add a rule for exactly this question.
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
        Change::WithoutParam(_) => 2,
    });
    let (rule, to) = changes.into_iter().next()?;
    Some(Step::Change { rule: rule.id.clone(), to })
}

/// The field with which the rule would speak of the question, if it is only one.
fn only_change(rule: &Rule, question: Question<'_>) -> Option<Change> {
    let mut failing = rule.failing(question);
    let (condition, None) = (failing.next()?, failing.next()) else { return None };
    match condition {
        Condition::Action => rule.action.widened_to(&action_name(question.action)).map(Change::Action),
        Condition::Actor => rule.actor.widened_to(&actor_name(question.actor)).map(Change::Actor),
        Condition::Target => rule.target.widened_to(&question.target.to_string()).map(Change::Target),
        Condition::NotBefore => Some(Change::NotBefore(question.now)),
        Condition::NotAfter => Some(Change::NotAfter(question.now.plus(WINDOW_MORE))),
        Condition::Param(name) => Some(Change::WithoutParam(name.to_owned())),
    }
}

/// A rule for exactly this question at one end. Parameters that a rule cannot name are left out.
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
    let named = match action {
        Action::StatusRead => Vec::new(),
        Action::CfgApply(values) => values.iter().map(|(name, value)| (name.clone(), value.to_string())).collect(),
        Action::CmdInvoke(invocation) => invocation.params.clone().into_iter().collect(),
    };
    named.into_iter().filter(|(name, json)| !name.is_empty() && is_nameable(json)).collect()
}

/// Whether a rule can name the value: a boolean, a whole number, or a text that needs no escape.
fn is_nameable(json: &str) -> bool {
    let text = json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    match text {
        Some(text) => Value::Text(text.to_owned()).to_string() == json && !text.is_empty() && !text.contains('\\'),
        None => matches!(json, "true" | "false") || json.parse::<i64>().is_ok_and(|number| number.to_string() == json),
    }
}

pub(super) const fn question(case: Case<'_>) -> Question<'_> {
    Question { actor: &case.asker.actor, action: case.action, target: case.target, now: case.now }
}
