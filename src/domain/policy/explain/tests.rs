//! Properties of the rules and of their explanation, over random policies and questions.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use std::borrow::Cow;

use crate::domain::action::Action;
use crate::domain::config::Value;
use crate::domain::id::RuntimeId;
use crate::domain::identity::Role;
use crate::domain::offer::Known;
use crate::domain::policy::{Pattern, Policy, RuleEffect, Step, unnameable};
use crate::domain::preflight::{Asker, Profile, Standing, decide};
use crate::domain::projection::Lifecycle;

/// A question with everything that it borrows.
#[derive(Debug, Clone)]
struct World {
    asker: Asker,
    action: Action,
    target: RuntimeId,
    origin: RuntimeId,
    policy: Policy,
    profile: Profile,
    now: Wall,
    side: Side,
}

impl World {
    fn case(&self) -> Case<'_> {
        let Self { asker, action, target, origin, policy, profile, now, side: _ } = self;
        Case { asker, action, target, origin, policy, profile: *profile, offer: Known::Nothing, now: *now }
    }

    fn with(&self, policy: Policy) -> Self {
        Self { policy, ..self.clone() }
    }

    fn outcome(&self) -> Result<Cow<'static, str>, Denial> {
        preflight::authorize(self.case(), self.side)
    }

    fn is_allowed(&self) -> bool {
        self.outcome().is_ok()
    }

    /// The world in which nothing that can be written or granted stands in the way.
    fn opened(&self) -> Self {
        let everything = Rule { id: "all".to_owned(), ..rule(RuleEffect::Allow, "*", "*", "*") };
        let rules = vec![everything];
        let mut opened = self.with(Policy { allow_write: rules.clone(), accept_write: rules });
        opened.asker.role = Role::Admin;
        opened
    }

    fn after(&self, remedy: &Remedy) -> Self {
        let mut after = self.clone();
        for step in &remedy.steps {
            step.apply(&mut after.policy, self.side, &mut after.asker.role);
        }
        after
    }
}

fn rule(effect: RuleEffect, action: &str, actor: &str, target: &str) -> Rule {
    let pattern = |text: &str| text.parse::<Pattern>().expect("legal");
    Rule {
        id: String::new(),
        effect,
        action: pattern(action),
        actor: pattern(actor),
        target: pattern(target),
        params: Vec::new(),
        not_before: None,
        not_after: None,
        reason: None,
    }
}

fn any_rule() -> impl Strategy<Value = Rule> {
    // Allows outnumber denies, or hardly anything would be allowed.
    let effect = prop_oneof![3 => Just(RuleEffect::Allow), 1 => Just(RuleEffect::Deny)];
    let actions = ["*", "cfg_apply", "cmd_invoke", "cmd_invoke/*", "cmd_invoke/ping", "cmd_invoke/start"];
    let action = prop::sample::select(actions.to_vec());
    let actor = prop::sample::select(vec!["*", "a/*", "a/alice", "a/bob", "b/*", "b/bob", "*/alice"]);
    let target = prop::sample::select(vec!["*", "b/*", "b/r1", "a/r1", "a/*", "*/*"]);
    let (level, kept, n) = (("log.level", "\"debug\""), ("store.runs_kept", "9"), ("n", "1"));
    let params = vec![vec![], vec![], vec![level], vec![n], vec![level, kept], vec![n, ("m", "2")]];
    let params = prop::sample::select(params);
    let moment = || prop::option::weighted(0.3, (0_u64..8).prop_map(Wall));
    (effect, action, actor, target, params, moment(), moment()).prop_map(
        |(effect, action, actor, target, params, not_before, not_after)| Rule {
            params: params.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            not_before,
            not_after,
            ..rule(effect, action, actor, target)
        },
    )
}

fn any_rules() -> impl Strategy<Value = Vec<Rule>> {
    prop::collection::vec(any_rule(), 0..7)
}

/// Names the rules by their places, as an unnamed rule of a file is.
fn named(mut rules: Vec<Rule>, list: &str) -> Vec<Rule> {
    for (index, rule) in rules.iter_mut().enumerate() {
        rule.id = format!("{list}[{index}]");
    }
    rules
}

