//! `[[runtime.cloud.wan.test]]`: the questions that a file asks of its own rules, and their answers.

use std::collections::BTreeMap;

use crate::domain::action::{Action, ActionKind, Invocation};
use crate::domain::config::Value;
use crate::domain::id::{RuntimeId, SiteId};
use crate::domain::identity::{Actor, TrustDomain};
use crate::domain::policy::{Policy, Question, Rule, Side, Verdict, action_name, actor_name};
use crate::domain::time::Wall;
use crate::settings::problem::Faults;
use crate::settings::raw::{At, Node};
use crate::settings::rules::{params, parse_actor};
use crate::settings::table::Table;

/// One question with its answer.
#[derive(Debug)]
pub(crate) struct Asked {
    /// The entry's path, such as `runtime.cloud.wan.test[0]`.
    pub(crate) shown: String,
    /// Where it is written.
    pub(crate) at: At,
    /// Where the wanted answer is written.
    pub(crate) expect_at: At,
    /// Which list was asked.
    pub(crate) side: Side,
    /// `actor action target`.
    pub(crate) question: String,
    /// `allow` or `deny`.
    pub(crate) expect: String,
    /// `allow` or `deny`.
    pub(crate) got: &'static str,
    /// Which rule said so.
    pub(crate) why: String,
}

impl Asked {
    /// What to say of an answer that is not the wanted one.
    pub(crate) fn fault(&self) -> Option<String> {
        let Self { expect, got, why, .. } = self;
        (got != expect).then(|| format!("wanted {expect}, got {got}: {why}"))
    }
}

/// Asks every question of the file. A question that cannot be read is a fault.
pub(crate) fn ask_all(
    root: &Node,
    policy: &Policy,
    own_site: &SiteId,
    domain: &TrustDomain,
    faults: &mut Faults,
) -> Vec<Asked> {
    let entries = Table::of(root, "runtime.cloud.wan").list("test");
    entries.iter().filter_map(|entry| ask(entry, policy, own_site, domain, faults)).collect()
}

fn ask(
    entry: &Table<'_>,
    policy: &Policy,
    own_site: &SiteId,
    domain: &TrustDomain,
    faults: &mut Faults,
) -> Option<Asked> {
    let texts = (entry.text("actor")?, entry.text("action")?, entry.text("target")?);
    let actor = note(entry, "actor", actor(texts.0, domain), faults);
    let action = note(entry, "action", action(texts.1, params(entry)), faults);
    let target = RuntimeId::parse_in(texts.2, own_site).map_err(|error| error.to_string());
    let target = note(entry, "target", target, faults);
    let (actor, action, target, expect) = (actor?, action?, target?, entry.text("expect")?);
    let side = if entry.text("side") == Some("inbound") { Side::Inbound } else { Side::Outbound };
    let (asked, now) = match entry.moment("at") {
        Some(moment) => (policy.clone(), moment),
        None => (without_windows(policy), Wall(0)),
    };
    let verdict = asked.ask(side, Question { actor: &actor, action: &action, target: &target, now });
    let (got, why) = match verdict {
        Verdict::Allowed(rule) => ("allow", format!("rule {} allows it", rule.id)),
        Verdict::Denied(rule) => ("deny", format!("rule {} denies it", rule.id)),
        Verdict::Unmentioned => ("deny", "no rule speaks of it".to_owned()),
    };
    Some(Asked {
        shown: entry.shown.clone(),
        at: entry.at.clone(),
        expect_at: entry.at("expect"),
        side,
        question: format!("{} {} {target}", actor_name(&actor), action_name(&action)),
        expect: expect.to_owned(),
        got,
        why,
    })
}

fn note<T>(entry: &Table<'_>, name: &str, parsed: Result<T, String>, faults: &mut Faults) -> Option<T> {
    parsed.map_err(|message| faults.push(&entry.at(name), entry.key(name), message)).ok()
}

/// An actor, as `<site>/<principal>` or as its SPIFFE ID.
pub fn actor(text: &str, domain: &TrustDomain) -> Result<Actor, String> {
    if text.starts_with("spiffe:") {
        return parse_actor(text, Some(domain));
    }
    parse_actor(&format!("spiffe://{domain}/{text}"), Some(domain))
}

fn action(text: &str, params: BTreeMap<String, Value>) -> Result<Action, String> {
    match text.split_once('/') {
        None if text == ActionKind::CfgApply.as_str() => Ok(Action::CfgApply(params)),
        Some((kind, command)) if kind == ActionKind::CmdInvoke.as_str() => {
            let command = command.parse().map_err(|error| format!("{error}"))?;
            let params = params.into_iter().map(|(name, value)| (name, value.to_string())).collect();
            Ok(Action::CmdInvoke(Invocation { command, params }))
        }
        Some(_) | None => Err(format!("wanted cfg_apply or cmd_invoke/<command>, got {text:?}")),
    }
}

/// The policy with every rule inside its window: a test without a moment must not change its answer as time passes.
fn without_windows(policy: &Policy) -> Policy {
    let open =
        |rules: &[Rule]| rules.iter().map(|rule| Rule { not_before: None, not_after: None, ..rule.clone() }).collect();
    Policy { allow_write: open(&policy.allow_write), accept_write: open(&policy.accept_write) }
}
