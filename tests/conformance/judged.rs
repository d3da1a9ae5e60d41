//! What a target answers to an envelope whose signature holds, in full: who the actor is there, what is known of the origin and of
//! this runtime itself, in every profile.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use trust_runtime::domain::action::Action;
use trust_runtime::domain::audit::Hash;
use trust_runtime::domain::envelope::dsse::PublicKey;
use trust_runtime::domain::envelope::{Delegation, Envelope, Voucher};
use trust_runtime::domain::identity::anchors::Trust;
use trust_runtime::domain::identity::authority::{Authority, Vouched};
use trust_runtime::domain::identity::bundle::Standing;
use trust_runtime::domain::identity::{Ban, Mapping, Naming, Role, TrustState};
use trust_runtime::domain::preflight::{Asker, Profile};
use trust_runtime::domain::projection::Presence;
use trust_runtime::domain::time::Millis;
use trust_runtime::engine::input::Received;
use trust_runtime::engine::judge::judge;
use trust_runtime::engine::view::{ClockState, View};
use trust_runtime::engine::word::Signer;

use crate::case_file::assert_golden;
use crate::sealed::{ME, fingerprint};
use crate::world::{self, now, parsed, policy};

const GOLDEN: &str = "policy/judged.out";

/// What is known of the actor. All of them come with the word of their origin that they are engineers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    /// A credential vouched for it at the origin.
    Verified,
    /// Nothing did.
    Unverified,
    /// A grant of the target makes it a viewer.
    GrantedViewer,
    /// A grant of the target makes it an engineer.
    GrantedEngineer,
    /// Shut out at the target.
    Banned,
}

/// What is known of the origin and of the target itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// Trusted, and a certificate of its site proves its key.
    Proved,
    /// A person approved it, and nothing else vouches for it.
    Approved,
    /// Only seen.
    Seen,
    /// It signs by another key than the one that is pinned.
    AnotherKey,
    /// It is in a newer boot than the envelope.
    Restarted,
    /// Proved, and the target's clock is uncertain.
    ClockUncertain,
    /// Proved, and its site's bundle is too old.
    BundleStale,
}

const WHO: [Who; 5] = [Who::Verified, Who::Unverified, Who::GrantedViewer, Who::GrantedEngineer, Who::Banned];

const KNOWN: [Known; 7] = [
    Known::Proved,
    Known::Approved,
    Known::Seen,
    Known::AnotherKey,
    Known::Restarted,
    Known::ClockUncertain,
    Known::BundleStale,
];

const SITES: [&str; 2] = ["site-a", "site-b"];

fn actions() -> [(&'static str, Action); 3] {
    let apply = toml::toml! { "log.level" = "warn" };
    [
        ("status_read", Action::StatusRead),
        ("cmd_invoke/ping", Action::ping()),
        ("cfg_apply", world::action("cfg_apply", &apply)),
    ]
}

/// The target, off loopback: its rules accept a ping of everybody in the other site and nothing else from there.
fn view(profile: Profile, site: &str, who: Who, known: Known) -> View {
    let rules = toml::toml! { accept_write = [{ id = "in", action = "cmd_invoke/ping", actor = "site-b/*" }] };
    let mut settings = world::settings(ME, profile, policy("site-a", &rules));
    settings.is_mesh_on_loopback = false;
    settings.grants = match who {
        Who::GrantedViewer => vec![(parsed("*/alice"), Role::Viewer)],
        Who::GrantedEngineer => vec![(parsed("*/alice"), Role::Engineer)],
        Who::Verified | Who::Unverified | Who::Banned => Vec::new(),
    };
    let mut trust = Trust::new(Naming { trust_domain: parsed("trust"), mapping: Mapping::PathSite });
    if who == Who::Banned {
        trust.bans.add(Ban::of_id(&parsed(&actor(site))));
    }
    settings.authority = Some(Authority::new(trust));
    if known == Known::BundleStale && site != "site-a" {
        settings.partners = BTreeMap::from([(parsed(site), Standing::default())]);
    }
    let mut presence = Presence::default();
    presence.hear(now().monotonic);
    let mut peer = world::peer(fingerprint("origin"), presence);
    peer.trust = if known == Known::Seen { TrustState::Untrusted } else { TrustState::Trusted };
    peer.boot = if known == Known::Restarted { 9 } else { 1 };
    View {
        peers: [(parsed(&origin(site)), Arc::new(peer))].into_iter().collect(),
        clock: if known == Known::ClockUncertain { ClockState::Uncertain } else { ClockState::Certain },
        ..world::view(settings, fingerprint("target"))
    }
}

fn origin(site: &str) -> String {
    format!("{site}/origin")
}

fn actor(site: &str) -> String {
    format!("spiffe://trust/{site}/alice")
}

fn received(site: &str, who: Who, known: Known, action: &Action) -> Received {
    let asker = Asker { actor: parsed(&actor(site)), role: Role::Engineer, is_verified: who != Who::Unverified };
    let key = if known == Known::AnotherKey { "stranger" } else { "origin" };
    let is_proved = !matches!(known, Known::Approved | Known::Seen);
    of_word(Word { site, actor: &asker, key, is_proved }, action)
}

/// What an origin says of an actor, and by which key.
pub(crate) struct Word<'a> {
    pub(crate) site: &'a str,
    pub(crate) actor: &'a Asker,
    pub(crate) key: &'a str,
    pub(crate) is_proved: bool,
}

