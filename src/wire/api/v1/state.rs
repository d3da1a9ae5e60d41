//! The fleet as one document. The part that is the same for every reader is written once per snapshot and shared.
//!
//! Nothing unknown is shown as healthy or in sync: what is not heard now is `degraded` and `pending` while stale, `faulted` and
//! `pending` once partitioned or offline.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use utoipa::ToSchema;

use super::{API_VERSION, encode};
use crate::domain::audit::Hash;
use crate::domain::envelope::Health;
use crate::domain::id::{RuntimeId, SiteId};
use crate::domain::identity::{Role, TrustState};
use crate::domain::projection::{Edge, EdgeState, Lifecycle};
use crate::domain::time::{Monotonic, Now, Wall};
use crate::domain::workload;
use crate::engine::view::{Category, ClockState, Event, Peer, Severity, TIMELINE_MAX, View};

/// Most nodes in one answer (DESIGN, *Scale*).
pub const NODES_MAX: usize = 2_000;

/// Most edges in one answer (DESIGN, *Scale*).
pub const EDGES_MAX: usize = 10_000;

/// What this version offers. A reader asks here instead of trying.
const FEATURES: [(&str, bool); 9] = [
    ("audit", true),
    ("config", false),
    ("control", true),
    ("dispatch", true),
    ("ha", false),
    ("links", false),
    ("preflight", true),
    ("rollouts", false),
    ("state_stream", true),
];

/// The fleet as this runtime sees it.
#[derive(Debug, Serialize, ToSchema)]
pub struct StateBody {
    api_version: &'static str,
    context: ContextBody,
    topology: TopologyBody,
    /// Newest first; one row per transition.
    timeline: Vec<EventBody>,
    /// What this version offers.
    feature_flags: BTreeMap<&'static str, bool>,
}

/// Through whom, as whom and when.
#[derive(Debug, Serialize, ToSchema)]
pub struct ContextBody {
    connected_via: String,
    /// The runtimes that an action without further choice is for: this one.
    acting_on: Vec<String>,
    /// The sites that this runtime knows members of.
    site_scope: Vec<String>,
    /// Who reads.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    identity: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    role: Option<&'static str>,
    /// `view` or `edit`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    mode: Option<&'static str>,
    /// `dev`, `plant` or `wan`.
    profile: &'static str,
    /// `certain` or `uncertain`.
    clock: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    generated_at_ns: Option<u64>,
}

/// Runtimes and links.
#[derive(Debug, Serialize, ToSchema)]
pub struct TopologyBody {
    nodes: Vec<NodeBody>,
    edges: Vec<EdgeBody>,
    /// Runtimes known to share a host, two or more each.
    host_groups: Vec<HostGroupBody>,
    /// What did not fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    omitted: Option<OmittedBody>,
}

/// How many rows were left out of an answer that would have been too long.
#[derive(Debug, Serialize, ToSchema)]
pub struct OmittedBody {
    nodes: usize,
    edges: usize,
}

/// One runtime.
#[derive(Debug, Serialize, ToSchema)]
pub struct NodeBody {
    runtime_id: String,
    site: String,
    display_name: String,
    /// `ACTIVE`, `STANDBY` or `MEMBER`.
    role: &'static str,
    /// `online`, `stale`, `partitioned` or `offline`.
    lifecycle_state: &'static str,
    /// `healthy`, `degraded` or `faulted`.
    health_state: &'static str,
    /// `trusted` or `untrusted`.
    trust_state: &'static str,
    /// `in_sync`, `pending`, `blocked` or `error`.
    config_state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    last_seen_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    version: Option<String>,
    boot_id: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    host: Option<String>,
    /// SHA-256 of the identity key.
    fingerprint: String,
    capabilities: Vec<String>,
    /// When and how each fact was learned, by fact.
    observed: BTreeMap<&'static str, EvidenceBody>,
    /// The program that it keeps running: only of the answering runtime, and only if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    workload: Option<WorkloadBody>,
}

