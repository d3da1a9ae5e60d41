//! Opens the sessions of a node, at first and anew.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::domain::id::SiteId;
use crate::mesh::OpenError;
use crate::mesh::intake::Intake;
use crate::mesh::key::Space;
use crate::mesh::zenoh::core::{Apart, Core, Sessions};
use crate::mesh::zenoh::lost::Lost;
use crate::mesh::zenoh::redial::Redial;
use crate::mesh::zenoh::session::{self, Wires};
use crate::mesh::zenoh::tunnel::Tunnel;
use crate::mesh::zenoh::{Options, Role, ZenohMesh, apart, gate, receive};

/// Pause between a client's attempts to reach one of its routers.
const CLIENT_REDIAL: Duration = Duration::from_secs(1);

/// Pause between attempts to open sessions anew: their port may still be taken by what is over.
const REOPEN_PAUSE: Duration = Duration::from_millis(100);

/// The least time from one time to the next: somebody who breaks his links on purpose must not cut those of all others all the
/// time. Meanwhile some 1 MB a second may stay of the links that he breaks.
const REOPEN_EVERY: Duration = Duration::from_secs(600);

/// How long new sessions wait for the end of those that they replace. A silent neighbour holds it up for some seconds. After that
/// they no longer wait, but the end goes on: a port that it holds is tried until it is free, and whoever closes the mesh waits for it as long
/// as a close may take.
const END_MAX: Duration = Duration::from_secs(10);

/// How sessions that are replaced are ended. What tests set otherwise.
#[derive(Clone, Copy)]
struct Ending {
    /// How long the new ones wait for it.
    wait_max: Duration,
    /// What gives the thread for it.
    apart: Apart,
}

impl Ending {
    const OF_A_NODE: Self = Self { wait_max: END_MAX, apart: session::apart };
}

/// What outlasts the sessions of a node.
pub(super) struct Opener {
    pub(super) options: Options,
    pub(super) space: Space,
    pub(super) intake: Arc<Intake>,
    pub(super) identity: Arc<receive::Identity>,
    pub(super) tunnel: Option<Tunnel>,
    pub(super) wires: Wires,
    /// Whether the node has said that it is there.
    pub(super) is_announced: AtomicBool,
    /// The partners that are none any more: nobody is at their doors.
    pub(super) dismissed: Mutex<BTreeSet<SiteId>>,
    pub(super) stop: CancellationToken,
}

impl Opener {
    /// Opens the sessions. A client's come by themselves, when a router answers.
    pub(super) async fn open(&self) -> Result<Arc<Core>, OpenError> {
        let core = Arc::new(Core::new(self));
        let (options, wires) = (&self.options, &self.wires);
        if options.role == Role::Client {
            core.spawn(dial(Arc::clone(&core), options.clone(), wires.clone()));
            return Ok(core);
        }
        let home = session::open(options, wires).await?;
        let mut gates = Vec::new();
        for (partner, outside) in options.partners.iter().zip(self.tunnel.iter().flat_map(|it| &it.partners)) {
            if self.is_dismissed(&partner.site) {
                continue;
            }
            gates.push(gate::open(options, &partner.site, outside, (&home, wires)).await?);
        }
        // Inside TLS nobody is dialled but by configuration, and that is Zenoh's to do again.
        if self.tunnel.is_none() {
            core.spawn(Redial::watch(&home, wires.connect.clone()).map_err(failed)?.run());
        } else if options.role == Role::Peer {
            apart::tell(&home).map_err(failed)?;
        }
        core.go_live(Sessions { home, gates }).map_err(failed)?;
        Ok(core)
    }

    /// Where this node listens, as `host:port`. From now on these are the addresses of all further sessions.
    pub(super) async fn settle(&mut self, core: &Core) -> Vec<String> {
        if let Some(tunnel) = &self.tunnel {
            return tunnel.listening.clone();
        }
        let listening = core.listening().await;
        if let Some(port) = listening.first().and_then(|it| it.rsplit_once(':')?.1.parse().ok()) {
            self.options.listen.set_port(port);
            self.wires = Wires::tcp(&self.options);
        }
        listening
    }

