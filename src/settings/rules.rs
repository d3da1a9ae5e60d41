//! The rules of `[runtime.cloud.wan]`, and the grants.

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::action::ActionKind;
use crate::domain::config::Value;
use crate::domain::id::SiteId;
use crate::domain::identity::{Actor, TrustDomain};
use crate::domain::policy::{Pattern, Policy, Rule, RuleEffect, Side};
use crate::settings::problem::Faults;
use crate::settings::raw::{Node, Raw};
use crate::settings::table::Table;
use crate::settings::valid::Grant;

/// Longest id of a rule in bytes; it stands in every decision.
const RULE_ID_BYTES_MAX: usize = 128;

/// Reads both lists.
pub(crate) fn policy(root: &Node, own_site: &SiteId, domain: Option<&TrustDomain>, faults: &mut Faults) -> Policy {
    let table = Table::of(root, "runtime.cloud.wan");
    let mut ids = BTreeSet::new();
    let mut read = |name, side| {
        let entries = table.list(name);
        let mut reader = RuleReader { side, own_site, domain, ids: &mut ids, faults };
        let rules = entries.iter().enumerate();
        rules.filter_map(|(index, entry)| reader.rule(entry, format!("{name}[{index}]"))).collect::<Vec<_>>()
    };
    Policy { allow_write: read("allow_write", Side::Outbound), accept_write: read("accept_write", Side::Inbound) }
}

/// Reads `[[runtime.identity.grant]]`.
pub(crate) fn grants(table: &Table<'_>, own_site: &SiteId, domain: &TrustDomain, faults: &mut Faults) -> Vec<Grant> {
    let mut grants: Vec<Grant> = Vec::new();
    for entry in table.list("grant") {
        let (Some(text), Some(role)) = (entry.text("actor"), entry.parsed("role")) else { continue };
        let actor = match actor_pattern(text, Some(domain)).and_then(|actor| names_a_site(actor, own_site)) {
            Ok(actor) => actor,
            Err(message) => {
                faults.push(&entry.at("actor"), entry.key("actor"), message);
                continue;
            }
        };
        if grants.iter().any(|grant| grant.actor == actor) {
            faults.push(&entry.at("actor"), entry.key("actor"), format!("{actor} is granted twice"));
        }
        grants.push(Grant { actor, role });
    }
    grants
}

struct RuleReader<'a> {
    side: Side,
    own_site: &'a SiteId,
    domain: Option<&'a TrustDomain>,
    ids: &'a mut BTreeSet<String>,
    faults: &'a mut Faults,
}

impl RuleReader<'_> {
    fn rule(&mut self, entry: &Table<'_>, place: String) -> Option<Rule> {
        let effect = match entry.text("effect")? {
            "deny" => RuleEffect::Deny,
            _ => RuleEffect::Allow,
        };
        let action = self.pattern(entry, "action", action_pattern);
        let (side, own_site, domain) = (self.side, self.own_site, self.domain);
        let actor = self.pattern(entry, "actor", |text| {
            let actor = actor_pattern(text, domain)?;
            let must_name = side == Side::Inbound && effect == RuleEffect::Allow;
            if must_name { names_a_site(actor, own_site) } else { Ok(actor) }
        });
        let target = self.pattern(entry, "target", |text| target_pattern(text, own_site));
        let (not_before, not_after) = (entry.moment("not_before"), entry.moment("not_after"));
        if let (Some(from), Some(until)) = (not_before, not_after)
            && until <= from
        {
            self.faults.push(&entry.at("not_after"), entry.key("not_after"), "wanted a moment after not_before");
        }
        Some(Rule {
            id: self.id(entry, place),
            effect,
            action: action?,
            actor: actor?,
            target: target?,
            params: params(entry).into_iter().map(|(name, value)| (name, value.to_string())).collect(),
            not_before,
            not_after,
            reason: entry.text("reason").map(str::to_owned),
        })
    }

    fn id(&mut self, entry: &Table<'_>, place: String) -> String {
        let Some(id) = entry.text("id") else { return place };
        let is_legal = |it: char| it.is_ascii_alphanumeric() || matches!(it, '.' | '-' | '_');
        if id.len() > RULE_ID_BYTES_MAX || !id.chars().all(is_legal) {
            let message = format!("wanted at most {RULE_ID_BYTES_MAX} letters, digits, '.', '-' or '_'");
            self.faults.push(&entry.at("id"), entry.key("id"), message);
        } else if !self.ids.insert(id.to_owned()) {
            self.faults.push(&entry.at("id"), entry.key("id"), format!("the id {id} is given twice"));
        }
        id.to_owned()
    }

    fn pattern(
        &mut self,
        entry: &Table<'_>,
        name: &str,
        parse: impl FnOnce(&str) -> Result<Pattern, String>,
    ) -> Option<Pattern> {
        let parsed = parse(entry.text(name)?);
        parsed.map_err(|message| self.faults.push(&entry.at(name), entry.key(name), message)).ok()
    }
}

