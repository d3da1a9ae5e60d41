//! From the tree to valid settings: what a single value cannot show, each section with its own rules.

use std::collections::BTreeSet;

use crate::domain::id::{RuntimeId, Segment, SiteId};
use crate::domain::identity::TrustDomain;
use crate::domain::time::Millis;
use crate::settings::kind::Version;
use crate::settings::listeners;
use crate::settings::problem::Faults;
use crate::settings::programs;
use crate::settings::raw::Node;
use crate::settings::rules;
use crate::settings::table::Table;
use crate::settings::valid::{
    Anchor, Control, Discovery, Identity, IdentitySource, Link, Log, Mapping, Mesh, MeshRole, Profile, Scouting,
    Settings, Store, Timing, Tls, TlsMode,
};
use crate::settings::{federation, partners};

/// The oldest Zenoh of the fleet baseline (DESIGN, *Zenoh version*).
const ZENOHD_BASELINE: Version = Version { major: 1, minor: 7, patch: 2 };

/// Builds the settings. `None` only where a fault has been noted.
pub(crate) fn build(root: &Node, default_name: &str, faults: &mut Faults) -> Option<Settings> {
    let runtime_id = runtime_id(root, default_name, faults);
    let own_site = runtime_id.as_ref().map(|it| it.site.clone()).or_else(|| "default-site".parse().ok())?;
    let profile: Profile = Table::of(root, "runtime.cloud").parsed("profile")?;
    let tls = tls(root, faults);
    let web = listeners::web(root, tls.as_ref(), faults);
    let mesh = listeners::mesh(root, tls.as_ref(), faults);
    let admin = listeners::admin(root, faults)?;
    listeners::check_admin(root, tls.as_ref(), faults);
    listeners::check_distinct(root, faults);
    if let Some(mesh) = &mesh {
        check_mesh_role(root, mesh, faults);
    }
    let discovery = discovery(root, mesh.as_ref(), profile, faults);
    let identity = identity(root, &own_site, faults);
    if let (Some(mesh), Some(identity)) = (&mesh, &identity) {
        partners::check(root, mesh, identity, &own_site, faults);
    }
    let timing = timing(root, faults);
    let trust_domain = identity.as_ref().map(|it| &it.trust_domain);
    let policy = rules::policy(root, &own_site, trust_domain, faults);
    let links = links(root, runtime_id.as_ref(), &own_site, faults);
    let store = Table::of(root, "runtime.store");
    let log = Table::of(root, "runtime.log");
    let control = Table::of(root, "runtime.control");
    let workload = programs::workload(root, faults);
    let commands = programs::commands(root, faults);
    let agents = programs::agents(root, faults);
    Some(Settings {
        runtime_id: runtime_id?,
        identity: identity?,
        control: Control { auth_token: control.secret("auth_token"), mode: control.parsed("mode")? },
        web: web?,
        admin,
        tls: tls?,
        discovery: discovery?,
        mesh: mesh?,
        timing,
        profile,
        policy,
        links,
        log: Log { level: log.parsed("level")?, format: log.parsed("format")? },
        store: Store {
            path: store.path("path")?,
            receipts_kept: Millis::from_hours(store.number("receipts_kept_h")),
            runs_kept: store.number("runs_kept"),
            runs_max_mb: store.number("runs_max_mb"),
            read_audit_max_mb: store.number("read_audit_max_mb"),
            witnesses: store.number("witnesses"),
            witness_every: Millis::from_secs(store.number("witness_every_s")),
        },
        time_source: Table::of(root, "runtime.time").parsed("source")?,
        workload,
        commands,
        agents,
    })
}

fn runtime_id(root: &Node, default_name: &str, faults: &mut Faults) -> Option<RuntimeId> {
    let resource = Table::of(root, "resource");
    let site: SiteId = Table::of(root, "runtime.identity").parsed("site")?;
    let name: Option<Segment> = if resource.has("name") { resource.parsed("name") } else { default_name.parse().ok() };
    if name.is_none() && !resource.has("name") {
        let message = format!("wanted a name, got nothing, and {default_name:?} cannot stand in for it");
        faults.push(&resource.at, "resource.name", message);
    }
    Some(RuntimeId::new(site, name?))
}

