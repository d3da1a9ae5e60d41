//! Attacks on a real database file, one test each: what was done is named, with the record.

use super::*;
use crate::domain::audit::witness::Break;
use crate::domain::audit::{Fault, Findings, Held, NoteKey, Source, Verdict as Answer};
use crate::domain::identity::IdentityKey;
use crate::engine::record::{Countersigned, NotContinued, Record};
use crate::store::contract::{boot, note_key};
use crate::store::sqlite::{Bounds, Proof, examine, open_within, read_checkpoints};
use crate::wire::record::audit::place as place_in_chain;
use crate::wire::record::{Change, encode};

/// Records of each boot; more than one checkpoint's worth.
const PER_BOOT: u64 = 70;

/// Three boots with records in each.
async fn log() -> (TempDir, PathBuf) {
    let (folder, path) = place();
    for counter in 1..=3 {
        run_boot(&path, counter, "").await;
    }
    (folder, path)
}

async fn run_boot(path: &Path, counter: u64, detail: &str) {
    let store = opened(path);
    store.sign_checkpoints(note_key());
    store.commit(boot(counter)).await.expect("commits");
    for number in 1..=PER_BOOT {
        let mut draft = draft((counter - 1) * PER_BOOT + number);
        draft.detail.push_str(detail);
        store.commit(Batch { records: Vec::new(), audits: vec![draft] }).await.expect("commits");
    }
    store.close().await;
}

fn sql(path: &Path, script: &str) {
    execute(&path.join("control.db"), script);
}

fn examined(path: &Path, elsewhere: &[String]) -> Findings {
    proven(elsewhere, |proof| examine(path, proof).expect("reads").0)
}

/// `[integrity, completeness, continuity]`.
fn faults(path: &Path, elsewhere: &[String]) -> [Option<(Fault, u64)>; 3] {
    let Findings { integrity, completeness, continuity } = &examined(path, elsewhere);
    [integrity, completeness, continuity].map(fault)
}

fn newest(path: &Path) -> Vec<String> {
    read_checkpoints(path).expect("reads").pop().into_iter().collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("own folder");
    for name in ["control.db", "events.db", "refusals.db"] {
        fs::copy(from.join(name), to.join(name)).expect("copied");
    }
}

#[tokio::test]
async fn a_log_that_nobody_touched_holds() {
    let (_folder, path) = log().await;
    let Findings { integrity, completeness, continuity } = examined(&path, &newest(&path));
    for answer in [integrity, completeness, continuity] {
        assert!(matches!(answer, Answer::Holds(_)), "{answer:?}");
    }
    // 64 records, the end, and the beginning of each boot.
    assert_eq!(read_checkpoints(&path).expect("reads").len(), 9);
    let connection = Connection::open(path.join("control.db")).expect("opens");
    let trees = "SELECT count(*) FROM checkpoint WHERE length(subtrees) > 0";
    let trees: i64 = connection.query_row(trees, [], |row| row.get(0)).expect("counts");
    assert_eq!(trees, 1, "only the newest keeps its tree");
}

#[tokio::test]
async fn an_edit_is_named() {
    let (_folder, path) = log().await;
    sql(&path, "UPDATE audit SET body = replace(body, 'cfg_apply', 'cfg_appla') WHERE seq = 30");
    assert_eq!(faults(&path, &[]), [Some((Fault::Edited, 30)), None, None]);
}

