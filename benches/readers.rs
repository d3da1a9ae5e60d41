//! Readers of a stream over real sockets, many at once, and what they cost the process that serves them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use crate::chunks::Chunks;
use crate::stand::Outcome;
use crate::stand::rows::micros;

/// So that what a stalled reader does not take stays with who serves it.
const STALLED_RECEIVE_BYTES: u32 = 8 * 1024;

/// Readers who have asked and have no answer yet: half of what a node works on at once, beyond which it answers 503.
const ARRIVING_MAX: usize = 256;

/// How often the kernel counts the processor's time, for programs: 100 a second on every Linux that Rust runs on.
const MICROS_PER_TICK: f64 = 10_000.0;

/// A stream, and who serves it.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) address: String,
    pub(super) path: String,
    pub(super) process: u32,
}

/// One who reads.
struct Reader {
    stream: TcpStream,
    chunks: Chunks,
    buffer: Vec<u8>,
    /// Given back when the answer has begun.
    arriving: Option<OwnedSemaphorePermit>,
}

impl Reader {
    async fn connect(source: &Source, door: Arc<Semaphore>, receive_bytes: Option<u32>) -> Result<Self, String> {
        let arriving = Some(door.acquire_owned().await.map_err(text)?);
        let socket = TcpSocket::new_v4().map_err(text)?;
        if let Some(bytes) = receive_bytes {
            socket.set_recv_buffer_size(bytes).map_err(text)?;
        }
        let mut stream = socket.connect(source.address.parse().map_err(text)?).await.map_err(text)?;
        let (path, host) = (&source.path, &source.address);
        let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\n\r\n");
        stream.write_all(head.as_bytes()).await.map_err(text)?;
        Ok(Self { stream, chunks: Chunks::new(), buffer: vec![0; 64 * 1024], arriving })
    }

    /// Takes what is there, at least something.
    async fn take(&mut self, take: impl FnMut(&[u8])) -> Result<(), String> {
        let count = self.stream.read(&mut self.buffer).await.map_err(text)?;
        if count == 0 {
            return Err(format!("cut off: {}", self.chunks.head()));
        }
        self.chunks.feed(&self.buffer[..count], take);
        if self.chunks.is_refused() {
            return Err(format!("refused: {}", self.chunks.head()));
        }
        self.arriving.take_if(|_| self.chunks.has_begun());
        Ok(())
    }

    /// Takes the stream to its end.
    async fn read(mut self, mut take: impl FnMut(&[u8])) -> Result<(), String> {
        while !self.chunks.is_over() {
            self.take(&mut take).await?;
        }
        Ok(())
    }
}

fn door() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(ARRIVING_MAX))
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// The whole stream.
pub(super) async fn whole(source: &Source) -> Outcome<Vec<u8>> {
    let mut body = Vec::new();
    Reader::connect(source, door(), None).await?.read(|data| body.extend_from_slice(data)).await?;
    Ok(body)
}

/// What reading took, in microseconds per reader.
pub(super) struct Taken {
    /// By the clock on the wall: readers and server share the processors.
    pub(super) time: f64,
    /// Of the processors, by the server alone.
    pub(super) work: f64,
}

/// So many readers at once, each from its connection to the end of a stream of so many bytes.
pub(super) async fn crowd(source: &Source, readers: usize, bytes: usize) -> Outcome<Taken> {
    let files = files(source.process)?;
    let (begin, worked) = (Instant::now(), work(source.process)?);
    let (mut all, door) = (JoinSet::new(), door());
    for _ in 0..readers {
        let (source, door) = (source.clone(), door.clone());
        all.spawn(async move {
            let mut got = 0;
            Reader::connect(&source, door, None).await?.read(|data| got += data.len()).await?;
            if got == bytes { Ok(()) } else { Err(format!("{got} of {bytes} bytes")) }
        });
    }
    while let Some(read) = all.join_next().await {
        read??;
    }
    let (time, work) = (micros(begin.elapsed()), work(source.process)? - worked);
    until_gone(source.process, files).await?;
    Ok(Taken { time: time / readers as f64, work: work / readers as f64 })
}

/// KiB of the server's own memory for each of so many readers, all of whom stopped behind the first bytes.
pub(super) async fn held(source: &Source, readers: usize) -> Outcome<f64> {
    let files = files(source.process)?;
    let before = settled(source.process).await?;
    let (mut all, door) = (JoinSet::new(), door());
    for _ in 0..readers {
        let (source, door) = (source.clone(), door.clone());
        all.spawn(async move {
            let mut reader = Reader::connect(&source, door, Some(STALLED_RECEIVE_BYTES)).await?;
            let mut got = 0;
            while got == 0 {
                reader.take(|data| got += data.len()).await?;
            }
            Ok::<_, String>(reader)
        });
    }
    let mut stalled = Vec::new();
    while let Some(reader) = all.join_next().await {
        stalled.push(reader??);
    }
    let held = settled(source.process).await?;
    // All of them are still served, or it was not they who were measured.
    for reader in &mut stalled {
        reader.take(|_| ()).await?;
        if reader.chunks.is_over() {
            return Err("a reader got everything while it was stopped: the stream is too short".into());
        }
    }
    drop(stalled);
    until_gone(source.process, files).await?;
    Ok((held - before) / readers as f64)
}

/// Waits until a server has closed what a crowd has left, so that the next one finds as many places.
async fn until_gone(process: u32, before: usize) -> Outcome<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while before < files(process)? {
        if deadline < Instant::now() {
            return Err("the server keeps connections that nobody reads".into());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// How many files a process has open.
fn files(process: u32) -> Outcome<usize> {
    Ok(std::fs::read_dir(format!("/proc/{process}/fd"))?.count())
}

/// KiB of a process that no other shares, once they do not change any more.
async fn settled(process: u32) -> Outcome<f64> {
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut last = private(process)?;
    let mut same = 0;
    while same < 3 {
        if deadline < Instant::now() {
            return Err("the memory of the server does not settle".into());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = private(process)?;
        same = if (now - last).abs() <= 0.01 * last { same + 1 } else { 0 };
        last = now;
    }
    Ok(last)
}

fn private(process: u32) -> Outcome<f64> {
    let rollup = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
    let rows = rollup.lines().filter_map(|line| line.strip_prefix("Private_")?.split_whitespace().nth(1));
    let kib = rows.map(str::parse::<f64>).sum::<Result<f64, _>>()?;
    if kib == 0.0 { Err("no memory of its own".into()) } else { Ok(kib) }
}

/// Microseconds of the processors that a process has had.
fn work(process: u32) -> Outcome<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // Behind the name, which may hold anything: the state, ten numbers, then the ticks in the program and in the kernel.
    let (_, behind) = stat.rsplit_once(')').ok_or("a name in parentheses")?;
    let ticks = behind.split_whitespace().skip(11).take(2).map(str::parse::<f64>).sum::<Result<f64, _>>()?;
    Ok(ticks * MICROS_PER_TICK)
}
