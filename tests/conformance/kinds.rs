//! Who may do what, by kind of actor: what a node answers whom it is asked by (`View::plan`), and what the target answers to the
//! envelope that comes of it (`judge`), with rules that name parameters and rules that deny.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use trust_runtime::domain::action::Action;
use trust_runtime::domain::identity::anchors::Trust;
use trust_runtime::domain::identity::authority::Authority;
use trust_runtime::domain::identity::bundle::Standing;
use trust_runtime::domain::identity::{Ban, Mapping, Naming, Role, TrustState};
use trust_runtime::domain::policy::{Decision, Policy};
use trust_runtime::domain::preflight::{Asker, Profile};
use trust_runtime::domain::projection::Presence;
use trust_runtime::engine::judge::judge;
use trust_runtime::engine::view::{Settings, View};

use crate::case_file::assert_golden;
use crate::judged::{self, Word};
use crate::sealed::{ME, fingerprint};
use crate::world::{self, now, parsed, policy};

const GOLDEN: &str = "policy/kinds.out";

/// A kind of actor, with what this runtime and its site know of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A certificate of the own site, or a token for one actor, with the role engineer.
    Engineer,
    /// The same with the role viewer.
    Viewer,
    /// The admin token.
    Admin,
    /// A token for `site-a/*` as engineer, with which somebody names an actor that a rule denies.
    WildcardToken,
    /// Nobody vouches for the actor: no credential, from the same machine.
    Local,
    /// Shut out.
    Banned,
    /// The word is admin, the grant here operator.
    GrantedLess,
    /// Of another site, with a rule for one command.
    GuestPing,
    /// Of another site, with a rule for certain parameters of `cfg_apply`.
    GuestExact,
    /// Of another site, with a rule for `cfg_apply` that names no parameters.
    GuestAny,
    /// The same, and a deny for one parameter.
    GuestDenied,
    /// Of another site, where no rule names it, as an admin.
    GuestNobody,
    /// As the one with certain parameters, and the bundle of its site is too old.
    GuestStale,
}

const KINDS: [Kind; 13] = [
    Kind::Engineer,
    Kind::Viewer,
    Kind::Admin,
    Kind::WildcardToken,
    Kind::Local,
    Kind::Banned,
    Kind::GrantedLess,
    Kind::GuestPing,
    Kind::GuestExact,
    Kind::GuestAny,
    Kind::GuestDenied,
    Kind::GuestNobody,
    Kind::GuestStale,
];

impl Kind {
    const fn is_guest(self) -> bool {
        matches!(
            self,
            Self::GuestPing
                | Self::GuestExact
                | Self::GuestAny
                | Self::GuestDenied
                | Self::GuestNobody
                | Self::GuestStale
        )
    }

    /// Its name as rules have it, and the role of its credential or of its origin's word.
    const fn word(self) -> (&'static str, Role) {
        match self {
            Self::Engineer => ("site-a/engineer", Role::Engineer),
            Self::Viewer => ("site-a/viewer", Role::Viewer),
            Self::Admin => ("site-a/admin", Role::Admin),
            Self::WildcardToken => ("site-a/denied", Role::Engineer),
            Self::Local => ("site-a/local", Role::Engineer),
            Self::Banned => ("site-a/banned", Role::Admin),
            Self::GrantedLess => ("site-a/granted", Role::Admin),
            Self::GuestPing => ("site-b/ping", Role::Viewer),
            Self::GuestExact => ("site-b/exact", Role::Viewer),
            Self::GuestAny => ("site-b/any", Role::Viewer),
            Self::GuestDenied => ("site-b/denied", Role::Viewer),
            Self::GuestNobody => ("site-b/nobody", Role::Admin),
            Self::GuestStale => ("site-c/exact", Role::Viewer),
        }
    }

    fn asker(self) -> Asker {
        let (name, role) = self.word();
        Asker { actor: parsed(&format!("spiffe://trust/{name}")), role, is_verified: self != Self::Local }
    }
}

/// Each with parameters in number and value as rules name them, and as they do not.
fn actions() -> Vec<(&'static str, Action)> {
    let apply = |name, table| (name, world::action("cfg_apply", &table));
    vec![
        ("status_read", Action::StatusRead),
        ("ping", Action::ping()),
        apply("level", toml::toml! { "log.level" = "warn" }),
        apply("level+store", toml::toml! { "log.level" = "warn" "store.read_audit_max_mb" = 1 }),
        apply("store", toml::toml! { "store.read_audit_max_mb" = 1 }),
    ]
}

fn rules() -> Policy {
    let rules = toml::toml! {
        allow_write = [
            { id = "out-ping", action = "cmd_invoke/ping", target = "*" },
            { id = "out-level", action = "cfg_apply", target = "*", params = { "log.level" = "warn" } },
            { id = "out-not", effect = "deny", action = "*", target = "*", actor = "site-a/denied" },
        ]
        accept_write = [
            { id = "in-ping", action = "cmd_invoke/ping", actor = "site-b/ping" },
            { id = "in-exact", action = "cfg_apply", actor = "site-b/exact", params = { "log.level" = "warn" } },
            { id = "in-stale", action = "cfg_apply", actor = "site-c/exact", params = { "log.level" = "warn" } },
            { id = "in-any", action = "cfg_apply", actor = "site-b/any" },
            { id = "in-some", action = "cfg_apply", actor = "site-b/denied" },
            { id = "in-not", effect = "deny", action = "cfg_apply", actor = "site-b/denied", params = { "store.read_audit_max_mb" = 1 } },
            { id = "own-not", effect = "deny", action = "*", actor = "site-a/denied" },
        ]
    };
    policy("site-a", &rules)
}

