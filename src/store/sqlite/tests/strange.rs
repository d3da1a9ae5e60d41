//! Files that no store left behind are refused with their name, and never a panic.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::symlink;

use proptest::prelude::*;

use super::{Chain, Connection, Error, Filter, Path, Store, open, opened, options, place, verify, write, written};

fn refusal(folder: &Path) -> String {
    match open(options(folder)).expect_err("refused") {
        Error::Unreadable { place, .. } => place,
        other @ (Error::NoSpace { .. } | Error::Broken { .. } | Error::InUse { .. } | Error::Closed) => {
            panic!("wanted unreadable, got {other:?}")
        }
    }
}

#[tokio::test]
async fn files_that_are_no_store_are_refused_by_name() {
    for name in ["control.db", "events.db"] {
        let (_folder, path) = place();
        written(&path, 50).await;
        let file = path.join(name);
        let whole = fs::read(&file).expect("reads");
        let garbage = vec![0xa5; whole.len()];
        let mut other_header = whole.clone();
        other_header[..16].copy_from_slice(b"SQLite format 9\0");
        let cut = whole.len() - 4096;
        for bytes in
            [&[][..], &whole[..1], &whole[..50], &whole[..100], &whole[..4096], &whole[..cut], &garbage, &other_header]
        {
            fs::write(&file, bytes).expect("own file");
            assert_eq!(refusal(&path), file.display().to_string(), "{name} of {} bytes", bytes.len());
        }
        fs::write(&file, &whole).expect("own file");
        opened(&path).close().await;
    }
}

#[tokio::test]
async fn another_version_or_another_programs_file_is_refused() {
    // Version 1 of control.db had no checkpoints, so that a file that has them is none.
    let others = ["user_version = 3", "user_version = 0", "application_id = 0", "application_id = 1"];
    for (pragma, name) in others
        .into_iter()
        .flat_map(|it| [(it, "control.db"), (it, "events.db")])
        .chain([("user_version = 1", "control.db"), ("user_version = 2", "events.db")])
    {
        let (_folder, path) = place();
        written(&path, 1).await;
        let file = path.join(name);
        let connection = Connection::open(&file).expect("opens");
        connection.execute_batch(&format!("PRAGMA {pragma}")).expect("runs");
        connection.close().expect("closes");
        assert_eq!(refusal(&path), file.display().to_string(), "{name} {pragma}");
        assert!(verify(&path, if name == "control.db" { Chain::Writes } else { Chain::Reads }).is_err());
    }
}

#[tokio::test]
async fn missing_tables_are_refused() {
    for (name, table) in
        [("control.db", "fact"), ("control.db", "audit"), ("control.db", "anchor"), ("events.db", "audit")]
    {
        let (_folder, path) = place();
        written(&path, 1).await;
        let file = path.join(name);
        let connection = Connection::open(&file).expect("opens");
        connection.execute_batch(&format!("DROP TABLE {table}")).expect("runs");
        connection.close().expect("closes");
        assert_eq!(refusal(&path), file.display().to_string(), "{name} without {table}");
    }
}

#[tokio::test]
async fn a_control_file_that_vanished_is_not_taken_for_a_new_store() {
    let (_folder, path) = place();
    written(&path, 1).await;
    let file = path.join("control.db");
    fs::remove_file(&file).expect("own file");
    assert_eq!(refusal(&path), file.display().to_string());
    fs::remove_file(path.join("events.db")).expect("own file");
    assert_eq!(refusal(&path), file.display().to_string());
    fs::remove_file(path.join("refusals.db")).expect("own file");
    fs::write(path.join("control.db-wal"), b"left").expect("own file");
    assert_eq!(refusal(&path), file.display().to_string());
    fs::remove_file(path.join("control.db-wal")).expect("own file");
    opened(&path).close().await;
}

