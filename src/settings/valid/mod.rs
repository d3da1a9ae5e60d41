//! The settings as valid, typed data: what the rest of the node reads.
//!
//! Only [`parse`](crate::settings::parse) and [`load`](crate::settings::load) make one. Paths are as written; relative
//! ones are relative to the project folder.

mod identity;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use crate::domain::id::{RuntimeId, Segment, SiteId};
use crate::domain::identity::Role;
use crate::domain::policy::Policy;
use crate::domain::time::Millis;
use crate::settings::kind::Version;
use crate::settings::secret::Secret;

pub use identity::{Anchor, BundleEndpoint, BundlePartner, EndpointProof, Grant, Identity};

/// This node's own runtime.toml, valid as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Who this runtime is: `runtime.identity.site` and `resource.name`.
    pub runtime_id: RuntimeId,
    /// `[runtime.identity]` besides the site.
    pub identity: Identity,
    /// `[runtime.control]`.
    pub control: Control,
    /// `[runtime.web]`.
    pub web: Web,
    /// `[runtime.admin]`.
    pub admin: Admin,
    /// `[runtime.tls]`.
    pub tls: Tls,
    /// `[runtime.discovery]`, and what follows from it and the mesh's listener.
    pub discovery: Discovery,
    /// `[runtime.mesh]` besides the timing.
    pub mesh: Mesh,
    /// `[runtime.mesh.timing]`.
    pub timing: Timing,
    /// `runtime.cloud.profile`.
    pub profile: Profile,
    /// `[runtime.cloud.wan]`: its `test` entries have been run against it.
    pub policy: Policy,
    /// `[runtime.cloud.links]`.
    pub links: Vec<Link>,
    /// `[runtime.log]`.
    pub log: Log,
    /// `[runtime.store]`.
    pub store: Store,
    /// `runtime.time.source`.
    pub time_source: TimeSource,
    /// `[runtime.workload]`, if there is one.
    pub workload: Option<Workload>,
    /// `[[runtime.command]]`, names unique.
    pub commands: Vec<Command>,
    /// `[[runtime.agent]]`, names unique.
    pub agents: Vec<Agent>,
}

impl Settings {
    /// This runtime's site.
    pub fn site(&self) -> &SiteId {
        &self.runtime_id.site
    }

    /// Whether the mesh begins and ends on this machine: who listens, who is dialled and who is looked for.
    pub fn is_mesh_on_loopback(&self) -> bool {
        let Mesh { enabled, listen, connect, partners, .. } = &self.mesh;
        let is_loopback = |endpoint: &Endpoint| endpoint.host.parse().is_ok_and(|host: IpAddr| host.is_loopback());
        let is_near = match self.discovery.scouting {
            Scouting::Loopback | Scouting::Off => true,
            Scouting::Address(_) | Scouting::Everywhere | Scouting::Interfaces(_) => false,
        };
        !enabled || (listen.ip().is_loopback() && connect.iter().all(is_loopback) && partners.is_empty() && is_near)
    }
}

/// Gives a closed set of words its texts, its parser and its display.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// Every value.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The text in runtime.toml.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = UnknownWord;

            fn from_str(text: &str) -> Result<Self, UnknownWord> {
                Self::ALL.iter().copied().find(|it| it.as_str() == text).ok_or(UnknownWord)
            }
        }
    };
}

/// A text outside the closed set that was wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("wanted one of a closed set of words")]
pub struct UnknownWord;

words! {
    /// How much must be proven before anything is answered.
    Profile {
        /// One machine or a bench: unproven peers may be read.
        Dev = "dev",
        /// A plant: tokens, TLS and anchors.
        Plant = "plant",
        /// Several sites: as a plant, and every write to another runtime needs a rule.
        Wan = "wan",
    }
}

words! {
    /// The node's part in the mesh.
    MeshRole {
        /// Reaches the mesh through routers.
        Client = "client",
        /// Links with every other peer; no router brings it together with one.
        Peer = "peer",
        /// Passes on for others.
        Router = "router",
    }
}

words! {
    /// Where a SPIFFE ID says its site.
    Mapping {
        /// In the trust domain.
        DomainSite = "domain-site",
        /// In the first path segment.
        PathSite = "path-site",
    }
}

words! {
    /// Where the node's own identity comes from.
    IdentitySource {
        /// Made by the node, pinned by its peers.
        Dev = "dev",
        /// Files that somebody else provides.
        Files = "files",
        /// The SPIRE workload API.
        Spire = "spire",
    }
}

