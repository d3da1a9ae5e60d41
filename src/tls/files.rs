//! The files of an identity: limits and modes first, then PEM. Every fault names its file and what to do.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::OFlags;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::domain::id::SiteId;
use crate::domain::identity::anchors::{ANCHORS_PER_SITE_MAX, AnchorFault, CHAIN_MAX, Trust};
use crate::domain::identity::{Bans, BansFault, Naming, Subject};
use crate::domain::time::Wall;
use crate::tls::identity::{IdentityError, Snapshot};

/// Longest accepted file of certificates or of a key in bytes: eight anchors of the greatest size, in PEM.
const PEM_BYTES_MAX: u64 = 128 * 1_024;
/// Longest accepted list of bans in bytes: the most bans, each with a remark.
const BANS_BYTES_MAX: u64 = 2 * 1_024 * 1_024;

/// Where an identity is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources {
    /// The own certificate and key.
    pub own: Own,
    /// The anchors of each site that is known here.
    pub anchors: Vec<(SiteId, PathBuf)>,
    /// Who is shut out.
    pub bans: Option<PathBuf>,
}

/// Where the own certificate and key come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Own {
    /// From two files.
    Files {
        /// The certificate, and after it those that signed it.
        svid: PathBuf,
        /// The private key.
        key: PathBuf,
    },
    /// From an agent on this machine.
    Offered(Arc<Offered>),
}

/// What an agent gives a node: never on a disk.
#[derive(Debug, PartialEq, Eq)]
pub struct Offered {
    /// The certificate, and after it those that signed it.
    pub chain: Vec<CertificateDer<'static>>,
    /// The private key.
    pub key: PrivateKeyDer<'static>,
    /// The anchors of the own site and of each site that the agent federates with; none for one that has taken back all.
    pub anchors: Vec<(SiteId, Vec<CertificateDer<'static>>)>,
}

impl Offered {
    /// Holds what was offered against itself, whatever else is known here: chain, key and anchors must belong together and
    /// be those of `own`.
    pub fn check(&self, naming: &Naming, own: &Subject, now: Wall) -> Result<(), OfferFault> {
        let mut trust = Trust::new(naming.clone());
        for (site, authorities) in self.anchors.iter().filter(|(_, authorities)| !authorities.is_empty()) {
            trust.set_anchors(site.clone(), authorities)?;
        }
        Snapshot::new(self.chain.clone(), self.key.clone_key(), trust, own, now).map_err(Box::new)?;
        Ok(())
    }
}

/// Why an offer cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum OfferFault {
    /// A certificate in it cannot be an anchor.
    #[error("{0}")]
    Anchor(#[from] AnchorFault),
    /// Certificate, key and anchors do not make this runtime's identity.
    #[error("{0}")]
    Identity(#[from] Box<IdentityError>),
}

/// Why a file was refused.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("{}: {source}: check the path and who may read it", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A folder, a device or a pipe.
    #[error("{}: wanted a file, got something else", path.display())]
    NotAFile {
        /// Which path.
        path: PathBuf,
    },
    /// Too long.
    #[error("{}: wanted at most {max} bytes: is it the right file?", path.display())]
    TooLong {
        /// Which file.
        path: PathBuf,
        /// The limit.
        max: u64,
    },
    /// Others may read a key, or write what trust rests on.
    #[error("{}: others on this machine may {what} it (mode {mode:o}): set its mode to {wanted:o}", path.display())]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// What they may do.
        what: &'static str,
        /// Its mode.
        mode: u32,
        /// A mode that is right.
        wanted: u32,
    },
    /// Not PEM.
    #[error("{}: not PEM ({fault}): export it anew", path.display())]
    Pem {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        fault: String,
    },
    /// Another number of sections than wanted.
    #[error("{}: wanted {wanted}, got {got}", path.display())]
    Count {
        /// Which file.
        path: PathBuf,
        /// How many of what.
        wanted: String,
        /// How many there are.
        got: usize,
    },
    /// A list of bans that cannot be read.
    #[error("{}: {fault}", path.display())]
    Bans {
        /// Which file.
        path: PathBuf,
        /// Which line.
        fault: BansFault,
    },
    /// A certificate that cannot be an anchor.
    #[error("{}: {fault}", path.display())]
    Anchor {
        /// Which file.
        path: PathBuf,
        /// The rule.
        fault: AnchorFault,
    },
}