#[tokio::test]
async fn a_half_made_file_is_made_again() {
    let (_folder, path) = place();
    fs::create_dir_all(&path).expect("own folder");
    for name in ["control.db.new", "control.db.new-wal", "events.db.new", "events.db.new-shm"] {
        fs::write(path.join(name), b"half").expect("own file");
    }
    let store = opened(&path);
    store.commit(write(1)).await.expect("commits");
    store.close().await;
    let names = fs::read_dir(&path).expect("own folder").map(|entry| entry.expect("reads").file_name());
    let mut names: Vec<_> = names.collect();
    names.sort();
    assert_eq!(names, ["clean", "control.db", "events.db", "lock", "refusals.db"]);
}

#[tokio::test]
async fn a_link_inside_the_folder_is_refused_and_one_on_the_way_is_not() {
    for name in ["control.db", "events.db", "lock", "control.db-wal", "events.db-shm"] {
        let (folder, path) = place();
        written(&path, 1).await;
        let elsewhere = folder.path().join("elsewhere");
        if path.join(name).exists() {
            fs::rename(path.join(name), &elsewhere).expect("own file");
        } else {
            fs::write(&elsewhere, b"precious").expect("own file");
        }
        let before = fs::read(&elsewhere).expect("reads");
        symlink(&elsewhere, path.join(name)).expect("own folder");
        assert_eq!(refusal(&path), path.join(name).display().to_string(), "{name}");
        assert_eq!(fs::read(&elsewhere).expect("reads"), before);
    }
    let (folder, path) = place();
    written(&path, 1).await;
    let way = folder.path().join("way");
    symlink(&path, &way).expect("own folder");
    opened(&way).close().await;
    assert!(verify(&way, Chain::Writes).is_ok());
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_named() {
    let (folder, _) = place();
    let file = folder.path().join("file");
    fs::write(&file, b"").expect("own file");
    let error = open(options(&file.join("state"))).expect_err("refused");
    assert!(matches!(&error, Error::Broken { place, .. } if place.ends_with("file/state")), "{error:?}");
}

/// What the disk no longer gives back is an I/O error, and stays one.
#[tokio::test]
async fn damage_met_while_running_stops_the_writes_until_a_restart() {
    let (_folder, path) = place();
    written(&path, 2_000).await;
    let file = path.join("control.db");
    let whole = fs::read(&file).expect("reads");
    let store = opened(&path);
    let mut damaged = File::options().write(true).open(&file).expect("opens");
    damaged.seek(SeekFrom::Start(4096)).expect("seeks");
    damaged.write_all(&vec![0xa5; whole.len() - 4096]).expect("writes");
    let error = store.recall().await.map(|facts| facts.len()).expect_err("damaged");
    assert!(matches!(error, Error::Broken { .. }), "{error:?}");
    assert_eq!(store.fault(), Some(error.clone()));
    damaged.rewind().expect("seeks");
    damaged.write_all(&whole).expect("writes");
    assert_eq!(store.commit(write(3_000)).await, Err(error.clone()), "stays broken although the disk is well again");
    assert_eq!(store.fault(), Some(error));
    assert_eq!(store.reads_fault(), None);
    store.close().await;
    let store = opened(&path);
    assert_eq!(store.fault(), None);
    store.commit(write(3_000)).await.expect("commits");
    store.close().await;
}

async fn use_everything(path: &Path) -> Result<(), Error> {
    let store = open(options(path))?;
    let mut outcome = store.recall().await.map(drop);
    outcome = outcome.and(store.audit(Filter { limit: 1_000, ..Filter::default() }).await.map(drop));
    outcome = outcome.and(store.commit(write(500)).await.map(drop));
    store.close().await;
    outcome.and(verify(path, Chain::Writes).map(drop))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn no_damage_at_rest_is_a_panic(
        spots in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..200),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let (_folder, path) = place();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("builds");
        runtime.block_on(async {
            written(&path, 40).await;
            let file = path.join("control.db");
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
            tokio::time::timeout(super::PATIENCE, use_everything(&path)).await.expect("answers").unwrap_or_default();
        });
    }
}
