//! TLS around Zenoh's links: ours, because Zenoh's does not do.
//!
//! Zenoh's own TLS reads and writes one connection from two threads at once, which breaks links and memory; it trusts every
//! public authority beside ours, knows no ban and no SPIFFE id, and takes a new session for a new certificate
//! (`docs/decisions/0009-mesh-links-inside-our-own-tls.md`). So Zenoh speaks over sockets in a folder that nobody else may enter, and
//! what goes through them is carried inside TLS to the same place at the other node. Both ends prove themselves by the rules
//! of `tls`. Bytes are neither read nor changed on the way: at the other end may be Zenoh's own TLS.

use std::fs::DirBuilder;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy, split};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::domain::identity::anchors::Usage;
use crate::mesh::OpenError;
use crate::mesh::zenoh::session::{HANDSHAKE, TRANSPORTS_MAX, Wires};
use crate::mesh::zenoh::{Options, Role, secure};
use crate::tls::{self, Identity, Neighbour};

/// Strangers at once whose handshake is not over. Another one is turned away.
const HANDSHAKES_MAX: usize = 256;

/// How often a link is held against certificates, bans and the clock.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Pause after the system could not accept: it has run out of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long what was said last may take to leave.
const LEAVE_MAX: Duration = Duration::from_millis(200);

/// The socket on which Zenoh hears whoever was let in.
const INSIDE: &str = "in";

/// The way of all links of one session. Ended when dropped.
#[derive(Debug)]
pub(in crate::mesh) struct Tunnel {
    /// What Zenoh is told to listen on and to dial.
    pub(in crate::mesh) wires: Wires,
    /// Where others find this node.
    pub(in crate::mesh) listening: Vec<String>,
    accepting: CancellationToken,
    stop: CancellationToken,
    tasks: TaskTracker,
    _folder: Folder,
}

