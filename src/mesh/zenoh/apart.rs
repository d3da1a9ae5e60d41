//! Tells the operator of a peer that a router does not bring it together with other peers.
//!
//! Zenoh takes the peers that a router knows for linked with each other, and carries nothing from one to the other. Where nobody
//! is dialled but by configuration, two peers that have only a router in common never meet, and nothing else would say so.

use std::sync::atomic::{AtomicBool, Ordering};

use zenoh::Wait as _;
use zenoh::config::WhatAmI;
use zenoh::sample::SampleKind;
use zenoh::session::TransportEvent;

use crate::mesh::zenoh::session::Opened;

/// Says it once in the life of this session, at its first link with a router.
pub(super) fn tell(opened: &Opened) -> zenoh::Result<()> {
    let is_told = AtomicBool::new(false);
    let watch = move |event: TransportEvent| {
        let is_router = event.kind() == SampleKind::Put && event.transport().whatami() == WhatAmI::Router;
        if is_router && !is_told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "this peer is linked with a router, which carries nothing from peer to peer: set runtime.mesh.role = \"client\", \
                 or name each other peer in runtime.mesh.connect"
            );
        }
    };
    opened.session.info().transport_events_listener().history(true).callback(watch).background().wait()
}
