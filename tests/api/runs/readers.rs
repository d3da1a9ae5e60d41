//! Readers of one run over real connections who hold each byte that they get against its log.
//!
//! Nine of ten read as fast as they can, half of all as server-sent events and half as lines. Of the others some are slow, some
//! take nothing until all the rest are done, and some cut their connection off at any byte and come back with the number of the
//! last event they got whole. Who writes the log is the test's business.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock, RwLockWriteGuard};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::chunks::Chunks;

pub(crate) const READERS: usize = 1_000;
pub(crate) const EVENTS: usize = 10_000;

/// Events that are there before anybody reads, and then those that are there before the first wait for more.
pub(crate) const BEFORE: usize = 3_000;
pub(crate) const MEANWHILE: usize = 7_000;

/// Readers who come when the run has ended already.
const LATE: usize = 100;

/// How long all of them may take for what is there.
const READ_MAX: Duration = Duration::from_secs(120);

/// The two forms, and what comes in them where nothing else does.
const ACCEPT: [&str; 2] = ["text/event-stream", "application/x-ndjson"];
const HEARTBEAT: [&[u8]; 2] = [b": heartbeat\n\n", b"\n"];

/// The log in one form.
#[derive(Debug, Default, PartialEq, Eq)]
struct Text {
    bytes: Vec<u8>,
    /// Where each event ends.
    ends: Vec<usize>,
}

/// The log as every reader must get it: as server-sent events, and as lines.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Log([Text; 2]);

impl Log {
    /// One more event.
    pub(crate) fn push(&mut self, kind: &str, body: &str) {
        let id = self.count();
        for (text, frame) in
            self.0.iter_mut().zip([format!("event: {kind}\nid: {id}\ndata: {body}\n\n"), format!("{body}\n")])
        {
            text.bytes.extend_from_slice(frame.as_bytes());
            text.ends.push(text.bytes.len());
        }
    }

    /// How many events it has.
    pub(crate) fn count(&self) -> usize {
        self.0[0].ends.len()
    }
}

/// Brings the log up to date, for whoever seems to be ahead of it.
pub(crate) type More = Box<dyn Fn(&mut Log) + Send + Sync>;

/// What the readers share.
pub(crate) struct Crowd {
    base: String,
    run: String,
    log: RwLock<Log>,
    more: More,
    /// Events that steady readers have got, all of them together.
    got: AtomicUsize,
    /// The others are done.
    is_free: CancellationToken,
    /// Places for those who have asked and have no answer yet.
    door: Semaphore,
}

impl Crowd {
    /// Of a run at this address. So many may wait for an answer at once.
    pub(crate) fn new(base: &str, run: &str, more: More, arriving_max: usize) -> Arc<Self> {
        let (base, run, door) = (base.to_owned(), run.to_owned(), Semaphore::new(arriving_max));
        let (log, got, is_free) = Default::default();
        Arc::new(Self { base, run, log, more, got, is_free, door })
    }

    /// What the readers are held against.
    pub(crate) fn log(&self) -> RwLockWriteGuard<'_, Log> {
        self.log.write().expect("no panic")
    }
}

/// How one reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    Steady,
    Slow,
    /// Takes nothing until the others are done.
    Stuck,
    Cutting,
}

impl Manner {
    const fn of(number: usize) -> Self {
        match number % 30 {
            0 => Self::Slow,
            10 => Self::Stuck,
            20 => Self::Cutting,
            _ => Self::Steady,
        }
    }
}

/// How many take nothing until the others are done.
pub(crate) fn stuck() -> usize {
    (0..READERS).filter(|number| Manner::of(*number) == Manner::Stuck).count()
}

/// How one reader's connection came to its end.
enum Ended {
    /// With the stream.
    Whole,
    /// By the reader itself.
    Cut,
    /// By the node, while the reader took nothing.
    CutOff,
    /// It was not let in, and may come back.
    Refused,
}

/// How often readers came back.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Returns {
    /// After they had cut themselves off.
    pub(crate) cut: usize,
    /// After the node had cut them off, because they took nothing.
    pub(crate) cut_off: usize,
}

/// One reader.
struct Reader {
    crowd: Arc<Crowd>,
    manner: Manner,
    form: usize,
    /// How many events it has got whole, and how many bytes of the log.
    events: usize,
    place: usize,
    /// How many bytes of a heartbeat it has got.
    beat: usize,
    /// Where its chance comes from.
    state: u64,
    returns: Returns,
}

impl Reader {
    fn new(crowd: Arc<Crowd>, number: usize) -> Self {
        let state = (number * 2 + 1) as u64;
        let (manner, form, returns) = (Manner::of(number), number % 4 / 2, Returns::default());
        Self { crowd, manner, form, events: 0, place: 0, beat: 0, state, returns }
    }

