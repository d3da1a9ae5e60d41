//! One node: what outlives a crash (disk, identity key, clock fault) and what does not (everything in [`Live`]).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use trust_runtime::domain::action::ActionKind;
use trust_runtime::domain::audit::Hash;
use trust_runtime::domain::id::RuntimeId;
use trust_runtime::domain::identity::{IdentityKey, Role};
use trust_runtime::domain::policy::{Pattern, Policy, Rule, RuleEffect};
use trust_runtime::domain::preflight::{Asker, Profile};
use trust_runtime::domain::projection::Edge;
use trust_runtime::domain::run::RunId;
use trust_runtime::domain::time::{Monotonic, NANOS_PER_MILLI, Now, Wall};
use trust_runtime::engine::Engine;
use trust_runtime::engine::record::Deed;
use trust_runtime::engine::view::{Settings, View};
use trust_runtime::engine::word::Identity;
use trust_runtime::wire::mesh::Keys;

use crate::authority::authority;
use crate::chance::Chance;
use crate::disk::Disk;
use crate::dispatch::Dispatch;
use crate::turn::{Mail, Turn};
use crate::witness::Shown;
use crate::work::{Kept, offer};
use crate::world::Event;

/// Where virtual wall time begins, in Unix milliseconds.
const WALL_BEGINS: u64 = 1_800_000_000_000;

/// What a world is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) nodes: usize,
    pub(crate) profile: Profile,
    pub(crate) is_loopback: bool,
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: RuntimeId,
    pub(crate) identity: IdentityKey,
    pub(crate) disk: Disk,
    /// Its runs, where their events are.
    pub(crate) shelf: BTreeMap<RunId, Kept>,
    pub(crate) live: Option<Live>,
    /// Counts the lives of this node: what belongs to an earlier one is void.
    pub(crate) epoch: u64,
    pub(crate) wall_fault_ms: i64,
    pub(crate) is_frozen: bool,
    /// What happened to it while it was frozen.
    pub(crate) held: Vec<Event>,
    pub(crate) policy: usize,
}

/// What a crash takes away.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) engine: Engine,
    /// What readers see: the view after the last commit.
    pub(crate) view: View,
    pub(crate) keys: Keys,
    pub(crate) entropy: Chance,
    pub(crate) booted_at: u64,
    /// The heads that it has shown, by the hash of the message.
    pub(crate) shown: BTreeMap<Hash, Shown>,
    /// The texts that it is asked to countersign, by the same.
    pub(crate) asked: BTreeMap<Hash, String>,
    pub(crate) inbox: VecDeque<Mail>,
    pub(crate) turn: Option<Turn>,
    /// What the workload was told, until that is concluded.
    pub(crate) deeds: BTreeMap<u64, Box<Deed>>,
    pub(crate) dispatches: BTreeMap<u64, Dispatch>,
    /// Probes under way: whom, since when.
    pub(crate) probes: BTreeMap<String, (usize, u64)>,
    pub(crate) observations: u64,
    pub(crate) envelopes: u64,
    /// Names queries and replies.
    pub(crate) names: u64,
    pub(crate) timer_at: Option<u64>,
    pub(crate) said: Option<(Identity, Vec<u8>)>,
    pub(crate) said_edges: Vec<Edge>,
}

impl Node {
    pub(crate) fn monotonic_of(&self, world_ms: u64) -> Monotonic {
        let booted_at = self.live.as_ref().map_or(world_ms, |live| live.booted_at);
        Monotonic((world_ms - booted_at) * NANOS_PER_MILLI)
    }

    pub(crate) fn now(&self, world_ms: u64) -> Now {
        let wall = (WALL_BEGINS + world_ms).saturating_add_signed(self.wall_fault_ms);
        Now { wall: Wall::from_millis(wall), monotonic: self.monotonic_of(world_ms) }
    }

    pub(crate) fn is_running(&self) -> bool {
        self.live.is_some() && !self.is_frozen
    }
}

/// The true time, as a node without a clock fault reads it.
pub(crate) fn true_wall(world_ms: u64) -> Wall {
    Wall::from_millis(WALL_BEGINS + world_ms)
}

pub(crate) fn runtime(index: usize) -> RuntimeId {
    format!("plant-1/n{index}").parse().expect("legal")
}

pub(crate) fn role_of(principal: &str) -> Role {
    match principal {
        "admin" => Role::Admin,
        "alice" | "eve" => Role::Engineer,
        "bob" => Role::Operator,
        _ => Role::Viewer,
    }
}

pub(crate) fn asker(principal: &str) -> Asker {
    let actor = format!("spiffe://trust/plant-1/{principal}").parse().expect("legal");
    Asker { actor, role: role_of(principal), is_verified: true }
}

/// What the policies refuse, written down a second time: the oracle must not ask the code under test.
pub(crate) fn refuses(policy: usize, principal: &str, kind: ActionKind) -> bool {
    match kind {
        ActionKind::StatusRead => false,
        ActionKind::CfgApply => principal == "eve" || (policy == 2 && principal == "alice"),
        ActionKind::CmdInvoke => policy == 1,
    }
}

fn policy(variant: usize) -> Policy {
    let mut accept_write = vec![deny("cfg_apply", "plant-1/eve")];
    match variant {
        1 => accept_write.push(deny("cmd_invoke", "*")),
        2 => accept_write.push(deny("cfg_apply", "plant-1/alice")),
        _ => {}
    }
    Policy { allow_write: Vec::new(), accept_write }
}

fn deny(action: &str, actor: &str) -> Rule {
    Rule {
        id: format!("no-{action}"),
        effect: RuleEffect::Deny,
        action: action.parse::<Pattern>().expect("legal"),
        actor: actor.parse().expect("legal"),
        target: Pattern::everything(),
        params: Vec::new(),
        not_before: None,
        not_after: None,
        reason: None,
    }
}

pub(crate) fn settings(setup: Setup, index: usize, variant: usize) -> Arc<Settings> {
    Arc::new(Settings {
        profile: setup.profile,
        is_mesh_on_loopback: setup.is_loopback,
        is_secure: setup.profile != Profile::Dev,
        policy: policy(variant),
        policy_hash: Hash::of(&[u8::try_from(variant).unwrap_or(0)]),
        authority: authority(setup.profile),
        offer: offer(),
        ..Settings::unset(runtime(index), asker("alice").actor.trust_domain)
    })
}
