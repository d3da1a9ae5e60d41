//! Who may be at the other end of a link between nodes: a node of the one site that the link is for, the own one or a
//! partner's, for as long as its certificate is good and ours is still the one that it was shown.

use std::sync::Arc;

use rustls_pki_types::CertificateDer;

use crate::domain::id::SiteId;
use crate::domain::identity::anchors::{Refusal, Usage, Verified};
use crate::domain::identity::{Subject, SubjectName};
use crate::tls::identity::{Identity, Snapshot};

/// Why somebody with a TLS connection is no neighbour.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotANeighbour {
    /// Its certificate does not hold.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It is a person, or of another site.
    #[error("wanted a node of site {site}, got {got}: each site has its own address, see runtime.mesh.partner")]
    Stranger {
        /// The site that the link is for.
        site: SiteId,
        /// Who it is.
        got: Subject,
    },
}

/// A node of the wanted site that may not be where it was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{dialed} was dialed, and the certificate of {got} does not name it: have it issued with --ip or --dns {dialed}"
)]
pub struct WrongName {
    /// The address or host name that was dialed.
    pub dialed: String,
    /// Who answered.
    pub got: Subject,
}

/// A node of the wanted site at the other end of a connection.
#[derive(Debug)]
pub struct Neighbour {
    /// Who it is, and until when.
    pub verified: Verified,
    chain: Vec<CertificateDer<'static>>,
    usage: Usage,
    /// By which rules it was let in, and which certificate it was shown.
    shown: Arc<Snapshot>,
}

impl Neighbour {
    /// Who is at the other end of a finished handshake, which began while `shown` was in use.
    pub fn met(
        shown: Arc<Snapshot>,
        identity: &Identity,
        certificates: Option<&[CertificateDer<'_>]>,
        usage: Usage,
        site: &SiteId,
    ) -> Result<Self, NotANeighbour> {
        let chain: Vec<_> = certificates.unwrap_or_default().iter().map(|it| it.clone().into_owned()).collect();
        let verified = identity.verify(&chain, usage)?;
        check_neighbour(site, &verified.svid.subject)?;
        Ok(Self { verified, chain, usage, shown })
    }

    /// Whether the link has to end: it has outlived a certificate, somebody was shut out, or the own certificate was renewed.
    pub fn look(&mut self, identity: &Identity) -> Look {
        let in_use = identity.snapshot();
        if self.verified.until < identity.now() {
            return Look::Over(Refusal::Expired.to_string());
        }
        if Arc::ptr_eq(&in_use, &self.shown) {
            return Look::Good;
        }
        if let Err(refusal) = identity.verify(&self.chain, self.usage) {
            return Look::Over(refusal.to_string());
        }
        if in_use.chain() != self.shown.chain() {
            return Look::Renewed;
        }
        self.shown = in_use;
        Look::Good
    }
}

/// How a link stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// It goes on.
    Good,
    /// It has to end now, for this reason.
    Over(String),
    /// The own certificate was renewed, so that it has to end soon: before the one ends by which it was proved.
    Renewed,
}

/// Whether a subject is a node of the site.
pub(super) fn check_neighbour(site: &SiteId, got: &Subject) -> Result<(), NotANeighbour> {
    match got.name {
        SubjectName::Runtime(_) if got.site == *site => Ok(()),
        SubjectName::Runtime(_) | SubjectName::Actor(_) => {
            Err(NotANeighbour::Stranger { site: site.clone(), got: got.clone() })
        }
    }
}