/// Why an identity was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// One of its files.
    #[error(transparent)]
    File(#[from] FileError),
    /// What the files say together.
    #[error("{place}: {fault}")]
    Identity {
        /// The file of the own certificate, or who gave it.
        place: String,
        /// What is wrong.
        fault: Box<IdentityError>,
    },
}

/// Reads all files of an identity and holds them against each other. The own certificate must be that of `own`.
pub fn load(sources: &Sources, naming: &Naming, own: &Subject, now: Wall) -> Result<Snapshot, LoadError> {
    load_with(sources, &[], naming, own, now)
}

/// The anchors of sites, as they have come by other ways than a file that settings name.
pub type TakenAnchors = [(SiteId, Vec<CertificateDer<'static>>)];

/// As `load`, with anchors that have come since in place of those in files: what a site has said later counts.
pub fn load_with(
    sources: &Sources,
    taken: &TakenAnchors,
    naming: &Naming,
    own: &Subject,
    now: Wall,
) -> Result<Snapshot, LoadError> {
    let (chain, key, place) = match &sources.own {
        Own::Files { svid, key } => (certificates(svid, CHAIN_MAX)?, private_key(key)?, svid.display().to_string()),
        Own::Offered(offered) => (offered.chain.clone(), offered.key.clone_key(), "the Workload API".to_owned()),
    };
    let trust = load_trust(sources, taken, naming)?;
    Snapshot::new(chain, key, trust, own, now).map_err(|fault| LoadError::Identity { place, fault: Box::new(fault) })
}

/// What the files say of others, with the own certificate and key that are in use: for when those in the files cannot be used.
/// Whom a list shuts out, and what an anchor no longer vouches for, must not wait for them. `None` if the files say nothing usable.
pub fn load_beside(sources: &Sources, taken: &TakenAnchors, naming: &Naming, in_use: &Snapshot) -> Option<Snapshot> {
    let whole = load_trust(sources, taken, naming).ok().and_then(|trust| in_use.trusting(trust).ok());
    whole.or_else(|| {
        let trust = Trust { bans: bans(sources.bans.as_ref()?).ok()?, ..in_use.trust().clone() };
        in_use.trusting(trust).ok()
    })
}

fn load_trust(sources: &Sources, taken: &TakenAnchors, naming: &Naming) -> Result<Trust, FileError> {
    let mut trust = Trust::new(naming.clone());
    // A site that has taken back all of its authorities has none: not those of its file either.
    let said = taken.iter().chain(offered(sources, taken));
    for (site, authorities) in said.filter(|(_, authorities)| !authorities.is_empty()) {
        let set = trust.set_anchors(site.clone(), authorities);
        set.map_err(|fault| FileError::Anchor { path: PathBuf::from(format!("bundle of {site}")), fault })?;
    }
    for (site, path) in by_file(sources, taken) {
        set_by_file(&mut trust, site, path)?;
    }
    if let Some(path) = &sources.bans {
        trust.bans = bans(path)?;
    }
    Ok(trust)
}

/// What the agent says of sites. What a site itself has said counts before it, and both before a file.
fn offered<'a>(
    sources: &'a Sources,
    taken: &'a TakenAnchors,
) -> impl Iterator<Item = &'a (SiteId, Vec<CertificateDer<'static>>)> {
    let offered = match &sources.own {
        Own::Offered(offered) => offered.anchors.as_slice(),
        Own::Files { .. } => &[],
    };
    offered.iter().filter(|(site, _)| taken.iter().all(|(known, _)| known != site))
}

/// The anchors that are read from files, as nobody has said later ones.
fn by_file<'a>(sources: &'a Sources, taken: &'a TakenAnchors) -> impl Iterator<Item = &'a (SiteId, PathBuf)> {
    let said = move || taken.iter().chain(offered(sources, taken));
    sources.anchors.iter().filter(move |(site, _)| said().all(|(known, _)| known != site))
}

fn set_by_file(trust: &mut Trust, site: &SiteId, path: &Path) -> Result<(), FileError> {
    let certificates = certificates(path, ANCHORS_PER_SITE_MAX)?;
    let set = trust.set_anchors(site.clone(), &certificates);
    set.map_err(|fault| FileError::Anchor { path: path.to_owned(), fault })
}

