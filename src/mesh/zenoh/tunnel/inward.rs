//! Who comes: let in by the rules of the side whose listener it came to.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::domain::identity::anchors::Usage;
use crate::mesh::OpenError;
use crate::mesh::zenoh::session::HANDSHAKE;
use crate::mesh::zenoh::tunnel::{ACCEPT_PAUSE, Side, text};
use crate::tls::{self, Neighbour};

/// Binds what a setting names.
pub(super) async fn listen(setting: &'static str, wanted: SocketAddr) -> Result<(TcpListener, SocketAddr), OpenError> {
    let bound = async {
        let listener = TcpListener::bind(wanted).await?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    let refused =
        |error: io::Error| OpenError::Listen { setting, endpoint: wanted.to_string(), reason: error.to_string() };
    bound.await.map_err(refused)
}

/// Lets in who proves to be a node of the side's site, for as long as the side stands.
pub(super) async fn accept(side: Arc<Side>, listener: TcpListener, acceptor: TlsAcceptor) {
    loop {
        match listener.accept().await {
            Ok((socket, from)) => {
                let place = side.strangers.take(from.ip().to_canonical());
                let (inner, acceptor) = (Arc::clone(&side), acceptor.clone());
                side.spawn(&side.stop, async move {
                    let met = timeout(HANDSHAKE, inner.meet(socket, acceptor));
                    let Some(met) = place.sent_away.run_until_cancelled(met).await else {
                        return tracing::debug!(%from, site = %inner.site, "sent away: too many handshakes at once");
                    };
                    drop(place);
                    match met.unwrap_or_else(|_elapsed| Err("took too long".to_owned())) {
                        Ok((stream, neighbour)) => inner.let_in(stream, neighbour).await,
                        // Anybody can cause it as often as they like.
                        Err(reason) => tracing::debug!(%from, site = %inner.site, reason, "no link"),
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the mesh cannot accept");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl Side {
    async fn meet(
        &self,
        socket: TcpStream,
        acceptor: TlsAcceptor,
    ) -> Result<(TlsStream<TcpStream>, Neighbour), String> {
        let shown = self.identity.snapshot();
        socket.set_nodelay(true).map_err(text)?;
        let stream = acceptor.accept(socket).await.map_err(|error| tls::explain(&error))?;
        let certificates = stream.get_ref().1.peer_certificates();
        let neighbour = Neighbour::met(shown, &self.identity, certificates, Usage::Client, &self.site).map_err(text)?;
        Ok((stream, neighbour))
    }

    async fn let_in(self: &Arc<Self>, stream: TlsStream<TcpStream>, neighbour: Neighbour) {
        let let_in = async {
            let carried = self.carry(stream.into(), neighbour)?;
            self.inside.let_in(Box::new(carried)).await.map_err(text)
        };
        if let Err(reason) = let_in.await {
            tracing::warn!(reason, "a neighbour was not let in");
        }
    }
}
