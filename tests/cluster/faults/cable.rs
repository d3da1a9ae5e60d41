//! A TCP relay on loopback in the hands of the test: cut, stalled, slow in both directions, or as good as none.

// waits: a delay is time that passes, and is what this file is for.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use crate::chance::Chance;
use crate::watch::{Stopwatch, let_pass};

/// Most pieces under way in one direction: beyond it the sender waits, as on a link that is full.
const PIECES_MAX: usize = 512;

/// How a cable is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weather {
    Clear,
    /// What comes is lost, and nobody is told; new connections are refused.
    Cut,
    /// What comes is kept, and goes on when it clears.
    Stalled,
    /// Each piece takes so long in each direction, and up to the jitter more.
    Slow {
        delay: Duration,
        jitter: Duration,
    },
}

/// Relays connections to one address.
#[derive(Debug)]
pub(crate) struct Cable {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
    begun: Stopwatch,
}

#[derive(Debug)]
struct State {
    weather: Weather,
    chance: Chance,
    count: u64,
    /// Both ends of each connection.
    joined: BTreeMap<u64, [TcpStream; 2]>,
}

/// Bytes and when they may arrive, since the cable was laid.
type Piece = (Duration, Vec<u8>);

impl Cable {
    pub(crate) fn to(target: SocketAddr, chance: Chance) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let state = State { weather: Weather::Clear, chance, count: 0, joined: BTreeMap::new() };
        let begun = Stopwatch::start();
        let shared = Arc::new(Shared { target, state: Mutex::new(state), changed: Condvar::new(), begun });
        let relay = Arc::clone(&shared);
        // Ends with the process: each test has one of its own.
        std::thread::spawn(move || listener.incoming().flatten().for_each(|near| relay.join(near)));
        Self { address, shared }
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// After a cut the connections that lost bytes are gone.
    pub(crate) fn set(&self, weather: Weather) {
        let mut state = self.shared.lock();
        if state.weather == Weather::Cut && weather != Weather::Cut {
            std::mem::take(&mut state.joined).values().flatten().for_each(close);
        }
        state.weather = weather;
        self.shared.changed.notify_all();
    }
}

/// Whoever has closed already needs no closing.
fn close(stream: &TcpStream) {
    drop(stream.shutdown(Shutdown::Both));
}

