//! `GET /metrics`: what the node counted, and what it is at this moment.

use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use tokio::runtime::Handle;

use crate::domain::code::Code;
use crate::domain::identity::TrustState;
use crate::domain::projection::Lifecycle;
use crate::engine::view::{ClockState, View};
use crate::metrics::{MEDIA_TYPE, Reading};
use crate::web::Secure;
use crate::web::error::{Kind, Problem};
use crate::web::router::{Answered, Call, Shared, json};

/// Looks at the view and at the queues; nothing waits for it, and it waits for nothing.
pub(crate) fn read(shared: &Shared, _call: &Call) -> Answered {
    let unwritable = |error: std::fmt::Error| Problem::new(Kind::Failed(Code::Interrupted), error.to_string());
    let text = shared.node.metrics().expose(&look(shared)).map_err(unwritable)?;
    let mut response = json(text);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    Ok(response)
}

fn look(shared: &Shared) -> Reading {
    let (view, now) = (shared.node.view(), shared.node.now());
    Reading {
        is_ready: shared.node.is_ready(),
        is_writable: shared.store.fault().is_none() && !view.is_read_only,
        is_clock_certain: view.clock == ClockState::Certain,
        started: view.started,
        now,
        requests: shared.requests_in_flight(),
        streams: shared.places.taken(),
        // Without a runtime there is nothing to count, and nobody who asks either.
        tasks: Handle::try_current().map_or(0, |runtime| runtime.metrics().num_alive_tasks()),
        runs: view.runs.len(),
        links: shared.node.mesh_links(),
        peers: Lifecycle::ALL.map(|state| (state.as_str(), seen_as(&view, shared, state))).to_vec(),
        untrusted: view.peers.values().filter(|peer| peer.trust == TrustState::Untrusted).count(),
        queues: shared.node.queues(),
        refused: shared.node.refused().into_iter().collect(),
        certificates: [
            ("anchor", view.settings.authority.as_ref().and_then(|authority| authority.trust().anchors.ends())),
            ("node", view.settings.certificate.map(|certificate| certificate.until)),
            ("web", shared.options.secure.as_ref().and_then(Secure::ends)),
        ],
        skew_nanos: view.clock_skew(now.monotonic),
        config_revision: view.overlay.revision,
    }
}

fn seen_as(view: &View, shared: &Shared, state: Lifecycle) -> usize {
    let now = shared.node.now().monotonic;
    view.peers.values().filter(|peer| peer.presence.lifecycle(&view.limits, now) == state).count()
}