/// A runtime's workload.
#[derive(Debug, Serialize, ToSchema)]
pub struct WorkloadBody {
    /// `stopped`, `starting`, `running`, `paused`, `stopping`, `backing_off` or `failed`.
    state: &'static str,
    /// The program's number on its machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pid: Option<u32>,
    /// How often it was started again by itself since the node started.
    restarts: u64,
    /// Since when it is in this state.
    since_ns: u64,
    /// How the program before ended, or why it did not start.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    last_exit: Option<String>,
}

impl WorkloadBody {
    fn of(status: &workload::Status) -> Self {
        Self {
            state: status.state.as_str(),
            pid: status.pid,
            restarts: status.restarts,
            since_ns: status.since.0,
            last_exit: status.last_exit.clone(),
        }
    }
}

/// When and how a fact was learned.
#[derive(Debug, Serialize, ToSchema)]
pub struct EvidenceBody {
    /// `own_state`, `signed_word`, `signed_identity`, `goodbye`, `token_gone`, `silence` or `pinned_key`.
    how: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    at_ns: Option<u64>,
}

/// One directed link as its source measured it.
#[derive(Debug, Serialize, ToSchema)]
pub struct EdgeBody {
    source: String,
    target: String,
    /// `mesh_t2_ops` inside a site, `federation_bridge` between sites.
    channel_type: &'static str,
    /// `healthy`, `degraded`, `stale` or `failed`.
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    latency_ms_p95: Option<f64>,
    loss_pct: u32,
    /// Whether nobody measures it now.
    stale: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    last_ok_ns: Option<u64>,
}

/// Runtimes on one host.
#[derive(Debug, Serialize, ToSchema)]
pub struct HostGroupBody {
    host: String,
    runtimes: Vec<String>,
}

/// One transition.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventBody {
    event_id: String,
    timestamp_ns: u64,
    /// `audit`, `config`, `rollout`, `communication`, `ha_role` or `security`.
    category: &'static str,
    runtime_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    request_id: Option<String>,
    summary: String,
    /// `info`, `warning` or `critical`.
    severity: &'static str,
}

/// The part of the answer that every reader shares.
#[derive(Debug)]
pub struct Snapshot {
    /// Everything behind the context, from the comma on.
    fleet: Vec<u8>,
    shared: ContextShared,
    /// Names the content: times rounded to the period, the reader and the moment left out.
    pub etag: Hash,
    /// From this moment on the snapshot is out of date even if nothing more is heard.
    pub good_until: Monotonic,
    /// Of which view.
    pub generation: u64,
    /// How the workload did then.
    pub workload: Option<workload::Status>,
}

#[derive(Debug)]
struct ContextShared {
    me: String,
    site_scope: Vec<String>,
    profile: &'static str,
    clock: &'static str,
}

#[derive(Serialize)]
struct Fleet {
    topology: TopologyBody,
    timeline: Vec<EventBody>,
    feature_flags: BTreeMap<&'static str, bool>,
}

impl Snapshot {
    /// Writes down what a view says now.
    pub fn take(view: &View, workload: Option<workload::Status>, now: Now) -> Self {
        let next_changes =
            view.peers.values().filter_map(|peer| peer.presence.next_change(&view.limits, now.monotonic));
        let good_until = now.monotonic.plus(view.limits.period);
        let mut fleet = fleet(view, workload.as_ref(), now);
        let mut bytes = encode(&fleet);
        // The brace is taken off and the context is put in front: see `answer`.
        if let Some(brace) = bytes.first_mut() {
            *brace = b',';
        }
        fleet.round(view);
        let shared = ContextShared::of(view);
        let rounded = (&fleet, &shared.me, &shared.site_scope, shared.profile, shared.clock);
        Self {
            fleet: bytes,
            etag: Hash::of(&encode(&rounded)),
            shared,
            good_until: next_changes.fold(good_until, Monotonic::min),
            generation: view.generation,
            workload,
        }
    }