    fn chance(&mut self, most: u64) -> u64 {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 33) % most
    }

    /// Reads the whole log, however often it takes.
    async fn read(mut self) -> Result<Returns, String> {
        loop {
            match self.read_once().await? {
                Ended::Whole => break,
                Ended::Cut => self.returns.cut += 1,
                Ended::CutOff => self.returns.cut_off += 1,
                // waits: whoever is refused for want of places is told to come back later.
                Ended::Refused => tokio::time::sleep(Duration::from_millis(100)).await,
            }
            // What came in part is no event: it is asked for again.
            self.place = self.events.checked_sub(1).map_or(0, |last| self.log_end(last));
            self.beat = 0;
        }
        let whole = self.log_end(EVENTS - 1);
        if self.place == whole { Ok(self.returns) } else { Err(format!("{} of {whole} bytes", self.place)) }
    }

    fn log_end(&self, event: usize) -> usize {
        self.crowd.log.read().expect("no panic").0[self.form].ends[event]
    }

    /// Reads until the stream ends or until the reader cuts it off.
    async fn read_once(&mut self) -> Result<Ended, String> {
        let crowd = Arc::clone(&self.crowd);
        let mut arriving = Some(crowd.door.acquire().await.map_err(|error| error.to_string())?);
        let mut stream = self.connect().await.map_err(|error| format!("not connected: {error}"))?;
        let mut left = if self.manner == Manner::Cutting { self.cut() } else { usize::MAX };
        let (mut chunks, mut buffer) = (Chunks::new(), vec![0; 16 * 1024]);
        while 0 < left && !chunks.is_over() {
            self.wait().await;
            let most = buffer.len().min(left);
            let count = match stream.read(&mut buffer[..most]).await {
                Ok(0) | Err(_) if self.manner == Manner::Stuck && crowd.is_free.is_cancelled() => {
                    return Ok(Ended::CutOff);
                }
                Ok(0) | Err(_) => return Err(format!("cut off behind event {}: {:?}", self.events, chunks.head())),
                Ok(count) => count,
            };
            left -= count;
            self.take(&mut chunks, &buffer[..count])?;
            if chunks.is_refused() {
                let is_own_doing = self.manner == Manner::Cutting && chunks.head().starts_with("HTTP/1.1 503 ");
                return if is_own_doing { Ok(Ended::Refused) } else { Err(format!("refused: {}", chunks.head())) };
            }
            arriving.take_if(|_| chunks.has_begun());
        }
        Ok(if chunks.is_over() { Ended::Whole } else { Ended::Cut })
    }

    /// A place to cut at: mostly soon, in the head or in the first events, and sometimes late.
    fn cut(&mut self) -> usize {
        let most = [300, 3_000, 30_000, 900_000][usize::try_from(self.chance(4)).expect("below four")];
        usize::try_from(1 + self.chance(most)).expect("small")
    }

    async fn connect(&self) -> std::io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        if self.manner != Manner::Steady {
            // So that what it does not take stays with the node.
            socket.set_recv_buffer_size(8 * 1024)?;
        }
        let Crowd { base, run, .. } = &*self.crowd;
        let mut stream = socket.connect(base.parse().expect("an address")).await?;
        let accept = ACCEPT[self.form];
        let last = self.events.checked_sub(1).map(|last| format!("Last-Event-ID: {last}\r\n")).unwrap_or_default();
        let head = format!("GET /runs/{run}/stream HTTP/1.1\r\nHost: {base}\r\nAccept: {accept}\r\n{last}\r\n");
        stream.write_all(head.as_bytes()).await?;
        Ok(stream)
    }

    async fn wait(&self) {
        match self.manner {
            Manner::Steady | Manner::Cutting => {}
            // waits: this reader is slow by its nature.
            Manner::Slow => tokio::time::sleep(Duration::from_millis(5)).await,
            Manner::Stuck if 0 < self.events => self.crowd.is_free.cancelled().await,
            Manner::Stuck => {}
        }
    }

    /// What has come must be what comes next in the log.
    fn take(&mut self, chunks: &mut Chunks, bytes: &[u8]) -> Result<(), String> {
        let mut body = Vec::with_capacity(bytes.len());
        chunks.feed(bytes, |data| body.extend_from_slice(data));
        let is_ahead = |log: &Log| log.0[self.form].bytes.len() < self.place + body.len();
        if is_ahead(&self.crowd.log.read().expect("no panic")) {
            let mut log = self.crowd.log.write().expect("no panic");
            // Another one who was ahead may have brought it.
            if is_ahead(&log) {
                (self.crowd.more)(&mut log);
            }
        }
        let log = self.crowd.log.read().expect("no panic");
        let text = &log.0[self.form];
        text.hold(HEARTBEAT[self.form], (&mut self.place, &mut self.beat), &body)?;
        let events = self.events + text.ends[self.events..].partition_point(|end| *end <= self.place);
        drop(log);
        if self.manner == Manner::Steady {
            self.crowd.got.fetch_add(events - self.events, Ordering::Relaxed);
        }
        self.events = events;
        Ok(())
    }
}

