//! Two real nodes and one foreign program, as processes that end with the test.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use serde_json::{Value as Json, json};
use tempfile::TempDir;
use tokio::sync::mpsc;

/// How long anything may take here. Only a failing test waits so long.
const DEADLINE: Duration = Duration::from_secs(60);

/// Pause between two looks at a condition.
const LOOK_AGAIN: Duration = Duration::from_millis(25);

/// Waits for a condition, with what was seen last where it never holds.
pub(crate) async fn wait_until<T, F: AsyncFnMut() -> Result<T, String>>(what: &str, mut look: F) -> T {
    let mut last = String::new();
    let waiting = async {
        loop {
            match look().await {
                Ok(found) => return found,
                Err(seen) => last = seen,
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    let found = tokio::time::timeout(DEADLINE, waiting).await;
    found.unwrap_or_else(|_elapsed| panic!("{what}: not in {DEADLINE:?}; last seen: {last}"))
}

/// One node of the binary under test.
pub(crate) struct Node {
    pub(crate) name: &'static str,
    pub(crate) mesh: String,
    pub(crate) fingerprint: String,
    pub(crate) boot: u64,
    web: String,
    http: reqwest::Client,
    child: Child,
    project: TempDir,
}

impl Node {
    /// Starts a node that listens on free ports and dials these others.
    pub(crate) async fn start(name: &'static str, connect: &[&str]) -> Self {
        Self::start_speaking(name, connect, Duration::from_millis(250)).await
    }

    /// Starts a node that speaks and probes once in so long.
    pub(crate) async fn start_speaking(name: &'static str, connect: &[&str], period: Duration) -> Self {
        let project = tempfile::tempdir().expect("a folder");
        let mesh = "role = \"peer\"\nlisten = \"127.0.0.1:0\"";
        Self::launch(name, project, &settings(name, mesh, connect, period)).await
    }

    /// Starts a node that has one link: with this router, over TCP, or inside TLS by a certificate of this authority.
    pub(crate) async fn behind(router: &str, name: &'static str, authority: Option<&Authority>) -> Self {
        let project = tempfile::tempdir().expect("a folder");
        let mut text = settings(name, "role = \"client\"", &[router], Duration::from_millis(250));
        if let Some(authority) = authority {
            authority.issue(name, &project.path().join("tls"));
            text = text.replace("role = \"client\"", "role = \"client\"\ntls = true");
            text.push_str(&format!(
                "[runtime.tls]\nmode = \"self-managed\"\n[runtime.identity]\nsource = \"files\"\n\
                 svid_path = \"tls/node-{name}.pem\"\nkey_path = \"tls/node-{name}.key\"\n\
                 anchors = [{{ site = \"default-site\", path = {:?} }}]\n",
                authority.anchors()
            ));
        }
        Self::launch(name, project, &text).await
    }

    async fn launch(name: &'static str, project: TempDir, settings: &str) -> Self {
        fs::write(project.path().join("runtime.toml"), settings).expect("settings written");
        let log = fs::File::create(project.path().join("log")).expect("a log");
        let ready_file = project.path().join("ready.json");
        let mut child = Command::new(env!("CARGO_BIN_EXE_trust-runtime"))
            .args(["play", "--project"])
            .arg(project.path())
            .arg("--ready-file")
            .arg(&ready_file)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("the node starts");
        let ready: Json = wait_until(&format!("{name} is ready"), async || {
            if let Some(status) = child.try_wait().expect("its own child") {
                let log = fs::read_to_string(project.path().join("log")).unwrap_or_default();
                panic!("{name} ended with {status}:\n{log}");
            }
            let text = fs::read_to_string(&ready_file).map_err(|error| error.to_string())?;
            serde_json::from_str(&text).map_err(|error| error.to_string())
        })
        .await;
        let text = |pointer: &str| ready.pointer(pointer).and_then(Json::as_str).expect("in the ready file").to_owned();
        trust_runtime::tls::install_provider();
        Self {
            name,
            // A client listens to nobody.
            mesh: ready.pointer("/mesh/0").and_then(Json::as_str).unwrap_or_default().to_owned(),
            fingerprint: text("/fingerprint"),
            boot: ready.get("boot_id").and_then(Json::as_u64).expect("in the ready file"),
            web: text("/web"),
            http: reqwest::Client::builder().no_proxy().timeout(DEADLINE).build().expect("a client"),
            child,
            project,
        }
    }

    /// The node's name inside the mesh.
    pub(crate) fn runtime(&self) -> String {
        format!("default-site/{}", self.name)
    }

    /// The private key, as whoever has stolen the folder would have it.
    pub(crate) fn identity_seed(&self) -> [u8; 32] {
        let bytes = fs::read(self.project.path().join("state/identity.key")).expect("the key");
        bytes.try_into().expect("32 bytes")
    }

    pub(crate) async fn get(&self, path: &str) -> Json {
        let answer = self.http.get(format!("{}{path}", self.web)).send().await;
        let answer = answer.unwrap_or_else(|error| panic!("{} is gone: {error}\n{}", self.name, self.log()));
        answer.json().await.expect("JSON")
    }

    pub(crate) async fn post(&self, path: &str, body: &Json) -> Json {
        let answer = self.http.post(format!("{}{path}", self.web)).json(body).send().await;
        let answer = answer.unwrap_or_else(|error| panic!("{} is gone: {error}\n{}", self.name, self.log()));
        answer.json().await.expect("JSON")
    }

    /// How often this reason was counted.
    pub(crate) async fn refused(&self, reason: &str) -> u64 {
        let health = self.get("/healthz?verbose").await;
        let counters = health.get("refused").unwrap_or_else(|| panic!("no counters in {health}"));
        counters.get(reason).and_then(Json::as_u64).unwrap_or_default()
    }

    /// What the node believes, without what changes by itself.
    pub(crate) async fn belief(&self) -> Json {
        let state = self.get("/api/runtime-cloud/state").await;
        let rows = |pointer: &str| state.pointer(pointer).and_then(Json::as_array).cloned().unwrap_or_default();
        let kept =
            ["runtime_id", "lifecycle_state", "health_state", "trust_state", "boot_id", "fingerprint", "version"];
        let fact = |node: &Json, name: &str| (name.to_owned(), node.get(name).cloned().unwrap_or_default());
        let nodes: Vec<Json> =
            rows("/topology/nodes").iter().map(|node| kept.iter().map(|name| fact(node, name)).collect()).collect();
        let transitions = rows("/timeline")
            .iter()
            .filter(|row| row.get("summary").and_then(Json::as_str).is_some_and(|it| it.contains(" went from ")))
            .count();
        json!({ "nodes": nodes, "transitions": transitions, "revision": self.revision().await })
    }

    /// The configuration's revision, as the node says itself.
    async fn revision(&self) -> Json {
        let body = json!({
            "api_version": "1.0",
            "request_id": "interop-status",
            "connected_via": self.name,
            "target_runtimes": [self.name],
            "actor": "spiffe://trust/default-site/observer",
            "action_type": "status_read",
        });
        let answer = self.post("/api/runtime-cloud/actions/dispatch", &body).await;
        let revision = answer.pointer("/results/0/response/config_revision");
        revision.unwrap_or_else(|| panic!("no revision in {answer}")).clone()
    }

    /// What the node has said.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.project.path().join("log")).unwrap_or_default()
    }

    /// Sends a signal by name: STOP leaves a process alive and silent until CONT.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(status.expect("kill is there").success(), "kill -{name} {}", self.name);
    }

    /// Fails where the process has ended.
    pub(crate) fn check_alive(&mut self) {
        let ended = self.child.try_wait().expect("its own child");
        assert!(ended.is_none(), "{} ended with {ended:?}:\n{}", self.name, self.log());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of {} ---\n{}", self.name, self.log());
        }
        end(&mut self.child);
    }
}