    /// The whole answer for one reader.
    pub fn answer(&self, identity: &str, role: Role, now: Wall) -> Vec<u8> {
        let context = ContextBody {
            connected_via: self.shared.me.clone(),
            acting_on: vec![self.shared.me.clone()],
            site_scope: self.shared.site_scope.clone(),
            identity: Some(identity.to_owned()),
            role: Some(role.as_str()),
            mode: Some(if role == Role::Viewer { "view" } else { "edit" }),
            profile: self.shared.profile,
            clock: self.shared.clock,
            generated_at_ns: Some(now.0),
        };
        let head = format!("{{\"api_version\":\"{API_VERSION}\",\"context\":");
        let context = encode(&context);
        [head.as_bytes(), &context, &self.fleet].concat()
    }
}

impl ContextShared {
    fn of(view: &View) -> Self {
        let me = view.me();
        let sites: BTreeSet<&SiteId> = view.peers.keys().map(|peer| &peer.site).chain([&me.site]).collect();
        let clock = match view.clock {
            ClockState::Certain => "certain",
            ClockState::Uncertain => "uncertain",
        };
        Self {
            me: me.shown_in(&me.site),
            site_scope: sites.into_iter().map(ToString::to_string).collect(),
            profile: view.settings.profile.as_str(),
            clock,
        }
    }
}

impl Fleet {
    /// Rounds every time that moves by itself, so that an unchanged fleet keeps its name for a period.
    fn round(&mut self, view: &View) {
        let period = view.limits.period.as_nanos().max(1);
        let round = |time: &mut Option<u64>| {
            *time = time.map(|nanos| nanos.saturating_sub(nanos.checked_rem(period).unwrap_or(0)));
        };
        let me = view.me().shown_in(&view.me().site);
        for node in &mut self.topology.nodes {
            round(&mut node.last_seen_ns);
            node.observed.values_mut().for_each(|evidence| round(&mut evidence.at_ns));
            if node.runtime_id == me {
                // This runtime sees itself at the time of the answer, which says nothing about the fleet.
                node.last_seen_ns = None;
                node.observed.clear();
            }
        }
        self.topology.edges.iter_mut().for_each(|edge| round(&mut edge.last_ok_ns));
    }
}

/// A row, written with and without the times that move by themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) whole: Vec<u8>,
    pub(super) still: Vec<u8>,
}

/// Nodes by their name, links by their ends, and the timeline by its numbers.
type Rows = (Vec<(String, Row)>, Vec<((String, String), Row)>, Vec<(u64, Vec<u8>)>);

/// The state row by row.
pub(super) fn rows(view: &View, workload: Option<&workload::Status>, now: Now) -> Rows {
    let Fleet { topology, .. } = fleet(view, workload, now);
    let nodes = topology.nodes.into_iter().map(|mut node| {
        let whole = encode(&node);
        node.last_seen_ns = None;
        node.observed.values_mut().for_each(|evidence| evidence.at_ns = None);
        (node.runtime_id.clone(), Row { whole, still: encode(&node) })
    });
    let edges = topology.edges.into_iter().map(|mut edge| {
        let whole = encode(&edge);
        edge.last_ok_ns = None;
        ((edge.source.clone(), edge.target.clone()), Row { whole, still: encode(&edge) })
    });
    let own = &view.me().site;
    let timeline = view.timeline.iter().map(|row| (row.number, encode(&event(row, view.boot, own))));
    (nodes.collect(), edges.collect(), timeline.collect())
}

fn fleet(view: &View, workload: Option<&workload::Status>, now: Now) -> Fleet {
    let own = &view.me().site;
    let known = view.peers.size().saturating_add(1);
    let peers = view.peers.iter().map(|(runtime, peer)| node(view, runtime, peer, now));
    let nodes: Vec<_> = std::iter::once(own_node(view, workload, now)).chain(peers).take(NODES_MAX).collect();
    let (edges, edges_known) = edges(view, now);
    let omitted =
        OmittedBody { nodes: known.saturating_sub(nodes.len()), edges: edges_known.saturating_sub(edges.len()) };
    let host_groups = host_groups(&nodes);
    let timeline = view.timeline.iter().rev().take(TIMELINE_MAX).map(|row| event(row, view.boot, own)).collect();
    Fleet {
        topology: TopologyBody {
            nodes,
            edges,
            host_groups,
            omitted: Some(omitted).filter(|omitted| 0 < omitted.nodes || 0 < omitted.edges),
        },
        timeline,
        feature_flags: FEATURES.into_iter().collect(),
    }
}

