//! Many nodes on one machine: who sees whom, how soon a death and a freeze show at everybody, what each node costs.
//!
//! The gate runs a small fleet. `FLEET_PEERS` and `FLEET_CLIENTS` make it larger, and `CLUSTER_PROGRAM` names a release build:
//! `docs/reference/performance.md` has what forty peers and two hundred clients came to.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use crate::chance::Chance;
use crate::faults::cable::{Cable, Weather};
use crate::harness::{Cluster, Running, Setup};
use crate::idle::{busy, memory_kib};
use crate::question::{DISPATCH, outcomes, read, with};
use crate::watch::{Stopwatch, let_pass, wait_until};

/// Peers of the full mesh that the gate runs.
const PEERS: usize = 8;

/// Clients behind two routers that the gate runs.
const CLIENTS: usize = 6;

/// For each node: starting dozens of processes takes their share of the machine.
const MEET_MAX: Duration = Duration::from_secs(3);

/// A killed process must be seen within a second (contract, *Freshness*).
const DEATH_SEEN_MAX: Duration = Duration::from_secs(1);

/// The lease and a second.
const SILENCE_SEEN_MAX: Duration = Duration::from_secs(4);

/// What the gate adds to both, because other tests share its machine: still less than what the lease alone would need.
const BUSY: Duration = Duration::from_millis(1_500);

/// Targets of a fan-out that the gate runs.
const TARGETS: usize = 10;

/// What the cable to each target adds to a question and to its answer, each.
const SLOW: Weather = Weather::Slow { delay: Duration::from_millis(10), jitter: Duration::ZERO };

/// How often each dispatch is timed; the median counts.
const TIMED: usize = 9;

/// What a node may take for itself, and for each node that it knows.
const MEMORY_KIB: u64 = 72 * 1_024;
const MEMORY_OF_ONE_KIB: u64 = 256;

/// What a node may send to each whom it sends words to, for each node whose word it is, in a period: observation, probe and echo,
/// and what keeps the link alive.
const WORD_BYTES: u64 = 16 * 1_024;

/// How long traffic and processor are looked at.
const MEASURED: Duration = Duration::from_secs(5);

fn wanted(variable: &str, otherwise: usize) -> usize {
    std::env::var(variable).map_or(otherwise, |text| text.parse().expect("a number"))
}

/// As promised where a fleet has the machine to itself, and with time for others in the gate.
fn promised(bound: Duration) -> Duration {
    if std::env::var_os("FLEET_PEERS").is_some() { bound } else { bound + BUSY }
}

/// Waits until each of these shows so many others as online. Gives how long the last one took.
fn await_online<'a>(nodes: impl Iterator<Item = &'a Running>, count: usize, deadline: Duration) -> Duration {
    await_count(nodes, "online", count, deadline)
}

/// The same for any state of a peer.
fn await_count<'a>(
    nodes: impl Iterator<Item = &'a Running>,
    state: &str,
    count: usize,
    deadline: Duration,
) -> Duration {
    let series = format!("trust_runtime_peers{{state=\"{state}\"}}");
    let wanted = count.to_string();
    let watch = Stopwatch::start();
    for node in nodes {
        let left = deadline.saturating_sub(watch.elapsed());
        wait_until(&format!("{} sees {count} {state}", node.name()), left, || {
            let seen = node.metric(&series).to_string();
            if seen == wanted { Ok(()) } else { Err(format!("{seen} {state}")) }
        });
    }
    watch.elapsed()
}

/// Every peer dials all that were started before it.
fn full_mesh(cluster: &Cluster, count: usize) -> Vec<Running> {
    let mut peers: Vec<Running> = Vec::new();
    for number in 0..count {
        let setup = peers.iter().fold(Setup::new(), Setup::dialling);
        peers.push(cluster.play(&format!("p{number}"), setup));
    }
    peers
}

