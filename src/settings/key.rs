//! The one table of keys: path, type, default, unit, when a change takes effect, since when, and one sentence.
//!
//! Everything that has to agree about a key reads this table: unknown-key detection, type checks, environment names,
//! defaults, `docs/reference/settings.md` and the tests. `[]` after a segment stands for each entry of a list of tables.

use crate::settings::kind::Kind;

/// When a change of a key takes effect, and from where it may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Applies {
    /// Only through the file, at the next start: the key names a program.
    File,
    /// At once, through the API or the file.
    Live,
    /// At once, through the file only.
    Reload,
    /// At the next start.
    Restart,
}

impl Applies {
    /// The word that the reference uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Live => "live",
            Self::Reload => "reload",
            Self::Restart => "restart",
        }
    }
}

/// One key of runtime.toml.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its place in the file, such as `runtime.web.listen`.
    pub path: &'static str,
    /// What its value must be.
    pub kind: Kind,
    /// The value that holds when the key is absent, as the text between the quotes; empty when there is none.
    pub default: &'static str,
    /// Whether the file, or the entry of the list, must have it.
    pub is_required: bool,
    /// The unit of its value; empty when it has none.
    pub unit: &'static str,
    /// When a change takes effect.
    pub applies: Applies,
    /// The version that introduced it.
    pub since: &'static str,
    /// What it does, in one sentence.
    pub doc: &'static str,
}

const fn key(path: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key { path, kind, default, is_required: false, unit: "", applies: Applies::Restart, since: "0.1.0", doc }
}

impl Key {
    const fn required(self) -> Self {
        Self { is_required: true, ..self }
    }

    const fn live(self) -> Self {
        Self { applies: Applies::Live, ..self }
    }

    const fn reloaded(self) -> Self {
        Self { applies: Applies::Reload, ..self }
    }

    const fn file(self) -> Self {
        Self { applies: Applies::File, ..self }
    }

    const fn unit(self, unit: &'static str) -> Self {
        Self { unit, ..self }
    }
}

const TRANSPORTS: &[&str] = &["realtime", "zenoh", "mesh", "mqtt", "modbus-tcp", "opcua", "discovery", "web"];
const ROLES: &[&str] = &["viewer", "operator", "engineer", "admin"];
const EFFECTS: &[&str] = &["idempotent", "pure", "fenced", "unrepeatable"];
const VERDICTS: &[&str] = &["allow", "deny"];
const BUNDLE_PROFILES: &[&str] = &["https_spiffe", "https_web"];
const RUN_LIMIT: Kind = Kind::Int { min: 1, max: 604_800_000 };

