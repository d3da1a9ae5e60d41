//! One link: what Zenoh says and hears over it, for as long as both ends are who they have to be.

use std::io;
use std::net::{self, Shutdown};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_rustls::TlsStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use zenoh::internal::runtime::ZRuntime;

use crate::mesh::zenoh::tunnel::{Side, text};
use crate::tls::{Look, Neighbour};

/// How often a link is held against certificates, bans and the clock.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How many looks a link is held after the own certificate was renewed: until what this node says under the new one has been
/// heard over it, so that its peers expect the link to be replaced (`domain::projection::freshness`).
const LOOKS_AFTER_RENEWAL: u32 = 5;

/// The stream of a link that somebody watches until it is dropped.
pub(super) struct Carried {
    stream: TlsStream<TcpStream>,
    _in_use: DropGuard,
}

impl Side {
    /// What Zenoh is given. The link ends when Zenoh drops it, when this side ends, or when it may not go on.
    ///
    /// # Errors
    /// What is missing: places for links with this node or with its site, or the system's means.
    pub(super) fn carry(
        self: &Arc<Self>,
        mut stream: TlsStream<TcpStream>,
        mut neighbour: Neighbour,
    ) -> Result<Carried, String> {
        let subject = neighbour.verified.svid.subject.clone();
        let Some(share) = self.neighbours.take(subject.clone()) else {
            return Err(format!("no more links with {subject}: its places are taken"));
        };
        let Ok(place) = Arc::clone(&self.links).try_acquire_owned() else {
            return Err(format!("no more links with site {}: all places are taken", self.site));
        };
        let socket = hand_over(stream.get_mut().0).map_err(text)?;
        let gone = CancellationToken::new();
        let (side, in_use) = (Arc::clone(self), gone.clone().drop_guard());
        let watch = async move {
            let _places = (share, place);
            tokio::select! {
                () = gone.cancelled() => return,
                () = side.stop.cancelled() => {}
                reason = side.over(&mut neighbour) => tracing::info!(neighbour = %subject, reason, "a link was ended"),
            }
            // Whoever reads or writes it sees its end. There is nothing to end where the other node was faster.
            drop(socket.shutdown(Shutdown::Both));
        };
        self.tasks.spawn_on(watch, &self.handle);
        Ok(Carried { stream, _in_use: in_use })
    }

    async fn over(&self, neighbour: &mut Neighbour) -> String {
        let mut looks: u32 = 0;
        loop {
            sleep(LOOK_EVERY).await;
            match neighbour.look(&self.identity) {
                Look::Good => {}
                Look::Over(reason) => return reason,
                Look::Renewed if looks < LOOKS_AFTER_RENEWAL => looks = looks.saturating_add(1),
                Look::Renewed => return "the own certificate was renewed".to_owned(),
            }
        }
    }
}

/// From now on the threads that read Zenoh's links wait for this socket: waiting elsewhere would wake two threads for each
/// message. Gives the same socket once more, to end it.
fn hand_over(socket: &mut TcpStream) -> io::Result<net::TcpStream> {
    let same = net::TcpStream::from(socket.as_fd().try_clone_to_owned()?);
    let end = same.try_clone()?;
    let _entered = ZRuntime::RX.enter();
    *socket = TcpStream::from_std(same)?;
    Ok(end)
}

impl AsyncRead for Carried {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Carried {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
