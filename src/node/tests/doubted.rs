//! What the origin of a write says when its own disk fails before anything was sent.

use super::{codes, member, request, warm_up};
use crate::domain::action::Action;
use crate::domain::code::Code;
use crate::mesh::memory::Hub;
use crate::store::memory::{Fault, MemoryStore};

/// Nothing was sent, so that only the own part can be found.
#[tokio::test]
async fn a_write_to_others_that_was_not_sent_is_not_said_to_be_found_carried_out() {
    for (targets, is_doubted) in [(&["s/b"][..], false), (&["s/a", "s/b"], true)] {
        let (hub, store) = (Hub::new().expect("a hub"), MemoryStore::new());
        let origin = member(&hub, "s/a", store.clone()).await;
        let target = member(&hub, "s/b", MemoryStore::new()).await;
        warm_up(&origin, &Action::ping()).await;
        store.with_disk(|disk| disk.inject(Fault::Broken));
        for _ in 0..2 {
            let failed = origin.operations().dispatch(request("r", Action::ping(), targets)).await;
            let failed = failed.map(|it| codes(&it.outcomes)).expect_err("the disk failed");
            assert_eq!(failed.code, Code::StorageUnavailable);
            assert_eq!(failed.reason.contains("after a restart"), is_doubted, "{failed:?}");
        }
        target.shutdown().await;
        origin.shutdown().await;
    }
}