/// This runtime, off loopback, which knows an online runtime of each site.
fn view(profile: Profile) -> View {
    let mut settings = Settings { is_mesh_on_loopback: false, ..world::settings(ME, profile, rules()) };
    settings.grants = vec![(parsed("site-a/granted"), Role::Operator)];
    let mut trust = Trust::new(Naming { trust_domain: parsed("trust"), mapping: Mapping::PathSite });
    trust.bans.add(Ban::of_id(&parsed(&Kind::Banned.asker().actor.to_string())));
    settings.authority = Some(Authority::new(trust));
    settings.partners = BTreeMap::from([(parsed("site-c"), Standing::default())]);
    let known = |site: &str| {
        let runtime = format!("{site}/origin");
        let known = world::Known { runtime: runtime.clone(), lifecycle: "online".to_owned(), is_secure: true };
        let mut presence = Presence::default();
        presence.hear(now().monotonic);
        let peer = world::peer(fingerprint("origin"), presence);
        (
            parsed(&runtime),
            Arc::new(trust_runtime::engine::view::Peer {
                trust: TrustState::Trusted,
                identity: known.peer().identity,
                ..peer
            }),
        )
    };
    View {
        peers: ["site-a", "site-b", "site-c"].map(known).into_iter().collect(),
        ..world::view(settings, fingerprint("target"))
    }
}

fn shown(decision: &Decision) -> String {
    match decision {
        Decision::Allow { rule } => format!("allow by {rule}"),
        Decision::Deny(denial) => format!("{} by {}", denial.code, denial.rule),
    }
}

/// One row: the three answers of this runtime as the origin, for those of its own site, and its answer as the target.
fn row(view: &View, kind: Kind, action: &Action) -> Vec<String> {
    let asker = kind.asker();
    let mut cells: Vec<String> = if kind.is_guest() {
        // No credential opens a node for somebody of another site: it never plans for him.
        vec!["-".to_owned(); 4]
    } else {
        let targets = [ME, "site-a/origin", "site-b/origin", "site-c/origin"].map(parsed);
        view.plan(&asker, action, &targets, now()).rows.iter().map(|row| shown(&row.decision)).collect()
    };
    let site = asker.actor.site.to_string();
    let mut received = judged::of_word(Word { site: &site, actor: &asker, key: "origin", is_proved: true }, action);
    if let (Some(vouched), Some(authority)) = (&mut received.signer.vouched, &view.settings.authority) {
        vouched.authority = authority.name();
    }
    cells.push(match judge(view, &received, now().wall) {
        Ok(rule) => shown(&Decision::Allow { rule }),
        Err(denial) => shown(&Decision::Deny(denial)),
    });
    cells
}

/// Every case with its cells: at the origin for itself and for one of each site, then at the target.
fn cases() -> Vec<(Profile, Kind, &'static str, Vec<String>)> {
    let mut cases = Vec::new();
    for profile in Profile::ALL {
        let view = view(profile);
        for kind in KINDS {
            let rows = actions().into_iter().map(|(name, action)| (profile, kind, name, row(&view, kind, &action)));
            cases.extend(rows);
        }
    }
    cases
}

#[test]
fn what_each_kind_of_actor_may_do_is_the_reviewed_table() {
    let mut got = String::from(
        "# Made by tests/conformance; regenerate with UPDATE_GOLDEN=1 and read the difference.\n\
         # profile | actor | action | planned here, for: itself | one of site-a | one of site-b | one of site-c, whose bundle is \
         too old | judged here as the target\n",
    );
    for (profile, kind, action, cells) in cases() {
        writeln!(got, "{} | {kind:?} | {action} | {}", profile.as_str(), cells.join(" | ")).expect("a string");
    }
    assert_golden(GOLDEN, &got);
}

/// What the golden file must say whoever regenerates it.
#[test]
fn no_kind_of_actor_gets_more_than_its_credential_its_grant_and_the_rules_give() {
    for (profile, kind, action, cells) in cases() {
        let case = format!("{profile:?} {kind:?} {action}: {cells:?}");
        let [own, peer, other, stale, here] = cells.as_slice() else { panic!("{case}") };
        let allows = |cell: &String| cell.starts_with("allow");
        let none = !cells.iter().any(allows);
        let is_write = action != "status_read";
        match kind {
            Kind::Banned => assert!(none, "{case}"),
            Kind::Viewer => assert!(none || !is_write, "{case}"),
            Kind::WildcardToken => assert!(!is_write || none, "{case}"),
            Kind::GrantedLess => assert!(!(is_write && action != "ping") || !(allows(own) || allows(here)), "{case}"),
            Kind::Local => assert!(profile == Profile::Dev || !allows(here), "{case}"),
            Kind::GuestPing => assert!(!is_write || allows(here) == (action == "ping"), "{case}"),
            Kind::GuestExact => assert!(!is_write || allows(here) == (action == "level"), "{case}"),
            Kind::GuestAny => assert!(!is_write || allows(here) == (action != "ping"), "{case}"),
            Kind::GuestDenied => assert!(!is_write || allows(here) == (action == "level"), "{case}"),
            Kind::GuestNobody | Kind::GuestStale => assert!(!(is_write && allows(here)), "{case}"),
            Kind::Engineer => assert!(!action.contains("store") || none, "{case}"),
            Kind::Admin => assert!(!is_write || allows(own), "{case}"),
        }
        assert!(!is_write || !allows(stale), "{case}");
        assert!(!action.contains("store") || !allows(other), "{case}");
        if is_write && profile == Profile::Wan && allows(peer) {
            assert!(peer.starts_with("allow by out-"), "{case}");
        }
    }
}