fn action_pattern(text: &str) -> Result<Pattern, String> {
    let pattern = parse_pattern(text)?;
    let (kind, command) = text.split_once('/').map_or((text, None), |(kind, command)| (kind, Some(command)));
    match (kind.parse::<ActionKind>(), command) {
        (Ok(ActionKind::StatusRead), _) => Err("wanted a write, got status_read; reads need no rule".to_owned()),
        (Ok(ActionKind::CfgApply), None) | (Ok(ActionKind::CmdInvoke), _) => Ok(pattern),
        (Err(_), None) if pattern.is_everything() => Ok(pattern),
        (_, _) => Err(format!("wanted cfg_apply, cmd_invoke, cmd_invoke/<command> or *, got {text:?}")),
    }
}

fn actor_pattern(text: &str, domain: Option<&TrustDomain>) -> Result<Pattern, String> {
    if text.starts_with("spiffe:") {
        let actor = parse_actor(text, domain)?;
        return parse_pattern(&crate::domain::policy::actor_name(&actor));
    }
    let pattern = parse_pattern(text)?;
    if pattern.is_everything() || text.contains('/') {
        Ok(pattern)
    } else {
        Err(format!("wanted <site>/<principal>, got {text:?}"))
    }
}

pub(crate) fn parse_actor(text: &str, domain: Option<&TrustDomain>) -> Result<Actor, String> {
    let actor: Actor = text.parse().map_err(|error| format!("{error}"))?;
    match domain {
        Some(domain) if *domain != actor.trust_domain => {
            Err(format!("wanted the trust domain {domain}, got {}", actor.trust_domain))
        }
        Some(_) | None => Ok(actor),
    }
}

/// A rule that lets others in names the site that vouches for them.
fn names_a_site(actor: Pattern, own_site: &SiteId) -> Result<Pattern, String> {
    if actor.to_string().starts_with('*') {
        return Err(format!("wanted an actor with its site, such as \"{own_site}/*\", got \"{actor}\""));
    }
    Ok(actor)
}

/// A bare name means this site (DESIGN, *Ids*).
fn target_pattern(text: &str, own_site: &SiteId) -> Result<Pattern, String> {
    let pattern = parse_pattern(text)?;
    if pattern.is_everything() || text.contains('/') {
        Ok(pattern)
    } else {
        parse_pattern(&format!("{own_site}/{text}"))
    }
}

fn parse_pattern(text: &str) -> Result<Pattern, String> {
    text.parse().map_err(|error| format!("{error}"))
}

pub(crate) fn params(entry: &Table<'_>) -> BTreeMap<String, Value> {
    let typed = |raw: &Raw| match raw {
        Raw::Bool(value) => Some(Value::Bool(*value)),
        Raw::Int(value) => Some(Value::Int(*value)),
        Raw::Text(text) => Some(Value::Text(text.clone())),
        Raw::Float(_) | Raw::List(_) | Raw::Table(_) | Raw::Time(_) | Raw::Unreadable => None,
    };
    let values = entry.map("params").into_iter();
    values.filter_map(|(name, it)| Some((name.to_owned(), typed(&it.node.value)?))).collect()
}
