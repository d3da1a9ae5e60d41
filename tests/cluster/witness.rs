//! Peers that countersign each other's heads, as real processes: what was done to one node's disk is named by what another
//! keeps, and nobody had to export anything before.

use std::fs;
use std::path::Path;

use serde_json::{Value as Json, json};

use crate::audit::{act, audit, copy_folder, verified};
use crate::harness::{Cluster, Running, SEEN_MAX, Setup};

/// Two nodes that show each other their heads every second.
fn pair(cluster: &Cluster) -> [Running; 2] {
    let a = cluster.play("a", Setup::new().witnessed_every(1));
    let b = cluster.play("b", Setup::new().witnessed_every(1).dialling(&a));
    a.await_lifecycle("b", "online");
    b.await_lifecycle("a", "online");
    [a, b]
}

/// Waits until a peer has countersigned all records of this node.
#[track_caller]
fn await_countersigned(node: &Running, by: &str) {
    node.wait_until("everything is countersigned", SEEN_MAX, |node| {
        let (_, writes) = verified(node.project(), &[]);
        let text = writes["completeness"]["text"].as_str().unwrap_or_default().to_owned();
        let records = text.split(' ').find_map(|word| word.trim_end_matches(',').parse::<u64>().ok());
        let Some(records) = records else { return Err(text) };
        let wanted = format!("0 records are newer; countersigned up to record {records} by {by}");
        if text.ends_with(&wanted) { Ok(()) } else { Err(text) }
    });
}

fn health(node: &Running) -> Json {
    node.get("/healthz").body["subsystems"]["audit"].clone()
}

#[test]
fn a_folder_that_is_brought_back_and_a_log_that_is_cut_are_named_by_the_head_that_a_peer_keeps() {
    let cluster = Cluster::new();
    let [mut a, mut b] = pair(&cluster);
    act(&a, "first", 31);
    await_countersigned(&a, "default-site/b");
    a.shutdown();
    let backup = cluster.folder().join("backup");
    copy_folder(&a.state_folder(), &backup);
    a.restart();
    b.await_lifecycle("a", "online");
    act(&a, "second", 32);
    await_countersigned(&a, "default-site/b");
    assert_eq!(health(&b)["status"], "ok", "{}", health(&b));
    a.shutdown();
    let whole = cluster.folder().join("whole");
    copy_folder(&a.state_folder(), &whole);

    // Records, checkpoints and countersignatures cut together: whole by itself, and named by what the peer gives.
    cut(&a.state_folder().join("control.db"), 1);
    assert_eq!(verified(a.project(), &[]).0, Some(0), "by itself a log cut with its checkpoints is whole");
    let kept = cluster.folder().join("kept").display().to_string();
    let exported = audit(b.project(), "export", &["--checkpoints", &kept]);
    assert!(exported.status.success(), "{exported:?}");
    let elsewhere = ["--checkpoints", kept.as_str()];
    let (code, writes) = verified(a.project(), &elsewhere);
    assert_eq!((code, &writes["completeness"]["fault"]), (Some(1), &json!("restored")), "{writes}");
    assert_eq!(verified(b.project(), &elsewhere).0, Some(0), "the peer's own log is whole by the same folder");

    // A whole earlier folder: its node is told as soon as it runs, and both say so.
    fs::remove_dir_all(a.state_folder()).expect("own folder");
    copy_folder(&backup, &a.state_folder());
    assert_eq!(verified(a.project(), &[]).0, Some(0), "by itself an earlier copy is whole");
    assert_eq!(verified(a.project(), &elsewhere).1["completeness"]["fault"], "restored");
    a.restart();
    b.wait_until("its health names a", SEEN_MAX, |b| {
        let found = health(b);
        let is_named = found["detail"].as_str().is_some_and(|it| it.contains("continuity broken of default-site/a"));
        if is_named && found["status"] == "degraded" { Ok(()) } else { Err(found.to_string()) }
    });
    a.wait_until("it knows itself", SEEN_MAX, |a| {
        let found = health(a).to_string();
        if found.contains("continuity broken of default-site/a") { Ok(()) } else { Err(found) }
    });
    let (code, writes) = verified(a.project(), &[]);
    assert_eq!((code, &writes["completeness"]["fault"]), (Some(1), &json!("restored")), "{writes}");
    let text = writes["completeness"]["text"].as_str().unwrap_or_default();
    assert!(text.contains("the head that default-site/b keeps"), "{text}");
    for node in [&a, &b] {
        let records = audit(node.project(), "export", &[]);
        let records = String::from_utf8_lossy(&records.stdout).into_owned();
        assert_eq!(records.matches("continuity_broken").count(), 1, "{}: {records}", node.name());
    }

    // It outlives a restart of the peer, and the right log coming back; a person ends it.
    b.shutdown();
    a.shutdown();
    fs::remove_dir_all(a.state_folder()).expect("own folder");
    copy_folder(&whole, &a.state_folder());
    b.restart();
    assert_eq!(health(&b)["status"], "degraded", "{}", health(&b));
    let forgotten = b.command(&["peers", "forget", "a"]);
    assert!(forgotten.status.success(), "{forgotten:?}");
    // The peer knows nothing of it any more, and is shown what there is.
    a.restart();
    b.await_lifecycle("a", "online");
    b.wait_until("it follows a again", SEEN_MAX, |b| {
        let found = health(b);
        let is_followed = found["detail"].as_str().is_some_and(|it| it.contains("keeps the heads of 1"));
        if is_followed && found["status"] == "ok" { Ok(()) } else { Err(found.to_string()) }
    });
}

/// Takes the newest records away with everything that lies with them and says so.
fn cut(database: &Path, records: u64) {
    let connection = rusqlite::Connection::open(database).expect("opens");
    let script = format!(
        "DELETE FROM audit WHERE seq > (SELECT max(seq) FROM audit) - {records};
         DELETE FROM checkpoint WHERE size > (SELECT max(seq) FROM audit);
         DELETE FROM fact WHERE kind = 'countersigned';"
    );
    connection.execute_batch(&script).expect("runs");
    connection.close().expect("closes");
}
