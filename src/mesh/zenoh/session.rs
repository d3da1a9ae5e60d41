//! Opens Zenoh sessions. The only place that writes a Zenoh configuration, so that its traps are dealt with once.
//!
//! Every setting that is not the default says why. What each means: `DEFAULT_CONFIG.json5` of the pinned release.

use std::fmt::Display;
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{self as blocking, RecvTimeoutError};
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor};
use zenoh::internal::runtime::{DynamicRuntime, Runtime, RuntimeBuilder, ZRuntime};
use zenoh::{Config, Session};

use crate::mesh::OpenError;
use crate::mesh::key::Space;
use crate::mesh::zenoh::{CLOSE_MAX, Options, Role, Scouting, secure};

/// Largest message in bytes that is put together at all. Far above the largest legal payload, so that a payload that is too
/// large arrives, is refused by size and is counted, and far below what would hurt.
pub(super) const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// First and longest pause between attempts to dial a configured endpoint, so that a healed cable is used within a second.
const REDIAL_MS: (u64, u64) = (250, 1_000);

/// How long one handshake may take in either direction: a frozen neighbour must not hold the dialler for Zenoh's ten seconds.
pub(super) const HANDSHAKE: Duration = Duration::from_millis(2_500);

/// Handshakes at once. A site whose power comes back starts together, and the default of 100 makes the rest wait.
const HANDSHAKES_MAX: usize = 1_000;

/// Transports at once: a router of the largest fleet, which is 2,000 nodes.
pub(super) const TRANSPORTS_MAX: usize = 2_048;

/// How long a message may wait for room on a congested link before it is dropped. Zenoh's 1 ms loses messages of a burst on
/// a 100 Mbit/s link, where one batch takes 5 ms; a caller waits this long at most once per congestion.
const WAIT_BEFORE_DROP: Duration = Duration::from_millis(50);

/// How long Zenoh's own control traffic may wait on a congested link before the link is given up.
const WAIT_BEFORE_CLOSE: Duration = Duration::from_secs(2);

/// An open session, and the runtime below it, which can dial a peer by its address. Closed when dropped.
pub(super) struct Opened {
    pub(super) session: Session,
    pub(super) runtime: Runtime,
}

/// What a session listens on and dials, in Zenoh's form.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::mesh) struct Wires {
    pub(super) listen: Vec<String>,
    pub(super) connect: Vec<String>,
}

impl Wires {
    /// Plain TCP.
    pub(in crate::mesh) fn tcp(options: &Options) -> Self {
        // A client is dialled out only. The others always say where they listen: Zenoh's default is every interface.
        let is_client = options.role == Role::Client;
        let listen = if is_client { Vec::new() } else { vec![format!("tcp/{}", options.listen)] };
        Self { listen, connect: endpoints(options) }
    }
}

/// Opens a session. For a client this tries each endpoint once; peers and routers dial in the background.
pub(super) async fn open(options: &Options, wires: &Wires) -> Result<Opened, OpenError> {
    let multi_thread = Handle::try_current().is_ok_and(|it| it.runtime_flavor() == RuntimeFlavor::MultiThread);
    if !multi_thread {
        // Zenoh blocks in place, which panics on a runtime with one thread.
        return Err(failed("needs a multi-thread tokio runtime"));
    }
    let listens = options.role != Role::Client && options.tls.is_none();
    if listens {
        check_listen(options.listen)?;
    }
    let config = config(options, wires).map_err(failed)?;
    launch(config).await.map_err(|error| {
        // Somebody may have taken the port since it was checked.
        let in_use = listens.then(|| check_listen(options.listen).err()).flatten();
        in_use.unwrap_or_else(|| failed(error))
    })
}

/// On Zenoh's own threads, as `zenoh::open` does it, because what is started here belongs to them; and that blocks.
pub(super) async fn launch(config: Config) -> zenoh::Result<Opened> {
    let opening = move || ZRuntime::Application.block_in_place(start(config));
    tokio::task::spawn_blocking(opening).await?
}

/// What `zenoh::open` does, but keeps the runtime.
pub(super) async fn start(config: Config) -> zenoh::Result<Opened> {
    let mut runtime = RuntimeBuilder::new(config).build().await?;
    let session = zenoh::session::init(DynamicRuntime::from(runtime.clone())).await?;
    let started = runtime.start().await;
    let opened = Opened { session, runtime };
    match started {
        Ok(()) => Ok(opened),
        Err(error) => {
            opened.close().await;
            Err(error)
        }
    }
}