fn any_action() -> impl Strategy<Value = Action> {
    let level = |text: &str| BTreeMap::from([("log.level".to_owned(), Value::Text(text.to_owned()))]);
    let invoke = |command: &str, params| Action::cmd_invoke(command, params).expect("legal");
    let protected = BTreeMap::from([("web.auth".to_owned(), Value::Text("token".to_owned()))]);
    let mut both = level("debug");
    both.insert("store.runs_kept".to_owned(), Value::Int(9));
    let params =
        |params: &[(&str, &str)]| params.iter().map(|(it, json)| ((*it).to_owned(), (*json).to_owned())).collect();
    prop::sample::select(vec![
        Action::StatusRead,
        Action::ping(),
        invoke("ping", params(&[("n", "1"), ("list", "[1]")])),
        invoke("ping", params(&[("n", "1")])),
        invoke("ping", params(&[("n", "1"), ("m", "2")])),
        invoke("start", BTreeMap::new()),
        invoke("unheard-of", BTreeMap::new()),
        Action::CfgApply(level("debug")),
        Action::CfgApply(level("warn")),
        Action::CfgApply(level("shouting")),
        Action::CfgApply(both),
        Action::CfgApply(protected),
    ])
}

fn any_world() -> impl Strategy<Value = World> {
    let actor = prop::sample::select(vec!["a/alice", "a/bob", "b/bob", "c/carol"]);
    let runtime = || prop::sample::select(vec!["a/r1", "a/r2", "b/r1", "b/r2"]);
    let role = prop::sample::select(Role::ALL.to_vec());
    let profile = prop::sample::select(Profile::ALL.to_vec());
    let side = prop::sample::select(Side::ALL.to_vec());
    let asked = (actor, any_action(), runtime(), runtime(), role, profile, (0_u64..8).prop_map(Wall), side);
    (asked, any_rules(), any_rules()).prop_map(|(asked, allow_write, accept_write)| {
        let (actor, action, target, origin, role, profile, now, side) = asked;
        let actor = format!("spiffe://trust/{actor}").parse().expect("legal");
        let policy = Policy {
            allow_write: named(allow_write, "allow_write"),
            accept_write: named(accept_write, "accept_write"),
        };
        World {
            asker: Asker { actor, role, is_verified: true },
            action,
            target: target.parse().expect("legal"),
            origin: origin.parse().expect("legal"),
            policy,
            profile,
            now,
            side,
        }
    })
}

/// What the documents say of one rule, in as few words as possible (P4).
fn speaks(rule: &Rule, world: &World) -> bool {
    let is_in = |pattern: &Pattern, name: &str| {
        let text = pattern.to_string();
        let (pattern, name): (Vec<_>, Vec<_>) = (text.split('/').collect(), name.split('/').collect());
        text == "*"
            || pattern.len() == name.len() && pattern.iter().zip(&name).all(|(it, name)| *it == "*" || it == name)
    };
    let actor = format!("{}/{}", world.asker.actor.site, world.asker.actor.principal);
    let kind = world.action.kind().as_str();
    let whole = world.action.command().map_or(kind.to_owned(), |command| format!("{kind}/{command}"));
    (is_in(&rule.action, kind) || is_in(&rule.action, &whole))
        && is_in(&rule.actor, &actor)
        && is_in(&rule.target, &world.target.to_string())
        && (rule.not_before.unwrap_or(Wall(0))..rule.not_after.unwrap_or(Wall(u64::MAX))).contains(&world.now)
        && rule.params.iter().all(|(name, value)| world.action.parameter(name).as_deref() == Some(value))
        // An allow for certain parameters is for these alone.
        && (rule.effect == RuleEffect::Deny
            || rule.params.is_empty()
            || world.action.parameter_names().all(|name| rule.params.iter().any(|(it, _)| it == name)))
}

/// The same action with this parameter, or without it.
fn with_param(action: &Action, name: &str, json: Option<&str>) -> Action {
    let mut action = action.clone();
    match (&mut action, json) {
        (Action::CfgApply(values), None) => drop(values.remove(name)),
        (Action::CmdInvoke(invocation), None) => drop(invocation.params.remove(name)),
        (Action::CfgApply(values), Some(json)) => {
            let value = json.parse().map_or_else(|_| Value::Text(json.trim_matches('"').to_owned()), Value::Int);
            values.insert(name.to_owned(), value);
        }
        (Action::CmdInvoke(invocation), Some(json)) => {
            invocation.params.insert(name.to_owned(), json.to_owned());
        }
        (Action::StatusRead, _) => {}
    }
    action
}

