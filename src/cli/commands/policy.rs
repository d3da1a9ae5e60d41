//! `policy`: why the rules of a project answer as they do. Needs no running node and touches nothing.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use crate::cli::args::{AskedSide, Explain, Policy};
use crate::cli::exit::{Exit, Failure};
use crate::cli::explanation::{self, place};
use crate::cli::{environment, output};
use crate::domain::action::{Action, ActionKind};
use crate::domain::id::RuntimeId;
use crate::domain::offer::{Known, Offer};
use crate::domain::policy::explain::{explain, wanted_elsewhere};
use crate::domain::policy::{Side, granted_role};
use crate::domain::preflight::{Asker, Case, Profile};
use crate::domain::time::Wall;
use crate::node::clock::Clock;
use crate::settings::{self, Reading, Settings, Unmet};
use crate::wire::value;

/// Explains or tests.
pub fn run(command: &Policy) -> Result<(), Failure> {
    match command {
        Policy::Explain(command) => explain_one(command),
        Policy::Test { project, json } => test(&read(project)?, *json),
    }
}

/// A file whose own tests fail is read all the same: why they fail is what is asked.
fn read(project: &std::path::Path) -> Result<Reading, Failure> {
    let reading = settings::read_project(project, environment(), Unmet::Report);
    reading.map_err(|problems| Failure::new(Exit::Configuration, problems.to_string()))
}

/// The question as it was typed, understood.
struct Question {
    asker: Asker,
    action: Action,
    target: RuntimeId,
    now: Wall,
}

/// What the file says of the target's commands: those of another runtime, its own file declares.
fn offered<'a>(offer: &'a Offer, target: &RuntimeId, settings: &Settings) -> Known<'a> {
    if *target == settings.runtime_id { Known::Own(offer) } else { Known::Nothing }
}

fn explain_one(command: &Explain) -> Result<(), Failure> {
    let reading = read(&command.project)?;
    let settings = &reading.settings;
    let question = question(command, settings).map_err(|message| Failure::new(Exit::Usage, message))?;
    let sides = sides(command.side, &question, settings).map_err(|message| Failure::new(Exit::Usage, message))?;
    let offer = settings.offer();
    let mut answers = Vec::new();
    let mut denied = None;
    for side in sides {
        let asker = Asker { role: role_at(side, &question, settings), ..question.asker.clone() };
        let origin = origin_at(side, &question, settings);
        let case = Case {
            asker: &asker,
            action: &question.action,
            target: &question.target,
            origin: &origin,
            policy: &settings.policy,
            profile: profile(settings),
            offer: offered(&offer, &question.target, settings),
            now: question.now,
        };
        let explained = explain(case, side);
        let elsewhere = wanted_elsewhere(case, side);
        if denied.is_none() {
            denied = explained.outcome.clone().err();
        }
        if command.json {
            answers.push(explanation::to_json(&explained, elsewhere.as_ref(), case, &reading));
        } else {
            let text = explanation::to_text(&explained, elsewhere.as_ref(), case, &reading);
            output::line(text.map_err(|error| Failure::failed(error.to_string()))?.trim_end())?;
        }
    }
    if command.json {
        output::json(
            &json!({ "allowed": denied.is_none(), "at": settings::moment_text(question.now), "sides": answers }),
        )?;
    }
    match denied {
        None => Ok(()),
        Some(denial) => Err(Failure::new(Exit::Denied, format!("{}: {}", denial.code, denial.reason))),
    }
}

fn question(command: &Explain, settings: &Settings) -> Result<Question, String> {
    let named = |name: &'static str| move |message: String| format!("{name}: {message}");
    let actor = settings::actor(&command.actor, &settings.identity.trust_domain).map_err(named("--actor"))?;
    let role = command.role.parse().map_err(|error| format!("--role: {error}"))?;
    let target = match &command.target {
        Some(text) => RuntimeId::parse_in(text, settings.site()).map_err(|error| format!("--target: {error}"))?,
        None => settings.runtime_id.clone(),
    };
    let now = match &command.at {
        Some(text) => settings::moment(text)
            .ok_or_else(|| format!("--at: wanted a moment such as 2030-01-31T08:00:00Z, got {text:?}"))?,
        None => Clock::start().now().wall,
    };
    let action = action(&command.action, params(&command.params)?).map_err(named("--action"))?;
    Ok(Question { asker: Asker { actor, role, is_verified: true }, action, target, now })
}

