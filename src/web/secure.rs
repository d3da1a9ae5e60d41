//! TLS of the listener, and what a caller's certificate proves for as long as nothing has changed.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::domain::identity::Actor;
use crate::domain::identity::authority::{Authority, Vouched};
use crate::domain::time::Wall;
use crate::engine::view::View;
use crate::tls;

/// How the listener speaks TLS.
#[derive(Clone)]
pub struct Secure {
    /// For its handshakes.
    pub config: Arc<ServerConfig>,
    /// Whose anchors callers' certificates are held against; without it callers present none.
    pub identity: Option<Arc<tls::Identity>>,
    /// What it presents, where that is of another PKI and not of the identity.
    pub provisioned: Option<Arc<tls::Provisioned>>,
}

impl fmt::Debug for Secure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Secure(certificates: {})", self.identity.is_some())
    }
}

impl Secure {
    /// When the first certificate ends that it presents; nothing where that cannot be read.
    pub(super) fn ends(&self) -> Option<Wall> {
        match (&self.provisioned, &self.identity) {
            (Some(provisioned), _) => provisioned.ends(),
            (None, Some(identity)) => Some(identity.snapshot().own().until),
            (None, None) => None,
        }
    }

    /// Shakes hands. A certificate that is presented and does not hold ends it; nobody falls back to another credential.
    pub(super) async fn accept(
        &self,
        stream: TcpStream,
        time_max: Duration,
    ) -> io::Result<(TlsStream<TcpStream>, Option<Caller>)> {
        let handshake = TlsAcceptor::from(Arc::clone(&self.config)).accept(stream);
        let stream = tokio::time::timeout(time_max, handshake).await.map_err(|_elapsed| io::ErrorKind::TimedOut)??;
        let Some(identity) = &self.identity else { return Ok((stream, None)) };
        let peer = identity.caller(stream.get_ref().1.peer_certificates()).map_err(io::Error::other)?;
        let caller = peer.map(|peer| Caller { peer, checked: Mutex::default() });
        Ok((stream, caller))
    }
}

/// Whoever presented a certificate on a connection.
#[derive(Debug)]
pub(crate) struct Caller {
    peer: tls::Peer,
    /// Under what it was last found good, so that no chain is checked again while nothing has changed.
    checked: Mutex<Option<Vouched>>,
}

impl Caller {
    /// The actor that the certificate names, if it still holds now. A runtime's certificate names none.
    pub(crate) fn actor(&self, view: &View, now: Wall) -> Option<Actor> {
        let authority = view.settings.authority.as_ref()?;
        let subject = &self.peer.verified.svid.subject;
        let principal = subject.as_principal()?.clone();
        if !self.still_holds(authority, now) {
            return None;
        }
        Some(Actor { trust_domain: view.settings.trust_domain.clone(), site: subject.site.clone(), principal })
    }

    fn still_holds(&self, authority: &Authority, now: Wall) -> bool {
        let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        if checked.is_some_and(|vouched| authority.still_holds(&vouched, now)) {
            return true;
        }
        // By the trust that the answer is kept under: handshakes may have another one for a moment while files are taken up.
        let holds = now <= self.peer.verified.until && self.peer.recheck(authority.trust(), now).is_ok();
        *checked = holds.then(|| Vouched { until: self.peer.verified.until, authority: authority.name() });
        holds
    }
}
