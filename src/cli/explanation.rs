//! An explanation of the rules for people and for scripts.

use std::fmt::Write;

use serde_json::{Value as Json, json};

use crate::domain::action::Action;
use crate::domain::policy::explain::{Explanation, Miss, NearMiss, Term};
use crate::domain::policy::{Condition, Remedy, Rule, RuleEffect, Side, Step, unnameable};
use crate::domain::preflight::{Asker, Case};
use crate::settings::{ListForm, Place, Reading, change_text, moment_text, rule_text};

/// Near misses shown to people: the nearest; scripts are given all.
const NEAR_MISSES_SHOWN: usize = 5;

/// The rule that the other end must have, and its list.
type Elsewhere = (Side, Rule);

/// A value as it was typed: a number and true or false are taken as such, all else as text.
pub(crate) fn typed(text: &str) -> Json {
    match serde_json::from_str(text) {
        Ok(json @ (Json::Bool(_) | Json::Number(_))) => json,
        Ok(_) | Err(_) => Json::from(text),
    }
}

/// A place for scripts.
pub(crate) fn place(place: &Place) -> Json {
    json!({ "file": place.file, "line": place.line, "column": place.column })
}

/// The explanation for scripts.
pub(crate) fn to_json(
    explained: &Explanation<'_>,
    elsewhere: Option<&Elsewhere>,
    case: Case<'_>,
    reading: &Reading,
) -> Json {
    let at = At { side: explained.side, reading, action: case.action };
    let mut answer = json!({
        "side": explained.side.as_str(),
        "list": explained.side.list(),
        "role": case.asker.role.as_str(),
        "allowed": explained.outcome.is_ok(),
        "near_misses": explained.near_misses.iter().map(|near| at.near_miss(near)).collect::<Vec<_>>(),
        "remedies": explained.remedies.iter().map(|remedy| at.remedy(remedy)).collect::<Vec<_>>(),
    });
    let mut put = |name: &str, value: Option<Json>| {
        if let (Some(fields), Some(value)) = (answer.as_object_mut(), value) {
            fields.insert(name.to_owned(), value);
        }
    };
    put(
        "rule",
        Some(Json::from(match &explained.outcome {
            Ok(rule) => rule.as_ref(),
            Err(denial) => denial.rule.as_ref(),
        })),
    );
    put("place", explained.decides.and_then(|rule| at.place_of(&rule.id)).map(place));
    if let Err(denial) = &explained.outcome {
        put("code", Some(Json::from(denial.code.as_str())));
        put("reason", Some(Json::from(denial.reason.to_string())));
        put("stage", Some(Json::from(denial.stage.as_str())));
    }
    put("hopeless", explained.hopeless.as_ref().map(|denial| Json::from(denial.reason.to_string())));
    put("elsewhere", elsewhere.map(|(side, rule)| Json::from_iter(at.offered(rule, *side, ListForm::Tables))));
    answer
}

/// The explanation for people. What the file says cannot steer the terminal.
pub(crate) fn to_text(
    explained: &Explanation<'_>,
    elsewhere: Option<&Elsewhere>,
    case: Case<'_>,
    reading: &Reading,
) -> Result<String, std::fmt::Error> {
    let at = At { side: explained.side, reading, action: case.action };
    let mut text = String::new();
    at.write(&mut text, explained, elsewhere, case.asker)?;
    Ok(text.chars().map(|it| if it.is_control() && it != '\n' { '\u{fffd}' } else { it }).collect())
}

/// One list of the file.
#[derive(Clone, Copy)]
struct At<'a> {
    side: Side,
    reading: &'a Reading,
    /// What is asked for.
    action: &'a Action,
}

