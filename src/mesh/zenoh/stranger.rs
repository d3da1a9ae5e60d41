//! What somebody does at a mesh listener who keeps no rule of TLS but the handshake itself.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::tls::support::Stranger;

/// How long somebody who was let in is listened to: the other end waits for its first word.
const SILENCE: Duration = Duration::from_millis(300);

impl Stranger {
    async fn call(self: &Arc<Self>, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::IpAddress(Ipv4Addr::LOCALHOST.into());
        TlsConnector::from(Arc::new(self.config())).connect(name, stream).await
    }

    /// The connection, if the other end waits for this one's first word.
    pub(super) async fn stays(self: &Arc<Self>, at: &str) -> Option<TlsStream<TcpStream>> {
        self.stays_over(TcpStream::connect(at).await.ok()?).await
    }

    async fn stays_over(self: &Arc<Self>, stream: TcpStream) -> Option<TlsStream<TcpStream>> {
        let mut stream = self.call(stream).await.ok()?;
        tokio::time::timeout(SILENCE, stream.read_u8()).await.is_err().then_some(stream)
    }

    /// Whether the other end waits for this one's first word, and does not hang up.
    pub(super) async fn is_let_in(self: &Arc<Self>, at: &str) -> bool {
        self.stays(at).await.is_some()
    }

    /// The same over a connection that is already made.
    pub(super) async fn is_let_in_over(self: &Arc<Self>, stream: TcpStream) -> bool {
        self.stays_over(stream).await.is_some()
    }
}
