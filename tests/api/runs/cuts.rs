//! Connections that are cut at every byte of a run's stream, in both forms: whoever goes on with what it has gets exactly the log.
//!
//! The reader follows the rules of its form alone. As one of server-sent events it throws away an event whose blank line has not
//! come, with its id; as one of lines it throws away what has no line break yet. What it is held against is what the store has.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use trust_runtime::domain::run::Kind;
use trust_runtime::store::runs::{EventsAsked, RunStore as _};
use trust_runtime::web::Rate;

use super::http::Frame;
use super::played::Stage;
use super::{Served, serve};
use crate::sockets::PATIENCE;

/// The two forms by their media types.
const ACCEPT: [&str; 2] = ["text/event-stream", "application/x-ndjson"];

/// Readers at one time.
const AT_ONCE: usize = 128;

/// One reader: what it has, and what has come of what comes next.
#[derive(Debug, Clone, Default)]
struct Reader {
    form: usize,
    /// The number of the last event that it has.
    last: Option<String>,
    seen: Vec<Frame>,
    /// Errors that it was told.
    errors: usize,
    line: Vec<u8>,
    event: String,
    data: String,
    id: Option<String>,
}

impl Reader {
    fn new(form: usize) -> Self {
        Self { form, ..Self::default() }
    }

    fn take(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            if self.line.pop_if(|last| *last == b'\n').is_some() {
                let line = String::from_utf8(std::mem::take(&mut self.line)).expect("whole lines, whole characters");
                if self.form == 0 { self.take_field(&line) } else { self.take_line(&line) }
            }
        }
    }

    /// One line of server-sent events.
    fn take_field(&mut self, line: &str) {
        if line.is_empty() {
            self.last.clone_from(&self.id);
            let (event, data) = (std::mem::take(&mut self.event), std::mem::take(&mut self.data));
            match event.as_str() {
                _ if data.is_empty() => {}
                "error" => self.errors += 1,
                _ => self.seen.push(Frame { event, id: self.id.clone().unwrap_or_default(), data }),
            }
            return;
        }
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "event" => value.clone_into(&mut self.event),
            "data" => self.data.push_str(value),
            "id" => self.id = Some(value.to_owned()),
            _ => assert_eq!(name, "", "a field that is none: {line:?}"),
        }
    }

    /// One line of JSON: an event, an error, or nothing at all.
    fn take_line(&mut self, line: &str) {
        if line.is_empty() {
            return;
        }
        let json: Json = serde_json::from_str(line).expect(line);
        let Some(id) = json["eventIndex"].as_u64().map(|index| index.to_string()) else {
            assert!(json["error"].is_object(), "neither an event nor an error: {line}");
            self.errors += 1;
            return;
        };
        let event = json["type"].as_str().expect("a type").to_owned();
        self.last = Some(id.clone());
        self.seen.push(Frame { event, id, data: line.to_owned() });
    }

    /// What came in part is gone with its connection.
    fn forget_parts(&mut self) {
        let (last, seen) = (self.last.take(), std::mem::take(&mut self.seen));
        *self = Self { form: self.form, id: last.clone(), last, seen, errors: self.errors, ..Self::default() };
    }

    /// Goes on with what it has, for so many bytes at most, and counts those that came. The permit tells that the answer has
    /// begun.
    async fn read(&mut self, place: &Place, most: usize, has_begun: &Semaphore) -> usize {
        let mut stream = TcpStream::connect(&place.base).await.expect("listening");
        let last = self.last.iter().map(|last| format!("Last-Event-ID: {last}\r\n")).collect::<String>();
        let (run, accept) = (&place.run, ACCEPT[self.form]);
        // Without chunks, so that what comes is the stream itself.
        let head = format!("GET /runs/{run}/stream HTTP/1.0\r\nHost: {}\r\nAccept: {accept}\r\n{last}\r\n", place.base);
        stream.write_all(head.as_bytes()).await.expect("sent");
        let mut stream = BufReader::with_capacity(16 * 1_024, stream);
        let (mut head, mut count) = (Vec::new(), 0);
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("a head"));
        }
        assert!(head.starts_with(b"HTTP/1.0 200 "), "{}", String::from_utf8_lossy(&head));
        has_begun.add_permits(1);
        while count < most {
            let came = stream.fill_buf().await.expect("no reset");
            let taken = came.len().min(most - count);
            if taken == 0 {
                break;
            }
            self.take(&came[..taken]);
            stream.consume(taken);
            count += taken;
        }
        self.forget_parts();
        count
    }
}