impl Opened {
    /// Closes the session, then the links below it. Does nothing the second time. Blocks its thread: see [`apart`].
    pub(super) async fn close(&self) {
        close(&self.session, &self.runtime).await;
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if self.runtime.is_closed() {
            return;
        }
        let (session, runtime) = (self.session.clone(), self.runtime.clone());
        let (done, closed) = blocking::channel::<()>();
        apart(async move {
            close(&session, &runtime).await;
            drop(done);
        });
        if closed.recv_timeout(CLOSE_MAX) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("mesh session did not close in time");
        }
    }
}

async fn close(session: &Session, runtime: &Runtime) {
    note(session.close().await);
    if !runtime.is_closed() {
        note(runtime.close().await);
    }
}

/// Runs on a thread of its own what Zenoh blocks in: it waits in place for room on the link of a silent peer, and whoever
/// polls it there looks at no clock meanwhile. Gives whether there was a thread to be had; without one it is not run.
pub(super) fn apart(work: impl Future<Output = ()> + Send + 'static) -> bool {
    let thread = std::thread::Builder::new().name("mesh-close".to_owned());
    // Detached: who waits for it waits with a bound.
    match thread.spawn(|| ZRuntime::Application.block_in_place(work)) {
        Ok(_thread) => true,
        Err(error) => {
            tracing::debug!(%error, "no thread to close the mesh session on");
            false
        }
    }
}

/// What fails while closing is of no more use to anybody.
pub(super) fn note(closed: zenoh::Result<()>) {
    if let Err(error) = closed {
        tracing::debug!(%error, "while closing the mesh session");
    }
}

/// The addresses a session listens on, as `host:port`.
pub(super) async fn listening(session: &Session) -> Vec<String> {
    let locators = session.info().locators().await;
    locators.iter().map(|it| it.address().as_str().to_owned()).collect()
}

/// Zenoh reports a failed bind as text among others, so the port is tried first, where the system's error is at hand.
fn check_listen(listen: SocketAddr) -> Result<(), OpenError> {
    let bound = TcpListener::bind(listen);
    bound.map(drop).map_err(|error| OpenError::Listen {
        setting: "runtime.mesh.listen",
        endpoint: listen.to_string(),
        reason: error.to_string(),
    })
}

fn failed(error: impl Display) -> OpenError {
    OpenError::Session(error.to_string())
}

/// The configuration that `options` ask for. No `id`: Zenoh's own is random per session, and the stable name is in the keys.
pub(in crate::mesh) fn config(options: &Options, wires: &Wires) -> zenoh::Result<Config> {
    let mut config = Config::default();
    let mut set = |key: &str, value: &str| -> zenoh::Result<()> {
        config.insert_json5(key, value).map_err(|error| format!("{key} = {value}: {error}").into())
    };
    set("mode", &quoted(options.role.as_str()))?;
    links(options, wires, &mut set)?;
    scouting(options, &mut set)?;
    transport(options, &mut set)?;
    if options.tls.is_some() {
        let space = Space::new(&options.service).map_err(|error| error.to_string())?;
        secure::links(&mut set)?;
        secure::access(&space, &mut set)?;
    }
    Ok(config)
}

/// Writes one setting.
pub(super) type Set<'a> = dyn FnMut(&str, &str) -> zenoh::Result<()> + 'a;

fn links(options: &Options, wires: &Wires, set: &mut Set<'_>) -> zenoh::Result<()> {
    let is_client = options.role == Role::Client;
    set("listen/endpoints", &array(&wires.listen))?;
    set("listen/exit_on_failure", "true")?;
    set("connect/endpoints", &array(&wires.connect))?;
    // For ever and in the background, except for a client: Zenoh would keep `open` waiting, and only for its first endpoint.
    set("connect/timeout_ms", if is_client { "0" } else { "-1" })?;
    set("connect/exit_on_failure", if is_client { "true" } else { "false" })?;
    let (first, longest) = REDIAL_MS;
    let retry = format!("{{ period_init_ms: {first}, period_max_ms: {longest}, period_increase_factor: 2 }}");
    set("connect/retry", &retry)?;
    // A node serves its own site whoever else is up.
    set("open/return_conditions/connect_scouted", "false")?;
    set("open/return_conditions/declares", "false")?;
    // A router's `open` sleeps this long.
    set("scouting/delay", "0")
}

