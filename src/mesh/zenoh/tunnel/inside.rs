//! The two directions of a socket that Zenoh is at the other end of.
//!
//! The system wakes whoever waits for room in such a socket each time the other side has read something, and tokio's own
//! sockets always wait for room. One wake for each message, for nothing, was a part of what a link costs: so here room is
//! waited for only where there is none.

use std::io::{self, ErrorKind, Write};
use std::os::unix::net::UnixStream;

use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::runtime::Handle;

/// Where bytes for Zenoh go.
#[derive(Debug)]
pub(super) struct Inlet(UnixStream);

/// Both directions of a socket. What Zenoh says is waited for by the threads of `listener`.
pub(super) fn split(socket: tokio::net::UnixStream, listener: &Handle) -> io::Result<(Receiver, Inlet)> {
    let socket = socket.into_std()?;
    let outlet = socket.try_clone()?;
    let _entered = listener.enter();
    // No pipe, but read like one: this is tokio's only reader that does not wait for room as well.
    Ok((Receiver::from_owned_fd_unchecked(outlet.into())?, Inlet(socket)))
}

impl Inlet {
    /// Writes all of it, as slowly as it is read.
    pub(super) async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = match self.0.write(bytes) {
            Ok(length) => length,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => 0,
            Err(error) => return Err(error),
        };
        match bytes.get(written..) {
            None | Some([]) => Ok(()),
            Some(rest) => Sender::from_owned_fd_unchecked(self.0.try_clone()?.into())?.write_all(rest).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::Shutdown;
    use std::time::Duration;

    use tokio::io::AsyncReadExt;
    use tokio::runtime::{Builder, Runtime};
    use tokio::time::timeout;

    use super::*;

    /// Longer than any of these takes on a busy machine.
    const DEADLINE: Duration = Duration::from_secs(20);

    /// More than the system keeps for who does not read.
    const MUCH: usize = 4 << 20;

    /// Both directions of one end, and the other end.
    fn ends(runtime: &Runtime) -> (Receiver, Inlet, UnixStream) {
        let (near, far) = UnixStream::pair().expect("a pair");
        near.set_nonblocking(true).expect("set");
        let _entered = runtime.enter();
        let near = tokio::net::UnixStream::from_std(near).expect("registered");
        let (outlet, inlet) = split(near, runtime.handle()).expect("split");
        (outlet, inlet, far)
    }

    fn runtime() -> Runtime {
        Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("built")
    }

    /// What was said, none of it like what is near it.
    fn said() -> Vec<u8> {
        (0..MUCH as u64 / 8).flat_map(u64::to_be_bytes).collect()
    }

    #[test]
    fn what_waits_for_a_slow_reader_comes_whole_and_in_order() {
        let runtime = runtime();
        let (_outlet, mut inlet, mut far) = ends(&runtime);
        let (blocked_tx, blocked) = std::sync::mpsc::channel();
        let writing = runtime.spawn(async move {
            let said = said();
            let mut written = std::pin::pin!(inlet.write_all(&said));
            assert!(at_once(written.as_mut()).await.is_none(), "there is no room for all of it");
            blocked_tx.send(()).expect("waited for");
            written.await
        });
        blocked.recv_timeout(DEADLINE).expect("it waits");
        let mut heard = vec![0; MUCH];
        far.set_read_timeout(Some(DEADLINE)).expect("set");
        far.read_exact(&mut heard).expect("all of it comes");
        assert!(heard == said(), "nothing is lost, and nothing is out of order");
        let written = runtime.block_on(async { timeout(DEADLINE, writing).await });
        written.expect("in time").expect("no panic").expect("written");
    }

    #[test]
    fn a_reader_that_goes_ends_the_wait_for_room() {
        let runtime = runtime();
        let (_outlet, mut inlet, far) = ends(&runtime);
        let ended = runtime.block_on(async move {
            let said = said();
            let mut written = std::pin::pin!(inlet.write_all(&said));
            assert!(at_once(written.as_mut()).await.is_none(), "there is no room for all of it");
            drop(far);
            timeout(DEADLINE, written).await
        });
        assert!(ended.expect("the wait is over").is_err());
    }

    #[test]
    fn each_direction_ends_alone() {
        let runtime = runtime();
        let (mut outlet, mut inlet, mut far) = ends(&runtime);
        far.write_all(b"last").expect("room");
        far.shutdown(Shutdown::Write).expect("shut");
        runtime.block_on(async {
            let mut heard = Vec::new();
            timeout(DEADLINE, outlet.read_to_end(&mut heard)).await.expect("in time").expect("read");
            assert_eq!(heard, b"last");
            inlet.write_all(b"more").await.expect("that one listens still");
        });
        let mut heard = [0; 4];
        far.read_exact(&mut heard).expect("read");
        assert_eq!(&heard, b"more");
        drop((outlet, inlet));
        assert_eq!(far.read(&mut heard).expect("the end"), 0);
    }

    /// What the work has come to without being waited for.
    async fn at_once<T>(mut work: std::pin::Pin<&mut (impl Future<Output = T> + ?Sized)>) -> Option<T> {
        std::future::poll_fn(|context| match work.as_mut().poll(context) {
            std::task::Poll::Ready(done) => std::task::Poll::Ready(Some(done)),
            std::task::Poll::Pending => std::task::Poll::Ready(None),
        })
        .await
    }
}