/// Where the run is.
#[derive(Debug)]
struct Place {
    base: String,
    run: String,
}

/// A node that is asked a few thousand times, with a run of which nothing has been said.
async fn begun(heartbeat: Duration) -> (Served, Stage, Arc<Place>) {
    let served = serve(|options| {
        // Who has gone away keeps a place until that is noticed.
        options.limits.connections_max = 2_000;
        options.limits.requests_max = 2_000;
        options.limits.streams_max = 2_000;
        options.limits.streams_of_one_max = 2_000;
        options.limits.reads = Rate::of(100_000);
        options.limits.heartbeat = heartbeat;
    })
    .await;
    let stage = served.played.open("many").await;
    let place = Place { base: served.base.clone(), run: stage.run.to_string() };
    (served, stage, Arc::new(place))
}

/// What a program can say, each kind once: short, with characters of several bytes and with what ends a frame.
fn sayings() -> Vec<Json> {
    let said = Kind::ALL.into_iter().filter(|kind| kind.may_be_said());
    let mut said: Vec<_> = said.map(|kind| json!({ "type": kind.as_str() })).collect();
    said.push(json!({ "type": "log", "level": "info", "message": "größer\n\nid: 99\ndata: 工\r\n" }));
    said
}

/// The log as the store has it.
async fn log(served: &Served, stage: &Stage) -> Vec<Frame> {
    let asked = EventsAsked { run: stage.run, from: 0, kinds: None, limit: 1_000, bytes_max: usize::MAX };
    let page = served.played.store.events(asked).await.expect("read").expect("there");
    let frame = |it: &trust_runtime::domain::run::Event| Frame {
        event: it.kind.as_str().to_owned(),
        id: it.index.to_string(),
        data: it.body.to_string(),
    };
    page.events.iter().map(frame).collect()
}

/// How many bytes events take in a form.
fn length(form: usize, log: &[Frame]) -> usize {
    let text = |it: &Frame| match form {
        0 => format!("event: {}\nid: {}\ndata: {}\n\n", it.event, it.id, it.data),
        _ => format!("{}\n", it.data),
    };
    log.iter().map(|it| text(it).len()).sum()
}

/// Readers who were cut off behind so many bytes, each at another one.
async fn cut_off(place: &Arc<Place>, form: usize, bytes: Range<usize>) -> Vec<Reader> {
    let mut readers = JoinSet::new();
    for most in bytes {
        let place = Arc::clone(place);
        readers.spawn(async move {
            let mut reader = Reader::new(form);
            let count = reader.read(&place, most, &Semaphore::new(0)).await;
            assert_eq!(count, most, "the stream has ended before it was cut");
            reader
        });
    }
    tokio::time::timeout(PATIENCE, readers.join_all()).await.expect("there are so many bytes")
}

/// Readers who go on with what they have; they have all been answered when this is over.
async fn gone_on(place: &Arc<Place>, readers: Vec<Reader>) -> JoinSet<Reader> {
    let (mut going, count) = (JoinSet::new(), u32::try_from(readers.len()).expect("few"));
    let has_begun = Arc::new(Semaphore::new(0));
    for mut reader in readers {
        let (place, has_begun) = (Arc::clone(place), Arc::clone(&has_begun));
        going.spawn(async move {
            reader.read(&place, usize::MAX, &has_begun).await;
            reader
        });
    }
    drop(tokio::time::timeout(PATIENCE, has_begun.acquire_many(count)).await.expect("answered"));
    going
}

