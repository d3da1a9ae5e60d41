//! The next certificate of a node, for the key that it has: what a node that holds the authority runs for each renewal.
//!
//! Everything is taken from the ledger and from the certificate in force, nothing from whoever asks.

use std::io::Read;
use std::path::Path;

use rcgen::SubjectPublicKeyInfo;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::json;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

use super::authority::{Authority, Issued, pem, seconds};
use super::certificate::{self, Names};
use super::ledger::{Entry, Ledger};
use super::{disk, is_own, list};
use crate::cli::args::Ca;
use crate::cli::exit::{Exit, Failure};
use crate::cli::output;
use crate::domain::identity::SubjectName;
use crate::domain::identity::renewal::{is_due, not_again_before};
use crate::domain::identity::svid::Svid;
use crate::domain::time::{Millis, Wall};

/// Longest certificate that is read, in bytes.
const PEM_BYTES_MAX: u64 = 64 * 1_024;

pub(super) fn run(ca: &Ca, certificate: &Path, now: Wall) -> Result<(), Failure> {
    // First, because the folder is locked from then on, and a terminal may stay silent for long.
    let text = read(certificate)?;
    let (authority, as_json) = (Authority::open(&ca.ca)?, ca.json);
    let in_force = CertificateDer::from_pem_slice(text.as_bytes())
        .map_err(|error| Failure::new(Exit::Usage, format!("--certificate: not PEM ({error})")))?;
    let issued = renew(&authority, &in_force, now)?;
    let text = pem(&issued.der);
    if !as_json {
        return output::line(text.trim_end());
    }
    let until = list::shown(issued.svid.not_after)?;
    output::json(&json!({ "id": issued.svid.id.to_string(), "serial": issued.serial, "not_after": until, "pem": text }))
}

fn read(path: &Path) -> Result<String, Failure> {
    if path != Path::new("-") {
        return disk::read(path);
    }
    let mut text = String::new();
    let read = std::io::stdin().take(PEM_BYTES_MAX).read_to_string(&mut text);
    read.map(|_length| text).map_err(|error| Failure::failed(format!("standard input: {error}")))
}

fn renew(authority: &Authority, in_force: &CertificateDer<'static>, now: Wall) -> Result<Issued, Failure> {
    let svid = authority.check(in_force, now)?;
    is_own(authority, &svid.subject)?;
    if matches!(svid.subject.name, SubjectName::Actor(_)) {
        return Err(denied("an actor's certificate is given by a person: use `identity approve` or `identity issue`"));
    }
    let life = allowed(&Ledger::of(&authority.folder).read()?, &svid, now)?;
    let key = SubjectPublicKeyInfo::from_der(&svid.public_key).map_err(certificate::cannot)?;
    authority.issue(&svid.subject, &names_of(in_force)?, &key, life, now)
}

/// What the ledger says: for how long it is issued, or why not.
fn allowed(entries: &[Entry], svid: &Svid, now: Wall) -> Result<Millis, Failure> {
    let certificate = svid.certificate.to_string();
    let id = svid.id.to_string();
    let of_id = || entries.iter().filter(|entry| entry.id == id);
    let Some(held) = of_id().find(|entry| entry.certificate == certificate) else {
        return Err(denied("the ledger does not know this certificate"));
    };
    let newest = of_id().max_by_key(|entry| entry.issued).unwrap_or(held);
    if newest.key != svid.key.to_string() {
        return Err(denied("a newer certificate of this id has another key"));
    }
    let at = |seconds| Wall::default().plus(Millis::from_secs(seconds));
    if !is_due(svid.not_before, svid.not_after, now) {
        return Err(early("the certificate is not near its end"));
    }
    let again = not_again_before(at(newest.issued), at(newest.not_after));
    if now < again {
        return Err(early(&format!(
            "it was renewed already: ask again in {} s",
            seconds(again).saturating_sub(seconds(now))
        )));
    }
    Ok(Millis::from_secs(held.not_after.saturating_sub(held.issued)))
}

/// The names under which the node is reached, as they were approved: nobody can add one here.
fn names_of(certificate: &CertificateDer<'_>) -> Result<Names, Failure> {
    let unreadable = || Failure::failed("the certificate in force cannot be read");
    let (_, parsed) = parse_x509_certificate(certificate).map_err(|_any_fault| unreadable())?;
    let names = parsed.subject_alternative_name().map_err(|_any_fault| unreadable())?;
    let mut found = Names::default();
    for name in names.iter().flat_map(|names| &names.value.general_names) {
        if let GeneralName::DNSName(name) = name {
            found.dns.push((*name).to_owned());
        } else if let GeneralName::IPAddress(bytes) = name {
            found.ip.push(address(bytes).ok_or_else(unreadable)?);
        }
    }
    Names::new(&found.dns, &found.ip)
}

fn address(bytes: &[u8]) -> Option<std::net::IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(std::net::IpAddr::from);
    four.or_else(|_longer| <[u8; 16]>::try_from(bytes).map(std::net::IpAddr::from)).ok()
}

fn denied(reason: &str) -> Failure {
    Failure::new(Exit::Denied, format!("not issued: {reason}"))
}

