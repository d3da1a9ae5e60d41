//! Attacks on the file of a rotated chain, one test each: what was done is named by the checkpoints of the chain of writes.

use super::*;
use crate::domain::audit::{Fault, Findings, Rotated, Verdict as Answer};
use crate::store::contract::{boot, note_key, refused};
use crate::store::sqlite::{Bounds, examine_rotated, open_within, read_checkpoints};
use crate::wire::record::audit::place as place_in_chain;

const REFUSALS: u64 = 12;

/// A log with some refusals, closed.
async fn log() -> (TempDir, PathBuf) {
    let (folder, path) = place();
    run_boot(&path, 1, REFUSALS).await;
    (folder, path)
}

async fn run_boot(path: &Path, counter: u64, refusals: u64) {
    let store = opened(path);
    store.sign_checkpoints(note_key());
    store.commit(boot(counter)).await.expect("commits");
    (1..=refusals).for_each(|number| store.append_read(refused(1_000 * counter + number)).expect("queues"));
    store.close().await;
}

fn sql(path: &Path, script: &str) {
    execute(&path.join("refusals.db"), script);
}

fn examined(path: &Path, elsewhere: &[String]) -> Findings {
    proven(elsewhere, |proof| examine_rotated(path, Rotated::Refusals, proof).expect("reads").0)
}

/// `[integrity, completeness]`.
fn faults(path: &Path, elsewhere: &[String]) -> [Option<(Fault, u64)>; 2] {
    let Findings { integrity, completeness, .. } = &examined(path, elsewhere);
    [integrity, completeness].map(fault)
}

/// Makes the hashes of all kept records anew, with another actor in the third.
fn make_anew(path: &Path) {
    let links: Vec<_> = read_chain(path, Chain::Refusals).expect("opens").map(|link| link.expect("reads")).collect();
    let mut end = Anchor::START;
    for link in links {
        let mut draft = link.decode().expect("decodes").draft;
        if link.seq == 3 {
            "spiffe://trust/s/carol".clone_into(&mut draft.actor);
        }
        let (position, body) = place_in_chain(&draft, end).expect("has a form");
        end = position.into();
        let connection = Connection::open(path.join("refusals.db")).expect("opens");
        let seq = i64::try_from(link.seq).expect("small");
        let row = (String::from_utf8(body).expect("text"), position.hash.0, &draft.actor, seq);
        let sql = "UPDATE audit SET body = ?1, hash = ?2, actor = ?3 WHERE seq = ?4";
        connection.execute(sql, row).expect("runs");
    }
}

#[tokio::test]
async fn every_attack_on_the_chain_of_refusals_is_named() {
    let swap = "UPDATE audit SET seq = -5 WHERE seq = 5; UPDATE audit SET seq = 5 WHERE seq = 6;
                UPDATE audit SET seq = 6 WHERE seq = -5";
    let moved = "UPDATE anchor SET (seq, hash) = (SELECT seq, hash FROM audit WHERE seq = 12); DELETE FROM audit";
    let in_front = "UPDATE anchor SET (seq, hash) = (SELECT seq, hash FROM audit WHERE seq = 4);
                    DELETE FROM audit WHERE seq <= 4";
    for (script, integrity, completeness) in [
        ("DELETE FROM audit WHERE 10 < seq", None, Some((Fault::Truncated, 11))),
        ("DELETE FROM audit", None, Some((Fault::Truncated, 1))),
        (moved, None, Some((Fault::Removed, 1))),
        (in_front, None, Some((Fault::Removed, 1))),
        ("DELETE FROM audit WHERE seq = 5", Some((Fault::Removed, 5)), None),
        (swap, Some((Fault::Reordered, 5)), None),
        ("UPDATE audit SET body = replace(body, 's/origin', 's/orisin') WHERE seq = 7", Some((Fault::Edited, 7)), None),
    ] {
        let (_folder, path) = log().await;
        assert_eq!(faults(&path, &[]), [None, None]);
        sql(&path, script);
        assert_eq!(faults(&path, &[]), [integrity, completeness], "{script}");
    }
    let (_folder, path) = log().await;
    make_anew(&path);
    assert!(matches!(verify(&path, Chain::Refusals), Ok(Verdict::Whole { .. })), "the chain alone does not show it");
    assert_eq!(faults(&path, &[]), [Some((Fault::Edited, 1)), None]);
    let (_folder, path) = log().await;
    fs::remove_file(path.join("refusals.db")).expect("own file");
    assert_eq!(faults(&path, &[]), [None, Some((Fault::Truncated, 1))]);
}

