//! A few nodes as processes, each on a small disk and a clock of its own, every link between two a cable in our hands.
//!
//! Links run inside TLS: such a node dials only whom it is told to, so that no link goes around its cable.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::cable::Cable;
use super::evidence::Done;
use super::schedule::{Fault, Link, Node, Schedule, links};
use crate::chance::Chance;
use crate::clock::{self, WallClock};
use crate::disk::Mount;
use crate::harness::{Cluster, Running, SEEN_MAX, STOP_MAX, Setup, program, run_to_end};
use crate::plant::COMMAND_MAX;
use crate::watch::{Stopwatch, let_pass, try_until};

/// Size of each node's disk: room for the logs and runs of a storm.
const DISK: &str = "size=256m";

/// After the last fault: a redial, a lease, a full disk that is tried again every five seconds; and a busy machine.
const SETTLED_MAX: Duration = Duration::from_secs(30);

/// Puts what it is given into a file, once for each start, and then takes its time.
const MARK: &str = r#"#!/bin/sh
line=$(cat)
printf '%s\n' "$line" >> marks
sleep "$(printf '%s' "$line" | sed 's/.*"hold": *"\([0-9.]*\)".*/\1/')"
echo '{"type":"result","value":"marked"}'
"#;

/// One node and what it stands on.
struct Station {
    node: Node,
    // Ends before the disk is taken away.
    running: Running,
    disk: Mount,
    clock: WallClock,
    web: SocketAddr,
    is_awaited: bool,
}

impl Station {
    /// What still runs is killed.
    fn end(&mut self) {
        let pid = self.running.pid();
        self.running.kill();
        clock::forget(pid);
    }
}

impl Drop for Station {
    fn drop(&mut self) {
        if self.running.is_started() {
            self.end();
        }
    }
}

/// The site's authority, which has made everybody's certificates a day ago: a clock may be set back.
struct Authority {
    folder: PathBuf,
    clock: WallClock,
}

impl Authority {
    fn new(folder: &Path) -> Self {
        let clock = WallClock::at(folder.join("authority.clock"));
        clock.set("-1d");
        let authority = Self { folder: folder.to_owned(), clock };
        authority.identity(&["init-site", "--ca", "ca", "--site", "default-site"]);
        authority
    }

    fn identity(&self, arguments: &[&str]) {
        let mut command = program();
        command.current_dir(&self.folder).envs(self.clock.environment()).arg("identity").args(arguments);
        let (output, _) = run_to_end(&mut command, COMMAND_MAX);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }
}

/// All of them. What it did and what ended otherwise than asked is kept for the judge.
pub(super) struct World {
    stations: Vec<Station>,
    cables: BTreeMap<Link, Cable>,
    begun: Stopwatch,
    pub(super) done: Vec<Done>,
    pub(super) ends: Vec<String>,
    authority: Authority,
    cluster: Cluster,
}

impl World {
    /// Starts so many nodes, and waits until all see each other.
    pub(super) fn start(count: usize, chance: &mut Chance) -> Self {
        let cluster = Cluster::new();
        let authority = Authority::new(cluster.folder());
        let mark = cluster.folder().join("mark.sh");
        fs::write(&mark, MARK).expect("a script");
        fs::set_permissions(&mark, fs::Permissions::from_mode(0o755)).expect("ours");
        let addresses: Vec<SocketAddr> = (0..count).map(|_| cluster.reserve()).collect();
        let cables: BTreeMap<Link, Cable> =
            links(count).into_iter().map(|link| (link, Cable::to(addresses[link.0.0], chance.fork()))).collect();
        let mut world = Self {
            stations: Vec::new(),
            cables,
            begun: Stopwatch::start(),
            done: Vec::new(),
            ends: Vec::new(),
            authority,
            cluster,
        };
        for (number, address) in addresses.into_iter().enumerate() {
            let station = world.station(Node(number), address, &mark);
            world.stations.push(station);
        }
        assert_eq!(world.settle(), Vec::<String>::new(), "before anything was broken");
        world
    }

    fn station(&self, node: Node, mesh: SocketAddr, mark: &Path) -> Station {
        let name = node.name();
        let web = self.cluster.reserve();
        let project = self.cluster.folder().join(name);
        let id = format!("default-site/{name}");
        self.authority.identity(&[
            "issue",
            "--ca",
            "ca",
            "--node",
            &id,
            "--ip",
            "127.0.0.1",
            "--out",
            &format!("{name}/tls"),
        ]);
        let anchors = self.cluster.folder().join("ca/anchors-default-site.pem");
        let sections = format!(
            "[runtime.identity]\nsource = \"files\"\nsvid_path = \"tls/node-{name}.pem\"\nkey_path = \"tls/node-{name}.key\"\n\
             anchors = [{{ site = \"default-site\", path = {anchors:?} }}]\n[runtime.tls]\nmode = \"self-managed\"\n\
             [runtime.store]\nruns_kept = 100000\n\
             [[runtime.command]]\nname = \"mark\"\nprogram = {mark:?}\n",
        );
        let mut setup = Setup::new()
            .listening(mesh)
            .variable("TRUST_RUNTIME__MESH__TLS", "true")
            .variable("TRUST_RUNTIME__WEB__LISTEN", web.to_string())
            .with(sections);
        for (_, cable) in self.cables.iter().filter(|(link, _)| link.1 == node) {
            setup = setup.dialling_address(cable.address());
        }
        let clock = WallClock::at(self.cluster.folder().join(format!("{name}.clock")));
        for (variable, value) in clock.environment() {
            setup = setup.variable(variable, value);
        }
        let disk = Mount::new(&project.join("state"), DISK);
        let running = self.cluster.play(name, setup);
        Station { node, running, disk, clock, web, is_awaited: false }
    }

