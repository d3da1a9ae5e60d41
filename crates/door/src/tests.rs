//! What Zenoh and the program may count on.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufWriter, DuplexStream, duplex};
use tokio::time::timeout;
use zenoh_link_commons::{LinkManagerUnicastTrait as _, LinkUnicast, LinkUnicastTrait};
use zenoh_protocol::core::EndPoint;

use crate::link::Link;
use crate::{Door, LinkManagerUnicastUnixSocketStream as Manager};

/// Longer than any of these takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(20);

fn endpoint(door: &Door) -> EndPoint {
    door.locator().parse().expect("a locator")
}

/// A session: what it asks for links, and the links that come to it.
fn session() -> (Manager, flume::Receiver<LinkUnicast>) {
    let (meets, comes) = flume::bounded(4);
    (Manager::new(meets), comes)
}

/// A door that leads to whoever has the other end.
fn way_out(stream: DuplexStream) -> Door {
    let stream = std::sync::Mutex::new(Some(stream));
    Door::outward(move || {
        let stream = stream.lock().expect("not poisoned").take();
        Box::pin(async move { Ok(Box::new(stream.ok_or(ErrorKind::ConnectionRefused)?) as Box<dyn crate::Stream>) })
    })
}

async fn come<T>(receiver: &flume::Receiver<T>) -> T {
    timeout(DEADLINE, receiver.recv_async()).await.expect("in time").expect("somebody")
}

#[tokio::test]
async fn bytes_go_both_ways_between_a_session_and_what_is_behind_its_door() {
    let (near, mut far) = duplex(64);
    let door = way_out(near);
    let link = session().0.new_link(endpoint(&door)).await.expect("dialled");
    link.write_all(b"hello", None).await.expect("written");
    let mut heard = [0; 5];
    far.read_exact(&mut heard).await.expect("read");
    assert_eq!(&heard, b"hello");
    far.write_all(b"there").await.expect("written");
    link.read_exact(&mut heard, None).await.expect("read");
    assert_eq!(&heard, b"there");
    drop(far);
    assert!(link.read_exact(&mut heard, None).await.is_err(), "the other end is gone");
    assert!(session().0.new_link(endpoint(&door)).await.is_err(), "what the door says counts each time");
}

#[tokio::test]
async fn who_is_let_in_is_met_by_the_session_that_listens_and_by_no_other() {
    let door = Door::inward();
    let let_in = async || door.let_in(Box::new(duplex(64).0)).await.map_err(|error| error.kind());
    assert_eq!(let_in().await, Err(ErrorKind::ConnectionRefused), "nobody listens");
    let (manager, comes) = session();
    manager.new_listener(endpoint(&door)).await.expect("listens");
    assert!(session().0.new_listener(endpoint(&door)).await.is_err(), "one session alone");
    assert_eq!(manager.get_locators().await, [endpoint(&door).to_locator()]);
    assert_eq!(let_in().await, Ok(()));
    assert_eq!(come(&comes).await.get_src().as_str(), door.locator());
    manager.del_listener(&endpoint(&door)).await.expect("ends");
    assert_eq!(let_in().await, Err(ErrorKind::ConnectionRefused));

    // The next one takes its place, and leaves it when it is dropped.
    let (next, _comes) = session();
    next.new_listener(endpoint(&door)).await.expect("listens");
    drop(next);
    manager.new_listener(endpoint(&door)).await.expect("listens again");
}

#[tokio::test]
async fn two_sessions_of_a_process_meet_without_a_way_in_between() {
    let door = Door::inward();
    let ((at_home, comes), (guest, _)) = (session(), session());
    at_home.new_listener(endpoint(&door)).await.expect("listens");
    let near = guest.new_link(endpoint(&door)).await.expect("dialled");
    let far = come(&comes).await;
    near.write_all(b"here", None).await.expect("written");
    let mut heard = [0; 4];
    far.read_exact(&mut heard, None).await.expect("read");
    assert_eq!(&heard, b"here");
    let again = guest.new_link(endpoint(&door)).await.expect("dialled");
    assert!(near != again && far != near, "no two links have the same ends");
}

#[tokio::test]
async fn nobody_finds_a_door_that_is_closed_or_never_was() {
    let door = Door::inward();
    let gone = endpoint(&door);
    let (manager, _comes) = session();
    manager.new_listener(gone.clone()).await.expect("listens");
    drop(door);
    assert!(manager.new_link(gone.clone()).await.is_err() && session().0.new_listener(gone).await.is_err());
    for address in ["unixsock-stream/18446744073709551615", "unixsock-stream/-1", "unixsock-stream//tmp/x"] {
        assert!(manager.new_link(address.parse().expect("a locator")).await.is_err(), "{address}");
    }
    let outward = way_out(duplex(64).0);
    assert!(manager.new_listener(endpoint(&outward)).await.is_err(), "to dial, not to listen at");
}

/// What is behind a door may hold other doors: closing all of them waits for nobody.
#[test]
fn a_door_goes_with_the_one_that_holds_it() {
    let (ended, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let inner = Arc::new(Door::inward());
        let outer = Door::outward(move || {
            let _held = &inner;
            Box::pin(async { Err(ErrorKind::ConnectionRefused.into()) })
        });
        drop(outer);
        ended.send(()).expect("waited for");
    });
    end.recv_timeout(DEADLINE).expect("closed");
}

#[tokio::test]
async fn what_is_written_leaves_though_the_stream_keeps_what_it_takes() {
    let (near, mut far) = duplex(1_024);
    let link = Link::new(Box::new(BufWriter::new(near)), 1, 2).expect("a link");
    link.write_all(b"now", None).await.expect("written");
    let mut heard = [0; 3];
    timeout(DEADLINE, far.read_exact(&mut heard)).await.expect("it does not wait for more").expect("read");
}

#[tokio::test]
async fn a_link_is_closed_though_nobody_reads_it() {
    let (near, far) = duplex(8);
    let link = Link::new(Box::new(near), 1, 2).expect("a link");
    let mut stuck = link.write_all(&[0; 1_024], None);
    let is_stuck = poll_fn(|context| Poll::Ready(stuck.as_mut().poll(context).is_pending())).await;
    assert!(is_stuck, "there is no room for all of it");
    timeout(DEADLINE, link.close()).await.expect("closed in time").expect("no fault of the link");
    drop(far);
    assert!(timeout(DEADLINE, stuck).await.expect("ended").is_err());
}
