//! A disk that is full, and a disk that fails: what stops, what goes on, and what comes back by itself.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::harness::{Cluster, Running, SEEN_MAX, Setup, program, run_to_end};
use crate::question::{DISPATCH, read, write};
use crate::watch::{Stopwatch, wait_until};

/// Size of the small disk: room for the stores' first logs.
const DISK: &str = "size=3m";

/// A full disk is tried again every five seconds.
const RECOVERED_MAX: Duration = Duration::from_secs(15);

#[test]
fn a_full_disk_refuses_writes_only_and_comes_back_by_itself() {
    let cluster = Cluster::new();
    let project = cluster.project("a", &Setup::new());
    let disk = Mount::new(&project.join("state"), DISK);
    let a = cluster.play("a", Setup::new());
    let b = cluster.play("b", Setup::new().dialling(&a));
    a.await_lifecycle("b", "online");
    b.await_lifecycle("a", "online");
    assert!(a.dispatch_one(&write("a", "before", &["a"], 30)).ok);
    await_health(&a);

    let before = write("b", "before-across", &["a"], 40);
    assert!(b.dispatch_one(&before).ok);

    let filler = disk.fill();
    let watch = Stopwatch::start();
    let refused = write_until_refused(&a);
    assert_eq!((refused.0, refused.1.as_str()), (503, "storage_unavailable"), "{}", refused.2);
    let across = b.dispatch_one(&write("b", "across-full", &["a"], 77));
    assert_eq!((across.ok, across.code.as_str()), (false, "storage_unavailable"), "{}", across.text);
    assert_goes_on(&a, &b);
    let (status, word, detail) = health(&a);
    assert_eq!((status.as_str(), word.as_str()), ("degraded", "degraded"), "{detail}");
    assert!(detail.contains("control.db"), "{detail}");
    b.wait_until("it says so itself", SEEN_MAX, |b| {
        let peer = b.peer("a")?;
        let is_said = peer["lifecycle_state"] == "online" && peer["health_state"] == "degraded";
        if is_said { Ok(()) } else { Err(peer.to_string()) }
    });
    let of_before = b.dispatch_one(&before);
    assert!(of_before.ok, "what is on record needs no room: {}", of_before.text);

    // The presence of b alone would bring it to try at every word: several times a second.
    let failures = a.log().matches("the store failed").count();
    let retries = usize::try_from(watch.elapsed().as_secs() / 5).expect("small");
    assert!(failures <= 1 + retries, "{failures} failures in {:?}", watch.elapsed());

    fs::remove_file(filler).expect("removed");
    await_health(&a);
    assert!(a.dispatch_one(&write("a", "after-full", &["a"], 31)).ok);
    // The refused request was not used up, neither here nor at the other end.
    let across = b.dispatch_one(&write("b", "across-full", &["a"], 77));
    assert!(across.ok, "{}", across.text);
    assert_eq!(a.applied("across-full"), 1);
    a.verify_audit();
}

#[test]
fn a_failing_disk_stops_writes_until_a_restart_and_nothing_else() {
    let cluster = Cluster::new();
    let project = cluster.project("a", &Setup::new());
    let disk = Failing::new(&project.join("state"));
    let mut a = cluster.play("a", Setup::new());
    let b = cluster.play("b", Setup::new().dialling(&a));
    a.await_lifecycle("b", "online");
    b.await_lifecycle("a", "online");
    assert!(a.dispatch_one(&write("a", "before", &["a"], 30)).ok);

    disk.begin_to_fail();
    let refused = write_until_refused(&a);
    assert_eq!((refused.0, refused.1.as_str()), (503, "storage_unavailable"), "{}", refused.2);
    let across = b.dispatch_one(&write("b", "across", &["a"], 31));
    assert_eq!((across.ok, across.code.as_str()), (false, "storage_unavailable"), "{}", across.text);
    assert_goes_on(&a, &b);
    let (status, word, detail) = health(&a);
    assert_eq!((status.as_str(), word.as_str()), ("faulted", "faulted"), "{detail}");
    assert!(detail.contains("control.db"), "{detail}");
    assert_eq!(a.get("/healthz").status, 503);

    disk.end_to_fail();
    let still = a.post(DISPATCH, &write("a", "still", &["a"], 32));
    assert_eq!(
        (still.status, still.text_at("/code")),
        (503, "storage_unavailable"),
        "an I/O error stays: {}",
        still.text
    );
    a.shutdown();
    a.restart();
    b.await_lifecycle("a", "online");
    await_health(&a);
    assert!(b.dispatch_one(&write("b", "across", &["a"], 31)).ok);
    a.verify_audit();
}

