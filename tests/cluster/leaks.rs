//! What is over leaves nothing behind: memory and descriptors after many connections, dispatches and streams.
//!
//! The gate runs a hundredth. `LEAK_PARTS=1` runs all of it: 10,000 connections, 100,000 dispatches, 1,000 streams.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::harness::{Cluster, Running, SEEN_MAX};
use crate::idle::memory_kib;
use crate::question::{ping, read};

/// The part of everything that the gate runs.
const PARTS: usize = 100;

/// What memory may grow by in the second half: the allocator's own, not something for each.
const GROWTH_KIB: u64 = 4 * 1_024;

fn descriptors(node: &Running) -> usize {
    fs::read_dir(format!("/proc/{}/fd", node.pid())).expect("it runs").count()
}

/// A connection that says half a request, or nothing, and goes.
fn connect(to: SocketAddr, words: &str) {
    let mut stream = TcpStream::connect(to).expect("it listens");
    stream.write_all(words.as_bytes()).expect("written");
}

/// A stream of the state that is read a little, and left.
fn follow(node: &Running) {
    let mut stream = TcpStream::connect(node.web()).expect("it listens");
    let head = format!("GET /api/runtime-cloud/state/stream HTTP/1.1\r\nhost: {}\r\n\r\n", node.web());
    stream.write_all(head.as_bytes()).expect("written");
    let mut beginning = [0; 64];
    stream.read_exact(&mut beginning).expect("it begins");
    assert!(beginning.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&beginning));
}

/// Does something so often, in two halves, and holds what the nodes have after the second against the first.
fn assert_flat(what: &str, nodes: &[&Running], count: usize, one: impl Fn(usize)) {
    let before: Vec<usize> = nodes.iter().map(|node| descriptors(node)).collect();
    let settled = || {
        for (node, before) in nodes.iter().zip(&before) {
            // A link of the mesh or a file of the store may have come and gone by itself.
            node.wait_until(&format!("descriptors are back after {what}"), SEEN_MAX, |node| match descriptors(node) {
                now if now <= before + 4 => Ok(()),
                now => Err(format!("{now} of {before}")),
            });
        }
    };
    (0..count / 2).for_each(&one);
    settled();
    let half: Vec<u64> = nodes.iter().map(|node| memory_kib(node)).collect();
    (count / 2..count).for_each(&one);
    settled();
    for (node, half) in nodes.iter().zip(half) {
        let end = memory_kib(node);
        eprintln!("{}: {count} {what}: {half} KiB at half, {end} KiB at the end", node.name());
        assert!(end <= half + GROWTH_KIB, "{}: {what} leave {end} KiB after {half}", node.name());
    }
}

#[test]
fn connections_dispatches_and_streams_leave_nothing_behind() {
    let parts: usize = std::env::var("LEAK_PARTS").map_or(PARTS, |it| it.parse().expect("a number"));
    let cluster = Cluster::new();
    let [a, b] = cluster.site(["a", "b"]);
    let both = [&a, &b];
    let mesh: SocketAddr = b.mesh().parse().expect("an address");
    assert_flat("connections", &both, 10_000 / parts, |number| match number % 3 {
        0 => connect(a.web(), ""),
        1 => connect(a.web(), "GET / HT"),
        _ => connect(mesh, "\u{3}"),
    });
    assert_flat("dispatches", &both, 100_000 / parts, |number| {
        let id = format!("leak-{number}");
        // A receipt of each write is kept for a day, up to 10,000 of an origin: no leak, and few of them here.
        let body = if number % 100 == 0 { ping("a", &id, &["b"]) } else { read("a", &id, &["b"]) };
        let outcome = a.dispatch_one(&body);
        assert!(outcome.ok, "{}", outcome.text);
    });
    assert_flat("streams", &both[..1], 1_000 / parts, |_| follow(&a));
    for node in both {
        node.await_lifecycle_within(if node.name() == "a" { "b" } else { "a" }, "online", Duration::from_secs(5));
    }
}
