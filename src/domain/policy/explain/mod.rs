//! Why the rules answer as they do: which rule decides, what the others lack, and the smallest change that would allow it.
//!
//! The decision itself is [`preflight::authorize`], which preflight, dispatch and the target ask; nothing here decides. Who
//! is up and how secure the way is are no matter of rules and stay out of it.

use std::borrow::Cow;

use crate::domain::policy::remedy::{exact_rule, question, remedies};
use crate::domain::policy::{Condition, Denial, Remedy, Rule, Side, Verdict, action_name, actor_name};
use crate::domain::preflight::{self, Case};
use crate::domain::time::Wall;

/// One end's answer with its reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation<'a> {
    /// Which end.
    pub side: Side,
    /// The decision: the rule or grant that allows, or the denial.
    pub outcome: Result<Cow<'static, str>, Denial>,
    /// The rule that decides; absent where the role, the lack of a rule or the parameters do.
    pub decides: Option<&'a Rule>,
    /// Every rule that does not speak of it, with what it lacks. Empty where the rules are not asked.
    pub near_misses: Vec<NearMiss<'a>>,
    /// The ways to have it allowed, the smallest edit first. Empty where it is allowed, or where no rule can allow it.
    pub remedies: Vec<Remedy>,
    /// What would still deny it if every rule allowed it.
    pub hopeless: Option<Denial>,
}

/// A rule that does not speak of the question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NearMiss<'a> {
    /// The rule.
    pub rule: &'a Rule,
    /// Every condition that failed, at least one.
    pub misses: Vec<Miss<'a>>,
}

/// One condition that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Miss<'a> {
    /// Which.
    pub condition: Condition<'a>,
    /// What the rule wants.
    pub wanted: Term,
    /// What the question has.
    pub got: Term,
}

/// One side of a comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Term {
    /// A pattern, a name, or a parameter's value as JSON.
    Text(String),
    /// A point of time.
    Moment(Wall),
    /// Nothing.
    Absent,
}

/// Explains what one end decides.
pub fn explain(case: Case<'_>, side: Side) -> Explanation<'_> {
    let outcome = preflight::authorize(case, side);
    let is_read = case.action.kind().is_read();
    let (remedies, hopeless) = match (&outcome, remedies(case, side)) {
        (Ok(_), _) => (Vec::new(), None),
        (Err(_), Ok(remedies)) => (remedies, None),
        (Err(_), Err(denial)) => (Vec::new(), Some(denial)),
    };
    let near_misses = if is_read { Vec::new() } else { near_misses(case, side) };
    Explanation { side, decides: deciding_rule(case, side, &outcome), outcome, near_misses, remedies, hopeless }
}

/// The rule that the other end of a write between sites must have, and the list it belongs into. This end cannot see it.
pub fn wanted_elsewhere(case: Case<'_>, side: Side) -> Option<(Side, Rule)> {
    let other = match side {
        Side::Inbound => Side::Outbound,
        Side::Outbound => Side::Inbound,
    };
    let is_between_sites = preflight::is_cross_site(case) && !case.action.kind().is_read();
    is_between_sites.then(|| (other, exact_rule(case, other)))
}

fn deciding_rule<'a>(case: Case<'a>, side: Side, outcome: &Result<Cow<'static, str>, Denial>) -> Option<&'a Rule> {
    if case.action.kind().is_read() || !preflight::has_role(case, side.stage()) {
        return None;
    }
    match (case.policy.ask(side, question(case)), outcome) {
        (Verdict::Denied(rule), Err(_)) | (Verdict::Allowed(rule), Ok(_)) => Some(rule),
        (Verdict::Denied(_), Ok(_)) | (Verdict::Allowed(_), Err(_)) | (Verdict::Unmentioned, _) => None,
    }
}

fn near_misses(case: Case<'_>, side: Side) -> Vec<NearMiss<'_>> {
    case.policy.rules(side).iter().filter_map(|rule| near_miss(rule, case)).collect()
}

fn near_miss<'a>(rule: &'a Rule, case: Case<'a>) -> Option<NearMiss<'a>> {
    let miss = |condition| Miss { condition, wanted: wanted(rule, condition), got: got(case, condition) };
    let misses: Vec<_> = rule.failing(question(case)).map(miss).collect();
    (!misses.is_empty()).then_some(NearMiss { rule, misses })
}

fn wanted(rule: &Rule, condition: Condition<'_>) -> Term {
    let moment = |moment: Option<Wall>| moment.map_or(Term::Absent, Term::Moment);
    match condition {
        Condition::Action => Term::Text(rule.action.to_string()),
        Condition::Actor => Term::Text(rule.actor.to_string()),
        Condition::Target => Term::Text(rule.target.to_string()),
        Condition::NotBefore => moment(rule.not_before),
        Condition::NotAfter => moment(rule.not_after),
        Condition::Param(name) => {
            let value = rule.params.iter().find(|(it, _)| it == name);
            value.map_or(Term::Absent, |(_, value)| Term::Text(value.clone()))
        }
        Condition::Unnamed(_) => Term::Absent,
    }
}

fn got(case: Case<'_>, condition: Condition<'_>) -> Term {
    match condition {
        Condition::Action => Term::Text(action_name(case.action)),
        Condition::Actor => Term::Text(actor_name(&case.asker.actor)),
        Condition::Target => Term::Text(case.target.to_string()),
        Condition::NotBefore | Condition::NotAfter => Term::Moment(case.now),
        Condition::Param(name) | Condition::Unnamed(name) => {
            case.action.parameter(name).map_or(Term::Absent, Term::Text)
        }
    }
}

#[cfg(test)]
mod tests;