words! {
    /// Whether debugging interfaces are open.
    ControlMode {
        /// They are.
        Debug = "debug",
        /// They are not.
        Production = "production",
    }
}

words! {
    /// Who may ask over HTTP.
    WebAuth {
        /// In dev, loopback callers without a credential.
        Local = "local",
        /// Only callers with a bearer token.
        Token = "token",
    }
}

words! {
    /// Where TLS certificates come from.
    TlsMode {
        /// There is no TLS.
        Disabled = "disabled",
        /// From files.
        Provisioned = "provisioned",
        /// From this node's own CA.
        SelfManaged = "self-managed",
    }
}

words! {
    /// The form of a log line.
    LogFormat {
        /// One JSON object per line.
        Json = "json",
        /// For people.
        Text = "text",
    }
}

words! {
    /// The least severe line that is logged.
    LogLevel {
        /// Details for developers.
        Debug = "debug",
        /// Something failed.
        Error = "error",
        /// What happens.
        Info = "info",
        /// Everything.
        Trace = "trace",
        /// Something is odd.
        Warn = "warn",
    }
}

words! {
    /// Which wall clock is believed.
    TimeSource {
        /// Only a synchronized one.
        Synchronized = "synchronised",
        /// The system's, as it is.
        System = "system",
    }
}

words! {
    /// When the workload is started again.
    RestartRule {
        /// Whenever it has ended.
        Always = "always",
        /// Never by itself.
        Never = "never",
        /// When it has ended with a failure.
        OnFailure = "on-failure",
    }
}

words! {
    /// What a repetition of a run would do.
    EffectClass {
        /// Act, under a fence that refuses latecomers.
        Fenced = "fenced",
        /// Leave the same state.
        Idempotent = "idempotent",
        /// Nothing on the outside.
        Pure = "pure",
        /// Harm: it is never repeated by itself.
        Unrepeatable = "unrepeatable",
    }
}

words! {
    /// What a link between two runtimes uses.
    Transport {
        /// Peers found by scouting.
        Discovery = "discovery",
        /// The mesh, whatever carries it.
        Mesh = "mesh",
        /// Modbus TCP.
        ModbusTcp = "modbus-tcp",
        /// MQTT.
        Mqtt = "mqtt",
        /// OPC UA.
        Opcua = "opcua",
        /// Shared memory on one host.
        Realtime = "realtime",
        /// HTTP.
        Web = "web",
        /// Zenoh.
        Zenoh = "zenoh",
    }
}

/// `[runtime.control]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// The admin token.
    pub auth_token: Option<Secret>,
    /// Whether debugging interfaces are open.
    pub mode: ControlMode,
}

/// `[runtime.web]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Web {
    /// Whether it is served at all.
    pub enabled: bool,
    /// Where.
    pub listen: SocketAddr,
    /// Who may ask.
    pub auth: WebAuth,
    /// Whether it speaks TLS.
    pub tls: bool,
    /// Further names for the Host header, in lower case.
    pub hosts: Vec<String>,
    /// Most connections of each listener.
    pub connections_max: usize,
    /// Most of them that follow something.
    pub streams_max: usize,
    /// How often each credential may act.
    pub acts_per_s: u32,
    /// How often each credential may read.
    pub reads_per_s: u32,
}

/// `[runtime.admin]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Whether it is served at all.
    pub enabled: bool,
    /// Where.
    pub listen: SocketAddr,
    /// What stands before every path: empty, or a path without a slash at its end.
    pub mount: String,
}

/// `[runtime.tls]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Where certificates come from.
    pub mode: TlsMode,
    /// The certificate chain; always there with mode `provisioned`.
    pub cert_path: Option<PathBuf>,
    /// The private key; always there with mode `provisioned`.
    pub key_path: Option<PathBuf>,
    /// The CA certificates; always there with mode `provisioned`.
    pub ca_path: Option<PathBuf>,
    /// Whether every listener outside loopback must speak TLS.
    pub require_remote: bool,
}

/// `[runtime.discovery]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discovery {
    /// Where to scout; already off where the file, the profile or the mesh says so.
    pub scouting: Scouting,
    /// The name under which runtimes find each other.
    pub service_name: Segment,
    /// Whether the node answers when others look for it.
    pub advertise: bool,
    /// A name shared by the runtimes of one host.
    pub host_group: Option<Segment>,
}