fn asked(world: &World) -> Verdict<'_> {
    world.policy.ask(world.side, question(world.case()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn what_is_explained_is_what_is_enforced(world in any_world()) {
        let explained = explain(world.case(), world.side);
        prop_assert_eq!(&explained.outcome, &world.outcome());
        if world.side == Side::Outbound {
            // P1: what preflight says of a target that can be reached.
            let standing = Standing { lifecycle: Lifecycle::Online, is_secure: true };
            prop_assert_eq!(decide(world.case(), Some(standing)).is_allowed(), explained.outcome.is_ok());
        }
        let named = explained.decides.map(|rule| rule.id.clone());
        let by_rules = match (world.action.kind().is_read(), asked(&world), &explained.outcome) {
            (false, Verdict::Allowed(rule), Ok(_)) => Some(rule.id.clone()),
            (false, Verdict::Denied(rule), Err(denial)) if denial.rule == rule.id => Some(rule.id.clone()),
            (_, _, _) => None,
        };
        prop_assert_eq!(named, by_rules);
    }

    #[test]
    fn every_rule_speaks_or_names_what_it_lacks(world in any_world()) {
        let explained = explain(world.case(), world.side);
        let silent: Vec<_> = world.policy.rules(world.side).iter().filter(|rule| !speaks(rule, &world)).collect();
        if world.action.kind().is_read() {
            prop_assert!(explained.near_misses.is_empty());
            return Ok(());
        }
        prop_assert_eq!(explained.near_misses.iter().map(|near| near.rule).collect::<Vec<_>>(), silent);
        for near in &explained.near_misses {
            prop_assert!(!near.misses.is_empty());
            // With exactly the named conditions lifted, the rule speaks: nothing is missing, and all of it is needed.
            let lifted = |skip: usize| {
                let (mut rule, mut world) = (near.rule.clone(), world.clone());
                for (_, miss) in near.misses.iter().enumerate().filter(|(index, _)| *index != skip) {
                    match miss.condition {
                        Condition::Action => rule.action = Pattern::everything(),
                        Condition::Actor => rule.actor = Pattern::everything(),
                        Condition::Target => rule.target = Pattern::everything(),
                        Condition::NotBefore => rule.not_before = None,
                        Condition::NotAfter => rule.not_after = None,
                        Condition::Param(name) | Condition::Unnamed(name) => {
                            let wanted = rule.params.iter().find(|(it, _)| it == name).map(|(_, json)| json.as_str());
                            world.action = with_param(&world.action, name, wanted);
                        }
                    }
                }
                speaks(&rule, &world)
            };
            prop_assert!(lifted(usize::MAX));
            prop_assert!((0..near.misses.len()).all(|skip| !lifted(skip)));
            // A rule ends at its last moment itself, so that only there both may be the same.
            let differs = |miss: &Miss<'_>| miss.wanted != miss.got || miss.condition == Condition::NotAfter;
            prop_assert!(near.misses.iter().all(differs));
        }
    }

    #[test]
    fn every_offered_change_allows_it_and_there_is_one_unless_nothing_can(world in any_world()) {
        let explained = explain(world.case(), world.side);
        let can_be = world.opened().outcome();
        prop_assert_eq!(explained.remedies.is_empty(), world.is_allowed() || can_be.is_err());
        prop_assert_eq!(explained.hopeless.is_some(), can_be.is_err());
        for remedy in &explained.remedies {
            prop_assert!(!remedy.steps.is_empty());
            prop_assert!(world.after(remedy).is_allowed(), "{:?}", remedy);
            // Smallest: without any one of its steps it does not suffice.
            for index in 0..remedy.steps.len() {
                let mut less = remedy.clone();
                less.steps.remove(index);
                prop_assert!(!world.after(&less).is_allowed(), "{:?} without {index}", remedy);
            }
        }
    }

    #[test]
    fn a_change_takes_nothing_away_and_an_added_rule_opens_for_one_only(world in any_world(), other in any_world()) {
        let explained = explain(world.case(), world.side);
        for remedy in &explained.remedies {
            let (before, after) = (other_in(&world, &other), other_in(&world.after(remedy), &other));
            prop_assert!(!before.is_allowed() || after.is_allowed(), "{:?}", remedy);
            let only_adds = remedy.steps.iter().all(|step| matches!(step, Step::Add(_)));
            if only_adds && !before.is_allowed() && after.is_allowed() {
                prop_assert_eq!(&other.asker.actor, &world.asker.actor);
                prop_assert_eq!(action_name(&other.action), action_name(&world.action));
                prop_assert_eq!(&other.target, &world.target);
                let has_params = world.action.parameter_names().next().is_some();
                if has_params && unnameable(&world.action).is_empty() {
                    prop_assert_eq!(&other.action, &world.action);
                }
            }
        }
    }

    #[test]
    fn a_parameter_that_no_rule_names_opens_nothing_and_leaves_an_allow_for_certain_ones(world in any_world()) {
        let more = World { action: with_param(&world.action, "mesh.timing.probe_ms", Some("70")), ..world.clone() };
        let by_rules = |world: &World| match asked(world) {
            Verdict::Allowed(rule) => Some(rule.clone()),
            Verdict::Denied(_) | Verdict::Unmentioned => None,
        };
        if world.action.kind().is_read() {
            return Ok(());
        }
        prop_assert!(by_rules(&world).is_some() || by_rules(&more).is_none());
        prop_assert!(by_rules(&more).is_none_or(|rule| rule.params.is_empty()));
        prop_assert_eq!(matches!(asked(&world), Verdict::Denied(_)), matches!(asked(&more), Verdict::Denied(_)));
    }

    #[test]
    fn the_matcher_is_the_reference_matcher(world in any_world()) {
        let spoken = |effect| world.policy.rules(world.side).iter().find(|it| it.effect == effect && speaks(it, &world));
        let wanted = match (spoken(RuleEffect::Deny), spoken(RuleEffect::Allow)) {
            (Some(rule), _) => Verdict::Denied(rule),
            (None, Some(rule)) => Verdict::Allowed(rule),
            (None, None) => Verdict::Unmentioned,
        };
        prop_assert_eq!(asked(&world), wanted);
    }

    #[test]
    fn without_an_allow_or_with_a_further_deny_nothing_more_is_allowed(
        world in any_world(), further in any_rule(), at in any::<prop::sample::Index>()
    ) {
        let rules = world.policy.rules(world.side);
        if !rules.is_empty() {
            let index = at.index(rules.len());
            if rules[index].effect == RuleEffect::Allow {
                let mut fewer = world.policy.clone();
                fewer.rules_mut(world.side).remove(index);
                prop_assert!(world.is_allowed() || !world.with(fewer).is_allowed(), "P2");
            }
        }
        let mut stricter = world.policy.clone();
        stricter.rules_mut(world.side).push(Rule { effect: RuleEffect::Deny, ..further });
        prop_assert!(world.is_allowed() || !world.with(stricter).is_allowed(), "P3");
    }

    #[test]
    fn the_order_of_the_rules_does_not_matter(world in any_world(), seed in any::<u64>()) {
        let mut turned = world.policy.clone();
        for side in Side::ALL {
            // Any order will do, as long as the seed decides it.
            turned.rules_mut(side).sort_by_key(|rule| crate::domain::audit::Hash::of(format!("{seed}{}", rule.id).as_bytes()));
        }
        let turned = world.with(turned);
        prop_assert_eq!(world.is_allowed(), turned.is_allowed(), "P5");
        let bare = |policy: &Policy| {
            let mut policy = policy.clone();
            for side in Side::ALL {
                policy.rules_mut(side).iter_mut().for_each(|rule| rule.id = "[]".to_owned());
            }
            policy.canonical_bytes(&[])
        };
        prop_assert_eq!(bare(&world.policy), bare(&turned.policy));
    }

    #[test]
    fn a_shadowed_rule_never_decides(world in any_world()) {
        for shadowed in world.policy.shadowed() {
            prop_assert_eq!(shadowed.rule.effect, RuleEffect::Allow);
            let decides = matches!(asked(&world), Verdict::Allowed(rule) if shadowed.side == world.side && rule == shadowed.rule);
            prop_assert!(!decides, "{:?}", shadowed);
            if shadowed.side == world.side && speaks(shadowed.rule, &world) {
                prop_assert!(speaks(shadowed.by, &world));
            }
        }
    }
}

/// The other question, asked of this world's rules at this world's end.
fn other_in(world: &World, other: &World) -> World {
    World { policy: world.policy.clone(), side: world.side, profile: world.profile, ..other.clone() }
}

#[test]
fn what_the_other_end_needs_is_named_for_writes_between_sites_only() {
    let world = |actor: &str, target: &str, action: Action| World {
        asker: Asker {
            actor: format!("spiffe://trust/{actor}").parse().expect("legal"),
            role: Role::Admin,
            is_verified: true,
        },
        action,
        target: target.parse().expect("legal"),
        origin: "a/r1".parse().expect("legal"),
        policy: Policy::default(),
        profile: Profile::Dev,
        now: Wall(1),
        side: Side::Outbound,
    };
    let across = world("a/alice", "b/r1", Action::ping());
    let (side, rule) = wanted_elsewhere(across.case(), Side::Outbound).expect("a write between sites");
    assert_eq!(
        (side, rule.actor.to_string().as_str(), rule.target.to_string().as_str()),
        (Side::Inbound, "a/alice", "b/r1")
    );
    let mut there = across.with(Policy { allow_write: Vec::new(), accept_write: vec![rule] });
    there.side = Side::Inbound;
    assert!(there.is_allowed(), "the named rule is the one that the other end needs");
    assert_eq!(wanted_elsewhere(world("a/alice", "a/r2", Action::ping()).case(), Side::Outbound), None);
    assert_eq!(wanted_elsewhere(world("a/alice", "b/r1", Action::StatusRead).case(), Side::Outbound), None);
}

#[test]
fn rules_that_a_deny_covers_are_found_and_others_are_not() {
    let shadowed = |allow: Rule, deny: Rule| {
        !Policy { allow_write: vec![allow, deny], accept_write: Vec::new() }.shadowed().is_empty()
    };
    let allow = || rule(RuleEffect::Allow, "cmd_invoke/ping", "a/alice", "b/r1");
    let deny = |action, actor, target| rule(RuleEffect::Deny, action, actor, target);
    for (action, actor, target, is_covered) in [
        ("*", "*", "*", true),
        ("cmd_invoke", "a/*", "b/*", true),
        ("cmd_invoke/*", "*/alice", "*/*", true),
        ("cmd_invoke/ping", "a/alice", "b/r1", true),
        ("cfg_apply", "*", "*", false),
        ("*", "a/bob", "*", false),
        ("*", "*", "b/r2", false),
        ("cmd_invoke/start", "*", "*", false),
    ] {
        assert_eq!(shadowed(allow(), deny(action, actor, target)), is_covered, "{action} {actor} {target}");
    }
    let everything = || deny("*", "*", "*");
    let timed =
        |from: u64, until: u64, rule: Rule| Rule { not_before: Some(Wall(from)), not_after: Some(Wall(until)), ..rule };
    assert!(shadowed(timed(3, 5, allow()), timed(3, 5, everything())));
    assert!(!shadowed(timed(2, 5, allow()), timed(3, 5, everything())));
    assert!(!shadowed(timed(3, 6, allow()), timed(3, 5, everything())));
    assert!(!shadowed(allow(), timed(3, 5, everything())));
    let with = |value: &str, rule: Rule| Rule { params: vec![("n".to_owned(), value.to_owned())], ..rule };
    assert!(shadowed(with("1", allow()), with("1", everything())));
    assert!(!shadowed(with("2", allow()), with("1", everything())));
    assert!(!shadowed(rule(RuleEffect::Allow, "*", "*", "*"), deny("cmd_invoke", "*", "*")));
    assert!(shadowed(rule(RuleEffect::Allow, "cmd_invoke", "*", "*"), deny("cmd_invoke/*", "*/*", "*")));
}
