//! Trust bundles on a stick: written by an authority, taken by the nodes of a partner. Neither needs a node or a network.
//!
//! The first bundle of a site is taken on a person's word for its fingerprint; every later one has to be signed by an authority
//! that is known already, so that a site changes its keys without a telephone call, and nobody else can. Whoever has missed too
//! many changes begins again with a person's word.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use rcgen::{PublicKeyData, SigningKey};
use serde_json::json;

use crate::cli::commands::identity::authority::Authority;
use crate::cli::commands::identity::disk::{self, PUBLIC};
use crate::cli::commands::identity::{certificate, list, say};
use crate::cli::environment;
use crate::cli::exit::{Exit, Failure};
use crate::domain::id::SiteId;
use crate::domain::identity::bundle::{Bundle, Taken, Way, is_signed_by_any};
use crate::domain::identity::{Fingerprint, words};
use crate::domain::time::{Millis, Wall};
use crate::node::bundles::{Bundles, Error, bans, known_authorities};
use crate::settings::{self, BundlePartner, Settings};
use crate::wire::bundle::{Malformed, SIGNED_BYTES_MAX, Sealed, Statement, payload, seal};

/// Writes the present anchors as a file that every key of the authority has signed.
pub(super) fn export(
    authority: &Authority,
    out: Option<&Path>,
    days: u32,
    refresh_hint_s: u32,
    as_json: bool,
    now: Wall,
) -> Result<(), Failure> {
    let numbers = authority.state.anchors();
    let authorities: Result<Vec<_>, _> = numbers.iter().map(|it| authority.certificate(*it)).collect();
    let refresh_hint = Some(Millis::from_secs(u64::from(refresh_hint_s)));
    let bundle = Bundle { sequence: authority.state.sequence, refresh_hint, authorities: authorities? };
    let expires = now.plus(Millis::from_hours(u64::from(days).saturating_mul(24)));
    let domain = authority.naming.domain_of(&authority.site);
    let trust_domain = domain.map_err(|error| Failure::new(Exit::Configuration, error.to_string()))?;
    let statement = Statement { site: authority.site.clone(), trust_domain, issued: now, expires, bundle };
    let (payload, message) = payload(&statement).map_err(|fault| Failure::failed(fault.to_string()))?;
    let mut signatures = Vec::new();
    for number in numbers {
        let key = authority.key(number)?;
        let name = Fingerprint::of_der(&key.subject_public_key_info());
        signatures.push((name, key.sign(&message).map_err(certificate::cannot)?));
    }
    let default = authority.folder.join(format!("bundle-{}.json", authority.site));
    let path = out.unwrap_or(&default);
    disk::write(path, &seal(&payload, &signatures), PUBLIC)?;
    let fingerprint = Fingerprint::of_der(&payload);
    let (sequence, until) = (statement.bundle.sequence, list::shown(expires)?);
    let spoken = words::spoken(&fingerprint);
    say(
        as_json,
        &json!({
            "site": authority.site.as_str(), "file": path, "sequence": sequence, "expires": until,
            "fingerprint": fingerprint.to_string(), "words": spoken,
        }),
        &[
            format!("bundle       of site {}, number {sequence}, until {until}", authority.site),
            format!("file         {}", path.display()),
            format!("fingerprint  {spoken}"),
            "next         bring it to your nodes (runtime.identity.bundle_path) and to your partners".to_owned(),
        ],
    )
}

/// Checks a partner's file and takes its bundle.
pub(super) fn import(
    file: &Path,
    site: &str,
    project: &Path,
    said: Option<&str>,
    as_json: bool,
    now: Wall,
) -> Result<(), Failure> {
    let settings = settings::load(project, environment())
        .map_err(|problems| Failure::new(Exit::Configuration, problems.to_string()))?;
    let partner = partner_of(&settings, site)?;
    let state = project.join(&settings.store.path);
    fs::create_dir_all(&state).map_err(|error| Failure::failed(format!("{}: {error}", state.display())))?;
    let shelf = Bundles::of(&state, &settings);
    let sealed = Sealed::read(&read(file)?).map_err(|fault| wrong(file, &fault))?;
    let known = known_authorities(project, &settings, &shelf, &partner.site).map_err(failure)?;
    let domain = settings.identity.naming().domain_of(&partner.site);
    let domain = domain.map_err(|error| Failure::new(Exit::Configuration, error.to_string()))?;
    let bans = bans(project, &settings).map_err(failure)?;
    let message = sealed.message();
    let is_signed = |authorities: &[_]| {
        sealed.signatures().iter().any(|it| is_signed_by_any(authorities, &domain, &bans, now, &message, it))
    };
    let is_vouched = is_signed(&known);
    if !is_vouched {
        compare(&sealed, said, known.is_empty())?;
    }
    let statement = sealed.open().map_err(|fault| wrong(file, &fault))?;
    check_names(&statement, &partner.site, &domain)?;
    if !is_vouched && !is_signed(&statement.bundle.authorities) {
        return Err(Failure::new(Exit::Denied, "none of the authorities in it has signed it: export it anew"));
    }
    let way = Way::File { expires: statement.expires };
    let taken = shelf.take(partner, statement.bundle, way, now).map_err(failure)?;
    show(&taken, partner, as_json)
}

