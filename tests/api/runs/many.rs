//! A thousand readers of one run over real connections: each gets exactly the log, whatever the others do.
//!
//! Nine hundred of them read as fast as they can, half of them as server-sent events and half as lines. Of the other hundred
//! some are slow, some take nothing until all others are done, and some cut their connection off at any byte and come back
//! with the number of the last event they got whole. A third of the log is there before they come; the rest is written while
//! they read and while they wait for it; some come after its end.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use trust_runtime::domain::run::Event;
use trust_runtime::store::runs::hub::{CACHE_BYTES_MAX, RING_BYTES_MAX, RING_MAX, SEGMENT_BYTES_MAX, SEGMENT_MAX};
use trust_runtime::store::runs::{EventsAsked, RunStore as _};

use super::chunks::Chunks;
use super::http::ask;
use super::played::{PAGE_BYTES, Stage};
use super::{Served, serve};
use crate::sockets::PATIENCE;

const READERS: usize = 1_000;
const EVENTS: usize = 10_000;

/// Events that are there before anybody reads, and then those that are there before the first wait for more.
const BEFORE: usize = 3_000;
const MEANWHILE: usize = 7_000;

/// Readers who come when the run has ended already.
const LATE: usize = 100;

/// The log as every reader must get it, in one form.
#[derive(Debug, Default)]
struct Text {
    bytes: Vec<u8>,
    /// Where each event ends.
    ends: Vec<usize>,
}

/// What the readers share. The text is written before the store has the event, so that no reader is ahead of it.
struct Crowd {
    served: Served,
    run: String,
    /// As server-sent events, and as lines.
    log: RwLock<[Text; 2]>,
    /// Events that steady readers have got, all of them together.
    got: AtomicUsize,
    /// The others are done.
    is_free: CancellationToken,
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

impl Crowd {
    fn write(&self, events: &[Event]) {
        let mut log = self.log.write().unwrap();
        for event in events {
            let (kind, id, body) = (event.kind.as_str(), event.index, &event.body);
            for (text, frame) in
                log.iter_mut().zip([format!("event: {kind}\nid: {id}\ndata: {body}\n\n"), format!("{body}\n")])
            {
                text.bytes.extend_from_slice(frame.as_bytes());
                text.ends.push(text.bytes.len());
            }
        }
    }

    /// Writes so many more, some at a time, and lets others do something in between.
    async fn play(&self, stage: &mut Stage, count: usize) {
        for begin in (0..count).step_by(50) {
            let message = |at: usize| json!({ "type": "log", "level": "info", "message": format!("{at:0>120}") });
            let events: Vec<_> =
                (begin..count.min(begin + 50)).map(|at| stage.event(&message(at), (at - begin) as u64)).collect();
            self.write(&events);
            stage.append_all(events).await;
            tokio::task::yield_now().await;
        }
    }

