//! The doors of this process, by number.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncRead, AsyncWrite, duplex};
use zenoh_link_commons::{LinkUnicast, NewLinkChannelSender};

use crate::UNIXSOCKSTREAM_LOCATOR_PREFIX as PROTOCOL;
use crate::link::Link;

/// Bytes on their way between two sessions of this process, in each direction: two of Zenoh's largest batches.
const BETWEEN: usize = 2 * 64 * 1_024;

/// What a link speaks over: bytes that come whole and in order, until either end has enough.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for S {}

/// A stream on its way. It may be dropped at any time.
pub type Opening = Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send>>;

type Dial = Arc<dyn Fn() -> Opening + Send + Sync>;

/// A place in this process that Zenoh dials or listens at. Nobody finds it once it is dropped; links stay.
#[derive(Debug)]
pub struct Door(u64);

/// What is behind a door.
#[derive(Clone)]
enum Behind {
    /// Zenoh goes out here.
    Outward(Dial),
    /// Whoever comes in here is met by the session that listens, if there is one.
    Inward(Option<NewLinkChannelSender>),
}

struct Doors {
    next: u64,
    open: BTreeMap<u64, Behind>,
}

static DOORS: Mutex<Doors> = Mutex::new(Doors { next: 0, open: BTreeMap::new() });

fn doors() -> MutexGuard<'static, Doors> {
    DOORS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Doors {
    /// Numbers are never given twice, so that no two links of a process have the same ends.
    fn number(&mut self) -> u64 {
        let number = self.next;
        self.next = number.wrapping_add(1);
        number
    }
}

impl Door {
    /// A door to dial: what it gives is asked for each time that Zenoh wants a link.
    pub fn outward(dial: impl Fn() -> Opening + Send + Sync + 'static) -> Self {
        Self::open(Behind::Outward(Arc::new(dial)))
    }

    /// A door to listen at, for one session.
    pub fn inward() -> Self {
        Self::open(Behind::Inward(None))
    }

    fn open(behind: Behind) -> Self {
        let mut doors = doors();
        let number = doors.number();
        doors.open.insert(number, behind);
        Self(number)
    }

    /// The door as Zenoh's configuration names it.
    pub fn locator(&self) -> String {
        format!("{PROTOCOL}/{}", self.0)
    }

    /// Brings somebody to the session that listens at this door. Waits for as long as that session has enough new links.
    ///
    /// # Errors
    /// `ConnectionRefused` if no session listens.
    pub async fn let_in(&self, stream: Box<dyn Stream>) -> io::Result<()> {
        let Some(Behind::Inward(Some(listening))) = behind(self.0) else { return Err(nobody()) };
        meet(&listening, self.0, stream).await
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let behind = doors().open.remove(&self.0);
        // Not under the lock: with it may go what holds other doors.
        drop(behind);
    }
}

impl fmt::Debug for Behind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Outward(_) => "Outward",
            Self::Inward(_) => "Inward",
        })
    }
}

/// The number in a locator's address.
pub(crate) fn parse(address: &str) -> io::Result<u64> {
    address.parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, format!("{address}: {error}")))
}

/// A link through a door, as Zenoh asks for it.
///
/// A door to listen at is dialled as well: by another session of this process, without a way in between.
pub(crate) async fn dial(number: u64) -> io::Result<Link> {
    let stream = match behind(number) {
        Some(Behind::Outward(dial)) => dial().await?,
        Some(Behind::Inward(Some(listening))) => {
            let (near, far) = duplex(BETWEEN);
            meet(&listening, number, Box::new(far)).await?;
            Box::new(near)
        }
        Some(Behind::Inward(None)) | None => return Err(nobody()),
    };
    let own = doors().number();
    Link::new(stream, own, number)
}

/// From now on a session listens at this door.
pub(crate) fn listen(number: u64, session: NewLinkChannelSender) -> io::Result<()> {
    match doors().open.get_mut(&number) {
        Some(Behind::Inward(listening @ None)) => *listening = Some(session),
        Some(Behind::Inward(Some(_))) => return Err(io::ErrorKind::AddrInUse.into()),
        Some(Behind::Outward(_)) | None => return Err(io::ErrorKind::AddrNotAvailable.into()),
    }
    Ok(())
}

/// From now on nobody listens at this door.
pub(crate) fn ignore(number: u64) {
    if let Some(Behind::Inward(listening)) = doors().open.get_mut(&number) {
        *listening = None;
    }
}

fn behind(number: u64) -> Option<Behind> {
    doors().open.get(&number).cloned()
}

async fn meet(listening: &NewLinkChannelSender, door: u64, stream: Box<dyn Stream>) -> io::Result<()> {
    let other = doors().number();
    let link: Arc<dyn zenoh_link_commons::LinkUnicastTrait> = Arc::new(Link::new(stream, door, other)?);
    listening.send_async(LinkUnicast::from(link)).await.map_err(|_closed| nobody())
}

fn nobody() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionRefused, "no session listens here")
}