/// What has left through each node's sockets that are open, in bytes.
fn sent(node: &Running) -> u64 {
    let listed = Command::new("ss").args(["-tinpH", "state", "established"]).output().expect("ss is there");
    let text = String::from_utf8_lossy(&listed.stdout);
    let of_node = format!("pid={},", node.pid());
    let lines: Vec<&str> = text.lines().collect();
    let details = lines.windows(2).filter(|pair| pair[0].contains(&of_node)).map(|pair| pair[1]);
    let bytes =
        details.filter_map(|it| it.split(' ').find_map(|word| word.strip_prefix("bytes_sent:")?.parse::<u64>().ok()));
    bytes.sum()
}

/// Prints what nodes cost, and holds memory to what they know of, and traffic to the words that they say or pass on.
fn measure(what: &str, nodes: &[&Running], known: usize, words_per_s: u64) {
    let watch = Stopwatch::start();
    let before: Vec<_> = nodes.iter().map(|node| (sent(node), busy(node))).collect();
    let_pass(MEASURED);
    let span = watch.elapsed();
    for (node, (sent_before, busy_before)) in nodes.iter().zip(before) {
        let memory = memory_kib(node);
        let rate = sent(node).saturating_sub(sent_before) * 1_000 / u64::try_from(span.as_millis()).expect("short");
        let share = busy(node).saturating_sub(busy_before).as_secs_f64() / span.as_secs_f64();
        eprintln!("{what} {}: {memory} KiB, {rate} bytes/s out, {:.1} % of a core", node.name(), share * 100.0);
        let most = MEMORY_KIB + MEMORY_OF_ONE_KIB * u64::try_from(known).expect("small");
        assert!(memory <= most, "{}: {memory} KiB of {most}", node.name());
        let most = WORD_BYTES * words_per_s;
        assert!(0 < rate && rate <= most, "{}: {rate} bytes/s of {most}", node.name());
    }
}

#[test]
fn a_death_and_a_freeze_show_at_every_peer_of_a_full_mesh() {
    let count = wanted("FLEET_PEERS", PEERS);
    let cluster = Cluster::new();
    let mut peers = full_mesh(&cluster, count);
    let all = u32::try_from(count).expect("small");
    let met = await_online(peers.iter(), count - 1, MEET_MAX * all);
    eprintln!("{count} peers see each other after {met:?}");
    // A word a second to each other one.
    measure("peer", &peers.iter().take(3).collect::<Vec<_>>(), count, u64::from(all));

    let mut killed = peers.pop().expect("some");
    killed.kill();
    let took = await_online(peers.iter(), count - 2, promised(DEATH_SEEN_MAX));
    eprintln!("a death is seen by all after {took:?}");
    killed.restart();
    await_online(peers.iter().chain([&killed]), count - 1, MEET_MAX * all);

    killed.stop();
    let took = await_online(peers.iter(), count - 2, promised(SILENCE_SEEN_MAX));
    eprintln!("a freeze is seen by all after {took:?}");
    assert!(Duration::from_secs(1) < took, "nobody is called dead for a moment of silence");
    let took = await_count(peers.iter(), "partitioned", 1, promised(SILENCE_SEEN_MAX).saturating_sub(took)) + took;
    eprintln!("and called partitioned by all after {took:?}");
    killed.resume();
    await_online(peers.iter().chain([&killed]), count - 1, MEET_MAX * all);
}