#[tokio::test]
async fn an_edit_with_the_chain_made_anew_is_named_by_its_checkpoint() {
    let (_folder, path) = log().await;
    let links: Vec<_> = read_chain(&path, Chain::Writes).expect("opens").map(|link| link.expect("reads")).collect();
    let connection = Connection::open(path.join("control.db")).expect("opens");
    let mut end = Anchor::START;
    for link in links {
        let mut draft = link.decode().expect("decodes").draft;
        if link.seq == 100 {
            draft.detail = "nothing to see here".to_owned();
        }
        let (position, bytes) = place_in_chain(&draft, end).expect("has a form");
        let body = String::from_utf8(bytes).expect("text");
        let sql = "UPDATE audit SET body = ?1, hash = ?2 WHERE seq = ?3";
        connection.execute(sql, rusqlite::params![body, position.hash.0, link.seq as i64]).expect("runs");
        end = position.into();
    }
    connection.close().expect("closes");
    assert!(matches!(verify(&path, Chain::Writes), Ok(Verdict::Whole { .. })), "the chain alone does not show it");
    // The last checkpoint before it is that of the second boot's beginning.
    assert_eq!(faults(&path, &[]), [Some((Fault::Edited, 71)), None, None]);
}

#[tokio::test]
async fn a_cut_is_named_and_not_continued() {
    let (_folder, path) = log().await;
    sql(&path, "DELETE FROM audit WHERE 150 < seq");
    assert_eq!(faults(&path, &[]), [None, Some((Fault::Truncated, 151)), None]);
    let Err(Error::Unreadable { reason, .. }) = open(options(&path)) else { panic!("a cut log was continued") };
    assert!(reason.contains("wanted 210 records") && reason.contains("got 150"), "{reason}");
}

#[tokio::test]
async fn a_cut_of_records_and_checkpoints_is_named_by_one_kept_elsewhere() {
    let (_folder, path) = log().await;
    let kept = newest(&path);
    sql(&path, "DELETE FROM audit WHERE 150 < seq; DELETE FROM checkpoint WHERE 150 < size");
    assert_eq!(faults(&path, &[]), [None, None, None], "with the log alone nothing can be said");
    assert_eq!(faults(&path, &kept), [None, Some((Fault::Restored, 151)), None]);
}

#[tokio::test]
async fn another_order_is_named() {
    let (_folder, path) = log().await;
    sql(
        &path,
        "UPDATE audit SET seq = -10 WHERE seq = 10; UPDATE audit SET seq = 10 WHERE seq = 11;
         UPDATE audit SET seq = 11 WHERE seq = -10;",
    );
    assert_eq!(faults(&path, &[]), [Some((Fault::Reordered, 10)), None, None]);
}

#[tokio::test]
async fn a_removed_record_is_named_whether_the_rest_is_moved_up_or_not() {
    let (_folder, path) = log().await;
    sql(&path, "DELETE FROM audit WHERE seq = 40");
    assert_eq!(faults(&path, &[]), [Some((Fault::Removed, 40)), None, Some((Fault::Removed, 40))]);
    sql(&path, "UPDATE audit SET seq = -seq WHERE 40 < seq; UPDATE audit SET seq = -seq - 1 WHERE seq < 0");
    assert_eq!(faults(&path, &[]), [Some((Fault::Removed, 40)), Some((Fault::Truncated, 210)), None]);
}

#[tokio::test]
async fn a_removed_beginning_is_named() {
    let (_folder, path) = log().await;
    sql(
        &path,
        "UPDATE anchor SET (seq, hash) = (SELECT seq, hash FROM audit WHERE seq = 5); DELETE FROM audit WHERE seq <= 5",
    );
    assert!(matches!(verify(&path, Chain::Writes), Ok(Verdict::Whole { .. })), "the chain alone does not show it");
    assert_eq!(faults(&path, &[]), [Some((Fault::Removed, 1)), None, Some((Fault::Removed, 1))]);
    sql(&path, "UPDATE anchor SET seq = 210; DELETE FROM audit");
    assert_eq!(faults(&path, &[])[0], Some((Fault::Removed, 1)), "and so is a removed whole");
}

