//! `[[runtime.mesh.partner]]`: the other sites that a router links with, and what has to be there for it.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::domain::id::SiteId;
use crate::settings::listeners;
use crate::settings::problem::Faults;
use crate::settings::raw::Node;
use crate::settings::table::Table;
use crate::settings::valid::{Endpoint, Identity, Mesh, MeshRole};

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

/// Reads the list. Links between sites are inside TLS, whatever the profile, so that is how addresses are read.
/// An address is that of one site, so whom the own site's links dial is not dialled here.
pub(crate) fn read(mesh: &Table<'_>, own: &[Endpoint], faults: &mut Faults) -> Vec<Partner> {
    let mut partners: Vec<Partner> = Vec::new();
    for entry in mesh.list("partner") {
        let Some(site) = entry.parsed::<SiteId>("site") else { continue };
        let listen = entry.parsed("listen");
        let connect = listeners::endpoints(&entry, true, faults);
        if !entry.has("listen") && entry.texts("connect").is_empty() {
            let message = format!("wanted listen or connect for site {site}, got neither");
            faults.push(&entry.at, entry.shown.clone(), message);
        }
        let mut dialled = partners.iter().flat_map(|it| &it.connect).chain(own);
        if let Some(again) = dialled.find(|it| connect.contains(it)) {
            let message = format!("{again} is dialled already, and an address is that of one site");
            faults.push(&entry.at("connect"), entry.key("connect"), message);
        }
        let links_max = entry.number("links_max");
        partners.push(Partner { site, listen, connect, links_max });
    }
    partners
}

/// What the list asks of the other settings.
pub(crate) fn check(root: &Node, mesh: &Mesh, identity: &Identity, own_site: &SiteId, faults: &mut Faults) {
    let table = Table::of(root, "runtime.mesh");
    let entries = table.list("partner");
    let Some(first) = entries.first() else { return };
    if !mesh.tls {
        let message = "wanted runtime.mesh.tls = true: links between sites run inside TLS in every profile";
        let suggestion = Some("set runtime.mesh.tls = true, runtime.tls.mode and runtime.identity.source".to_owned());
        faults.push_with(&first.at, first.shown.clone(), message, suggestion);
    }
    if mesh.role != MeshRole::Router {
        let message = format!("wanted runtime.mesh.role = \"router\", got \"{}\": only routers link sites", mesh.role);
        faults.push(&first.at, first.shown.clone(), message);
    }
    let mut sites = BTreeSet::new();
    for entry in &entries {
        let Some(site) = entry.parsed::<SiteId>("site") else { continue };
        if site == *own_site {
            let message = "wanted another site: the own site's nodes come to runtime.mesh.listen";
            faults.push(&entry.at("site"), entry.key("site"), message);
        } else if !identity.knows(&site) {
            let message =
                format!("wanted a site of runtime.identity.anchors or .partner, got {site}, which is in neither");
            faults.push(&entry.at("site"), entry.key("site"), message);
        }
        if !sites.insert(site.clone()) {
            faults.push(&entry.at("site"), entry.key("site"), format!("site {site} is given twice"));
        }
    }
}