/// Where multicast scouting happens. It follows where the mesh listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scouting {
    /// On the interface that has this address, which the mesh listens on.
    Address(IpAddr),
    /// On every interface that can, because the mesh listens on all of them.
    Everywhere,
    /// On these interfaces, which `runtime.discovery.interfaces` names.
    Interfaces(Vec<String>),
    /// On `lo` only, because the mesh listens on loopback only.
    Loopback,
    /// Nowhere.
    Off,
}

/// `[runtime.mesh]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mesh {
    /// Whether the node joins the mesh.
    pub enabled: bool,
    /// Its part.
    pub role: MeshRole,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Whom it dials.
    pub connect: Vec<Endpoint>,
    /// Whether links speak TLS.
    pub tls: bool,
    /// Other sites to link with; only for a router whose links speak TLS, and only sites with anchors.
    pub partners: Vec<Partner>,
    /// The secret that links ask for.
    pub auth_token: Option<Secret>,
    /// The oldest Zenoh that this mesh may contain: 1.7.2 or later, below 2.
    pub zenohd_version: Version,
    /// A router's plugins; never empty for a router.
    pub plugin_versions: BTreeMap<String, Version>,
    /// Signals that this runtime publishes.
    pub publish: Vec<String>,
    /// Signals of others by the key that the file gives them.
    pub subscribe: BTreeMap<String, String>,
}

/// Another site, and the way to its routers: where they come, or where they are, or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partner {
    /// The site.
    pub site: SiteId,
    /// Where its routers come.
    pub listen: Option<SocketAddr>,
    /// Its routers to dial.
    pub connect: Vec<Endpoint>,
    /// Most links with it at once.
    pub links_max: u64,
}

/// A peer or router to dial.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// A host name or IP address, an IPv6 one without brackets.
    pub host: String,
    /// Its port, never 0.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(formatter, "[{}]:{}", self.host, self.port)
        } else {
            write!(formatter, "{}:{}", self.host, self.port)
        }
    }
}

/// `[runtime.mesh.timing]`: 2 * period <= stale < partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Time between two observations.
    pub period_ms: Millis,
    /// Silence of a link after which it is cut.
    pub lease_ms: Millis,
    /// Time between two probes.
    pub probe_ms: Millis,
    /// Age at which a peer is stale.
    pub stale_ms: Millis,
    /// Silence after which a peer is partitioned.
    pub partition_ms: Millis,
}

/// What a link to another runtime is to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// This runtime.
    pub source: RuntimeId,
    /// The other end.
    pub target: RuntimeId,
    /// The transport.
    pub transport: Transport,
}

/// `[runtime.log]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Log {
    /// The least severe line that is logged.
    pub level: LogLevel,
    /// The form of a line.
    pub format: LogFormat,
}

/// `[runtime.store]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// The state folder.
    pub path: PathBuf,
    /// How long a receipt answers a repeated request.
    pub receipts_kept: Millis,
    /// Finished runs kept for each instance of an agent.
    pub runs_kept: u64,
    /// Most space in megabytes that runs may take.
    pub runs_max_mb: u64,
    /// Most space in megabytes that records of reads may take.
    pub read_audit_max_mb: u64,
    /// How many peers are asked to countersign the head of the audit log.
    pub witnesses: u64,
    /// How often they are asked, where there is something new.
    pub witness_every: Millis,
}

/// `[runtime.workload]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its environment variables.
    pub env: BTreeMap<String, Secret>,
    /// Its working folder; the project folder where there is none.
    pub dir: Option<PathBuf>,
    /// When it is started again.
    pub restart: RestartRule,
    /// The health check's program and arguments; empty for none.
    pub health: Vec<String>,
}

/// `[[runtime.command]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Its name, never that of a built-in.
    pub name: Segment,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// The least role that may invoke it.
    pub role: Role,
    /// When a run is stopped.
    pub timeout: Millis,
    /// What a repetition would do.
    pub effect: EffectClass,
}

/// `[[runtime.agent]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// Its name.
    pub name: Segment,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// The least role that may start it.
    pub role: Role,
    /// When a run is stopped.
    pub timeout: Millis,
    /// What a repetition would do.
    pub effect: EffectClass,
    /// Whether it can be started over HTTP.
    pub webhook: bool,
}
