//! A link as Zenoh uses it.

use std::fmt;
use std::io;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf, split};
use tokio::sync::Mutex;
use tokio::time::timeout;
use zenoh_link_commons::{LinkAuthId, LinkUnicastTrait};
use zenoh_protocol::core::{Locator, Priority};
use zenoh_protocol::transport::BatchSize;
use zenoh_result::{ZResult, zerror};

use crate::UNIXSOCKSTREAM_LOCATOR_PREFIX as PROTOCOL;
use crate::door::Stream;

/// How long what was said last may take to leave when a link is closed: its other end may not listen any more.
const CLOSE_MAX: Duration = Duration::from_millis(100);

/// One stream, of which one task reads and another one writes.
pub(crate) struct Link {
    reading: Mutex<ReadHalf<Box<dyn Stream>>>,
    writing: Mutex<WriteHalf<Box<dyn Stream>>>,
    near: Locator,
    far: Locator,
}

impl Link {
    /// `near` and `far` tell its ends apart from those of all other links of this process.
    pub(crate) fn new(stream: Box<dyn Stream>, near: u64, far: u64) -> io::Result<Self> {
        let (near, far) = (locator(near)?, locator(far)?);
        let (reading, writing) = split(stream);
        Ok(Self { reading: Mutex::new(reading), writing: Mutex::new(writing), near, far })
    }

    fn failed(&self, what: &str, error: &io::Error) -> zenoh_result::Error {
        zerror!("{what} of link {self}: {error}").into()
    }
}

/// A place of this process as Zenoh writes it.
fn locator(number: u64) -> io::Result<Locator> {
    Locator::new(PROTOCOL, number.to_string(), "").map_err(io::Error::other)
}

#[async_trait]
impl LinkUnicastTrait for Link {
    fn get_mtu(&self) -> BatchSize {
        BatchSize::MAX
    }

    fn get_src(&self) -> &Locator {
        &self.near
    }

    fn get_dst(&self) -> &Locator {
        &self.far
    }

    fn is_reliable(&self) -> bool {
        true
    }

    fn is_streamed(&self) -> bool {
        true
    }

    fn get_interface_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn get_auth_id(&self) -> &LinkAuthId {
        &LinkAuthId::UnixsockStream
    }

    async fn write(&self, buffer: &[u8], _: Option<Priority>) -> ZResult<usize> {
        self.write_all(buffer, None).await.map(|()| buffer.len())
    }

    async fn write_all(&self, buffer: &[u8], _: Option<Priority>) -> ZResult<()> {
        let mut writing = self.writing.lock().await;
        let written = async {
            writing.write_all(buffer).await?;
            // A stream may keep what it has taken until it is told that this was all for now.
            writing.flush().await
        };
        written.await.map_err(|error| self.failed("writing", &error))
    }

    async fn read(&self, buffer: &mut [u8], _: Option<Priority>) -> ZResult<usize> {
        self.reading.lock().await.read(buffer).await.map_err(|error| self.failed("reading", &error))
    }

    async fn read_exact(&self, buffer: &mut [u8], _: Option<Priority>) -> ZResult<()> {
        let read = self.reading.lock().await.read_exact(buffer).await;
        read.map(drop).map_err(|error| self.failed("reading", &error))
    }

    async fn close(&self) -> ZResult<()> {
        let said = async { self.writing.lock().await.shutdown().await };
        match timeout(CLOSE_MAX, said).await {
            Ok(ended) => ended.map_err(|error| self.failed("the end", &error)),
            Err(_elapsed) => Ok(()),
        }
    }
}

impl fmt::Display for Link {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} => {}", self.near, self.far)
    }
}
