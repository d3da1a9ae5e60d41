//! What every store must hold of its checkpoints.

use super::*;

/// The key of the test's log.
pub(in crate::store) fn note_key() -> NoteKey {
    NoteKey::new("trust-runtime/s/log", IdentityKey::from_seed([7; 32]))
}

/// A batch that begins a boot.
pub(in crate::store) fn boot(counter: u64) -> Batch {
    facts(vec![Record::Boot { counter }])
}

/// The newest checkpoint, its signature checked.
pub(super) async fn newest(store: &dyn Store) -> Option<Checkpoint> {
    let note = store.checkpoint().await.expect("reads")?;
    let verifier = note_key().verifier();
    Some(Checkpoint::parse(verifier.open(&note).expect("signed")).expect("a checkpoint"))
}

/// Waits until the newest checkpoint is of this size and boot.
async fn until_checkpoint(store: &dyn Store, size: u64, boot: u64) {
    let wait = async {
        while newest(store).await.is_none_or(|it| (it.size, it.boot) != (size, boot)) {
            tokio::task::yield_now().await;
        }
    };
    within(wait).await;
}

pub(super) async fn nothing_is_signed_without_a_key<B: Bench>() {
    let bench = B::new();
    let store = bench.open();
    store.commit(boot(1)).await.expect("commits");
    store.commit(Batch { records: Vec::new(), audits: (1..=200).map(draft).collect() }).await.expect("commits");
    assert_eq!(store.checkpoint().await, Ok(None));
    // With the key, what was there before is covered too.
    store.sign_checkpoints(note_key());
    store.commit(write(201)).await.expect("commits");
    until_checkpoint(&*store, 201, 1).await;
    store.close().await;
}

pub(super) async fn each_boot_and_every_so_many_records_leave_a_checkpoint<B: Bench>() {
    let bench = B::new();
    let store = bench.open();
    store.sign_checkpoints(note_key());
    store.commit(boot(1)).await.expect("commits");
    until_checkpoint(&*store, 0, 1).await;
    for number in 1..=RECORDS_MAX {
        store.commit(write(number)).await.expect("commits");
    }
    until_checkpoint(&*store, RECORDS_MAX, 1).await;
    store.commit(boot(2)).await.expect("commits");
    until_checkpoint(&*store, RECORDS_MAX, 2).await;
    store.close().await;
}

pub(super) async fn a_closed_store_has_left_a_checkpoint_of_everything<B: Bench>() {
    let bench = B::new();
    let store = bench.open();
    store.sign_checkpoints(note_key());
    store.commit(boot(1)).await.expect("commits");
    store.commit(write(1)).await.expect("commits");
    store.commit(write(2)).await.expect("commits");
    let entries = chain(&*store, Chain::Writes).await;
    store.close().await;
    let store = bench.open();
    let found = newest(&*store).await.expect("left");
    let mut tree = Tree::EMPTY;
    for entry in &entries {
        tree.push(&canonical(&entry.draft, entry.position.seq, entry.position.previous).expect("has a form"));
    }
    assert_eq!(found, Checkpoint::of(note_key().name(), &tree, 1).with(found.tails));
    // The tree goes on from there.
    store.sign_checkpoints(note_key());
    store.commit(boot(2)).await.expect("commits");
    store.commit(write(3)).await.expect("commits");
    store.close().await;
    let store = bench.open();
    assert_eq!(newest(&*store).await.map(|it| (it.size, it.boot)), Some((3, 2)));
    store.close().await;
}

pub(super) async fn what_a_log_has_grown_by_leads_from_every_size_to_its_newest_checkpoint<B: Bench>() {
    let bench = B::new();
    let store = bench.open();
    store.sign_checkpoints(note_key());
    store.commit(Batch { audits: (1..=RECORDS_MAX).map(draft).collect(), ..boot(1) }).await.expect("commits");
    until_checkpoint(&*store, RECORDS_MAX, 1).await;
    store.commit(write(RECORDS_MAX + 1)).await.expect("commits, and is not covered yet");
    let (mut tree, wanted) = (Tree::EMPTY, newest(&*store).await.map(|it| it.root));
    for entry in chain(&*store, Chain::Writes).await.into_iter().take(64) {
        let grown = store.growth(tree.size()).await.expect("reads").expect("signed");
        assert_eq!(tree.extended(RECORDS_MAX, &grown.subtrees).map(|it| it.root()), wanted, "from {}", tree.size());
        tree.push(&canonical(&entry.draft, entry.position.seq, entry.position.previous).expect("has a form"));
    }
    store.close().await;
}