/// The configured endpoints in Zenoh's form, without this node's own: one list for a whole site is a usual thing to write.
pub(super) fn endpoints(options: &Options) -> Vec<String> {
    let own = format!("tcp/{}", options.listen);
    let full = |it: &String| if it.contains('/') { it.clone() } else { format!("tcp/{it}") };
    options.connect.iter().map(full).filter(|it| *it != own).collect()
}

fn scouting(options: &Options, set: &mut Set<'_>) -> zenoh::Result<()> {
    let interface = match &options.scouting {
        Scouting::Off => None,
        // By address, because the interface is called `lo` on Linux and `lo0` elsewhere.
        Scouting::Loopback => Some("127.0.0.1".to_owned()),
        Scouting::Interface(names) => Some(names.join(",")),
    };
    set("scouting/multicast/enabled", if interface.is_some() { "true" } else { "false" })?;
    if let Some(interface) = interface {
        set("scouting/multicast/interface", &quoted(&interface))?;
    }
    if let Some(address) = &options.scouting_address {
        set("scouting/multicast/address", &quoted(address))?;
    }
    set("scouting/gossip/enabled", "true")?;
    // Only one of two peers dials the other: two links dialled at once can leave a half-open transport for good (zenoh #2806).
    for kind in ["multicast", "gossip"] {
        let key = format!("scouting/{kind}/autoconnect_strategy");
        set(&key, r#"{ peer: { to_router: "always", to_peer: "greater-zid" } }"#)?;
    }
    Ok(())
}

fn transport(options: &Options, set: &mut Set<'_>) -> zenoh::Result<()> {
    // The far side uses the lease we announce to notice our death, and the other way round.
    set("transport/link/tx/lease", &options.lease.as_millis().to_string())?;
    set("transport/unicast/open_timeout", &HANDSHAKE.as_millis().to_string())?;
    set("transport/unicast/accept_timeout", &HANDSHAKE.as_millis().to_string())?;
    set("transport/unicast/accept_pending", &HANDSHAKES_MAX.to_string())?;
    set("transport/unicast/max_sessions", &TRANSPORTS_MAX.to_string())?;
    set("transport/link/rx/max_message_size", &MESSAGE_BYTES_MAX.to_string())?;
    let queue = "transport/link/tx/queue/congestion_control";
    set(&format!("{queue}/drop/wait_before_drop"), &WAIT_BEFORE_DROP.as_micros().to_string())?;
    set(&format!("{queue}/block/wait_before_close"), &WAIT_BEFORE_CLOSE.as_micros().to_string())
}

fn array(texts: &[String]) -> String {
    let texts: Vec<String> = texts.iter().map(|it| quoted(it)).collect();
    format!("[{}]", texts.join(","))
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        Options::new("s/a".parse().expect("legal"), 1, SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    #[test]
    fn the_pinned_release_takes_every_setting() {
        for role in [Role::Client, Role::Peer, Role::Router] {
            for scouting in [Scouting::Off, Scouting::Loopback, Scouting::Interface(vec!["eth0".into(), "eth1".into()])]
            {
                let options =
                    Options { role, scouting, scouting_address: Some("224.0.0.225:9999".into()), ..options() };
                let config = config(&options, &Wires::tcp(&options)).expect("accepted");
                assert_eq!(config.get_json("mode").expect("set"), format!("{:?}", role.as_str()));
            }
        }
    }

    #[test]
    fn endpoints_take_both_forms_and_leave_the_own_one_out() {
        let listen = SocketAddr::from(([10, 0, 0, 1], 7447));
        let connect = vec!["10.0.0.1:7447".into(), "host-b:7447".into(), "tcp/[::1]:7447".into()];
        let options = Options { listen, connect, ..options() };
        assert_eq!(endpoints(&options), ["tcp/host-b:7447", "tcp/[::1]:7447"]);
    }

    #[test]
    fn a_hostile_text_stays_one_text() {
        let connect = vec!["\"],\"x\":[\"".to_owned()];
        let options = Options { connect, ..options() };
        let config = config(&options, &Wires::tcp(&options)).expect("only dialling it fails");
        let endpoints = config.get_json("connect/endpoints").expect("set");
        assert_eq!(serde_json::from_str::<Vec<String>>(&endpoints).expect("a list").len(), 1, "{endpoints}");
    }
}