fn copy(stream: &TcpStream) -> TcpStream {
    stream.try_clone().expect("a copy")
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic")
    }

    fn join(self: &Arc<Self>, near: TcpStream) {
        if self.lock().weather == Weather::Cut {
            return close(&near);
        }
        let Ok(far) = TcpStream::connect_timeout(&self.target, Duration::from_secs(1)) else {
            return close(&near);
        };
        [&near, &far].iter().for_each(|end| end.set_nodelay(true).expect("an option of every socket"));
        let mut state = self.lock();
        state.count += 1;
        let number = state.count;
        state.joined.insert(number, [copy(&near), copy(&far)]);
        drop(state);
        self.carry(number, copy(&near), copy(&far));
        self.carry(number, far, near);
    }

    /// One direction: a thread takes what comes, another one gives it out when its time has come.
    fn carry(self: &Arc<Self>, number: u64, from: TcpStream, to: TcpStream) {
        let (piece, pieces) = sync_channel(PIECES_MAX);
        let (taker, giver) = (Arc::clone(self), Arc::clone(self));
        std::thread::spawn(move || taker.take(from, &piece));
        std::thread::spawn(move || {
            giver.give(&pieces, &to);
            // A half-closed connection says nothing more in either direction here.
            if giver.lock().weather != Weather::Cut {
                close(&to);
                giver.lock().joined.remove(&number);
            }
        });
    }

    fn take(&self, mut from: TcpStream, piece: &SyncSender<Piece>) {
        let mut buffer = [0; 16 * 1024];
        let mut last = Duration::ZERO;
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            last = last.max(self.arrival());
            if piece.send((last, buffer[..count].to_vec())).is_err() {
                break;
            }
        }
    }

    fn arrival(&self) -> Duration {
        let mut state = self.lock();
        let extra = match state.weather {
            Weather::Clear | Weather::Cut | Weather::Stalled => Duration::ZERO,
            Weather::Slow { delay, jitter } => {
                let micros = u64::try_from(jitter.as_micros()).expect("short");
                delay + Duration::from_micros(state.chance.below(micros))
            }
        };
        self.begun.elapsed() + extra
    }

    fn give(&self, pieces: &Receiver<Piece>, mut to: &TcpStream) {
        while let Ok((at, bytes)) = pieces.recv() {
            let_pass(at.saturating_sub(self.begun.elapsed()));
            let is_lost = {
                let held = |state: &mut State| state.weather == Weather::Stalled;
                let state = self.changed.wait_while(self.lock(), held).expect("no panic");
                state.weather == Weather::Cut
            };
            if !is_lost && to.write_all(&bytes).is_err() {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Cable, Chance, Duration, Read, Stopwatch, TcpListener, TcpStream, Weather, Write};
    use crate::watch::wait_until;

    const SOON: Duration = Duration::from_secs(10);

    /// A cable to somebody who says again what is said.
    fn echo() -> Cable {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
            }
        });
        Cable::to(address, Chance::new(1))
    }

    fn join(cable: &Cable) -> TcpStream {
        let stream = TcpStream::connect(cable.address()).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_millis(300))).expect("an option");
        stream
    }

    fn say(mut stream: &TcpStream, text: &str) {
        stream.write_all(text.as_bytes()).expect("said");
    }

    fn heard(mut stream: &TcpStream, count: usize) -> Result<String, String> {
        let mut bytes = vec![0; count];
        stream.read_exact(&mut bytes).map_err(|error| error.to_string())?;
        String::from_utf8(bytes).map_err(|error| error.to_string())
    }

    #[test]
    fn a_slow_cable_takes_its_time_in_both_directions_and_keeps_the_order() {
        let cable = echo();
        let stream = join(&cable);
        stream.set_read_timeout(Some(SOON)).expect("an option");
        let (delay, jitter) = (Duration::from_millis(40), Duration::from_millis(30));
        cable.set(Weather::Slow { delay, jitter });
        let text: String = (0..100).map(|number| format!("{number} ")).collect();
        let watch = Stopwatch::start();
        text.split_inclusive(' ').for_each(|word| say(&stream, word));
        assert_eq!(heard(&stream, text.len()), Ok(text));
        assert!(2 * delay <= watch.elapsed(), "{:?}", watch.elapsed());
    }

    #[test]
    fn a_stalled_cable_holds_every_byte_until_it_clears() {
        let cable = echo();
        let stream = join(&cable);
        cable.set(Weather::Stalled);
        say(&stream, "kept");
        assert!(heard(&stream, 4).is_err(), "nothing arrives");
        cable.set(Weather::Clear);
        stream.set_read_timeout(Some(SOON)).expect("an option");
        assert_eq!(heard(&stream, 4).as_deref(), Ok("kept"));
    }

    #[test]
    fn a_cut_cable_loses_what_comes_refuses_new_ones_and_carries_new_ones_once_healed() {
        let cable = echo();
        let stream = join(&cable);
        say(&stream, "one");
        assert_eq!(heard(&stream, 3).as_deref(), Ok("one"));
        cable.set(Weather::Cut);
        say(&stream, "two");
        assert!(heard(&stream, 3).is_err_and(|why| !why.contains("fill whole buffer")), "nobody is told");
        let refused = join(&cable);
        wait_until("a new one is refused", SOON, || match (&refused).read(&mut [0]) {
            Ok(0) => Ok(()),
            other => Err(format!("{other:?}")),
        });
        cable.set(Weather::Clear);
        assert!(heard(&stream, 3).is_err_and(|why| why.contains("fill whole buffer")), "its connections are gone");
        let next = join(&cable);
        say(&next, "three");
        next.set_read_timeout(Some(SOON)).expect("an option");
        assert_eq!(heard(&next, 5).as_deref(), Ok("three"));
    }
}
