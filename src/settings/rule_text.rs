//! Rules and their fields as TOML text, for a person to put into the file.

use crate::domain::policy::{Change, Pattern, Rule, RuleEffect, Side};
use crate::settings::when;

/// How a list of rules is written in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListForm {
    /// `allow_write = [ { … }, { … } ]`.
    Inline,
    /// `[[runtime.cloud.wan.allow_write]]`, which is also how a first rule is added.
    Tables,
}

/// A rule as text that can be added: an entry of the list, or a table for the end of the file.
pub fn rule_text(rule: &Rule, side: Side, form: ListForm) -> String {
    let fields = fields(rule);
    let lines = fields.iter().map(|(name, value)| format!("{name} = {value}"));
    match form {
        ListForm::Inline => format!("{{ {} }},", lines.collect::<Vec<_>>().join(", ")),
        ListForm::Tables => {
            let header = format!("[[runtime.cloud.wan.{}]]", side.list());
            std::iter::once(header).chain(lines).collect::<Vec<_>>().join("\n")
        }
    }
}

/// A change of one field as text: what to write, or what to take out.
pub fn change_text(change: &Change) -> String {
    let pattern = |name: &str, pattern: &Pattern| format!("{name} = {}", text(&pattern.to_string()));
    match change {
        Change::Action(to) => pattern("action", to),
        Change::Actor(to) => pattern("actor", to),
        Change::Target(to) => pattern("target", to),
        Change::NotBefore(moment) => format!("not_before = {}", when::text(*moment)),
        Change::NotAfter(moment) => format!("not_after = {}", when::text(*moment)),
    }
}

fn fields(rule: &Rule) -> Vec<(&'static str, String)> {
    let mut fields = Vec::new();
    if let Some(id) = rule.given_id() {
        fields.push(("id", text(id)));
    }
    if rule.effect == RuleEffect::Deny {
        fields.push(("effect", text("deny")));
    }
    for (name, pattern) in [("action", &rule.action), ("actor", &rule.actor), ("target", &rule.target)] {
        fields.push((name, text(&pattern.to_string())));
    }
    if !rule.params.is_empty() {
        // The values are booleans, whole numbers and strings, which JSON and TOML write alike.
        let params =
            rule.params.iter().map(|(name, json)| format!("{} = {}", text(name), json.replace('\u{7f}', "\\u007f")));
        fields.push(("params", format!("{{ {} }}", params.collect::<Vec<_>>().join(", "))));
    }
    for (name, moment) in [("not_before", rule.not_before), ("not_after", rule.not_after)] {
        fields.extend(moment.map(|moment| (name, when::text(moment))));
    }
    fields.extend(rule.reason.iter().map(|reason| ("reason", text(reason))));
    fields
}

/// A basic string.
fn text(content: &str) -> String {
    let mut quoted = String::from("\"");
    for character in content.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            it if it.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(it))),
            it => quoted.push(it),
        }
    }
    quoted.push('"');
    quoted
}
