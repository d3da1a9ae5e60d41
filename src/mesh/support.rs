//! What mesh tests share: names, deadlines, and waiting for a condition.

use std::future::Future;
use std::time::Duration;

use crate::domain::id::RuntimeId;

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

/// For tests in which nobody but the target answers.
pub(super) fn any_answer(_bytes: &[u8]) -> bool {
    true
}
