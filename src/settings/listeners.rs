//! The sections that open sockets: web and mesh, and what they ask of TLS.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use crate::settings::kind::Version;
use crate::settings::partners;
use crate::settings::problem::Faults;
use crate::settings::raw::Node;
use crate::settings::table::Table;
use crate::settings::valid::{Admin, Endpoint, Mesh, Tls, TlsMode, Web};

/// Longest host name in bytes (RFC 1035).
const HOST_BYTES_MAX: usize = 253;

/// Longest path of the admin interface in bytes.
const MOUNT_BYTES_MAX: usize = 128;

/// Longest key or value of a subscription in bytes: two names and a separator.
const SIGNAL_BYTES_MAX: usize = 256;

/// Reads `[runtime.web]`.
pub(crate) fn web(root: &Node, tls: Option<&Tls>, faults: &mut Faults) -> Option<Web> {
    let table = Table::of(root, "runtime.web");
    let mut hosts = Vec::new();
    for (at, text) in table.texts("hosts") {
        if !is_host(text) {
            faults.push(&at, table.key("hosts"), format!("wanted a host name or IP address, got {text:?}"));
        }
        hosts.push(text.to_ascii_lowercase());
    }
    let count = |name| usize::try_from(table.number(name)).unwrap_or(usize::MAX);
    let rate = |name| u32::try_from(table.number(name)).unwrap_or(u32::MAX);
    let web = Web {
        enabled: table.flag("enabled"),
        listen: table.parsed("listen")?,
        auth: table.parsed("auth")?,
        tls: table.flag("tls"),
        hosts,
        connections_max: count("connections_max"),
        streams_max: count("streams_max"),
        acts_per_s: rate("acts_per_s"),
        reads_per_s: rate("reads_per_s"),
    };
    if web.connections_max <= web.streams_max {
        let message = format!(
            "wanted fewer than connections_max, {}: who follows must not shut out who asks",
            web.connections_max
        );
        faults.push(&table.at("streams_max"), table.key("streams_max"), message);
    }
    if web.enabled {
        check_tls(&table, web.listen, web.tls, tls, faults);
    }
    Some(web)
}

/// Reads `[runtime.admin]`.
pub(crate) fn admin(root: &Node, faults: &mut Faults) -> Option<Admin> {
    let table = Table::of(root, "runtime.admin");
    let mount = table.text("mount").unwrap_or_default().to_owned();
    if !mount.is_empty() && !is_mount(&mount) {
        let message = format!("wanted a path such as \"/fleet/admin\", got {mount:?}");
        faults.push(&table.at("mount"), table.key("mount"), message);
    }
    Some(Admin { enabled: table.flag("enabled"), listen: table.parsed("listen")?, mount })
}

/// Plain names behind slashes: nothing that a client or a proxy writes in another way, and none that goes up.
fn is_mount(text: &str) -> bool {
    let is_plain = |it: char| it.is_ascii_alphanumeric() || matches!(it, '-' | '_' | '.');
    let is_name = |name: &str| !name.is_empty() && name != "." && name != ".." && name.chars().all(is_plain);
    text.len() <= MOUNT_BYTES_MAX && text.strip_prefix('/').is_some_and(|names| names.split('/').all(is_name))
}

/// Reads `[runtime.mesh]`.
pub(crate) fn mesh(root: &Node, tls: Option<&Tls>, faults: &mut Faults) -> Option<Mesh> {
    let table = Table::of(root, "runtime.mesh");
    let uses_tls = table.flag("tls");
    let connect = endpoints(&table, uses_tls, faults);
    let mut plugin_versions = BTreeMap::new();
    for (name, entry) in table.map("plugin_versions") {
        match entry.node.value.text().map(str::parse::<Version>) {
            Some(Ok(version)) => drop(plugin_versions.insert(name.to_owned(), version)),
            Some(Err(error)) => faults.push(&entry.node.at, table.key("plugin_versions"), format!("{name}: {error}")),
            None => (),
        }
    }
    let mesh = Mesh {
        enabled: table.flag("enabled"),
        role: table.parsed("role")?,
        listen: table.parsed("listen")?,
        tls: uses_tls,
        partners: partners::read(&table, &connect, faults),
        connect,
        auth_token: table.secret("auth_token"),
        zenohd_version: table.parsed("zenohd_version")?,
        plugin_versions,
        publish: publish(&table, faults),
        subscribe: subscribe(&table, faults),
    };
    if mesh.enabled {
        check_tls(&table, mesh.listen, mesh.tls, tls, faults);
    }
    Some(mesh)
}

/// The addresses that a section dials.
pub(crate) fn endpoints(table: &Table<'_>, uses_tls: bool, faults: &mut Faults) -> Vec<Endpoint> {
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for (at, text) in table.texts("connect") {
        match endpoint(text, uses_tls) {
            Ok(endpoint) if endpoints.contains(&endpoint) => {
                faults.push(&at, table.key("connect"), format!("{endpoint} is given twice"));
            }
            Ok(endpoint) => endpoints.push(endpoint),
            Err(message) => faults.push(&at, table.key("connect"), message),
        }
    }
    endpoints
}

fn publish(table: &Table<'_>, faults: &mut Faults) -> Vec<String> {
    let mut signals: Vec<String> = Vec::new();
    for (at, text) in table.texts("publish") {
        if !is_signal(text) {
            faults.push(&at, table.key("publish"), format!("wanted a signal's name without wildcards, got {text:?}"));
        } else if signals.iter().any(|known| known == text) {
            faults.push(&at, table.key("publish"), format!("{text:?} is given twice"));
        }
        signals.push(text.to_owned());
    }
    signals
}