#[test]
fn clients_behind_two_routers_see_everybody_and_outlive_the_kill_of_a_router() {
    let (clients, peers) =
        (wanted("FLEET_CLIENTS", CLIENTS), wanted("FLEET_PEERS", PEERS).min(wanted("FLEET_CLIENTS", CLIENTS)));
    let cluster = Cluster::new();
    // Each node checks what every other one says: with so many on one machine they speak less often.
    let period = u64::try_from((clients + peers) * 80).expect("small").max(1_000);
    let slowed = |setup: Setup| setup.timing("period_ms", period).timing("probe_ms", period);
    let first = cluster.play("r0", slowed(Setup::new().role("router")));
    let mut second = cluster.play("r1", slowed(Setup::new().role("router").dialling(&first)));
    let mut nodes: Vec<Running> = Vec::new();
    for number in 0..peers {
        nodes.push(cluster.play(&format!("p{number}"), slowed(Setup::new().dialling(&first).dialling(&second))));
    }
    for number in 0..clients {
        // Half of them prefer the second one.
        let setup = Setup::new().role("client");
        let setup = if number % 2 == 0 {
            setup.dialling(&first).dialling(&second)
        } else {
            setup.dialling(&second).dialling(&first)
        };
        nodes.push(cluster.play(&format!("c{number}"), slowed(setup)));
    }
    let all = nodes.len() + 2;
    let deadline = MEET_MAX * u32::try_from(all).expect("small");
    let met = await_online(nodes.iter().chain([&first, &second]), all - 1, deadline);
    eprintln!("{all} nodes see each other after {met:?}");
    let shown: Vec<&Running> = [&first, &second].into_iter().chain(nodes.iter().rev().take(2)).collect();
    // A router passes the word of each on to each.
    let nodes_all = u64::try_from(all).expect("small");
    measure("fleet", &shown, all, (nodes_all * nodes_all * 1_000).div_ceil(period));

    second.kill();
    let took = await_online(nodes.iter().chain([&first]), all - 2, deadline);
    eprintln!("all go on by the other router after {took:?}");
    let (one, other) = (&nodes[nodes.len() - 1], &nodes[nodes.len() - 2]);
    wait_until("a client reads another one", deadline, || {
        let outcome = one.dispatch_one(&read(one.name(), "over-the-other-router", &[other.name()]));
        if outcome.ok { Ok(()) } else { Err(outcome.text) }
    });
    second.restart();
    await_online(nodes.iter().chain([&first, &second]), all - 1, deadline);
}

/// How long one read of all these takes.
fn took(origin: &Running, id: &str, targets: &[&str]) -> Duration {
    let body = with(read(origin.name(), id, targets), "query_budget_ms", 10_000);
    let watch = Stopwatch::start();
    let answer = origin.post(DISPATCH, &body);
    let span = watch.elapsed();
    let answered = outcomes(&answer);
    assert!(answered.len() == targets.len() && answered.iter().all(|it| it.ok), "{}", answer.text);
    span
}

fn median(mut spans: Vec<Duration>) -> Duration {
    spans.sort();
    spans[spans.len() / 2]
}

/// All are asked at once, so it is the slowest that counts and not their number.
#[test]
fn a_dispatch_to_many_slow_targets_takes_no_longer_than_five_of_one() {
    let count = wanted("FLEET_TARGETS", TARGETS);
    let cluster = Cluster::new();
    // What all say of themselves meanwhile shall not be what is measured, nor links among the targets.
    let seldom = || Setup::new().timing("period_ms", 20_000).timing("probe_ms", 20_000);
    let origin = cluster.play("origin", seldom().acts_per_s(100_000).role("router"));
    let far: SocketAddr = origin.mesh().parse().expect("an address");
    let cables: Vec<Cable> = (0..count).map(|_| Cable::to(far, Chance::new(1))).collect();
    let target = |(number, cable): (usize, &Cable)| {
        cluster.play(&format!("t{number}"), seldom().role("client").dialling_address(cable.address()))
    };
    let targets: Vec<Running> = cables.iter().enumerate().map(target).collect();
    await_online([&origin].into_iter(), count, MEET_MAX * u32::try_from(count).expect("small"));
    cables.iter().for_each(|cable| cable.set(SLOW));

    let names: Vec<&str> = targets.iter().map(Running::name).collect();
    // In turns, so that what else the machine does meets both.
    let turn = |number| {
        (took(&origin, &format!("one-{number}"), &names[..1]), took(&origin, &format!("all-{number}"), &names))
    };
    let (one, all): (Vec<_>, Vec<_>) = (0..TIMED).map(turn).unzip();
    let (one, all) = (median(one), median(all));
    eprintln!("one target took {one:?}, {count} took {all:?}");
    assert!(Duration::from_millis(20) <= one, "the cable is slow");
    assert!(all <= one * 5, "{count} targets took {all:?}, one took {one:?}");
}