    /// From now on this site is no partner.
    pub(super) fn dismiss(&self, site: &SiteId) {
        self.dismissed.lock().unwrap_or_else(PoisonError::into_inner).insert(site.clone());
        if let Some(tunnel) = &self.tunnel {
            tunnel.dismiss(site);
        }
    }

    fn is_dismissed(&self, site: &SiteId) -> bool {
        self.dismissed.lock().unwrap_or_else(PoisonError::into_inner).contains(site)
    }

    /// The same until it succeeds, or the mesh is closed: what has begun to open by then is opened, to be closed as a whole.
    async fn open_at_last(&self) -> Option<Arc<Core>> {
        let mut is_told = false;
        while !self.stop.is_cancelled() {
            match self.open().await {
                Ok(core) => return Some(core),
                Err(error) if is_told => tracing::debug!(%error, "the mesh is not open yet"),
                Err(error) => tracing::error!(%error, "the mesh is not open yet; it is tried again and again"),
            }
            is_told = true;
            self.stop.run_until_cancelled(sleep(REOPEN_PAUSE)).await;
        }
        None
    }
}

/// Opens the sessions anew whenever they have lost very many links, until the mesh is closed.
pub(super) async fn reopen(mesh: Weak<ZenohMesh>, stop: CancellationToken) {
    let mut last = None;
    while let Some(lost) = mesh.upgrade().map(|it| Arc::clone(&it.core.load().lost)) {
        if stop.run_until_cancelled(when_due(&lost, last)).await.is_none() {
            return;
        }
        if let Some(mesh) = mesh.upgrade() {
            mesh.reopen(Ending::OF_A_NODE).await;
        }
        last = Some(Instant::now());
    }
}

/// Waits until sessions that lose links are to be opened anew, where they were `last` opened anew at this moment.
async fn when_due(lost: &Lost, last: Option<Instant>) {
    lost.enough().await;
    sleep_until(due(last, Instant::now())).await;
}

/// When sessions are opened anew that have lost enough by `now`: at once, but never soon after the last time.
fn due(last: Option<Instant>, now: Instant) -> Instant {
    let earliest = last.and_then(|last| last.checked_add(REOPEN_EVERY));
    earliest.map_or(now, |earliest| earliest.max(now))
}

impl ZenohMesh {
    /// Others see this node go and come back, as when all its links break at once; what is under way ends without an answer.
    async fn reopen(&self, ending: Ending) {
        tracing::info!("the mesh is opened anew, because it has lost very many links");
        let (old, stop) = (self.core.load_full(), &self.opener.stop);
        let Ending { wait_max, apart } = ending;
        // Goes on where this is not patient enough, also without a thread for now; whoever closes the mesh waits for it.
        let ending = self.ending.spawn({
            let old = Arc::clone(&old);
            async move { old.end_on(apart).await }
        });
        match stop.run_until_cancelled(timeout(wait_max, ending)).await {
            None => return,
            Some(Err(_elapsed)) => tracing::warn!("sessions of the mesh do not end; they are replaced"),
            Some(Ok(_ended)) => {}
        }
        old.there.end(&self.opener.intake);
        let Some(new) = self.opener.open_at_last().await else { return };
        self.core.store(Arc::clone(&new));
        // It may have been said since the new sessions looked.
        if self.opener.is_announced.load(Ordering::SeqCst)
            && !stop.is_cancelled()
            && let Err(error) = new.announce()
        {
            tracing::error!(%error, "the node was not announced anew");
        }
        tracing::info!("the mesh is open anew");
    }
}