fn early(reason: &str) -> Failure {
    Failure::new(Exit::Conflict, format!("not issued: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::commands::identity::certificate::Span;
    use crate::domain::identity::{Mapping, Naming, Subject};

    const LIFE: Millis = Millis::from_secs(600);

    fn at(second: u64) -> Wall {
        Wall::default().plus(Millis::from_secs(second.saturating_add(1_800_000_000)))
    }

    fn naming() -> Naming {
        Naming { trust_domain: "trust".parse().expect("legal"), mapping: Mapping::PathSite }
    }

    fn node(name: &str) -> Subject {
        Subject::of_runtime(&format!("s/{name}").parse().expect("legal"))
    }

    /// An authority in a folder of its own.
    fn authority() -> (tempfile::TempDir, Authority) {
        let folder = tempfile::tempdir().expect("a folder");
        let made = Authority::init(&folder.path().join("ca"), "s", naming(), 1, at(0)).expect("made");
        (folder, made)
    }

    fn names() -> Names {
        Names::new(&["rt.example".to_owned()], &["10.0.0.7".parse().expect("legal")]).expect("legal")
    }

    fn issue(authority: &Authority, subject: &Subject, key: &rcgen::KeyPair, second: u64) -> CertificateDer<'static> {
        authority.issue(subject, &names(), key, LIFE, at(second)).expect("issued").der
    }

    fn key() -> rcgen::KeyPair {
        rcgen::KeyPair::generate().expect("made")
    }

    #[test]
    fn the_next_certificate_is_for_the_same_id_key_and_names_and_is_in_the_ledger() {
        let (_folder, authority) = authority();
        let first = issue(&authority, &node("a"), &key(), 0);
        let next = renew(&authority, &first, at(400)).expect("renewed");
        let before = authority.check(&first, at(400)).expect("holds");
        assert_eq!((next.svid.id.clone(), next.svid.key), (before.id, before.key));
        assert_eq!(names_of(&next.der).expect("readable"), names());
        assert_eq!(next.svid.not_after, at(1_000));
        let entries = Ledger::of(&authority.folder).read().expect("readable");
        assert_eq!(entries.last().map(|it| it.certificate.clone()), Some(next.svid.certificate.to_string()));
        assert_eq!(entries.len(), 2);
    }

    /// The exit code and a word of the reason, and nothing was issued.
    fn refused(authority: &Authority, certificate: &CertificateDer<'static>, second: u64) -> (Exit, String) {
        let before = Ledger::of(&authority.folder).read().expect("readable").len();
        let failure = renew(authority, certificate, at(second)).expect_err("refused");
        assert_eq!(Ledger::of(&authority.folder).read().expect("readable").len(), before);
        (failure.exit, failure.message)
    }

    #[test]
    fn who_may_not_have_one_is_refused_by_reason() {
        let (_folder, authority) = authority();
        let own = key();
        let first = issue(&authority, &node("a"), &own, 0);
        for (certificate, second, exit, wanted) in [
            (first.clone(), 300, Exit::Conflict, "not near its end"),
            (first.clone(), 601, Exit::Denied, "has expired"),
        ] {
            let (found, reason) = refused(&authority, &certificate, second);
            assert!(found == exit && reason.contains(wanted), "{reason}");
        }
        let (_elsewhere, other) = self::authority();
        let foreign = issue(&other, &node("a"), &own, 0);
        assert_eq!(refused(&authority, &foreign, 400).0, Exit::Denied);
        let actor =
            Subject { site: "s".parse().expect("legal"), name: SubjectName::Actor("a".parse().expect("legal")) };
        let person = issue(&authority, &actor, &key(), 0);
        assert!(refused(&authority, &person, 400).1.contains("a person"));
        // Made by the authority's key and never noted: what the ledger does not know does not count.
        let span = Span::new(at(0), LIFE);
        let params = certificate::of_subject(&naming(), &node("b"), &names(), span).expect("made");
        let stolen = certificate::sign(&params, &key(), &authority.issuer().expect("a key")).expect("signed");
        assert!(refused(&authority, &stolen, 400).1.contains("ledger does not know"));
        // A new key was enrolled since.
        issue(&authority, &node("a"), &key(), 350);
        assert!(refused(&authority, &first, 560).1.contains("another key"));
    }

    #[test]
    fn renewing_again_waits_for_a_third_of_the_life_that_was_given() {
        let (_folder, authority) = authority();
        let first = issue(&authority, &node("a"), &key(), 0);
        renew(&authority, &first, at(310)).expect("renewed");
        // The answer was lost, and the node asks with the old one.
        let (exit, reason) = refused(&authority, &first, 509);
        assert!(exit == Exit::Conflict && reason.contains("ask again in 1 s"), "{reason}");
        renew(&authority, &first, at(510)).expect("renewed");
    }

    #[test]
    fn whoever_is_banned_gets_none() {
        for kind in ["id", "key", "certificate"] {
            let (_folder, authority) = authority();
            let first = issue(&authority, &node("a"), &key(), 0);
            let svid = authority.check(&first, at(1)).expect("holds");
            let what = match kind {
                "id" => svid.id.to_string(),
                "key" => svid.key.to_string(),
                _ => svid.certificate.to_string(),
            };
            std::fs::write(authority.bans_path(), format!("{kind} {what}\n")).expect("written");
            let (exit, reason) = refused(&authority, &first, 400);
            assert!(exit == Exit::Denied && reason.contains("ban"), "{reason}");
        }
    }
}