fn own_node(view: &View, workload: Option<&workload::Status>, now: Now) -> NodeBody {
    let me = view.me();
    let evidence = |at_ns| EvidenceBody { how: "own_state", at_ns: Some(at_ns) };
    NodeBody {
        runtime_id: me.shown_in(&me.site),
        site: me.site.to_string(),
        display_name: me.name.to_string(),
        role: "MEMBER",
        lifecycle_state: Lifecycle::Online.as_str(),
        health_state: workload.map_or(view.health(), |it| it.condition().worsen(view.health())).as_str(),
        trust_state: TrustState::Trusted.as_str(),
        // A store that takes no writes cannot take a new configuration either.
        config_state: if view.is_read_only { "blocked" } else { "in_sync" },
        last_seen_ns: Some(now.wall.0),
        version: Some(view.settings.version.clone()),
        boot_id: view.boot,
        host: view.settings.host.clone(),
        fingerprint: view.identity.to_string(),
        capabilities: view.settings.offer.capabilities(),
        observed: BTreeMap::from([
            ("health", evidence(now.wall.0)),
            ("identity", evidence(view.started.wall.0)),
            ("presence", evidence(now.wall.0)),
        ]),
        workload: workload.map(WorkloadBody::of),
    }
}

fn node(view: &View, runtime: &RuntimeId, peer: &Peer, now: Now) -> NodeBody {
    let lifecycle = peer.presence.lifecycle(&view.limits, now.monotonic);
    let identity = peer.identity.as_deref();
    // Its observation names a revision; only the document of that revision says which configuration it is.
    let is_known = peer.config_revision.is_some() && !peer.wants_identity();
    NodeBody {
        runtime_id: runtime.shown_in(&view.me().site),
        site: runtime.site.to_string(),
        display_name: runtime.name.to_string(),
        role: "MEMBER",
        lifecycle_state: lifecycle.as_str(),
        health_state: shown_health(lifecycle, peer.health).as_str(),
        trust_state: peer.trust.as_str(),
        config_state: if lifecycle == Lifecycle::Online && is_known { "in_sync" } else { "pending" },
        last_seen_ns: peer.heard_at.map(|at| at.0),
        version: identity.map(|identity| identity.version.clone()),
        boot_id: peer.boot,
        host: identity.and_then(|identity| identity.host.clone()),
        fingerprint: peer.pinned.to_string(),
        capabilities: identity.map(|identity| identity.capabilities.clone()).unwrap_or_default(),
        observed: observed(peer, lifecycle),
        workload: None,
    }
}

/// A peer's health as far as it is known now: its own word counts only while it is fresh, and silence is never healthy.
fn shown_health(lifecycle: Lifecycle, health: Option<Health>) -> Health {
    match (lifecycle, health) {
        (Lifecycle::Online, Some(health)) => health,
        (Lifecycle::Online, None) | (Lifecycle::Stale, None | Some(Health::Healthy | Health::Degraded)) => {
            Health::Degraded
        }
        (Lifecycle::Stale, Some(Health::Faulted)) | (Lifecycle::Offline | Lifecycle::Partitioned, _) => Health::Faulted,
    }
}

