//! What `policy explain` says of a write that comes in is what the target decides of the signed request.

use std::collections::BTreeMap;
use std::sync::Arc;

use trust_runtime::domain::action::{Action, ActionKind};
use trust_runtime::domain::audit::Hash;
use trust_runtime::domain::envelope::dsse::PublicKey;
use trust_runtime::domain::envelope::{Delegation, Envelope, Voucher};
use trust_runtime::domain::identity::authority::Vouched;
use trust_runtime::domain::identity::{Actor, IdentityKey, Role, TrustState};
use trust_runtime::domain::offer::Known;
use trust_runtime::domain::policy::explain::explain;
use trust_runtime::domain::policy::{Side, granted_role};
use trust_runtime::domain::preflight::{Asker, Case, Profile};
use trust_runtime::domain::projection::Presence;
use trust_runtime::domain::time::{Millis, Wall};
use trust_runtime::engine::input::Received;
use trust_runtime::engine::judge::judge;
use trust_runtime::engine::view::View;
use trust_runtime::engine::word::Signer;

use crate::world::{self, action, now, parsed, peer, policy, settings, view};

const ME: &str = "site-a/me";

/// A target with rules, grants, and a trusted peer in each of two sites.
fn target() -> View {
    let rules = toml::toml! {
        accept_write = [
            { id = "in", action = "cmd_invoke/ping", actor = "site-b/*" },
            { id = "not-mallory", effect = "deny", action = "*", actor = "site-b/mallory" },
            { id = "not-own-bob", effect = "deny", action = "cfg_apply", actor = "site-a/bob" },
        ]
    };
    let mut settings = settings(ME, Profile::Dev, policy("site-a", &rules));
    settings.grants = [("site-a/alice", Role::Viewer), ("site-b/*", Role::Operator), ("site-b/eve", Role::Admin)]
        .map(|(actor, role)| (parsed(actor), role))
        .to_vec();
    let mut view = view(settings, key(1).fingerprint());
    let mut peer = peer(key(2).fingerprint(), Presence::default());
    peer.trust = TrustState::Trusted;
    let peer = Arc::new(peer);
    let peers = ["site-a", "site-b"].map(|site| (parsed(&format!("{site}/origin")), Arc::clone(&peer)));
    view.peers = peers.into_iter().collect();
    view
}

fn key(seed: u8) -> IdentityKey {
    IdentityKey::from_seed([seed; 32])
}

fn received(actor: &Actor, role: Role, action: &Action) -> Received {
    let origin = parsed(&format!("{}/origin", actor.site));
    let wall = now().wall;
    let delegation = Delegation {
        runtime: origin,
        voucher: Voucher::Key(key(2).public().to_bytes()),
        envelope_key: PublicKey::new(key(3).public().to_bytes()),
        not_before: wall,
        not_after: wall.plus(Millis::from_hours(1)),
    };
    let envelope = Envelope {
        target: parsed(ME),
        target_key: key(1).fingerprint(),
        target_boot: (!action.kind().is_read()).then_some(world::BOOT),
        origin: delegation.runtime.clone(),
        actor: actor.clone(),
        role,
        actor_verified: true,
        request_id: parsed("r"),
        action: action.clone(),
        issued: wall,
        expires: wall.plus(ActionKind::StatusRead.window()),
        boot: 1,
        sequence: 1,
        policy_hash: Hash::of(b""),
    };
    // In plant and wan a bare key is nobody; here only the rules are asked.
    let vouched = Some(Vouched { until: Wall(u64::MAX), authority: world::authority().name() });
    let signer = Signer {
        delegation: Arc::new(delegation),
        delegation_hash: Hash::of(b""),
        identity: key(2).fingerprint(),
        vouched,
    };
    Received { signer, envelope, digest: Hash::of(b"") }
}

#[test]
fn the_explanation_of_what_comes_in_is_the_targets_decision() {
    let view = target();
    let mut seen = BTreeMap::new();
    for actor in ["site-a/alice", "site-a/bob", "site-a/carol", "site-b/bob", "site-b/eve", "site-b/mallory"] {
        for role in Role::ALL {
            for name in ["status_read", "cmd_invoke/ping", "cmd_invoke/no-such", "cfg_apply"] {
                let params = if name == "cfg_apply" {
                    toml::toml! { "log.level" = "warn" }
                } else {
                    toml::Table::new()
                };
                let (actor, action): (Actor, _) = (parsed(&format!("spiffe://trust/{actor}")), action(name, &params));
                let received = received(&actor, role, &action);
                let decided = judge(&view, &received, now().wall);
                let role = granted_role(&view.settings.grants, &actor, role, &view.me().site);
                let asker = Asker { actor, role, is_verified: true };
                let case = Case {
                    asker: &asker,
                    action: &action,
                    target: view.me(),
                    origin: &received.envelope.origin,
                    policy: &view.settings.policy,
                    profile: view.settings.profile,
                    offer: Known::Own(&view.settings.offer),
                    now: now().wall,
                };
                let explained = explain(case, Side::Inbound).outcome;
                assert_eq!(explained, decided, "{} {name} {role}", asker.actor);
                *seen.entry(decided.map_err(|denial| denial.rule).is_ok()).or_insert(0) += 1;
            }
        }
    }
    assert!(seen.values().all(|count| *count > 10) && seen.len() == 2, "both answers were given: {seen:?}");
}
