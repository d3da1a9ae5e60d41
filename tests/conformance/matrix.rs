//! Who may do what to whom, in full: every actor kind, action, target and profile, with and without rules.

use std::fmt::Write as _;

use trust_runtime::domain::action::Action;
use trust_runtime::domain::identity::Role;
use trust_runtime::domain::offer::{Known, Offer};
use trust_runtime::domain::policy::{Decision, Policy, Side};
use trust_runtime::domain::preflight::{self, Asker, Case, Profile, Standing};
use trust_runtime::domain::projection::Lifecycle;

use crate::case_file::assert_golden;
use crate::world::{action, now, parsed, policy};

const GOLDEN: &str = "policy/matrix.out";

/// The runtime that is asked, and that acts in the last column.
const ME: &str = "site-a/me";

/// The targets of the first three columns.
const TARGETS: [&str; 3] = [ME, "site-a/peer", "site-b/peer"];

fn actions() -> Vec<(&'static str, Action)> {
    let plain = |name| (name, action(name, &toml::Table::new()));
    let apply = |name, table| (name, action("cfg_apply", &table));
    vec![
        plain("status_read"),
        plain("cmd_invoke/ping"),
        plain("cmd_invoke/restart"),
        plain("cmd_invoke/no-such"),
        plain("cmd_invoke/purge"),
        apply("cfg_apply live", toml::toml! { "log.level" = "warn" }),
        apply("cfg_apply wrong value", toml::toml! { "log.level" = "loud" }),
        apply("cfg_apply unknown key", toml::toml! { "no.such" = 1 }),
        apply("cfg_apply store", toml::toml! { "store.read_audit_max_mb" = 1 }),
        apply("cfg_apply protected", toml::toml! { "web.listen" = "0.0.0.0:80" }),
        apply("cfg_apply file only", toml::toml! { "workload.program" = "/bin/sh" }),
    ]
}

/// What every runtime here offers: no workload, and one command that not every role may invoke.
fn offer() -> Offer {
    Offer { commands: [(parsed("purge"), Role::Engineer)].into(), ..Offer::default() }
}

fn policies() -> [(&'static str, Policy); 2] {
    let rules = toml::toml! {
        allow_write = [{ id = "out", action = "*", target = "*" }]
        accept_write = [{ id = "in", action = "cmd_invoke/ping", actor = "site-b/*" }]
    };
    [("no rules", Policy::default()), ("rules", policy("site-a", &rules))]
}

fn shown(decision: &Decision) -> String {
    match decision {
        Decision::Allow { rule } => format!("allow by {rule}"),
        Decision::Deny(denial) => format!("{} by {}", denial.code, denial.rule),
    }
}

/// The three columns of the origin and the one of the target.
fn row(asker: &Asker, action: &Action, policy: &Policy, profile: Profile) -> [String; 4] {
    let me = parsed(ME);
    let offer = offer();
    let said = offer.capabilities();
    let standing = Some(Standing { lifecycle: Lifecycle::Online, is_secure: true });
    let [own, peer, other] = TARGETS.map(|target| {
        let target = parsed(target);
        let offer = if target == me { Known::Own(&offer) } else { Known::Said(&said) };
        let case = Case { asker, action, target: &target, origin: &me, policy, profile, offer, now: now().wall };
        shown(&preflight::decide(case, standing))
    });
    let origin = parsed(&format!("{}/origin", asker.actor.site));
    let case = Case {
        asker,
        action,
        target: &me,
        origin: &origin,
        policy,
        profile,
        offer: Known::Own(&offer),
        now: now().wall,
    };
    let here = match preflight::authorize(case, Side::Inbound) {
        Ok(rule) => Decision::Allow { rule },
        Err(denial) => Decision::Deny(denial),
    };
    [own, peer, other, shown(&here)]
}

fn matrix() -> String {
    let mut out = String::from(
        "# Made by tests/conformance; regenerate with UPDATE_GOLDEN=1 and read the difference.\n\
         # profile | rules | actor | role | action | at site-a/me, for: itself | a peer of its site | one of site-b \
         | at site-a/me as the target\n",
    );
    for profile in Profile::ALL {
        for (rules, policy) in policies() {
            for site in ["site-a", "site-b"] {
                for role in Role::ALL {
                    let actor = parsed(&format!("spiffe://trust/{site}/someone"));
                    let asker = Asker { actor, role, is_verified: true };
                    for (name, action) in actions() {
                        let cells = row(&asker, &action, &policy, profile).join(" | ");
                        writeln!(out, "{} | {rules} | {site} | {role} | {name} | {cells}", profile.as_str())
                            .expect("a string");
                    }
                }
            }
        }
    }
    out
}

#[test]
fn the_authorization_matrix_is_the_reviewed_one() {
    assert_golden(GOLDEN, &matrix());
}

/// What the golden file must say whoever regenerates it.
#[test]
fn no_cell_of_the_matrix_gives_a_guest_more_than_a_rule_does() {
    for line in matrix().lines().filter(|line| !line.starts_with('#')) {
        let cells: Vec<&str> = line.split(" | ").collect();
        let [profile, _, site, role, action, own, peer, other, here] = cells.as_slice() else { panic!("{line}") };
        let is_write = *action != "status_read";
        if is_write && *site == "site-b" {
            assert!(!here.starts_with("allow") || *here == "allow by in", "{line}");
        }
        if is_write && *site == "site-a" {
            assert!(!other.starts_with("allow") || *other == "allow by out", "{line}");
            assert!(*role != "viewer" || !(own.starts_with("allow") || peer.starts_with("allow")), "{line}");
        }
        if is_write && *profile == "wan" {
            assert!(!peer.starts_with("allow") || *peer == "allow by out", "{line}");
        }
        if action.contains("file only") || action.contains("unknown") || action.contains("wrong") {
            assert!([own, peer, other, here].iter().all(|cell| !cell.starts_with("allow")), "{line}");
        }
    }
}
