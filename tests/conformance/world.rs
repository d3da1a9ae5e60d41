//! A runtime's snapshot made by hand: who it is, which rules it has, and what it knows of others.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use trust_runtime::domain::action::{Action, ActionKind};
use trust_runtime::domain::audit::Hash;
use trust_runtime::domain::identity::anchors::Trust;
use trust_runtime::domain::identity::authority::Authority;
use trust_runtime::domain::identity::{Fingerprint, IdentityKey, Mapping, Naming};
use trust_runtime::domain::policy::Policy;
use trust_runtime::domain::preflight::Profile;
use trust_runtime::domain::projection::{Limits, Presence};
use trust_runtime::domain::time::{Millis, Monotonic, Now, Wall};
use trust_runtime::engine::view::{ClockState, Peer, Peers, Settings, View};
use trust_runtime::engine::word::Identity;
use trust_runtime::wire::value;

/// The moment of every case that names no other, in milliseconds of both clocks.
pub(crate) const NOW_MS: u64 = 1_800_000_000_000;

/// In which boot the target of every case is.
pub(crate) const BOOT: u64 = 3;

pub(crate) fn now() -> Now {
    Now { wall: Wall::from_millis(NOW_MS), monotonic: Monotonic(Millis(NOW_MS).as_nanos()) }
}

pub(crate) fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> T {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// A closed word of the product by its text.
pub(crate) fn profile(text: &str) -> Profile {
    let found = Profile::ALL.into_iter().find(|it| it.as_str() == text);
    found.unwrap_or_else(|| panic!("no profile {text}"))
}

/// An action as case files write it: `status_read`, `cmd_invoke/<command>` or `cfg_apply`, with parameters.
pub(crate) fn action(text: &str, params: &toml::Table) -> Action {
    let (kind, command) = match text.split_once('/') {
        Some((kind, command)) => (kind, Some(command)),
        None => (text, None),
    };
    let params = serde_json::to_value(params).expect("JSON");
    let params: BTreeMap<String, serde_json::Value> = serde_json::from_value(params).expect("an object");
    value::action(parsed::<ActionKind>(kind), command, params).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Reads `allow_write` and `accept_write` as a settings file has them.
pub(crate) fn policy(own_site: &str, rules: &toml::Table) -> Policy {
    let file = toml::toml! {
        [bundle]
        version = 1
        [resource]
        name = "own"
        [runtime.mesh]
        zenohd_version = "1.7.2"
    };
    let mut file = file;
    let runtime = file["runtime"].as_table_mut().expect("a table");
    runtime.insert("identity".to_owned(), toml::Table::from_iter([("site".to_owned(), own_site.into())]).into());
    let cloud = [("profile".to_owned(), toml::Value::from("dev")), ("wan".to_owned(), rules.clone().into())];
    runtime.insert("cloud".to_owned(), toml::Table::from_iter(cloud).into());
    let text = toml::to_string(&file).expect("TOML");
    let settings = trust_runtime::settings::parse(&text, "case", "own", []);
    settings.unwrap_or_else(|problems| panic!("{problems}\n{text}")).policy
}

/// A trust in which nobody is known by an anchor: what is vouched for under its name counts, and nothing new is.
pub(crate) fn authority() -> Authority {
    Authority::new(Trust::new(Naming { trust_domain: parsed("trust"), mapping: Mapping::PathSite }))
}

/// Settings of `me` with these rules.
pub(crate) fn settings(me: &str, profile: Profile, policy: Policy) -> Settings {
    Settings {
        profile,
        is_secure: true,
        policy,
        policy_hash: Hash::of(b"a policy"),
        authority: Some(authority()),
        version: "0.1.0".to_owned(),
        ..Settings::unset(parsed(me), parsed("trust"))
    }
}

/// A snapshot without peers.
pub(crate) fn view(settings: Settings, identity: Fingerprint) -> View {
    View {
        generation: 1,
        limits: settings.limits,
        settings: Arc::new(settings),
        identity,
        retired: Arc::default(),
        boot: BOOT,
        started: now(),
        peers: Peers::default(),
        witnessing: Arc::default(),
        overlay: Arc::default(),
        runs: Arc::default(),
        timeline: Arc::default(),
        clock: ClockState::Certain,
        refused: Arc::default(),
        is_read_only: false,
    }
}

/// What a case file says of one peer.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Known {
    pub(crate) runtime: String,
    /// `online`, `stale`, `partitioned` or `offline`.
    pub(crate) lifecycle: String,
    #[serde(default)]
    pub(crate) is_secure: bool,
}

impl Known {
    /// The peer, heard when its state says.
    pub(crate) fn peer(&self) -> Peer {
        let limits = Limits::default();
        let heard = |ago: Millis| Some(Monotonic(now().monotonic.0 - ago.as_nanos()));
        let presence = |heard| Presence { heard, ..Presence::default() };
        let presence = match self.lifecycle.as_str() {
            "online" => presence(heard(Millis(0))),
            "stale" => presence(heard(limits.stale)),
            "partitioned" => presence(heard(limits.partition)),
            "offline" => presence(None),
            other => panic!("no state {other}"),
        };
        let mut peer = peer(IdentityKey::from_seed([8; 32]).fingerprint(), presence);
        peer.identity = Some(Arc::new(self.identity()));
        peer
    }

    fn identity(&self) -> Identity {
        Identity {
            runtime: parsed(&self.runtime),
            boot: 1,
            at: now().wall,
            api_version: "1.0".to_owned(),
            version: "0.1.0".to_owned(),
            capabilities: Vec::new(),
            host: None,
            web: None,
            is_secure: self.is_secure,
            policy_hash: Hash::of(b""),
            config_revision: 0,
            config_etag: Hash::of(b""),
        }
    }
}

/// A peer of which only the pinned key and its presence are known.
pub(crate) fn peer(pinned: Fingerprint, presence: Presence) -> Peer {
    Peer { boot: 1, presence, ..Peer::unheard(pinned) }
}