/// What is wrong with each file by itself, of those that `load_with` reads: the fault of one hides no other's.
pub fn faults(sources: &Sources, taken: &TakenAnchors, naming: &Naming) -> Vec<FileError> {
    let own = match &sources.own {
        Own::Files { svid, key } => vec![certificates(svid, CHAIN_MAX).map(drop), private_key(key).map(drop)],
        Own::Offered(_) => Vec::new(),
    };
    let anchors = by_file(sources, taken);
    let anchors = anchors.map(|(site, path)| set_by_file(&mut Trust::new(naming.clone()), site, path));
    let bans = sources.bans.iter().map(|path| bans(path).map(drop));
    own.into_iter().chain(anchors).chain(bans).filter_map(Result::err).collect()
}

/// The certificates of a PEM file, in their order: at least one, at most so many. Nobody else may write it.
pub fn certificates(path: &Path, most: usize) -> Result<Vec<CertificateDer<'static>>, FileError> {
    certificates_in(&trusted(path)?, path, most)
}

/// The certificates in bytes that were read from there.
pub fn certificates_in(bytes: &[u8], path: &Path, most: usize) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    let certificates = read.map_err(|error| pem_fault(path, &error))?;
    if certificates.is_empty() || certificates.len() > most {
        let wanted = format!("1 to {most} certificates (-----BEGIN CERTIFICATE-----)");
        return Err(FileError::Count { path: path.to_owned(), wanted, got: certificates.len() });
    }
    Ok(certificates)
}

/// The one private key of a PEM file. Nobody else may read it.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, FileError> {
    let bytes = read(path, PEM_BYTES_MAX, Others::MayNothing)?;
    let read: Result<Vec<_>, _> = PrivateKeyDer::pem_slice_iter(&bytes).collect();
    let mut keys = read.map_err(|error| pem_fault(path, &error))?;
    let got = keys.len();
    match (keys.pop(), got) {
        (Some(key), 1) => Ok(key),
        _ => {
            let wanted = "one private key without a password (-----BEGIN PRIVATE KEY-----)".to_owned();
            Err(FileError::Count { path: path.to_owned(), wanted, got })
        }
    }
}

/// The list of bans. Nobody else may write it.
pub fn bans(path: &Path) -> Result<Bans, FileError> {
    let bytes = read(path, BANS_BYTES_MAX, Others::MayRead)?;
    let text = String::from_utf8_lossy(&bytes);
    text.parse().map_err(|fault| FileError::Bans { path: path.to_owned(), fault })
}

/// Any other file that trust rests on, as short as those of certificates. Nobody else may write it.
pub fn trusted(path: &Path) -> Result<Vec<u8>, FileError> {
    read(path, PEM_BYTES_MAX, Others::MayRead)
}

/// What group and others may do with a file.
#[derive(Debug, Clone, Copy)]
enum Others {
    MayRead,
    MayNothing,
}

/// Opens what stands at a path to be judged: a pipe there would otherwise wait for its writer.
pub fn open(path: &Path) -> io::Result<File> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

fn read(path: &Path, max: u64, others: Others) -> Result<Vec<u8>, FileError> {
    let fault = |source| FileError::Read { path: path.to_owned(), source };
    // Judged by the open file, so that it cannot be exchanged in between.
    let file = open(path).map_err(fault)?;
    let metadata = file.metadata().map_err(fault)?;
    if !metadata.is_file() {
        return Err(FileError::NotAFile { path: path.to_owned() });
    }
    let mode = metadata.permissions().mode() & 0o777;
    let (forbidden, what, wanted) = match others {
        Others::MayNothing => (0o077, "use", 0o600),
        Others::MayRead => (0o022, "change", 0o644),
    };
    if mode & forbidden != 0 {
        return Err(FileError::Exposed { path: path.to_owned(), what, mode, wanted });
    }
    let mut bytes = Vec::new();
    let length = file.take(max.saturating_add(1)).read_to_end(&mut bytes).map_err(fault)?;
    if u64::try_from(length).is_ok_and(|length| length <= max) {
        Ok(bytes)
    } else {
        Err(FileError::TooLong { path: path.to_owned(), max })
    }
}

fn pem_fault(path: &Path, error: &rustls_pki_types::pem::Error) -> FileError {
    FileError::Pem { path: path.to_owned(), fault: error.to_string() }
}