/// Each has the whole log, nothing twice and nothing lost.
async fn assert_whole(log: &[Frame], going: JoinSet<Reader>) {
    let readers =
        tokio::time::timeout(PATIENCE, going.join_all()).await.expect("the run has ended, and its streams too");
    for reader in readers {
        let ids: Vec<_> = reader.seen.iter().map(|it| it.id.as_str()).collect();
        assert!(reader.seen == log, "wanted {} events, got {ids:?}: {:?}", log.len(), reader.seen);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_cut_off_at_any_byte_of_a_run_that_has_ended_gets_exactly_the_log() {
    let (served, mut stage, place) = begun(PATIENCE).await;
    for said in sayings() {
        say(&mut stage, &said).await;
    }
    stage.idle().await;
    stage.close().await;
    let log = log(&served, &stage).await;
    let kinds: BTreeSet<_> = log.iter().map(|it| it.event.as_str()).collect();
    assert_eq!(kinds, Kind::ALL.iter().map(|kind| kind.as_str()).collect(), "each kind of event is in it");
    for form in 0..ACCEPT.len() {
        let whole = length(form, &log);
        assert_eq!(Reader::new(form).read(&place, usize::MAX, &Semaphore::new(0)).await, whole);
        for first in (0..=whole).step_by(AT_ONCE) {
            let readers = cut_off(&place, form, first..(whole + 1).min(first + AT_ONCE)).await;
            assert_whole(&log, gone_on(&place, readers).await).await;
        }
    }
}

/// Cut off at these bytes while the run goes on: one event more comes while they are away and the rest when they are back, so
/// that a part of what they lack is replayed and a part is new. Whether the run had so many bytes before its end.
async fn cut_off_meanwhile(served: &Served, form: usize, bytes: Range<usize>) -> bool {
    let mut stage = served.played.open("many").await;
    let place = Arc::new(Place { base: served.base.clone(), run: stage.run.to_string() });
    let mut sayings = sayings().into_iter();
    let mut there = length(form, &log(served, &stage).await);
    while there < bytes.end {
        let Some(said) = sayings.next() else { break };
        say(&mut stage, &said).await;
        there = length(form, &log(served, &stage).await);
    }
    let readers = cut_off(&place, form, bytes.start..bytes.end.min(there + 1)).await;
    for said in sayings.by_ref().take(1) {
        say(&mut stage, &said).await;
    }
    let going = gone_on(&place, readers).await;
    finish(served, &mut stage, sayings.collect(), going).await;
    bytes.end <= there
}

/// What is left is said, and the run ends.
async fn finish(served: &Served, stage: &mut Stage, left: Vec<Json>, going: JoinSet<Reader>) {
    for said in left {
        say(stage, &said).await;
        tokio::task::yield_now().await;
    }
    stage.idle().await;
    stage.close().await;
    assert_whole(&log(served, stage).await, going).await;
}

async fn say(stage: &mut Stage, said: &Json) {
    let event = stage.event(said, 0);
    stage.append_all(vec![event]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_cut_off_at_any_byte_of_a_run_that_goes_on_gets_exactly_the_log() {
    let (served, _, _) = begun(PATIENCE).await;
    for form in 0..ACCEPT.len() {
        let mut first = 0;
        while cut_off_meanwhile(&served, form, first..first + AT_ONCE).await {
            first += AT_ONCE;
        }
        assert!(1_500 < first, "{first} bytes were tried");
    }
}

/// What is no event of the run: a sign of life in silence, and the word that the stream breaks off.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_cut_off_at_any_byte_of_what_is_no_event_gets_exactly_the_log() {
    for (form, heartbeat) in [": heartbeat\n\n", "\n"].into_iter().enumerate() {
        let (served, mut stage, place) = begun(Duration::from_millis(20)).await;
        let there = length(form, &log(&served, &stage).await);
        let readers = cut_off(&place, form, there..there + 2 * heartbeat.len() + 1).await;
        let going = gone_on(&place, readers).await;
        finish(&served, &mut stage, sayings(), going).await;

        let mut stage = served.played.open("many").await;
        let place = Arc::new(Place { base: served.base.clone(), run: stage.run.to_string() });
        for said in sayings().iter().take(3) {
            say(&mut stage, said).await;
        }
        let there = length(form, &log(&served, &stage).await);
        served.played.is_breaking.store(true, Ordering::Relaxed);
        let whole = Reader::new(form).read(&place, usize::MAX, &Semaphore::new(0)).await;
        assert!(there + 50 < whole, "{whole} bytes, {there} of them events: there is no error");
        let readers = cut_off(&place, form, there..whole + 1).await;
        assert_eq!(readers.iter().map(|it| it.errors).sum::<usize>(), 1, "who has it whole is told, and nobody else");
        served.played.is_breaking.store(false, Ordering::Relaxed);
        let going = gone_on(&place, readers).await;
        finish(&served, &mut stage, sayings(), going).await;
    }
}
