//! `[[runtime.identity.partner]]`: sites that are known by their trust bundles, and where the bundles come from.

use std::collections::BTreeSet;

use crate::domain::id::{RuntimeId, SiteId};
use crate::domain::identity::{Naming, SpiffeId};
use crate::domain::time::Millis;
use crate::settings::problem::Faults;
use crate::settings::table::Table;
use crate::settings::valid::{BundleEndpoint, BundlePartner, EndpointProof};

const WEB: &str = "https_web";
const SPIFFE: &str = "https_spiffe";

/// Reads all of them; one with a fault is reported and left out.
pub(crate) fn read(
    identity: &Table<'_>,
    own_site: &SiteId,
    naming: &Naming,
    faults: &mut Faults,
) -> Vec<BundlePartner> {
    let mut partners = Vec::new();
    let mut sites = BTreeSet::new();
    for entry in identity.list("partner") {
        let Some(site) = entry.parsed::<SiteId>("site") else { continue };
        if site == *own_site {
            faults.push(&entry.at("site"), entry.key("site"), "wanted another site, got the own one");
        } else if !sites.insert(site.clone()) {
            faults.push(&entry.at("site"), entry.key("site"), format!("partner {site} is given twice"));
        } else {
            let endpoint = endpoint(&entry, &site, naming, faults);
            partners.push(BundlePartner { site, endpoint, age_max: Millis::from_secs(entry.number("max_age_s")) });
        }
    }
    partners
}

fn endpoint(entry: &Table<'_>, site: &SiteId, naming: &Naming, faults: &mut Faults) -> Option<BundleEndpoint> {
    let profile = entry.text("profile").unwrap_or(SPIFFE);
    let Some(url) = entry.text("bundle_endpoint") else {
        for name in ["endpoint_spiffe_id", "ca_path", "profile"].into_iter().filter(|name| entry.has(name)) {
            faults.push(&entry.at(name), entry.key(name), "wanted a bundle_endpoint beside it, got none");
        }
        return None;
    };
    if let Err(message) = check_url(url) {
        faults.push(&entry.at("bundle_endpoint"), entry.key("bundle_endpoint"), message);
    }
    let (wanted, other) =
        if profile == WEB { ("ca_path", "endpoint_spiffe_id") } else { ("endpoint_spiffe_id", "ca_path") };
    if entry.has(other) {
        faults.push(&entry.at(other), entry.key(other), format!("has no meaning with profile = {profile:?}"));
    }
    if !entry.has(wanted) {
        faults.push(&entry.at, entry.key(wanted), format!("wanted because of profile = {profile:?}, got nothing"));
        return None;
    }
    let proof = if profile == WEB {
        EndpointProof::Web(entry.path("ca_path")?)
    } else {
        let runtime = runtime_of(entry.text("endpoint_spiffe_id")?, site, naming);
        let fault = |message| faults.push(&entry.at("endpoint_spiffe_id"), entry.key("endpoint_spiffe_id"), message);
        EndpointProof::Runtime(runtime.map_err(fault).ok()?)
    };
    Some(BundleEndpoint { url: url.to_owned(), proof })
}

/// Only a runtime of the site itself: another site's word about its authorities is that other site's.
fn runtime_of(text: &str, site: &SiteId, naming: &Naming) -> Result<RuntimeId, String> {
    let id: SpiffeId = text.parse().map_err(|error| format!("{error}"))?;
    let subject = naming.subject(&id).map_err(|error| error.to_string())?;
    let runtime = subject.as_runtime().filter(|runtime| runtime.site == *site);
    runtime.ok_or_else(|| format!("wanted the SPIFFE ID of a runtime of site {site}, got {text}"))
}

/// An https address with a host, without a name or a password (SPIFFE Federation, section 5.2.1).
fn check_url(url: &str) -> Result<(), String> {
    let wanted = |what: &str| {
        Err(format!("wanted an https address such as https://10.0.0.7:8443/api/runtime-cloud/bundle, {what}"))
    };
    let Some(rest) = url.strip_prefix("https://") else { return wanted("got another scheme") };
    if !url.chars().all(|it| it.is_ascii_graphic()) {
        return wanted("got characters that no address has");
    }
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if host.is_empty() || host.starts_with(':') {
        return wanted("got no host");
    }
    if host.contains('@') {
        return wanted("got a user name in it");
    }
    if rest.contains('#') { wanted("got a fragment") } else { Ok(()) }
}
