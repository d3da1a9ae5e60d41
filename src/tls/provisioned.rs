//! A listener's certificate from somebody else's PKI, such as the plant's: what browsers know, and no identity in the mesh.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::domain::identity::svid;
use crate::domain::time::Wall;
use crate::tls::files::{self, FileError};
use crate::tls::identity::provider;

/// Most certificates in its chain.
const CHAIN_MAX: usize = 8;

/// Why certificate and key cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be taken.
    #[error("{0}")]
    File(#[from] FileError),
    /// The key is not the certificate's, or of a kind that is not served.
    #[error("{}: {source}; wanted the key of the certificate in {}", key.display(), certificate.display())]
    Mismatch {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        certificate: PathBuf,
        /// What the library says.
        source: rustls::Error,
    },
}

/// The certificate in use, changed by `reload`.
#[derive(Debug)]
pub struct Provisioned(ArcSwap<CertifiedKey>);

impl Provisioned {
    /// Reads certificate and key and holds them against each other.
    pub fn load(certificate: &Path, key: &Path) -> Result<Arc<Self>, Error> {
        Ok(Arc::new(Self(ArcSwap::new(Arc::new(read(certificate, key)?)))))
    }

    /// Presents what the other one does from the next handshake on.
    pub fn become_like(&self, other: &Self) {
        self.0.store(other.0.load_full());
    }

    /// When the first of the presented certificates ends. What the library serves it need not be able to read for us.
    pub fn ends(&self) -> Option<Wall> {
        self.0.load().cert.iter().filter_map(|certificate| svid::end_of(certificate)).min()
    }

    /// Whether both present the same certificates.
    pub fn presents_same_as(&self, other: &Self) -> bool {
        self.0.load().cert == other.0.load().cert
    }
}

fn read(certificate: &Path, key: &Path) -> Result<CertifiedKey, Error> {
    let chain = files::certificates(certificate, CHAIN_MAX)?;
    let private = files::private_key(key)?;
    let mismatch = |source| Error::Mismatch { key: key.to_owned(), certificate: certificate.to_owned(), source };
    let certified = CertifiedKey::new(chain, provider().key_provider.load_private_key(private).map_err(mismatch)?);
    certified.keys_match().map_err(mismatch)?;
    Ok(certified)
}

impl ResolvesServerCert for Provisioned {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}