fn partner_of<'a>(settings: &'a Settings, site: &str) -> Result<&'a BundlePartner, Failure> {
    let partner = settings.identity.partners.iter().find(|partner| partner.site.as_str() == site);
    partner.ok_or_else(|| {
        let message =
            format!("--site {site:?}: is no partner here: add it to runtime.toml as [[runtime.identity.partner]]");
        Failure::new(Exit::Configuration, message)
    })
}

/// Shows the words of a bundle that nothing known vouches for, or holds them against those that were said.
fn compare(sealed: &Sealed, said: Option<&str>, is_first: bool) -> Result<(), Failure> {
    let fingerprint = sealed.fingerprint();
    match said {
        None => {
            let (exit, why) = if is_first {
                (Exit::Usage, "this is the first bundle of the site")
            } else {
                (Exit::Denied, "no authority that is known of this site, still holds and is not banned has signed it")
            };
            let message = format!(
                "{why}; its fingerprint is:\n  {}\ncompare it over the telephone with what the site's authority showed, \
                 then say --fingerprint",
                words::spoken(&fingerprint)
            );
            Err(Failure::new(exit, message))
        }
        Some(said) if words::is_spoken(&fingerprint, said) => Ok(()),
        Some(_) => {
            let message = "the fingerprint is another one: the file may have been exchanged on its way; fetch it again";
            Err(Failure::new(Exit::Denied, message))
        }
    }
}

fn check_names(
    statement: &Statement,
    site: &SiteId,
    domain: &crate::domain::identity::TrustDomain,
) -> Result<(), Failure> {
    if statement.site == *site && statement.trust_domain == *domain {
        return Ok(());
    }
    let Statement { site: got, trust_domain, .. } = statement;
    let message = format!("it is the bundle of {got} in {trust_domain}, wanted {site} in {domain}");
    Err(Failure::new(Exit::Denied, message))
}

fn show(taken: &Taken, partner: &BundlePartner, as_json: bool) -> Result<(), Failure> {
    let until = taken.file_expires.map(list::shown).transpose()?.unwrap_or_default();
    let sequence = taken.bundle.sequence;
    let authorities: Vec<String> =
        taken.bundle.authorities.iter().map(|der| Fingerprint::of_der(der).to_string()).collect();
    let mut lines = vec![format!("bundle       of site {}, number {sequence}, until {until}", partner.site)];
    lines.extend(authorities.iter().map(|authority| format!("authority    {authority}")));
    lines.push("next         nothing: a running node takes it up within a second".to_owned());
    let body = json!({
        "site": partner.site.as_str(), "sequence": sequence, "expires": until, "authorities": authorities,
    });
    say(as_json, &body, &lines)
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let most = u64::try_from(SIGNED_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes));
    read.map(|_length| bytes).map_err(|error| disk::fault(path, &error))
}

fn wrong(path: &Path, fault: &Malformed) -> Failure {
    Failure::new(Exit::Configuration, format!("{}: {fault}", path.display()))
}

/// What the rules refuse is refused; the rest is the machine's.
fn failure(error: Error) -> Failure {
    let exit = match &error {
        Error::Refused(_) => Exit::Denied,
        Error::File { .. } => Exit::Failed,
        Error::Anchors(_) | Error::Content { .. } | Error::Exposed { .. } | Error::Naming(_) | Error::Own { .. } => {
            Exit::Configuration
        }
    };
    Failure::new(exit, error.to_string())
}
