//! Somebody who keeps no rule of TLS but the handshake itself.

use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::mesh::authority::Proof;

/// How long somebody who was let in is listened to: the other end waits for its first word.
const SILENCE: Duration = Duration::from_millis(300);

/// Takes any server, presents anything, and remembers whom it met.
#[derive(Debug, Default)]
pub(super) struct Stranger {
    proof: Option<Arc<CertifiedKey>>,
    pub(super) met: Mutex<Vec<u8>>,
}

impl Stranger {
    pub(super) fn with(proof: Option<Proof>) -> Arc<Self> {
        let load = |(chain, key): Proof| {
            let key = default_provider().key_provider.load_private_key(key).expect("a key");
            Arc::new(CertifiedKey::new(chain, key))
        };
        Arc::new(Self { proof: proof.map(load), ..Self::default() })
    }

    async fn call(self: &Arc<Self>, at: &str) -> io::Result<TlsStream<TcpStream>> {
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()));
        let config = config.with_protocol_versions(&[&TLS13]).expect("a version").dangerous();
        let config = config.with_custom_certificate_verifier(Arc::clone(self) as Arc<dyn ServerCertVerifier>);
        let config = config.with_client_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesClientCert>);
        let name = ServerName::IpAddress(Ipv4Addr::LOCALHOST.into());
        TlsConnector::from(Arc::new(config)).connect(name, TcpStream::connect(at).await?).await
    }

    /// The connection, if the other end waits for this one's first word.
    pub(super) async fn stays(self: &Arc<Self>, at: &str) -> Option<TlsStream<TcpStream>> {
        let mut stream = self.call(at).await.ok()?;
        tokio::time::timeout(SILENCE, stream.read_u8()).await.is_err().then_some(stream)
    }

    /// Whether the other end waits for this one's first word, and does not hang up.
    pub(super) async fn is_let_in(self: &Arc<Self>, at: &str) -> bool {
        self.stays(at).await.is_some()
    }
}

impl ResolvesClientCert for Stranger {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.proof.clone()
    }

    fn has_certs(&self) -> bool {
        self.proof.is_some()
    }
}

impl ServerCertVerifier for Stranger {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.met.lock().expect("not poisoned") = end_entity.to_vec();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}
