//! What a listener and a caller give to the TLS library: TLS 1.3 alone, no session that outlives its check, no early data.
//!
//! A resumed session skips the certificates, and so would live on after they expire, after a ban and after a site's anchors
//! are removed. Hence there are no tickets and no stored sessions, on either side.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::{ResolvesClientCert, Resumption};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{ClientConfig, Error, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::domain::id::{RuntimeId, SiteId};
use crate::tls::identity::{Identity, provider};
use crate::tls::provisioned::Provisioned;
use crate::tls::verifier::{Callers, Dialed, Expected};

/// The one protocol inside: HTTP/2 would bring its own ways to exhaust a server.
const PROTOCOL: &[u8] = b"http/1.1";

/// Whether a caller must present a certificate. One that is presented must hold in both cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCertificates {
    /// A caller may come without one, and has another credential.
    Optional,
    /// Nobody comes without one.
    Required,
}

/// For a listener that presents the own identity.
pub fn server(identity: &Arc<Identity>, certificates: ClientCertificates) -> Result<Arc<ServerConfig>, Error> {
    let own = Arc::new(Own(Arc::clone(identity)));
    let callers = Arc::new(Callers::new(Arc::clone(identity), certificates));
    let config = ServerConfig::builder_with_details(Arc::new(provider()), Arc::clone(&own) as Arc<dyn TimeProvider>);
    let config = config.with_protocol_versions(&[&TLS13])?.with_client_cert_verifier(callers);
    Ok(hardened(config.with_cert_resolver(own)))
}

/// For a listener that presents a certificate of another PKI. Callers may present theirs where there is an identity whose
/// anchors they can be held against.
pub fn provisioned_server(
    presented: Arc<Provisioned>,
    identity: Option<&Arc<Identity>>,
) -> Result<Arc<ServerConfig>, Error> {
    let config = match identity {
        Some(identity) => {
            let own: Arc<dyn TimeProvider> = Arc::new(Own(Arc::clone(identity)));
            let callers = Arc::new(Callers::new(Arc::clone(identity), ClientCertificates::Optional));
            let config = ServerConfig::builder_with_details(Arc::new(provider()), own);
            config.with_protocol_versions(&[&TLS13])?.with_client_cert_verifier(callers)
        }
        None => {
            let config = ServerConfig::builder_with_provider(Arc::new(provider()));
            config.with_protocol_versions(&[&TLS13])?.with_no_client_auth()
        }
    };
    Ok(hardened(config.with_cert_resolver(presented)))
}

fn hardened(mut config: ServerConfig) -> Arc<ServerConfig> {
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Arc::new(config)
}

/// For a call to whoever has a certificate for the name or address called, by these CAs. Presents nothing.
pub fn plain_client(authorities: Vec<CertificateDer<'static>>) -> Result<ClientConfig, Error> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority)?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(provider())).with_protocol_versions(&[&TLS13])?;
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// For a call to one runtime. Presents the own certificate.
pub fn client(identity: &Arc<Identity>, expected: &RuntimeId) -> Result<Arc<ClientConfig>, Error> {
    dialing(identity, Expected::Runtime(expected.clone()), vec![PROTOCOL.to_vec()])
}

/// For links between nodes: who listens. Of which site a caller is has to be asked afterwards. No protocol is named, because what links speak knows none.
pub fn link_server(identity: &Arc<Identity>) -> Result<Arc<ServerConfig>, Error> {
    let mut config = Arc::unwrap_or_clone(server(identity, ClientCertificates::Required)?);
    config.alpn_protocols.clear();
    Ok(Arc::new(config))
}

/// For links with the nodes of this site: who dials.
pub fn link_client(identity: &Arc<Identity>, site: &SiteId) -> Result<Arc<ClientConfig>, Error> {
    dialing(identity, Expected::Neighbour(site.clone()), Vec::new())
}

fn dialing(identity: &Arc<Identity>, expected: Expected, protocols: Vec<Vec<u8>>) -> Result<Arc<ClientConfig>, Error> {
    let dialed = Arc::new(Dialed::new(Arc::clone(identity), expected));
    let own = Arc::new(Own(Arc::clone(identity)));
    let config = ClientConfig::builder_with_details(Arc::new(provider()), Arc::clone(&own) as Arc<dyn TimeProvider>);
    let config = config.with_protocol_versions(&[&TLS13])?.dangerous().with_custom_certificate_verifier(dialed);
    let mut config = config.with_client_cert_resolver(own);
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    // Who is meant is checked by the certificate; a name in the clear would tell everybody on the way.
    config.enable_sni = false;
    config.alpn_protocols = protocols;
    Ok(Arc::new(config))
}

/// The own certificate and the own time, whatever they are at each handshake.
#[derive(Debug)]
struct Own(Arc<Identity>);

impl ResolvesServerCert for Own {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.snapshot().key())
    }
}

impl ResolvesClientCert for Own {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.snapshot().key())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl TimeProvider for Own {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_nanos(self.0.now().0)))
    }
}