/// An envelope whose signature holds.
pub(crate) fn of_word(Word { site, actor, key, is_proved }: Word<'_>, action: &Action) -> Received {
    let wall = now().wall;
    let key = fingerprint(key);
    let envelope = Envelope {
        target: parsed(ME),
        target_key: fingerprint("target"),
        target_boot: (!action.kind().is_read()).then_some(world::BOOT),
        origin: parsed(&origin(site)),
        actor: actor.actor.clone(),
        role: actor.role,
        actor_verified: actor.is_verified,
        request_id: parsed("request-1"),
        expires: wall.plus(action.kind().window()),
        action: action.clone(),
        issued: wall,
        boot: 5,
        sequence: 1,
        policy_hash: Hash::of(b"a policy"),
    };
    let delegation = Delegation {
        runtime: envelope.origin.clone(),
        voucher: Voucher::Certificate(key),
        envelope_key: PublicKey::new([7; 32]),
        not_before: wall,
        not_after: wall.plus(Millis::from_hours(1)),
    };
    let vouched =
        Vouched { until: wall.plus(Millis::from_hours(1)), authority: Hash::of(b"the trust of the receiver") };
    let signer = Signer {
        delegation: Arc::new(delegation),
        delegation_hash: Hash::of(b"a delegation"),
        identity: key,
        vouched: is_proved.then_some(vouched),
    };
    Received { signer, envelope, digest: Hash::of(b"an envelope") }
}

/// One cell: the rule that allows it, or the code and the rule of the denial.
fn judged(profile: Profile, site: &str, who: Who, known: Known, action: &Action) -> String {
    let view = view(profile, site, who, known);
    let mut received = received(site, who, known, action);
    if let (Some(vouched), Some(authority)) = (&mut received.signer.vouched, &view.settings.authority) {
        vouched.authority = authority.name();
    }
    match judge(&view, &received, now().wall) {
        Ok(rule) => format!("allow by {rule}"),
        Err(denial) => format!("{} by {}", denial.code, denial.rule),
    }
}

/// Every case with its answers, one for each action.
fn cases() -> Vec<(Profile, &'static str, Who, Known, [String; 3])> {
    let mut cases = Vec::new();
    for profile in Profile::ALL {
        for site in SITES {
            for known in KNOWN {
                for who in WHO {
                    let cells = actions().map(|(_, action)| judged(profile, site, who, known, &action));
                    cases.push((profile, site, who, known, cells));
                }
            }
        }
    }
    cases
}

#[test]
fn what_a_target_answers_is_the_reviewed_table() {
    let names = actions().map(|(name, _)| name).join(" | ");
    let mut got = format!(
        "# Made by tests/conformance; regenerate with UPDATE_GOLDEN=1 and read the difference.\n\
         # profile | site of origin and actor | origin | actor, an engineer by its origin's word | {names}\n"
    );
    for (profile, site, who, known, cells) in cases() {
        writeln!(got, "{} | {site} | {known:?} | {who:?} | {}", profile.as_str(), cells.join(" | ")).expect("a string");
    }
    assert_golden(GOLDEN, &got);
}

/// What the golden file must say whoever regenerates it.
#[test]
fn nobody_acts_at_a_target_without_proof_of_origin_and_actor() {
    let allows = |cell: &String| cell.starts_with("allow");
    let (mut allowed, mut denied) = (0, 0);
    for (profile, site, who, known, [read, ping, apply]) in cases() {
        let case = format!("{profile:?} {site} {who:?} {known:?}: {read}, {ping}, {apply}");
        let is_dev = profile == Profile::Dev;
        let of_all = [&read, &ping, &apply];
        let none = of_all.iter().all(|cell| !allows(cell));
        if who == Who::Banned || matches!(known, Known::AnotherKey | Known::Restarted) {
            assert!(none, "{case}");
        }
        if !is_dev && (who == Who::Unverified || matches!(known, Known::Approved | Known::Seen)) {
            assert!(none, "{case}");
        }
        if known == Known::Seen || (known == Known::ClockUncertain && !is_dev) {
            assert!(!allows(&ping) && !allows(&apply), "{case}");
        }
        if site == "site-b" {
            assert!(!allows(&apply) && (!allows(&ping) || ping == "allow by in"), "{case}");
            assert!(known != Known::BundleStale || !allows(&ping), "{case}");
        }
        if who == Who::GrantedViewer && site == "site-a" {
            assert!(!allows(&ping) && !allows(&apply), "{case}");
        }
        allowed += of_all.iter().filter(|cell| allows(cell)).count();
        denied += of_all.iter().filter(|cell| !allows(cell)).count();
    }
    assert!(allowed > 50 && denied > 50, "both answers were given: {allowed} and {denied}");
}
