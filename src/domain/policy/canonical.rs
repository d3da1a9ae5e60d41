//! A policy as bytes, so that it can be named by a hash which stays the same wherever and in whatever order it is written.
//!
//! Everything that decides is in it, and the names that rules were given, because records name rules by them. The reasons
//! for people are not, nor is a rule's place in its list.

use crate::domain::identity::Role;
use crate::domain::policy::{Pattern, Policy, Rule, RuleEffect, Side};

/// Separates these bytes from all others that are hashed.
const CONTEXT: &str = "trust-runtime policy v1";

impl Policy {
    /// The rules and grants as bytes: every text with its length before it, every list sorted.
    pub fn canonical_bytes(&self, grants: &[(Pattern, Role)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_text(&mut bytes, CONTEXT);
        for side in Side::ALL {
            put_sorted(&mut bytes, self.rules(side).iter().map(rule_bytes).collect());
        }
        put_sorted(&mut bytes, grants.iter().map(grant_bytes).collect());
        bytes
    }
}

fn rule_bytes(rule: &Rule) -> Vec<u8> {
    let mut bytes = Vec::new();
    let effect = match rule.effect {
        RuleEffect::Allow => "allow",
        RuleEffect::Deny => "deny",
    };
    put_optional(&mut bytes, rule.given_id());
    put_text(&mut bytes, effect);
    for pattern in [&rule.action, &rule.actor, &rule.target] {
        put_text(&mut bytes, &pattern.to_string());
    }
    for moment in [rule.not_before, rule.not_after] {
        put_optional(&mut bytes, moment.map(|it| it.0.to_string()).as_deref());
    }
    let param = |(name, value): &(String, String)| {
        let mut bytes = Vec::new();
        put_text(&mut bytes, name);
        put_text(&mut bytes, value);
        bytes
    };
    put_sorted(&mut bytes, rule.params.iter().map(param).collect());
    bytes
}

fn grant_bytes((actor, role): &(Pattern, Role)) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_text(&mut bytes, &actor.to_string());
    put_text(&mut bytes, role.as_str());
    bytes
}

/// The parts in the order of their bytes, with their count before them.
fn put_sorted(bytes: &mut Vec<u8>, mut parts: Vec<Vec<u8>>) {
    parts.sort();
    put_count(bytes, parts.len());
    for part in parts {
        put_count(bytes, part.len());
        bytes.extend(part);
    }
}

fn put_optional(bytes: &mut Vec<u8>, text: Option<&str>) {
    bytes.push(u8::from(text.is_some()));
    put_text(bytes, text.unwrap_or_default());
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    put_count(bytes, text.len());
    bytes.extend_from_slice(text.as_bytes());
}

fn put_count(bytes: &mut Vec<u8>, count: usize) {
    bytes.extend_from_slice(&u64::try_from(count).unwrap_or(u64::MAX).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::audit::Hash;
    use crate::domain::time::Wall;

    fn pattern(text: &str) -> Pattern {
        text.parse().expect("legal")
    }

    fn rule(id: &str) -> Rule {
        Rule {
            id: id.to_owned(),
            effect: RuleEffect::Allow,
            action: pattern("cmd_invoke/ping"),
            actor: pattern("a/*"),
            target: pattern("b/r1"),
            params: vec![("x".to_owned(), "1".to_owned()), ("y".to_owned(), "\"z\"".to_owned())],
            not_before: Some(Wall(1)),
            not_after: None,
            reason: Some("a reason".to_owned()),
        }
    }

    fn name(policy: &Policy, grants: &[(Pattern, Role)]) -> String {
        Hash::of(&policy.canonical_bytes(grants)).to_string()
    }

    #[test]
    fn the_name_of_a_policy_never_changes() {
        let policy = Policy { allow_write: vec![rule("r")], accept_write: vec![rule("accept_write[0]")] };
        let grants = [(pattern("a/alice"), Role::Operator)];
        // A change here makes every node of a fleet name its unchanged policy anew.
        assert_eq!(name(&policy, &grants), "6a78339894c4c0f728a9908ec72b5517f4a60d9286b0f129447599bbdb0da3ef");
        assert_eq!(name(&Policy::default(), &[]), "28a7759c8427d2b7b35ffd8f8f7a5cfd8296158bc224792da2c969eb4a772ffb");
    }

    #[test]
    fn order_place_and_reason_do_not_matter() {
        let policy = Policy { allow_write: vec![rule("p"), rule("allow_write[1]")], accept_write: Vec::new() };
        let mut turned = Policy { allow_write: vec![rule("allow_write[0]"), rule("p")], accept_write: Vec::new() };
        for rule in &mut turned.allow_write {
            rule.reason = None;
            rule.params.reverse();
        }
        let grants = [(pattern("a/alice"), Role::Operator), (pattern("a/bob"), Role::Viewer)];
        let turned_grants = [grants[1].clone(), grants[0].clone()];
        assert_eq!(name(&policy, &grants), name(&turned, &turned_grants));
    }

    #[test]
    fn whatever_decides_or_is_named_changes_the_name() {
        let of = |change: fn(&mut Rule)| {
            let mut rule = rule("r");
            change(&mut rule);
            name(&Policy { allow_write: vec![rule], accept_write: Vec::new() }, &[])
        };
        let names = [
            of(|_| ()),
            of(|rule| rule.id = "s".to_owned()),
            of(|rule| rule.effect = RuleEffect::Deny),
            of(|rule| rule.action = pattern("*")),
            of(|rule| rule.actor = pattern("*")),
            of(|rule| rule.target = pattern("*")),
            of(|rule| rule.not_before = None),
            of(|rule| (rule.not_before, rule.not_after) = (None, Some(Wall(1)))),
            of(|rule| rule.params.clear()),
            of(|rule| rule.params[0].1 = "2".to_owned()),
            // What belongs to the name of one parameter is not part of the value before it.
            of(|rule| rule.params = vec![("x".to_owned(), "1y".to_owned()), (String::new(), "\"z\"".to_owned())]),
            name(&Policy { allow_write: Vec::new(), accept_write: vec![rule("r")] }, &[]),
            name(&Policy { allow_write: vec![rule("r")], accept_write: Vec::new() }, &[(pattern("a/b"), Role::Admin)]),
        ];
        let distinct: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), names.len());
    }
}
