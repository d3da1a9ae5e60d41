//! Who is dialled: behind each door outward is one configured address.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use mesh_door::{Door, Stream};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::domain::identity::anchors::Usage;
use crate::mesh::zenoh::session::HANDSHAKE;
use crate::mesh::zenoh::tunnel::{Side, text};
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

/// One address, and what was said last about why there is no link with it.
struct Way {
    side: Arc<Side>,
    far: Far,
    said: Mutex<Option<String>>,
}

/// Zenoh comes to this door as often as it wants a link. A failure sends it away, and it comes again. Nobody is dialled after
/// `dialling` has ended.
pub(super) fn door(side: &Arc<Side>, far: Far, dialling: CancellationToken) -> Door {
    let way = Arc::new(Way { side: Arc::clone(side), far, said: Mutex::default() });
    Door::outward(move || {
        let (inner, dialling) = (Arc::clone(&way), dialling.clone());
        // On a thread of the node's own: a handshake takes too long for those of Zenoh's.
        let dialled =
            way.side.tasks.spawn_on(async move { dialling.run_until_cancelled(inner.dial()).await }, &way.side.handle);
        Box::pin(async move {
            let dialled = dialled.await.map_err(io::Error::other)?;
            dialled.ok_or(io::ErrorKind::ConnectionAborted)?.map_err(io::Error::other)
        })
    })
}

impl Way {
    async fn dial(&self) -> Result<Box<dyn Stream>, String> {
        let reached = timeout(HANDSHAKE, self.side.reach(&self.far)).await;
        let reached = reached.unwrap_or_else(|_elapsed| Err("took too long".to_owned()));
        let carried = reached.and_then(|(stream, neighbour)| self.side.carry(stream.into(), neighbour));
        self.tell(carried.as_ref().err());
        Ok(Box::new(carried?))
    }

    /// Says it once, until it is another reason.
    fn tell(&self, reason: Option<&String>) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.as_ref() != reason {
            if let Some(reason) = reason {
                let (site, host, port) = (&self.side.site, &self.far.host, self.far.port);
                tracing::warn!(%site, host, port, reason, "no link yet");
            }
            *said = reason.cloned();
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
