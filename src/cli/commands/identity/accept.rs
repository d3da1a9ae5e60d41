//! On the node: whose answer its keys take, noted beside them where they are made and where anchors are accepted.

use std::fs;
use std::path::{Path, PathBuf};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::json;

use super::authority::anchors_file;
use super::{disk, join, say};
use crate::cli::exit::{Exit, Failure};
use crate::cli::output;
use crate::domain::id::SiteId;
use crate::domain::identity::acceptance::{Acceptance, Came, Succession};
use crate::domain::identity::anchors::ANCHORS_PER_SITE_MAX;
use crate::domain::identity::{Fingerprint, words};
use crate::node::acceptance::{ENDING, file_of, read};

/// Most files of a folder that are looked at: it is the folder of a node's certificates, and no heap.
const FILES_MAX: usize = 10_000;

/// Notes for a node's key by what the answer will be known. A key from before there were such notes goes on without one: its
/// node runs already, and may be of an authority that nobody accepted here. Gives the file, if there is one.
pub(super) fn expect(
    key: &Path,
    is_new_key: bool,
    site: &SiteId,
    pin: Option<Fingerprint>,
) -> Result<Option<PathBuf>, Failure> {
    let path = file_of(key);
    // What cannot be read is begun anew with a new key, and told of with an old one.
    let known = match read(&path) {
        Err(_unreadable) if is_new_key => None,
        known => known.map_err(wrong)?,
    };
    let other = known.as_ref().map(Acceptance::site).filter(|noted| *noted != site);
    if let Some(noted) = other.filter(|_| !is_new_key) {
        let message = format!(
            "{}: this key is of site {noted}, and {site} was asked for: name that site, or another folder for the new key",
            path.display()
        );
        return Err(Failure::new(Exit::Conflict, message));
    }
    let known = known.filter(|it| it.site() == site);
    let noted = match (known, pin) {
        // It has a key, or had one, whose authority is known already.
        (Some(known), Some(pin)) => known.pinned_to(pin),
        (Some(_known), None) => return Ok(Some(path)),
        (None, pin) if is_new_key || path.exists() => Acceptance::expecting(site.clone(), pin),
        (None, _) => return Ok(None),
    };
    disk::write(&path, noted.to_string().as_bytes(), disk::PUBLIC)?;
    Ok(Some(path))
}

/// By what the anchors that came back are known.
#[derive(Debug, Clone, Copy)]
pub(super) enum Witness<'a> {
    /// The file of the join token, which names them.
    Token(&'a Path),
    /// Words, as somebody at the authority has said them.
    Words(&'a str),
}

/// Whether the answer is of the authority that was asked: then it is noted for the keys of the folder. Without a witness it is
/// only shown.
pub(super) fn accept(folder: &Path, site: &SiteId, witness: Option<Witness<'_>>, as_json: bool) -> Result<(), Failure> {
    let path = folder.join(anchors_file(site));
    let text = disk::read(&path)?;
    let print = Fingerprint::of_der(text.as_bytes());
    let spoken = words::spoken(&print);
    let (is_meant, of_whom) = match witness {
        Some(Witness::Token(token)) => {
            (join::read_token(token)?.pin() == print, "of the authority that made the token")
        }
        Some(Witness::Words(said)) => (words::is_spoken(&print, said), "those of the words"),
        None => {
            output::note(&format!("words        {spoken}"));
            let message = "nothing is accepted yet: compare the words with those that the authority showed when it issued \
                           the certificate, by another way than the files came, then say --anchors; or give --join-token";
            return Err(Failure::new(Exit::Usage, message));
        }
    };
    if !is_meant {
        let message = format!("{}: not the anchors {of_whom}: they may have been exchanged", path.display());
        return Err(Failure::new(Exit::Denied, message));
    }
    // The words are those of the whole file, so that what it tells of changes of key counts as they do.
    let came = Came { print, anchors: anchors(&path, &text)?, successions: Succession::all_of(&text) };
    let noted = note(folder, site, &came)?;
    let mut lines = vec![format!("anchors      {}: {of_whom}", path.display()), format!("authority    {spoken}")];
    lines.extend(noted.iter().map(|file| format!("noted        {}", file.display())));
    if noted.is_empty() {
        lines.push(format!("noted        nowhere: no key of site {site} here was made by `identity enrol`"));
    }
    say(as_json, &json!({ "anchors": path, "authority": spoken, "noted": noted }), &lines)
}

fn anchors(path: &Path, text: &str) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match read {
        Ok(anchors) if !anchors.is_empty() && anchors.len() <= ANCHORS_PER_SITE_MAX => Ok(anchors),
        _ => {
            let message = format!("{}: wanted 1 to {ANCHORS_PER_SITE_MAX} certificates in PEM", path.display());
            Err(Failure::new(Exit::Configuration, message))
        }
    }
}

/// Every key of this site in the folder takes certificates of these anchors from now on. Gives the files.
fn note(folder: &Path, site: &SiteId, came: &Came) -> Result<Vec<PathBuf>, Failure> {
    let entries = fs::read_dir(folder).map_err(|error| disk::fault(folder, &error))?;
    let paths = entries.take(FILES_MAX).filter_map(|entry| Some(entry.ok()?.path()));
    let mut paths: Vec<_> = paths.filter(|path| path.extension().is_some_and(|it| it == ENDING)).collect();
    paths.sort();
    let mut noted = Vec::new();
    for path in paths {
        let Some(known) = read(&path).map_err(wrong)?.filter(|it| it.site() == site) else { continue };
        disk::write(&path, known.accepting(came).to_string().as_bytes(), disk::PUBLIC)?;
        noted.push(path);
    }
    Ok(noted)
}

fn wrong(unmet: crate::node::acceptance::Unmet) -> Failure {
    Failure::new(Exit::Configuration, unmet.to_string())
}
