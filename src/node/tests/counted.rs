//! What a node counts of what comes from the mesh: refusals wherever they are made, and actions that it denies.

use std::sync::Arc;
use std::time::Duration;

use super::{
    NoFiles, announced, is_done, key_of, member, parsed, request, runs_in_memory, settings, start_on, warm_up,
};
use crate::domain::action::Action;
use crate::domain::code::Code;
use crate::domain::policy::Stage;
use crate::engine::view::Settings;
use crate::handle::Operations;
use crate::mesh::memory::Hub;
use crate::mesh::{Mesh as _, Verb};
use crate::metrics::Reading;
use crate::store::memory::MemoryStore;

/// The value of the one series that has all of these words, 0 where there is none.
fn counted(node: &dyn Operations, words: &[&str]) -> u64 {
    let text = node.metrics().expose(&Reading::default()).expect("written");
    let line = text.lines().find(|line| words.iter().all(|word| line.contains(word)));
    line.map_or(0, |line| line.rsplit(' ').next().expect("a number").parse().expect("a whole one"))
}

#[tokio::test]
async fn what_is_refused_from_the_mesh_is_counted_whoever_refuses_it() {
    let hub = Hub::new().expect("a hub");
    let here = member(&hub, "s/b", MemoryStore::new()).await;
    let operations = here.operations();
    let has = |reason: &str| operations.refused().get(reason).copied().unwrap_or_default();
    // At the boundary.
    let before = has("malformed_key");
    hub.put_foreign("truST/nonsense", b"?");
    assert_eq!(has("malformed_key"), before + 1);
    // By signature: no envelope, from somebody who has none.
    let all = |refused: std::collections::BTreeMap<&'static str, u64>| refused.values().sum::<u64>();
    let before = all(operations.refused());
    let (stranger, _inbox) = hub.join(parsed("s/x"), 1);
    let (target, words, budget) = (parsed("s/b"), b"no envelope".to_vec(), Duration::from_secs(5));
    assert!(stranger.query(&target, Verb::Act, words, budget, &|_| true).await.is_err(), "it is refused");
    assert_eq!(all(operations.refused()), before + 1);
    let denied = ["trust_runtime_denials_total{", r#"stage="target""#, r#"side="target""#];
    assert_eq!(counted(&*operations, &denied), 1);
    // By the engine: a name that is pinned to another key.
    let named = async |key: &str| {
        let identity = key_of(&parsed(key)).into();
        announced(start_on(&hub, identity, settings(), MemoryStore::new(), Arc::new(NoFiles), runs_in_memory()).await)
            .await
    };
    let first = named("s/a").await;
    warm_up(&first, &Action::StatusRead).await;
    first.shutdown().await;
    let another = named("s/z").await;
    let refused = async {
        while operations.view().refused.is_empty() {
            is_done(&another, "again", Action::StatusRead).await;
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), refused).await.expect("refused in time");
    let (reason, count) =
        operations.view().refused.iter().next().map(|(reason, count)| (*reason, *count)).expect("one");
    assert!(count <= has(reason), "{reason}");
}

#[tokio::test]
async fn a_read_that_is_denied_is_counted_at_its_target() {
    let hub = Hub::new().expect("a hub");
    let origin = member(&hub, "s/a", MemoryStore::new()).await;
    // It knows people of another trust domain only.
    let apart = Settings { me: parsed("s/b"), trust_domain: parsed("elsewhere"), ..(*settings()).clone() };
    let identity = key_of(&apart.me).into();
    let target = start_on(&hub, identity, Arc::new(apart), MemoryStore::new(), Arc::new(NoFiles), runs_in_memory());
    let target = announced(target.await).await;
    let is_denied = async || {
        let done = origin.operations().dispatch(request("r", Action::StatusRead, &["s/b"])).await.expect("decided");
        let denial = done.outcomes.into_iter().find_map(|outcome| outcome.result.err());
        denial.is_some_and(|it| (it.code, it.stage) == (Code::PermissionDenied, Stage::Target))
    };
    let denied = async {
        while !is_denied().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), denied).await.expect("they know each other in time");
    let series = ["trust_runtime_mesh_actions_total{", r#"action="status_read""#, r#"result="permission_denied""#];
    // One whose answer came too late may have been counted, too.
    assert!(1 <= counted(&*target.operations(), &series));
}
