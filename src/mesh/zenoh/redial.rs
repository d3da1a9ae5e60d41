//! Dials a peer again when the link to it breaks and nobody else would.
//!
//! Zenoh redials configured endpoints only. A peer met by gossip would stay lost until one of the two restarts, and one met
//! by multicast until the next scouting round, up to eight seconds later. So the side that dialled remembers where, and
//! dials again until the link is back, the peer is met elsewhere, or it has been gone for about an hour: by then it was most
//! likely started anew, and is met like a new peer. Clients and configured endpoints are left to Zenoh.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use zenoh::Wait;
use zenoh::config::{Locator, ZenohId};
use zenoh::internal::runtime::Runtime;
use zenoh::sample::SampleKind;
use zenoh::session::{Link, LinkEvent};

use crate::mesh::zenoh::session::Opened;

/// First and longest pause between attempts; the pause doubles in between.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Attempts before a peer is given up: about an hour of them.
const ATTEMPTS_MAX: u32 = 365;

/// Link changes waiting to be looked at: every link of the largest fleet at once. One that does not fit leaves its peer to
/// scouting.
const CHANGES_MAX: usize = 4_096;

/// Peers dialled again at once; more than that have not been lost but have left.
const LOST_MAX: usize = 1_024;

/// A link came up or broke.
struct Change {
    peer: ZenohId,
    dialled: Option<Locator>,
    is_up: bool,
}

/// Watches the links of one session.
pub(super) struct Redial {
    runtime: Runtime,
    changes: mpsc::Receiver<Change>,
    /// Where each linked peer was dialled by this node.
    dialled: BTreeMap<ZenohId, Locator>,
    /// Whom `dialling` is dialling.
    lost: BTreeSet<ZenohId>,
    /// Whose new link broke while the attempt that made it was still on its way here.
    lost_again: BTreeMap<ZenohId, Locator>,
    dialling: JoinSet<ZenohId>,
}

impl Redial {
    /// Starts watching. `configured` are the endpoints that Zenoh redials by itself.
    pub(super) fn watch(opened: &Opened, configured: Vec<String>) -> zenoh::Result<Self> {
        let (tx, changes) = mpsc::channel(CHANGES_MAX);
        let own = opened.runtime.get_locators();
        let watch = move |event: LinkEvent| {
            let link = event.link();
            let is_ours = dialled_here(link, &own) && !is_configured(link.dst(), &configured);
            let dialled = is_ours.then(|| link.dst().clone());
            let change = Change { peer: *link.zid(), dialled, is_up: event.kind() == SampleKind::Put };
            if tx.try_send(change).is_err() {
                tracing::debug!("a link change is left to scouting");
            }
        };
        opened.session.info().link_events_listener().history(true).callback(watch).background().wait()?;
        Ok(Self {
            runtime: opened.runtime.clone(),
            changes,
            dialled: BTreeMap::new(),
            lost: BTreeSet::new(),
            lost_again: BTreeMap::new(),
            dialling: JoinSet::new(),
        })
    }

    /// Dials lost peers until the session is gone.
    pub(super) async fn run(mut self) {
        loop {
            tokio::select! {
                change = self.changes.recv() => match change {
                    Some(change) => self.note(change),
                    None => return,
                },
                Some(Ok(peer)) = self.dialling.join_next() => {
                    self.lost.remove(&peer);
                    if let Some(locator) = self.lost_again.remove(&peer) {
                        self.lose(peer, locator);
                    }
                }
            }
        }
    }

    fn note(&mut self, change: Change) {
        let Change { peer, dialled, is_up } = change;
        if is_up {
            if let Some(locator) = dialled {
                self.dialled.insert(peer, locator);
            }
            // An attempt under way is not aborted: this very link may be its work, which Zenoh has not finished with, and
            // would be left half open. It finds the link by itself.
            return;
        }
        if let Some(locator) = self.dialled.remove(&peer) {
            self.lose(peer, locator);
        }
    }

    fn lose(&mut self, peer: ZenohId, locator: Locator) {
        if self.lost.contains(&peer) {
            self.lost_again.insert(peer, locator);
        } else if self.lost.len() < LOST_MAX {
            self.lost.insert(peer);
            self.dialling.spawn(dial(self.runtime.clone(), peer, locator));
        }
    }
}

/// Dials until there is a link to that very peer, however it came up.
async fn dial(runtime: Runtime, peer: ZenohId, locator: Locator) -> ZenohId {
    let mut pause = PAUSE_MIN;
    for _ in 0..ATTEMPTS_MAX {
        tokio::time::sleep(pause).await;
        if runtime.connect_peer(&peer.into(), std::slice::from_ref(&locator)).await {
            break;
        }
        pause = pause.saturating_mul(2).min(PAUSE_MAX);
    }
    peer
}

/// A link that was accepted ends at one of the addresses this node listens on.
fn dialled_here(link: &Link, own: &[Locator]) -> bool {
    link.group().is_none() && !own.contains(link.src())
}

/// Whether Zenoh redials this address by itself. A configured host name may stand for any address with its port.
fn is_configured(dialled: &Locator, configured: &[String]) -> bool {
    let port = |text: &str| text.rsplit_once(':').map(|(_, port)| port.to_owned());
    let address = dialled.address();
    configured.iter().filter_map(|it| it.strip_prefix("tcp/")).any(|it| {
        let is_literal = it.parse::<SocketAddr>().is_ok();
        it == address.as_str() || (!is_literal && port(it) == port(address.as_str()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_zenoh_redials_is_left_to_it() {
        let dialled: Locator = "tcp/10.0.0.2:7447".parse().expect("legal");
        for (configured, wanted) in [
            ("tcp/10.0.0.2:7447", true),
            ("tcp/host-b:7447", true),
            ("tcp/10.0.0.3:7447", false),
            ("tcp/10.0.0.2:7448", false),
            ("tcp/host-b:7448", false),
        ] {
            assert_eq!(is_configured(&dialled, &[configured.to_owned()]), wanted, "{configured}");
        }
        assert!(!is_configured(&dialled, &[]));
    }
}
