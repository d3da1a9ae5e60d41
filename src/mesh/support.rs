//! What mesh tests share: names, deadlines, and waiting for a condition.

use std::future::Future;
use std::time::Duration;

use crate::domain::id::RuntimeId;
use crate::mesh::{Fact, Inbox};

/// Longest that anything in a test may take. Far above what it takes, so that only a hang or a loss reaches it.
pub(super) const DEADLINE: Duration = Duration::from_secs(20);

/// A runtime of the test site.
pub(super) fn runtime(name: &str) -> RuntimeId {
    format!("s/{name}").parse().expect("legal name")
}

/// Waits until `holds`, which is asked again and again; panics with `what` at the deadline.
pub(super) async fn wait_until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(DEADLINE, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "waited in vain until {what}");
}

/// Awaits `future`; panics with `what` at the deadline.
pub(super) async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    let Ok(value) = tokio::time::timeout(DEADLINE, future).await else {
        panic!("waited in vain for {what}");
    };
    value
}

/// Waits for these facts, in whatever order they come, and passes over others. Facts of two runtimes have no order among
/// each other, so who waits for several of them names them at once: waiting for one throws the other away.
pub(super) async fn hears<const N: usize>(inbox: &mut Inbox, wanted: [Fact; N]) {
    let mut missing = wanted.to_vec();
    let what = format!("{missing:?}");
    let hearing = async {
        while !missing.is_empty() {
            let heard = inbox.facts.recv().await.expect("the inbox stays open");
            missing.retain(|it| *it != heard);
        }
    };
    in_time(&what, hearing).await;
}

/// For tests in which nobody but the target answers.
pub(super) fn any_answer(_bytes: &[u8]) -> bool {
    true
}