fn identity(root: &Node, own_site: &SiteId, faults: &mut Faults) -> Option<Identity> {
    let table = Table::of(root, "runtime.identity");
    let source: IdentitySource = table.parsed("source")?;
    if source == IdentitySource::Files {
        require_paths(&table, &["svid_path", "key_path"], "source = \"files\"", faults);
    }
    for name in ["renew_from", "authority"].iter().filter(|name| table.has(name)) {
        if source != IdentitySource::Files {
            let message = "wanted source = \"files\": there is no certificate to renew otherwise".to_owned();
            faults.push(&table.at(name), table.key(name), message);
        }
    }
    let mut sites = BTreeSet::new();
    let mut anchors = Vec::new();
    for entry in table.list("anchors") {
        let (Some(site), Some(path)) = (entry.parsed::<SiteId>("site"), entry.path("path")) else { continue };
        if !sites.insert(site.clone()) {
            faults.push(&entry.at("site"), entry.key("site"), format!("anchors of site {site} are given twice"));
        }
        if source == IdentitySource::Spire && site == *own_site {
            let message = "wanted other sites alone: with source = \"spire\" the agent gives the own site's".to_owned();
            faults.push(&entry.at("site"), entry.key("site"), message);
        }
        anchors.push(Anchor { site, path });
    }
    let trust_domain: TrustDomain = table.parsed("trust_domain")?;
    let mapping: Mapping = table.parsed("mapping")?;
    let partners = federation::read(&table, own_site, &mapping.naming(&trust_domain), faults);
    Some(Identity {
        mapping,
        source,
        bundle_path: table.path("bundle_path"),
        partners,
        svid_path: table.path("svid_path"),
        bans_path: table.path("bans_path"),
        key_path: table.path("key_path"),
        renew_from: if table.has("renew_from") { table.parsed("renew_from") } else { None },
        authority: table.path("authority"),
        anchors,
        grants: rules::grants(&table, own_site, &trust_domain, faults),
        trust_domain,
    })
}

fn tls(root: &Node, faults: &mut Faults) -> Option<Tls> {
    let table = Table::of(root, "runtime.tls");
    let mode: TlsMode = table.parsed("mode")?;
    if mode == TlsMode::Provisioned {
        require_paths(&table, &["cert_path", "key_path", "ca_path"], "mode = \"provisioned\"", faults);
    }
    Some(Tls {
        mode,
        cert_path: table.path("cert_path"),
        key_path: table.path("key_path"),
        ca_path: table.path("ca_path"),
        require_remote: table.flag("require_remote"),
    })
}

fn require_paths(table: &Table<'_>, names: &[&str], because: &str, faults: &mut Faults) {
    for name in names.iter().filter(|name| !table.has(name)) {
        faults.push(&table.at, table.key(name), format!("wanted a path because of {because}, got nothing"));
    }
}

fn check_mesh_role(root: &Node, mesh: &Mesh, faults: &mut Faults) {
    let table = Table::of(root, "runtime.mesh");
    let (at, key) = (table.at("role"), table.key("plugin_versions"));
    match mesh.role {
        MeshRole::Router if !table.has("plugin_versions") || table.map("plugin_versions").is_empty() => {
            faults.push(&at, key, "wanted the versions of the router's plugins because of role = \"router\", got none");
        }
        MeshRole::Client if mesh.connect.is_empty() && table.texts("connect").is_empty() => {
            let message = "wanted at least one router because of role = \"client\", got none";
            faults.push(&at, table.key("connect"), message);
        }
        MeshRole::Client | MeshRole::Peer | MeshRole::Router => (),
    }
    let found = mesh.zenohd_version;
    if found < ZENOHD_BASELINE || found.major != ZENOHD_BASELINE.major {
        let wanted = format!("wanted {ZENOHD_BASELINE} or later below {}.0.0", ZENOHD_BASELINE.major.saturating_add(1));
        faults.push(&table.at("zenohd_version"), table.key("zenohd_version"), format!("{wanted}, got {found}"));
    }
}

