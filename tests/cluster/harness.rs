//! A few nodes as real processes in temporary project folders: started, killed, suspended, restarted and looked at from outside.
//!
//! Every port is chosen by the system. Scouting is off, nodes dial each other by address. Folders and logs of a failed test are
//! kept and printed.

use std::cell::RefCell;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value as Json;
use tempfile::TempDir;
use tokio::net::TcpSocket;

use crate::http::{self, Answer, Sent};
use crate::watch::{Stopwatch, try_until, wait_until};

/// Names another build of the program to test, such as the one that is delivered.
pub(crate) const OTHER_PROGRAM: &str = "CLUSTER_PROGRAM";

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_trust-runtime");

/// How long a start may take on a busy machine. What a test demands of a start, it measures itself.
const START_MAX: Duration = Duration::from_secs(20);

/// How long a clean stop may take (DESIGN: below five seconds).
pub(crate) const STOP_MAX: Duration = Duration::from_secs(5);

/// How long nodes may take to find each other, or to see a change that is not measured by the test itself.
pub(crate) const SEEN_MAX: Duration = Duration::from_secs(15);

/// How much of each log is shown of a failed test.
const LOG_LINES_SHOWN: usize = 80;

/// The nodes of one test. Declare it before its nodes, so that it ends after them.
pub(crate) struct Cluster {
    folder: Option<TempDir>,
    logs: RefCell<Vec<PathBuf>>,
    /// Keep the ports of nodes for them, also while they are down.
    ports: RefCell<Vec<TcpSocket>>,
}

