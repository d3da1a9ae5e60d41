//! Who is dialled: behind each door in the folder is one configured address.

use std::sync::Arc;

use rustls_pki_types::ServerName;
use tokio::net::{TcpStream, UnixListener};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use zenoh::internal::runtime::ZRuntime;

use crate::domain::identity::anchors::Usage;
use crate::mesh::zenoh::session::HANDSHAKE;
use crate::mesh::zenoh::tunnel::{ACCEPT_PAUSE, Side, text};
use crate::tls::{self, Neighbour};

/// Where a door leads.
#[derive(Debug)]
pub(super) struct Far {
    host: String,
    port: u16,
    name: ServerName<'static>,
}

impl Far {
    /// From `host:port`, an IPv6 address in brackets, with or without the protocol before it.
    pub(super) fn parse(endpoint: &str) -> Option<Self> {
        let bare = match endpoint.split_once('/') {
            None => endpoint,
            Some(("tls", bare)) => bare,
            Some(_) => return None,
        };
        let (host, port) = bare.rsplit_once(':')?;
        let host = host.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(host).to_owned();
        let name = ServerName::try_from(host.clone()).ok()?;
        Some(Self { port: port.parse().ok()?, host, name })
    }
}

/// Zenoh comes to the door as often as it wants a link. A failure sends it away, and it comes again.
pub(super) async fn lead_out(side: Arc<Side>, door: UnixListener, far: Far) {
    let mut said = None;
    loop {
        let Ok((inside, _)) = door.accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let reached = timeout(HANDSHAKE, side.reach(&far)).await;
        match reached.unwrap_or_else(|_elapsed| Err("took too long".to_owned())) {
            Ok((stream, neighbour)) => {
                said = None;
                let inner = Arc::clone(&side);
                side.spawn(
                    &side.stop,
                    async move { inner.carry(stream.into(), inside, neighbour, ZRuntime::Net).await },
                );
            }
            Err(reason) => {
                if said.as_ref() != Some(&reason) {
                    tracing::warn!(site = %side.site, host = far.host, port = far.port, reason, "no link yet");
                }
                said = Some(reason);
            }
        }
    }
}

type Outward = (TlsStream<TcpStream>, Neighbour);

impl Side {
    async fn reach(&self, far: &Far) -> Result<Outward, String> {
        let shown = self.identity.snapshot();
        let connector = TlsConnector::from(tls::link_client(&self.identity, &self.site).map_err(text)?);
        let socket = TcpStream::connect((far.host.as_str(), far.port)).await.map_err(text)?;
        socket.set_nodelay(true).map_err(text)?;
        let stream = connector.connect(far.name.clone(), socket).await.map_err(|error| tls::explain(&error))?;
        let certificates = stream.get_ref().1.peer_certificates();
        let neighbour = Neighbour::met(shown, &self.identity, certificates, Usage::Server, &self.site).map_err(text)?;
        Ok((stream, neighbour))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_of_every_form_are_understood() {
        for (endpoint, host, port) in [
            ("10.0.0.1:7447", "10.0.0.1", 7447),
            ("tls/host-b.site:1", "host-b.site", 1),
            ("[fd00::7]:7447", "fd00::7", 7447),
        ] {
            let far = Far::parse(endpoint).expect(endpoint);
            assert_eq!((far.host.as_str(), far.port), (host, port));
        }
        for endpoint in ["tcp/10.0.0.1:7447", "10.0.0.1", "10.0.0.1:port", ":1", "unixsock-stream//tmp/x:1"] {
            assert!(Far::parse(endpoint).is_none(), "{endpoint}");
        }
    }
}