fn timing(root: &Node, faults: &mut Faults) -> Timing {
    let table = Table::of(root, "runtime.mesh.timing");
    let period = table.number("period_ms");
    let two_periods = period.saturating_mul(2);
    // A default follows the values it depends on, so that one changed line does not ask for three.
    let stale =
        if table.has("stale_ms") { table.number("stale_ms") } else { table.number("stale_ms").max(two_periods) };
    let partition = if table.has("partition_ms") {
        table.number("partition_ms")
    } else {
        table.number("partition_ms").max(stale.saturating_mul(2))
    };
    if stale < two_periods {
        let message = format!("wanted at least two periods ({two_periods}), got {stale}");
        faults.push(&table.at("stale_ms"), table.key("stale_ms"), message);
    }
    if partition <= stale {
        let message = format!("wanted more than stale_ms ({stale}), got {partition}");
        faults.push(&table.at("partition_ms"), table.key("partition_ms"), message);
    }
    Timing {
        period_ms: Millis(period),
        lease_ms: Millis(table.number("lease_ms")),
        probe_ms: Millis(table.number("probe_ms")),
        stale_ms: Millis(stale),
        partition_ms: Millis(partition),
    }
}

fn discovery(root: &Node, mesh: Option<&Mesh>, profile: Profile, faults: &mut Faults) -> Option<Discovery> {
    let table = Table::of(root, "runtime.discovery");
    let interfaces = table.owned_texts("interfaces");
    for (at, name) in table.texts("interfaces") {
        let is_legal = |it: char| it.is_ascii_graphic() && !matches!(it, '/' | ',');
        // Linux limits an interface's name to 15 bytes.
        if name.is_empty() || name.len() > 15 || !name.chars().all(is_legal) {
            faults.push(&at, table.key("interfaces"), format!("wanted an interface's name, got {name:?}"));
        }
    }
    let mesh = mesh?;
    let address = mesh.listen.ip();
    let scouting = if !table.flag("enabled") || !mesh.enabled || profile != Profile::Dev {
        Scouting::Off
    } else if address.is_loopback() {
        Scouting::Loopback
    } else if !interfaces.is_empty() {
        Scouting::Interfaces(interfaces)
    } else if address.is_unspecified() {
        Scouting::Everywhere
    } else {
        Scouting::Address(address)
    };
    Some(Discovery {
        scouting,
        service_name: table.parsed("service_name")?,
        advertise: table.flag("advertise"),
        host_group: table.parsed("host_group"),
    })
}

fn links(root: &Node, own: Option<&RuntimeId>, own_site: &SiteId, faults: &mut Faults) -> Vec<Link> {
    let mut links: Vec<Link> = Vec::new();
    for entry in Table::of(root, "runtime.cloud.links").list("transports") {
        let mut end = |name| {
            let parsed = RuntimeId::parse_in(entry.text(name)?, own_site);
            parsed.map_err(|error| faults.push(&entry.at(name), entry.key(name), error.to_string())).ok()
        };
        let (Some(source), Some(target)) = (end("source"), end("target")) else { continue };
        let Some(transport) = entry.parsed("transport") else { continue };
        if let Some(own) = own.filter(|own| **own != source) {
            faults.push(&entry.at("source"), entry.key("source"), format!("wanted this runtime, {own}, got {source}"));
        }
        if source == target {
            faults.push(&entry.at("target"), entry.key("target"), "wanted another runtime, got the source itself");
        }
        if links.iter().any(|link| link.source == source && link.target == target) {
            faults.push(&entry.at, entry.shown.clone(), format!("the link from {source} to {target} is given twice"));
        }
        links.push(Link { source, target, transport });
    }
    links
}