    /// Waits until the steady readers that are there have all got so much.
    async fn until_got(&self, events: usize) {
        let waiting = async {
            while self.got.load(Ordering::Relaxed) < events {
                // waits: for other tasks, and looking without a pause would take their time.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE * 6, waiting).await.expect("the steady readers come to the end of what is there");
    }
}

/// One reader.
struct Reader {
    crowd: Arc<Crowd>,
    manner: Manner,
    form: usize,
    /// How many events it has got whole, and how many bytes of the log.
    events: usize,
    place: usize,
    /// Where its chance comes from.
    state: u64,
    connections: usize,
}

impl Reader {
    fn new(crowd: Arc<Crowd>, number: usize) -> Self {
        let state = (number * 2 + 1) as u64;
        let (events, place, connections) = (0, 0, 0);
        Self { crowd, manner: Manner::of(number), form: number % 4 / 2, events, place, state, connections }
    }

    fn chance(&mut self, most: u64) -> u64 {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 33) % most
    }

    /// Reads the whole log, however often it takes. Gives how often it was.
    async fn read(mut self) -> Result<usize, String> {
        while !self.read_once().await? {
            // What came in part is no event: it is asked for again.
            self.place = self.events.checked_sub(1).map_or(0, |last| self.log_end(last));
        }
        let whole = self.log_end(EVENTS - 1);
        if self.place == whole { Ok(self.connections) } else { Err(format!("{} of {whole} bytes", self.place)) }
    }

    fn log_end(&self, event: usize) -> usize {
        self.crowd.log.read().unwrap()[self.form].ends[event]
    }

    /// Reads until the stream ends or until the reader cuts it off. True at the end of the stream.
    async fn read_once(&mut self) -> Result<bool, String> {
        self.connections += 1;
        let mut stream = self.connect().await.map_err(|error| format!("not connected: {error}"))?;
        let mut left = if self.manner == Manner::Cutting { self.cut() } else { usize::MAX };
        let (mut chunks, mut buffer) = (Chunks::new(), vec![0; 16 * 1024]);
        while 0 < left && !chunks.is_over() {
            self.wait().await;
            let most = buffer.len().min(left);
            let count = match stream.read(&mut buffer[..most]).await {
                Ok(0) | Err(_) => return Err(format!("cut off behind event {}: {:?}", self.events, chunks.head())),
                Ok(count) => count,
            };
            left -= count;
            self.take(&mut chunks, &buffer[..count])?;
        }
        Ok(chunks.is_over())
    }

    /// A place to cut at: mostly soon, in the head or in the first events, and sometimes late.
    fn cut(&mut self) -> usize {
        let most = [300, 3_000, 30_000, 900_000][usize::try_from(self.chance(4)).unwrap()];
        usize::try_from(1 + self.chance(most)).unwrap()
    }

    async fn connect(&self) -> std::io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        if self.manner != Manner::Steady {
            // So that what it does not take stays with the node.
            socket.set_recv_buffer_size(8 * 1024)?;
        }
        let base = &self.crowd.served.base;
        let mut stream = socket.connect(base.parse().unwrap()).await?;
        let accept = ["text/event-stream", "application/x-ndjson"][self.form];
        let last = self.events.checked_sub(1).map(|last| format!("Last-Event-ID: {last}\r\n")).unwrap_or_default();
        let run = &self.crowd.run;
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
        let (mut place, mut fault) = (self.place, None);
        let log = self.crowd.log.read().unwrap();
        let text = &log[self.form];
        chunks.feed(bytes, |data| {
            let is_next = text.bytes.get(place..place + data.len()) == Some(data);
            place += data.len();
            if !is_next && fault.is_none() {
                fault = Some(format!("wrong behind byte {place}: {:?}", String::from_utf8_lossy(data)));
            }
        });
        let events = self.events + text.ends[self.events..].partition_point(|end| *end <= place);
        drop(log);
        if self.manner == Manner::Steady {
            self.crowd.got.fetch_add(events - self.events, Ordering::Relaxed);
        }
        (self.place, self.events) = (place, events);
        fault.map_or(Ok(()), Err)
    }
}

async fn crowd() -> (Arc<Crowd>, Stage) {
    let served = serve(|options| {
        // The cutting ones come back before it is known that they have gone.
        options.limits.connections_max = 2 * READERS;
        options.limits.streams_max = 2 * READERS;
        options.limits.requests_max = 2 * READERS;
        // Nobody is cut off for taking nothing: here it is shown that it costs nothing.
        options.limits.write = PATIENCE * 10;
        options.limits.heartbeat = PATIENCE * 10;
    })
    .await;
    let stage = served.played.open("many").await;
    let run = stage.run.to_string();
    let first = log(&served, &stage).await;
    let (log, got, is_free) = Default::default();
    let crowd = Crowd { served, run, log, got, is_free };
    crowd.write(&first);
    (Arc::new(crowd), stage)
}

/// All that the store has of a run.
async fn log(served: &Served, stage: &Stage) -> Vec<Event> {
    let mut all = Vec::new();
    loop {
        let asked =
            EventsAsked { run: stage.run, from: all.len() as u64, kinds: None, limit: 1_000, bytes_max: usize::MAX };
        let page = served.played.store.events(asked).await.unwrap().unwrap();
        if page.events.is_empty() {
            return all;
        }
        all.extend(page.events);
    }
}

/// Bytes of events that are held beside the store: each handle counts as if it were alone.
async fn held(crowd: &Crowd, stage: &Stage) -> usize {
    let log = log(&crowd.served, stage).await;
    // One is the store's, one is the list's.
    log.iter().map(|event| (Arc::strong_count(&event.body) - 2) * event.body.len()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_readers_each_get_exactly_the_log() {
    let files = trust_runtime::node::open_files();
    assert!(4 * READERS as u64 <= files, "this test opens two sockets for each reader, and may have {files} open");
    let (crowd, mut stage) = crowd().await;
    crowd.play(&mut stage, BEFORE - 1).await;
    let mut readers = JoinSet::new();
    let enter = |readers: &mut JoinSet<_>, numbers: std::ops::Range<usize>| {
        for number in numbers {
            let reader = Reader::new(crowd.clone(), number);
            let manner = reader.manner;
            readers.spawn(async move { (number, manner, reader.read().await) });
        }
    };
    enter(&mut readers, 0..READERS - LATE);
    crowd.play(&mut stage, MEANWHILE - BEFORE).await;
    let steady = (0..READERS - LATE).filter(|number| Manner::of(*number) == Manner::Steady).count();
    crowd.until_got(steady * MEANWHILE).await;
    crowd.play(&mut stage, EVENTS - MEANWHILE - 1).await;
    crowd.write(&[stage.last()]);
    stage.close().await;
    enter(&mut readers, READERS - LATE..READERS);

    let stuck = (0..READERS).filter(|number| Manner::of(*number) == Manner::Stuck).count();
    let mut cuts = 0;
    let finish = async {
        let mut done = 0;
        while done < READERS {
            if READERS - stuck <= done && !crowd.is_free.is_cancelled() {
                assert_held(held(&crowd, &stage).await, stuck);
                crowd.is_free.cancel();
            }
            let (number, manner, read) = readers.join_next().await.expect("as many as there are").expect("no panic");
            let connections = read.unwrap_or_else(|fault| panic!("reader {number}, {manner:?}: {fault}"));
            assert!(manner == Manner::Cutting || connections == 1, "reader {number}, {manner:?}");
            cuts += connections - 1;
            done += 1;
        }
    };
    tokio::time::timeout(PATIENCE * 6, finish).await.expect("all in time");
    assert!(100 < cuts, "{cuts} cuts");
    assert_reads(&crowd.served, cuts);
}

/// What all readers hold together: what they share, and a page for each that has stopped in the middle.
fn assert_held(held: usize, stuck: usize) {
    let shared = RING_BYTES_MAX + CACHE_BYTES_MAX + SEGMENT_BYTES_MAX;
    assert!(held <= shared + stuck * PAGE_BYTES, "{held} bytes for {stuck} readers who have stopped");
}

/// The store was read in pages, and each page for many readers at once; whoever comes back may need one for itself.
fn assert_reads(served: &Served, cuts: usize) {
    let reads = served.played.counted.reads.lock().unwrap();
    let is_page = |limit, bytes| limit <= usize::try_from(SEGMENT_MAX).unwrap() && bytes <= SEGMENT_BYTES_MAX;
    assert!(reads.iter().all(|read| is_page(read.limit, read.bytes_max)), "{reads:?}");
    // Each for itself would be a page of the log, forty, for each of a thousand.
    let alone = READERS * EVENTS / RING_MAX;
    assert!(reads.len() < alone / 20 + cuts, "{} reads, {cuts} cuts, and {alone} if each read for itself", reads.len());
}

/// RR-39.
#[tokio::test]
async fn pages_give_each_event_once() {
    let served = serve(|_| {}).await;
    let json = [("content-type".to_owned(), "application/json".to_owned())];
    let ended = ask(&served.base, "POST", "/agents/many/p", &json, Some("{\"n\":1500}")).await;
    let run = ended.headers["x-trust-run-id"].clone();
    let mut seen: Vec<u64> = Vec::new();
    loop {
        let after = seen.last().map(|last| format!("&after={last}")).unwrap_or_default();
        let page = ask(&served.base, "GET", &format!("/runs/{run}/events?limit=100{after}"), &[], None).await.json();
        let page: Vec<u64> =
            page["events"].as_array().unwrap().iter().filter_map(|event: &Json| event["eventIndex"].as_u64()).collect();
        if page.is_empty() {
            break;
        }
        seen.extend(page);
    }
    assert_eq!(seen, (0..1502).collect::<Vec<_>>());
}
