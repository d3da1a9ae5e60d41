//! Runs that are followed from another node: each event once, whatever becomes of the link and of the reader's connection.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::json;

use crate::harness::{Cluster, Running, SEEN_MAX, Setup};
use crate::proxy::Proxy;
use crate::runs::{await_status, declared, kind, tick};

/// How long a run may take with a cut in the middle.
const RUN_MAX: Duration = Duration::from_secs(90);

/// One who follows a run in the background.
pub(crate) struct Following {
    stream: TcpStream,
    text: Arc<Mutex<String>>,
    reading: JoinHandle<()>,
}

impl Following {
    /// Follows it through this node, behind this event if one is given.
    pub(crate) fn new(node: &Running, run: &str, last: Option<usize>) -> Self {
        let mut stream = TcpStream::connect(node.web()).expect("it listens");
        stream.set_read_timeout(Some(RUN_MAX)).expect("a time-out");
        let last = last.map(|last| format!("last-event-id: {last}\r\n")).unwrap_or_default();
        // Without chunks, so that what comes is the stream itself.
        let head = format!("GET /runs/{run}/stream HTTP/1.0\r\nhost: {}\r\n{last}\r\n", node.web());
        stream.write_all(head.as_bytes()).expect("sent");
        let text = Arc::<Mutex<String>>::default();
        let (mut source, sink) = (stream.try_clone().expect("a copy"), Arc::clone(&text));
        let reading = std::thread::spawn(move || {
            let mut buffer = [0; 16 * 1024];
            while let Ok(count @ 1..) = source.read(&mut buffer) {
                sink.lock().expect("no panic").push_str(std::str::from_utf8(&buffer[..count]).expect("ASCII"));
            }
        });
        Self { stream, text, reading }
    }

    /// The events so far that have come whole, heartbeats left out.
    pub(crate) fn frames(&self) -> Vec<String> {
        let text = self.text.lock().expect("no panic");
        let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let whole = body.rfind("\n\n").and_then(|end| body.get(..end)).unwrap_or_default();
        whole.split("\n\n").filter(|frame| !frame.is_empty() && !frame.starts_with(':')).map(str::to_owned).collect()
    }

    #[track_caller]
    pub(crate) fn until(&self, node: &Running, count: usize) {
        node.wait_until(&format!("{count} events"), SEEN_MAX, |_| match self.frames().len() {
            found if count <= found => Ok(()),
            found => Err(format!("{found} in {:?}", self.text)),
        });
    }

    /// Hangs up.
    fn leave(self) -> Vec<String> {
        self.stream.shutdown(Shutdown::Both).expect("open");
        self.reading.join().expect("no panic");
        Self { reading: std::thread::spawn(|| ()), ..self }.frames()
    }

    /// Everything, once the node has closed the stream.
    pub(crate) fn finish(self) -> Vec<String> {
        self.reading.join().expect("no panic");
        Self { reading: std::thread::spawn(|| ()), ..self }.frames()
    }
}

#[test]
fn a_stream_from_another_node_has_each_event_once_across_a_cut_and_across_a_reconnect() {
    let cluster = Cluster::new();
    let b = cluster.play("b", Setup::new().with(declared()));
    let proxy = Proxy::to(b.mesh().parse().expect("an address"));
    let a = cluster.play("a", Setup::new().dialling_address(proxy.address()));
    a.await_lifecycle("b", "online");
    b.await_lifecycle("a", "online");
    let run = tick(&a, "cut", &json!({ "n": 2_000, "ms": 5 }));
    let (near, far, leaving) =
        (Following::new(&b, &run, None), Following::new(&a, &run, None), Following::new(&a, &run, None));
    far.until(&a, 20);
    leaving.until(&a, 20);
    let before = leaving.leave();

    proxy.cut();
    a.await_lifecycle("b", "partitioned");
    let refused = a.get(&format!("/runs/{run}/stream"));
    assert_eq!((refused.status, kind(&refused)), (503, "run_owner_unreachable"), "{}", refused.text);
    assert_eq!(refused.text_at("/error/meta/run/runId"), run);
    let seen = far.frames().len();
    near.until(&b, seen + 100);
    proxy.heal();
    a.await_lifecycle("b", "online");
    let back = Following::new(&a, &run, Some(before.len() - 1));

    b.wait_until("the run has ended", RUN_MAX, |b| {
        let answer = b.try_get(&format!("/runs/{run}"))?;
        if answer.body["status"] == "completed" { Ok(()) } else { Err(answer.text) }
    });
    let whole = near.finish();
    assert_eq!(whole.len(), 2_002);
    for (frame, index) in whole.iter().zip(0..) {
        assert!(frame.contains(&format!("\nid: {index}\n")), "{index}: {frame}");
    }
    let far = far.finish();
    assert!(far == whole, "{} events, the last {:?}", far.len(), far.last());
    assert_eq!(whole.get(..before.len()), Some(before.as_slice()));
    let back = back.finish();
    assert!(whole.get(before.len()..) == Some(back.as_slice()), "{} events behind {}", back.len(), before.len());
    await_status(&a, &run, "completed");
}
