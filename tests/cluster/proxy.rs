//! A TCP relay between two nodes that can be cut and healed: a cable in the hands of the test.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::watch::let_pass;

/// Relays connections to one address.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    /// Swallows whatever comes while it is set, as a dead cable does: nobody is told.
    is_cut: AtomicBool,
    /// How many bytes pass in a second, in each direction; all of them where it is 0.
    bytes_per_second: AtomicU64,
    streams: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    pub(crate) fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared {
            target,
            is_cut: AtomicBool::new(false),
            bytes_per_second: AtomicU64::new(0),
            streams: Mutex::default(),
        });
        let relay = Arc::clone(&shared);
        // Ends with the process: each test has one of its own.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                relay.join(stream);
            }
        });
        Self { address, shared }
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// From now on nothing passes, and nobody is told.
    pub(crate) fn cut(&self) {
        self.shared.is_cut.store(true, Ordering::SeqCst);
    }

    /// From now on so many bytes pass in a second.
    pub(crate) fn slow(&self, bytes_per_second: u64) {
        self.shared.bytes_per_second.store(bytes_per_second, Ordering::SeqCst);
    }

    /// How many have come since it healed last.
    pub(crate) fn joined(&self) -> usize {
        self.shared.streams.lock().expect("no panic").len() / 2
    }

    /// From now on nothing passes, and both ends of every connection are told.
    pub(crate) fn sever(&self) {
        self.cut();
        self.close();
    }

    /// New connections pass again. Those that lost bytes are gone, as after any real cut that outlives their patience.
    pub(crate) fn heal(&self) {
        self.close();
        self.shared.is_cut.store(false, Ordering::SeqCst);
    }

    fn close(&self) {
        for stream in self.shared.streams.lock().expect("no panic").drain(..) {
            // Whoever has closed already needs no closing.
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}

impl Shared {
    fn join(self: &Arc<Self>, near: TcpStream) {
        let mut kept = self.streams.lock().expect("no panic");
        kept.push(near.try_clone().expect("a copy"));
        if self.is_cut.load(Ordering::SeqCst) {
            return;
        }
        let Ok(far) = TcpStream::connect_timeout(&self.target, Duration::from_secs(1)) else {
            drop(near.shutdown(Shutdown::Both));
            return;
        };
        kept.push(far.try_clone().expect("a copy"));
        drop(kept);
        self.pump(near.try_clone().expect("a copy"), far.try_clone().expect("a copy"));
        self.pump(far, near);
    }

    fn pump(self: &Arc<Self>, mut from: TcpStream, mut to: TcpStream) {
        let shared = Arc::clone(self);
        std::thread::spawn(move || {
            let mut buffer = [0; 16 * 1024];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                if let rate @ 1.. = shared.bytes_per_second.load(Ordering::SeqCst) {
                    let_pass(Duration::from_micros(1_000_000 * count as u64 / rate));
                }
                let is_cut = shared.is_cut.load(Ordering::SeqCst);
                if !is_cut && to.write_all(&buffer[..count]).is_err() {
                    break;
                }
            }
            if !shared.is_cut.load(Ordering::SeqCst) {
                drop(to.shutdown(Shutdown::Both));
            }
        });
    }
}
