//! The bundles of partners in the state folder: one file for each site, changed under a lock by the node's own polling and by
//! whoever imports a file beside it. What was taken is not forgotten by a restart, and no later word leads back behind it.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls_pki_types::CertificateDer;

use crate::domain::id::SiteId;
use crate::domain::identity::anchors::ANCHORS_PER_SITE_MAX;
use crate::domain::identity::bundle::{self, Bundle, Refused, Standing, Taken, Way};
use crate::domain::identity::{Bans, Naming, NamingError};
use crate::domain::time::Wall;
use crate::settings::{BundlePartner, Settings};
use crate::tls;
use crate::wire::bundle::{self as form, Malformed, SIGNED_BYTES_MAX, Sealed};

/// The folder below the state folder.
const FOLDER: &str = "bundles";

/// Why a bundle could not be read, kept or taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others may change a file that trust rests on.
    #[error("{}: others on this machine may change it (mode {mode:o}): set its mode to 600", path.display())]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A file has another content than it should have.
    #[error("{}: {fault}", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        fault: Malformed,
    },
    /// The own bundle does not go with the own certificate.
    #[error("{}: {reason}", path.display())]
    Own {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The bundle was refused.
    #[error("{0}")]
    Refused(#[from] Refused),
    /// The site has no trust domain.
    #[error("{0}")]
    Naming(#[from] NamingError),
    /// The anchors that settings name cannot be read, or something else than a file stands in the place of one.
    #[error("{0}")]
    Anchors(#[from] tls::FileError),
}

/// What the files of all partners say.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    /// The authorities of each partner of which a bundle has come, in place of those that the settings name.
    pub(super) anchors: Vec<(SiteId, Vec<CertificateDer<'static>>)>,
    /// How far each partner may be relied on; a partner of which nothing has come, or can be read, is not.
    pub(super) standings: BTreeMap<SiteId, Standing>,
    /// Whose file cannot be read, and why.
    pub(super) damaged: BTreeMap<SiteId, String>,
    /// Who was a partner and is only named by anchors now, which may be older than those of its bundle; and what to do.
    pub(super) left: BTreeMap<SiteId, String>,
}

impl Known {
    /// The anchors that take the place of those in the settings. Nobody speaks for a site whose bundle cannot be read, or which
    /// was a partner: the anchors that the settings name may be older than those in it, and of a key that was taken back since.
    pub(super) fn in_place(&self) -> Vec<(SiteId, Vec<CertificateDer<'static>>)> {
        let nobodys = self.damaged.keys().chain(self.left.keys()).map(|site| (site.clone(), Vec::new()));
        self.anchors.iter().cloned().chain(nobodys).collect()
    }
}

/// Where one project keeps the bundles of its partners.
#[derive(Debug, Clone)]
pub struct Bundles {
    folder: PathBuf,
    naming: Naming,
    partners: Vec<BundlePartner>,
    /// Sites that are known by anchors in the settings and by nothing else.
    anchored: Vec<SiteId>,
}

impl Bundles {
    /// Those of the project whose state folder this is.
    pub fn of(state: &Path, settings: &Settings) -> Self {
        let Settings { identity, .. } = settings;
        let is_partner = |site: &SiteId| identity.partners.iter().any(|it| it.site == *site);
        let anchored = identity.anchors.iter().map(|it| it.site.clone());
        let anchored = anchored.filter(|site| site != settings.site() && !is_partner(site)).collect();
        let (folder, naming) = (state.join(FOLDER), identity.naming());
        Self { folder, naming, partners: identity.partners.clone(), anchored }
    }

    /// The files of all partners, whether they are there or not.
    pub fn files(&self) -> Vec<PathBuf> {
        let sites = self.partners.iter().map(|partner| &partner.site).chain(&self.anchored);
        sites.map(|site| self.path(site)).collect()
    }

    /// What is known of a site's bundle.
    pub fn read(&self, site: &SiteId) -> Result<Option<Taken>, Error> {
        let path = self.path(site);
        let Some(bytes) = read_file(&path)? else { return Ok(None) };
        let taken = form::read_kept(&bytes, site, &self.naming.domain_of(site)?);
        taken.map(Some).map_err(|fault| Error::Content { path, fault })
    }

    /// What is known of every partner. A file that cannot be read costs its own site, and nobody else.
    pub(super) fn all(&self) -> Known {
        let mut known = Known::default();
        for partner in &self.partners {
            let site = partner.site.clone();
            match self.read(&site) {
                Ok(None) => drop(known.standings.insert(site, Standing::default())),
                Ok(Some(taken)) => {
                    known.standings.insert(site.clone(), taken.standing(partner.age_max));
                    known.anchors.push((site, taken.bundle.authorities));
                }
                Err(error) => {
                    let reason = format!("{error}: remove it and import the site's bundle anew");
                    known.standings.insert(site.clone(), Standing::default());
                    known.damaged.insert(site, reason);
                }
            }
        }
        known.left = self.anchored.iter().filter_map(|site| Some((site.clone(), self.has_left(site)?))).collect();
        known
    }

    /// What to do about a site of which a bundle is kept, and which the settings name by anchors alone. One whose file cannot be
    /// looked for may be such a site.
    fn has_left(&self, site: &SiteId) -> Option<String> {
        let path = self.path(site);
        path.try_exists().unwrap_or(true).then(|| {
            let path = path.display();
            format!(
                "runtime.identity.anchors names {site}, which is no runtime.identity.partner in this run: the anchors may be older \
                 than its bundle in {path}, so nobody speaks for {site}; take it out of runtime.identity.anchors too, or remove \
                 that file if they are to count"
            )
        })
    }

    /// Takes a bundle of a partner, durably, or refuses it and changes nothing.
    pub fn take(&self, partner: &BundlePartner, bundle: Bundle, way: Way, now: Wall) -> Result<Taken, Error> {
        let path = self.path(&partner.site);
        let fault = |source| Error::File { path: path.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder).map_err(fault)?;
        let lock_path = self.folder.join("lock");
        let lock =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(lock_path).map_err(fault)?;
        // Given back when `lock` is dropped, also by a process that dies.
        lock.lock().map_err(fault)?;
        let known = self.read(&partner.site)?;
        let taken = Taken::after(known.as_ref(), bundle, way, &self.naming, &partner.site, now)?;
        let is_by_hand = matches!(way, Way::File { .. });
        if is_by_hand || bundle::is_worth_keeping(known.as_ref(), &taken, partner.age_max) {
            let domain = self.naming.domain_of(&partner.site)?;
            let bytes = form::write_kept(&partner.site, &domain, &taken);
            let bytes = bytes.map_err(|fault| Error::Content { path: path.clone(), fault })?;
            write_file(&path, &bytes).map_err(fault)?;
        }
        Ok(taken)
    }

    fn path(&self, site: &SiteId) -> PathBuf {
        self.folder.join(format!("{site}.json"))
    }
}

/// The authorities that a partner is known by before a bundle of it comes: those of its last one, or else the settings' file.
pub fn known_authorities(
    project: &Path,
    settings: &Settings,
    bundles: &Bundles,
    site: &SiteId,
) -> Result<Vec<CertificateDer<'static>>, Error> {
    if let Some(taken) = bundles.read(site)? {
        return Ok(taken.bundle.authorities);
    }
    let Some(anchor) = settings.identity.anchors.iter().find(|anchor| anchor.site == *site) else {
        return Ok(Vec::new());
    };
    Ok(tls::files::certificates(&project.join(&anchor.path), ANCHORS_PER_SITE_MAX)?)
}

/// Who is shut out by the project's list.
pub fn bans(project: &Path, settings: &Settings) -> Result<Bans, Error> {
    let path = settings.identity.bans_path.as_ref();
    path.map_or_else(|| Ok(Bans::default()), |path| Ok(tls::files::bans(&project.join(path))?))
}

/// What the engine is told of other sites' bundles, and what is served of the own one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Federation {
    /// How far each partner may be relied on.
    pub(super) partners: BTreeMap<SiteId, Standing>,
    /// For whom nobody speaks as the files are, and why.
    pub(super) damaged: BTreeMap<SiteId, String>,
    /// The own site's bundle, where it is served.
    pub(super) own: Option<Arc<Bundle>>,
}

impl Federation {
    /// What the files say of partners. Whose file cannot be read is as far relied on as before: what was in force stays.
    pub(super) fn of_partners(state: &Path, settings: &Settings, before: Option<&Self>) -> Self {
        let Known { anchors: _, mut standings, damaged, left } = Bundles::of(state, settings).all();
        for (site, standing) in standings.iter_mut().filter(|(site, _)| damaged.contains_key(site)) {
            *standing = before.and_then(|before| before.partners.get(site)).copied().unwrap_or_default();
        }
        Self { partners: standings, damaged: damaged.into_iter().chain(left).collect(), own: None }
    }
}

/// The own site's bundle where it is served, held against the certificate that this node presents.
pub(super) fn own(
    project: &Path,
    settings: &Settings,
    snapshot: Option<&tls::Snapshot>,
) -> Result<Option<Arc<Bundle>>, Error> {
    let Some(path) = settings.identity.bundle_path.as_ref().map(|path| project.join(path)) else {
        return Ok(None);
    };
    let own = own_bundle(&path, settings)?;
    if let Some(snapshot) = snapshot {
        let anchor = snapshot.own().anchor;
        let is_named = own.authorities.iter().any(|der| crate::domain::identity::Fingerprint::of_der(der) == anchor);
        if !is_named {
            let reason = "lacks the authority of this node's certificate: export it anew".to_owned();
            return Err(Error::Own { path, reason });
        }
    }
    Ok(Some(Arc::new(own)))
}

/// The file of the own site's bundle: as `export-bundle` signs it, or as SPIRE prints it. Its signature is not asked for,
/// because whoever may change this file may change the settings.
fn own_bundle(path: &Path, settings: &Settings) -> Result<Bundle, Error> {
    let content = |fault| Error::Content { path: path.to_owned(), fault };
    let missing = || Error::File { path: path.to_owned(), source: io::Error::from(ErrorKind::NotFound) };
    let bytes = read_file(path)?.ok_or_else(missing)?;
    let Ok(sealed) = Sealed::read(&bytes) else { return form::parse(&bytes).map_err(content) };
    let statement = sealed.open().map_err(content)?;
    if statement.site == *settings.site() {
        return Ok(statement.bundle);
    }
    let reason = format!("is the bundle of {}, wanted that of {}", statement.site, settings.site());
    Err(Error::Own { path: path.to_owned(), reason })
}

/// A whole file that nobody else may change; nothing where there is none.
fn read_file(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let fault = |source| Error::File { path: path.to_owned(), source };
    let file = match tls::files::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fault(error)),
    };
    let metadata = file.metadata().map_err(fault)?;
    if !metadata.is_file() {
        return Err(tls::FileError::NotAFile { path: path.to_owned() }.into());
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o022 != 0 {
        return Err(Error::Exposed { path: path.to_owned(), mode });
    }
    let most = u64::try_from(SIGNED_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes).map_err(fault)?;
    Ok(Some(bytes))
}

/// Readers see the whole file, the old or the new one, also after a loss of power.
fn write_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}
