//! Files that no store left behind are refused with their name, and never a panic.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use proptest::prelude::*;

use super::*;
use crate::store::runs::RunsAsked;

/// Longest that a damaged store may take to answer.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

fn refusal(folder: &Path) -> String {
    match open(&options(folder)).expect_err("refused") {
        Error::Unreadable { place, .. } => place,
        other @ (Error::NoSpace { .. } | Error::Broken { .. } | Error::InUse { .. } | Error::Closed) => {
            panic!("wanted unreadable, got {other:?}")
        }
    }
}

#[tokio::test]
async fn files_that_are_no_store_are_refused_by_name() {
    let (folder, path) = place();
    written(&path, 50).await;
    let file = path.join("runs.db");
    let whole = fs::read(&file).expect("reads");
    let garbage = vec![0xa5; whole.len()];
    for bytes in [&[][..], &whole[..1], &whole[..100], &whole[..4096], &garbage] {
        fs::write(&file, bytes).expect("own file");
        assert_eq!(refusal(&path), file.display().to_string(), "{} bytes", bytes.len());
    }
    for script in [
        "PRAGMA user_version = 3",
        "PRAGMA user_version = 1",
        "PRAGMA user_version = 0",
        "PRAGMA application_id = 1",
        "DROP TABLE replica",
        "DROP INDEX run_by_agent",
        "CREATE TRIGGER more AFTER INSERT ON run BEGIN DELETE FROM event; END",
    ] {
        fs::write(&file, &whole).expect("own file");
        let connection = Connection::open(&file).expect("opens");
        connection.execute_batch(script).expect("runs");
        connection.close().expect("closes");
        assert_eq!(refusal(&path), file.display().to_string(), "{script}");
    }
    fs::write(&file, &whole).expect("own file");
    opened(&path).close().await;
    let elsewhere = folder.path().join("elsewhere");
    fs::rename(&file, &elsewhere).expect("own file");
    symlink(&elsewhere, &file).expect("own folder");
    assert_eq!(refusal(&path), file.display().to_string());
}

#[tokio::test]
async fn only_the_owner_can_look_inside() {
    let (_folder, path) = place();
    let store = opened(&path);
    store.commit(whole(1).to_vec()).await.expect("commits");
    for file in ["runs.lock", "runs.db", "runs.db-wal", "runs.db-shm"] {
        let mode = fs::metadata(path.join(file)).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    store.close().await;
}

#[tokio::test]
async fn a_row_that_no_version_wrote_is_named_and_harms_no_other() {
    let (_folder, path) = place();
    written(&path, 2).await;
    let connection = Connection::open(path.join("runs.db")).expect("opens");
    let script = format!("UPDATE run SET agent = 'a b' WHERE run = '{}'", run_id(1));
    connection.execute_batch(&script).expect("runs");
    connection.close().expect("closes");
    let store = opened(&path);
    assert!(matches!(store.run(run_id(1)).await, Err(Error::Unreadable { .. })));
    assert!(store.run(run_id(2)).await.expect("reads").is_some());
    assert_eq!(store.fault(), None);
    store.commit(vec![create(3)]).await.expect("commits");
    store.close().await;
}

async fn use_everything(path: &Path) -> Result<(), Error> {
    let store = open(&options(path))?;
    let mut outcome = store.unfinished().await.map(drop);
    outcome = outcome.and(store.list(RunsAsked { limit: 1_000, ..RunsAsked::default() }).await.map(drop));
    outcome = outcome.and(store.changes(Upto::default(), 1_000).await.map(drop));
    for number in 1..5 {
        outcome = outcome.and(store.run(run_id(number)).await.map(drop));
        outcome = outcome.and(store.events(all_of(number)).await.map(drop));
    }
    let written = store.commit(whole(500).to_vec()).await;
    store.close().await;
    outcome.and(written.map(drop).map_err(|_refused| Error::Closed))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn no_damage_at_rest_is_a_panic(
        spots in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..200),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let (_folder, path) = place();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("builds");
        runtime.block_on(async {
            written(&path, 5).await;
            let file = path.join("runs.db");
            let mut bytes = fs::read(&file).expect("reads");
            for (spot, byte) in spots {
                let spot = spot.index(bytes.len());
                bytes[spot] = byte;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            fs::write(&file, bytes).expect("own file");
            // Whatever is found is an answer; a panic of a thread would be an answer that never comes.
            tokio::time::timeout(PATIENCE, use_everything(&path)).await.expect("answers").unwrap_or_default();
        });
    }
}