#[tokio::test]
async fn a_cut_stays_named_when_the_node_goes_on_and_an_earlier_copy_is_found_elsewhere() {
    let (_folder, path) = log().await;
    sql(&path, "DELETE FROM audit WHERE 10 < seq");
    run_boot(&path, 2, 1).await;
    assert_eq!(faults(&path, &[]), [None, Some((Fault::Truncated, 12))]);
    run_boot(&path, 3, 5).await;
    assert_eq!(faults(&path, &[])[0].map(|it| it.0), Some(Fault::Edited), "others stand in their place");

    let (_folder, path) = log().await;
    let (_other, earlier) = place();
    fs::create_dir_all(&earlier).expect("own folder");
    for name in ["control.db", "events.db", "refusals.db"] {
        fs::copy(path.join(name), earlier.join(name)).expect("copied");
    }
    run_boot(&path, 2, 3).await;
    let kept: Vec<_> = read_checkpoints(&path).expect("reads").pop().into_iter().collect();
    assert_eq!(faults(&path, &kept), [None, None]);
    assert_eq!(faults(&earlier, &[]), [None, None], "by itself an earlier copy is whole");
    assert_eq!(faults(&earlier, &kept), [None, Some((Fault::Restored, 13))]);
}

#[tokio::test]
async fn a_checkpoint_without_the_line_still_verifies_and_leaves_the_chain_unproven() {
    let (_folder, path) = log().await;
    let bare = crate::domain::audit::Checkpoint::of(note_key().name(), &crate::domain::audit::Tree::EMPTY, 1);
    let connection = Connection::open(path.join("control.db")).expect("opens");
    connection.execute("UPDATE checkpoint SET note = ?1", [note_key().sign(&bare.text())]).expect("runs");
    connection.close().expect("closes");
    let found = examined(&path, &[]);
    assert!(matches!(found.integrity, Answer::Holds(_)), "{found:?}");
    assert!(matches!(found.completeness, Answer::Unproven(_)), "{found:?}");
    run_boot(&path, 2, 1).await;
    assert_eq!(faults(&path, &[]), [None, None], "a node goes on from it");
}

#[tokio::test]
async fn refusals_alone_get_a_checkpoint_after_some_intervals() {
    let (_folder, path) = place();
    let store = open_within(&options(&path), Bounds { interval: Duration::from_millis(1), ..Bounds::OF_A_NODE })
        .expect("opens");
    store.sign_checkpoints(note_key());
    store.commit(boot(1)).await.expect("commits");
    store.append_read(refused(1)).expect("queues");
    let stated = || {
        let notes = read_checkpoints(&path).expect("reads");
        notes.last().is_some_and(|note| note.contains("\nrefusals 1 "))
    };
    until(stated).await;
    assert_eq!(read_checkpoints(&path).expect("reads").len(), 1, "it replaces one of the same size and boot");
    store.close().await;
}

#[tokio::test]
async fn a_rotation_is_said_in_a_checkpoint_before_anything_goes() {
    let (_folder, path) = place();
    let store = open_within(&options(&path), Bounds { refusals_max_mb: 1, ..Bounds::OF_A_NODE }).expect("opens");
    store.sign_checkpoints(note_key());
    store.commit(boot(1)).await.expect("commits");
    for number in 1..=4_000 {
        let distinct = crate::domain::audit::Draft {
            actor: format!("guest{}", number / 100),
            action: format!("cmd_invoke/{number}"),
            detail: "x".repeat(400),
            ..refused(number)
        };
        until(|| store.append_read(distinct.clone()).is_ok()).await;
    }
    until(|| end_of(&path, Chain::Refusals).seq == 4_000).await;
    until(|| 1_000 < read_chain(&path, Chain::Refusals).expect("opens").anchor().seq).await;
    // Whoever looks at any moment finds nothing broken.
    let found = examined(&path, &[]);
    assert_eq!([&found.integrity, &found.completeness].map(fault), [None, None], "{found:?}");
    store.close().await;
    assert_eq!(faults(&path, &[]), [None, None]);
}
