//! Zenoh's own router program, set up by the example files, as the router of a site.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value as Json, json};
use tempfile::TempDir;

use crate::harness::{Authority, Node, end, target, wait_until};
use crate::router::{behind, check_way};
use crate::{dispatched, read, set_level};

/// A running `zenohd`.
struct Zenohd {
    child: Child,
    folder: TempDir,
    at: String,
}

impl Zenohd {
    /// Starts it with an example file, in which these texts are replaced.
    async fn start(example: &str, replaced: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/runtime_cloud");
        let mut text = fs::read_to_string(examples.join(example)).expect("the example");
        for (old, new) in replaced {
            assert!(text.contains(old), "{example} has no {old}");
            text = text.replace(old, new);
        }
        fs::write(folder.path().join("zenohd.json5"), text).expect("written");
        let log = fs::File::create(folder.path().join("log")).expect("a log");
        let child = Command::new(program())
            .arg("--config")
            .arg(folder.path().join("zenohd.json5"))
            .env("RUST_LOG", "info")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("zenohd starts");
        let mut zenohd = Self { child, folder, at: String::new() };
        zenohd.at = wait_until("zenohd listens", async || {
            let log = zenohd.log();
            let reached = log.lines().find_map(|line| line.split_once("can be reached at: ")?.1.split_once('/'));
            reached.map(|(_, at)| at.trim().to_owned()).ok_or(log)
        })
        .await;
        zenohd
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Zenohd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of zenohd ---\n{}", self.log());
        }
        end(&mut self.child);
    }
}

/// The program, which is built where it is missing.
fn program() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let done = Command::new("sh").arg(root.join("scripts/setup_zenohd.sh")).output().expect("sh runs");
    assert!(done.status.success(), "scripts/setup_zenohd.sh: {}", String::from_utf8_lossy(&done.stderr));
    target().join("zenohd/bin/zenohd")
}

async fn check_work(a: &Node, b: &Node) {
    for (origin, target) in [(a, b), (b, a)] {
        assert_eq!(dispatched(origin, read(origin, target, "through-zenohd")).await, json!("ok"));
    }
    check_way(a, b).await;
    let mut write = set_level(a, b, "written-through-zenohd");
    write["query_budget_ms"] = json!(5_000);
    assert_eq!(dispatched(a, write).await, json!("ok"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_work_as_clients_of_zenohd_over_tcp() {
    let zenohd = Zenohd::start("zenohd-dev.json5", &[("127.0.0.1:7447", "127.0.0.1:0")]).await;
    let (a, b) = behind(&zenohd.at, None).await;
    check_work(&a, &b).await;
    // They have no other way to each other: without it each is alone, and with it they would not be.
    drop(zenohd);
    wait_until("node-a misses node-b", async || {
        let belief = a.belief().await;
        if crate::is_online(&belief, b.name) { Err(belief.to_string()) } else { Ok(()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_work_as_clients_of_zenohd_inside_tls_and_nobody_elses_come_in() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().expect("a folder"));
    authority.issue("router", folder.path());
    fs::copy(authority.anchors(), folder.path().join("anchors-default-site.pem")).expect("copied");
    let pki = folder.path().to_str().expect("text");
    let replaced = [("/etc/zenohd/pki", pki), ("0.0.0.0:7447", "127.0.0.1:0")];
    let zenohd = Zenohd::start("zenohd-plant.json5", &replaced).await;
    let (a, b) = behind(&zenohd.at, Some(&authority)).await;
    check_work(&a, &b).await;

    // A node of another authority of the same name finds nobody there, and is not found.
    let stranger = Node::behind(&zenohd.at, "stranger", Some(&Authority::new())).await;
    wait_until("the stranger is refused", async || {
        let log = stranger.log();
        if log.contains("no link yet") { Ok(()) } else { Err(log) }
    })
    .await;
    for belief in [a.belief().await, b.belief().await] {
        let nodes = belief.get("nodes").and_then(Json::as_array).expect("nodes");
        assert_eq!(nodes.len(), 2, "{belief}");
    }
}
