//! Looks at what every node shows of the others, all the time.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value as Json;

use super::evidence::Sighting;
use super::schedule::Node;
use crate::http;
use crate::watch::{Stopwatch, let_pass};

/// Between two looks at one node.
const PAUSE: Duration = Duration::from_millis(150);

/// Looks at one node until it is over. What gives no answer shows nothing.
pub(super) fn look_out(
    observer: Node,
    web: SocketAddr,
    nodes: &[Node],
    begun: Stopwatch,
    is_over: &AtomicBool,
) -> Vec<Sighting> {
    let mut all = Vec::new();
    while !is_over.load(Ordering::SeqCst) {
        let asked = begun.elapsed();
        let sent = http::send(web, "/api/runtime-cloud/state", None, None);
        if let Ok(answer) = sent.and_then(http::Sent::answer) {
            let answered = begun.elapsed();
            let shown = answer.body.pointer("/topology/nodes").and_then(Json::as_array);
            for node in shown.into_iter().flatten() {
                let subject = nodes.iter().find(|it| node["runtime_id"] == it.name() && **it != observer);
                let lifecycle = node["lifecycle_state"].as_str().unwrap_or_default().to_owned();
                all.extend(subject.map(|subject| Sighting { asked, answered, observer, subject: *subject, lifecycle }));
            }
        }
        // waits: a node that is looked at without a pause does nothing else.
        let_pass(PAUSE);
    }
    all
}