fn subscribe(table: &Table<'_>, faults: &mut Faults) -> BTreeMap<String, String> {
    let mut signals = BTreeMap::new();
    for (name, entry) in table.map("subscribe") {
        let Some(text) = entry.node.value.text() else { continue };
        if let Some(bad) = [name, text].into_iter().find(|it| !is_signal(it)) {
            let message = format!("wanted a signal's name without wildcards, got {bad:?}");
            faults.push(&entry.key_at, table.key("subscribe"), message);
        }
        signals.insert(name.to_owned(), text.to_owned());
    }
    signals
}

/// A wildcard or an empty part would reach into other runtimes' keys.
fn is_signal(text: &str) -> bool {
    let is_legal = |it: char| it.is_ascii_graphic() && !matches!(it, '*' | '$' | '?' | '#');
    text.len() <= SIGNAL_BYTES_MAX && text.chars().all(is_legal) && text.split('/').all(|part| !part.is_empty())
}

fn check_tls(table: &Table<'_>, listen: SocketAddr, uses_tls: bool, tls: Option<&Tls>, faults: &mut Faults) {
    let Some(tls) = tls else { return };
    if uses_tls && tls.mode == TlsMode::Disabled {
        let suggestion = Some("set runtime.tls.mode to \"self-managed\" or \"provisioned\"".to_owned());
        faults.push_with(
            &table.at("tls"),
            table.key("tls"),
            "wanted certificates, got runtime.tls.mode = \"disabled\"",
            suggestion,
        );
    }
    if tls.require_remote && !uses_tls && !listen.ip().is_loopback() {
        let message = format!("wanted true because {listen} is not loopback and runtime.tls.require_remote is set");
        faults.push(&table.at("tls"), table.key("tls"), message);
    }
}

/// The admin listener speaks as the public one does, and is held to the same rule.
pub(crate) fn check_admin(root: &Node, tls: Option<&Tls>, faults: &mut Faults) {
    let (admin, web) = (Table::of(root, "runtime.admin"), Table::of(root, "runtime.web"));
    let is_plain = admin.flag("enabled") && !web.flag("tls");
    let Some(listen) = admin.parsed::<SocketAddr>("listen").filter(|it| is_plain && !it.ip().is_loopback()) else {
        return;
    };
    if tls.is_some_and(|tls| tls.require_remote) {
        let message =
            format!("wanted loopback because of runtime.web.tls = false and runtime.tls.require_remote, got {listen}");
        faults.push(&admin.at("listen"), admin.key("listen"), message);
    }
}

/// Two listeners on one address cannot both be bound; port 0 is a different port each time.
pub(crate) fn check_distinct(root: &Node, faults: &mut Faults) {
    let mut taken: Vec<(SocketAddr, String)> = Vec::new();
    let sections = ["runtime.mesh", "runtime.web", "runtime.admin"].map(|path| Table::of(root, path));
    let [mesh, ..] = &sections;
    let partners = if mesh.flag("enabled") { mesh.list("partner") } else { Vec::new() };
    let enabled = sections.into_iter().filter(|table| table.flag("enabled"));
    for table in enabled.chain(partners) {
        let Some(listen) = table.parsed::<SocketAddr>("listen").filter(|it| it.port() != 0) else { continue };
        if let Some((_, other)) = taken.iter().find(|(address, _)| overlap(*address, listen)) {
            faults.push(&table.at("listen"), table.key("listen"), format!("{listen} is already taken by {other}"));
        }
        taken.push((listen, table.key("listen")));
    }
}

fn overlap(left: SocketAddr, right: SocketAddr) -> bool {
    let same_family = left.is_ipv4() == right.is_ipv4();
    let same_address = left.ip() == right.ip() || left.ip().is_unspecified() || right.ip().is_unspecified();
    left.port() == right.port() && same_family && same_address
}

/// Reads `host:port`, or a Zenoh locator whose protocol agrees with `runtime.mesh.tls`.
fn endpoint(text: &str, uses_tls: bool) -> Result<Endpoint, String> {
    let protocol = if uses_tls { "tls" } else { "tcp" };
    let bare = match text.split_once('/') {
        None => text,
        Some((given, rest)) if given == protocol => rest,
        Some((given @ ("tcp" | "tls"), _)) => {
            return Err(format!("wanted {protocol} because of runtime.mesh.tls = {uses_tls}, got {given} in {text:?}"));
        }
        Some((_, _)) => return Err(format!("wanted host:port, got {text:?}")),
    };
    let refuse = || format!("wanted host:port, got {text:?}");
    let (host, port) = bare.rsplit_once(':').ok_or_else(refuse)?;
    let port: u16 = port.parse().ok().filter(|it| *it != 0).ok_or_else(refuse)?;
    let host = match host.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
        Some(inner) if inner.parse::<std::net::Ipv6Addr>().is_ok() => inner,
        None if is_host(host) && !host.contains(':') => host,
        Some(_) | None => return Err(refuse()),
    };
    Ok(Endpoint { host: host.to_owned(), port })
}

fn is_host(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.chars().all(|it| it.is_ascii_alphanumeric() || matches!(it, '-' | '_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.parse::<IpAddr>().is_ok() || (text.len() <= HOST_BYTES_MAX && text.split('.').all(is_label))
}