impl Text {
    /// Holds what has come against what comes next from this place on; between two events there may be a heartbeat.
    fn hold(&self, heartbeat: &[u8], (place, beat): (&mut usize, &mut usize), mut body: &[u8]) -> Result<(), String> {
        while let Some(first) = body.first() {
            let is_between = *place == 0 || self.ends.binary_search(place).is_ok();
            if heartbeat.get(*beat) == Some(first) && (0 < *beat || is_between) {
                *beat = (*beat + 1) % heartbeat.len();
                body = &body[1..];
                continue;
            }
            let known = self.bytes.get(*place..).unwrap_or_default();
            let same = if known.starts_with(body) {
                body.len()
            } else {
                known.iter().zip(body).take_while(|(wanted, got)| wanted == got).count()
            };
            if same == 0 || 0 < *beat {
                let next = String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned();
                return Err(format!("wrong behind byte {place} of the log: {next:?}"));
            }
            *place += same;
            body = &body[same..];
        }
        Ok(())
    }
}

/// All who read.
pub(crate) struct Readers {
    crowd: Arc<Crowd>,
    all: JoinSet<(usize, Manner, Result<Returns, String>)>,
    returns: Returns,
}

impl Readers {
    pub(crate) fn new(crowd: &Arc<Crowd>) -> Self {
        Self { crowd: Arc::clone(crowd), all: JoinSet::new(), returns: Returns::default() }
    }

    /// All come but those who come late.
    pub(crate) fn enter(&mut self) {
        self.enter_some(0..READERS - LATE);
    }

    /// The rest come, whose run has ended.
    pub(crate) fn enter_late(&mut self) {
        self.enter_some(READERS - LATE..READERS);
    }

    fn enter_some(&mut self, numbers: std::ops::Range<usize>) {
        for number in numbers {
            let reader = Reader::new(Arc::clone(&self.crowd), number);
            let manner = reader.manner;
            self.all.spawn(async move { (number, manner, reader.read().await) });
        }
    }

    /// Waits until the steady ones who are there have all got so much of a log that goes on.
    pub(crate) async fn until_got(&mut self, events: usize) {
        let steady = (0..READERS - LATE).filter(|number| Manner::of(*number) == Manner::Steady).count();
        let crowd = Arc::clone(&self.crowd);
        let waiting = async {
            while crowd.got.load(Ordering::Relaxed) < steady * events {
                if let Some(early) = self.all.try_join_next() {
                    panic!("one has come to an end before the log has: {:?}", early.expect("no panic"));
                }
                // waits: for other tasks, and looking without a pause would take their time.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(READ_MAX, waiting).await.expect("the steady readers come to the end of what is there");
    }

    /// Waits until all but those who are stuck have the log.
    pub(crate) async fn finish(&mut self) {
        self.join(READERS - stuck()).await;
    }

    /// Lets those who are stuck read on, and waits for them too. Gives how often anybody came back.
    pub(crate) async fn free(mut self) -> Returns {
        self.crowd.is_free.cancel();
        self.join(stuck()).await;
        self.returns
    }

    async fn join(&mut self, count: usize) {
        let joining = async {
            for _ in 0..count {
                let (number, manner, read) = self.all.join_next().await.expect("one more").expect("no panic");
                let returns = read.unwrap_or_else(|fault| panic!("reader {number}, {manner:?}: {fault}"));
                self.returns.cut += returns.cut;
                self.returns.cut_off += returns.cut_off;
            }
        };
        tokio::time::timeout(READ_MAX, joining).await.expect("all in time");
    }
}

#[test]
fn what_is_held_against_the_log_may_have_heartbeats_between_events_and_nothing_else() {
    let mut log = Log::default();
    log.push("log", "{\"a\":1}");
    log.push("log", "{\"b\":2}");
    let whole = log.0[1].bytes.clone();
    let held = |body: &[u8], pieces: usize| {
        let (mut place, mut beat) = (0, 0);
        let mut parts = body.chunks(body.len().div_ceil(pieces));
        parts.try_for_each(|part| log.0[1].hold(HEARTBEAT[1], (&mut place, &mut beat), part)).map(|()| place)
    };
    for pieces in 1..=whole.len() {
        assert_eq!(held(&whole, pieces), Ok(whole.len()));
        assert_eq!(held(b"\n{\"a\":1}\n\n\n{\"b\":2}\n\n", pieces), Ok(whole.len()));
        for wrong in [&b"{\"a\":1}\n{\"a\":1}\n"[..], b"{\"b\":2}\n", b"{\"a\"\n:1}\n", b"{\"a\":1}\n{\"b\":2}\n{"] {
            assert!(held(wrong, pieces).is_err(), "{wrong:?} in {pieces}");
        }
    }
    let mut events = log.0[0].bytes.clone();
    let middle = log.0[0].ends[0];
    events.splice(middle..middle, HEARTBEAT[0].iter().copied());
    for at in 0..events.len() {
        let (mut place, mut beat) = (0, 0);
        for part in [&events[..at], &events[at..]] {
            assert_eq!(log.0[0].hold(HEARTBEAT[0], (&mut place, &mut beat), part), Ok(()));
        }
        assert_eq!((place, beat), (log.0[0].bytes.len(), 0));
    }
}
