//! The accept loop: bounded connections, each with time-outs of its own, so that slow clients hurt nobody.
//!
//! `axum::serve` is not used: it sets no timer, and without one hyper's time-out for the head of a request does nothing.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt as _;
use hyper::body::{Bytes, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::tls;

use super::limit::{HEAD_BYTES_MAX, HEADERS_MAX};
use super::router::App;
use super::stream::Lasting;
use super::timed::Timed;
use super::{Options, State, secure};

/// How long the loop rests when the system gives no more sockets: closing connections need a moment.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// From where a connection came, as an extension of its requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerAddress(pub SocketAddr);

/// A bound listener that does not serve yet.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    addr: SocketAddr,
}

/// Binds the listener, so that the address can be announced before anything is served.
pub async fn bind(options: &Options) -> io::Result<Bound> {
    let listener = TcpListener::bind(options.listen).await?;
    let addr = listener.local_addr()?;
    Ok(Bound { listener, addr })
}

impl Bound {
    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves until `shutdown`, then lets running requests finish within the grace.
    pub async fn serve(self, state: State, shutdown: CancellationToken) {
        let app = App::new(state, self.addr);
        let connections = Arc::new(Connections::new(app.options().limits.connections_max));
        let tasks = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => match connections.open() {
                    Some(place) => {
                        tasks.spawn(receive(app.clone(), stream, PeerAddress(peer), place, shutdown.clone()));
                    }
                    None => tracing::debug!(%peer, "refused a connection: all are busy"),
                },
                Err(error) => {
                    tracing::warn!(%error, "could not accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(self.listener);
        app.end_streams();
        tasks.close();
        app.tasks().close();
        let finished = async {
            tasks.wait().await;
            app.tasks().wait().await;
        };
        if tokio::time::timeout(app.options().limits.grace, finished).await.is_err() {
            tracing::warn!(open = tasks.len(), "requests were cut off by the shutdown");
            connections.close_all();
        }
    }
}

/// One connection from its first byte, after the handshake where there is one.
async fn receive(app: App, stream: TcpStream, peer: PeerAddress, place: Place, shutdown: CancellationToken) {
    // An answer is one small write; without this it waits for the acknowledgement of the one before.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "could not set TCP_NODELAY");
    }
    let Some(secure) = app.options().secure.clone() else {
        return converse(app, stream, Origin { peer, caller: None }, place, shutdown).await;
    };
    let state = Arc::clone(&place.state);
    let accepted = tokio::select! {
        () = state.closed.cancelled() => return,
        () = shutdown.cancelled() => return,
        accepted = secure.accept(stream, app.options().limits.handshake) => accepted,
    };
    match accepted {
        Ok((stream, caller)) => {
            let origin = Origin { peer, caller: caller.map(Arc::new) };
            converse(app, stream, origin, place, shutdown).await;
        }
        Err(error) => tracing::debug!(error = %tls::explain(&error), peer = %peer.0, "a handshake failed"),
    }
}

/// Where a connection's requests come from.
struct Origin {
    peer: PeerAddress,
    caller: Option<Arc<secure::Caller>>,
}

/// One connection until its end.
async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    app: App,
    stream: S,
    origin: Origin,
    place: Place,
    shutdown: CancellationToken,
) {
    let Origin { peer, caller } = origin;
    let limits = app.options().limits;
    let state = Arc::clone(&place.state);
    let service = service_fn(|request: Request<Incoming>| {
        let app = &app;
        let busy = Busy::new(&place);
        let caller = caller.clone();
        async move {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(peer);
            if let Some(caller) = caller {
                request.extensions_mut().insert(caller);
            }
            let mut response = app.answer(request).await;
            // Who follows something is being answered until the end of it.
            if response.extensions_mut().remove::<Lasting>().is_some() {
                response = response.map(|body| Body::new(body.map_frame(move |frame| hold(&busy, frame))));
            }
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_read)
        .max_headers(HEADERS_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .half_close(false)
        .serve_connection(TokioIo::new(Timed::new(stream, limits.write)), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        () = state.closed.cancelled() => return,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                () = state.closed.cancelled() => return,
                ended = connection => ended,
            }
        }
        ended = connection.as_mut() => ended,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, peer = %peer.0, "a connection ended early");
    }
}

/// Keeps a connection busy for as long as the body that it is moved into.
fn hold(_busy: &Busy, frame: Frame<Bytes>) -> Frame<Bytes> {
    frame
}

/// The open connections, in the order in which they last did something.
#[derive(Debug)]
struct Connections {
    max: usize,
    next: AtomicU64,
    open: Mutex<BTreeMap<u64, Arc<Connection>>>,
}

#[derive(Debug, Default)]
struct Connection {
    /// A request is being answered.
    is_busy: AtomicBool,
    /// It has had an answer.
    is_known: AtomicBool,
    /// Counts up with every answer of any connection: the lowest has been silent longest.
    touched: AtomicU64,
    closed: CancellationToken,
}

/// One connection's place among the open ones; given back when dropped.
#[derive(Debug)]
struct Place {
    number: u64,
    state: Arc<Connection>,
    all: Arc<Connections>,
}

impl Connections {
    const fn new(max: usize) -> Self {
        Self { max, next: AtomicU64::new(0), open: Mutex::new(BTreeMap::new()) }
    }

    /// A place for a new connection. When all are taken, the connection that never asked anything or has been silent longest
    /// has to go; `None` when all are busy.
    fn open(self: &Arc<Self>) -> Option<Place> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let state = Arc::new(Connection { touched: AtomicU64::new(number), ..Connection::default() });
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if self.max <= open.len() {
            let idle = open.iter().filter(|(_, state)| !state.is_busy.load(Ordering::Relaxed));
            let rank =
                |state: &Connection| (state.is_known.load(Ordering::Relaxed), state.touched.load(Ordering::Relaxed));
            let victim = idle.min_by_key(|(_, state)| rank(state)).map(|(number, _)| *number)?;
            if let Some(victim) = open.remove(&victim) {
                victim.closed.cancel();
            }
        }
        open.insert(number, Arc::clone(&state));
        drop(open);
        Some(Place { number, state, all: Arc::clone(self) })
    }

    fn close_all(&self) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.values().for_each(|state| state.closed.cancel());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.all.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}

/// Marks a connection as busy while a request is answered, however that ends.
struct Busy {
    state: Arc<Connection>,
    all: Arc<Connections>,
}

impl Busy {
    fn new(place: &Place) -> Self {
        place.state.is_busy.store(true, Ordering::Relaxed);
        Self { state: Arc::clone(&place.state), all: Arc::clone(&place.all) }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.state.touched.store(self.all.next.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        self.state.is_known.store(true, Ordering::Relaxed);
        self.state.is_busy.store(false, Ordering::Relaxed);
    }
}
