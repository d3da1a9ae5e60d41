//! One link: bytes both ways, for as long as both ends are who they have to be.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy, split};
use tokio::net::UnixStream;
use tokio::time::sleep;

use crate::mesh::zenoh::tunnel::Side;
use crate::tls::{Look, Neighbour};

/// How often a link is held against certificates, bans and the clock.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How many looks a link is held after the own certificate was renewed: until what this node says under the new one has been
/// heard over it, so that its peers expect the link to be replaced (`domain::projection::freshness`).
const LOOKS_AFTER_RENEWAL: u32 = 5;

impl Side {
    /// Carries bytes both ways until either end has enough, or the link may not go on.
    pub(super) async fn carry<S: AsyncRead + AsyncWrite>(
        &self,
        stream: S,
        inside: UnixStream,
        mut neighbour: Neighbour,
    ) {
        let subject = &neighbour.verified.svid.subject;
        let Some(_share) = self.neighbours.take(subject.clone()) else {
            return tracing::warn!(neighbour = %subject, "no more links with this node: its places are taken");
        };
        let Ok(_place) = self.links.try_acquire() else {
            return tracing::warn!(neighbour = %subject, "no more links with site {}: all places are taken", self.site);
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