fn observed(peer: &Peer, lifecycle: Lifecycle) -> BTreeMap<&'static str, EvidenceBody> {
    let heard = peer.heard_at.map(|at| at.0);
    let how = match lifecycle {
        Lifecycle::Offline if peer.presence.left => "goodbye",
        Lifecycle::Offline => "pinned_key",
        Lifecycle::Online => "signed_word",
        Lifecycle::Partitioned if peer.presence.token_gone.is_some() => "token_gone",
        Lifecycle::Partitioned | Lifecycle::Stale => "silence",
    };
    let mut facts = BTreeMap::from([("presence", EvidenceBody { how, at_ns: heard })]);
    if peer.health.is_some() {
        facts.insert("health", EvidenceBody { how: "signed_word", at_ns: heard });
    }
    let identity = peer.identity.as_ref().map(|identity| identity.at.0);
    let how = if identity.is_some() { "signed_identity" } else { "pinned_key" };
    facts.insert("identity", EvidenceBody { how, at_ns: identity });
    facts
}

/// The links that this runtime measured and those that its peers published, and how many there are in all.
fn edges(view: &View, now: Now) -> (Vec<EdgeBody>, usize) {
    let is_online = |peer: &Peer| peer.presence.lifecycle(&view.limits, now.monotonic) == Lifecycle::Online;
    let own_edges = view.own_edges();
    // What was measured towards a peer that has fallen silent is old, unless it says just that.
    let own = own_edges.iter().map(|edge| {
        let is_heard = view.peers.get(&edge.target).is_some_and(|peer| is_online(peer));
        (view.me(), edge, is_heard || edge.state == EdgeState::Failed)
    });
    let theirs = view.peers.iter().flat_map(|(runtime, peer)| {
        let is_fresh = is_online(peer);
        peer.edges.iter().map(move |edge| (runtime, edge, is_fresh))
    });
    let count = peer_edges(view).saturating_add(own_edges.len());
    let site = &view.me().site;
    let body = |(source, edge, is_fresh)| edge_body(site, source, edge, is_fresh);
    (own.chain(theirs).take(EDGES_MAX).map(body).collect(), count)
}

fn peer_edges(view: &View) -> usize {
    view.peers.values().fold(0, |count: usize, peer| count.saturating_add(peer.edges.len()))
}

/// A link whose reporter is not online is measured by nobody: it is stale, whatever was last said of it.
fn edge_body(own: &SiteId, source: &RuntimeId, edge: &Edge, is_fresh: bool) -> EdgeBody {
    let state = if is_fresh { edge.state } else { EdgeState::Stale };
    EdgeBody {
        source: source.shown_in(own),
        target: edge.target.shown_in(own),
        channel_type: if source.site == edge.target.site { "mesh_t2_ops" } else { "federation_bridge" },
        state: state.as_str(),
        latency_ms_p95: edge.latency_p95_us.map(millis),
        loss_pct: edge.loss_pct,
        stale: state == EdgeState::Stale,
        last_ok_ns: edge.last_ok.map(|at| at.0),
    }
}

/// Milliseconds with the microseconds behind the point; an hour and more is shown as one.
fn millis(micros: u64) -> f64 {
    f64::from(u32::try_from(micros).unwrap_or(3_600_000_000)) / 1_000.0
}

fn host_groups(nodes: &[NodeBody]) -> Vec<HostGroupBody> {
    let mut groups: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for node in nodes {
        if let Some(host) = &node.host {
            groups.entry(host).or_default().push(node.runtime_id.clone());
        }
    }
    let group = |(host, runtimes): (&str, Vec<String>)| HostGroupBody { host: host.to_owned(), runtimes };
    groups.into_iter().map(group).filter(|group| 1 < group.runtimes.len()).collect()
}

fn event(row: &Event, boot: u64, own: &SiteId) -> EventBody {
    let category = match row.category {
        Category::Audit => "audit",
        Category::Communication => "communication",
        Category::Config => "config",
        Category::Security => "security",
    };
    let severity = match row.severity {
        Severity::Critical => "critical",
        Severity::Info => "info",
        Severity::Warning => "warning",
    };
    EventBody {
        event_id: format!("{boot}.{}", row.number),
        timestamp_ns: row.at.0,
        category,
        runtime_id: row.runtime.shown_in(own),
        request_id: row.request_id.as_ref().map(ToString::to_string),
        summary: row.summary.clone(),
        severity,
    }
}
