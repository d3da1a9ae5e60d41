//! This node's keys: the long-lived identity key in the project folder, and the short-lived envelope key it vouches for.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::domain::id::RuntimeId;
use crate::domain::identity::{Fingerprint, IdentityKey};
use crate::domain::time::{Millis, Wall};
use crate::engine::Entropy;
use crate::node::clock::SystemEntropy;
use crate::tls;
use crate::wire::mesh::{self, CertificateKey, Keys};

/// How long a delegation holds. It is renewed at half its life.
const DELEGATION_LIFE: Millis = Millis::from_hours(24);

/// Why the identity key could not be loaded or made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file does not hold a key.
    #[error("{}: wanted a key of 32 bytes, got {got}; restore it from a backup, or remove it to begin a new identity", path.display())]
    Length {
        /// Which file.
        path: PathBuf,
        /// Its length in bytes.
        got: usize,
    },
    /// The certificate's key is of a kind that cannot sign a delegation.
    #[error(
        "runtime.identity.key_path: wanted a key on P-256, P-384 or Ed25519, or of RSA, got one that does not sign"
    )]
    DoesNotSign,
    /// The certificate, its key or the anchors do not make an identity.
    #[error("{0}")]
    Certificate(#[from] tls::LoadError),
    /// Nobody has accepted the authority that the own certificate and anchors are of.
    #[error("{0}")]
    NotAccepted(#[from] Box<crate::node::acceptance::Unmet>),
    /// A partner's bundle, or the own one, cannot be taken as it is.
    #[error("{0}")]
    Bundle(#[from] crate::node::bundles::Error),
    /// The listener's own certificate or key cannot be served.
    #[error("{0}")]
    Provisioned(#[from] tls::ProvisionedError),
    /// The listener's own certificate is over. A node starts with it, and nobody believes it.
    #[error("{}: the certificate has ended: put a new one in its place", .0.display())]
    Ended(PathBuf),
    /// The file of CA certificates cannot be taken.
    #[error("{0}")]
    Authorities(#[source] tls::FileError),
    /// The TLS library refuses what it was given.
    #[error("runtime.tls: {0}")]
    Tls(#[from] rustls::Error),
    /// HTTPS is asked for and there is nothing to present.
    #[error(
        "runtime.web.tls: wanted a certificate, from runtime.tls (mode \"provisioned\") or runtime.identity (source \"files\"), got none"
    )]
    NoCertificate,
    /// The agent that shall give the identity gives none.
    #[error("runtime.identity.source = \"spire\": {0}")]
    Agent(String),
    /// Others on this machine may read the key.
    #[error("{}: is readable by others (mode {mode:o}); set its mode to 600", path.display())]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
}

/// What stands for this node in the long run.
#[derive(Debug, Clone)]
pub enum OwnIdentity {
    /// A certificate of the site's authority.
    Certificate(Arc<tls::Identity>),
    /// A key that the node has made itself, in profile `dev`.
    Key(Box<IdentityKey>),
}

impl OwnIdentity {
    /// The name of the key.
    pub fn fingerprint(&self) -> Fingerprint {
        match self {
            Self::Certificate(identity) => identity.snapshot().own().svid.key,
            Self::Key(key) => key.fingerprint(),
        }
    }

    /// Names what a delegation rests on: with another certificate it has to be made anew.
    fn basis(&self) -> Fingerprint {
        match self {
            Self::Certificate(identity) => identity.snapshot().own().svid.certificate,
            Self::Key(key) => key.fingerprint(),
        }
    }

    /// Lets it vouch for a new envelope key. `None` where its key does not sign.
    fn delegate(&self, runtime: &RuntimeId, now: Wall) -> Option<Keys> {
        let envelope = IdentityKey::from_seed(random_seed());
        let until = now.plus(DELEGATION_LIFE);
        match self {
            Self::Certificate(identity) => {
                let snapshot = identity.snapshot();
                let own = snapshot.own();
                let sign = |message: &[u8]| snapshot.sign(message);
                let certificate = CertificateKey { key: own.svid.key, chain: snapshot.chain(), sign: &sign };
                mesh::delegate_by_certificate(&certificate, envelope, runtime, now, until.min(own.until))
            }
            Self::Key(key) => Some(mesh::delegate(key, envelope, runtime, now, until)),
        }
    }
}

impl From<IdentityKey> for OwnIdentity {
    fn from(key: IdentityKey) -> Self {
        Self::Key(Box::new(key))
    }
}

/// The keys that sign for this node at present.
#[derive(Debug)]
pub(super) struct Keyring {
    identity: OwnIdentity,
    runtime: RuntimeId,
    held: ArcSwap<Held>,
}

#[derive(Debug)]
struct Held {
    keys: Arc<Keys>,
    basis: Fingerprint,
}

impl Keyring {
    /// Makes an envelope key for this boot and lets the identity vouch for it.
    pub(super) fn new(identity: OwnIdentity, runtime: RuntimeId, now: Wall) -> Result<Self, Error> {
        let keys = Arc::new(identity.delegate(&runtime, now).ok_or(Error::DoesNotSign)?);
        let held = ArcSwap::from_pointee(Held { keys, basis: identity.basis() });
        Ok(Self { identity, runtime, held })
    }

    /// What signs now.
    pub(super) fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.held.load().keys)
    }

    /// Renews the delegation when half its life is over, when it lies in the future after a clock went back, or when the
    /// certificate behind it was replaced: peers would refuse every word under it. Gives whether it did.
    pub(super) fn renew(&self, now: Wall) -> bool {
        let held = self.held.load();
        let basis = self.identity.basis();
        if basis == held.basis && !held.keys.signer().delegation.is_to_be_renewed(now) {
            return false;
        }
        let Some(keys) = self.identity.delegate(&self.runtime, now) else { return false };
        self.held.store(Arc::new(Held { keys: Arc::new(keys), basis }));
        true
    }
}

fn random_seed() -> [u8; 32] {
    let mut seed = [0; 32];
    SystemEntropy.fill(&mut seed);
    seed
}

/// Loads the identity key, or makes one that no crash can leave half written. Gives whether it is new.
pub(super) fn load_or_create(path: &Path) -> Result<(IdentityKey, bool), Error> {
    let fault = |source| Error::File { path: path.to_owned(), source };
    match File::open(path) {
        Ok(file) => read_key(file, path).map(|key| (key, false)),
        Err(error) if error.kind() == ErrorKind::NotFound => create(path).map(|key| (key, true)).map_err(fault),
        Err(error) => Err(fault(error)),
    }
}

fn read_key(file: File, path: &Path) -> Result<IdentityKey, Error> {
    let fault = |source| Error::File { path: path.to_owned(), source };
    let mode = file.metadata().map_err(fault)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(Error::Exposed { path: path.to_owned(), mode });
    }
    let mut bytes = Vec::new();
    file.take(64).read_to_end(&mut bytes).map_err(fault)?;
    let got = bytes.len();
    let seed = bytes.try_into().map_err(|_length| Error::Length { path: path.to_owned(), got })?;
    Ok(IdentityKey::from_seed(seed))
}

