//! Many nodes behind one address lose their links at once, and all come back at once, whoever else is at that address.
//!
//! The gate runs a few nodes. `STORM_NODES` makes them more, and `CLUSTER_PROGRAM` names a release build: what came of forty
//! stands in `docs/reference/performance.md`.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::idle::busy_of;
use crate::plant::{Desk, Plant};
use crate::proxy::Proxy;
use crate::secure::Caller;
use crate::vitals::Watched;
use crate::watch::{Stopwatch, let_pass, wait_until};

/// Nodes that the gate runs, and the shortest period of a node.
const NODES: usize = 3;
const PERIOD_MS: usize = 1_000;

/// So many processes on one machine speak less often: for each node.
const PERIOD_OF_ONE_MS: usize = 80;

/// Within how many periods all see all others again, on a busy machine.
const BACK_PERIODS: u32 = 15;

/// Strangers who are there at once: more than a listener has places for whoever has not proved who he is.
const STRANGERS: usize = 300;

/// How long one who was turned away waits before he comes again, at least: each a little longer than the one before.
const PAUSE: Duration = Duration::from_millis(150);

/// How long one who is not turned away stays.
const STAY: Duration = Duration::from_secs(10);

/// A site whose nodes reach its router through one address only.
struct Site {
    router: Plant,
    cable: Proxy,
    nodes: Vec<Plant>,
    alice: Caller,
    period: Duration,
    /// Goes last: the files of the nodes are in it.
    _desk: Desk,
}

impl Site {
    fn new(count: usize) -> Self {
        let period = (count * PERIOD_OF_ONE_MS).max(PERIOD_MS);
        let timing = format!("[runtime.mesh.timing]\nperiod_ms = {period}\nprobe_ms = {period}\n");
        let desk = Desk::new(&["north"]);
        let play = |name: &str, mesh: &str| desk.play_by("north", name, &format!("{mesh}\n{timing}"), &[]);
        let router = play("r", "role = \"router\"\nplugin_versions = { trust-runtime = \"0.1.0\" }");
        let cable = Proxy::to(router.mesh.parse().expect("an address"));
        let node = |number: usize| {
            // One peer: two that are linked with a router alone do not see each other, which is not what is tried here.
            let role = if number == 1 { "peer" } else { "client" };
            play(&format!("n{number}"), &format!("role = {role:?}\nconnect = [{:?}]", cable.address()))
        };
        let nodes: Vec<Plant> = (0..count).map(node).collect();
        let (certificate, key) = desk.person("ca-north", "alice");
        let alice = Caller::new(desk.anchors("north"), certificate, key);
        let period = Duration::from_millis(u64::try_from(period).expect("small"));
        Self { router, cable, nodes, alice, period, _desk: desk }
    }

    fn all(&self) -> impl Iterator<Item = Watched<'_>> {
        [&self.router].into_iter().chain(&self.nodes).map(|node| Watched::plant(node, &self.alice))
    }

    /// Waits until these see so many others in this state, and gives how long that took.
    #[track_caller]
    fn until<'a>(&self, nodes: impl Iterator<Item = Watched<'a>>, state: &str, count: usize) -> Duration {
        let (watch, most) = (Stopwatch::start(), self.period * BACK_PERIODS);
        for node in nodes {
            let left = most.saturating_sub(watch.elapsed());
            wait_until(&format!("{} sees {count} {state}", node.name), left, || {
                let seen = node.metric(&format!("trust_runtime_peers{{state=\"{state}\"}}"))?;
                if seen.to_string() == count.to_string() { Ok(()) } else { Err(format!("{seen}")) }
            });
        }
        watch.elapsed()
    }

    /// Waits until nobody has a link, and lets all of them come back at once.
    #[track_caller]
    fn come_back(&self, what: &str) {
        self.until(self.all(), "online", 0);
        self.cable.heal();
        let took = self.until(self.all(), "online", self.nodes.len());
        eprintln!("{what}: all see all again after {took:?}");
    }

    /// What the router takes of a core while nothing happens.
    fn share(&self) -> f64 {
        let (watch, before) = (Stopwatch::start(), busy_of(self.router.pid()));
        let_pass(self.period * 2);
        busy_of(self.router.pid()).saturating_sub(before).as_secs_f64() / watch.elapsed().as_secs_f64()
    }
}

/// Strangers who take every place that they get, and come again when they are turned away.
struct Flood {
    is_over: Arc<AtomicBool>,
    met: Arc<AtomicUsize>,
    strangers: Vec<JoinHandle<()>>,
}

impl Flood {
    fn at(address: SocketAddr, hello: &[u8]) -> Self {
        let (is_over, met) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let stranger = |number: usize| {
            let (is_over, met) = (Arc::clone(&is_over), Arc::clone(&met));
            // One says nothing, one begins, one says a whole hello; and all of them wait then.
            let words = [&hello[..0], &hello[..hello.len() / 2], hello][number % 3].to_vec();
            std::thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    met.fetch_add(1, Ordering::Relaxed);
                    stay(address, &words);
                    let_pass(PAUSE + Duration::from_millis(u64::try_from(number).expect("small")));
                }
            })
        };
        let strangers = (0..STRANGERS).map(stranger).collect();
        Self { is_over, met, strangers }
    }

    fn end(self) -> usize {
        self.is_over.store(true, Ordering::Relaxed);
        self.strangers.into_iter().for_each(|it| it.join().expect("no panic"));
        self.met.load(Ordering::Relaxed)
    }
}

/// Comes, says this, and waits until he is turned away.
fn stay(address: SocketAddr, words: &[u8]) {
    let Ok(mut stream) = TcpStream::connect_timeout(&address, STAY) else { return };
    stream.set_read_timeout(Some(STAY)).expect("a time-out");
    let mut answer = [0; 4_096];
    if stream.write_all(words).is_ok() {
        while let Ok(1..) = stream.read(&mut answer) {}
    }
}

#[test]
fn nodes_behind_one_address_that_lose_their_links_at_once_are_all_back_beside_a_flood_from_there() {
    let count = std::env::var("STORM_NODES").map_or(NODES, |it| it.parse().expect("a number"));
    let site = Site::new(count);
    let met = site.until(site.all(), "online", count);
    let router = Watched::plant(&site.router, &site.alice);
    let (before, calm) = (router.at_rest(), site.share());
    eprintln!("{count} nodes, period {:?}: met after {met:?}; {before:?}, {calm:.3} of a core", site.period);

    site.cable.sever();
    site.come_back("links that were cut");
    site.cable.cut();
    site.come_back("links that fell silent");
    let flood = Flood::at(site.router.mesh.parse().expect("an address"), &site.alice.hello());
    site.cable.sever();
    site.come_back("links that were cut, beside a flood");
    let_pass(site.period);
    site.until(site.all(), "online", count);
    let watch = Stopwatch::start();
    eprintln!("strangers came {} times, the last left after {:?}", flood.end(), watch.elapsed());

    wait_until("the router has what it had before", site.period * BACK_PERIODS, || match router.living()? {
        now if now.is_within(before) => Ok(()),
        now => Err(format!("{now:?} after {before:?}")),
    });
    let share = site.share();
    eprintln!("{:?}, {share:.3} of a core", router.living());
    assert!(share <= calm * 2.0 + 0.05, "{share} of a core after {calm}");
}