pub(crate) fn end(child: &mut Child) {
    // It may have ended by itself.
    drop(child.kill());
    drop(child.wait());
}

/// Silence alone takes long to show, so that only a token or a word can change how a node stands.
fn settings(name: &str, mesh: &str, connect: &[&str], period: Duration) -> String {
    let period = period.as_millis();
    format!(
        r#"[bundle]
version = 1
[resource]
name = "{name}"
[runtime.web]
listen = "127.0.0.1:0"
auth = "local"
[runtime.discovery]
enabled = false
[runtime.mesh]
{mesh}
connect = {}
zenohd_version = "1.7.2"
[runtime.mesh.timing]
period_ms = {period}
probe_ms = {}
stale_ms = 20000
partition_ms = 40000
[runtime.cloud]
profile = "dev"
[runtime.log]
level = "info"
"#,
        Json::from(connect),
        period.max(1_000),
    )
}

/// An authority of the site, made by the program under test.
pub(crate) struct Authority(TempDir);

impl Authority {
    pub(crate) fn new() -> Self {
        let authority = Self(tempfile::tempdir().expect("a folder"));
        authority.identity(&["init-site", "--site", "default-site"]);
        authority
    }

    pub(crate) fn anchors(&self) -> PathBuf {
        self.0.path().join("ca/anchors-default-site.pem")
    }

    /// A certificate and key for a runtime that is met on this machine.
    pub(crate) fn issue(&self, name: &str, out: &Path) {
        let out = out.to_str().expect("text");
        self.identity(&["issue", "--node", name, "--ip", "127.0.0.1", "--out", out]);
    }

    fn identity(&self, arguments: &[&str]) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trust-runtime"));
        let done = command.arg("identity").args(arguments).arg("--ca").arg(self.0.path().join("ca")).output();
        let done = done.expect("the program runs");
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

/// The foreign program.
pub(crate) struct Client {
    child: Child,
    orders: ChildStdin,
    answers: mpsc::Receiver<String>,
}

impl Client {
    /// Starts `client.py` in the environment of this version, which is made where it is missing.
    pub(crate) fn start(version: &str) -> Self {
        let python = environment(version).join("bin/python");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/client.py");
        let mut child = Command::new(&python)
            .arg("-u")
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}; run scripts/setup_interop.sh", python.display()));
        let orders = child.stdin.take().expect("piped");
        let stdout = child.stdout.take().expect("piped");
        let (tx, answers) = mpsc::channel(1);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if tx.blocking_send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, orders, answers }
    }

    /// Gives one order and waits for what came of it.
    pub(crate) async fn order(&mut self, order: Json) -> Json {
        writeln!(self.orders, "{order}").expect("the client reads");
        let answer = tokio::time::timeout(DEADLINE, self.answers.recv()).await;
        let short: String = order.to_string().chars().take(200).collect();
        let answer = answer.unwrap_or_else(|_elapsed| panic!("no answer to {short}"));
        let answer: Json = serde_json::from_str(&answer.expect("the client runs")).expect("JSON");
        assert!(answer.get("failed").is_none(), "{short}: {answer}");
        answer
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// The Python environment of one version. The script leaves a complete one alone.
fn environment(version: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let done = Command::new("sh").arg(root.join("scripts/setup_interop.sh")).arg(version).output();
    let done = done.expect("sh runs");
    assert!(
        done.status.success(),
        "scripts/setup_interop.sh {version} failed; it makes the Python environments of this test:\n{}",
        String::from_utf8_lossy(&done.stderr)
    );
    target().join("interop").join(version)
}

/// Where things are built.
pub(crate) fn target() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |it| root.join(it))
}