impl<'a> At<'a> {
    fn place_of(self, id: &str) -> Option<&'a Place> {
        let rules = self.reading.settings.policy.rules(self.side);
        self.reading.place(self.side, rules.iter().position(|rule| rule.id == id)?)
    }

    /// A rule's name with its place.
    fn named(self, id: &str) -> String {
        match self.place_of(id) {
            Some(place) => format!("{id} ({place})"),
            None => id.to_owned(),
        }
    }

    fn near_miss(self, near: &NearMiss<'_>) -> Json {
        let misses = near.misses.iter().map(
            |miss| json!({ "field": field(miss.condition), "wanted": shown(&miss.wanted), "got": shown(&miss.got) }),
        );
        json!({
            "rule": near.rule.id,
            "effect": effect(near.rule),
            "place": self.place_of(&near.rule.id).map(place),
            "failed": misses.collect::<Vec<_>>(),
        })
    }

    fn remedy(self, remedy: &Remedy) -> Json {
        Json::from(remedy.steps.iter().map(|step| self.step(step)).collect::<Vec<_>>())
    }

    fn step(self, step: &Step) -> Json {
        match step {
            Step::RaiseRole(role) => json!({ "step": "raise_role", "role": role.as_str() }),
            Step::DropDenies(rules) => {
                let rules = rules.iter().map(|id| json!({ "rule": id, "place": self.place_of(id).map(place) }));
                json!({ "step": "drop_denies", "rules": rules.collect::<Vec<_>>() })
            }
            Step::Change { rule, to } => json!({
                "step": "change", "rule": rule, "place": self.place_of(rule).map(place), "field": change_text(to),
            }),
            Step::Add(rule) => {
                let step = ("step".to_owned(), Json::from("add"));
                Json::from_iter(self.offered(rule, self.side, self.reading.form(self.side)).into_iter().chain([step]))
            }
        }
    }

    /// A rule to write, where, and whether it opens more than was asked for.
    fn offered(self, rule: &Rule, side: Side, form: ListForm) -> [(String, Json); 4] {
        [
            ("list", Json::from(side.list())),
            ("toml", Json::from(rule_text(rule, side, form))),
            ("takes_any_params", Json::from(rule.params.is_empty())),
            ("cannot_name", Json::from(unnameable(self.action))),
        ]
        .map(|(name, value)| (name.to_owned(), value))
    }

    /// What a rule that names no parameter opens beside what was asked for.
    fn write_params(self, text: &mut String, rule: &Rule) -> std::fmt::Result {
        match unnameable(self.action).as_slice() {
            _ if !rule.params.is_empty() => Ok(()),
            [] => writeln!(text, "  it names no parameter, so it takes any"),
            names => {
                let names = names.join(", ");
                writeln!(text, "  it names no parameter, so it takes any: no rule can write the value of {names}")
            }
        }
    }

    fn write(
        self,
        text: &mut String,
        explained: &Explanation<'_>,
        elsewhere: Option<&Elsewhere>,
        asker: &Asker,
    ) -> std::fmt::Result {
        let (side, list) = (self.side.as_str(), self.side.list());
        match &explained.outcome {
            Ok(rule) => writeln!(text, "{side}: allowed by {}", self.named(rule))?,
            Err(denial) => {
                let rule = self.named(&denial.rule);
                writeln!(text, "{side}: denied by {rule}: {}: {}", denial.code, denial.reason)?;
            }
        }
        if let Some(place) = explained.decides.and_then(|rule| self.place_of(&rule.id)) {
            text.push_str(&place.excerpt());
        }
        if explained.outcome.is_err() {
            self.write_near_misses(text, explained)?;
        }
        for (index, remedy) in explained.remedies.iter().enumerate() {
            writeln!(
                text,
                "{}",
                if index == 0 { "smallest change that allows it:" } else { "or, by a rule of its own:" }
            )?;
            remedy.steps.iter().try_for_each(|step| self.write_step(text, step, asker))?;
        }
        if let Some(denial) = &explained.hopeless {
            writeln!(text, "no rule in {list} can allow it: {}: {}", denial.code, denial.reason)?;
        }
        let Some((other, rule)) = elsewhere else { return Ok(()) };
        writeln!(text, "the other site decides too; its file must have a rule such as:")?;
        indent(text, &rule_text(rule, *other, ListForm::Tables))?;
        self.write_params(text, rule)
    }

    fn write_near_misses(self, text: &mut String, explained: &Explanation<'_>) -> std::fmt::Result {
        let allows = explained.near_misses.iter().filter(|near| near.rule.effect == RuleEffect::Allow);
        let mut nearest: Vec<_> = allows.collect();
        nearest.sort_by_key(|near| near.misses.len());
        for near in nearest.iter().take(NEAR_MISSES_SHOWN) {
            let misses: Vec<_> = near.misses.iter().map(miss).collect();
            writeln!(text, "near miss: {}: {}", self.named(&near.rule.id), misses.join("; "))?;
            text.push_str(&self.place_of(&near.rule.id).map(Place::excerpt).unwrap_or_default());
        }
        match nearest.len().saturating_sub(NEAR_MISSES_SHOWN) {
            0 => Ok(()),
            more => writeln!(text, "{more} further rules do not speak of it; --json shows all"),
        }
    }

    fn write_step(self, text: &mut String, step: &Step, asker: &Asker) -> std::fmt::Result {
        match step {
            Step::RaiseRole(role) => {
                let found = format!("{} counts as {} here", asker.actor, asker.role);
                writeln!(text, "  a credential of the role {role}, and a grant that does not lower it: {found}")
            }
            Step::DropDenies(rules) => {
                let rules: Vec<_> = rules.iter().map(|id| self.named(id)).collect();
                writeln!(text, "  take out what denies it, whatever else is written: {}", rules.join(", "))
            }
            Step::Change { rule, to } => {
                writeln!(
                    text,
                    "  in {}: {}, which opens it for more than this question",
                    self.named(rule),
                    change_text(to)
                )
            }
            Step::Add(rule) => {
                let form = self.reading.form(self.side);
                let whereto = match form {
                    ListForm::Inline => format!("to {}", self.side.list()),
                    ListForm::Tables => "to the end of the file".to_owned(),
                };
                writeln!(text, "  add {whereto}:")?;
                indent(text, &rule_text(rule, self.side, form))?;
                self.write_params(text, rule)
            }
        }
    }
}

fn indent(text: &mut String, lines: &str) -> std::fmt::Result {
    lines.lines().try_for_each(|line| writeln!(text, "    {line}"))
}

fn miss(miss: &Miss<'_>) -> String {
    if let Condition::Unnamed(name) = miss.condition {
        return format!("params does not name {name}, got {}", shown(&miss.got));
    }
    format!("{} wanted {}, got {}", field(miss.condition), shown(&miss.wanted), shown(&miss.got))
}

fn field(condition: Condition<'_>) -> String {
    match condition {
        Condition::Action => "action".to_owned(),
        Condition::Actor => "actor".to_owned(),
        Condition::Target => "target".to_owned(),
        Condition::NotBefore => "not_before".to_owned(),
        Condition::NotAfter => "not_after".to_owned(),
        Condition::Param(name) | Condition::Unnamed(name) => format!("params.{name}"),
    }
}

fn shown(term: &Term) -> String {
    match term {
        Term::Text(text) => text.clone(),
        Term::Moment(moment) => moment_text(*moment),
        Term::Absent => "nothing".to_owned(),
    }
}

const fn effect(rule: &Rule) -> &'static str {
    match rule.effect {
        RuleEffect::Allow => "allow",
        RuleEffect::Deny => "deny",
    }
}