#[tokio::test]
async fn an_earlier_copy_that_was_brought_back_is_named_even_if_it_was_continued() {
    let (folder, path) = place();
    run_boot(&path, 1, "").await;
    run_boot(&path, 2, "").await;
    let backup = folder.path().join("backup");
    copy(&path, &backup);
    let mut kept = newest(&path);
    run_boot(&path, 3, "").await;
    kept.extend(newest(&path));
    let checkpoint = read_checkpoints(&path).expect("reads").len();
    copy(&backup, &path);
    assert!(read_checkpoints(&path).expect("reads").len() < checkpoint, "it is the earlier copy");
    assert_eq!(faults(&path, &[]), [None, None, None], "with the log alone nothing can be said");
    assert_eq!(faults(&path, &kept), [None, Some((Fault::Restored, 141)), None]);
    run_boot(&path, 3, "otherwise").await;
    assert_eq!(faults(&path, &kept), [None, Some((Fault::Restored, 141)), None]);
}

#[tokio::test]
async fn a_changed_checkpoint_is_named_and_one_by_another_key_proves_nothing() {
    let (_folder, path) = log().await;
    let other = NoteKey::new(note_key().name().to_owned(), IdentityKey::from_seed([8; 32]));
    let key = other.verifier();
    let by = |elsewhere: &[Held]| examine(&path, &Proof { key: Some(&key), elsewhere, witnesses: &[] });
    let findings = by(&[]).expect("reads").0;
    assert!(matches!(findings.completeness, Answer::Unproven(_)), "{findings:?}");
    let kept = by(&[Held::read(Source::Elsewhere("k".into()), &newest(&path)[0], &key)]);
    assert_eq!(fault(&kept.expect("reads").0.completeness).map(|it| it.0), Some(Fault::Forged));
    sql(&path, "UPDATE checkpoint SET note = replace(note, 'boot 2', 'boot 3')");
    assert_eq!(faults(&path, &[])[0].map(|it| it.0), Some(Fault::Forged));
}

#[tokio::test]
async fn a_boot_without_a_trace_is_named() {
    let (_folder, path) = log().await;
    sql(&path, "DELETE FROM checkpoint WHERE note LIKE '%boot 2%'");
    assert_eq!(faults(&path, &[]), [None, None, Some((Fault::BootGap, 70))]);
}

#[tokio::test]
async fn a_checkpoint_that_is_not_that_of_its_tree_is_not_continued() {
    let (_folder, path) = log().await;
    sql(&path, "UPDATE checkpoint SET subtrees = zeroblob(length(subtrees))");
    assert!(matches!(open(options(&path)), Err(Error::Unreadable { .. })));
}

#[tokio::test]
async fn a_few_records_get_their_checkpoint_when_the_interval_is_over() {
    let (_folder, path) = place();
    let store = open_within(&options(&path), Bounds { interval: Duration::from_millis(10), ..Bounds::OF_A_NODE })
        .expect("opens");
    store.sign_checkpoints(note_key());
    store.commit(boot(1)).await.expect("commits");
    store.commit(write(1)).await.expect("commits");
    until(|| newest(&path).iter().any(|note| note.lines().nth(1) == Some("1"))).await;
    // And none where nothing is new.
    let count = read_checkpoints(&path).expect("reads").len();
    store.commit(Batch::default()).await.expect("commits");
    store.close().await;
    assert_eq!(read_checkpoints(&path).expect("reads").len(), count);
}

#[tokio::test]
async fn a_file_of_the_first_version_is_read_as_it_is_and_migrated_by_its_writer() {
    let (_folder, path) = place();
    written(&path, 80).await;
    sql(&path, "DROP TABLE checkpoint; PRAGMA user_version = 1");
    assert_eq!(read_checkpoints(&path), Ok(Vec::new()));
    assert!(matches!(examined(&path, &[]).completeness, Answer::Unproven(_)));
    let store = opened(&path);
    store.sign_checkpoints(note_key());
    store.commit(boot(5)).await.expect("commits");
    store.close().await;
    assert_eq!(end_of(&path, Chain::Writes).seq, 80);
    assert!(newest(&path)[0].contains("\n80\n"), "what was there before is covered");
    assert_eq!(faults(&path, &[]), [None, None, None]);
}