#[test]
fn a_read_only_disk_is_refused_at_the_start_by_name() {
    let cluster = Cluster::new();
    let project = cluster.project("a", &Setup::new());
    let _disk = Mount::new(&project.join("state"), "size=1m,ro");
    let (refused, _) = run_to_end(program().args(["play", "--project"]).arg(&project), Duration::from_secs(10));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("/a/state") && said.contains("ead-only"), "{said}");
}

/// Writes with ever new names until one is refused; gives status, code and text of that answer. The first refusal is the only
/// one that may still come after its turn.
fn write_until_refused(node: &Running) -> (u16, String, String) {
    let mut count = 0;
    let look = || {
        count += 1;
        let answer = node.post(DISPATCH, &write(node.name(), &format!("fill-{count}"), &[node.name()], 100 + count));
        let is_refused = answer.status != 200;
        if is_refused { Ok(answer) } else { Err(format!("{count} writes went through")) }
    };
    let (answer, _) = wait_until("a write is refused", SEEN_MAX, look);
    (answer.status, answer.text_at("/code").to_owned(), answer.text)
}

/// Reads, state and presence do not need the store to take writes.
#[track_caller]
fn assert_goes_on(node: &Running, other: &Running) {
    assert!(node.dispatch_one(&read(node.name(), "read-here", &[node.name()])).ok);
    assert!(other.dispatch_one(&read(other.name(), "read-there", &[node.name()])).ok);
    assert_eq!(node.get("/api/runtime-cloud/state").status, 200);
    assert_eq!(node.get("/api/runtime-cloud/audit?request_id=before").body["records"][0]["outcome"], "applied");
    assert_eq!((node.get("/livez").status, node.get("/readyz").status), (200, 200));
    assert_eq!(node.peer(other.name()).expect("listed")["lifecycle_state"], "online");
}

/// The node's health as a whole, the store's word and its detail.
fn health(node: &Running) -> (String, String, String) {
    let answer = node.get("/healthz");
    let text = |pointer: &str| answer.text_at(pointer).to_owned();
    (text("/status"), text("/subsystems/store/status"), text("/subsystems/store/detail"))
}

/// Waits until nothing is wrong with a node any more.
#[track_caller]
fn await_health(node: &Running) {
    node.wait_until("all is in order", RECOVERED_MAX, |node| {
        let (status, _, _) = health(node);
        if status == "ok" { Ok(()) } else { Err(node.get("/healthz").text) }
    });
}

/// A small disk of its own on a folder. The tests of this suite run as root, as in CI; without that they fail and say so.
pub(crate) struct Mount(PathBuf);

impl Mount {
    #[track_caller]
    pub(crate) fn new(folder: &Path, options: &str) -> Self {
        fs::create_dir_all(folder).expect("a folder");
        command("mount", &["-t", "tmpfs", "-o", options, "tmpfs", &folder.display().to_string()]);
        Self(folder.to_owned())
    }

    /// Takes every byte that is left. Gives the file that holds them.
    pub(crate) fn fill(&self) -> PathBuf {
        let path = self.filler();
        let mut file = File::create(&path).expect("a file");
        let full = std::iter::repeat_with(|| file.write_all(&[0; 4_096])).find_map(Result::err).expect("it ends");
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
        path
    }
}

impl Mount {
    /// The file that takes what is left.
    pub(crate) fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily, because after a failure a node may still be using it.
        drop(Command::new("umount").args(["--lazy", &self.0.display().to_string()]).status());
    }
}

/// A disk that answers every further write of the write-ahead log with an error that is not "full": the file is made immutable
/// under the running node.
struct Failing(PathBuf);

impl Failing {
    fn new(folder: &Path) -> Self {
        Self(folder.join("control.db-wal"))
    }

    #[track_caller]
    fn begin_to_fail(&self) {
        command("chattr", &["+i", &self.0.display().to_string()]);
    }

    #[track_caller]
    fn end_to_fail(&self) {
        command("chattr", &["-i", &self.0.display().to_string()]);
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        // An immutable file could not be removed with its folder.
        drop(Command::new("chattr").arg("-i").arg(&self.0).output());
    }
}

#[track_caller]
fn command(name: &str, arguments: &[&str]) {
    let output = Command::new(name).args(arguments).output().unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(output.status.success(), "{name} {arguments:?} (needs root): {output:?}");
}
