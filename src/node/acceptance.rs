//! The file beside a node's key that says whose certificates it takes, held against the anchors that have come.
//!
//! Only a key that `identity enrol` has made has one: what was issued on the same machine, by another PKI or by an agent is not
//! asked about here. Whoever may change the file may change the key beside it.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::domain::id::SiteId;
use crate::domain::identity::acceptance::{Acceptance, Came, NotAnAcceptance, Succession, Unaccepted};
use crate::domain::identity::anchors::ANCHORS_PER_SITE_MAX;
use crate::domain::identity::{Fingerprint, words};
use crate::node::draft::replace_if;
use crate::settings::{Profile, Settings};
use crate::tls;

/// Everybody may read it.
const MODE: u32 = 0o644;

/// How the file's name ends; before that it is the key's.
pub const ENDING: &str = "authority";

/// Why the own site's anchors do not count here.
#[derive(Debug, thiserror::Error)]
pub enum Unmet {
    /// One of the files cannot be read.
    #[error(transparent)]
    File(#[from] tls::FileError),
    /// The file beside the key has another content than it should have.
    #[error("{}: {fault}", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        fault: NotAnAcceptance,
    },
    /// It is for another site.
    #[error("{}: the key was made for site {made_for}, and this node is of site {own}: enrol again", path.display())]
    Site {
        /// Which file.
        path: PathBuf,
        /// The site in it.
        made_for: SiteId,
        /// The site of the settings.
        own: SiteId,
    },
    /// The anchors changed between two looks.
    #[error("{}: changed while it was read: try again", path.display())]
    Torn {
        /// Which file.
        path: PathBuf,
    },
    /// They are of an authority that nobody has accepted.
    #[error(transparent)]
    Unaccepted(Box<Stranger>),
}

/// Anchors that nobody has accepted, and what to do about them.
#[derive(Debug, thiserror::Error)]
#[error(
    "{}: {why}, by {}. Its words are\n  {words}\nCompare them with those that the authority shows, by another way than the \
     files came; if they are the same, put it as anchors-{site}.pem into {} and run\n  \
     trust-runtime identity accept --out {} --site {site} --anchors \"WORDS\"",
    anchors.display(), noted.display(), folder.display(), folder.display()
)]
pub struct Stranger {
    /// The file of the anchors.
    anchors: PathBuf,
    /// The file beside the key.
    noted: PathBuf,
    /// Its folder, as `accept` wants it.
    folder: PathBuf,
    /// The own site.
    site: SiteId,
    /// By what the anchors that have come are known.
    words: String,
    /// Why they do not count.
    why: Unaccepted,
}

/// Where it lies for a key.
pub fn file_of(key: &Path) -> PathBuf {
    key.with_extension(ENDING)
}

/// What is noted there; nothing where there is no such file.
pub fn read(path: &Path) -> Result<Option<Acceptance>, Unmet> {
    let bytes = match tls::files::trusted(path) {
        Ok(bytes) => bytes,
        Err(tls::FileError::Read { source, .. }) if source.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let noted = String::from_utf8_lossy(&bytes).parse();
    noted.map(Some).map_err(|fault| Unmet::Content { path: path.to_owned(), fault })
}

/// Whether the own site's anchors in this snapshot may be used. In profile `dev` nobody is kept from it, and everybody told.
pub(super) fn check(sources: &tls::Sources, settings: &Settings, read: &tls::Snapshot) -> Result<(), Unmet> {
    match (judge(sources, settings, read), settings.profile) {
        (Err(unmet), Profile::Dev) => {
            tracing::warn!(reason = %unmet, "this would keep the node from starting in plant and wan");
            Ok(())
        }
        (judged, Profile::Dev | Profile::Plant | Profile::Wan) => judged.map(drop),
    }
}

/// Notes the anchors that are in use in place of those that were in use before. An authority that has changed its key is known
/// by its present one from then on, and by the old one no more; the pin of a join token has done its work.
pub(super) fn note(sources: &tls::Sources, settings: &Settings, in_use: &tls::Snapshot) -> Result<(), NotNoted> {
    let Ok(Some(Judged { path, noted, came })) = judge(sources, settings, in_use) else { return Ok(()) };
    let trust_domain = &in_use.own().svid.id.trust_domain;
    let now = noted.noting(&came, trust_domain, &in_use.trust().bans);
    if now == noted {
        return Ok(());
    }
    match put(&path, &noted, &now) {
        Ok(true) => tracing::info!(path = %path.display(), "the anchors in use were noted as accepted"),
        // It was changed, and so everything is read again.
        Ok(false) => tracing::debug!(path = %path.display(), "another word came while the anchors in use were noted"),
        Err(source) => return Err(NotNoted { path, source }),
    }
    Ok(())
}

/// The anchors in use could not be noted. Until they are they are known by what is beside them: the join token's pin, or the
/// changes of key that the authority tells of, of which it keeps the newest alone.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub(super) struct NotNoted {
    /// Which file.
    path: PathBuf,
    /// What the system said.
    source: io::Error,
}

