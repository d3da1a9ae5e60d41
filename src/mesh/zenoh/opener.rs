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
use crate::mesh::zenoh::core::{Core, Sessions};
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

/// How long sessions that are replaced may take to end. A silent neighbour holds one up for some seconds.
const END_MAX: Duration = Duration::from_secs(10);

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
    /// Sessions that could not be ended for want of a thread would keep the place of the new ones, and are ended meanwhile.
    async fn open_at_last(&self, old: &Arc<Core>) -> Option<Arc<Core>> {
        let mut is_told = false;
        while !self.stop.is_cancelled() {
            match self.open().await {
                Ok(core) => return Some(core),
                Err(error) if is_told => tracing::debug!(%error, "the mesh is not open yet"),
                Err(error) => tracing::error!(%error, "the mesh is not open yet; it is tried again and again"),
            }
            is_told = true;
            self.stop.run_until_cancelled(sleep(REOPEN_PAUSE)).await;
            old.begin_to_end();
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
            mesh.reopen().await;
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
    async fn reopen(&self) {
        tracing::info!("the mesh is opened anew, because it has lost very many links");
        let (old, stop) = (self.core.load_full(), &self.opener.stop);
        // Whoever closes the mesh waits for it, also where this is not patient enough.
        let ending = self.ending.spawn({
            let old = Arc::clone(&old);
            async move { old.end().await }
        });
        match stop.run_until_cancelled(timeout(END_MAX, ending)).await {
            None => return,
            Some(Err(_elapsed)) => tracing::warn!("sessions of the mesh do not end; they are replaced"),
            Some(Ok(_ended)) => {}
        }
        old.there.end(&self.opener.intake);
        let Some(new) = self.opener.open_at_last(&old).await else { return };
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
    use futures_util::FutureExt as _;

    use super::*;

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
}
