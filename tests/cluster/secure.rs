//! TLS over a socket of its own, by whoever has a certificate: small and blocking, as [`crate::http`] without TLS.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value as Json;

use crate::http::{self, Answer};

/// How long a handshake or an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(15);

pub(crate) type Secure = StreamOwned<ClientConnection, TcpStream>;

/// Somebody with a certificate, who knows a site's anchors.
pub(crate) struct Caller(Arc<ClientConfig>);

impl Caller {
    pub(crate) fn new(anchors: impl AsRef<Path>, certificate: impl AsRef<Path>, key: impl AsRef<Path>) -> Self {
        let read = |path: &Path| -> Vec<CertificateDer<'static>> {
            CertificateDer::pem_file_iter(path).expect("a file").collect::<Result<_, _>>().expect("certificates")
        };
        let mut roots = RootCertStore::empty();
        read(anchors.as_ref()).into_iter().for_each(|it| roots.add(it).expect("an anchor"));
        let key = PrivateKeyDer::from_pem_file(key).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.expect("versions").with_root_certificates(roots);
        Self(Arc::new(config.with_client_auth_cert(read(certificate.as_ref()), key).expect("a proof")))
    }

    /// A connection whose handshake is over, as far as this end goes.
    pub(crate) fn connect(&self, to: SocketAddr) -> Result<Secure, String> {
        self.over(TcpStream::connect_timeout(&to, ANSWER_MAX).map_err(text)?, to.ip())
    }

    /// The first words of a handshake, of which nothing more comes.
    pub(crate) fn hello(&self) -> Vec<u8> {
        let name = ServerName::from(IpAddr::from([127, 0, 0, 1]));
        let mut session = ClientConnection::new(Arc::clone(&self.0), name).expect("a session");
        let mut words = Vec::new();
        session.write_tls(&mut words).expect("into memory");
        words
    }

    fn over(&self, mut socket: TcpStream, name: IpAddr) -> Result<Secure, String> {
        // The request follows the last word of the handshake, and would wait for its acknowledgement.
        socket.set_nodelay(true).map_err(text)?;
        socket.set_read_timeout(Some(ANSWER_MAX)).map_err(text)?;
        let mut session = ClientConnection::new(Arc::clone(&self.0), ServerName::from(name)).map_err(text)?;
        while session.is_handshaking() {
            session.complete_io(&mut socket).map_err(text)?;
        }
        Ok(StreamOwned::new(session, socket))
    }

    /// One request over a connection of its own; with a body it is a `POST`.
    pub(crate) fn ask(&self, to: SocketAddr, path: &str, body: Option<&Json>) -> Result<Answer, String> {
        let mut stream = self.connect(to)?;
        stream.write_all(http::request(to, path, None, body).as_bytes()).map_err(text)?;
        let mut bytes = Vec::new();
        // Whoever closes without a goodbye has said everything, or the length is wrong.
        drop(stream.read_to_end(&mut bytes));
        http::answer(&String::from_utf8_lossy(&bytes))
    }
}

fn text(error: impl ToString) -> String {
    error.to_string()
}