/// What the tasks share.
struct Shared {
    identity: Arc<Identity>,
    inside: PathBuf,
    handshakes: Arc<Semaphore>,
    links: Arc<Semaphore>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Tunnel {
    /// Listens, and stands ready to dial.
    pub(in crate::mesh) async fn open(options: &Options, identity: &Arc<Identity>) -> Result<Self, OpenError> {
        let folder = Folder::create().map_err(failed)?;
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            identity: Arc::clone(identity),
            inside: folder.0.join(INSIDE),
            handshakes: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
            links: Arc::new(Semaphore::new(TRANSPORTS_MAX)),
            stop: stop.clone(),
            tasks: TaskTracker::new(),
        });
        let accepting = stop.child_token();
        let mut wires = Wires::default();
        let mut listening = Vec::new();
        if options.role != Role::Client {
            let (listener, address) = listen(options.listen).await?;
            listening.push(address.to_string());
            wires.listen.push(locator(&shared.inside));
            let acceptor = TlsAcceptor::from(tls::link_server(identity).map_err(failed)?);
            shared.spawn(&accepting, accept(Arc::clone(&shared), listener, acceptor));
        }
        for (index, endpoint) in options.connect.iter().filter(|it| **it != options.listen.to_string()).enumerate() {
            let door = folder.0.join(format!("out-{index}"));
            let far = Far::parse(endpoint).ok_or_else(|| failed(format!("cannot dial {endpoint} over TLS")))?;
            let listener = UnixListener::bind(&door).map_err(failed)?;
            wires.connect.push(locator(&door));
            shared.spawn(&accepting, lead_out(Arc::clone(&shared), listener, Arc::new(far)));
        }
        let tasks = shared.tasks.clone();
        Ok(Self { wires, listening, accepting, stop, tasks, _folder: folder })
    }

    /// Lets no more in, gives what was said last a moment to leave, and ends.
    pub(in crate::mesh) async fn close(&self) {
        self.accepting.cancel();
        self.tasks.close();
        if timeout(LEAVE_MAX, self.tasks.wait()).await.is_err() {
            self.stop.cancel();
            self.tasks.wait().await;
        }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Shared {
    fn spawn(&self, stop: &CancellationToken, task: impl Future<Output = ()> + Send + 'static) {
        let stop = stop.clone();
        self.tasks.spawn(async move {
            stop.run_until_cancelled(task).await;
        });
    }
}

async fn listen(wanted: SocketAddr) -> Result<(TcpListener, SocketAddr), OpenError> {
    let bound = async {
        let listener = TcpListener::bind(wanted).await?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    let refused = |error: io::Error| OpenError::Listen { endpoint: wanted.to_string(), reason: error.to_string() };
    bound.await.map_err(refused)
}

async fn accept(shared: Arc<Shared>, listener: TcpListener, acceptor: TlsAcceptor) {
    loop {
        match listener.accept().await {
            Ok((socket, from)) => {
                let Ok(permit) = Arc::clone(&shared.handshakes).try_acquire_owned() else { continue };
                let (inner, acceptor) = (Arc::clone(&shared), acceptor.clone());
                shared.spawn(&shared.stop, async move {
                    let met = timeout(HANDSHAKE, inner.let_in(socket, acceptor)).await;
                    drop(permit);
                    match met.unwrap_or_else(|_elapsed| Err("took too long".to_owned())) {
                        Ok((stream, inside, neighbour)) => inner.carry(stream, inside, neighbour).await,
                        // Anybody can cause it as often as they like.
                        Err(reason) => tracing::debug!(%from, reason, "no link"),
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

type Inward = (tokio_rustls::server::TlsStream<TcpStream>, UnixStream, Neighbour);
type Outward = (tokio_rustls::client::TlsStream<TcpStream>, Neighbour);

impl Shared {
    async fn let_in(&self, socket: TcpStream, acceptor: TlsAcceptor) -> Result<Inward, String> {
        let shown = self.identity.snapshot();
        socket.set_nodelay(true).map_err(text)?;
        let stream = acceptor.accept(socket).await.map_err(|error| tls::explain(&error))?;
        let certificates = stream.get_ref().1.peer_certificates();
        let neighbour = Neighbour::met(shown, &self.identity, certificates, Usage::Client).map_err(text)?;
        let inside = UnixStream::connect(&self.inside).await.map_err(text)?;
        Ok((stream, inside, neighbour))
    }

    async fn reach(&self, far: &Far) -> Result<Outward, String> {
        let shown = self.identity.snapshot();
        let connector = TlsConnector::from(tls::link_client(&self.identity).map_err(text)?);
        let socket = TcpStream::connect((far.host.as_str(), far.port)).await.map_err(text)?;
        socket.set_nodelay(true).map_err(text)?;
        let stream = connector.connect(far.name.clone(), socket).await.map_err(|error| tls::explain(&error))?;
        let certificates = stream.get_ref().1.peer_certificates();
        let neighbour = Neighbour::met(shown, &self.identity, certificates, Usage::Server).map_err(text)?;
        Ok((stream, neighbour))
    }

    /// Carries bytes both ways until either side ends, or the link may not go on.
    async fn carry<S: AsyncRead + AsyncWrite>(&self, stream: S, inside: UnixStream, mut neighbour: Neighbour) {
        let Ok(_place) = self.links.try_acquire() else {
            return tracing::warn!("no more links: {TRANSPORTS_MAX} are open");
        };
        let (mut from_far, mut to_far) = split(stream);
        let (mut from_inside, mut to_inside) = inside.into_split();
        let outward = async {
            // Whatever fails here, the link is over.
            drop(copy(&mut from_inside, &mut to_far).await);
            drop(to_far.shutdown().await);
        };
        tokio::select! {
            () = outward => {}
            _ended = copy(&mut from_far, &mut to_inside) => {}
            reason = self.over(&mut neighbour) => {
                tracing::info!(neighbour = %neighbour.verified.svid.subject, reason, "a link was ended");
            }
        }
    }

    async fn over(&self, neighbour: &mut Neighbour) -> String {
        loop {
            sleep(LOOK_EVERY).await;
            if let Some(reason) = neighbour.is_over(&self.identity) {
                return reason;
            }
        }
    }
}

/// Where a door leads.
#[derive(Debug)]
struct Far {
    host: String,
    port: u16,
    name: ServerName<'static>,
}

impl Far {
    /// From `host:port`, an IPv6 address in brackets, with or without the protocol before it.
    fn parse(endpoint: &str) -> Option<Self> {
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
async fn lead_out(shared: Arc<Shared>, door: UnixListener, far: Arc<Far>) {
    let mut said = None;
    loop {
        let Ok((inside, _)) = door.accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let reached = timeout(HANDSHAKE, shared.reach(&far)).await;
        match reached.unwrap_or_else(|_elapsed| Err("took too long".to_owned())) {
            Ok((stream, neighbour)) => {
                said = None;
                let inner = Arc::clone(&shared);
                shared.spawn(&shared.stop, async move { inner.carry(stream, inside, neighbour).await });
            }
            Err(reason) => {
                if said.as_ref() != Some(&reason) {
                    tracing::warn!(host = far.host, port = far.port, reason, "no link yet");
                }
                said = Some(reason);
            }
        }
    }
}

/// A folder that only this user may enter. Its path is short, because a socket's path may have 107 bytes.
#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    fn create() -> io::Result<Self> {
        let mut name = [0; 8];
        getrandom::fill(&mut name).map_err(io::Error::other)?;
        let path = std::env::temp_dir().join(format!("trust-mesh-{:016x}", u64::from_be_bytes(name)));
        // Fails where there is something already, whoever made it.
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::debug!(%error, "a folder of sockets was left behind");
        }
    }
}

fn locator(path: &Path) -> String {
    format!("{}/{}", secure::PROTOCOL, path.display())
}

fn text(error: impl ToString) -> String {
    error.to_string()
}

fn failed(error: impl ToString) -> OpenError {
    OpenError::Session(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_folder_is_for_its_owner_and_goes_with_the_tunnel() {
        let folder = Folder::create().expect("a folder");
        let path = folder.0.clone();
        let mode = std::fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        drop(folder);
        assert!(!path.exists());
    }

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
