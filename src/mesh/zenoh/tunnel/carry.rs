//! One link: bytes both ways, for as long as both ends are who they have to be.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, WriteHalf, copy, split};
use tokio::net::unix::pipe::Receiver;
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_rustls::TlsStream;
use zenoh::internal::runtime::ZRuntime;

use crate::mesh::zenoh::tunnel::inside::{self, Inlet};
use crate::mesh::zenoh::tunnel::{Side, text};
use crate::tls::{Look, Neighbour};

/// How often a link is held against certificates, bans and the clock.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How many looks a link is held after the own certificate was renewed: until what this node says under the new one has been
/// heard over it, so that its peers expect the link to be replaced (`domain::projection::freshness`).
const LOOKS_AFTER_RENEWAL: u32 = 5;

/// Bytes that are taken from the other node at once.
const PIECE: usize = 16 * 1024;

impl Side {
    /// Carries bytes both ways until either end has enough, or the link may not go on.
    ///
    /// Each way is gone by a thread of Zenoh's that is awake already: outward by the one that writes, inward by `reader`, which
    /// waits for Zenoh's end of the socket. Handing over to a thread of our own costs more than TLS does.
    pub(super) async fn carry(
        &self,
        stream: TlsStream<TcpStream>,
        inside: UnixStream,
        mut neighbour: Neighbour,
        reader: ZRuntime,
    ) {
        let subject = &neighbour.verified.svid.subject;
        let Some(_share) = self.neighbours.take(subject.clone()) else {
            return tracing::warn!(neighbour = %subject, "no more links with this node: its places are taken");
        };
        let Ok(_place) = self.links.try_acquire() else {
            return tracing::warn!(neighbour = %subject, "no more links with site {}: all places are taken", self.site);
        };
        let mut ways = match set_out(stream, inside, &reader) {
            Ok(ways) => ways,
            Err(reason) => return tracing::warn!(reason, "a link could not be carried"),
        };
        tokio::select! {
            _ended = ways.join_next() => {}
            reason = self.over(&mut neighbour) => {
                tracing::info!(neighbour = %neighbour.verified.svid.subject, reason, "a link was ended");
            }
        }
        ways.shutdown().await;
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

/// Starts both ways. They end when what is returned is dropped.
fn set_out(mut stream: TlsStream<TcpStream>, inside: UnixStream, reader: &ZRuntime) -> Result<JoinSet<()>, String> {
    let (from_inside, to_inside) = inside::split(inside, &ZRuntime::TX).map_err(text)?;
    hand_over(stream.get_mut().0, reader).map_err(text)?;
    let (from_far, to_far) = split(stream);
    let mut ways = JoinSet::new();
    ways.spawn_on(outward(from_inside, to_far), &ZRuntime::TX);
    ways.spawn_on(inward(from_far, to_inside), reader);
    Ok(ways)
}

/// From now on `reader` waits for this socket.
fn hand_over(socket: &mut TcpStream, reader: &ZRuntime) -> io::Result<()> {
    let same = socket.as_fd().try_clone_to_owned()?;
    let _entered = reader.enter();
    *socket = TcpStream::from_std(same.into())?;
    Ok(())
}

// Whatever fails on the way, the link is over.

async fn outward(mut from_inside: Receiver, mut to_far: WriteHalf<TlsStream<TcpStream>>) {
    drop(copy(&mut from_inside, &mut to_far).await);
    drop(to_far.shutdown().await);
}

async fn inward(mut from_far: impl AsyncRead + Unpin, mut to_inside: Inlet) {
    let mut piece = vec![0; PIECE];
    while let Ok(length @ 1..) = from_far.read(&mut piece).await {
        let read = piece.get(..length).unwrap_or_default();
        if to_inside.write_all(read).await.is_err() {
            return;
        }
    }
}