/// Whether the anchors in use are noted. What keeps them from it is told once, and tried again until it is over.
#[derive(Debug, Default)]
pub(super) struct Noting(Mutex<Option<String>>);

impl Noting {
    /// Notes them by this, which may fail.
    pub(super) fn attempt(&self, note: impl FnOnce() -> Result<(), NotNoted>) {
        let fault = note().err().map(|fault| fault.to_string());
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reason) = fault.as_ref().filter(|_| *told != fault) {
            tracing::warn!(%reason, "the anchors in use were not noted as accepted, which is tried again");
        }
        *told = fault;
    }

    /// Whether the last attempt failed.
    pub(super) fn is_due(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

/// Says that the own site's anchors are held against nothing, where no file beside the key says whose they have to be.
pub(super) fn tell_if_unasked(sources: &tls::Sources, settings: &Settings) {
    let tls::Own::Files { key, .. } = &sources.own else { return };
    let path = file_of(key);
    if sources.anchors.iter().any(|(site, _)| site == settings.site()) && matches!(read(&path), Ok(None)) {
        tracing::info!(
            path = %path.display(),
            "no file beside the key says whose certificates it takes: the own site's anchors count as they are"
        );
    }
}

/// Puts it in the place of what was read, and of nothing else: what somebody has accepted since is the later word. Gives whether
/// it was.
fn put(path: &Path, read: &Acceptance, now: &Acceptance) -> io::Result<bool> {
    let is_as_read = || matches!(self::read(path), Ok(Some(still)) if still == *read);
    replace_if(path, now.to_string().as_bytes(), MODE, is_as_read)
}

/// What was found in order.
struct Judged {
    path: PathBuf,
    noted: Acceptance,
    came: Came,
}

/// The judgement on the anchors of the own site that this snapshot has; nothing where it is not asked for.
fn judge(sources: &tls::Sources, settings: &Settings, read: &tls::Snapshot) -> Result<Option<Judged>, Unmet> {
    let own = settings.site();
    let tls::Own::Files { key, .. } = &sources.own else { return Ok(None) };
    let Some((_, anchors)) = sources.anchors.iter().find(|(site, _)| site == own) else { return Ok(None) };
    let path = file_of(key);
    let Some(noted) = self::read(&path)? else { return Ok(None) };
    if noted.site() != own {
        return Err(Unmet::Site { path, made_for: noted.site().clone(), own: own.clone() });
    }
    let came = came(anchors)?;
    let trust_domain = &read.own().svid.id.trust_domain;
    let used = read.trust().anchors.of_site(trust_domain, own);
    let is_used = |print: Fingerprint| used.iter().any(|signer| signer.certificate == print);
    let found: Vec<_> = came.anchors.iter().map(|der| Fingerprint::of_der(der)).collect();
    // What is judged is what is used, though the file was read twice.
    if !found.iter().copied().all(is_used) || !used.iter().all(|signer| found.contains(&signer.certificate)) {
        return Err(Unmet::Torn { path: anchors.clone() });
    }
    match noted.judge(&came, trust_domain, &read.trust().bans) {
        Ok(()) => Ok(Some(Judged { path, noted, came })),
        Err(why) => {
            let folder = path.parent().map(Path::to_owned).unwrap_or_default();
            let words = words::spoken(&came.print);
            let (anchors, site) = (anchors.clone(), own.clone());
            Err(Unmet::Unaccepted(Box::new(Stranger { anchors, noted: path, folder, site, words, why })))
        }
    }
}

fn came(path: &Path) -> Result<Came, Unmet> {
    let bytes = tls::files::trusted(path)?;
    let anchors = tls::files::certificates_in(&bytes, path, ANCHORS_PER_SITE_MAX)?;
    let successions = Succession::all_of(&String::from_utf8_lossy(&bytes));
    Ok(Came { print: Fingerprint::of_der(&bytes), anchors, successions })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_somebody_has_accepted_meanwhile_is_not_written_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("node-a.authority");
        let of = |pin: u8| Acceptance::expecting("north".parse().expect("a site"), Some(Fingerprint([pin; 32])));
        let (read, now, meanwhile) = (of(1), of(2), of(3));
        let write = |noted: &Acceptance| fs::write(&path, noted.to_string()).expect("written");
        let stands = || self::read(&path).expect("it can be read");
        write(&meanwhile);
        assert!(!put(&path, &read, &now).expect("no fault"));
        assert_eq!(stands(), Some(meanwhile));
        write(&read);
        assert!(put(&path, &read, &now).expect("no fault"));
        assert_eq!(stands(), Some(now.clone()));
        // With the key it was taken away: it is not asked about any more.
        fs::remove_file(&path).expect("it was there");
        assert!(!put(&path, &now, &read).expect("no fault"));
        assert_eq!(stands(), None);
    }
}