/// Tries a client's routers until one answers. From then on Zenoh itself moves between them.
async fn dial(core: Arc<Core>, options: Options, wires: Wires) {
    loop {
        let opened = session::open(&options, &wires).await.map_err(|error| error.to_string());
        let sessions = opened.map(|home| Sessions { home, gates: Vec::new() });
        match sessions.and_then(|sessions| core.go_live(sessions).map_err(|error| error.to_string())) {
            Ok(()) => return,
            Err(error) => tracing::debug!(error, "no router reached"),
        }
        sleep(CLIENT_REDIAL).await;
    }
}

fn failed(error: zenoh::Error) -> OpenError {
    OpenError::Session(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use futures_util::FutureExt as _;

    use super::*;
    use crate::mesh::support::{hears, in_time, wait_until};
    use crate::mesh::zenoh::tests::{appeared, asks, gone, hold, opened, options};
    use crate::mesh::{Inbox, Mesh as _, Pending};

    /// How long new sessions wait in these tests for old ones that do not end.
    const SHORT: Duration = Duration::from_millis(300);

    /// Far longer than anything in these tests takes.
    const LONG: Duration = Duration::from_secs(600);

    /// Whoever breaks his links again and again has them all cut no more often than that.
    #[tokio::test]
    async fn sessions_are_opened_anew_at_once_and_ten_minutes_after_the_last_time_at_the_earliest() {
        let first = Instant::now();
        let later = |seconds| first.checked_add(Duration::from_secs(seconds)).expect("in reach");
        assert_eq!(due(None, first), first);
        for (now, wanted) in [(0, 600), (1, 600), (599, 600), (600, 600), (601, 601), (86_400, 86_400)] {
            assert_eq!(due(Some(first), later(now)), later(wanted), "after {now} s");
        }
        let lost = Lost::of(1);
        let earlier = |seconds| first.checked_sub(Duration::from_secs(seconds)).expect("in reach");
        for last in [1, 599].map(earlier) {
            lost.add_one();
            assert!(when_due(&lost, Some(last)).now_or_never().is_none(), "{last:?}");
        }
        for last in [None, Some(earlier(601))] {
            lost.add_one();
            timeout(Duration::from_secs(20), when_due(&lost, last)).await.expect("at once");
        }
        assert!(when_due(&lost, None).now_or_never().is_none(), "nothing more was lost");
    }

    /// A node of this role that is linked with a router, and the router. The node has no loss of links to be opened anew for.
    async fn linked(role: Role) -> [(Arc<ZenohMesh>, Inbox); 2] {
        let (router, router_inbox) = opened(Options { role: Role::Router, ..options("router") }).await;
        router.announce().await.expect("announced");
        let (node, mut inbox) = opened(Options { role, connect: router.listening(), ..options("node") }).await;
        node.announce().await.expect("announced or noted");
        hears(&mut inbox, [appeared("router")]).await;
        [(node, inbox), (router, router_inbox)]
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn new_sessions_wait_until_the_old_ones_have_ended() {
        let [(node, mut inbox), (router, _router_inbox)] = linked(Role::Client).await;
        let old = node.core.load_full();
        let held = hold(&old).await;
        let mut reopening = Box::pin(node.reopen(Ending { wait_max: LONG, ..Ending::OF_A_NODE }));
        assert!(timeout(SHORT, &mut reopening).await.is_err(), "the old ones have not ended");
        assert!(Arc::ptr_eq(&old, &node.core.load_full()));
        drop(held);
        in_time("it is open anew", reopening).await;
        assert!(!Arc::ptr_eq(&old, &node.core.load_full()) && node.ending.is_empty());
        asks(&router, "node", &mut inbox).await;
    }

    /// A client has no port that the old sessions could still hold.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn sessions_that_do_not_end_in_time_are_replaced_and_whoever_closes_the_mesh_still_waits_for_them() {
        let [(node, mut inbox), (router, _router_inbox)] = linked(Role::Client).await;
        let old = node.core.load_full();
        let held = hold(&old).await;
        let begun = Instant::now();
        in_time("it is open anew", node.reopen(Ending { wait_max: SHORT, ..Ending::OF_A_NODE })).await;
        assert!(SHORT <= begun.elapsed(), "waited {:?}", begun.elapsed());
        assert!(!Arc::ptr_eq(&old, &node.core.load_full()));
        hears(&mut inbox, [gone("router")]).await;
        hears(&mut inbox, [appeared("router")]).await;
        asks(&router, "node", &mut inbox).await;
        let mut closing = node.close();
        assert!(timeout(SHORT, &mut closing).await.is_err(), "the old ones have not ended");
        drop(held);
        in_time("it closes", closing).await;
        wait_until("the old ones have ended", async || node.ending.is_empty()).await;
    }

    /// The old sessions hold the port of the new ones.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_port_of_sessions_that_do_not_end_in_time_is_waited_for() {
        let [(node, mut inbox), (router, _router_inbox)] = linked(Role::Peer).await;
        let (old, at) = (node.core.load_full(), node.listening());
        let held = hold(&old).await;
        let reopening = Box::pin(node.reopen(Ending { wait_max: SHORT, ..Ending::OF_A_NODE }));
        let letting_go = async {
            // They are waited for no more.
            hears(&mut inbox, [gone("router")]).await;
            assert!(Arc::ptr_eq(&old, &node.core.load_full()));
            drop(held);
        };
        in_time("it is open anew", async { tokio::join!(reopening, letting_go) }).await;
        assert!(!Arc::ptr_eq(&old, &node.core.load_full()));
        assert_eq!(node.core.load_full().listening().await, at);
        hears(&mut inbox, [appeared("router")]).await;
        asks(&router, "node", &mut inbox).await;
    }

    /// How many threads were wanted in vain, and whether there are some by now.
    static REFUSED: AtomicUsize = AtomicUsize::new(0);
    static HAS_THREADS: AtomicBool = AtomicBool::new(false);

    fn scarce(work: Pending<'static, ()>) -> bool {
        if HAS_THREADS.load(Ordering::SeqCst) {
            return session::apart(work);
        }
        REFUSED.fetch_add(1, Ordering::SeqCst);
        false
    }

    /// A client is replaced meanwhile; a peer keeps its port, and so its sessions.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn sessions_that_get_no_thread_to_end_on_end_once_there_is_one() {
        for role in [Role::Client, Role::Peer] {
            REFUSED.store(0, Ordering::SeqCst);
            HAS_THREADS.store(false, Ordering::SeqCst);
            let [(node, mut inbox), (router, _router_inbox)] = linked(role).await;
            let old = node.core.load_full();
            let is_replaced = || !Arc::ptr_eq(&old, &node.core.load_full());
            let reopening = Box::pin(node.reopen(Ending { wait_max: SHORT, apart: scarce }));
            let relenting = async {
                hears(&mut inbox, [gone("router")]).await;
                if role == Role::Client {
                    wait_until("it is open anew", async || is_replaced()).await;
                }
                let refused = REFUSED.load(Ordering::SeqCst);
                wait_until("it is tried again", async || refused < REFUSED.load(Ordering::SeqCst)).await;
                assert!(old.session().is_ok() && !node.ending.is_empty(), "{role:?}: it cannot have ended");
                assert_eq!(is_replaced(), role == Role::Client);
                HAS_THREADS.store(true, Ordering::SeqCst);
            };
            in_time("it is open anew", async { tokio::join!(reopening, relenting) }).await;
            wait_until("the old ones have ended", async || node.ending.is_empty()).await;
            assert!(old.session().is_err() && is_replaced(), "{role:?}");
            hears(&mut inbox, [appeared("router")]).await;
            asks(&router, "node", &mut inbox).await;
            in_time("both close", async { tokio::join!(node.close(), router.close()) }).await;
        }
    }
}
