//! The issuer with programs that hang, end and say too much.

use std::path::Path;
use std::sync::Arc;

use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

use super::*;
use crate::engine::effect::Answer;

/// As long as a program may take here.
const TIME: Duration = Duration::from_millis(400);

/// Hangs, and says who it is, if `hang` is there; otherwise gives back what it was given.
const SCRIPT: &str = r#"test -e "$0/hang" && { echo $$ >"$0/started"; exec sleep 600; }; exec cat"#;

/// An issuer whose program is a script in a folder, and a driver that puts everything on record.
fn issuer(folder: &Path, script: &str) -> Arc<Issuer> {
    let (mailbox, mut mails) = mpsc::channel(8);
    TaskTracker::new().spawn(async move {
        while let Some(mail) = mails.recv().await {
            if let Mail::Request(_, reply) = mail {
                drop(reply.send(Ok(Answer::Recorded)));
            }
        }
    });
    let arguments = ["-c".into(), script.into(), folder.as_os_str().to_owned()].to_vec();
    Arc::new(Issuer::of(Program { path: "/bin/sh".into(), arguments, time: TIME }, mailbox))
}

fn node(name: &str) -> RuntimeId {
    format!("north/{name}").parse().expect("legal")
}

fn certificate() -> CertificateDer<'static> {
    CertificateDer::from(vec![0x30, 0x03, 0x02, 0x01, 0x07])
}

async fn asks(issuer: &Arc<Issuer>, name: &str) -> Result<CertificateDer<'static>, String> {
    issuer.issue(&node(name), &certificate()).await
}

/// The process that hangs.
async fn started(folder: &Path) -> String {
    let wait = async {
        loop {
            let text = std::fs::read_to_string(folder.join("started")).unwrap_or_default();
            if text.ends_with('\n') {
                return text.trim().to_owned();
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(10), wait).await.expect("it was started")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_hangs_is_ended_and_whoever_waits_behind_it_gets_a_certificate() {
    let folder = tempfile::tempdir().expect("folder");
    std::fs::write(folder.path().join("hang"), "").expect("written");
    let issuer = issuer(folder.path(), SCRIPT);
    let began = Instant::now();
    let first = TaskTracker::new().spawn({
        let issuer = Arc::clone(&issuer);
        async move { asks(&issuer, "a").await }
    });
    let process = started(folder.path()).await;
    std::fs::remove_file(folder.path().join("hang")).expect("removed");
    // While the first one hangs: the same node is not let in twice, others wait and are served.
    assert_eq!(asks(&issuer, "a").await, Err(BUSY.to_owned()));
    let (second, third) = tokio::join!(asks(&issuer, "b"), asks(&issuer, "c"));
    assert_eq!((second, third), (Ok(certificate()), Ok(certificate())));
    assert!(TIME <= began.elapsed() && began.elapsed() < TURN_MAX, "{:?}", began.elapsed());
    let refused = first.await.expect("no panic").expect_err("ended");
    assert!(refused.contains("did not end within 400 ms"), "{refused}");
    assert!(!Path::new("/proc").join(process).exists(), "it is gone");
    assert_eq!(asks(&issuer, "a").await, Ok(certificate()), "its place is free again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_reads_nothing_or_says_too_much_is_ended_too() {
    let folder = tempfile::tempdir().expect("folder");
    let silent = issuer(folder.path(), "exec sleep 600");
    let large = CertificateDer::from(vec![7; 100_000]);
    let refused = silent.issue(&node("a"), &large).await.expect_err("more than a pipe holds");
    assert!(refused.contains("did not end"), "{refused}");
    let endless = issuer(folder.path(), "exec cat /dev/zero");
    let refused = asks(&endless, "a").await.expect_err("no end");
    assert!(!refused.is_empty(), "{refused}");
    let failing = issuer(folder.path(), "echo first >&2; echo 'not issued: banned' >&2; exit 5");
    assert_eq!(asks(&failing, "a").await, Err("not issued: banned".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bounded_number_of_nodes_waits() {
    let folder = tempfile::tempdir().expect("folder");
    let issuer = issuer(folder.path(), SCRIPT);
    let places: Vec<_> = (0..WAITING_MAX).map(|it| issuer.enter(&node(&format!("n{it}")))).collect();
    assert!(places.iter().all(Option::is_some));
    assert_eq!(asks(&issuer, "late").await, Err(BUSY.to_owned()));
    drop(places);
    assert_eq!(asks(&issuer, "late").await, Ok(certificate()));
}
