//! TLS around Zenoh's links: ours, because Zenoh's does not do.
//!
//! Zenoh's own TLS reads and writes one connection from two threads at once, which breaks links and memory; it trusts every
//! public authority beside ours, knows no ban and no SPIFFE id, and takes a new session for a new certificate
//! (`docs/decisions/0009-mesh-links-inside-our-own-tls.md`). So Zenoh is given streams that are TLS connections of ours, by the
//! doors of `mesh_door`: it dials and listens there, and finds whoever has proved himself by the rules of `tls`. Bytes are
//! neither read nor changed on the way: at the other end may be Zenoh's own TLS.
//!
//! A node has one side for its own site and one for each partner. Each has its own listener, its own doors and its own
//! limits, leads to its own session, and is crossed by nodes of its one site only.

use std::sync::Arc;
use std::time::Duration;

use mesh_door::Door;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::domain::id::SiteId;
use crate::domain::identity::Subject;
use crate::mesh::OpenError;
use crate::mesh::zenoh::session::{TRANSPORTS_MAX, Wires};
use crate::mesh::zenoh::tunnel::doorstep::Doorstep;
use crate::mesh::zenoh::tunnel::outward::Far;
use crate::mesh::zenoh::tunnel::share::Shares;
use crate::mesh::zenoh::{Options, Role};
use crate::tls::{self, Identity};

mod carry;
mod doorstep;
mod inward;
mod outward;
mod share;

/// Strangers at once whose handshake is not over. For another one, one of them has to go.
const HANDSHAKES_MAX: usize = 256;

/// The same at a partner's listener, which few have a reason to come to.
const PARTNER_HANDSHAKES_MAX: usize = 32;

/// Links with one node at once: each of two dials the other, a renewed certificate doubles both for a moment, and the ends of a
/// cut cable are not seen at once.
const LINKS_OF_ONE_MAX: usize = 16;

/// Pause after the system could not accept: it has run out of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long what was said last may take to leave.
const LEAVE_MAX: Duration = Duration::from_millis(200);

/// The way of all links of one node. Ended when dropped.
#[derive(Debug)]
pub(in crate::mesh) struct Tunnel {
    /// What Zenoh is told to listen on and to dial for the own site.
    pub(in crate::mesh) wires: Wires,
    /// The same for each partner, in the order of the options.
    pub(in crate::mesh) partners: Vec<Wires>,
    /// Where others find this node: the own site's first, then each partner's.
    pub(in crate::mesh) listening: Vec<String>,
    /// What ends a partner's side: its doors, and its links.
    dismissals: Vec<(SiteId, [CancellationToken; 2])>,
    accepting: CancellationToken,
    stop: CancellationToken,
    tasks: TaskTracker,
    /// Closed when the tunnel goes.
    doors: Vec<Door>,
}

/// What the links with one site share.
struct Side {
    /// Whose nodes may be at the other end.
    site: SiteId,
    identity: Arc<Identity>,
    /// Where Zenoh meets whoever was let in.
    inside: Door,
    strangers: Arc<Doorstep>,
    links: Arc<Semaphore>,
    neighbours: Arc<Shares<Subject>>,
    stop: CancellationToken,
    tasks: TaskTracker,
    /// The node's threads.
    handle: Handle,
}

/// How a side is to be made.
struct Plan<'a> {
    site: &'a SiteId,
    setting: &'static str,
    listen: Option<std::net::SocketAddr>,
    connect: Vec<&'a String>,
    handshakes_max: usize,
    links_max: usize,
}

impl<'a> Plan<'a> {
    fn of_own(options: &'a Options) -> Self {
        let own = options.listen.to_string();
        Plan {
            site: &options.runtime.site,
            setting: "runtime.mesh.listen",
            listen: (options.role != Role::Client).then_some(options.listen),
            connect: options.connect.iter().filter(|it| **it != own).collect(),
            handshakes_max: HANDSHAKES_MAX,
            links_max: TRANSPORTS_MAX,
        }
    }

    fn of_partners(options: &'a Options) -> impl Iterator<Item = Self> {
        options.partners.iter().map(|partner| Plan {
            site: &partner.site,
            setting: "runtime.mesh.partner",
            listen: partner.listen,
            connect: partner.connect.iter().collect(),
            handshakes_max: PARTNER_HANDSHAKES_MAX,
            links_max: partner.links_max,
        })
    }
}

impl Tunnel {
    /// Listens, and stands ready to dial.
    pub(in crate::mesh) async fn open(options: &Options, identity: &Arc<Identity>) -> Result<Self, OpenError> {
        let stop = CancellationToken::new();
        let mut tunnel = Self {
            wires: Wires::default(),
            partners: Vec::new(),
            listening: Vec::new(),
            dismissals: Vec::new(),
            accepting: stop.child_token(),
            stop,
            tasks: TaskTracker::new(),
            doors: Vec::new(),
        };
        tunnel.wires = tunnel.add(Plan::of_own(options), identity).await?;
        for plan in Plan::of_partners(options) {
            let wires = tunnel.add(plan, identity).await?;
            tunnel.partners.push(wires);
        }
        Ok(tunnel)
    }

    async fn add(&mut self, plan: Plan<'_>, identity: &Arc<Identity>) -> Result<Wires, OpenError> {
        let (accepting, stop) = (self.accepting.child_token(), self.stop.child_token());
        self.dismissals.push((plan.site.clone(), [accepting.clone(), stop.clone()]));
        let side = Arc::new(Side {
            site: plan.site.clone(),
            identity: Arc::clone(identity),
            inside: Door::inward(),
            strangers: Doorstep::of(plan.handshakes_max),
            links: Arc::new(Semaphore::new(plan.links_max)),
            neighbours: Shares::of(LINKS_OF_ONE_MAX),
            stop,
            tasks: self.tasks.clone(),
            handle: Handle::current(),
        });
        let mut wires = Wires::default();
        if let Some(wanted) = plan.listen {
            let (listener, address) = inward::listen(plan.setting, wanted).await?;
            self.listening.push(address.to_string());
            wires.listen.push(side.inside.locator());
            let acceptor = TlsAcceptor::from(tls::link_server(identity).map_err(failed)?);
            side.spawn(&accepting, inward::accept(Arc::clone(&side), listener, acceptor));
        }
        for endpoint in plan.connect {
            let far = Far::parse(endpoint).ok_or_else(|| failed(format!("cannot dial {endpoint} over TLS")))?;
            let door = outward::door(&side, far, accepting.clone());
            wires.connect.push(door.locator());
            self.doors.push(door);
        }
        Ok(wires)
    }

    /// Ends the links with a site, and closes its listener and its doors.
    pub(in crate::mesh) fn dismiss(&self, site: &SiteId) {
        self.dismissals.iter().filter(|(known, _)| known == site).flat_map(|(_, ends)| ends).for_each(|it| it.cancel());
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

impl Side {
    fn spawn(&self, stop: &CancellationToken, task: impl Future<Output = ()> + Send + 'static) {
        let stop = stop.clone();
        self.tasks.spawn(async move {
            stop.run_until_cancelled(task).await;
        });
    }
}

fn text(error: impl ToString) -> String {
    error.to_string()
}

fn failed(error: impl ToString) -> OpenError {
    OpenError::Session(error.to_string())
}