fn params(texts: &[String]) -> Result<BTreeMap<String, Json>, String> {
    let mut params = BTreeMap::new();
    for text in texts {
        let (name, value) = text.split_once('=').ok_or_else(|| format!("--param: wanted NAME=VALUE, got {text:?}"))?;
        if params.insert(name.to_owned(), explanation::typed(value)).is_some() {
            return Err(format!("--param: {name} is given twice"));
        }
    }
    Ok(params)
}

fn action(text: &str, params: BTreeMap<String, Json>) -> Result<Action, String> {
    let (kind, command) = text.split_once('/').map_or((text, None), |(kind, command)| (kind, Some(command)));
    let kind: ActionKind = kind.parse().map_err(|error| format!("{error}"))?;
    if command.is_some() != (kind == ActionKind::CmdInvoke) {
        return Err(format!("wanted status_read, cfg_apply or cmd_invoke/<command>, got {text:?}"));
    }
    if kind == ActionKind::StatusRead && !params.is_empty() {
        return Err("status_read has no parameters".to_owned());
    }
    value::action(kind, command, params).map_err(|error| error.to_string())
}

/// Which ends this file decides, or the one that is asked for.
fn sides(asked: AskedSide, question: &Question, settings: &Settings) -> Result<Vec<Side>, String> {
    let is_own = question.target == settings.runtime_id;
    let is_guest = question.asker.actor.site != *settings.site();
    match asked {
        AskedSide::Outbound => Ok(vec![Side::Outbound]),
        AskedSide::Inbound if question.target.site == *settings.site() => Ok(vec![Side::Inbound]),
        AskedSide::Inbound => {
            Err(format!("--side: what comes in to {} is decided by that runtime's own file", question.target))
        }
        AskedSide::Both if !is_own => Ok(vec![Side::Outbound]),
        AskedSide::Both if is_guest => Ok(vec![Side::Inbound]),
        AskedSide::Both => Ok(Side::ALL.to_vec()),
    }
}

/// Nodes vouch for actors of their own site alone, so that what comes in was asked through a runtime of the actor's site.
fn origin_at(side: Side, question: &Question, settings: &Settings) -> RuntimeId {
    let own = settings.runtime_id.clone();
    match side {
        Side::Inbound => RuntimeId { site: question.asker.actor.site.clone(), ..own },
        Side::Outbound => own,
    }
}

/// At the target the file's grants bound the role that the origin asserts, and the origin is its own target too.
fn role_at(side: Side, question: &Question, settings: &Settings) -> crate::domain::identity::Role {
    let Asker { actor, role, .. } = &question.asker;
    let grants: Vec<_> = settings.identity.grants.iter().map(|grant| (grant.actor.clone(), grant.role)).collect();
    match side {
        Side::Inbound => granted_role(&grants, actor, *role, settings.site()),
        Side::Outbound if question.target == settings.runtime_id => {
            granted_role(&grants, actor, *role, settings.site())
        }
        Side::Outbound => *role,
    }
}

const fn profile(settings: &Settings) -> Profile {
    match settings.profile {
        settings::Profile::Dev => Profile::Dev,
        settings::Profile::Plant => Profile::Plant,
        settings::Profile::Wan => Profile::Wan,
    }
}

fn test(reading: &Reading, as_json: bool) -> Result<(), Failure> {
    let failed = reading.tests.iter().filter(|test| !test.is_met()).count();
    if as_json {
        let tests = reading.tests.iter().map(|test| {
            json!({
                "name": test.name, "place": place(&test.place), "side": test.side.as_str(), "question": test.question,
                "expect": test.expect, "got": test.got, "why": test.why, "ok": test.is_met(),
            })
        });
        output::json(&json!({ "ok": failed == 0, "tests": tests.collect::<Vec<_>>() }))?;
    } else {
        for test in &reading.tests {
            let verdict = if test.is_met() { "ok" } else { "FAILED" };
            let answer = format!("{} {}: {}", test.side.as_str(), test.question, test.got);
            output::line(&format!("{verdict:<6} {}: {answer}: {}", test.place, test.why))?;
            if !test.is_met() {
                output::line(&format!("       wanted {}\n{}", test.expect, test.place.excerpt().trim_end()))?;
            }
        }
        output::line(&format!("{} of {} tests hold", reading.tests.len().saturating_sub(failed), reading.tests.len()))?;
    }
    match failed {
        0 => Ok(()),
        count => Err(Failure::failed(format!("{count} of {} tests of the rules fail", reading.tests.len()))),
    }
}