/// Every key, in the order of the reference.
pub const KEYS: &[Key] = &[
    key("bundle.version", Kind::Int { min: 1, max: 1 }, "", "The version of this file's layout, always 1.").required(),
    key("resource.name", Kind::Name, "", "The runtime's name inside its site; when absent, the project folder's name."),
    key("runtime.identity.site", Kind::Name, "default-site", "The trust boundary this runtime belongs to."),
    key("runtime.identity.trust_domain", Kind::TrustDomain, "trust", "The trust domain of every SPIFFE ID here."),
    key(
        "runtime.identity.mapping",
        Kind::OneOf(&["path-site", "domain-site"]),
        "path-site",
        "Where a SPIFFE ID says its site: in the path, or in the trust domain.",
    ),
    key(
        "runtime.identity.source",
        Kind::OneOf(&["dev", "files", "spire"]),
        "dev",
        "Where the node's own identity comes from: a key of its own, files, or a SPIRE agent.",
    ),
    key("runtime.identity.svid_path", Kind::Path, "", "The certificate chain of source `files`."),
    key("runtime.identity.key_path", Kind::Path, "", "The private key of source `files`."),
    key(
        "runtime.identity.bans_path",
        Kind::Path,
        "",
        "Who is shut out: the list that `trust-runtime identity ban` keeps.",
    )
    .reloaded(),
    key(
        "runtime.identity.renew_from",
        Kind::Name,
        "",
        "The node of this site that holds the authority and is asked for the next certificate; when absent, none is.",
    ),
    key(
        "runtime.identity.authority",
        Kind::Path,
        "",
        "The folder of the site's authority, on the node that is to renew certificates with it.",
    ),
    key("runtime.identity.anchors[].site", Kind::Name, "", "The site that these anchors speak for.")
        .required()
        .reloaded(),
    key("runtime.identity.anchors[].path", Kind::Path, "", "The file with that site's anchor certificates.")
        .required()
        .reloaded(),
    key(
        "runtime.identity.bundle_path",
        Kind::Path,
        "",
        "The own site's trust bundle, which is then served to partners: what `trust-runtime identity export-bundle` writes.",
    ),
    key(
        "runtime.identity.partner[].site",
        Kind::Name,
        "",
        "A site known by its trust bundle: writes to and from it rest on one that is fresh.",
    )
    .required(),
    key(
        "runtime.identity.partner[].bundle_endpoint",
        Kind::Text,
        "",
        "Where the partner serves its bundle, an https address; when absent, bundles come by `trust-runtime identity import-bundle`.",
    ),
    key(
        "runtime.identity.partner[].profile",
        Kind::OneOf(BUNDLE_PROFILES),
        "https_spiffe",
        "How the endpoint proves itself: by its SPIFFE ID, or by a certificate of a CA for its name.",
    ),
    key(
        "runtime.identity.partner[].endpoint_spiffe_id",
        Kind::Text,
        "",
        "The SPIFFE ID of the runtime that answers at the endpoint, for `https_spiffe`.",
    ),
    key(
        "runtime.identity.partner[].ca_path",
        Kind::Path,
        "",
        "The CA certificates that the endpoint's own must lead to, for `https_web`.",
    ),
    key(
        "runtime.identity.partner[].max_age_s",
        Kind::Int { min: 10, max: 31_536_000 },
        "86400",
        "How long after the endpoint's last confirmation writes to and from the partner go on.",
    )
    .unit("s"),
    key(
        "runtime.identity.grant[].actor",
        Kind::Text,
        "",
        "Who is granted: `<site>/<principal>`, `<site>/*` or the actor's SPIFFE ID.",
    )
    .required()
    .reloaded(),
    key("runtime.identity.grant[].role", Kind::OneOf(ROLES), "", "The most that this actor may be here.")
        .required()
        .reloaded(),
    key("runtime.control.auth_token", Kind::Secret, "", "The admin token of this node."),
    key(
        "runtime.control.mode",
        Kind::OneOf(&["production", "debug"]),
        "production",
        "Whether debugging interfaces are open.",
    ),
    key("runtime.web.enabled", Kind::Bool, "true", "Whether the node serves its HTTP interface."),
    key("runtime.web.listen", Kind::Address, "127.0.0.1:8080", "Where the HTTP interface listens."),
    key(
        "runtime.web.auth",
        Kind::OneOf(&["local", "token"]),
        "local",
        "Who may ask over HTTP: `local` trusts loopback callers in dev, `token` wants a bearer token from everyone.",
    ),
    key("runtime.web.tls", Kind::Bool, "false", "Whether the HTTP interface speaks TLS."),
    key("runtime.web.hosts", Kind::TextList, "[]", "Further names that a request's Host header may carry."),
    key(
        "runtime.web.connections_max",
        Kind::Int { min: 16, max: 2_048 },
        "2048",
        "Most connections of each listener, and fewer where the process may open fewer than four files for each; beyond it the one that has been silent longest is closed.",
    ),
    key(
        "runtime.web.streams_max",
        Kind::Int { min: 2, max: 2_047 },
        "1536",
        "Most connections that follow a run or the state at once; fewer than all of them. One credential has two thirds at most.",
    ),
    key(
        "runtime.web.acts_per_s",
        Kind::Int { min: 1, max: 100_000 },
        "500",
        "How often each credential may act in a second, and twice as often at once: dispatches, one for each target, preflights, starts of runs, control, and what is refused with a record. Beyond it the answer is 429.",
    ),
    key(
        "runtime.web.reads_per_s",
        Kind::Int { min: 10, max: 100_000 },
        "2000",
        "How often each credential may read in a second, and twice as often at once; a stream counts when it is opened. Beyond it the answer is 429.",
    ),
    key("runtime.admin.enabled", Kind::Bool, "false", "Whether the separate admin listener is open."),
    key("runtime.admin.listen", Kind::Address, "127.0.0.1:8081", "Where the admin interface listens."),
    key(
        "runtime.admin.mount",
        Kind::Text,
        "",
        "What stands before every path of the admin interface, such as `/fleet/admin`; when absent, nothing does.",
    ),
    key(
        "runtime.tls.mode",
        Kind::OneOf(&["disabled", "self-managed", "provisioned"]),
        "disabled",
        "Where TLS certificates come from: nowhere, this node's own CA, or files.",
    ),
    key("runtime.tls.cert_path", Kind::Path, "", "The certificate chain of mode `provisioned`."),
    key("runtime.tls.key_path", Kind::Path, "", "The private key of mode `provisioned`."),
    key("runtime.tls.ca_path", Kind::Path, "", "The CA certificates of mode `provisioned`."),
    key("runtime.tls.require_remote", Kind::Bool, "false", "Whether every listener outside loopback must speak TLS."),
    key("runtime.discovery.enabled", Kind::Bool, "true", "Whether the node looks for peers by multicast scouting."),
    key("runtime.discovery.service_name", Kind::Name, "truST", "The name under which runtimes find each other."),
    key("runtime.discovery.advertise", Kind::Bool, "true", "Whether the node answers when others look for it."),
    key("runtime.discovery.interfaces", Kind::TextList, "[]", "Network interfaces to scout on in dev."),
    key("runtime.discovery.host_group", Kind::Name, "", "A name shared by the runtimes of one host."),
    key("runtime.mesh.enabled", Kind::Bool, "true", "Whether the node joins the mesh."),
    key(
        "runtime.mesh.role",
        Kind::OneOf(&["peer", "client", "router"]),
        "peer",
        "The node's part in the mesh. A router brings clients together with everybody, and no peer with another peer.",
    ),
    key("runtime.mesh.listen", Kind::Address, "127.0.0.1:5200", "Where the mesh listens."),
    key("runtime.mesh.connect", Kind::TextList, "[]", "Peers or routers to dial, as `host:port`."),
    key("runtime.mesh.tls", Kind::Bool, "false", "Whether mesh links speak TLS."),
    key("runtime.mesh.auth_token", Kind::Secret, "", "The secret that mesh links ask each other for."),
    key("runtime.mesh.zenohd_version", Kind::Version, "1.7.2", "The oldest Zenoh that this mesh may contain."),
    key("runtime.mesh.plugin_versions", Kind::TextMap, "{}", "Versions of a router's plugins by name."),
    key("runtime.mesh.publish", Kind::TextList, "[]", "Signals that this runtime publishes."),
    key("runtime.mesh.subscribe", Kind::TextMap, "{}", "Signals of others by the local name they get here."),
    key(
        "runtime.mesh.partner[].site",
        Kind::Name,
        "",
        "Another site whose routers this router links with, inside TLS.",
    )
    .required(),
    key("runtime.mesh.partner[].listen", Kind::Address, "", "Where that site's routers come, and nobody else."),
    key("runtime.mesh.partner[].connect", Kind::TextList, "[]", "That site's routers to dial, as `host:port`."),
    key(
        "runtime.mesh.partner[].links_max",
        Kind::Int { min: 1, max: 256 },
        "8",
        "Most links with that site at once; a link that is renewed takes two places for a moment.",
    ),
    key("runtime.mesh.timing.period_ms", Kind::Int { min: 50, max: 60_000 }, "1000", "Time between two observations.")
        .unit("ms")
        .live(),
    key(
        "runtime.mesh.timing.lease_ms",
        Kind::Int { min: 200, max: 60_000 },
        "3000",
        "Silence of a link after which it is cut.",
    )
    .unit("ms"),
    key(
        "runtime.mesh.timing.probe_ms",
        Kind::Int { min: 50, max: 60_000 },
        "1000",
        "Time between two probes of a linked peer.",
    )
    .unit("ms")
    .live(),
    key(
        "runtime.mesh.timing.stale_ms",
        Kind::Int { min: 100, max: 300_000 },
        "2000",
        "Age at which a peer is stale; at least two periods, which is also its default when they are longer.",
    )
    .unit("ms")
    .live(),
    key(
        "runtime.mesh.timing.partition_ms",
        Kind::Int { min: 200, max: 600_000 },
        "4000",
        "Silence after which a peer is partitioned; above stale_ms, and twice that by default when it is longer.",
    )
    .unit("ms")
    .live(),
    key(
        "runtime.cloud.profile",
        Kind::OneOf(&["dev", "plant", "wan"]),
        "dev",
        "How much must be proven before anything is answered.",
    ),
    key("runtime.cloud.wan.allow_write[].id", Kind::Text, "", "The rule's name in decisions.").reloaded(),
    key("runtime.cloud.wan.allow_write[].effect", Kind::OneOf(VERDICTS), "allow", "Allow, or deny over every allow.")
        .reloaded(),
    key(
        "runtime.cloud.wan.allow_write[].action",
        Kind::Text,
        "",
        "`cfg_apply`, `cmd_invoke`, `cmd_invoke/<command>` or `*`.",
    )
    .required()
    .reloaded(),
    key("runtime.cloud.wan.allow_write[].target", Kind::Text, "", "`<site>/<name>`, `<site>/*` or `*`.")
        .required()
        .reloaded(),
    key("runtime.cloud.wan.allow_write[].actor", Kind::Text, "*", "`<site>/<principal>`, `<site>/*` or `*`.")
        .reloaded(),
    key(
        "runtime.cloud.wan.allow_write[].params",
        Kind::Params,
        "{}",
        "Parameters that must have exactly these values; an allow that names any takes no others, one without takes all.",
    )
    .reloaded(),
    key("runtime.cloud.wan.allow_write[].not_before", Kind::Time, "", "The first moment at which the rule speaks.")
        .reloaded(),
    key("runtime.cloud.wan.allow_write[].not_after", Kind::Time, "", "The moment from which the rule is silent.")
        .reloaded(),
    key("runtime.cloud.wan.allow_write[].reason", Kind::Text, "", "Why the rule is there.").reloaded(),
    key("runtime.cloud.wan.accept_write[].id", Kind::Text, "", "The rule's name in decisions.").reloaded(),
    key("runtime.cloud.wan.accept_write[].effect", Kind::OneOf(VERDICTS), "allow", "Allow, or deny over every allow.")
        .reloaded(),
    key(
        "runtime.cloud.wan.accept_write[].action",
        Kind::Text,
        "",
        "`cfg_apply`, `cmd_invoke`, `cmd_invoke/<command>` or `*`.",
    )
    .required()
    .reloaded(),
    key(
        "runtime.cloud.wan.accept_write[].actor",
        Kind::Text,
        "",
        "`<site>/<principal>` or `<site>/*`; an allowing rule must name the site.",
    )
    .required()
    .reloaded(),
    key("runtime.cloud.wan.accept_write[].target", Kind::Text, "*", "`<site>/<name>`, `<site>/*` or `*`.").reloaded(),
    key(
        "runtime.cloud.wan.accept_write[].params",
        Kind::Params,
        "{}",
        "Parameters that must have exactly these values; an allow that names any takes no others, one without takes all.",
    )
    .reloaded(),
    key("runtime.cloud.wan.accept_write[].not_before", Kind::Time, "", "The first moment at which the rule speaks.")
        .reloaded(),
    key("runtime.cloud.wan.accept_write[].not_after", Kind::Time, "", "The moment from which the rule is silent.")
        .reloaded(),
    key("runtime.cloud.wan.accept_write[].reason", Kind::Text, "", "Why the rule is there.").reloaded(),
    key("runtime.cloud.wan.test[].actor", Kind::Text, "", "Who asks: `<site>/<principal>` or a SPIFFE ID.")
        .required()
        .reloaded(),
    key("runtime.cloud.wan.test[].action", Kind::Text, "", "`cfg_apply` or `cmd_invoke/<command>`.")
        .required()
        .reloaded(),
    key("runtime.cloud.wan.test[].target", Kind::Text, "", "The runtime that is asked about.").required().reloaded(),
    key("runtime.cloud.wan.test[].params", Kind::Params, "{}", "The parameters of the action.").reloaded(),
    key(
        "runtime.cloud.wan.test[].side",
        Kind::OneOf(&["outbound", "inbound"]),
        "outbound",
        "Which list is asked: `outbound` is allow_write, `inbound` is accept_write.",
    )
    .reloaded(),
    key(
        "runtime.cloud.wan.test[].at",
        Kind::Time,
        "",
        "The moment of the question; when absent, every rule speaks as if inside its window.",
    )
    .reloaded(),
    key("runtime.cloud.wan.test[].expect", Kind::OneOf(VERDICTS), "", "What the rules must answer.")
        .required()
        .reloaded(),
    key("runtime.cloud.links.transports[].source", Kind::Text, "", "This runtime.").required(),
    key("runtime.cloud.links.transports[].target", Kind::Text, "", "The runtime at the other end.").required(),
    key("runtime.cloud.links.transports[].transport", Kind::OneOf(TRANSPORTS), "", "What the link is to use.")
        .required(),
    key(
        "runtime.log.level",
        Kind::OneOf(&["trace", "debug", "info", "warn", "error"]),
        "info",
        "The least severe line that is logged.",
    )
    .live(),
    key("runtime.log.format", Kind::OneOf(&["text", "json"]), "text", "The form of a log line."),
    key("runtime.store.path", Kind::Path, "state", "The state folder, relative to the project folder."),
    key(
        "runtime.store.receipts_kept_h",
        Kind::Int { min: 1, max: 8_760 },
        "24",
        "How long a receipt answers a repeated request; takes an admin to change.",
    )
    .unit("h")
    .live(),
    key(
        "runtime.store.runs_kept",
        Kind::Int { min: 1, max: 100_000 },
        "50",
        "Finished runs kept for each instance of an agent; takes an admin to change.",
    )
    .unit("runs")
    .live(),
    key(
        "runtime.store.runs_max_mb",
        Kind::Int { min: 128, max: 1_048_576 },
        "512",
        "Most space that runs may take; the oldest finished ones of all instances give way; takes an admin to change.",
    )
    .unit("MB")
    .live(),
    key(
        "runtime.store.read_audit_max_mb",
        Kind::Int { min: 1, max: 65_536 },
        "64",
        "Most space that records of reads may take; takes an admin to change.",
    )
    .unit("MB")
    .live(),
    key(
        "runtime.store.witnesses",
        Kind::Int { min: 0, max: 8 },
        "2",
        "How many peers of the site are asked to countersign the head of the audit log.",
    ),
    key(
        "runtime.store.witness_every_s",
        Kind::Int { min: 1, max: 3_600 },
        "60",
        "How often they are asked, where there is something new; peers are answered at most twice as often.",
    )
    .unit("s"),
    key(
        "runtime.time.source",
        Kind::OneOf(&["system", "synchronised"]),
        "system",
        "Whether the wall clock is believed as it is, or only when it is synchronised.",
    ),
    key("runtime.workload.program", Kind::Path, "", "The program that the node keeps running.").file(),
    key("runtime.workload.args", Kind::TextList, "[]", "Its arguments.").file(),
    key("runtime.workload.env", Kind::SecretMap, "{}", "Its environment variables.").file(),
    key("runtime.workload.dir", Kind::Path, "", "Its working folder; when absent, the project folder.").file(),
    key(
        "runtime.workload.restart",
        Kind::OneOf(&["on-failure", "always", "never"]),
        "on-failure",
        "When it is started again after it has ended.",
    )
    .file(),
    key(
        "runtime.workload.health",
        Kind::TextList,
        "[]",
        "A program and its arguments that ends with 0 while the workload is healthy.",
    )
    .file(),
    key("runtime.command[].name", Kind::Name, "", "The command's name in `cmd_invoke`.").required().file(),
    key("runtime.command[].program", Kind::Path, "", "The program that it starts.").required().file(),
    key("runtime.command[].args", Kind::TextList, "[]", "The program's arguments.").file(),
    key("runtime.command[].role", Kind::OneOf(ROLES), "operator", "The least role that may invoke it.").file(),
    key("runtime.command[].timeout_ms", RUN_LIMIT, "60000", "When a run of it is stopped.").unit("ms").file(),
    key("runtime.command[].effect", Kind::OneOf(EFFECTS), "idempotent", "What a repetition would do.").file(),
    key("runtime.agent[].name", Kind::Name, "", "The agent's name in `/agents/<name>/<id>`.").required().file(),
    key("runtime.agent[].program", Kind::Path, "", "The program that it starts.").required().file(),
    key("runtime.agent[].args", Kind::TextList, "[]", "The program's arguments.").file(),
    key("runtime.agent[].role", Kind::OneOf(ROLES), "operator", "The least role that may start it.").file(),
    key("runtime.agent[].timeout_ms", RUN_LIMIT, "3600000", "When a run of it is stopped.").unit("ms").file(),
    key("runtime.agent[].effect", Kind::OneOf(EFFECTS), "idempotent", "What a repetition would do.").file(),
    key("runtime.agent[].webhook", Kind::Bool, "false", "Whether it can be started over HTTP.").file(),
];

/// Finds a key by its path in the table's form.
pub fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}