/// How a node is set up.
#[derive(Debug, Clone, Default)]
pub(crate) struct Setup {
    connect: Vec<String>,
    timing: Vec<(&'static str, u64)>,
    witness_every_s: Option<u64>,
    acts_per_s: Option<u32>,
    listen: Option<String>,
    role: Option<&'static str>,
    /// More text at the end of runtime.toml.
    more: String,
    environment: Vec<(&'static str, OsString)>,
    /// The node writes its own runtime.toml, and gets its addresses from the environment.
    is_scaffolded: bool,
}

impl Setup {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Dials this node.
    pub(crate) fn dialling(self, other: &Running) -> Self {
        let address = other.mesh().to_owned();
        self.dialling_address(address)
    }

    pub(crate) fn dialling_address(mut self, address: impl Into<String>) -> Self {
        self.connect.push(address.into());
        self
    }

    /// Its part in the mesh, if it is no peer.
    pub(crate) fn role(mut self, role: &'static str) -> Self {
        self.role = Some(role);
        self
    }

    /// A key of `runtime.mesh.timing`.
    pub(crate) fn timing(mut self, key: &'static str, millis: u64) -> Self {
        self.timing.push((key, millis));
        self
    }

    /// How often it shows the head of its log to its peers.
    pub(crate) fn witnessed_every(mut self, seconds: u64) -> Self {
        self.witness_every_s = Some(seconds);
        self
    }

    /// How often each of its callers may act: more than it is delivered with, for those who never rest.
    pub(crate) fn acts_per_s(mut self, acts: u32) -> Self {
        self.acts_per_s = Some(acts);
        self
    }

    /// Where its mesh listens: an address that was reserved before.
    pub(crate) fn listening(mut self, address: SocketAddr) -> Self {
        self.listen = Some(address.to_string());
        self
    }

    /// A variable of its environment.
    pub(crate) fn variable(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    /// More sections of runtime.toml.
    pub(crate) fn with(mut self, sections: impl Into<String>) -> Self {
        self.more = sections.into();
        self
    }

    /// The text of runtime.toml.
    fn text(&self, name: &str) -> String {
        let connect = self.connect.iter().map(|it| format!("{it:?}")).collect::<Vec<_>>().join(", ");
        let listen = self.listen.as_deref().unwrap_or("127.0.0.1:0");
        let plugins =
            |role: &str| if role == "router" { "plugin_versions = { trust-runtime = \"0.1.0\" }\n" } else { "" };
        let role = self.role.map(|it| format!("role = {it:?}\n{}", plugins(it))).unwrap_or_default();
        let timing: String = self.timing.iter().map(|(key, millis)| format!("{key} = {millis}\n")).collect();
        let store = self.witness_every_s.map(|it| format!("[runtime.store]\nwitness_every_s = {it}\n\n"));
        let store = store.unwrap_or_default();
        let acts = self.acts_per_s.map(|it| format!("acts_per_s = {it}\n")).unwrap_or_default();
        format!(
            "[bundle]\nversion = 1\n\n[resource]\nname = {name:?}\n\n\
             [runtime.web]\nlisten = \"127.0.0.1:0\"\n{acts}\n\
             [runtime.discovery]\nenabled = false\n\n\
             [runtime.mesh]\n{role}listen = {listen:?}\nconnect = [{connect}]\n\n\
             {store}[runtime.mesh.timing]\n{timing}\n{more}",
            more = self.more
        )
    }
}

impl Cluster {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("trust-cluster-").tempdir().expect("a temporary folder");
        Self { folder: Some(folder), logs: RefCell::default(), ports: RefCell::default() }
    }

    /// Leaves the folder where it is, and says where.
    pub(crate) fn keep(&mut self) {
        if let Some(folder) = self.folder.take() {
            eprintln!("--- kept: {}", folder.keep().display());
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.as_ref().expect("kept until the end").path()
    }

    /// A project folder with its settings, not yet running.
    pub(crate) fn project(&self, name: &str, setup: &Setup) -> PathBuf {
        let project = self.folder().join(name);
        fs::create_dir_all(&project).expect("a project folder");
        fs::write(project.join("runtime.toml"), setup.text(name)).expect("settings are written");
        project
    }

    /// Starts a node and waits until it serves.
    #[track_caller]
    pub(crate) fn play(&self, name: &str, mut setup: Setup) -> Running {
        // Those that dial this node must find it again after a restart.
        setup.listen.get_or_insert_with(|| self.reserve().to_string());
        let mut node = self.running(name, self.project(name, &setup), setup);
        node.launch();
        node.await_ready();
        node
    }

    /// Starts a node on a folder that does not exist yet, and waits until it serves.
    #[track_caller]
    pub(crate) fn scaffold(&self, name: &str) -> Running {
        let mut node = self.running(name, self.folder().join(name), Setup { is_scaffolded: true, ..Setup::new() });
        node.launch();
        node.await_ready();
        node
    }

    /// An address that nobody else of this machine gets until the end of the test. The system gives no port away that a socket is
    /// bound to, and lets a node listen on it none the less, because this socket does not listen and both allow to be bound again.
    pub(crate) fn reserve(&self) -> SocketAddr {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_reuseaddr(true).expect("an option of every socket");
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        let address = socket.local_addr().expect("bound");
        self.ports.borrow_mut().push(socket);
        address
    }

    fn running(&self, name: &str, project: PathBuf, setup: Setup) -> Running {
        let log = self.folder().join(format!("{name}.log"));
        self.logs.borrow_mut().push(log.clone());
        Running { name: name.to_owned(), project, log, setup, child: None, ready: Ready::default() }
    }

    /// A node and others that dial it, all online for each other.
    #[track_caller]
    pub(crate) fn site<const N: usize>(&self, names: [&str; N]) -> [Running; N] {
        self.site_of(names, &Setup::new())
    }

    /// The same, of nodes that are set up like this.
    #[track_caller]
    pub(crate) fn site_of<const N: usize>(&self, names: [&str; N], each: &Setup) -> [Running; N] {
        let mut first: Option<String> = None;
        let nodes = names.map(|name| {
            let setup = first.iter().fold(each.clone(), |setup, it| setup.dialling_address(it.clone()));
            let node = self.play(name, setup);
            first.get_or_insert_with(|| node.mesh().to_owned());
            node
        });
        for node in &nodes {
            for name in names {
                node.await_lifecycle(name, "online");
            }
        }
        nodes
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for log in self.logs.borrow().iter() {
            let text = fs::read_to_string(log).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            let shown = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
            eprintln!("--- {}\n{}", log.display(), shown.join("\n"));
        }
        self.keep();
    }
}

/// What a node's ready file says.
#[derive(Debug, Clone, Default)]
struct Ready {
    web: Option<SocketAddr>,
    mesh: String,
    fingerprint: String,
    boot: u64,
}

/// Where a node is or was, for callers that may outlive it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Address(SocketAddr);

impl Address {
    pub(crate) fn try_post(self, path: &str, body: &Json) -> Result<Answer, String> {
        http::send(self.0, path, None, Some(body))?.answer()
    }
}

/// A node that was started.
#[derive(Debug)]
pub(crate) struct Running {
    name: String,
    project: PathBuf,
    log: PathBuf,
    setup: Setup,
    child: Option<Child>,
    ready: Ready,
}

impl Running {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn project(&self) -> &Path {
        &self.project
    }

    pub(crate) fn state_folder(&self) -> PathBuf {
        self.project.join("state")
    }

    pub(crate) fn mesh(&self) -> &str {
        &self.ready.mesh
    }

    pub(crate) fn web(&self) -> SocketAddr {
        self.ready.web.expect("the node is ready")
    }

    pub(crate) fn fingerprint(&self) -> &str {
        &self.ready.fingerprint
    }

    pub(crate) fn boot(&self) -> u64 {
        self.ready.boot
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("the node runs").id()
    }

    /// What it said so far, over all its starts.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Starts the process. [`Self::await_ready`] waits until it serves.
    pub(crate) fn launch(&mut self) {
        let ready = self.ready_file();
        // Left behind by a start that was killed.
        drop(fs::remove_file(&ready));
        let log = OpenOptions::new().create(true).append(true).open(&self.log).expect("a log");
        let mut command = program();
        command.args(["play", "--project"]).arg(&self.project).arg("--ready-file").arg(&ready);
        if self.setup.is_scaffolded {
            let listen = ["TRUST_RUNTIME__WEB__LISTEN", "TRUST_RUNTIME__MESH__LISTEN"];
            command.envs(listen.map(|variable| (variable, "127.0.0.1:0")));
        }
        command.envs(self.setup.environment.iter().map(|(name, value)| (name, value)));
        let command = command.stdin(Stdio::null()).stdout(copy(&log)).stderr(copy(&log));
        self.child = Some(command.spawn().expect("the program starts"));
    }

    fn ready_file(&self) -> PathBuf {
        self.log.with_extension("ready.json")
    }

    #[track_caller]
    pub(crate) fn await_ready(&mut self) {
        let file = self.ready_file();
        let child = self.child.as_mut().expect("the node was started");
        let (ready, _) = wait_until(&format!("{} is ready", self.name), START_MAX, || {
            if let Some(status) = child.try_wait().expect("our child") {
                panic!("the node ended with {status}: {}", fs::read_to_string(&self.log).unwrap_or_default());
            }
            let text = fs::read_to_string(&file).map_err(|error| error.to_string())?;
            serde_json::from_str::<Json>(&text).map_err(|error| error.to_string())
        });
        let text = |pointer: &str| ready.pointer(pointer).and_then(Json::as_str).unwrap_or_default().to_owned();
        self.ready = Ready {
            web: Some(text("/web").trim_start_matches("http://").parse().expect("an address")),
            mesh: text("/mesh/0"),
            fingerprint: text("/fingerprint"),
            boot: ready["boot_id"].as_u64().expect("a number"),
        };
    }

    /// Ends it as a crash does: no goodbye, nothing flushed.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("the node runs");
        child.kill().expect("it is ours");
        child.wait().expect("it is ours");
    }

    /// Whether there is a process that was started and not waited for.
    pub(crate) fn is_started(&self) -> bool {
        self.child.is_some()
    }

    /// How it ended by itself, if it did.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().expect("our child")
    }

    /// Suspends it: alive, silent, its sockets open. The signal is taken some time after it was sent, and a thread may answer
    /// until then.
    #[track_caller]
    pub(crate) fn stop(&self) {
        self.signal("STOP");
        self.wait_until("every thread is suspended", SEEN_MAX, |node| match node.running_threads() {
            threads if threads.is_empty() => Ok(()),
            threads => Err(threads.join("; ")),
        });
    }

    /// The state lines of its threads that are not suspended.
    fn running_threads(&self) -> Vec<String> {
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid())).expect("it lives");
        // A thread that is gone by now runs no more.
        let statuses = threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("status")).ok());
        let states = statuses.filter_map(|it| it.lines().find(|line| line.starts_with("State:")).map(str::to_owned));
        states.filter(|state| !state.contains("T (stopped)")).collect()
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) {
        self.signal("CONT");
    }

    /// Sends a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status();
        assert!(status.expect("kill is there").success(), "kill -{name} {}", self.name);
    }

    /// Starts it again where it was, after a kill or a shutdown.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        assert!(self.child.is_none(), "{} still runs", self.name);
        self.launch();
        self.await_ready();
    }

    /// Asks it to end and demands that it does so cleanly and soon.
    #[track_caller]
    pub(crate) fn shutdown(&mut self) {
        self.signal("TERM");
        let (status, took) = self.await_end(STOP_MAX);
        assert_eq!(status.code(), Some(0), "{} after {took:?}: {}", self.name, self.log());
    }

    /// Waits until the process has ended.
    #[track_caller]
    pub(crate) fn await_end(&mut self, deadline: Duration) -> (ExitStatus, Duration) {
        let child = self.child.as_mut().expect("the node runs");
        let ended = wait_until(&format!("{} has ended", self.name), deadline, || {
            child.try_wait().expect("our child").ok_or_else(|| "it still runs".to_owned())
        });
        self.child = None;
        ended
    }

    /// Asks, as whoever stands at this machine.
    pub(crate) fn try_get(&self, path: &str) -> Result<Answer, String> {
        http::send(self.web(), path, None, None)?.answer()
    }

    /// Where it is, for callers that outlive it.
    pub(crate) fn address(&self) -> Address {
        Address(self.web())
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.try_get(path).unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    pub(crate) fn try_post(&self, path: &str, body: &Json) -> Result<Answer, String> {
        http::send(self.web(), path, None, Some(body))?.answer()
    }

    #[track_caller]
    pub(crate) fn post(&self, path: &str, body: &Json) -> Answer {
        self.try_post(path, body).unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    /// Sends a request whose answer is taken later.
    #[track_caller]
    pub(crate) fn send(&self, path: &str, body: &Json) -> Sent {
        http::send(self.web(), path, None, Some(body)).unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    #[track_caller]
    pub(crate) fn state(&self) -> Json {
        self.get("/api/runtime-cloud/state").body
    }

    /// One runtime as this node shows it, or why it is not there.
    pub(crate) fn peer(&self, name: &str) -> Result<Json, String> {
        let state = self.try_get("/api/runtime-cloud/state")?.body;
        let nodes = state.pointer("/topology/nodes").and_then(Json::as_array).ok_or("no nodes")?;
        let found = nodes.iter().find(|node| node["runtime_id"] == name);
        found.cloned().ok_or_else(|| format!("{} does not list {name}", self.name))
    }

    /// Waits until this node shows another one in this state. Gives how long that took.
    #[track_caller]
    pub(crate) fn await_lifecycle(&self, name: &str, wanted: &str) -> Duration {
        self.await_lifecycle_within(name, wanted, SEEN_MAX)
    }

    #[track_caller]
    pub(crate) fn await_lifecycle_within(&self, name: &str, wanted: &str, deadline: Duration) -> Duration {
        self.wait_until(&format!("{name} is {wanted}"), deadline, |node| {
            let peer = node.peer(name)?;
            if peer["lifecycle_state"] == wanted { Ok(()) } else { Err(peer.to_string()) }
        })
    }

    /// Waits for something about this node. Gives how long that took.
    #[track_caller]
    pub(crate) fn wait_until(
        &self,
        what: &str,
        deadline: Duration,
        look: impl Fn(&Self) -> Result<(), String>,
    ) -> Duration {
        wait_until(&format!("{}: {what}", self.name), deadline, || look(self)).1
    }

    /// Runs a command of the program on this node's project.
    #[track_caller]
    pub(crate) fn command(&self, arguments: &[&str]) -> Output {
        program().args(arguments).arg("--project").arg(&self.project).output().expect("the program starts")
    }

    /// The chain of this node is whole, as `audit verify` sees it.
    #[track_caller]
    pub(crate) fn verify_audit(&self) {
        let output = self.command(&["audit", "verify"]);
        assert!(output.status.success(), "{}: {output:?}", self.name);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself. A suspended process dies of SIGKILL too.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// The program without anything that this machine's environment says to it.
pub(crate) fn program() -> Command {
    let mut command = Command::new(std::env::var_os(OTHER_PROGRAM).unwrap_or_else(|| PROGRAM.into()));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TRUST_RUNTIME")) {
        command.env_remove(name);
    }
    command
}

fn copy(file: &File) -> File {
    file.try_clone().expect("a copy of the log's descriptor")
}

/// Runs the program to its end, which it must reach by itself.
#[track_caller]
pub(crate) fn run_to_end(command: &mut Command, deadline: Duration) -> (Output, Duration) {
    let watch = Stopwatch::start();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    // Read while it runs: a pipe holds 64 KiB, and then its writer waits.
    let (stdout, stderr) = (drain(child.stdout.take()), drain(child.stderr.take()));
    let ended = try_until(deadline, || child.try_wait().expect("our child").ok_or_else(|| "it still runs".to_owned()));
    if ended.is_err() {
        drop(child.kill());
    }
    let status = child.wait().expect("our child");
    let output = Output { status, stdout: stdout.join().expect("read"), stderr: stderr.join().expect("read") };
    assert!(ended.is_ok(), "still ran after {deadline:?}: {output:?}");
    (output, watch.elapsed())
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.expect("piped").read_to_end(&mut bytes).expect("readable");
        bytes
    })
}
