//! What an explanation tells a person to write, written into the file, allows what was asked.

use super::*;
use crate::domain::action::Action;
use crate::domain::config::Value;
use crate::domain::offer::Known;
use crate::domain::policy::explain::{Explanation, explain};
use crate::domain::policy::{Step, granted_role};
use crate::domain::preflight::{Asker, Case, Profile as Rules};
use crate::domain::time::Wall;
use crate::settings::reading::File;
use crate::settings::{ListForm, Reading, Unmet, change_text, reading, rule_text};

fn read_all(body: &str, unmet: Unmet) -> Reading {
    let text = format!("[bundle]\nversion = 1\n{body}");
    reading::read(&text, File { name: "runtime.toml", exposure: None }, "node", NO_ENVIRONMENT, unmet)
        .unwrap_or_else(|problems| panic!("{problems}"))
}

/// Asks whether bob may do it to `b/r1` at this runtime, and looks at the explanation.
fn ask<T>(settings: &Settings, action: &Action, look: impl FnOnce(&Explanation<'_>) -> T) -> T {
    let actor = "spiffe://trust/default-site/bob".parse().expect("legal");
    let asker = Asker { actor, role: crate::domain::identity::Role::Engineer, is_verified: true };
    let (target, origin) = ("b/r1".parse().expect("legal"), settings.runtime_id.clone());
    let now = Wall(1_900_000_000_000_000_001);
    let case = Case {
        asker: &asker,
        action,
        target: &target,
        origin: &origin,
        policy: &settings.policy,
        profile: Rules::Dev,
        offer: Known::Nothing,
        now,
    };
    look(&explain(case, Side::Outbound))
}

fn level(text: &str) -> Action {
    Action::CfgApply(BTreeMap::from([("log.level".to_owned(), Value::Text(text.to_owned()))]))
}

const INLINE: &str = "[runtime.cloud.wan]\nallow_write = [\n  # none yet\n]\n";
const TABLES: &str = "[[runtime.cloud.wan.allow_write]]\naction = \"cfg_apply\"\ntarget = \"c/*\"\n";

#[test]
fn an_added_rule_allows_it_in_either_form_of_the_list() {
    for (body, form) in [(INLINE, ListForm::Inline), (TABLES, ListForm::Tables), ("", ListForm::Tables)] {
        for action in [Action::ping(), level("debug"), level("a \"b\"\\\u{1}\u{7f}")] {
            let before = read_all(body, Unmet::Refuse);
            assert_eq!(before.form(Side::Outbound), form, "{body}");
            let added = ask(&before.settings, &action, |explained| {
                let steps = &explained.remedies.last()?.steps;
                let [Step::Add(rule)] = steps.as_slice() else { panic!("{steps:?}") };
                Some(rule_text(rule, Side::Outbound, form))
            });
            let Some(added) = added else {
                assert_ne!(action, Action::ping());
                assert_ne!(action, level("debug"), "only what the schema refuses has no remedy");
                continue;
            };
            let body = match form {
                ListForm::Inline => body.replace("# none yet", &added),
                ListForm::Tables => format!("{body}{added}\n"),
            };
            let after = read_all(&body, Unmet::Refuse);
            assert!(ask(&after.settings, &action, |explained| explained.outcome.is_ok()), "{body}");
        }
    }
}

#[test]
fn every_field_of_a_rule_reads_back_from_its_text() {
    let rule = "id = \"r\"\neffect = \"deny\"\naction = \"cmd_invoke/ping\"\nactor = \"a/*\"\ntarget = \"b/r1\"\n\
                params = { \"a.b\" = \"c \\\"d\\\" \\\\ \\u0001\\u007f\", n = -1, t = true }\n\
                not_before = 2030-01-01T00:00:00.5Z\nnot_after = 2031-01-01T00:00:00+01:00\nreason = \"so \\\"it\\\" is\"\n";
    let list = format!("[[runtime.cloud.wan.accept_write]]\n{rule}");
    let first = read_all(&list, Unmet::Refuse).settings.policy;
    for form in [ListForm::Tables, ListForm::Inline] {
        let text = rule_text(&first.accept_write[0], Side::Inbound, form);
        let body = match form {
            ListForm::Tables => text,
            ListForm::Inline => format!("[runtime.cloud.wan]\naccept_write = [{text}]"),
        };
        assert_eq!(read_all(&body, Unmet::Refuse).settings.policy, first, "{body}");
    }
}

#[test]
fn a_changed_field_allows_it() {
    for (field, wanted) in [
        ("actor = \"default-site/alice\"", "actor = \"default-site/*\""),
        ("not_before = 2040-01-01T00:00:00Z", "not_before = 2030-03-17T17:46:40.000000001Z"),
        ("not_after = 2020-01-01T00:00:00Z", "not_after = 2030-03-17T18:46:40.000000001Z"),
    ] {
        let body =
            format!("[[runtime.cloud.wan.allow_write]]\naction = \"cmd_invoke/ping\"\ntarget = \"b/r1\"\n{field}\n");
        let change = ask(&read_all(&body, Unmet::Refuse).settings, &Action::ping(), |explained| {
            let steps = &explained.remedies.first().expect("a remedy").steps;
            let [Step::Change { rule, to }] = steps.as_slice() else { panic!("{steps:?}") };
            assert_eq!(rule, "allow_write[0]");
            change_text(to)
        });
        assert_eq!(change, wanted);
        let after = read_all(&body.replace(field, &change), Unmet::Refuse);
        assert!(ask(&after.settings, &Action::ping(), |explained| explained.outcome.is_ok()));
    }
}

#[test]
fn rules_and_tests_know_their_lines() {
    let body = "[runtime.cloud.wan]\nallow_write = [\n  { action = \"*\", target = \"b/*\" },\n  { action = \"*\", target = \"c/*\" } ]\n\
                [[runtime.cloud.wan.accept_write]]\naction = \"*\"\nactor = \"b/*\"\n\
                [[runtime.cloud.wan.test]]\nactor = \"a/x\"\naction = \"cfg_apply\"\ntarget = \"d/r\"\nexpect = \"allow\"\n";
    let reading = read_all(body, Unmet::Report);
    let line = |side, index| reading.place(side, index).map(ToString::to_string);
    assert_eq!(line(Side::Outbound, 0).as_deref(), Some("runtime.toml:5:3"));
    assert_eq!(line(Side::Outbound, 1).as_deref(), Some("runtime.toml:6:3"));
    assert_eq!(line(Side::Inbound, 0).as_deref(), Some("runtime.toml:7:1"));
    assert_eq!(line(Side::Inbound, 1), None);
    let test = &reading.tests[0];
    assert!(!test.is_met());
    assert_eq!((test.got, test.place.to_string().as_str()), ("deny", "runtime.toml:10:1"));
    assert_eq!(faults(body), ["runtime.cloud.wan.test[0]: wanted allow, got deny: no rule speaks of it"]);
}

#[test]
fn a_rule_that_never_decides_is_a_warning_and_no_fault() {
    let body = "[runtime.cloud.wan]\nallow_write = [\n { id = \"out\", action = \"cfg_apply\", target = \"b/*\" },\n\
                { id = \"stop\", effect = \"deny\", action = \"*\", target = \"*\" } ]\n";
    let warnings = read_all(body, Unmet::Refuse).warnings;
    assert_eq!(warnings.len(), 1);
    assert_eq!(warnings[0].message, "the rule out never decides: the deny rule stop covers it");
    assert_eq!(warnings[0].place.to_string(), "runtime.toml:5:2");
    assert_eq!(warnings[0].place.excerpt().lines().count(), 2);
}

#[test]
fn the_secrets_of_a_line_are_covered_in_an_excerpt() {
    let body = "runtime = { control = { auth_token = \"hunter2-hunter2\" }, cloud = { wan = { \
                allow_write = [{ id = \"out\", action = \"cfg_apply\", target = \"b/*\" }] } } }";
    let text = format!("{body}\nbundle = {{ version = 1 }}\n");
    let reading =
        reading::read(&text, File { name: "f", exposure: None }, "node", NO_ENVIRONMENT, Unmet::Refuse).expect("valid");
    let excerpt = reading.place(Side::Outbound, 0).expect("a place").excerpt();
    assert!(excerpt.contains("auth_token = ") && !excerpt.contains("hunter2"), "{excerpt}");
}

#[test]
fn grants_bound_the_role_that_another_runtime_asserts() {
    use crate::domain::identity::Role;
    let grants = [("a/alice", Role::Operator), ("a/*", Role::Engineer)]
        .map(|(actor, role)| (actor.parse().expect("legal"), role));
    let own = "b".parse().expect("legal");
    for (actor, asserted, own_site, wanted) in [
        ("a/alice", Role::Admin, &own, Role::Operator),
        ("a/alice", Role::Viewer, &own, Role::Viewer),
        ("a/bob", Role::Admin, &own, Role::Engineer),
        ("b/carol", Role::Admin, &own, Role::Admin),
        ("c/dave", Role::Admin, &own, Role::Viewer),
    ] {
        let actor = format!("spiffe://trust/{actor}").parse().expect("legal");
        assert_eq!(granted_role(&grants, &actor, asserted, own_site), wanted, "{actor}");
    }
}