fn create(path: &Path) -> std::io::Result<IdentityKey> {
    let seed = random_seed();
    let draft = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(&seed)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(IdentityKey::from_seed(seed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_found_again() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("identity.key");
        let (made, is_new) = load_or_create(&path).expect("made");
        let (found, is_new_again) = load_or_create(&path).expect("found");
        assert!(is_new && !is_new_again);
        assert_eq!(made.fingerprint(), found.fingerprint());
    }

    #[test]
    fn a_short_or_exposed_key_is_refused_and_stays_as_it_is() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("identity.key");
        fs::write(&path, b"short").expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("mode");
        assert!(matches!(load_or_create(&path), Err(Error::Length { got: 5, .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("mode");
        assert!(matches!(load_or_create(&path), Err(Error::Exposed { mode: 0o644, .. })));
        assert_eq!(fs::read(&path).expect("read"), b"short");
    }

    #[test]
    fn a_delegation_is_renewed_at_half_its_life() {
        let now = Wall::from_millis(1_000_000_000);
        let keyring = Keyring::new(IdentityKey::from_seed([1; 32]).into(), "s/a".parse().expect("legal"), now)
            .expect("a key signs");
        let first = keyring.keys().signer().delegation_hash;
        assert!(!keyring.renew(now.plus(Millis::from_hours(11))));
        assert!(keyring.renew(now.plus(Millis::from_hours(12))));
        assert_ne!(keyring.keys().signer().delegation_hash, first);
    }

    #[test]
    fn a_clock_that_jumps_ahead_and_back_leaves_a_delegation_that_holds() {
        let now = Wall::from_millis(1_000_000_000);
        for jump in [Millis::from_secs(1), Millis::from_hours(13), Millis::from_hours(24 * 365)] {
            let keyring =
                Keyring::new(IdentityKey::from_seed([1; 32]).into(), "s/a".parse().expect("legal"), now.plus(jump))
                    .expect("a key signs");
            assert!(keyring.renew(now), "{jump:?}");
            let delegation = Arc::clone(&keyring.keys().signer().delegation);
            assert!(delegation.holds_at(now) && delegation.not_before <= now, "{jump:?}");
            assert!(!keyring.renew(now), "once is enough");
        }
    }
}
