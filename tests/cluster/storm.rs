//! Many nodes behind one address lose their links at once, and all come back at once, whoever else is at that address.
//!
//! The gate runs a few nodes. `STORM_NODES` makes them more, and `CLUSTER_PROGRAM` names a release build: what came of forty
//! stands in `docs/reference/performance.md`.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpSocket;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::idle::busy_of;
use crate::plant::{Desk, Plant};
use crate::proxy::Proxy;
use crate::secure::Caller;
use crate::vitals::{Living, Watched};
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

/// Threads that do nothing but come and go, as so many strangers each: one whose word is lost waits a second to say it again, and
/// the others do not wait for him.
const RUSHING: usize = 2;
const RUSHING_OF_ONE: usize = 64;

/// Connections that each of them leaves open behind him: more, in all, than a listener has places.
const LEFT_OPEN: usize = 4;

/// It is a rush once so many have come, and that does not take long: an idle machine has ten times as many in a second.
const RUSHED: usize = 500;
const RUSHED_WITHIN: Duration = Duration::from_secs(15);

/// How long a call over HTTPS may take while others come there as fast as they can.
const CALL_MAX: Duration = Duration::from_secs(30);

/// What was begun for others may take so long to be over: a thread that waits for work goes after ten seconds.
const GONE_MAX: Duration = Duration::from_secs(40);

/// Calls beside a rush.
const CALLS: usize = 5;

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

    /// Waits until a node has no more of anything than it had.
    #[track_caller]
    fn is_at_rest(&self, node: &Watched<'_>, before: Living) {
        wait_until("the router has what it had before", GONE_MAX, || match node.living()? {
            now if now.is_within(before) => Ok(()),
            now => Err(format!("{now:?} after {before:?}")),
        });
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

/// Strangers who come as fast as a thread can make connections, and wait for nothing.
struct Rush {
    is_over: Arc<AtomicBool>,
    came: Arc<AtomicUsize>,
    watch: Stopwatch,
    threads: Vec<JoinHandle<()>>,
}

impl Rush {
    #[track_caller]
    fn at(address: SocketAddr, hello: &[u8]) -> Self {
        let (is_over, came) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let thread = |_| {
            let (is_over, came, hello) = (Arc::clone(&is_over), Arc::clone(&came), Arc::new(hello.to_vec()));
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                let stranger = |_| rush(address, Arc::clone(&hello), Arc::clone(&is_over), Arc::clone(&came));
                runtime.block_on(async { (0..RUSHING_OF_ONE).map(stranger).collect::<JoinSet<_>>().join_all().await });
            })
        };
        let watch = Stopwatch::start();
        let threads = (0..RUSHING).map(thread).collect();
        wait_until("it is a rush", RUSHED_WITHIN, || match came.load(Ordering::Relaxed) {
            RUSHED.. => Ok(()),
            few => Err(format!("{few} came")),
        });
        Self { is_over, came, watch, threads }
    }

    /// Ends it, and gives how many came in a second.
    fn end(self) -> usize {
        self.is_over.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|it| it.join().expect("no panic"));
        let millis = usize::try_from(self.watch.elapsed().as_millis()).expect("small");
        self.came.load(Ordering::Relaxed) * 1_000 / millis.max(1)
    }
}

/// Comes again and again: goes at once, says what is no TLS and goes, begins a hello and says a whole one and stays for a while.
async fn rush(address: SocketAddr, hello: Arc<Vec<u8>>, is_over: Arc<AtomicBool>, came: Arc<AtomicUsize>) {
    let mut open = VecDeque::new();
    let words = [&hello[..0], b"GET / HTTP/1.1\r\n\r\n", &hello[..hello.len() / 2], &hello];
    for (words, stays) in words.into_iter().zip([false, false, true, true]).cycle() {
        if is_over.load(Ordering::Relaxed) {
            return;
        }
        let socket = TcpSocket::new_v4().expect("a socket");
        // Whoever goes is forgotten at once: this machine has not enough ports for all that would be remembered.
        socket.set_zero_linger().expect("an option of every socket");
        let come = timeout(STAY, socket.connect(address)).await.map_err(io::Error::from).flatten();
        let Ok(mut stream) = come else { continue };
        came.fetch_add(1, Ordering::Relaxed);
        if stream.write_all(words).await.is_ok() && stays {
            open.push_back(stream);
        }
        if LEFT_OPEN < open.len() {
            open.pop_front();
        }
    }
}

#[test]
fn nodes_that_lose_their_links_are_back_beside_strangers_who_come_as_fast_as_they_can() {
    let count = std::env::var("STORM_NODES").map_or(NODES, |it| it.parse().expect("a number"));
    let site = Site::new(count);
    site.until(site.all(), "online", count);
    let router = Watched::plant(&site.router, &site.alice);
    let before = router.at_rest();

    let rush = Rush::at(site.router.mesh.parse().expect("an address"), &site.alice.hello());
    site.cable.sever();
    site.come_back("links that were cut, beside a rush");
    site.cable.cut();
    site.come_back("links that fell silent, beside a rush");
    // Who has a link keeps it.
    let_pass(site.period * 2);
    site.until(site.all(), "online", count);
    eprintln!("{:?} beside the rush; {} strangers in a second", router.living(), rush.end());
    site.is_at_rest(&router, before);

    let rush = Rush::at(site.router.address(), &site.alice.hello());
    let asked = |what: &str| {
        let watch = Stopwatch::start();
        wait_until(what, CALL_MAX, || site.alice.ask(site.router.address(), "/healthz", None));
        watch.elapsed()
    };
    let took: Vec<Duration> = (0..CALLS).map(|_| asked("an answer beside a rush")).collect();
    site.until(site.all().skip(1), "online", count);
    eprintln!("answers over HTTPS after {took:?}; {} strangers in a second", rush.end());
    site.is_at_rest(&router, before);
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

    site.is_at_rest(&router, before);
    let share = site.share();
    eprintln!("{:?}, {share:.3} of a core", router.living());
    assert!(share <= calm * 2.0 + 0.05, "{share} of a core after {calm}");
}