    pub(super) fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// What all moments are counted from.
    pub(super) fn stopwatch(&self) -> Stopwatch {
        self.begun
    }

    pub(super) fn nodes(&self) -> Vec<Node> {
        self.stations.iter().map(|station| station.node).collect()
    }

    pub(super) fn running(&self, node: Node) -> &Running {
        &self.stations[node.0].running
    }

    pub(super) fn webs(&self) -> Vec<SocketAddr> {
        self.stations.iter().map(|station| station.web).collect()
    }

    pub(super) fn folder(&self) -> &Path {
        self.cluster.folder()
    }

    /// Carries a schedule out from now on.
    pub(super) fn carry_out(&mut self, schedule: &Schedule) {
        let start = self.now();
        for step in &schedule.steps {
            // waits: the moment of a fault is what the seed has drawn.
            let_pass((start + step.at).saturating_sub(self.now()));
            let begun = self.now();
            self.apply(step.fault);
            self.done.push(Done { begun, ended: self.now(), fault: step.fault });
        }
    }

    fn apply(&mut self, fault: Fault) {
        match fault {
            Fault::Kill(node) => {
                self.notice_end(node);
                self.stations[node.0].end();
            }
            Fault::Stop(node) => {
                self.await_ready(node);
                self.stations[node.0].running.signal("TERM");
            }
            Fault::Start(node) => self.start_again(node),
            Fault::Freeze(node) => self.stations[node.0].running.stop(),
            Fault::Thaw(node) => self.stations[node.0].running.resume(),
            Fault::Step(node, seconds) => self.stations[node.0].clock.set(&format!("{seconds:+}")),
            Fault::SetRight(node) => self.stations[node.0].clock.set("+0"),
            Fault::Fill(node) => {
                self.await_ready(node);
                drop(self.stations[node.0].disk.fill());
            }
            Fault::Free(node) => fs::remove_file(self.stations[node.0].disk.filler()).expect("it was filled"),
            Fault::Link(link, weather) => self.cables[&link].set(weather),
        }
    }

    /// After a kill at once; after a stop when the process has ended, which it must do by itself, cleanly and soon.
    fn start_again(&mut self, node: Node) {
        let station = &mut self.stations[node.0];
        if station.running.is_started() {
            let ended = try_until(STOP_MAX, || station.running.ended().ok_or("it still runs".to_owned()));
            match ended {
                Ok((status, _)) if status.success() => {}
                other => self.ends.push(format!("{node} was asked to end: {other:?}")),
            }
            station.end();
        }
        station.running.launch();
        station.is_awaited = true;
    }

    fn await_ready(&mut self, node: Node) {
        let station = &mut self.stations[node.0];
        if std::mem::take(&mut station.is_awaited) {
            station.running.await_ready();
        }
    }

    fn notice_end(&mut self, node: Node) {
        let station = &mut self.stations[node.0];
        if let Some(status) = station.running.ended() {
            self.ends.push(format!("{node} ended by itself with {status}"));
        }
    }

    /// Waits until all is as before the faults. Gives what is not.
    pub(super) fn settle(&mut self) -> Vec<String> {
        for node in self.nodes() {
            self.notice_end(node);
            self.await_ready(node);
        }
        let watch = Stopwatch::start();
        let mut unsettled = Vec::new();
        for observer in self.nodes() {
            let left = SETTLED_MAX.saturating_sub(watch.elapsed());
            if let Err(seen) = try_until(left, || self.is_settled(observer)) {
                unsettled.push(format!("{observer}: {seen}"));
            }
        }
        unsettled
    }

    /// Whether a node sees all others online, and itself in order.
    fn is_settled(&self, observer: Node) -> Result<(), String> {
        let running = self.running(observer);
        for subject in self.nodes() {
            let peer = running.peer(subject.name())?;
            if peer["lifecycle_state"] != "online" {
                return Err(peer.to_string());
            }
        }
        let health = running.try_get("/healthz?verbose")?;
        if health.text.contains("went backwards or jumped ahead") {
            // As its admin does who has set the clock right.
            drop(running.command(&["ctl", "time-reset"]));
        }
        if health.text_at("/status") == "ok" { Ok(()) } else { Err(health.text) }
    }

    /// Keeps logs, settings and marks for whoever looks into what was broken, once every node has ended.
    pub(super) fn keep(&mut self) {
        self.cluster.keep();
    }

    /// Asks every node to end.
    pub(super) fn stop(&mut self) {
        for station in &mut self.stations {
            station.running.signal("TERM");
        }
        for station in &mut self.stations {
            let ended = try_until(SEEN_MAX, || station.running.ended().ok_or("it still runs".to_owned()));
            if !ended.as_ref().is_ok_and(|(status, _)| status.success()) {
                self.ends.push(format!("{} was asked to end after all: {ended:?}", station.node));
            }
            station.end();
        }
    }
}