/// What the witness `s/w` said, as it lies with the log.
async fn say(path: &Path, counter: u64, word: &[(String, Option<NotContinued>)]) {
    let store = opened(path);
    let key = NoteKey::new("trust-runtime/s/w", IdentityKey::from_seed([9; 32])).countersigner().to_string();
    let mut records = boot(counter).records;
    for (note, refused) in word {
        let (witness, key, note, refused) = ("s/w".parse().expect("legal"), key.clone(), note.clone(), refused.clone());
        records.push(Record::Countersigned(Box::new(Countersigned { witness, key, note, refused })));
    }
    store.commit(Batch { records, audits: Vec::new() }).await.expect("commits");
    store.close().await;
}

fn countersigned(note: &str, name: &str, seed: u8) -> String {
    let text = note_key().verifier().open(note).expect("signed").to_owned();
    let witness = NoteKey::new(name, IdentityKey::from_seed([seed; 32]));
    format!("{note}{}", witness.countersign(&text, 1_700_000_000))
}

#[tokio::test]
async fn a_countersignature_is_named_and_a_false_one_is_forged() {
    let (_folder, path) = log().await;
    let note = newest(&path).remove(0);
    say(&path, 3, &[(countersigned(&note, "trust-runtime/s/w", 9), None)]).await;
    let Answer::Holds(text) = examined(&path, &[]).completeness else { panic!("whole") };
    assert!(text.ends_with("; countersigned up to record 210 by s/w"), "{text}");
    // A key that is known from elsewhere counts before the one that lies with the log.
    let known = NoteKey::new("trust-runtime/s/w", IdentityKey::from_seed([8; 32])).verifier();
    let key = note_key().verifier();
    let findings = examine(&path, &Proof { key: Some(&key), elsewhere: &[], witnesses: &[known] }).expect("reads").0;
    assert_eq!(fault(&findings.integrity), Some((Fault::Forged, 210)));
    for (name, seed) in [("trust-runtime/s/w", 8), ("trust-runtime/s/x", 9)] {
        say(&path, 3, &[(countersigned(&note, name, seed), None)]).await;
        assert_eq!(faults(&path, &[])[0], Some((Fault::Forged, 210)), "{name} {seed}");
    }
}

#[tokio::test]
async fn an_earlier_copy_is_named_by_the_head_that_a_peer_has_shown_to_it() {
    let (folder, path) = log().await;
    let held = newest(&path).remove(0);
    let copied = folder.path().join("copy");
    copy(&path, &copied);
    // Records and checkpoints cut together leave a log that is whole by itself.
    sql(&copied, "DELETE FROM audit WHERE seq > 140; DELETE FROM checkpoint WHERE size > 140;");
    sql(&copied, "DELETE FROM checkpoint WHERE id > (SELECT min(id) FROM checkpoint WHERE size = 140);");
    assert_eq!(faults(&copied, &[]), [None, None, None]);
    let refused = NotContinued { reason: Break::WentBack, held };
    let connection = Connection::open(copied.join("control.db")).expect("opens");
    let word = Countersigned {
        witness: "s/w".parse().expect("legal"),
        key: String::new(),
        note: String::new(),
        refused: Some(refused),
    };
    let Ok(Change::Put { kind, key, body }) = encode(&Record::Countersigned(Box::new(word))) else { panic!("a row") };
    let sql = "INSERT INTO fact (kind, key, body) VALUES (?1, ?2, ?3)";
    connection.execute(sql, [kind, key.as_str(), body.as_str()]).expect("written");
    connection.close().expect("closes");
    assert_eq!(faults(&copied, &[]), [None, Some((Fault::Restored, 141)), None]);
    let Answer::Broken { text, .. } = examined(&copied, &[]).completeness else { panic!("restored") };
    assert!(text.contains("the head that s/w keeps"), "{text}");
}
